"""Section 8.2: expectations under one distribution from samples of another, and what a one-step ratio leaves out."""

import itertools
import math

import numpy as np

from vantage import mdp
from vantage.recipe import REINFORCE, Columns, ImportanceWeighted
from vantage.theory import distributions, importance
from vantage.verify.backend import Backend
from vantage.verify.claim import at_least, claim, differs, equal
from vantage.verify.estimates import ascent, weighed
from vantage.verify.worlds import (
    BANDIT,
    BANDIT_THETA,
    HORIZON,
    PI,
    PI_NEW,
    THETA,
    THETA_NEW,
    TWO,
    every_trajectory,
    padded,
)

FINITE_DIFFERENCES = Backend()
P, Q, F = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.5, 0.3]), np.array([1.0, -2.0, 4.0])
LIKELIHOOD = REINFORCE(reduction=Columns())
RATIO = ImportanceWeighted(reduction=Columns(), whiten=None, time_weighting="discounted")
GRID = np.linspace(-20.0, 20.0, 4001)
STEP = GRID[1] - GRID[0]
SECOND_MOMENTS = {
    (0.5, 1.0): 1.284025416688,
    (1.0, 1.0): 2.718281828459,
    (0.3, 0.8): 1.145198142243,
    (0.2, 1.2): 1.196040194328,
}
"""E_{x∼N(0,1)}[w²] for p = N(μ, σ²), by (μ, σ)."""


def ratio(on, p, q):
    """w = p/q through the library, from log-probabilities."""
    return on.numpy(importance.ratio(on.array(np.log(p)), on.array(np.log(q))))


def ratios_on(on, r):
    """log π_θ of another policy θ on the rollout's own decisions, `[T, B]`."""
    return distributions.Categorical(on.array(THETA_NEW)[r.observation]).log_prob(r.action)


@claim("8.2.importance-sampling", "E_{x∼p}[f(x)] = E_{x∼q}[(p(x)/q(x)) f(x)]")
def importance_sampling(on):
    """Weighted by p/q, samples of q give expectations under p."""
    yield equal(P @ F, Q @ (ratio(on, P, Q) * F))
    yield differs(P @ F, Q @ F, "not without the weight", by=0.1)


@claim("8.2.weight-mean", "E_{x∼q}[p(x)/q(x)] = 1,  E_{a∼π_old(·|s)}[r_t(θ)] = 1")
def weight_mean(on):
    """Weights average to one."""
    yield equal(1.0, Q @ ratio(on, P, Q), "discrete")
    yield equal(np.ones(2), (PI * ratio(on, PI_NEW, PI)).sum(-1), "policies, each state")


@claim("8.2.second-moment", "p = N(μ,σ²), q = N(0,1):  E_q[w²] = exp(μ²/(2−σ²)) / (σ√(2−σ²))")
def second_moment(on):
    """The second moment of Gaussian weights has a closed form, finite only if σ² < 2; quadrature agrees."""
    x = on.array(GRID[:, None])

    def normal(mean, std):
        full = np.ones((len(GRID), 1))
        return distributions.DiagonalGaussian(on.array(mean * full), on.array(math.log(std) * full))

    base = normal(0.0, 1.0).log_prob(x)
    density = np.exp(on.numpy(base))
    for (mean, std), published in SECOND_MOMENTS.items():
        w = on.numpy(importance.ratio(normal(mean, std).log_prob(x), base))
        closed = math.exp(mean**2 / (2 - std**2)) / (std * math.sqrt(2 - std**2))
        yield equal([published, closed], [float((density * w**2).sum() * STEP)] * 2, f"μ, σ = {mean}, {std}")


@claim("8.2.effective-sample-size", "ESS = (Σw)²/Σw²,  ESS/n → 1/E_q[w²]")
def effective_sample_size(on):
    """n equal weights count as n, one giant as 1; in proportion to q it is 1/E[w²]."""
    ess = lambda w: float(importance.effective_sample_size(on.array(np.asarray(w))))  # noqa: E731
    yield equal([8.0, 1.0], [ess(np.full(8, 3.0)), ess([1.0, 0.0, 0.0])], "equal, single")
    w = ratio(on, P, Q)
    copies = np.repeat(w, (Q * 10).round().astype(int))
    yield equal(1.0 / (Q @ w**2), ess(copies) / 10, "ten samples in proportion to q")


@claim("8.2.wrong-sign", "p, q = (0.9, 0.1), (0.05, 0.95), f = (−1, 1):  Pr_{x_1…x_n∼q}[(1/n)Σ w f > 0 > E_p f]")
def wrong_sign(on):
    """q sits where f > 0 and p where f < 0: a few weighted samples of q have the wrong sign, more often than not."""
    p, q, f = np.array([0.9, 0.1]), np.array([0.05, 0.95]), np.array([-1.0, 1.0])
    w, n = ratio(on, p, q), 10
    wrong = 0.0
    for outcome in itertools.product((0, 1), repeat=n):
        x = list(outcome)
        if (w[x] * f[x]).sum() > 0 > p @ f:
            wrong += q[x].prod()
    yield equal(0.95**n, wrong, "n = 10: 0.95¹⁰")
    yield equal(p @ f, q @ (w * f), "and yet unbiased")
    yield equal(1.0 / (p**2 / q).sum(), 1.0 / (q @ w**2), "ESS/n")


@claim("8.2.trajectory-weight", "w(τ) = Π_t π_θ/π_old:  E_{τ∼π_old}[w(τ) Σ_t γ^t Ψ_t ∇log π_θ] = ∇J(π_θ)")
def trajectory_weight(on):
    """The weight of the whole trajectory makes old data exact for the new policy."""
    rollout = every_trajectory()
    r = on.rollout(rollout)
    w = importance.trajectory_weight(ratios_on(on, r), r.log_prob, r.last, r.mask)
    q = on.array(mdp.action_values(TWO, PI_NEW, HORIZON))[r.time, r.observation, r.action]
    got = ascent(on, LIKELIHOOD, rollout, weighed(r, w * q), THETA_NEW)
    yield equal(mdp.policy_gradient(TWO, THETA_NEW, HORIZON), got)
    yield equal(1.0, float(rollout.weight @ on.numpy(w)[0]), "E[w(τ)]")


@claim("8.2.step-weight", "w_t = Π_{t'≤t} π_θ/π_old:  E_{τ∼π_old}[w_t f(s_t,a_t)] = E_{τ∼π_θ}[f(s_t,a_t)]")
def step_weight(on):
    """The past of a step suffices to weigh what depends on that step alone; the step's own ratio does not."""
    rollout, new = every_trajectory(), every_trajectory(policy="new")
    r = on.rollout(rollout)
    log_new = ratios_on(on, r)
    w = importance.step_weight(log_new, r.log_prob, r.last, r.mask)
    weight = on.numpy(w) * rollout.weight
    yield equal((new.reward * new.weight).sum(1), (rollout.reward * weight).sum(1), "E[r_t], each t")
    alone = on.numpy(importance.ratio(log_new, r.log_prob)) * rollout.weight
    yield differs((new.reward * new.weight).sum(1), (rollout.reward * alone).sum(1), "with the step's own ratio")
    a = on.array(mdp.advantages(TWO, PI_NEW, HORIZON))[r.time, r.observation, r.action]
    got = ascent(on, LIKELIHOOD, rollout, weighed(r, w * a), THETA_NEW)
    yield equal(mdp.policy_gradient(TWO, THETA_NEW, HORIZON), got, "∇J(π_θ) with A of π_θ")


@claim("8.2.step-ratio", "E_{τ∼π_old}[Σ_t γ^t r_t(θ) A_{π_old} ∇log π_θ] = ∇L_{π_old}(π_θ) ≠ ∇J(π_θ)")
def step_ratio(on):
    """One ratio a step: the gradient of the surrogate, off from ∇J(π_θ) by the shift of the states."""
    slope = FINITE_DIFFERENCES.gradient
    got = ascent(on, RATIO, every_trajectory(), theta=THETA_NEW)
    exact = mdp.policy_gradient(TWO, THETA_NEW, HORIZON)
    yield equal(slope(lambda x: mdp.surrogate(TWO, PI, mdp.softmax(x), HORIZON), THETA_NEW), got, "∇L(π_θ)")
    shift = mdp.occupancy(TWO, PI_NEW, HORIZON)[..., None] * mdp.advantages(TWO, PI_NEW, HORIZON)
    shift = shift - mdp.occupancy(TWO, PI, HORIZON)[..., None] * old_advantage_under_new()
    yield equal((shift * PI_NEW).sum(0), exact - got, "∇J − ∇L")
    yield differs(exact, got, "∇J(π_θ) ≠ ∇L(π_θ)", by=1e-2)
    yield equal(mdp.policy_gradient(TWO, THETA, HORIZON), ascent(on, RATIO, every_trajectory()), "at θ_old: ∇J")


def old_advantage_under_new():
    """A_{π_old}(s,a) − E_{a∼π_θ}[A_{π_old}(s,a)], `[T, S, A]`: what ∇log π_θ sees of the old advantage."""
    A = mdp.advantages(TWO, PI, HORIZON)
    return A - np.einsum("tsa,sa->ts", A, PI_NEW)[..., None]


@claim("8.2.surrogate", "∇_θ E_{τ∼π_old}[Σ_t r_t(θ) Ψ_t] = ∇_θ E_{τ∼π_old}[Σ_t Ψ_t log π_θ] at θ_old")
def surrogate(on):
    """Where the policies agree, ratio and logarithm have the same slope; away from there they do not."""
    rollout = every_trajectory("wrong-v")
    batch = RATIO.prepare(on.rollout(rollout))
    here, there = ([ascent(on, plan, rollout, batch, x) for plan in (LIKELIHOOD, RATIO)] for x in (THETA, THETA_NEW))
    yield equal(here[0], here[1], "at θ_old")
    yield differs(there[0], there[1], "at another θ", by=1e-2)


@claim("8.2.weight-growth", "T independent steps, E[w²] = c each:  E[w(τ)²] = c^T")
def weight_growth(on):
    """The second moment of a product of weights grows exponentially with its length."""
    pi, new = mdp.softmax(BANDIT_THETA), mdp.softmax(-3.0 * BANDIT_THETA)
    rollout = padded(mdp.trajectories(BANDIT, pi, 3))
    r = on.rollout(rollout)
    log_new = on.array(np.log(new))[r.observation, r.action]
    w = on.numpy(importance.step_weight(log_new, r.log_prob, r.last, r.mask))
    c = float((new**2 / pi).sum())
    yield equal([c, c**2, c**3], (w**2) @ rollout.weight, "E[w_t²]")
    yield at_least(1.5, c, "c")
    whole = on.numpy(importance.trajectory_weight(log_new, r.log_prob, r.last, r.mask))
    yield equal(np.full(3, c**3), (whole**2) @ rollout.weight, "E[w(τ)²]")
