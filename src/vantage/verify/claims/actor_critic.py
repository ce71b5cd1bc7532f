"""Sections 7 and 8.1: the actor's step with a critic, what each form of the critic's loss has as its fixed point."""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from vantage import mdp
from vantage.recipe import A2C, Columns, Steps, TDError
from vantage.theory import critics
from vantage.verify.claim import at_least, at_most, claim, differs, equal, zero
from vantage.verify.estimates import ascent
from vantage.verify.worlds import (
    DETERMINISTIC,
    ENDING,
    ENDING_PI,
    ENDING_THETA,
    GAMMA,
    HORIZON,
    PI,
    THETA,
    TWO,
    ending_trajectories,
    every_trajectory,
)

ACTOR = A2C(psi=TDError(), reduction=Columns())
V_PI = mdp.state_values(TWO, PI)
ELSEWHERE = V_PI + np.array([0.7, -1.1])


@dataclass(frozen=True)
class Transitions:
    """Every (s, a, s') of a world that goes on for ever, with its probability p under d̄_π, π and P."""

    s: np.ndarray
    t: np.ndarray
    r: np.ndarray
    p: np.ndarray

    @classmethod
    def of(cls, world, pi):
        """d̄_π(s) π(a|s) P(s'|s,a), listed."""
        d = mdp.occupancy(world, pi)
        p = (d / d.sum())[:, None, None] * mdp.as_policy(world, pi)[..., None] * world.P
        s, a, t = np.nonzero(p)
        return cls(s, t, world.R[s, a, t], p[s, a, t])

    def loss(self, on, residual=False):
        """V ↦ E[(r + γV(s') − V(s))²] by the library's critic loss."""
        s, t, r, p = (on.array(x) for x in (self.s, self.t, self.r, self.p))
        gamma = on.array(np.full(len(self.p), GAMMA))
        return lambda V: (p * critics.squared_td_error(r, V[s], V[t], gamma, residual=residual)).sum()

    def delta(self, V):
        """r + γV(s') − V(s)."""
        return self.r + GAMMA * V[self.t] - V[self.s]

    def features(self, residual):
        """∇_V V(s), or with the target's share ∇_V (V(s) − γV(s')): one row a transition."""
        one_hot = np.eye(self.s.max() + 1)
        return one_hot[self.s] - residual * GAMMA * one_hot[self.t]

    def gradient(self, V, residual):
        """−2 E[δ (∇V(s) − γ∇V(s'))], without the second term for the semi-gradient."""
        return -2.0 * (self.p * self.delta(V)) @ self.features(residual)

    def residual_fixed_point(self):
        """argmin_V E[δ²] by its normal equations."""
        X = self.features(True)
        return np.linalg.solve(X.T @ (self.p[:, None] * X), X.T @ (self.p * self.r))


STOCHASTIC = Transitions.of(TWO, PI)


@claim("7.1.actor-objective", "max_θ E_{τ∼π_old}[Σ_t δ_t log π_θ(a_t|s_t)], δ_t frozen")
def actor_objective(on):
    """With the true V the actor's step follows Σ_t E[A_π ∇log π]."""
    expected = mdp.policy_gradient(TWO, THETA, HORIZON, time_weighting="undiscounted")
    yield equal(expected, ascent(on, ACTOR, every_trajectory()))


@claim("7.1.step-objective", "max_θ E_{s∼μ_π, a∼π}[A(s,a) log π_θ(a|s)] = (the above) / E[T]")
def step_objective(on):
    """The expectation over single steps is the one over trajectories, divided by their mean length."""
    expected = mdp.policy_gradient(TWO, THETA, HORIZON, time_weighting="undiscounted") / HORIZON
    yield equal(expected, ascent(on, replace(ACTOR, reduction=Steps()), every_trajectory()))


@claim("8.1.step-gradient", "E_{s∼μ_π, a∼π, s'∼P}[δ ∇log π_θ] = E_{τ∼π}[Σ_t δ_t ∇log π_θ] / E[T]")
def step_gradient(on):
    """With random lengths the factor between the two is the expected number of decisions."""
    decisions = mdp.occupancy(ENDING, ENDING_PI, HORIZON, discounted=False).sum()
    expected = mdp.policy_gradient(ENDING, ENDING_THETA, HORIZON, time_weighting="undiscounted") / decisions
    yield equal(expected, ascent(on, replace(ACTOR, reduction=Steps()), ending_trajectories(), theta=ENDING_THETA))


@claim("7.2.critic-loss", "E_{s∼d̄_π, a∼π, s'∼P}[(r + γV(s') − V(s))²], without a ½")
def critic_loss(on):
    """The value of the loss: a plain mean of squares."""
    numbers = [on.array(np.array([x])) for x in (1.0, 2.0, 8.0, 0.5)]
    yield equal(9.0, float(critics.squared_td_error(*numbers)[0]), "δ = 1 + ½·8 − 2 = 3")
    expected = float(STOCHASTIC.p @ STOCHASTIC.delta(ELSEWHERE) ** 2)
    yield equal(expected, float(STOCHASTIC.loss(on)(on.array(ELSEWHERE))))


@claim("7.2.semi-gradient", "target as data: −2 E[δ ∇V(s)];  zero at V = V_π", autodiff=True)
def semi_gradient(on):
    """The semi-gradient has V_π as its fixed point, however stochastic the world."""
    yield zero(on.gradient(STOCHASTIC.loss(on), V_PI), "at V_π")
    yield equal(STOCHASTIC.gradient(ELSEWHERE, False), on.gradient(STOCHASTIC.loss(on), ELSEWHERE), "elsewhere")


@claim("7.2.residual-gradient", "−2 E[δ (∇V(s) − γ∇V(s'))]:  its fixed point is not V_π")
def residual_gradient(on):
    """The full gradient also shrinks the variance of the target, so in a stochastic world it ends elsewhere."""
    loss, fixed = STOCHASTIC.loss(on, residual=True), STOCHASTIC.residual_fixed_point()
    yield zero(on.gradient(loss, fixed), "at argmin E[δ²]")
    yield differs(V_PI, fixed, "argmin E[δ²] against V_π", by=0.1)
    yield equal(STOCHASTIC.gradient(V_PI, True), on.gradient(loss, V_PI), "at V_π")
    sure = Transitions.of(DETERMINISTIC, np.array([0, 1, 0]))
    values = mdp.state_values(DETERMINISTIC, np.array([0, 1, 0]))
    yield zero(on.gradient(sure.loss(on, residual=True), values), "nothing random: at V_π")


@claim("7.2.loss-floor", "min E[δ²] over targets as data = E_s[Var_{a,s'}(r + γV_π(s'))] > 0")
def loss_floor(on):
    """A perfect critic's loss is the variance of its target, not 0."""
    target = STOCHASTIC.r + GAMMA * V_PI[STOCHASTIC.t]
    floor = sum(STOCHASTIC.p[here] @ (target[here] - V_PI[s]) ** 2 for s in range(2) for here in [STOCHASTIC.s == s])
    yield equal(floor, float(STOCHASTIC.loss(on)(on.array(V_PI))))
    yield at_least(0.1, floor, "above 0")


@claim("7.3.optimal-advantage", "max_a A_{π*}(s,a) = 0")
def optimal_advantage():
    """At the optimum nothing is better than what the policy does."""
    for world in (TWO, mdp.random_mdp(6, 3, 0.9, seed=4), mdp.gridworld_3_5()):
        *_, best = mdp.policy_iteration(world)
        yield zero(mdp.advantages(world, best.policy).max(-1), repr(world), tol=1e-8)
    *_, best = mdp.policy_iteration(mdp.gridworld_3_5())
    yield equal(10 / (1 - 0.9**5), best.values[1], "S&B figure 3.5: V*(A) = 24.4", tol=1e-8)


@claim("7.3.policy-improvement", "π' greedy in A_π:  V_{π'}(s) ≥ V_π(s) in every state")
def policy_improvement():
    """Improvement is improvement everywhere, not on average."""
    values = [turn.values for turn in mdp.policy_iteration(mdp.random_mdp(6, 3, 0.9, seed=4))]
    for k, (before, after) in enumerate(pairwise(values)):
        yield at_least(before, after, f"V_{k + 1} ≥ V_{k}")
    yield at_most(np.inf, values[-1], "finite")


@claim("7.3.critic-target", "π → π':  V_{π'}(s) = Σ_a π'(a|s) Q_{π'}(s,a), another function")
def critic_target():
    """When the policy moves, so does what the critic should predict."""
    new = mdp.softmax(THETA + np.array([[0.5, 0.0], [0.0, 0.5]]))
    moved = mdp.state_values(TWO, new)
    yield differs(V_PI, moved, "V_{π'} − V_π", by=1e-2)
    yield equal(mdp.action_values_to_values(TWO, new, mdp.action_values(TWO, new)), moved, "V_{π'}")
