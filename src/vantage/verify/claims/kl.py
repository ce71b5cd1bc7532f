"""Section 8.6: KL(p‖q), its estimators and what their gradients estimate, the penalty and how β moves."""

import math
from dataclasses import replace

import numpy as np

from vantage.mdp import policy_kl, softmax
from vantage.recipe import PaperTarget, PPOPenalty, Proportional, RewardToGo, Steps, Thresholds
from vantage.theory import Batch, Outputs, distributions, divergences, kl_control, loss
from vantage.verify.claim import at_least, claim, differs, equal, zero
from vantage.verify.estimates import ascent, outputs
from vantage.verify.worlds import ENDING_PI, PI, THETA, THETA_NEW, ending_trajectories, every_trajectory

P, Q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.5, 0.3])
GRID = np.linspace(-20.0, 20.0, 4001)
STEP = GRID[1] - GRID[0]
ESTIMATORS = ("k1", "k2", "k3")


def kl_slope(p, q, of):
    """∇ of KL(p‖q) in the logits of p (`of="p"`) or of q, in closed form."""
    if of == "q":
        return q - p
    log = np.log(p / q)
    return p * (log - p @ log)


@claim("8.6.kl", "KL(p‖q) = E_{x∼p}[log p(x) − log q(x)]")
def kl(on):
    """The exact forms, against their published values."""
    p, q = on.array(np.log(P)), on.array(np.log(Q))
    got = [float(divergences.categorical_kl(*pair)) for pair in ((p, q), (q, p))]
    yield equal([0.223804657186, 0.193794197941], got, "KL(P‖Q), KL(Q‖P)")
    normals = {
        ((0.0, 1.0), (0.5, 1.0)): 0.125,
        ((0.0, 1.0), (0.0, 2.0)): 0.318147180560,
        ((0.0, 2.0), (0.0, 1.0)): 0.806852819440,
        ((0.0, 1.0), (0.5, 2.0)): 0.349397180560,
        ((0.5, 2.0), (0.0, 1.0)): 0.931852819440,
    }
    for (first, second), expected in normals.items():
        a, b = (
            distributions.DiagonalGaussian(on.array(np.array([m])), on.array(np.log([s]))) for m, s in (first, second)
        )
        yield equal(expected, float(a.kl(b)), f"N{first} ‖ N{second}")
    z, w = np.array([0.3, -1.0]), np.array([-0.2, 0.5])
    p, q = 1 / (1 + np.exp(-z)), 1 / (1 + np.exp(-w))
    by_hand = (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).sum()
    yield equal(by_hand, float(divergences.bernoulli_kl(on.array(z), on.array(w))), "two switches")


@claim("8.6.kl-direction", "KL(p‖q) ≠ KL(q‖p);  ∇_{logits of π_θ} KL(π_old‖π_θ) = π_θ − π_old")
def kl_direction(on):
    """The two directions are different numbers with different gradients."""
    p, q = np.log(P), np.log(Q)
    forward = on.gradient(lambda x: divergences.categorical_kl(on.array(p), x), q)
    backward = on.gradient(lambda x: divergences.categorical_kl(x, on.array(p)), q)
    yield equal(Q - P, forward, "∇_q KL(p‖q)")
    yield equal(kl_slope(Q, P, "p"), backward, "∇_q KL(q‖p)")
    yield differs(forward, backward, "directions", by=1e-2)


@claim("8.6.kl-masked", "actions ruled out for both (logit −∞) count nothing")
def kl_masked(on):
    """Masked actions leave KL and its gradient finite and unchanged."""
    out = np.array([-np.inf])
    p, q = (on.array(np.concatenate([np.log(x), out])) for x in (P, Q))
    yield equal(0.223804657186, float(divergences.categorical_kl(p, q)))
    yield equal(-float(P @ np.log(P)), float(divergences.categorical_entropy(p)), "entropy")


def moments_of(on, name, m):
    """(mean, standard deviation, KL) of an estimator for x ∼ p = N(0,1), q = N(m,1), by quadrature."""
    x = on.array(GRID[:, None])
    zero_mean = on.array(np.zeros((len(GRID), 1)))
    log_p = distributions.DiagonalGaussian(zero_mean, zero_mean).log_prob(x)
    log_q = distributions.DiagonalGaussian(zero_mean + m, zero_mean).log_prob(x)
    k = on.numpy(getattr(divergences, name)(log_p, log_q))
    weight = np.exp(on.numpy(log_p)) * STEP
    mean = float(weight @ k)
    return mean, math.sqrt(float(weight @ (k - mean) ** 2)), m**2 / 2


@claim("8.6.k1", "k1 = log p − log q, x∼p:  E[k1] = KL;  N(0,1), N(m,1): sd/KL = 2/m")
def k1(on):
    """Unbiased and noisy."""
    for m in (0.1, 1.0):
        mean, sd, exact = moments_of(on, "k1", m)
        yield equal([exact, 2 / m], [mean, sd / exact], f"m = {m}: mean, sd/KL")


@claim("8.6.k2", "k2 = ½(log p − log q)²:  bias/KL = m²/4")
def k2(on):
    """Steady and biased."""
    for m, published in ((0.1, 1.417745), (1.0, 1.732051)):
        mean, sd, exact = moments_of(on, "k2", m)
        yield equal([m**2 / 4, published], [mean / exact - 1, sd / exact], f"m = {m}: bias/KL, sd/KL", tol=1e-6)


@claim("8.6.k3", "k3 = q/p − 1 − log(q/p), x∼p:  E[k3] = KL, k3 ≥ 0")
def k3(on):
    """Unbiased and steady."""
    for m, published in ((0.1, 1.416575), (1.0, 1.695030)):
        mean, sd, exact = moments_of(on, "k3", m)
        yield equal([exact, published], [mean, sd / exact], f"m = {m}: mean, sd/KL", tol=1e-6)
    log_p, log_q = np.log(P), np.log(Q)
    k = on.numpy(divergences.k3(on.array(log_p), on.array(log_q)))
    yield at_least(0.0, k, "k3 ≥ 0")
    yield equal(Q / P - 1 - np.log(Q / P), k, "by hand")


def mean_gradient(on, estimator, samples, other, at_first):
    """E_{x∼samples}[∇_θ k(x)], samples held fixed, θ the logits of the first (p) or of the second argument (q)."""
    action, weight = on.array(np.arange(3)), on.array(samples)
    fixed = on.array(np.log(other))

    def mean(theta):
        log_theta = distributions.Categorical(theta + on.array(np.zeros((3, 3)))).log_prob(action)
        pair = (log_theta, fixed) if at_first else (fixed, log_theta)
        return (weight * getattr(divergences, estimator)(*pair)).sum()

    return mean


@claim("8.6.kl-gradients-constraint", "x∼p = π_old, q = π_θ:  E∇k1 = E∇k3 = ∇KL(π_old‖π_θ) ≠ E∇k2")
def gradients_as_constraint(on):
    """For a policy held near the one that sampled, k1 and k3 have the right gradient."""
    exact = kl_slope(P, Q, "q")
    found = {k: on.gradient(mean_gradient(on, k, P, P, False), np.log(Q)) for k in ESTIMATORS}
    yield equal(exact, found["k1"], "k1")
    yield equal(exact, found["k3"], "k3")
    yield differs(exact, found["k2"], "k2", by=1e-2)


@claim("8.6.kl-gradients-reference", "x∼p = π_θ, q = π_ref:  E∇k1 = 0, E∇k2 = ∇KL(π_θ‖π_ref), E∇k3 = ∇KL(π_ref‖π_θ)")
def gradients_to_reference(on):
    """For a policy held near a reference with its own samples: k1 does nothing, k2 is right, k3 is the other KL."""
    found = {k: on.gradient(mean_gradient(on, k, P, Q, True), np.log(P)) for k in ESTIMATORS}
    yield zero(found["k1"], "k1")
    yield equal(kl_slope(P, Q, "p"), found["k2"], "k2")
    yield equal(kl_slope(Q, P, "q"), found["k3"], "k3")


@claim("8.6.penalty", "E_{τ∼π_old}[r_t(θ)Ψ_t − β KL(π_old(·|s_t)‖π_θ(·|s_t))]")
def penalty(on):
    """On one decision by hand, with the exact KL of the whole distribution; over all, its slope is zero at θ_old."""
    old, new, beta, psi = P, Q, 0.7, 1.3
    plan = PPOPenalty(beta=beta, rule=None, whiten=None, critic=None, psi=RewardToGo(), reduction=Steps())
    one = lambda x: on.array(np.array([x]))  # noqa: E731
    pair = [distributions.Categorical(on.array(np.log(x))[None]) for x in (old, new)]
    action = on.array(np.array([1]))
    batch = Batch(log_prob=pair[0].log_prob(action), psi=one(psi))
    said = Outputs(log_prob=pair[1].log_prob(action), entropy=pair[1].entropy(), kl=pair[0].kl(pair[1]))
    expected = -(new[1] / old[1] * psi - beta * 0.223804657186)
    yield equal(expected, float(loss(plan, batch, said)[0]), "one decision")
    rollout, r = every_trajectory(), on.rollout(every_trajectory())
    costly, free = (PPOPenalty(beta=b, rule=None, whiten=None) for b in (5.0, 0.0))
    at_old = [ascent(on, plan, rollout, plan.prepare(r), THETA) for plan in (costly, free)]
    yield equal(at_old[1], at_old[0], "at θ_old β does not matter")
    away = [ascent(on, plan, rollout, plan.prepare(r), THETA_NEW) for plan in (costly, free)]
    d = np.array([every_trajectory().weight @ (every_trajectory().observation == s).mean(0) for s in (0, 1)])
    yield equal(-5.0 * d[:, None] * (softmax(THETA_NEW) - PI), away[0] - away[1], "elsewhere: −β E_s[π_θ − π_old]")


def sequence(rule, beta, kls, n=0):
    """β after each of a sequence of measured KLs."""
    betas = []
    for x in kls:
        beta = rule(beta, x, n)
        betas.append(beta)
    return betas


@claim("8.6.threshold-beta", "KL ≥ KL_max: 2β;  KL ≤ KL_min: β/2;  else β;  within bounds")
def threshold_beta():
    """Two thresholds, both inclusive."""
    kls = (0.03, 0.02, 0.0199, 0.01, 0.0051, 0.005, 0.001, 0.0)
    expected = [2.0, 4.0, 4.0, 4.0, 4.0, 2.0, 1.0, 0.5]
    yield equal(expected, sequence(Thresholds(kl_min=0.005, kl_max=0.02), 1.0, kls))
    far = [kl_control.threshold_beta(b, k, 0.005, 0.02, bounds=(0.1, 8.0)) for b, k in ((6.0, 1.0), (0.15, 0.0))]
    yield equal([8.0, 0.1], far, "bounds")


@claim("8.6.paper-beta", "d < d_targ/1.5: β/2;  d > 1.5 d_targ: 2β")
def paper_beta():
    """The rule of the PPO paper, both comparisons strict."""
    d = (0.004, 0.0066, 0.0067, 0.01, 0.0149, 0.0151, 0.05, 0.05, 0.001)
    yield equal([0.5, 0.25, 0.25, 0.25, 0.25, 0.5, 1.0, 2.0, 1.0], sequence(PaperTarget(target=0.01), 1.0, d))


@claim("8.6.proportional-beta", "β ← β (1 + clip(KL/target − 1, ±0.2) n/horizon)")
def proportional_beta():
    """The rule of RLHF, start 0.2, target 6, horizon 10,000, 256 episodes a batch."""
    expected = [0.198976, 0.198976, 0.19948537856, 0.200506743698, 0.201533338226, 0.200501487534]
    rule = Proportional(target=6.0, horizon=10_000.0)
    yield equal(expected, sequence(rule, 0.2, (3.0, 6.0, 6.6, 9.0, 100.0, 0.0), n=256))


@claim("8.6.kl-mean", "mean KL = Σ_{t,b} m KL / Σ_{t,b} m")
def kl_mean(on):
    """What is reported and moves β is the mean over real decisions, padding left out."""
    rollout = replace(ending_trajectories(), weight=None)
    plan, r = PPOPenalty(psi=RewardToGo(), critic=None, whiten=None), on.rollout(rollout)
    new = np.vstack([THETA_NEW, [0.0, 0.0]])
    metrics = loss(plan, plan.prepare(r), outputs(on.array(new), r))[1]
    exact = policy_kl(ENDING_PI, softmax(new))[rollout.observation]
    yield equal(exact[rollout.mask].mean(), float(metrics["train/kl"]))
