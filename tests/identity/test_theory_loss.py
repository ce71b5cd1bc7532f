"""Algebra of objectives, critics and reduction: limits, gradients at θ_old, splitting and shuffling a batch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.backends._cases import RECIPES, call_loss, loss_inputs
from vantage import A2C, PPO, ImportanceWeighted, PPOPenalty, RewardToGo
from vantage.theory import critics, distributions, divergences, objectives, reduce

SEEDS = st.integers(0, 2**32 - 1)
UNWHITENED = {
    "clip": PPO(whiten=None, ent_coef=0.01),
    "penalty": PPOPenalty(beta=0.5, whiten=None),
    "ratio": ImportanceWeighted(whiten=None),
    "likelihood": A2C(),
}


def ratios(seed: int, n: int = 50) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return np.exp(rng.normal(size=n)), rng.normal(size=n), rng.random(n)


@given(SEEDS)
def test_without_a_bound_every_surrogate_is_the_importance_weighted_one(seed):
    ratio, advantage, kl = ratios(seed)
    plain = objectives.importance_weighted(ratio, advantage)
    np.testing.assert_array_equal(objectives.clipped(ratio, advantage, np.inf), plain)
    np.testing.assert_array_equal(objectives.clipped(ratio, advantage, np.inf, dual=np.inf), plain)
    np.testing.assert_array_equal(objectives.penalised(ratio, advantage, kl, 0.0), plain)
    symmetric = objectives.clipped(ratio, advantage, 0.2)
    np.testing.assert_array_equal(objectives.clipped(ratio, advantage, 0.2, 0.2, None), symmetric)
    np.testing.assert_array_equal(objectives.clipped(ratio, advantage, 0.2, dual=1e9), symmetric)


@given(SEEDS, st.floats(1.01, 5.0))
def test_the_dual_clip_only_lifts_steep_losses(seed, dual):
    ratio, advantage, _ = ratios(seed)
    plain, bounded = (objectives.clipped(ratio, advantage, 0.2, dual=c) for c in (None, dual))
    np.testing.assert_array_equal(bounded, np.where(advantage < 0, np.maximum(plain, dual * advantage), plain))


@given(SEEDS)
def test_a_wide_band_clips_no_critic(seed):
    value, target, old = np.random.default_rng(seed).normal(size=(3, 40))
    np.testing.assert_allclose(critics.clipped_value(value, old, target, np.inf), critics.squared(value, target))
    assert (critics.clipped_value(value, old, target, 0.1) >= critics.squared(value, target) - 1e-12).all()


# ---- gradients ----


def policy_gradient(recipe, inputs, logits):
    """∇ of the loss with respect to the logits of a categorical policy that makes `log_prob` and KL."""
    torch = pytest.importorskip("torch")
    z = torch.tensor(logits, requires_grad=True)
    now, old = distributions.Categorical(z), distributions.Categorical(torch.tensor(logits))
    action = torch.as_tensor(inputs["action"])
    fields = {k: torch.as_tensor(v) for k, v in inputs.items() if k.startswith(("b_", "o_")) and k != "o_entropy"}
    fields |= {"o_log_prob": now.log_prob(action), "o_kl": old.kl(now), "b_log_prob": old.log_prob(action)}
    call_loss(recipe, fields)[0].backward()
    assert z.grad is not None
    return z.grad.numpy()


def test_at_the_old_policy_every_objective_has_the_gradient_of_the_likelihood(rng):
    logits = rng.normal(size=(6, 4, 3))
    inputs = loss_inputs(rng) | {"action": rng.integers(0, 3, size=(6, 4))}
    recipes = [A2C(), ImportanceWeighted(whiten=None), PPO(whiten=None), PPO(whiten=None, dual_clip=3.0)]
    first, *rest = [policy_gradient(recipe, inputs, logits) for recipe in [*recipes, PPOPenalty(whiten=None, beta=7.0)]]
    assert np.abs(first).max() > 0.01
    for other in rest:
        np.testing.assert_allclose(other, first, atol=1e-14)


@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_the_sampled_entropy_has_the_value_and_the_gradient_of_the_entropy(rng, shift):
    """Without a closed form −r log π stands in for H: over all actions of π_old it is H(π_θ), and ∇H(π_θ)."""
    torch = pytest.importorskip("torch")
    old = torch.tensor(rng.normal(size=(1, 5)))
    z = (old + shift * torch.tensor(rng.normal(size=(1, 5)))).requires_grad_()
    action = torch.arange(5)
    log_prob_old = distributions.Categorical(old.expand(5, 5)).log_prob(action)
    fields = {
        "b_log_prob": log_prob_old, "b_psi": torch.zeros(5, dtype=old.dtype), "b_weight": log_prob_old.exp(),
        "o_log_prob": distributions.Categorical(z.expand(5, 5)).log_prob(action),
    }  # fmt: skip
    value, metrics = call_loss(A2C(critic=None, psi=RewardToGo(), ent_coef=1.0), fields)
    entropy = distributions.Categorical(z).entropy()[0]
    (found,) = torch.autograd.grad(value, z)
    (slope,) = torch.autograd.grad(entropy, z)
    assert metrics["train/entropy_loss"].item() == pytest.approx(-entropy.item())
    np.testing.assert_allclose(found.numpy(), -slope.numpy(), atol=1e-14)


def test_estimators_of_kl_have_the_gradients_that_are_claimed(rng):
    """Over all actions of p. p = π_θ: E∇k1 = 0, E∇k2 = ∇KL(π_θ‖q), E∇k3 = ∇KL(q‖π_θ). q = π_θ: k1 and k3."""
    torch = pytest.importorskip("torch")
    z, w = (torch.tensor(rng.normal(size=5)) for _ in range(2))

    def slope(f, at):
        x = at.clone().requires_grad_()
        return torch.autograd.grad(f(x), x)[0].numpy()

    p, q = divergences.log_softmax(z).exp(), divergences.log_softmax(w)
    log_softmax, kl = divergences.log_softmax, divergences.categorical_kl
    estimators = (divergences.k1, divergences.k2, divergences.k3)
    moving_p = [slope(lambda x, k=k: (p * k(log_softmax(x), q)).sum(), z) for k in estimators]
    for found, expected in zip(
        moving_p, (np.zeros(5), slope(lambda x: kl(x, w), z), slope(lambda x: kl(w, x), z)), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-14)
    moving_q = [slope(lambda x, k=k: (p * k(log_softmax(z), log_softmax(x))).sum(), w) for k in estimators]
    np.testing.assert_allclose(moving_q[0], slope(lambda x: kl(z, x), w), atol=1e-14)
    np.testing.assert_allclose(moving_q[2], slope(lambda x: kl(z, x), w), atol=1e-14)
    assert np.abs(moving_q[1] - moving_q[0]).max() > 1e-3, "k2 is not one of them"


def test_estimators_of_kl_over_all_actions(rng):
    p, q = divergences.log_softmax(rng.normal(size=5)), divergences.log_softmax(rng.normal(size=5))
    exact = divergences.categorical_kl(p, q)
    assert np.exp(p) @ divergences.k1(p, q) == pytest.approx(exact)
    assert np.exp(p) @ divergences.k3(p, q) == pytest.approx(exact)
    assert (divergences.k3(p, q) >= 0).all() and (divergences.k2(p, q) >= 0).all()


def test_psi_targets_and_the_past_get_no_gradient(rng):
    torch = pytest.importorskip("torch")
    for recipe in RECIPES.values():
        fields = {
            k: torch.tensor(v, requires_grad=v.dtype == np.float64 and k != "b_weight")
            for k, v in loss_inputs(rng).items()
        }
        call_loss(recipe, fields)[0].backward()
        # the residual TD error reads reward and discount of the batch; nothing else of it may be differentiated
        fixed = [k for k in fields if k.startswith("b_") and k not in ("b_mask", "b_weight", "b_reward", "b_discount")]
        assert [k for k in fixed if fields[k].grad is not None and fields[k].grad.abs().max() > 0] == []
        assert fields["o_log_prob"].grad.abs().max() > 0


def test_metrics_carry_no_gradient(rng):
    torch = pytest.importorskip("torch")
    for recipe in RECIPES.values():
        fields = {k: torch.tensor(v, requires_grad=k.startswith("o_")) for k, v in loss_inputs(rng).items()}
        value, metrics = call_loss(recipe, fields)
        assert value.requires_grad
        assert [name for name, x in metrics.items() if x.requires_grad] == []


# ---- reduction ----


@given(SEEDS, st.integers(1, 11), st.sampled_from(sorted(UNWHITENED)))
def test_a_split_batch_adds_up(seed, cut, name):
    """With the total said aloud, parts of a batch add up to the whole: value, and each metric that is a share of it."""
    inputs = loss_inputs(np.random.default_rng(seed), (12,))
    total = float(reduce.total_steps(inputs["b_psi"], inputs["b_mask"], inputs["b_weight"]))
    whole, metrics = call_loss(UNWHITENED[name], inputs, total=total)
    parts = [{k: v[rows] for k, v in inputs.items()} for rows in (slice(None, cut), slice(cut, None))]
    results = [call_loss(UNWHITENED[name], part, total=total) for part in parts]
    assert sum(value for value, _ in results) == pytest.approx(float(whole), abs=1e-12)
    for metric in ("train/loss", "train/policy_gradient_loss", "train/value_loss"):
        assert sum(m[metric] for _, m in results) == pytest.approx(float(metrics[metric]), abs=1e-12)


@given(SEEDS, st.sampled_from(sorted(RECIPES)))
def test_the_order_of_rows_does_not_matter(seed, name):
    rng = np.random.default_rng(seed)
    inputs = loss_inputs(rng)
    order = rng.permutation(24)
    shuffled = {k: v.reshape(-1)[order] for k, v in inputs.items()}
    (a, left), (b, right) = call_loss(RECIPES[name], inputs), call_loss(RECIPES[name], shuffled)
    assert float(a) == pytest.approx(float(b), rel=1e-10, abs=1e-12)
    assert left == pytest.approx(right, rel=1e-10, abs=1e-12)


@given(SEEDS, st.integers(1, 23))
def test_reduce_is_split_invariant_and_its_default_is_the_mean(seed, cut):
    rng = np.random.default_rng(seed)
    x, mask, weight = rng.normal(size=24), rng.random(24) < 0.7, rng.uniform(0.5, 2.0, size=24)
    parts = [reduce.reduce(x[s], mask[s], weight[s], 5.0) for s in (slice(None, cut), slice(cut, None))]
    assert sum(parts) == pytest.approx(reduce.reduce(x, mask, weight, 5.0))
    if mask.any():
        assert reduce.mean(x, mask, weight) == pytest.approx(np.average(x[mask], weights=weight[mask]))


@given(SEEDS, st.floats(0.1, 10.0), st.floats(-5.0, 5.0))
def test_whitening_forgets_scale_and_offset(seed, scale, offset):
    x = np.random.default_rng(seed).normal(size=20)
    white = reduce.whiten(x, eps=0.0)
    np.testing.assert_allclose(reduce.whiten(scale * x + offset, eps=0.0), white, atol=1e-9)
    assert reduce.mean(white) == pytest.approx(0.0, abs=1e-12)
    assert reduce.variance(white) == pytest.approx(1.0)
