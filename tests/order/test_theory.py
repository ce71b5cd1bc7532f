"""Orders of error, as slopes on a log-log plot."""

import numpy as np
import pytest

from vantage.theory import divergences, importance, objectives
from vantage.theory.distributions import Categorical
from vantage.theory.scan import reverse_scan


def slope(x, y):
    return np.polyfit(np.log(x), np.log(y), 1)[0]


STEPS = 2.0 ** -np.arange(3, 9)


def test_kl_is_its_fisher_quadratic_up_to_third_order(rng):
    """KL(p‖p_h) = ½ h² vᵀF v + O(h³), F = diag p − p pᵀ for logits."""
    z, v = rng.normal(size=6), rng.normal(size=6)
    p = np.exp(divergences.log_softmax(z))
    quadratic = 0.5 * v @ (np.diag(p) - np.outer(p, p)) @ v
    error = [abs(divergences.categorical_kl(z, z + h * v) - h**2 * quadratic) for h in STEPS]
    assert slope(STEPS, error) == pytest.approx(3.0, abs=0.15)


def test_gaussian_kl_is_its_fisher_quadratic_up_to_third_order(rng):
    """F = diag(1/σ², 2) for (μ, log σ)."""
    mean, log_std, dm, ds = rng.normal(size=(4, 3))
    quadratic = 0.5 * np.sum(dm**2 * np.exp(-2 * log_std) + 2 * ds**2)
    error = [
        abs(divergences.gaussian_kl(mean, log_std, mean + h * dm, log_std + h * ds) - h**2 * quadratic) for h in STEPS
    ]
    assert slope(STEPS, error) == pytest.approx(3.0, abs=0.15)


def test_directions_of_kl_differ_at_third_order(rng):
    z, v = rng.normal(size=6), rng.normal(size=6)
    gap = [abs(divergences.categorical_kl(z, z + h * v) - divergences.categorical_kl(z + h * v, z)) for h in STEPS]
    assert slope(STEPS, gap) == pytest.approx(3.0, abs=0.15)


def test_likelihood_and_ratio_touch_at_second_order(rng):
    """On a softmax bandit E[rΨ] is J itself; Ψ log π touches it to first order only, so that they part like h²."""
    z, v, q = rng.normal(size=(3, 5))
    p = np.exp(divergences.log_softmax(z))

    def gain(f, h):
        new = divergences.log_softmax(z + h * v)
        return p @ f(new, divergences.log_softmax(z))

    def ratio(new, old):
        return objectives.importance_weighted(importance.ratio(new, old), q)

    def likelihood(new, old):
        return objectives.likelihood(new, q)

    exact = [np.exp(divergences.log_softmax(z + h * v)) @ q for h in STEPS]
    np.testing.assert_allclose([gain(ratio, h) for h in STEPS], exact, atol=1e-14)
    change = [gain(likelihood, h) - gain(likelihood, 0.0) - (gain(ratio, h) - gain(ratio, 0.0)) for h in STEPS]
    assert slope(STEPS, np.abs(change)) == pytest.approx(2.0, abs=0.1)


def test_the_estimators_of_a_small_kl_part_at_third_order(rng):
    """E[k2] − KL = O(h³), while k1 and k3 are exact."""
    z, v = rng.normal(size=(2, 6))
    p = divergences.log_softmax(z)
    error = []
    for h in STEPS:
        q = divergences.log_softmax(z + h * v)
        exact = divergences.categorical_kl(p, q)
        assert np.exp(p) @ divergences.k3(p, q) == pytest.approx(exact, rel=1e-8)
        error.append(abs(np.exp(p) @ divergences.k2(p, q) - exact))
    assert slope(STEPS, error) == pytest.approx(3.0, abs=0.15)


def test_monte_carlo_converges_like_one_over_the_root_of_n(rng):
    logits = rng.normal(size=5)
    exact = Categorical(logits).entropy()
    sizes, repeats = 4 ** np.arange(3, 8), 60
    errors = []
    for n in sizes:
        policy = Categorical(np.broadcast_to(logits, (repeats, n, 5)))
        found = -policy.log_prob(policy.sample(rng.random((repeats, n)))).mean(axis=1)
        errors.append(np.sqrt(np.mean((found - exact) ** 2)))
    assert slope(sizes, errors) == pytest.approx(-0.5, abs=0.08)


def test_the_scan_by_doubling_rounds_no_worse_than_the_loop(rng):
    """float32 against a float64 loop: the doubling's error grows with log T, not T, for c = 1."""
    for steps in (64, 1024, 16_384):
        x, c = rng.normal(size=(2, steps, 4))
        decays = (np.ones_like(c), np.full_like(c, 0.99), np.clip(np.abs(c), 0.0, 1.0))
        for decay in decays:
            exact, y, loop = np.zeros(4), np.zeros(4, dtype=np.float32), np.zeros((steps, 4))
            rounded = np.zeros((steps, 4), dtype=np.float32)
            for t in reversed(range(steps)):
                exact = x[t].astype(np.float32) + decay[t].astype(np.float32).astype(np.float64) * exact
                y = x[t].astype(np.float32) + decay[t].astype(np.float32) * y
                loop[t], rounded[t] = exact, y
            fast = reverse_scan(x.astype(np.float32), decay.astype(np.float32))
            scale = np.abs(loop).max()
            assert np.abs(fast - loop).max() <= 2 * np.abs(rounded - loop).max() + 4e-7 * scale
