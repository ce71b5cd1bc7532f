"""Section 8.5: PPO-Clip, its value and exactly where its gradient is zero."""

import numpy as np

from vantage import mdp
from vantage.recipe import PPO, Columns
from vantage.theory import distributions, divergences, importance, objectives
from vantage.verify.claim import at_most, claim, equal, zero
from vantage.verify.estimates import ascent
from vantage.verify.worlds import HORIZON, THETA, TWO, every_trajectory

LOW, HIGH, DUAL = 0.2, 0.3, 3.0
RATIOS, WEIGHTS = [0.3, 0.75, 0.85, 0.95, 1.1, 1.25, 1.35, 2.5, 3.5], [-2.0, -0.5, 0.7, 3.0]
R, PSI = (x.reshape(-1) for x in np.meshgrid(RATIOS, WEIGHTS))
"""Ratios and weights on both sides of every edge: 1 − low, 1 + high, and the dual clip."""


def slope(on, f):
    """d f/dr at every point of the grid, one derivative each."""
    psi = on.array(PSI)
    return on.gradient(lambda r: f(r, psi).sum(), R)


@claim("8.5.clip", "E_{τ∼π_old}[min(r_t Ψ_t, clip(r_t, 1−ε, 1+ε) Ψ_t)]")
def clip(on):
    """Case by case, and on rlax's published test vectors (losses −0.17118 and 0.19333)."""
    got = on.numpy(objectives.clipped(on.array(R), on.array(PSI), LOW, HIGH))
    by_hand = [min(r * w, min(max(r, 1 - LOW), 1 + HIGH) * w) for r, w in zip(R, PSI, strict=True)]
    yield equal(by_hand, got, "grid")
    new = np.array([[1.0, 1.0, 1.0], [2.0, 0.0, 0.0], [-1.0, -2.0, -3.0]])
    old = np.array([[1.0, 1.0, 1.0], [2.0, 0.0, 0.0], [-3.0, -2.0, -1.0]])
    action, gain = on.array(np.arange(3)), np.array([0.3, 0.2, 0.1])
    log_prob = lambda logits: distributions.Categorical(on.array(logits)).log_prob(action)  # noqa: E731
    ratio = importance.ratio(log_prob(new), log_prob(old))
    losses = [-float(objectives.clipped(ratio, on.array(sign * gain), 0.2).mean()) for sign in (1.0, -1.0)]
    yield equal([-0.171177842775, 0.193333333333], losses, "rlax")


@claim("8.5.clip-region", "∂/∂r_t = 0 where (Ψ > 0, r > 1+ε) or (Ψ < 0, r < 1−ε);  else Ψ_t")
def clip_region(on):
    """Clipping stops what has gone far enough in the direction it is pushed, and nothing else."""
    flat = ((PSI > 0) & (R > 1 + HIGH)) | ((PSI < 0) & (R < 1 - LOW))
    yield equal(np.where(flat, 0.0, PSI), slope(on, lambda r, w: objectives.clipped(r, w, LOW, HIGH)), "low, high")
    even = ((PSI > 0) & (R > 1.2)) | ((PSI < 0) & (R < 0.8))
    yield equal(np.where(even, 0.0, PSI), slope(on, lambda r, w: objectives.clipped(r, w, 0.2)), "symmetric")


@claim("8.5.clip-bound", "clipped ≤ r_t Ψ_t, with equality for 1−ε ≤ r_t ≤ 1+ε")
def clip_bound(on):
    """The clipped objective is a pessimist."""
    got = on.numpy(objectives.clipped(on.array(R), on.array(PSI), LOW, HIGH))
    yield at_most(R * PSI, got, "everywhere")
    inside = (R >= 1 - LOW) & (R <= 1 + HIGH)
    yield equal((R * PSI)[inside], got[inside], "inside the band")
    outside = objectives.clip_fraction(on.array(R), LOW, HIGH)
    yield equal(~inside, on.numpy(outside), "clip fraction")


@claim("8.5.clip-infinite", "ε → ∞:  min(rΨ, clip(r)Ψ) → r_t Ψ_t")
def clip_infinite(on):
    """Without a bound it is the importance-weighted objective."""
    r, w = on.array(R), on.array(PSI)
    yield equal(on.numpy(objectives.importance_weighted(r, w)), on.numpy(objectives.clipped(r, w, 1e9)))


@claim("8.5.dual-clip", "Ψ < 0:  max(clipped, cΨ), flat for r > c")
def dual_clip(on):
    """A bad action that has become likely is not punished without limit; a good one is not touched."""
    dual = lambda r, w: objectives.clipped(r, w, LOW, HIGH, DUAL)  # noqa: E731
    flat = ((PSI > 0) & (R > 1 + HIGH)) | ((PSI < 0) & ((R < 1 - LOW) | (R > DUAL)))
    yield equal(np.where(flat, 0.0, PSI), slope(on, dual), "slope")
    got = on.numpy(dual(on.array(R), on.array(PSI)))
    yield equal(DUAL * PSI[(PSI < 0) & (R > DUAL)], got[(PSI < 0) & (R > DUAL)], "value cΨ")


@claim("8.5.clip-first-step", "at θ = θ_old:  ∇J^CLIP = ∇J")
def first_step(on):
    """The first step of PPO is a policy-gradient step."""
    plan = PPO(clip_range=0.2, reduction=Columns(), whiten=None, time_weighting="discounted")
    yield equal(mdp.policy_gradient(TWO, THETA, HORIZON), ascent(on, plan, every_trajectory()))


@claim("8.5.ratio", "r_t(θ) = π_θ(a_t|s_t) / π_old(a_t|s_t) = 1 at θ_old;  k3 = r − 1 − log r ≥ 0")
def ratio_at_the_start(on):
    """Before the first step every ratio is one and every estimate of the KL is zero."""
    r = on.rollout(every_trajectory())
    log_prob = distributions.Categorical(on.array(THETA)[r.observation]).log_prob(r.action)
    yield equal(np.ones((HORIZON, 128)), on.numpy(importance.ratio(log_prob, r.log_prob)), "r = 1", tol=1e-12)
    yield zero(on.numpy(divergences.k3(r.log_prob, log_prob)), "k3 = 0", tol=1e-12)
    double = importance.ratio(on.array(np.log(0.6)), on.array(np.log(0.3)))
    yield equal(2.0, float(double), "0.6 / 0.3")
