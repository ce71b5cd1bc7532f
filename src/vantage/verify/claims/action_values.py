"""Sections 6.4, 6.5 with a critic of actions: the fixed point of expected SARSA, and the gradients that its Q and
A give.
"""

from dataclasses import replace

import numpy as np

from vantage import mdp
from vantage.recipe import GAE, REINFORCE, ActionValue, Advantage, Columns, QCritic
from vantage.rollout import Rollout
from vantage.theory import psi
from vantage.verify.claim import claim, differs, equal, zero
from vantage.verify.claims.weighing import EXACT, WRONG_Q, Q
from vantage.verify.estimates import ascent, conditional_mean
from vantage.verify.worlds import GAMMA, HORIZON, PI, TWO

SHAPE = (HORIZON, 2, 2)
CENTRE = np.einsum("tsa,sa->ts", WRONG_Q, PI)[..., None]


def scored(on, table: np.ndarray) -> Rollout:
    """All trajectories, with what a critic that says `table` `[T, S, A]` makes of them: V = E_π Q, and Q(s_t, a_t)."""
    shown = np.broadcast_to(PI, SHAPE)
    v = np.concatenate([on.numpy(psi.expected_value(on.array(table), on.array(shown))), np.zeros((1, 2))])
    r = mdp.trajectories(TWO, PI, HORIZON, value=v)
    said = psi.action_value(on.array(table[r.time, r.observation]), on.array(r.action))
    return replace(r, action_value=on.numpy(said))


def step(on, weigh, table: np.ndarray) -> np.ndarray:
    """The actor's expected step with this Ψ and this Q."""
    plan = REINFORCE(psi=weigh, critic=QCritic(), reduction=Columns(), time_weighting="discounted")
    return ascent(on, plan, scored(on, table))


@claim("6.4.expected-sarsa", "Q = Q_π:  E[r_t + γ Σ_a π(a|s_{t+1}) Q(s_{t+1},a) | s_t, a_t] = Q_π(s_t,a_t)")
def expected_sarsa(on):
    """The target of a critic of actions averages to Q_π at Q_π; from elsewhere it contracts towards it."""
    target = {}
    for name, table in {"Q_π": Q, "elsewhere": WRONG_Q}.items():
        r = scored(on, table)
        batch = on.read(REINFORCE(psi=ActionValue()).prepare(on.rollout(r)))
        target[name] = conditional_mean(r, batch.target, SHAPE)
    yield equal(Q, target["Q_π"], "at Q_π")
    error = np.einsum("sax,txb,xb->tsa", TWO.P, np.concatenate([(WRONG_Q - Q)[1:], np.zeros((1, 2, 2))]), PI)
    yield equal(GAMMA * error, target["elsewhere"] - Q, "Q = Q_π + e: γ E[e(s', a')]")
    yield differs(WRONG_Q, target["elsewhere"], "not at its fixed point", by=1e-2)


@claim("6.4.q-critic", "Ψ_t = Q_φ(s_t,a_t), Q_φ = Q_π:  E[ĝ] = ∇J;  Q_φ ≠ Q_π: biased")
def q_critic(on):
    """A critic of actions as Ψ: exact with the true Q, biased with a wrong one."""
    yield equal(EXACT, step(on, ActionValue(), Q))
    yield differs(EXACT, step(on, ActionValue(), WRONG_Q), "a wrong Q")


@claim("6.5.advantage-critic", "Ψ_t = Q_φ(s_t,a_t) − Σ_a π(a|s_t) Q_φ(s_t,a):  E[ĝ] as with Ψ_t = Q_φ")
def advantage_critic(on):
    """Subtracting the critic's own V changes no mean, whatever Q is, and centres every weight."""
    yield equal(EXACT, step(on, Advantage(), Q))
    for name, table in {"the true Q": Q, "a wrong Q": WRONG_Q}.items():
        yield equal(step(on, ActionValue(), table), step(on, Advantage(), table), f"{name}: Ψ = Q and Ψ = A agree")
    r = scored(on, WRONG_Q)
    weights = conditional_mean(r, on.read(REINFORCE(psi=Advantage()).prepare(on.rollout(r))).psi, SHAPE)
    yield zero((PI * weights).sum(-1), "E_a[A_φ(s, a)]")
    yield equal(WRONG_Q - CENTRE, weights, "A_φ = Q_φ − V_φ")


@claim("6.5.gae-by-q", "V = Σ_a π(a|s) Q_π(s,a):  GAE(λ) from it gives ∇J, and its target averages to Q_π")
def gae_by_q(on):
    """Every other Ψ may read the V of a critic of actions, and then draw it to Q_π just as well."""
    for lam in (0.0, 0.6, 1.0):
        yield equal(EXACT, step(on, GAE(lam=lam), Q), f"λ = {lam:g}")
        r = scored(on, Q)
        target = on.read(REINFORCE(psi=GAE(lam=lam), critic=QCritic()).prepare(on.rollout(r))).target
        yield equal(Q, conditional_mean(r, target, SHAPE), f"target, λ = {lam:g}")
