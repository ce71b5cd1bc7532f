"""What an update reports of itself: gains, norms, and the same on columns that nothing was learned from."""

from dataclasses import replace

import jax
import numpy as np
import pytest

import vantage as vt
from tests.identity.test_update_algebra import Case
from vantage.control import update as learning
from vantage.control.coefficients import numbers, structure
from vantage.control.measure import held_out
from vantage.theory import divergences, importance

pytestmark = pytest.mark.usefixtures("compile_fast")

RECIPE = vt.PPO(n_epochs=3, n_minibatches=1, whiten=None, ent_coef=0.01)
HELD = np.array([False, True, False, True])


def learn(case: Case, rollout=None, reached=None, held=None, recipe=RECIPE):
    """The parameters after one update, and its metrics."""
    rollout = case.rollout if rollout is None else rollout
    mask = np.array(rollout.mask) if held is None else np.array(rollout.mask) & ~held
    rows = learning.minibatches(np.random.default_rng(0), mask, recipe.n_epochs, recipe.n_minibatches)
    moved, metrics = learning.learn(
        case.model, structure(recipe), False, learning.start(case.vector), numbers(recipe),
        learning.rates(vt.Joint(lr=3e-2)), vars(rollout), case.reached if reached is None else reached, rows, held,
    )  # fmt: skip
    return np.array(moved.vector), metrics.read()


def columns(rollout, kept):
    """The rollout with these columns alone."""

    def take(x):
        return tuple(map(take, x)) if isinstance(x, tuple) else np.asarray(x)[:, kept] if np.ndim(x) > 1 else x

    taken = {name: take(x) for name, x in vars(rollout).items()}
    return replace(rollout, **taken | {"group": rollout.group[kept]})


def gain(case, vector, rollout):
    """E[min(rΨ, clip(r)Ψ) + 0.01 H] under these parameters, by hand."""
    policy = case.model.policy(vector, rollout.observation)
    ratio = importance.ratio(np.array(policy.log_prob(rollout.action)), np.asarray(rollout.log_prob))
    psi = np.asarray(RECIPE.prepare(rollout).psi)
    return np.mean(np.minimum(ratio * psi, np.clip(ratio, 0.8, 1.2) * psi) + 0.01 * np.array(policy.entropy()))


def test_columns_held_out_teach_nothing(rng):
    """Parameters and every train/ metric are those of a rollout that never had these columns."""
    case = Case(rng)
    vector, metrics = learn(case, held=HELD)
    without, fewer = learn(case, columns(case.rollout, ~HELD), case.reached[:, ~HELD])
    np.testing.assert_allclose(vector, without, rtol=1e-5, atol=1e-6)
    for name in fewer:
        assert metrics[name] == pytest.approx(fewer[name], rel=1e-3, abs=1e-5), name
    spoilt = replace(case.rollout, signal=np.where(HELD, 1e6, case.rollout.signal).astype(np.float32))
    np.testing.assert_array_equal(learn(case, spoilt, held=HELD)[0], vector)


def test_what_an_update_did_is_measured_on_both_shares(rng):
    case = Case(rng)
    vector, metrics = learn(case, held=HELD)
    for prefix, kept in (("train", ~HELD), ("held_out", HELD)):
        part = columns(case.rollout, kept)
        after = case.model.policy(vector, part.observation)
        before = case.model.actions.rebuild(part.policy)
        exact = float(np.mean(np.array(before.kl(after))))
        assert metrics[f"{prefix}/kl"] == pytest.approx(exact, rel=1e-4)
        raised = gain(case, vector, part) - gain(case, case.vector, part)
        assert metrics[f"{prefix}/surrogate_gain"] == pytest.approx(raised, rel=1e-3, abs=1e-6)
        assert abs(raised) > 1e-4
    part = columns(case.rollout, HELD)
    policy, old = case.model.policy(vector, part.observation), np.asarray(part.log_prob)
    new = np.array(policy.log_prob(part.action))
    ratio = np.exp(new - old)
    assert metrics["held_out/approx_kl"] == pytest.approx(float(np.mean(divergences.k3(old, new))), rel=1e-3)
    assert metrics["held_out/clip_fraction"] == pytest.approx(float(np.mean(np.abs(ratio - 1) > 0.2)), abs=1e-6)
    assert metrics["held_out/entropy"] == pytest.approx(float(np.mean(np.array(policy.entropy()))), rel=1e-4)
    assert metrics["held_out/ess"] == pytest.approx(ratio.sum() ** 2 / (ratio**2).sum() / ratio.size, rel=1e-4)
    target, value = np.asarray(RECIPE.prepare(part).target), np.asarray(part.value)
    assert metrics["held_out/explained_variance"] == pytest.approx(1 - (target - value).var() / target.var(), rel=1e-3)


def test_gradient_norms_are_those_before_clipping(rng):
    case = Case(rng)
    once = vt.PPO(n_epochs=1, n_minibatches=1)
    gradient = case.gradient(once, vt.Joint(max_grad_norm=None))
    n = case.model.n_actor
    _, clipped = case.learn(once, vt.Joint(max_grad_norm=1e-3))
    for name, part in (("grad_norm", gradient), ("actor_grad_norm", gradient[:n]), ("critic_grad_norm", gradient[n:])):
        assert clipped[f"train/{name}"] == pytest.approx(float(np.linalg.norm(part)), rel=1e-3)


def test_the_epochs_end_at_one_and_a_half_times_the_target(rng):
    """The second minibatch is applied if its KL is below 1.5 · target, and not if it is above."""
    case, optim = Case(rng), vt.Joint(lr=1e-2)
    rows = learning.minibatches(np.random.default_rng(0), np.asarray(case.rollout.mask), 1, 2)
    first, _ = case.learn(vt.PPO(n_epochs=1, n_minibatches=2), optim, rows=rows[:, :1])
    seen = rows[0, 1]
    old = np.asarray(case.rollout.log_prob).ravel()[seen]
    new = np.array(case.model.policy(first, case.rollout.observation).log_prob(case.rollout.action)).ravel()[seen]
    kl = float(np.mean(divergences.k3(old, new)))
    for factor, applied in ((1.02, True), (0.98, False)):
        vector, metrics = case.learn(vt.PPO(n_epochs=1, n_minibatches=2, target_kl=factor * kl / 1.5), optim, rows=rows)
        assert metrics["train/minibatches"] == 2
        assert (np.abs(vector - first).max() > 1e-5) == applied


@pytest.mark.parametrize(("number", "held"), [(0, None), (1, 1), (3, 3)])
def test_a_share_of_the_columns_is_drawn(number, held):
    drawn = [held_out(np.random.default_rng(seed), 4, number) for seed in range(40)]
    if held is None:
        assert drawn == [None] * 40
        return
    assert {int(x.sum()) for x in drawn} == {held}
    assert np.all(np.sum(drawn, axis=0) > 0), "every column has its turn"


def test_a_callback_may_prepare_the_rollout_it_sees(rng):
    """A rollout mixes NumPy arrays, of whoever acted, with JAX arrays, of whoever scored."""
    case = Case(rng)
    kinds = {type(x) for x in vars(case.rollout).values() if hasattr(x, "shape")}
    assert np.ndarray in kinds and any(issubclass(kind, jax.Array) for kind in kinds)
    read = replace(
        case.rollout,
        **{name: np.asarray(getattr(case.rollout, name)) for name in ("log_prob", "value", "next_value")},
    )
    for recipe in (vt.PPO(whiten="batch"), vt.A2C(psi=vt.KStep(k=2)), vt.A2C(time_weighting="discounted")):
        mixed, plain = recipe.prepare(case.rollout), recipe.prepare(read)
        np.testing.assert_allclose(np.asarray(mixed.psi), plain.psi, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(np.asarray(mixed.target), plain.target, rtol=1e-4, atol=1e-5)
