"""The compiled update: what must not matter does not, what must matter does."""

from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, cast

import jax
import numpy as np
import optax
import pytest

import vantage as vt
from vantage.control import MLP
from vantage.control import update as learning
from vantage.control.coefficients import numbers, refill, structure
from vantage.control.model import build
from vantage.control.spaces import BoxActions, DiscreteActions, VectorObservations
from vantage.recipe import Recipe
from vantage.rollout import Rollout
from vantage.theory.importance import effective_sample_size

T, B, D = 12, 4, 3


class Case:
    """A model and a rollout that it has scored."""

    def __init__(self, rng, actions=None, mask_some=False, critic=True):
        self.model, self.vector = build(
            VectorObservations(size=D),
            actions or DiscreteActions(n=3),
            MLP(hidden=(5,)),
            critic,
            np.random.default_rng(1),
        )
        self.vector = self.vector + 0.3 * rng.standard_normal(self.vector.shape).astype(np.float32)
        space = self.model.actions
        observation, self.reached = rng.standard_normal((2, T, B, D)).astype(np.float32)
        action = (
            rng.integers(0, 3, (T, B)).astype(np.int32)
            if isinstance(space, DiscreteActions)
            else rng.standard_normal((T, B, 2)).astype(np.float32)
        )
        last = rng.random((T, B)) < 0.2
        last[-1] = True
        ended = last & (rng.random((T, B)) < 0.5)
        mask = rng.random((T, B)) < 0.7 if mask_some else np.ones((T, B), bool)
        starts = np.concatenate([np.ones((1, B), bool), last[:-1]])
        rows = np.arange(T)[:, None]
        scored = learning.score(self.model, self.vector, observation, self.reached, action)
        reward = rng.standard_normal((T, B)).astype(np.float32)
        self.rollout = Rollout(
            observation=observation, action=action, reward=reward, signal=reward, last=last, mask=mask,
            discount=np.where(ended, 0.0, 0.9).astype(np.float32), log_prob=scored["log_prob"],
            value=scored.get("value"), next_value=scored.get("next_value"), policy=scored["policy"],
            group=np.array([0, 0, 1, 1]), gamma=0.9,
            time=(rows - np.maximum.accumulate(np.where(starts, rows, 0), axis=0)).astype(np.int32),
        )  # fmt: skip

    def learn(self, recipe, optim=None, rollout=None, rows=None):
        optim, rollout = optim or vt.Joint(lr=1e-2), rollout or self.rollout
        if rows is None:
            rng = np.random.default_rng(0)
            rows = learning.minibatches(rng, np.asarray(rollout.mask), recipe.n_epochs, recipe.n_minibatches)
        now, separate = recipe.at(0.0), isinstance(optim, vt.Separate)
        self.moved, metrics = learning.learn(
            self.model, structure(now), separate, learning.start(self.vector, optim), numbers(now),
            learning.rates(optim),
            vars(rollout), self.reached, rows,
        )  # fmt: skip
        return np.array(self.moved.vector), metrics.read()

    def gradient(self, recipe, optim, rows=None, at=None):
        """The gradient of the first minibatch, read from Adam's first moment after one step: (1 − β₁) g."""
        before = self.vector
        self.vector = before if at is None else at
        self.learn(recipe, optim, rows=rows)
        self.vector = before
        return np.array(self.moved.optimiser.mu) / 0.1


@pytest.fixture(autouse=True)
def _compile_fast():
    """Each knob compiles an update of its own: half the time without LLVM's optimisations."""
    old = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", old)


@pytest.fixture
def case(rng):
    return Case(rng)


ONCE = {"n_epochs": 1, "n_minibatches": 1}
STILL = vt.Joint(lr=1e-30)


@pytest.mark.parametrize("mask_some", [False, True])
def test_the_first_ratio_is_one(rng, mask_some):
    _, metrics = Case(rng, mask_some=mask_some).learn(vt.PPO(n_minibatches=2))
    assert metrics["train/first_ratio_deviation"] <= 1e-5
    assert metrics["train/ratio_deviation"] > 1e-3


@pytest.mark.parametrize("reduction", [vt.Steps(), vt.Columns()])
def test_the_loss_does_not_depend_on_how_a_batch_is_split(rng, reduction):
    """With nothing moving, the mean over equal minibatches is the loss of the whole, masked rows or not."""
    case = Case(rng, mask_some=True)
    real = int(case.rollout.mask.sum())
    whole, *split = (
        case.learn(vt.PPO(n_epochs=1, n_minibatches=n, whiten=None, reduction=reduction), STILL)[1]
        for n in (1, 2, 3, 5)
    )
    assert whole["train/value_loss"] > 0
    for n, parts in zip((2, 3, 5), split, strict=True):
        if real % n == 0:
            for name in ("train/policy_gradient_loss", "train/value_loss", "train/entropy_loss"):
                assert parts[name] == pytest.approx(whole[name], rel=1e-4), name


def test_the_gradient_does_not_depend_on_how_a_batch_is_split(rng):
    """Gradients of the parts, each under its share of the total, average to that of the whole (Adam's first moment)."""
    case = Case(rng)
    recipe = vt.PPO(**ONCE, whiten=None)
    order = np.arange(T * B, dtype=np.int32)

    optim = vt.Joint(lr=1e-30, max_grad_norm=None)
    parts = np.split(order, 4)
    mean = np.mean([case.gradient(recipe, optim, part[None, None]) for part in parts], axis=0)
    np.testing.assert_allclose(mean, case.gradient(recipe, optim, order[None, None]), atol=1e-6)


def test_what_is_masked_changes_nothing(rng):
    case = Case(rng, mask_some=True)
    hole = ~np.asarray(case.rollout.mask)

    def spoil(x):
        x = np.array(x)
        x[hole] = 1 if x.dtype == np.int32 else np.nan
        return x

    names = ("reward", "signal", "log_prob", "value", "next_value", "action")
    spoilt = case.rollout.map(spoil, *names)
    for recipe in (vt.PPO(), vt.PPOPenalty(whiten="batch"), vt.A2C()):
        before, after = case.learn(recipe), case.learn(recipe, rollout=spoilt)
        np.testing.assert_array_equal(before[0], after[0])
        assert np.isfinite(after[0]).all()


def test_the_update_changes_none_of_its_inputs(case):
    before = jax.tree.map(np.array, vars(case.rollout))
    vector = case.vector.copy()
    case.learn(vt.PPO())
    jax.tree.map(np.testing.assert_array_equal, before, vars(case.rollout))
    np.testing.assert_array_equal(vector, case.vector)


def test_each_real_row_is_used_once_an_epoch(rng):
    mask = rng.random((T, B)) < 0.6
    rows = learning.minibatches(np.random.default_rng(0), mask, 3, 5)
    for epoch in rows:
        used = np.sort(epoch[epoch < T * B])
        np.testing.assert_array_equal(used, np.flatnonzero(mask))
        sizes = (epoch < T * B).sum(axis=1)
        assert sizes.max() - sizes.min() <= 1
    assert (rows[0] != rows[1]).any()


def test_the_gradient_is_clipped_by_its_global_norm(case):
    """All of it by one factor: the clipped gradient keeps its direction. `Separate` clips actor and critic each."""
    bound, n, recipe = 1e-3, case.model.n_actor, vt.PPO(**ONCE)
    free = case.gradient(recipe, vt.Joint(max_grad_norm=None))
    joint = case.gradient(recipe, vt.Joint(max_grad_norm=bound))
    each = case.gradient(recipe, vt.Separate(max_grad_norm=bound))
    np.testing.assert_allclose(joint, free * bound / np.linalg.norm(free), rtol=1e-4, atol=1e-9)
    assert np.linalg.norm(each[:n]) == pytest.approx(bound, rel=1e-4)
    assert np.linalg.norm(each[n:]) == pytest.approx(bound, rel=1e-4)


def test_kl_stop_leaves_the_offending_minibatch_unapplied(case):
    """With a tiny bound the first minibatch (KL 0) moves and the second stops: two were looked at, one was applied."""
    optim = vt.Joint(lr=0.1)
    stopped, metrics = case.learn(vt.PPO(target_kl=1e-9), optim)
    assert metrics["train/minibatches"] == 2
    recipe = vt.PPO(n_epochs=10, n_minibatches=4)
    rows = learning.minibatches(np.random.default_rng(0), case.rollout.mask, 10, 4)
    one_step, _ = case.learn(recipe, optim, rows=rows[:1, :1])
    np.testing.assert_allclose(stopped, one_step, atol=1e-7)


def test_exact_kl_is_of_the_whole_batch_after_the_last_epoch(case):
    vector, metrics = case.learn(vt.PPO(), vt.Joint(lr=3e-2))
    before = case.model.actions.rebuild(case.rollout.policy)
    after = case.model.policy(vector, case.rollout.observation)
    assert metrics["train/kl"] == pytest.approx(float(before.kl(after).mean()), rel=1e-5)
    assert metrics["train/kl"] > 1e-3


def test_effective_sample_size_is_reported_as_a_share(case):
    _, metrics = case.learn(vt.PPO(**ONCE))
    assert metrics["train/ess"] == pytest.approx(float(effective_sample_size(np.ones(5))) / 5, abs=1e-5)


def test_schedules_do_not_compile_anew(case):
    recipe = vt.PPO(clip_range=vt.Linear(0.3), gae_lambda=vt.Linear(0.9, 0.5))
    case.learn(recipe.at(0.1))
    compiled = cast(Any, learning.learn)._cache_size()
    low, high = (case.learn(recipe.at(progress))[0] for progress in (0.2, 0.95))
    assert cast(Any, learning.learn)._cache_size() == compiled
    assert (low != high).any()


def test_numbers_of_a_recipe_come_out_and_go_back():
    recipe = vt.PPOPenalty(rule=vt.Proportional(target=0.5), ent_coef=0.1)
    values = numbers(recipe)
    assert {0.5, 0.1, 0.95} <= set(values)
    assert refill(structure(recipe), values) == recipe
    assert hash(structure(recipe)) == hash(structure(replace(recipe, ent_coef=0.7)))
    assert structure(recipe) != structure(replace(recipe, n_epochs=3))


# ---- every knob turns something ----

OTHER = {
    "psi": [
        vt.TDError(),
        vt.KStep(k=3),
        vt.GAE(lam=0.5),
        vt.RewardToGo(),
        vt.RewardToGo(baseline=vt.LearnedBaseline()),
    ],
    "objective": [vt.Ratio(), vt.Clip(low=0.001), vt.Clip(high=0.01), vt.Clip(dual=1.01), vt.Penalty(beta=9.0)],
    "critic": [vt.ClippedValue(width=1e-3), vt.ResidualTD()],
    "n_epochs": [2],
    "n_minibatches": [3],
    "ent_coef": [0.5],
    "whiten": ["batch", None],
    "target_kl": [1e-7],
    "reduction": [vt.Columns(), vt.Trajectories(), vt.Constant(n=3.0)],
    "time_weighting": ["discounted"],
    "recompute_advantages": [True],
}
KNOBS = [(name, value) for name, values in OTHER.items() for value in values]


def test_no_knob_is_forgotten():
    assert OTHER.keys() == {f.name for f in fields(Recipe)}


@pytest.mark.parametrize(("name", "value"), KNOBS, ids=lambda x: x if isinstance(x, str) else repr(x))
def test_every_knob_changes_the_update(name, value):
    case = Case(np.random.default_rng(3))
    base = vt.PPO(n_epochs=4, n_minibatches=2, clip_range=0.02)
    optim = vt.Joint(lr=3e-2, eps=1.0, max_grad_norm=None)
    assert (case.learn(base, optim)[0] != case.learn(replace(base, **{name: value}), optim)[0]).any()


def test_likelihood_with_reuse_is_refused():
    with pytest.raises(ValueError, match="objective"):
        replace(vt.PPO(), objective=vt.Likelihood())


@pytest.mark.parametrize("squash", [False, True])
def test_box_policies_learn_too(rng, squash):
    case = Case(rng, BoxActions(low=(-1.0, -2.0), high=(1.0, 2.0), squash=squash))
    vector, metrics = case.learn(vt.PPO(ent_coef=0.01))
    assert np.isfinite(vector).all()
    assert metrics["train/first_ratio_deviation"] <= 1e-5
    log_std = np.abs(case.model.networks(vector).log_std - case.model.networks(case.vector).log_std)
    assert (log_std > 0).all()


# ---- optimisers ----


@dataclass(frozen=True)
class Lion:
    """A user's own optimiser."""

    decay: float = 0.9

    def build(self, eps):
        return optax.scale_by_lion(b1=self.decay)


@pytest.mark.parametrize("optimiser", [vt.recipe.RMSProp(decay=0.9), vt.recipe.RMSPropTF(decay=0.9)])
def test_rmsprop_is_the_published_one(case, optimiser):
    """Two steps, each by the gradient where it stands; ε outside or inside the root."""
    tf, lr, eps = isinstance(optimiser, vt.recipe.RMSPropTF), 1e-2, 1e-3
    once, twice = (vt.ImportanceWeighted(n_epochs=n, n_minibatches=1) for n in (1, 2))
    optim = vt.Joint(lr=lr, eps=eps, max_grad_norm=None, optimiser=optimiser)
    theta, v = case.vector.astype(np.float64), np.full(case.vector.size, float(tf))
    for _ in range(2):
        g = case.gradient(once, vt.Joint(lr=1e-30, max_grad_norm=None), at=theta.astype(np.float32))
        v = 0.9 * v + 0.1 * g**2
        theta -= lr * g / (np.sqrt(v + eps) if tf else np.sqrt(v) + eps)
    np.testing.assert_allclose(case.learn(twice, optim)[0], theta, atol=2e-6)
    adam = case.learn(twice, vt.Joint(lr=lr, eps=eps, max_grad_norm=None))[0]
    assert np.abs(adam - theta).max() > 1e-3


def test_rmsprop_is_that_of_pytorch(case):
    torch = pytest.importorskip("torch")
    g = case.gradient(vt.A2C(), vt.Joint(lr=1e-30, max_grad_norm=None))
    theirs = torch.nn.Parameter(torch.tensor(case.vector))
    theirs.grad = torch.tensor(g)
    torch.optim.RMSprop([theirs], lr=1e-2, alpha=0.99, eps=1e-5).step()
    optim = vt.Joint(lr=1e-2, max_grad_norm=None, optimiser=vt.recipe.RMSProp())
    moved = g != 0  # where |g| is no larger than rounding, so is √v
    ours = case.learn(vt.A2C(), optim)[0]
    np.testing.assert_allclose(ours[moved], theirs.detach().numpy()[moved], atol=2e-5)


def test_an_optimiser_of_ones_own_takes_its_own_steps(case):
    """Lion's first step is the sign of the gradient; the learning rate and the bound on the gradient stay ours."""
    g = case.gradient(vt.A2C(), vt.Joint(lr=1e-30, max_grad_norm=None))
    moved = case.learn(vt.A2C(), vt.Joint(lr=1e-2, optimiser=Lion()))[0] - case.vector
    np.testing.assert_allclose(moved, -1e-2 * np.sign(g), atol=1e-6)


def test_the_betas_of_adam_reach_it(case):
    case.learn(vt.A2C(), vt.Joint(lr=1e-30, max_grad_norm=None))
    mu = np.array(case.moved.optimiser.mu)
    case.learn(vt.A2C(), vt.Joint(lr=1e-30, max_grad_norm=None, optimiser=vt.recipe.Adam(b1=0.5)))
    np.testing.assert_allclose(np.array(case.moved.optimiser.mu), 5 * mu, rtol=1e-4, atol=1e-9)


def test_rows_read_in_blocks_say_what_they_say_at_once(rng, monkeypatch):
    case = Case(rng)
    inputs = [case.rollout.observation, case.reached, case.rollout.action]
    score = partial(learning.score.__wrapped__, case.model, case.vector)
    whole = score(*inputs)
    monkeypatch.setattr(learning, "BLOCK", 5 * B)  # 12 rows are 5, 5 and 2
    assert "scan" in str(jax.make_jaxpr(score)(*inputs))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-7), score(*inputs), whole)
