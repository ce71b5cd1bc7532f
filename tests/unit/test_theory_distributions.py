"""Distributions: values at the border, sampling that never draws the impossible, change of variables, products."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import BACKENDS
from vantage.theory._array import namespace
from vantage.theory.distributions import Bernoulli, Categorical, DiagonalGaussian, Product, SquashedGaussian

TOP = 1.0 - 2.0**-24
"""The largest float32 below 1."""
NOISE = st.one_of(st.sampled_from([0.0, 2.0**-24, 0.5, TOP]), st.floats(0.0, TOP, width=32))


@st.composite
def masked_logits(draw):
    """Float32 logits of 9 actions, at least one possible, of very different sizes."""
    logits = draw(st.lists(st.floats(-60.0, 60.0, width=32), min_size=9, max_size=9))
    ruled_out = draw(st.lists(st.booleans(), min_size=9, max_size=9))
    ruled_out[draw(st.integers(0, 8))] = False
    return np.where(ruled_out, -np.inf, logits).astype(np.float32)


@pytest.mark.parametrize("library", BACKENDS)
@given(masked_logits(), NOISE)
def test_a_masked_action_is_never_drawn(library, logits, noise):
    backend = BACKENDS[library]()
    policy = Categorical(backend.asarray(logits))
    drawn = int(policy.sample(backend.asarray(np.asarray(noise, dtype=np.float32))))
    assert 0 <= drawn < len(logits)
    assert np.isfinite(logits[drawn])


def test_the_edges_of_the_noise(rng):
    """Noise just below, at and just above each cumulative probability: the action drawn always has p > 0."""
    for n in (2, 5, 17, 40):
        logits = np.where(rng.random((200, n)) < 0.4, -np.inf, 4 * rng.normal(size=(200, n))).astype(np.float32)
        logits[np.arange(200), rng.integers(0, n, size=200)] = 0.0
        p = np.exp(logits - logits.max(-1, keepdims=True))
        edges = (np.cumsum(p, -1) / p.sum(-1, keepdims=True)).astype(np.float32)
        noises = [edges, np.nextafter(edges, np.float32(0)), np.nextafter(edges, np.float32(1)), np.zeros_like(edges)]
        for noise in itertools.chain.from_iterable(x.T for x in noises):
            for library in ("numpy", "torch"):
                backend = BACKENDS[library]()
                policy = Categorical(backend.asarray(logits))
                drawn = backend.to_numpy(policy.sample(backend.asarray(np.clip(noise, 0, np.float32(TOP)))))
                assert np.isfinite(logits[np.arange(200), drawn]).all()


def test_a_prefix_sum_that_rounds_cannot_draw_a_masked_action(monkeypatch):
    """Computed in parallel, as on a GPU, a prefix sum may step up where p = 0, and down elsewhere."""
    logits = np.asarray([0.0, -np.inf, 0.0, -np.inf], dtype=np.float32)
    xp = namespace(logits)
    rounded = np.asarray([1.0, 1.0 + 2**-22, 2.0, 2.0 + 2**-21], dtype=np.float32)
    monkeypatch.setattr(xp, "cumulative_sum", lambda p, axis: rounded)
    threshold = np.float32(0.5)
    noises = [np.nextafter(threshold, np.float32(side)) for side in (0, 1)] + [threshold, np.float32(TOP)]
    assert {int(Categorical(logits).sample(np.asarray(u))) for u in noises} <= {0, 2}


def test_sampling_inverts_the_cumulative_distribution():
    policy = Categorical(np.log(np.asarray([0.2, 0.3, 0.5])))
    noise = np.asarray([0.0, 0.19, 0.21, 0.49, 0.51, 0.99])
    many = Categorical(np.tile(policy.logits, (6, 1)))
    np.testing.assert_array_equal(many.sample(noise), [0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(Bernoulli(np.zeros(3)).sample(np.asarray([0.0, 0.49, 0.5])), [1, 1, 0])


@pytest.mark.parametrize("method", ["log_prob", "entropy", "kl"])
@pytest.mark.parametrize("library", ["jax", "torch"])
@given(masked_logits())
def test_masks_leave_values_and_gradients_finite(library, method, logits):
    possible = int(np.flatnonzero(np.isfinite(logits))[-1])

    def f(z, backend):
        policy = Categorical(z)
        if method == "log_prob":
            return policy.log_prob(backend.asarray(np.asarray(possible)))
        return policy.entropy() if method == "entropy" else policy.kl(Categorical(0.5 * z))

    backend = BACKENDS[library]()
    z = backend.asarray(logits)
    if library == "jax":
        import jax

        value, slope = jax.value_and_grad(f)(z, backend)
    else:
        z.requires_grad_()
        value = f(z, backend)
        value.backward()
        value, slope = value.item(), z.grad
    assert math.isfinite(value)
    assert np.isfinite(np.asarray(slope)).all()
    assert method == "log_prob" or value >= -1e-5
    np.testing.assert_array_equal(np.asarray(slope)[~np.isfinite(logits)], 0.0)


def test_a_masked_action_has_probability_zero():
    policy = Categorical(np.asarray([0.0, -np.inf, 0.0]))
    np.testing.assert_allclose(policy.log_prob(np.asarray(0)), -math.log(2))
    assert Categorical(np.asarray([0.0, -np.inf])).log_prob(np.asarray(1)) == -np.inf
    assert policy.entropy() == pytest.approx(math.log(2))
    assert Categorical(np.asarray([-np.inf, 0.0, -np.inf])).entropy() == 0.0


def test_logits_of_any_size():
    huge = Categorical(np.asarray([1e4, 1e4 - 1.0, -1e4], dtype=np.float32))
    np.testing.assert_allclose(huge.log_prob(np.asarray(0)), -math.log1p(math.exp(-1)), rtol=1e-6)
    switch = Bernoulli(np.asarray([1e4, -1e4, 0.0], dtype=np.float32))
    with np.errstate(all="raise", under="ignore"):
        assert np.isfinite(switch.log_prob(np.asarray([1, 0, 1])))
        assert switch.log_prob(np.asarray([1, 0, 1])) == pytest.approx(-math.log(2))
        assert switch.entropy() == pytest.approx(math.log(2))
        np.testing.assert_array_equal(switch.sample(np.asarray([TOP, 0.0, 0.6], dtype=np.float32)), [1, 0, 0])


def test_gaussian_log_prob_and_entropy():
    policy = DiagonalGaussian(np.asarray([1.0, -2.0]), np.log(np.asarray([2.0, 0.5])))
    by_hand = -0.5 * (1.5**2 + 2.0**2) - math.log(2 * math.pi)
    assert policy.log_prob(np.asarray([4.0, -1.0])) == pytest.approx(by_hand)
    assert policy.entropy() == pytest.approx(math.log(2 * math.pi * math.e))
    np.testing.assert_array_equal(policy.sample(np.asarray([1.0, -1.0])), [3.0, -2.5])
    np.testing.assert_array_equal(policy.mode(), [1.0, -2.0])


@given(st.floats(-2.0, 2.0), st.floats(-1.0, 1.0), st.floats(-3.0, 3.0))
def test_squashed_log_prob_is_the_change_of_variables(mean, log_std, u):
    """P(tanh U ≤ tanh u) = Φ((u − μ)/σ), differentiated in a = tanh u by central differences."""
    policy = SquashedGaussian(np.asarray([mean]), np.asarray([log_std]))
    a, h = math.tanh(u), 1e-4 * (1 - math.tanh(u) ** 2)

    def cumulative(a):
        return 0.5 * math.erfc(-(math.atanh(a) - mean) / math.exp(log_std) / math.sqrt(2.0))

    density = (cumulative(a + h) - cumulative(a - h)) / (2 * h)
    found = math.exp(policy.log_prob(np.asarray([u])))
    assert found == pytest.approx(density, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("library", BACKENDS)
@pytest.mark.parametrize("u", [-50.0, -20.0, 20.0, 50.0])
def test_squashed_log_prob_is_stable_far_out(library, u):
    """log(1 − tanh² u) = 2 (log 2 − |u|) to the last bit far out, where tanh u has long been 1; in float32."""
    backend = BACKENDS[library]()
    zero, far = backend.asarray(np.zeros(1, dtype=np.float32)), backend.asarray(np.full(1, u, dtype=np.float32))
    plain = float(DiagonalGaussian(zero, zero).log_prob(far))
    assert float(SquashedGaussian(zero, zero).log_prob(far)) == pytest.approx(plain - 2 * (math.log(2) - abs(u)))


def test_squashed_log_prob_has_a_finite_gradient():
    torch = pytest.importorskip("torch")
    u = torch.tensor([[-50.0], [-1.0], [0.0], [1.0], [50.0]], requires_grad=True)
    zero = torch.zeros(5, 1)
    SquashedGaussian(zero, zero).log_prob(u).sum().backward()
    x = u.detach().numpy().astype(np.float64)
    assert u.grad is not None
    np.testing.assert_allclose(u.grad.numpy(), -x + 2 * np.tanh(x), atol=1e-5)


def test_squashed_integrates_to_one():
    u = np.linspace(-9.0, 9.0, 40_001)
    policy = SquashedGaussian(np.full((u.size, 1), 0.3), np.full((u.size, 1), -0.4))
    a = SquashedGaussian.squash(u)
    density = np.exp(policy.log_prob(u[:, None]))
    assert np.sum(0.5 * (density[1:] + density[:-1]) * np.diff(a)) == pytest.approx(1.0, abs=1e-5)


def test_squashed_has_no_entropy_but_the_gaussians_kl():
    policy, other = (SquashedGaussian(np.asarray([m]), np.asarray([0.1])) for m in (0.0, 0.5))
    with pytest.raises(NotImplementedError, match="no closed form; estimate it as the mean of −log_prob"):
        policy.entropy()
    assert policy.kl(other) == DiagonalGaussian(policy.mean, policy.log_std).kl(
        DiagonalGaussian(other.mean, other.log_std)
    )


def test_bernoulli_is_two_categoricals():
    logits = np.asarray([0.3, -1.2])
    policy = Bernoulli(logits)
    p = 1 / (1 + np.exp(-logits))
    assert policy.log_prob(np.asarray([1, 0])) == pytest.approx(math.log(p[0]) + math.log(1 - p[1]))
    pairs = [Categorical(np.asarray([0.0, z])) for z in logits]
    assert policy.entropy() == pytest.approx(sum(c.entropy() for c in pairs))
    flat = [Categorical(np.zeros(2))] * 2
    assert policy.kl(Bernoulli(np.zeros(2))) == pytest.approx(sum(a.kl(b) for a, b in zip(pairs, flat, strict=True)))
    np.testing.assert_array_equal(policy.mode(), [1, 0])


def test_product_adds_its_parts_up(rng):
    logits, mean, log_std = rng.normal(size=(4, 3)), rng.normal(size=(4, 2)), rng.normal(size=(4, 2))
    a, b = Categorical(logits), DiagonalGaussian(mean, log_std)
    both, other = Product((a, b)), Product((Categorical(-logits), DiagonalGaussian(-mean, log_std)))
    noise = rng.random(4), rng.normal(size=(4, 2))
    action = both.sample(noise)
    np.testing.assert_array_equal(action[0], a.sample(noise[0]))
    np.testing.assert_allclose(both.log_prob(action), a.log_prob(action[0]) + b.log_prob(action[1]))
    np.testing.assert_allclose(both.entropy(), a.entropy() + b.entropy())
    np.testing.assert_allclose(both.kl(other), a.kl(other.parts[0]) + b.kl(other.parts[1]))
    assert both.noise == ("uniform", "normal")
    assert [p.shape for p in both.parameters] == [(4, 3), (4, 2), (4, 2)]
    with pytest.raises(ValueError, match="zip"):
        both.log_prob(action[:1])


def test_without_a_leading_axis():
    assert Categorical(np.zeros(3)).log_prob(np.asarray(1)).shape == ()
    assert int(Categorical(np.zeros(3)).sample(np.asarray(0.5))) == 1
    assert DiagonalGaussian(np.zeros(2), np.zeros(2)).entropy().shape == ()
