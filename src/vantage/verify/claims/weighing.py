"""Section 6.1: every Ψ with a right and with a wrong critic, its exact bias and variance. With the true V even a wrong
formula can be unbiased; only a wrong V shows each formula's own fingerprint.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from vantage import mdp
from vantage.mdp.moments import moments
from vantage.recipe import GAE, REINFORCE, Columns, KStep, LearnedBaseline, RewardToGo, TDError, TotalReturn
from vantage.theory import psi, returns
from vantage.verify import textbook
from vantage.verify.claim import claim, differs, equal, zero
from vantage.verify.estimates import ascent, conditional_mean, weighed
from vantage.verify.worlds import CRITICS, ERROR, GAMMA, HORIZON, PI, THETA, TWO, V, every_trajectory

EXACT = mdp.policy_gradient(TWO, THETA, HORIZON)
PATHS = textbook.paths(TWO, PI, HORIZON)
Q = mdp.action_values(TWO, PI, HORIZON)
WRONG_Q = Q + np.array([[[0.5, -0.3], [0.2, 0.9]], [[-0.6, 0.1], [0.4, -0.2]], [[0.3, 0.3], [-0.1, 0.7]]])


def unweighted(Ψ: Any) -> Callable:
    """The batch that a recipe with this Ψ makes, each step weighed by γ^t."""
    plan = REINFORCE(psi=Ψ, reduction=Columns(), time_weighting="discounted")
    return lambda on, r: plan.prepare(r)


def read_from(table: np.ndarray, subtract_mean: bool) -> Callable:
    """The batch with Ψ_t = Q(s_t, a_t), or Q − E_π Q, read from a table `[T, S, A]`."""

    def weigh(on, r):
        q, pi = on.array(table)[r.time, r.observation], on.array(PI)[r.observation]
        return weighed(r, psi.advantage(q, r.action, pi) if subtract_mean else psi.action_value(q, r.action))

    return weigh


def corrected(on, r):
    """V-trace on the policy's own data, unclipped."""
    return weighed(r, psi.vtrace(r.signal, r.value, r.next_value, r.discount, r.last, 0.0 * r.signal + 1.0)[1])


def traced(lam: float) -> Callable:
    """The λ-return itself as Ψ: GAE without the baseline."""
    return lambda on, r: weighed(r, psi.lambda_return(r.signal, r.value, r.next_value, r.discount, r.last, lam))


@dataclass(frozen=True)
class Weighing:
    """A Ψ: how the library computes it, how the textbook does, and whether it is unbiased with a wrong V."""

    id: str
    formula: str
    weigh: Callable
    by_hand: Callable[[textbook.Weigher], Callable]
    survives: bool
    counts_from_start: bool = False


def by_lambda(lam: float) -> Callable:
    return lambda w: w.gae(lam)


def reader(table: np.ndarray) -> Callable:
    return lambda w: w.table(table)


WITHOUT_CRITIC = (
    Weighing("6.1.total-return", "Ψ_t = R(τ)", unweighted(TotalReturn()), lambda w: w.discounted_total, True, True),
    Weighing("6.1.reward-to-go", "Ψ_t = G_t", unweighted(RewardToGo()), lambda w: w.togo, True),
)
WITH_CRITIC = (
    Weighing(
        "6.1.baseline",
        "Ψ_t = G_t − V(s_t)",
        unweighted(RewardToGo(baseline=LearnedBaseline())),
        lambda w: w.togo_minus_value,
        True,
    ),
    Weighing(
        "6.1.td-error", "Ψ_t = δ_t = r_t + γV(s_{t+1}) − V(s_t)", unweighted(TDError()), lambda w: w.delta, False
    ),
    Weighing("6.1.k-step-2", "Ψ_t = δ_t + γδ_{t+1}", unweighted(KStep(k=2)), lambda w: w.k_step(2), False),
    Weighing("6.1.k-step-9", "Ψ_t = Σ_{l<k} γ^l δ_{t+l}, k ≥ T", unweighted(KStep(k=9)), lambda w: w.k_step(9), True),
    *(
        Weighing(f"6.1.gae-{x:g}", f"Ψ_t = Σ_l ({x:g}γ)^l δ_{{t+l}}", unweighted(GAE(lam=x)), by_lambda(x), False)
        for x in (0.0, 0.5, 0.95)
    ),
    Weighing("6.1.gae-1", "Ψ_t = Σ_l γ^l δ_{t+l}, λ = 1", unweighted(GAE(lam=1.0)), by_lambda(1.0), True),
    Weighing(
        "6.1.lambda-return", "Ψ_t = V(s_t) + Σ_l (γ/2)^l δ_{t+l}", traced(0.5), lambda w: w.lambda_return(0.5), False
    ),
    Weighing("6.1.vtrace", "Ψ_t = ρ_t (r_t + γv_{t+1} − V(s_t)), ρ = 1", corrected, lambda w: w.togo_minus_value, True),
)  # fmt: skip


def measured(weighing: Weighing, critic: str, unbiased: bool) -> Callable:
    """The claim that this Ψ, with this critic, has the textbook's bias and variance."""

    def check(on):
        rollout = every_trajectory(critic)
        batch = weighing.weigh(on, on.rollout(rollout))
        got = ascent(on, REINFORCE(reduction=Columns()), rollout, batch)
        spread = moments(rollout, on.numpy(batch.psi), TWO.n_states).variance
        by_hand = weighing.by_hand(textbook.Weigher(GAMMA, CRITICS[critic]))
        mean, variance = textbook.gradient_moments(PATHS, by_hand, THETA, 1.0 if weighing.counts_from_start else GAMMA)
        bias = [np.abs(x - EXACT).max() for x in (mean, got)]
        yield equal([bias[0], variance], [bias[1], spread], "max |bias|, variance")
        yield equal(mean, got, "E[ĝ]")
        yield equal(EXACT, got, "E[ĝ] = ∇J") if unbiased else differs(EXACT, got, "E[ĝ] ≠ ∇J")

    return check


def register(weighing: Weighing, suffix: str, critic: str, unbiased: bool) -> None:
    critic_name = {"": "", ".true-v": ", with the true V", ".wrong-v": ", with a wrong V"}[suffix]
    text = f"{'Unbiased' if unbiased else 'Biased'} for ∇J{critic_name}."
    claim(weighing.id + suffix, weighing.formula, statement=text)(measured(weighing, critic, unbiased))


for one in WITHOUT_CRITIC:
    register(one, "", "true-v", True)
for one in WITH_CRITIC:
    register(one, ".true-v", "true-v", True)
    register(one, ".wrong-v", "wrong-v", one.survives)
for name, table, unbiased in ((".true-v", Q, True), (".wrong-v", WRONG_Q, False)):
    centred = table - np.einsum("tsa,sa->ts", table, PI)[..., None]
    value = Weighing("6.1.action-value", "Ψ_t = Q(s_t, a_t)", read_from(table, False), reader(table), False)
    gain = Weighing("6.1.advantage", "Ψ_t = Q(s_t, a_t) − E_a Q", read_from(table, True), reader(centred), False)
    register(value, name, "true-v", unbiased)
    register(gain, name, "true-v", unbiased)


@claim("6.1.plain-total-return", "Ψ_t = Σ_t r_t, J without discount")
def plain_total_return(on):
    """Unbiased for ∇J of the undiscounted three-step world."""
    world = mdp.MDP(TWO.P, TWO.R, TWO.rho, 1.0)
    plan = REINFORCE(psi=TotalReturn(), reduction=Columns())
    rollout = mdp.trajectories(world, PI, HORIZON)
    exact = mdp.policy_gradient(world, THETA, HORIZON)
    mean, variance = textbook.gradient_moments(PATHS, textbook.Weigher(1.0, V).plain_total, THETA)
    batch = plan.prepare(on.rollout(rollout))
    got = ascent(on, plan, rollout, batch)
    found = moments(rollout, on.numpy(batch.psi), 2).variance
    bias = [np.abs(x - exact).max() for x in (mean, got)]
    yield equal([bias[0], variance], [bias[1], found], "max |bias|, variance")
    yield equal(exact, got, "E[ĝ] = ∇J")


@claim("6.1.causality", "E_{τ∼π}[r_{t'} ∇log π(a_t|s_t)] = 0 for t' < t")
def causality(on):
    """A reward does not depend on later actions: each past reward averages out, no present or future one does."""
    rollout = every_trajectory()
    r = on.rollout(rollout)
    for early, t in sorted(np.ndindex(HORIZON, HORIZON), key=lambda pair: pair[0] >= pair[1]):
        past = np.zeros((HORIZON, 128))
        past[t] = rollout.reward[early]
        got = ascent(on, REINFORCE(reduction=Columns()), rollout, weighed(r, on.array(past), discounted=False))
        what = f"r_{early} at t = {t}"
        yield zero(got, what) if early < t else differs(np.zeros_like(got), got, what)


@claim("6.1.baseline-mean", "E_{a∼π(·|s)}[b(s) ∇log π(a|s)] = 0")
def baseline_mean(on):
    """A baseline of the state alone costs nothing; one that knows the action is a bias."""
    rollout, plan = every_trajectory(), REINFORCE(reduction=Columns())
    r = on.rollout(rollout)
    got = ascent(on, plan, rollout, weighed(r, on.array(ERROR)[r.time, r.observation]))
    yield zero(got, "b(s)")
    got = ascent(on, plan, rollout, weighed(r, on.array(WRONG_Q - Q)[r.time, r.observation, r.action]))
    yield differs(np.zeros_like(got), got, "b(s, a)")


@claim("6.1.time-weighting", "with γ^t: ∇J;  without: Σ_t E[A_π(s_t,a_t) ∇log π(a_t|s_t)]")
def time_weighting(on):
    """Two vectors, each exact for what it is: the gradient of the discounted J, and the one in common use."""
    found = {}
    for weighting in ("discounted", "undiscounted"):
        plan = REINFORCE(psi=RewardToGo(), reduction=Columns(), time_weighting=weighting)
        found[weighting] = ascent(on, plan, every_trajectory())
        expected = mdp.policy_gradient(TWO, THETA, HORIZON, time_weighting=weighting)
        yield equal(expected, found[weighting], weighting)
    yield differs(found["discounted"], found["undiscounted"], "they differ", by=1e-2)


@claim("6.1.psi-gradient", "E[Ψ_t | s_t, a_t] = A_π(s_t,a_t) + any b(s_t)  ⇒  E[ĝ] = ∇J")
def psi_gradient(on):
    """What makes a Ψ right: given state and action it averages to the advantage, up to a function of the state."""
    rollout = every_trajectory()
    r = on.rollout(rollout)
    togo = conditional_mean(rollout, on.numpy(returns.reward_to_go(r.signal, r.discount, r.last)), (HORIZON, 2, 2))
    advantage = mdp.advantages(TWO, PI, HORIZON)
    yield equal(np.broadcast_to(V[:HORIZON, :, None], togo.shape), togo - advantage, "G_t − A_π = V_π")
    error = psi.td_error(r.signal, r.value, r.next_value, r.discount)
    yield equal(advantage, conditional_mean(rollout, on.numpy(error), (HORIZON, 2, 2)), "δ_t with V_π")
