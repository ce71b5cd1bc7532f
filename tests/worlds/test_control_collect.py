"""What the collector writes down, against environments whose every number is known."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode

import vantage as vt
from tests.worlds.control_envs import Counter, Probe, Vectorised
from vantage.control import MLP
from vantage.control.training import mismatch

MODES = list(AutoresetMode)


def agent(env, recipe=None, **options):
    given = {"n_envs": 4, "n_steps": 30, "network": MLP(hidden=(4,)), "check_actor_every": 1, **options}
    return vt.Agent(env, recipe or vt.PPO(n_epochs=1, n_minibatches=1), **given)


def collected(env, recipe=None, **options):
    made = agent(env, recipe, **options)
    return made.world.collect(made.settings.recipe.at(0.0, None)), made


def real(rollout, world, slot: int) -> list[tuple]:
    """What happened in one slot, filler left out."""
    reached, rows = world._reached, np.asarray(rollout.mask)[:, slot]
    fields = (rollout.observation, rollout.reward, rollout.discount, rollout.time, reached)
    columns = [np.asarray(x)[rows, slot].tolist() for x in fields]
    return list(zip(*columns, strict=True))


@pytest.mark.parametrize("mode", MODES)
def test_each_autoreset_mode_gives_the_known_record(mode):
    rollout, made = collected(Vectorised(Counter, mode), gamma=0.5)
    for slot in range(4):
        expected, episode, t = [], 0, 0
        for _ in range(int(rollout.mask[:, slot].sum())):
            over = t + 1 == 2 + episode % 3
            discount = 0.0 if over and episode % 2 == 0 else 0.5
            expected.append(([episode, t], 10.0 * episode + t, discount, t, [episode, t + 1]))
            episode, t = (episode + 1, 0) if over else (episode, t + 1)
        assert real(rollout, made.world, slot) == expected
    assert made.steps == rollout.mask.sum()


@pytest.mark.parametrize("mode", MODES)
def test_only_next_step_has_filler(mode):
    rollout, _ = collected(Vectorised(Counter, mode))
    ends = rollout.last & rollout.mask
    ends[-1] = False
    filler = ~rollout.mask
    assert filler.any() == (mode is AutoresetMode.NEXT_STEP)
    if filler.any():
        np.testing.assert_array_equal(filler[1:], ends[:-1])


@pytest.mark.parametrize("mode", MODES)
def test_the_next_rollout_goes_on_where_this_one_stopped(mode):
    """Two rollouts of 15 rows are one of 30: filler, t and running returns included."""
    long, _ = collected(Vectorised(Counter, mode), n_steps=30)
    first, made = collected(Vectorised(Counter, mode), n_steps=15)
    second = made.world.collect(made.settings.recipe)
    for name in ("observation", "reward", "mask", "time", "discount"):
        both = np.concatenate([getattr(first, name), getattr(second, name)])
        np.testing.assert_array_equal(both, getattr(long, name), err_msg=name)


def test_next_value_is_of_the_state_reached():
    """At each end, truncated or not, V is asked about the final observation and not about the next episode's first."""
    rollout, made = collected(Vectorised(Counter, AutoresetMode.SAME_STEP))
    reached = np.asarray(rollout.observation) + np.array([0.0, 1.0], np.float32)
    value = made._model.value(made.world.vector, reached)
    np.testing.assert_allclose(rollout.next_value, value, atol=1e-6)


def test_episode_statistics_are_of_raw_rewards():
    _, made = collected(Vectorised(Counter, AutoresetMode.SAME_STEP), normalise_reward=True)
    episodes = list(made.world._collector.episodes)
    assert sorted(set(episodes))[:3] == [(1.0, 2), (33.0, 3), (61.0, 2)]


def test_reward_is_never_edited_and_signal_is_scaled():
    made = agent(Vectorised(Counter, AutoresetMode.SAME_STEP), normalise_reward=True)
    first, second = (made.world.collect(made.settings.recipe) for _ in range(2))
    np.testing.assert_array_equal(first.signal, np.clip(first.reward, -10, 10))
    assert second.signal.max() < 10 < second.reward.max()
    ratio = second.signal[second.reward > 0] / second.reward[second.reward > 0]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-4)


def test_observations_are_normalised_with_the_statistics_of_earlier_rollouts():
    made = agent(Vectorised(Counter, AutoresetMode.SAME_STEP), normalise_observation=True)
    first, second = (made.world.collect(made.settings.recipe) for _ in range(2))
    raw = np.asarray(first.observation).reshape(-1, 2)
    np.testing.assert_array_equal(raw[:4], [[0, 0]] * 4)
    slot = np.asarray(second.observation)[:, 0] * raw.std(axis=0) + raw.mean(axis=0)
    np.testing.assert_allclose(slot[:2, 1] % 1, 0, atol=1e-3)
    assert mismatch(second) < 1e-5


def test_a_box_gets_the_clipped_action_and_the_record_the_sampled_one():
    made = agent(lambda: Counter(Box(-0.1, 0.2, (1,), np.float32)), n_envs=2)
    rollout = made.world.collect(made.settings.recipe)
    got = np.array(made.world._env.envs[0].got)
    action = np.asarray(rollout.action)[:, 0]
    np.testing.assert_array_equal(got, np.clip(action, np.float32(-0.1), np.float32(0.2)))
    assert np.abs(action).max() > 0.5


def test_discrete_actions_start_where_the_space_starts():
    made = agent(lambda: Counter(Discrete(2, start=5)), n_envs=2)
    rollout = made.world.collect(made.settings.recipe)
    assert set(np.unique(rollout.action)) == {0, 1}
    np.testing.assert_array_equal(np.array(made.world._env.envs[1].got), np.asarray(rollout.action)[:, 1] + 5)
    assert made.act(np.zeros(2, np.float32)) in (5, 6)


def test_noise_depends_on_seed_update_row_and_slot_only():
    source = Vectorised(Counter, AutoresetMode.SAME_STEP)
    one, two, other = (agent(source, seed=seed).world for seed in (0, 0, 1))
    recipe = vt.PPO()
    a, b, c = (world.collect(recipe).action for world in (one, two, other))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


def test_without_a_critic_every_episode_is_whole():
    rollout, made = collected(Vectorised(Counter, AutoresetMode.SAME_STEP), vt.REINFORCE(), n_steps=5)
    assert rollout.value is None
    assert rollout.next_value is None
    for slot in range(4):
        rows = rollout.mask[:, slot]
        assert rollout.time[rows, slot][0] == 0
        assert rollout.last[rows, slot][-1]
        assert rows.sum() == 2 + 3
    assert made.world._metrics["rollout/truncated_share"] == 0.5


def test_whole_episodes_come_in_few_lengths():
    """Each length of a rollout compiles an update of its own: it is doubled until every episode has ended."""
    lengths = set()
    for steps in (1, 2, 4, 7, 13, 29):
        made = agent(lambda steps=steps: Probe(steps), vt.REINFORCE(), n_steps=3, n_envs=2)
        columns = made.world._collector.rollout(made.world.actor, None, 3, 0, True)
        assert (columns.mask.sum(axis=0) == steps * -(-3 // steps)).all()
        lengths.add(len(columns.mask))
    assert lengths == {3, 6, 12, 24, 48}


@pytest.mark.parametrize("what", ["reward", "observation"])
def test_a_number_that_is_not_finite_stops_the_run_and_names_the_place(what, tmp_path):
    made = agent(lambda: Counter(spoil=(what, 100)), n_envs=2)
    with pytest.raises(FloatingPointError, match=f"slot 0 gave a {what} that is not finite at step 9 of rollout 3"):
        made.learn(10_000, checkpoint=tmp_path / "c", checkpoint_every=1)
    assert vt.load(tmp_path / "c", env=Counter).steps == 180


def test_stale_weights_are_caught():
    made = agent(Counter, n_envs=2, optim=vt.Joint(lr=0.1))
    world, stale = made.world, made.world.actor
    made.learn(60)
    world._actor = stale
    with pytest.raises(RuntimeError, match="policy that acted is not the one that learns"):
        world.collect(made.settings.recipe)


def test_inputs_that_differ_are_caught(monkeypatch):
    """The actor sees what the score does not: normalisation forgotten on one side."""
    made = agent(Counter, n_envs=2, normalise_observation=True, optim=vt.Joint(lr=0.3))
    made.learn(120)
    monkeypatch.setattr("vantage.control.collect.standardised", lambda observations, frame, x: -x)
    real_score = __import__("vantage.control.update", fromlist=["score"]).score
    monkeypatch.setattr("vantage.control.update.score", lambda m, v, o, *rest: real_score(m, v, -np.asarray(o), *rest))
    with pytest.raises(RuntimeError, match="policy that acted"):
        made.world.collect(made.settings.recipe)


def test_a_rollout_is_not_changed_by_what_follows():
    made = agent(Counter, n_envs=2)
    first = made.world.collect(made.settings.recipe)
    before = [np.copy(x) for x in (first.observation, first.reward, first.action, first.log_prob, first.mask)]
    made.world.update(made.settings.recipe, first, 0.0)
    made.world.collect(made.settings.recipe)
    for old, x in zip(before, (first.observation, first.reward, first.action, first.log_prob, first.mask), strict=True):
        np.testing.assert_array_equal(old, x)


def test_vector_and_single_implementations_agree_about_cartpole():
    """A random policy's episodes have the same mean length in the environment's own vector implementation."""
    means = []
    for n_envs in (2, 8):
        made = vt.Agent("CartPole-v1", n_envs=n_envs, n_steps=2048 // n_envs * 4, network=MLP(hidden=(4,)))
        assert isinstance(made.world._env, gym.vector.SyncVectorEnv) == (n_envs == 2)
        made.world.collect(made.settings.recipe)
        means.append(np.mean([length for _, length in made.world._collector.episodes]))
    assert means[0] == pytest.approx(means[1], abs=5.0)


# ---- success ----


class Goal(Counter):
    """Every third episode reaches its goal, and only the step that ends it says so."""

    def step(self, action):
        *told, _ = super().step(action)
        return *told, {"is_success": self.episode % 3 == 0} if told[2] or told[3] else {}


@pytest.mark.parametrize("mode", MODES)
def test_the_share_of_successes_is_that_of_the_episodes_that_ended(mode):
    """As Stable-Baselines3's rollout/success_rate, in every autoreset mode."""
    rollout, made = collected(Vectorised(Goal, mode))
    expected = [k % 3 == 0 for rows in rollout.mask.sum(axis=0) for k in range(_ended(int(rows)))]
    assert len(expected) > 20
    assert made.world._metrics["rollout/success_rate"] == pytest.approx(np.mean(expected))


def _ended(rows: int) -> int:
    """How many of the episodes of 2, 3, 4, 2, … steps are over after so many rows."""
    return int((np.cumsum([2 + k % 3 for k in range(rows)]) <= rows).sum())


def test_an_environment_that_knows_no_success_reports_none():
    made = agent(Counter)
    assert "rollout/success_rate" not in made.learn(120).final
    assert made.evaluate(episodes=2).success is None


@pytest.mark.parametrize("backend", ["sync", "async"])
def test_evaluation_counts_successes_too(backend):
    """Each slot's first episode is number 0, which reaches its goal."""
    played = agent(Goal, backend=backend, n_envs=2).evaluate(episodes=3)
    assert (played.successes, played.success) == ((True,) * 3, 1.0)
    assert "100% successful" in str(played)


def test_processes_tell_of_successes():
    made = agent(Goal, backend="async", n_envs=2)
    alone = agent(Goal, n_envs=2).learn(60).final["rollout/success_rate"]
    assert made.learn(60).final["rollout/success_rate"] == alone
    made.world.close()


def test_successes_are_part_of_the_state():
    made = agent(Goal)
    made.learn(120)
    other = agent(Goal)
    other.world.restore(made.world.state())
    assert list(other.world._collector.successes) == list(made.world._collector.successes) != []
