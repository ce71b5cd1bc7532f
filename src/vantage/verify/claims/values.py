"""Sections 6.3 to 6.6: V, Q, A and the TD error, as expectations and as samples."""

import numpy as np

from vantage import mdp
from vantage.mdp.classics import corridor_policy, two_state, two_state_policy
from vantage.theory import psi
from vantage.verify import textbook
from vantage.verify.claim import claim, equal, zero
from vantage.verify.estimates import conditional_mean
from vantage.verify.worlds import CRITICS, DETERMINISTIC, ERROR, GAMMA, HORIZON, PI, TWO, V, every_trajectory

SHAPE = (HORIZON, 2, 2)
PATHS = textbook.paths(TWO, PI, HORIZON)
TOGO = textbook.conditional_mean(PATHS, textbook.Weigher(GAMMA, V).togo, SHAPE)
"""E[G_t | s_t, a_t], by listing and averaging."""


@claim("6.3.state-value", "V_π(s_t) = E[G_t | s_t]")
def state_value():
    """What is solved for is the conditional mean of what is sampled."""
    yield equal(np.einsum("tsa,sa->ts", TOGO, PI), mdp.state_values(TWO, PI, HORIZON)[:-1])


@claim("6.3.bellman", "V_π(s) = E_{a∼π} E_{s'∼P}[R(s,a,s') + γ V_π(s')]")
def bellman():
    """The Bellman equation holds; Sutton & Barto print its solutions for the 5×5 grid and the 4×4 grid."""
    grid = mdp.gridworld_3_5()
    values = mdp.state_values(grid, mdp.uniform(grid))
    first_row = [3.308996335635, 8.789291862596, 4.427619182583, 5.322367593370, 1.492178758740]
    yield equal(first_row, values[:5], "S&B figure 3.2, first row")
    backup = mdp.action_values_to_values(grid, mdp.uniform(grid), mdp.values_to_action_values(grid, values))
    yield equal(values, backup, "Bellman equation")
    small = mdp.gridworld_4_1()
    yield equal([0.0, -14.0, -20.0, -22.0], mdp.state_values(small, mdp.uniform(small))[:4], "S&B figure 4.1")
    walk = mdp.random_walk(5)
    yield equal(np.arange(1, 6) / 6, mdp.state_values(walk, mdp.uniform(walk))[1:-1], "S&B example 6.2")


@claim("6.3.corridor", "J(p) = (2p − 4)/(p(1 − p)), best −(6 + 4√2) at p = 2 − √2")
def corridor():
    """The short corridor of Sutton & Barto's example 13.1, where the best policy is stochastic."""
    world, best = mdp.corridor(), 2.0 - np.sqrt(2.0)
    yield equal(-(6 + 4 * np.sqrt(2.0)), mdp.expected_return(world, corridor_policy(best)), "best")
    for p in (0.05, 0.5, 0.95):
        yield equal((2 * p - 4) / (p * (1 - p)), mdp.expected_return(world, corridor_policy(p)), f"p = {p}")


@claim("6.4.action-value", "Q_π(s_t,a_t) = E[G_t | s_t, a_t]")
def action_value():
    """What is solved for is the conditional mean of what is sampled."""
    yield equal(TOGO, mdp.action_values(TWO, PI, HORIZON))


@claim("6.4.bellman", "Q_π(s,a) = E_{s'∼P(·|s,a)}[R(s,a,s') + γ V_π(s')]")
def bellman_for_actions():
    """With deterministic transitions: Q_π(s,a) = R(s,a,f(s,a)) + γ V_π(f(s,a))."""
    pi = mdp.softmax(np.array([[0.1, 0.2], [-0.4, 0.3], [0.0, 0.5]]))
    values = mdp.state_values(DETERMINISTIC, pi)
    s, a = np.mgrid[:3, :2]
    yield equal(np.array([1.0, -0.5, 2.0])[s] + GAMMA * values[(s + 1 + a) % 3], mdp.action_values(DETERMINISTIC, pi))


@claim("6.5.v-from-q", "V_π(s) = Σ_a π(a|s) Q_π(s,a)")
def v_from_q(on):
    """From the values of actions to the values of states."""
    Q = mdp.action_values(TWO, PI, HORIZON)
    yield equal(V[:-1], on.numpy(psi.expected_value(on.array(Q), on.array(np.broadcast_to(PI, Q.shape)))))
    yield equal(V, mdp.action_values_to_values(TWO, PI, Q), "exact")


@claim("6.5.q-from-v", "Q_π(s,a) = E_{s'∼P(·|s,a)}[R(s,a,s') + γ V_π(s')]")
def q_from_v():
    """From the values of states to the values of actions, and there and back."""
    values = mdp.state_values(TWO, PI)
    Q = np.einsum("sat,sat->sa", TWO.P, TWO.R + GAMMA * values)
    yield equal(Q, mdp.values_to_action_values(TWO, values))
    yield equal(values, mdp.action_values_to_values(TWO, PI, mdp.action_values(TWO, PI)), "round trip")


@claim("6.6.advantage", "A_π(s,a) = Q_π(s,a) − V_π(s)")
def advantage(on):
    """As a difference, and for the two-state MDP with p, q = 0.7, 0.2 in closed form."""
    Q = mdp.action_values(TWO, PI)
    s, a = on.array(np.array([0, 0, 1, 1])), on.array(np.array([0, 1, 0, 1]))
    got = on.numpy(psi.advantage(on.array(Q)[s], a, on.array(PI)[s]))
    yield equal(mdp.advantages(TWO, PI).reshape(-1), got)
    switch = mdp.advantages(two_state(0.9), two_state_policy(0.7, 0.2))[:, 1]
    yield equal([0.296703296703, -0.791208791209], switch, "closed form")


@claim("6.6.advantage-mean", "E_{a∼π(·|s)}[A_π(s,a)] = 0")
def advantage_mean():
    """No state is better than itself."""
    yield zero((PI * mdp.advantages(TWO, PI)).sum(-1))
    yield zero((PI * mdp.advantages(TWO, PI, HORIZON)).sum(-1), "at every time")


def td_errors(on, critic):
    """E[δ_t | s_t, a_t], `[T, S, A]`, of the library's TD errors."""
    r = on.rollout(every_trajectory(critic))
    delta = psi.td_error(r.signal, r.value, r.next_value, r.discount)
    return conditional_mean(every_trajectory(critic), on.numpy(delta), SHAPE)


@claim("6.6.td-error", "δ_t = r_t + γ V(s_{t+1}) − V(s_t)")
def td_error(on):
    """The sampled TD errors average to E_{s'}[R + γV(s')] − V(s), for any V."""
    for name, critic in CRITICS.items():
        expected = textbook.conditional_mean(PATHS, textbook.Weigher(GAMMA, critic).delta, SHAPE)
        yield equal(expected, td_errors(on, name), name)
        yield equal(expected, mdp.expected_td_error(TWO, critic), f"{name}, exact")


@claim("6.6.td-unbiased", "V = V_π:  E_{s'∼P(·|s,a)}[δ_t] = A_π(s_t,a_t)")
def td_unbiased(on):
    """With the true V the TD error is an unbiased sample of the advantage."""
    yield equal(mdp.advantages(TWO, PI, HORIZON), td_errors(on, "true-v"))


@claim("6.6.td-bias", "V = V_π + e:  E_{s'}[δ_t] − A_π(s,a) = γ E_{s'∼P(·|s,a)}[e(s')] − e(s)")
def td_bias(on):
    """With a wrong V the TD error is biased by the critic's error: the discounted next one minus the one here."""
    bias = GAMMA * np.einsum("sax,tx->tsa", TWO.P, ERROR[1:]) - ERROR[:-1, :, None]
    yield equal(bias, td_errors(on, "wrong-v") - mdp.advantages(TWO, PI, HORIZON))
