"""One name, many ways of stepping: what is recorded is the same, and V is asked about the state that was reached."""

import itertools
import sys
from dataclasses import dataclass
from typing import NamedTuple

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import vantage as vt
from tests.worlds.control_envs import Counter, Probe, Vectorised
from tests.worlds.jax_envs import JaxCounter, JaxProbe
from vantage.control import LSTM, MLP, environments
from vantage.control.adapters.brax_env import BraxEnv
from vantage.control.jax_world import Pending
from vantage.control.normalise import Moments, observe, running_returns
from vantage.rollout import Rollout

pytestmark = pytest.mark.usefixtures("compile_fast")
GAMMA = 0.9
LIMIT = 4
COUNTER = JaxCounter()


def agent(env, recipe=None, **options):
    given = {"n_envs": 3, "n_steps": 12, "network": MLP(hidden=(4,)), "check_actor_every": 1, **options}
    return vt.Agent(env, recipe or vt.PPO(n_epochs=2, n_minibatches=2), **given)


def collected(made):
    return made.world.collect(made.settings.recipe.at(0.0, made.world.beta))


def value_of(made, observation):
    return np.asarray(made._model.value(made.world.vector, np.asarray(observation, np.float32)))


# ---- the record of environments in JAX ----


def test_the_record_of_a_jax_environment_is_the_known_one():
    made = agent(COUNTER, n_envs=4, n_steps=30, gamma=0.5)
    rollout = collected(made)
    x, t = np.moveaxis(np.asarray(rollout.observation), -1, 0)
    np.testing.assert_allclose(rollout.reward, 10 * x + t, rtol=1e-6)
    np.testing.assert_array_equal(rollout.time, t)
    reached = np.stack([x, t + 1], -1)
    np.testing.assert_array_equal(made.world._reached, reached)
    np.testing.assert_allclose(rollout.next_value, value_of(made, reached), atol=1e-5)
    begins = np.asarray(t == 0)
    np.testing.assert_array_equal(rollout.last[:-1], begins[1:])
    assert rollout.last[-1].all()
    ended = np.asarray(rollout.last)[:-1]
    np.testing.assert_array_equal(np.asarray(rollout.discount)[:-1], np.where(ended & (x[:-1] >= 0.5), 0.0, 0.5))
    assert set(t[:-1][ended]) == {1.0, 2.0, 3.0}
    assert np.asarray(rollout.mask).all()
    assert made.steps == 120


def test_episodes_begin_apart_and_from_their_own_draw():
    """Each reset has a number of its own: no slot repeats its first state, as Brax's wrapper does, nor another's."""
    rollout = collected(agent(COUNTER, n_envs=4, n_steps=60))
    x, t = np.moveaxis(np.asarray(rollout.observation), -1, 0)
    first = x[t == 0]
    assert len(first) > 60
    assert len(set(first.tolist())) == len(first)
    assert abs(first.mean() - 0.5) < 4 * 12**-0.5 / len(first) ** 0.5


def test_episodes_are_counted_across_rollouts():
    made = agent(COUNTER)
    rollouts = []
    made.learn(36 * 4, lambda update: rollouts.append(update.rollout))
    reward, last = (np.concatenate([np.asarray(getattr(r, name)) for r in rollouts]) for name in ("reward", "time"))
    expected = []
    for slot in range(3):
        starts = np.flatnonzero(last[:, slot] == 0)
        ends = np.append(starts[1:], len(last))
        expected += [(reward[a:b, slot].sum(), b - a) for a, b in zip(starts, ends, strict=True) if b < len(last)]
    found = sorted(made.world._collector.episodes)
    missing = [e for e in expected if not any(np.allclose(episode, e, rtol=1e-5) for episode in found)]
    assert not missing
    assert len(expected) <= len(found) <= len(expected) + 3
    assert made.world._metrics["rollout/ep_len_mean"] == pytest.approx(np.mean([n for _, n in found]))


def test_actions_are_those_of_the_environment():
    """A Box gets the clipped action, a Discrete one counted from its start; the record keeps the sample."""
    got = []

    class Spy(JaxCounter):
        def step(self, key, state, action):
            jax.debug.callback(lambda a: got.append(np.asarray(a)), action)
            return super().step(key, state, action)

    for discrete in (True, False):
        rollout = collected(agent(Spy(discrete=discrete), n_envs=1, n_steps=20))
        action = np.asarray(rollout.action)
        jax.effects_barrier()
        if discrete:
            assert {int(a) for a in got} == {5, 6}
            assert set(np.unique(action)) == {0, 1}
        else:
            low, high = np.float32(-0.1), np.float32(0.2)
            assert np.min(got) >= low
            assert np.max(got) <= high
            assert np.abs(action).max() > 0.5
        got.clear()


# ---- one program, or two ----


@pytest.mark.parametrize("normalise", [False, True])
def test_a_rollout_that_is_looked_at_first_changes_nothing(normalise):
    both = dict(normalise_observation=normalise, normalise_reward=normalise)
    one, two = agent(COUNTER, **both), agent(COUNTER, **both)

    class Look(vt.loop.Callback):
        def on_rollout(self, world, recipe, rollout):
            assert rollout.reward is not None

    records = {}
    for name, made, listener in (("one", one, ()), ("two", two, (Look(),))):
        records[name] = []
        made.learn(36 * 4, [*listener, lambda update, name=name: records[name].append(update.rollout)])
    tight = {"rtol": 2e-5, "atol": 1e-6} if normalise else {"rtol": 0, "atol": 0}
    np.testing.assert_allclose(one.world.vector, two.world.vector, **tight)
    for a, b in zip(records["one"], records["two"], strict=True):
        assert type(a) is type(b) is Rollout
        np.testing.assert_array_equal(a.action, b.action)
        np.testing.assert_allclose(a.observation, b.observation, **tight)
        np.testing.assert_allclose(a.next_value, b.next_value, rtol=1e-4, atol=1e-5)


def test_a_rollout_is_pending_until_it_is_read():
    made = agent(COUNTER)
    rollout = collected(made)
    assert type(rollout) is Pending
    assert isinstance(rollout, Rollout)
    assert rollout.shape == (12, 3)
    assert type(rollout) is Rollout
    assert made.steps == 36


def test_a_rollout_may_be_looked_at_between_updates():
    """The device's buffers are given away at each update; what is taken alone afterwards must not need the old ones."""
    made = agent(COUNTER)
    made.learn(36)
    assert np.isfinite(collected(made).reward).all()
    made.learn(36 * 4)
    assert np.isfinite(made.world.vector).all()


def test_normalisers_see_what_the_host_would_compute():
    made = agent(COUNTER, normalise_observation=True, normalise_reward=True)
    seen, rewards, dones = Moments.fresh((2,)), Moments.fresh(()), np.zeros(3)
    for _ in range(3):
        recipe = made.settings.recipe.at(0.0, None)
        rollout = made.world.collect(recipe)
        made.world.update(recipe, rollout, 0.0)
        frame = seen.frame
        raw = np.asarray(rollout.observation, np.float64) / frame[1] + frame[0]
        np.testing.assert_allclose(raw[..., 1], np.asarray(rollout.time), atol=1e-4)
        scale = np.float32(rewards.scale)
        np.testing.assert_allclose(rollout.signal, np.clip(np.asarray(rollout.reward) * scale, -10, 10), rtol=1e-5)
        done = np.asarray(rollout.last).copy()
        done[-1] = made.world._collector.lengths == 0
        returns, dones = running_returns(np.asarray(rollout.reward, np.float64), done, np.ones_like(done), 0.99, dones)
        seen, rewards = seen.moved(raw.reshape(-1, 2)), rewards.moved(returns.ravel())
        np.testing.assert_allclose(made.world.moments.mean, seen.mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(made.world.moments.var, seen.var, rtol=1e-4)
        np.testing.assert_allclose(made.world._returned.var, rewards.var, rtol=1e-4)
        assert made.world.moments.count == seen.count
    np.testing.assert_array_equal(
        made._player.moments.frame[0], made.world.moments.mean.astype(np.float32)
    )  # what acts on the host is what acted on the device
    assert observe(made.world.moments, np.zeros((1, 2), np.float32)).dtype == np.float32


# ---- the guards, inside the program ----


@pytest.mark.parametrize("what", ["reward", "observation"])
def test_a_number_that_is_not_finite_stops_the_run_and_changes_no_parameter(what):
    made = agent(JaxCounter(spoil=(what, 1)))
    vectors = [made.world.vector]
    with pytest.raises(FloatingPointError, match=rf"slot \d gave a {what} that is not finite at step \d+ of rollout"):
        made.learn(10_000, lambda update: vectors.append(update.world.vector))
    np.testing.assert_array_equal(made.world.vector, vectors[-1])
    assert np.isfinite(made.world.vector).all()


def test_an_actor_that_is_not_the_learner_is_caught(monkeypatch):
    from vantage.control import jax_world

    right = jax_world.acted_log_prob
    monkeypatch.setattr(jax_world, "acted_log_prob", lambda *given: right(*given) + 0.01)
    made = agent(JaxCounter(spoil=("none", 99)))
    before = made.world.vector
    with pytest.raises(RuntimeError, match=r"differ by 0\.01"):
        made.learn(36)
    np.testing.assert_array_equal(made.world.vector, before)


def test_the_epochs_stop_at_the_kl_bound():
    made = agent(COUNTER, vt.PPO(n_epochs=10, n_minibatches=2, target_kl=1e-4), optim=vt.Joint(lr=0.1))
    report = made.learn(36 * 3)
    assert max(report.column("train/minibatches")) < 20
    assert report.column("train/first_ratio_deviation") == pytest.approx([0, 0, 0], abs=1e-4)


def test_beta_moves_and_schedules_do_not_compile_anew():
    from vantage.control import jax_world

    recipe = vt.PPOPenalty(n_epochs=4, n_minibatches=1, rule=vt.Thresholds(kl_min=0.0, kl_max=1e-9))
    made = agent(COUNTER, recipe, optim=vt.Joint(lr=vt.Linear(0.01)))
    made.learn(36 * 2)
    compiled = jax_world._iterate._cache_size()
    report = made.learn(36 * 5)
    assert report.column("train/beta")[-1] > report.column("train/beta")[0] > 1.0
    assert report.column("train/learning_rate")[-1] < 0.01
    assert jax_world._iterate._cache_size() == compiled


@pytest.mark.parametrize("recipe", [vt.REINFORCE(), vt.TRPO()], ids=["whole episodes", "trust region"])
def test_recipes_that_learn_in_a_call_of_their_own(recipe):
    made = agent(COUNTER, recipe, n_steps=5)
    before, rollouts = made.world.vector, []
    made.learn(40, lambda update: rollouts.append(update.rollout))
    assert (made.world.vector != before).any()
    for rollout in rollouts:
        np.testing.assert_allclose(
            np.asarray(rollout.reward)[rollout.mask],
            (10 * rollout.observation[..., 0] + rollout.observation[..., 1])[rollout.mask],
            rtol=1e-6,
        )
        if recipe.critic is None:
            assert (rollout.time[0] == 0).all()


# ---- saved, resumed, used elsewhere ----


@pytest.mark.parametrize("options", [{}, {"normalise_observation": True, "normalise_reward": True}])
def test_resuming_is_bit_for_bit(options, tmp_path):
    whole, half = agent(COUNTER, seed=3, **options), agent(COUNTER, seed=3, **options)
    assert whole.world.exact()
    whole.learn(36 * 6)
    half.learn(36 * 3)
    half.save(tmp_path / "half")
    resumed = vt.Agent.resume(tmp_path / "half", env=COUNTER)
    resumed.learn(36 * 6)
    np.testing.assert_array_equal(resumed.world.vector, whole.world.vector)
    assert list(resumed.world._collector.episodes) == list(whole.world._collector.episodes)


def test_an_agent_of_jax_acts_and_is_evaluated_on_the_host():
    made = agent(JaxProbe(steps=3, free=True))
    made.learn(36)
    assert made.evaluate(episodes=5).returns == (3.0,) * 5
    assert made.act(np.ones(1, np.float32)) in (0, 1)
    assert made.predict(np.ones((7, 1), np.float32))[0].shape == (7,)
    assert made.backend == "JaxProbe: written in JAX, so acting and learning are one compiled program (3 slots)"


def test_the_same_seed_is_the_same_run_and_another_is_not():
    vectors = []
    for seed in (0, 0, 1):
        made = agent(COUNTER, seed=seed)
        made.learn(72)
        vectors.append(made.world.vector)
    np.testing.assert_array_equal(vectors[0], vectors[1])
    assert (vectors[0] != vectors[2]).any()


# ---- adapters: V is asked about the state that was reached ----


def test_gymnax_shows_the_state_reached_at_a_time_limit():
    gymnax = pytest.importorskip("gymnax")
    made = agent("gymnax:CartPole-v1", max_episode_steps=LIMIT, gamma=GAMMA)
    rollout = collected(made)
    cut = np.asarray(rollout.time) == LIMIT - 1
    np.testing.assert_array_equal(rollout.last[:-1], cut[:-1])
    np.testing.assert_array_equal(rollout.discount, np.float32(GAMMA))
    env, params = gymnax.make("CartPole-v1")
    state = gymnax.environments.classic_control.cartpole.EnvState
    observation, action = np.asarray(rollout.observation)[cut], np.asarray(rollout.action)[cut]
    reached = [
        env.step_env(jax.random.key(0), state(3, *o), int(a), params)[0]
        for o, a in zip(observation, action, strict=True)
    ]
    np.testing.assert_allclose(made.world._reached[cut], reached, atol=1e-6)
    np.testing.assert_allclose(np.asarray(rollout.next_value)[cut], value_of(made, reached), atol=1e-5)
    assert not np.allclose(reached[0], np.asarray(rollout.observation)[LIMIT, 0], atol=1e-4)


def test_brax_shows_the_state_reached_at_a_time_limit():
    """ "fast" moves by its own speed: v ← v + 0.02 [a > 0], x ← x + 0.02 v."""
    pytest.importorskip("brax")
    made = agent("brax:fast", max_episode_steps=LIMIT, gamma=GAMMA)
    rollout = collected(made)
    cut = np.asarray(rollout.time) == LIMIT - 1
    np.testing.assert_array_equal(rollout.last[:-1], cut[:-1])
    np.testing.assert_array_equal(rollout.discount, np.float32(GAMMA))
    x, v = np.moveaxis(np.asarray(rollout.observation), -1, 0)
    v = v + 0.02 * (np.asarray(rollout.action)[..., 0] > 0)
    reached = np.stack([x + 0.02 * v, v], -1)
    np.testing.assert_allclose(made.world._reached, reached, atol=1e-6)
    np.testing.assert_allclose(rollout.next_value, value_of(made, reached), atol=1e-5)


def test_envpool_shows_the_state_reached_and_its_filler_is_masked():
    pytest.importorskip("envpool")
    made = agent("envpool:CartPole-v1", max_episode_steps=LIMIT, gamma=GAMMA)
    rollout = collected(made)
    mask, cut = np.asarray(rollout.mask), np.asarray(rollout.time) == LIMIT - 1
    cut &= mask
    np.testing.assert_array_equal(mask[1:], ~cut[:-1])
    assert made.steps == mask.sum() < mask.size
    np.testing.assert_array_equal(np.asarray(rollout.discount)[mask], np.float32(GAMMA))
    observation, action = np.asarray(rollout.observation)[cut], np.asarray(rollout.action)[cut]
    single = gym.make("CartPole-v1").unwrapped
    reached = []
    for o, a in zip(observation, action, strict=True):
        single.reset(seed=0)
        single.state = o.astype(float)
        reached.append(single.step(int(a))[0])
    np.testing.assert_allclose(made.world._reached[cut], reached, atol=1e-5)
    np.testing.assert_allclose(np.asarray(rollout.next_value)[cut], value_of(made, reached), atol=1e-5)
    lengths = [n for _, n in made.world._collector.episodes]
    assert lengths == [LIMIT] * int(cut.sum())


def test_envpool_begins_anew_from_its_seeds():
    pytest.importorskip("envpool")
    env = environments.make("envpool:CartPole-v1", 3, {}, None)
    first, again, other = (env.reset(seed=seed)[0] for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first[1:], other[:-1])
    assert len(set(first[:, 0].tolist())) == 3
    env.close()


def chain(length: int) -> vt.mdp.MDP:
    """0 → 1 → … → 0 for ever, reward 1 a step whatever is done."""
    return vt.mdp.MDP.from_function(
        lambda s, a: (s + 1) % length, lambda s, a, t: 1.0, length, 2, np.eye(length)[0], GAMMA
    )


def test_an_mdp_shows_the_state_reached_at_a_time_limit():
    made = agent(chain(7), max_episode_steps=LIMIT, gamma=GAMMA)
    rollout = collected(made)
    state, cut = np.asarray(rollout.observation), np.asarray(rollout.time) == LIMIT - 1
    np.testing.assert_array_equal(rollout.last[:-1], cut[:-1])
    np.testing.assert_array_equal(made.world._reached, state + 1)
    assert (np.asarray(made.world._reached)[cut] == LIMIT).all()
    np.testing.assert_array_equal(rollout.discount, np.float32(GAMMA))


def test_an_mdp_in_jax_draws_as_its_tables_say():
    world = vt.mdp.random_mdp(5, 3, GAMMA)
    from vantage.mdp.jax_env import of

    env, n = of(world), 40_000
    step = jax.jit(jax.vmap(env.step, in_axes=(0, None, None)))
    for s, a in ((0, 0), (2, 1), (4, 2)):
        (reached, _), _, reward, _, _ = step(jax.random.split(jax.random.key(s), n), (s, 0), a)
        p = world.P[s, a]
        np.testing.assert_allclose(np.bincount(reached, minlength=5) / n, p, atol=4 * 0.5 / n**0.5)
        np.testing.assert_allclose(reward, world.R[s, a, np.asarray(reached)], rtol=1e-6)


# ---- a time limit does not end the world: V = 1/(1 − γ) ----


class State(NamedTuple):
    """What Brax's environments hand on, as far as the adapter reads it."""

    obs: jax.Array
    reward: jax.Array
    done: jax.Array


class Still:
    """An environment as Brax has them: nothing moves, reward 1 for ever."""

    def reset(self, key):
        return State(jnp.ones(1), jnp.zeros(()), jnp.zeros(()))

    def step(self, state, action):
        return state._replace(reward=jnp.ones(()))


BOX = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
FOREVER = {
    "brax": (BraxEnv("still", (), LIMIT, BOX, BOX, Still()), {"max_episode_steps": None}),
    "sync": (lambda: Probe(steps=10**9), {"backend": "sync"}),
    "async": (lambda: Probe(steps=10**9), {"backend": "async"}),
    **{
        mode.name: (
            Vectorised(lambda: gym.wrappers.TimeLimit(Probe(steps=10**9), LIMIT), mode),
            {"max_episode_steps": None},
        )
        for mode in AutoresetMode
    },
    "vector": ("CartPole-v1", {"backend": "vector"}),
    "envpool": ("envpool:CartPole-v1", {}),
    "gymnax": ("gymnax:CartPole-v1", {}),
    "mdp": (chain(1), {}),
    "jax": (JaxProbe(steps=LIMIT, limit=True, free=True), {"max_episode_steps": None}),
}


@pytest.mark.parametrize("name", FOREVER)
def test_a_time_limit_does_not_end_the_world(name):
    """Reward 1 for ever, cut every 4 steps: V = 10. Taking the cut for an end gives 3.4 at most."""
    env, options = FOREVER[name]
    if isinstance(env, str) and ":" in env:
        pytest.importorskip(env.partition(":")[0])
    recipe = vt.PPO(n_epochs=8, n_minibatches=1, gae_lambda=0.9)
    made = agent(
        env, recipe, gamma=GAMMA, n_envs=4, n_steps=32, network=MLP(hidden=(8,)),
        optim=vt.Joint(lr=vt.Linear(3e-2, 1e-3), max_grad_norm=None), **{"max_episode_steps": LIMIT, **options},
    )  # fmt: skip
    made.learn(12_000)
    values = made.state_values(np.asarray(collected(made).observation)[:8])
    made.world.close()
    np.testing.assert_allclose(values, 1.0 / (1.0 - GAMMA), rtol=0.05)


# ---- a probe of everything at once, on every way of stepping ----


@dataclass(frozen=True)
class JaxTwo:
    """Two steps; the observation is x(1 + t), x = ±1, and the second step is worth 1 if its action says x's sign."""

    observation_space = gym.spaces.Box(-9.0, 9.0, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, key):
        x = jnp.sign(jax.random.uniform(key, minval=-1.0))
        return (x, jnp.int32(0)), x[None]

    def step(self, key, state, action):
        x, t = state
        reward = jnp.where((t == 1) & ((x > 0) == action), 1.0, 0.0)
        return (x, t + 1), (x * (2.0 + t))[None], reward, t == 1, jnp.bool_(False)


def two() -> Probe:
    """The same for Gymnasium."""
    return Probe(2, observe=lambda t, x: x * (1 + t), reward=lambda t, x, a: float(t == 1 and (x > 0) == a))


TWO = {
    "sync": (two, {"backend": "sync"}),
    "async": (two, {"backend": "async"}),
    **{mode.name: (Vectorised(two, mode), {}) for mode in AutoresetMode},
    "jax": (JaxTwo(), {}),
}


@pytest.mark.parametrize("name", TWO)
def test_value_and_policy_follow_observation_action_and_time(name):
    """V = γ before the step that pays, 1 at it; the action that pays depends on what is seen."""
    env, options = TWO[name]
    made = agent(
        env, vt.PPO(n_epochs=8, n_minibatches=1, gae_lambda=0.9), gamma=GAMMA, n_envs=4, n_steps=32,
        network=MLP(hidden=(16,)), optim=vt.Joint(lr=vt.Linear(3e-2, 1e-3), max_grad_norm=None), **options,
    )  # fmt: skip
    made.learn(12_000)
    made.world.close()
    seen = np.array([[-1.0], [1.0], [-2.0], [2.0]], np.float32)
    assert made.act(seen[2:], deterministic=True).tolist() == [0, 1]
    np.testing.assert_allclose(made.state_values(seen), [GAMMA, GAMMA, 1.0, 1.0], atol=0.1)


# ---- which implementation steps the environments ----


@pytest.mark.parametrize(
    ("env", "options", "said"),
    [
        ("CartPole-v1", {}, "CartPole-v1: its own vector implementation CartPoleVectorEnv (6 slots)"),
        ("CartPole-v1", {"n_envs": 1}, "CartPole-v1: Gymnasium, one after another (1 slot)"),
        ("CartPole-v1", {"backend": "sync"}, "CartPole-v1: Gymnasium, one after another (6 slots)"),
        (COUNTER, {}, "JaxCounter: written in JAX, so acting and learning are one compiled program (6 slots)"),
    ],
)
def test_the_choice_is_said(env, options, said):
    assert agent(env, **{"n_envs": 6, **options}).backend == said


@pytest.mark.parametrize(
    ("env", "options", "said"),
    [
        ("CartPole-v1", {}, "faster from 6 slots on"),
        ("CartPole-v1", {"n_envs": 1}, "faster below 6 slots"),
        ("CartPole-v1", {"backend": "sync"}, "backend = 'sync'"),
        ("CartPole-v1", {"wrappers": {"TimeAwareObservation": {}}}, "single ones are wrapped"),
        ("Acrobot-v1", {}, "it has no vector implementation of its own"),
        (Counter, {}, "it has no vector implementation of its own"),
        (COUNTER, {}, "the only way there is"),
    ],
)
def test_why_it_was_chosen_is_said(env, options, said):
    assert agent(env, **{"n_envs": 6, **options}).backend_reason == said


@pytest.mark.parametrize(
    ("env", "backend", "words"),
    [
        (COUNTER, "sync", "JaxCounter has one way of being stepped"),
        ("envpool:CartPole-v1", "async", "envpool:CartPole-v1 has one way"),
        ("Acrobot-v1", "vector", "Acrobot-v1 has no vector implementation; choose 'sync' or 'async'"),
    ],
)
def test_a_choice_that_there_is_not_is_refused(env, backend, words):
    with pytest.raises(ValueError, match=words):
        agent(env, backend=backend).world  # noqa: B018


def test_processes_see_what_one_process_sees():
    records = []
    for backend in ("sync", "async"):
        made = agent(lambda: Counter(), n_envs=2, backend=backend)
        records.append(collected(made))
        assert made.backend.endswith(("one after another (2 slots)", "in a process of its own (2 slots)"))
        made.world.close()
    for name in ("observation", "reward", "action", "mask", "time", "last", "next_value"):
        np.testing.assert_array_equal(getattr(records[0], name), getattr(records[1], name), err_msg=name)


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ("gymnax:CartPole", r"'gymnax:CartPole': did you mean 'CartPole-v1'"),
        ("brax:hoppper", "did you mean 'hopper'"),
        ("envpool:HalfCheeta-v5", "did you mean 'HalfCheetah-v5'"),
        ("mdp:corridr", "not a classic MDP: choose from"),
    ],
)
def test_an_unknown_name_is_named(env, words):
    head = env.partition(":")[0]
    if head != "mdp":
        pytest.importorskip(head)
    with pytest.raises(ValueError, match=words):
        vt.Agent(env)


@pytest.mark.parametrize("make", [gym.make, gym.make_vec])
def test_an_environment_that_was_made_already_is_no_source(make):
    with pytest.raises(TypeError, match="give a Gymnasium id such as 'CartPole-v1', or a callable"):
        vt.Agent(make("CartPole-v1"))


def test_a_module_that_is_not_there_may_be_a_file_of_ones_own():
    with pytest.raises(ValueError, match="'no_such': install it, or put its folder on PYTHONPATH"):
        vt.Agent("no_such:Mine-v0")


@pytest.mark.parametrize("package", ["gymnax", "brax", "envpool"])
def test_a_missing_package_is_named_with_the_command(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    remedy = {"gymnax": "--no-deps", "brax": r"vantage\[jaxenvs\]", "envpool": r"vantage\[envpool\]"}[package]
    with pytest.raises(ModuleNotFoundError, match=rf"needs? {package}: pip install .*{remedy}"):
        vt.Agent(f"{package}:CartPole-v1")


def test_a_gymnax_that_knows_no_truncation_is_refused(monkeypatch):
    module = pytest.importorskip("gymnax.environments.environment")
    monkeypatch.delattr(module.Environment, "is_truncated")
    with pytest.raises(ImportError, match=r"takes a time limit for an end of the world.*gymnax==1\.0\.1"):
        vt.Agent("gymnax:CartPole-v1")


def test_the_parameters_of_an_environment_can_be_set():
    pytest.importorskip("gymnax")
    heavy = environments.jax_env("gymnax:CartPole-v1", {"gravity": 20.0}, 7)
    assert (heavy.params.gravity, heavy.params.max_steps_in_episode) == (20.0, 7)
    assert heavy == environments.jax_env("gymnax:CartPole-v1", {"gravity": 20.0}, 7)
    assert heavy != environments.jax_env("gymnax:CartPole-v1", {}, 7)
    with pytest.raises(ValueError, match="gymnax:CartPole-v1 does not take them"):
        environments.jax_env("gymnax:CartPole-v1", {"gravitas": 1}, None)


# ---- learning where the answer is known ----


def test_the_policy_follows_observation_and_reward():
    recipe = vt.PPO(n_epochs=8, n_minibatches=1, gae_lambda=0.9)
    made = agent(
        JaxProbe(), recipe, gamma=GAMMA, n_envs=4, n_steps=32, network=MLP(hidden=(8,)),
        optim=vt.Joint(lr=vt.Linear(3e-2, 1e-3), max_grad_norm=None),
    )  # fmt: skip
    made.learn(4_000)
    assert [int(made.act(np.array([x], np.float32), deterministic=True)) for x in (-1.0, 1.0)] == [0, 1]
    assert made.evaluate(episodes=10).mean == 1.0
    np.testing.assert_allclose(made.state_values(np.array([[-1.0], [1.0]], np.float32)), 1.0, atol=0.1)


def test_both_paths_reach_the_same_expected_return():
    """The exact J of what PPO learns on an MDP, stepped by the host and inside the compiled program."""
    world = vt.mdp.random_mdp(6, 3, GAMMA, seed=1)
    best = vt.mdp.expected_return(world, vt.mdp.value_iteration(world).policy)
    uniform = vt.mdp.expected_return(world, vt.mdp.uniform(world))
    reached = []
    for env in (lambda: vt.mdp.MDPEnv(world, max_steps=50), world):
        made = agent(
            env, vt.PPO(n_epochs=4, n_minibatches=1), gamma=GAMMA, n_envs=8, n_steps=64, network=MLP(hidden=()),
            optim=vt.Joint(lr=vt.Linear(0.05)), max_episode_steps=None if callable(env) else 50,
        )  # fmt: skip
        made.learn(30_000)
        policy = made.action_probabilities(np.arange(6)).astype(float)
        J = vt.mdp.expected_return(world, policy / policy.sum(-1, keepdims=True))
        reached.append((J - uniform) / (best - uniform))
    assert min(reached) > 0.95
    assert abs(reached[0] - reached[1]) < 0.03


@pytest.mark.slow
@pytest.mark.parametrize("name", ["envpool:Catch-v0", "gymnax:Catch-bsuite"])
def test_a_reward_at_the_end_is_worth_its_distance(name):
    """Where a backend brings its own worlds: a ball falls for 9 steps, and catching it is worth 1.

    A policy that always catches has V(s_t) = γ^(8−t).
    """
    pytest.importorskip(name.partition(":")[0])
    made = agent(
        name, vt.PPO(n_epochs=4, n_minibatches=4), gamma=GAMMA, n_envs=16, n_steps=36, network=MLP(hidden=(64,)),
        optim=vt.Joint(lr=vt.Linear(5e-3)),
    )  # fmt: skip
    made.learn(100_000)
    assert made.evaluate(episodes=50).mean == 1.0
    rollout = collected(made)
    mask = np.asarray(rollout.mask)
    time, values = np.asarray(rollout.time)[mask], value_of(made, rollout.observation)[mask]
    made.world.close()
    assert set(time) == set(range(9))
    for t in range(9):
        assert np.isclose(values[time == t].mean(), GAMMA ** (8 - t), atol=0.05)


@pytest.mark.slow
def test_gymnax_cartpole_is_solved():
    pytest.importorskip("gymnax")
    made = vt.Agent(
        "gymnax:CartPole-v1",
        vt.PPO(n_epochs=4, n_minibatches=4),
        n_envs=64,
        n_steps=32,
        optim=vt.Joint(lr=vt.Linear(2e-3)),
    )
    made.learn(400_000)
    assert made.evaluate(episodes=20).mean >= 475


@pytest.mark.parametrize(
    "recipe", [vt.PPO(n_epochs=1, n_minibatches=2), vt.TRPO(n_minibatches=2)], ids=["one program", "two"]
)
def test_recurrent_policies_remember_inside_the_program(recipe):
    """The record is scored from the state that acting began with; a state is 0 where an episode begins."""
    made = agent(COUNTER, recipe, network=LSTM(hidden=4, after=MLP(hidden=())))
    rollouts = []
    report = made.learn(36 * 3, lambda update: rollouts.append(update.rollout))
    assert max(report.column("train/act_mismatch")) < 1e-5
    assert (np.asarray(rollouts[0].carry) == 0).all()
    assert (np.asarray(rollouts[1].carry) != 0).any()
    for before, after in itertools.pairwise(rollouts):
        over = np.asarray(after.time)[0] == 0
        assert (np.asarray(after.carry)[over] == 0).all()
        assert (np.asarray(after.carry)[~over] != 0).all()
        assert not np.array_equal(before.carry, after.carry)
