"""What the training loop must keep to. Each test is the guard of a bug in `vantage.verify`'s lists."""

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.vector import AutoresetMode

import vantage as vt
from tests.worlds.control_envs import Counter, Vectorised
from tests.worlds.test_control_collect import agent, collected
from vantage.control import LSTM, MLP, trust_region, update
from vantage.control.model import build
from vantage.control.normalise import Moments, observe
from vantage.control.recurrent import Memory
from vantage.control.spaces import DiscreteActions, VectorObservations

SAME_STEP = Vectorised(Counter, AutoresetMode.SAME_STEP)
NEXT_STEP = Vectorised(Counter, AutoresetMode.NEXT_STEP)


def test_reached_is_the_final_observation():
    rollout, made = collected(SAME_STEP)
    np.testing.assert_array_equal(made.world._reached, np.asarray(rollout.observation) + np.array([0, 1], np.float32))


def test_filler_is_masked():
    rollout, _ = collected(NEXT_STEP)
    np.testing.assert_array_equal(~rollout.mask[1:], (rollout.last & rollout.mask)[:-1])


def test_episodes_end_where_they_end():
    rollout, _ = collected(SAME_STEP)
    begins = np.asarray(rollout.observation)[..., 1] == 0
    np.testing.assert_array_equal(rollout.last[:-1], begins[1:])


def test_a_time_limit_keeps_its_discount():
    rollout, _ = collected(SAME_STEP, gamma=0.5)
    cut = np.asarray(rollout.observation)[..., 0] % 2 == 1
    assert (rollout.discount[rollout.last & cut] == 0.5).all()
    assert (rollout.discount[:-1][(rollout.last & ~cut)[:-1]] == 0.0).all()


def test_the_norm_is_clipped():
    np.testing.assert_allclose(update._clip(jnp.array([3.0, 4.0]), 1.0), [0.6, 0.8], rtol=1e-6)
    np.testing.assert_array_equal(update._clip(jnp.array([0.3, 0.4]), 1.0), jnp.array([0.3, 0.4]))


def test_beta_moves_once():
    recipe = vt.PPOPenalty(beta=1.0, rule=vt.Thresholds(kl_max=0.02))
    rollout, made = collected(SAME_STEP, recipe)
    made.world._move_beta(recipe, rollout, kl=1.0)
    assert made.world.beta == 2.0


def test_statistics_wait_for_the_rollout():
    raw, _ = collected(SAME_STEP)
    seen, made = collected(SAME_STEP, normalise_observation=True)
    np.testing.assert_array_equal(seen.observation, observe(Moments.fresh((2,)), np.asarray(raw.observation)))
    assert agent(SAME_STEP, normalise_observation=True).world.moments.count < made.world.moments.count


def test_a_refused_step_is_taken_back():
    actor, never = jnp.array([0.5, -0.25], jnp.float32), lambda part: -jnp.sum(part**2)
    with jax.enable_x64(True):
        found = trust_region.search(
            actor, jnp.ones_like(actor), vt.recipe.TrustRegion(), lambda part: 0.0 * part.sum(), never
        )
    assert not found.accepted
    assert np.asarray(found.actor).tobytes() == np.asarray(actor).tobytes()


def test_a_step_out_of_the_region_is_refused():
    """KL = |θ| along a line: of the steps 1, 0.8, 0.64, … the first with KL ≤ 0.7 is 0.64."""
    actor, step = jnp.zeros(1, jnp.float32), jnp.ones(1, jnp.float32)
    with jax.enable_x64(True):
        region = vt.TrustRegion(delta=0.7, shrink=0.8)
        found = trust_region.search(actor, step, region, lambda part: part.sum(), lambda part: part.sum())
    np.testing.assert_allclose(found.actor, [0.64], rtol=1e-6)


def test_the_whole_step_uses_up_the_region():
    F = jnp.array([1.0, 4.0])
    step = trust_region.natural_step(jnp.array([1.0, 1.0]), lambda v: F * v, vt.TrustRegion(delta=0.01, damping=0.0))
    np.testing.assert_allclose(0.5 * step @ (F * step), 0.01, rtol=1e-5)


def test_the_epochs_leave_the_actor_alone():
    made = agent(SAME_STEP, vt.TRPO())
    model, recipe = made._model, made.settings.recipe
    slope = jax.grad(lambda vector: update._held(model, recipe, vector).sum())(jnp.zeros(model.size))
    np.testing.assert_array_equal(slope, jnp.arange(model.size) >= model.n_actor)


REMEMBERS = LSTM(hidden=4, after=MLP(hidden=()))


def remembered(begins):
    """Rows of two columns under a policy that remembers, and what it says of them."""
    rng = np.random.default_rng(0)
    model, vector = build(VectorObservations(size=3), DiscreteActions(n=2), REMEMBERS, True, rng)
    x = rng.standard_normal((6, 2, 3)).astype(np.float32)
    begins = jnp.array([[t in begins] * 2 for t in range(6)])
    carry = jnp.array(rng.standard_normal((2, model.carry)).astype(np.float32))
    return model, vector, x, model.run(vector, x, Memory(carry=carry, begins=begins, mask=jnp.ones((6, 2), bool)))


def test_the_carry_is_the_state_before_the_rollout():
    made = agent(SAME_STEP, network=REMEMBERS)
    collector, actor = made.world._collector, made.world.actor
    first = collector.rollout(actor, None, 13, 0, False)
    between = collector.carry.copy()
    assert not first.carry.any()
    assert between.any()
    np.testing.assert_array_equal(collector.rollout(actor, None, 13, 1, False).carry, between)


def test_the_state_begins_anew_with_each_episode():
    model, vector, x, says = remembered(begins=[4])
    nothing = Memory(carry=jnp.zeros((2, model.carry)), begins=jnp.zeros((2, 2), bool), mask=jnp.ones((2, 2), bool))
    np.testing.assert_allclose(says.value[4:], model.run(vector, x[4:], nothing).value, atol=1e-6)


def test_the_value_reached_follows_upon_its_state():
    model, vector, x, says = remembered(begins=[])
    np.testing.assert_allclose(model.value(vector, x[1:], says.states[:-1]), says.value[1:], atol=1e-6)
