"""Each distribution against its own samples, within its own standard error."""

import numpy as np
import pytest

from vantage.theory import divergences
from vantage.theory.distributions import Bernoulli, Categorical, DiagonalGaussian, Product, SquashedGaussian

N = 100_000
Z = 4.0
"""Standard errors allowed: one false alarm in 16,000 checks, and none with the fixed seed."""


def tiled(make, *parameters):
    return make(*(np.tile(p, (N, 1)) for p in parameters))


def families(rng):
    """(π, another of its kind, N samples of π)."""
    logits, other = rng.normal(size=4), rng.normal(size=4)
    logits[2] = other[2] = -np.inf
    a, b = tiled(Categorical, logits), tiled(Categorical, other)
    mean, log_std = rng.normal(size=2), 0.3 * rng.normal(size=2)
    g, h = tiled(DiagonalGaussian, mean, log_std), tiled(DiagonalGaussian, mean + 0.5, log_std + 0.2)
    s, t = tiled(SquashedGaussian, mean, log_std), tiled(SquashedGaussian, mean + 0.5, log_std + 0.2)
    x, y = tiled(Bernoulli, rng.normal(size=3)), tiled(Bernoulli, rng.normal(size=3))
    uniform, normal = rng.random(N), rng.normal(size=(N, 2))
    return {
        "categorical": (a, b, a.sample(uniform)),
        "gaussian": (g, h, g.sample(normal)),
        "squashed": (s, t, s.sample(normal)),
        "bernoulli": (x, y, x.sample(rng.random((N, 3)))),
        "product": (Product((a, g)), Product((b, h)), (a.sample(uniform), g.sample(normal))),
    }


def within(samples, exact):
    error = samples.std() / np.sqrt(N)
    assert abs(samples.mean() - exact) < Z * error, f"{samples.mean()} ± {error} is not {exact}"


@pytest.mark.parametrize("family", ["categorical", "gaussian", "bernoulli", "product"])
def test_entropy_is_minus_the_expected_log_probability(family, rng):
    policy, _, action = families(rng)[family]
    within(-policy.log_prob(action), policy.entropy()[0])


@pytest.mark.parametrize("family", ["categorical", "gaussian", "squashed", "bernoulli", "product"])
def test_kl_is_the_expected_difference_of_log_probabilities(family, rng):
    """KL(p‖q) = E_p[log p − log q], by k1 and by k3."""
    policy, other, action = families(rng)[family]
    log_p, log_q = policy.log_prob(action), other.log_prob(action)
    exact = policy.kl(other)[0]
    within(divergences.k1(log_p, log_q), exact)
    within(divergences.k3(log_p, log_q), exact)


def test_the_score_has_mean_zero(rng):
    """E[∇log π] = 0: for a Gaussian (a − μ)/σ², for a categorical 1{a} − p."""
    policy, _, action = families(rng)["gaussian"]
    for column in ((action - policy.mean) / np.exp(2 * policy.log_std)).T:
        within(column, 0.0)
    policy, _, action = families(rng)["categorical"]
    p = np.exp(divergences.log_softmax(policy.logits[0]))
    for a in np.flatnonzero(p):
        within((action == a) - p[a], 0.0)


def test_frequencies_of_a_categorical(rng):
    policy, _, action = families(rng)["categorical"]
    p = np.exp(divergences.log_softmax(policy.logits[0]))
    counts = np.bincount(action, minlength=4)
    assert counts[2] == 0, "masked"
    real = p > 0
    chi2 = np.sum((counts[real] - N * p[real]) ** 2 / (N * p[real]))
    assert chi2 < 19.4, "χ² with 2 degrees of freedom lies above that as seldom as a normal beyond Z = 4"


def test_frequencies_of_switches(rng):
    policy, _, action = families(rng)["bernoulli"]
    p = 1 / (1 + np.exp(-policy.logits[0]))
    for i in range(3):
        within(action[:, i], p[i])
    within((action[:, 0] - p[0]) * (action[:, 1] - p[1]), 0.0)


def test_moments_of_a_gaussian(rng):
    policy, _, action = families(rng)["gaussian"]
    z = (action - policy.mean) * np.exp(-policy.log_std)
    for i in range(2):
        within(z[:, i], 0.0)
        within(z[:, i] ** 2, 1.0)
    within(z[:, 0] * z[:, 1], 0.0)


def test_squashed_samples_stay_inside(rng):
    _, _, u = families(rng)["squashed"]
    assert (np.abs(SquashedGaussian.squash(u)) < 1.0).all()


def test_the_entropy_of_a_squashed_gaussian_from_its_samples(rng):
    """E[−log π(tanh u)] = H(N) + E[log(1 − tanh² u)]; the two sides from different formulas."""
    policy, _, u = families(rng)["squashed"]
    gaussian = DiagonalGaussian(policy.mean, policy.log_std)
    slope = np.log(1 - np.tanh(u) ** 2).sum(-1)
    within(-policy.log_prob(u) - slope, gaussian.entropy()[0])
