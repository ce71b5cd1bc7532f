"""An MDP as a Gymnasium environment: the interface kept, the law of the MDP kept, its state put back exactly."""

import json
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from vantage import mdp
from vantage.mdp.env import REGISTERED, MDPEnv, MDPVectorEnv, make

NEXT, SAME, OFF = AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED


@pytest.fixture
def world():
    """0 → 1 → 2 → end under action 1, with reward 10·s + s'; action 0 stays, mostly."""
    P = np.zeros((4, 2, 4))
    for s in range(3):
        P[s, 1, s + 1] = 1.0
        P[s, 0, s] += 0.75
        P[s, 0, 0] += 0.25
    R = 10.0 * np.arange(4)[:, None, None] + np.arange(4)
    return mdp.MDP(P, np.broadcast_to(R, (4, 2, 4)), np.array([0.5, 0.5, 0.0, 0.0]), 0.9, terminal=[3])


@pytest.mark.parametrize("one_hot", [False, True])
def test_gymnasium_finds_nothing_to_complain_about(world, one_hot):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*alternative render modes.*")
        check_env(MDPEnv(world, max_steps=20, one_hot=one_hot))


@pytest.mark.parametrize("name", REGISTERED)
def test_the_classics_are_registered(name):
    env = gymnasium.make(f"mdp/{name}-v0", max_steps=3)
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert env.observation_space == gymnasium.spaces.Discrete(getattr(mdp, name)().n_states)
    env = gymnasium.make_vec(f"mdp/{name}-v0", num_envs=2)
    assert isinstance(env, MDPVectorEnv) and env.reset(seed=0)[0].shape == (2,)


def test_unknown_classics_are_refused():
    with pytest.raises(ValueError, match="is not a classic MDP: choose from"):
        make("tower_of_hanoi")


def test_termination_and_reward(world):
    env = MDPEnv(world)
    assert env.reset(options={"state": 1})[0] == 1
    assert env.step(1) == (2, 12.0, False, False, {})
    assert env.step(np.int64(1)) == (3, 23.0, True, False, {})
    with pytest.raises(ResetNeeded, match="call reset"):
        env.step(1)


def test_truncation_is_not_termination(world):
    env = MDPEnv(world, max_steps=2)
    env.reset(options={"state": 1})
    assert env.step(0)[2:4] == (False, False)
    assert env.step(0)[2:4] == (False, True)
    env.reset(options={"state": 1})
    env.step(1)
    assert env.step(1)[2:4] == (True, False)


def test_misuse_is_named(world):
    env = MDPEnv(world)
    with pytest.raises(ResetNeeded):
        env.step(0)
    with pytest.raises(ValueError, match=r"options\['state'\] = 3 is no state to start in"):
        env.reset(options={"state": 3})
    env.reset(seed=0)
    with pytest.raises(ValueError, match="action = 2 is outside 0 … 1"):
        env.step(2)
    with pytest.raises(ValueError, match="give integers of shape"):
        env.step(0.5)
    with pytest.raises(ValueError, match="max_steps = 0"):
        MDPEnv(world, max_steps=0)


def play(env, steps, rng):
    seen = []
    for _ in range(steps):
        seen.append(env.step(rng.integers(2)))
        if seen[-1][2] or seen[-1][3]:
            seen.append(env.reset()[0])
    return seen


def test_a_state_put_back_continues_identically(world):
    env = MDPEnv(world, max_steps=2)
    env.reset(seed=5)
    play(env, 20, np.random.default_rng(0))
    env.reset()
    env.step(0)
    saved = json.loads(json.dumps(env.get_state()))
    future = play(env, 50, np.random.default_rng(1))
    other = MDPEnv(world, max_steps=2)
    other.set_state(saved)
    assert play(other, 50, np.random.default_rng(1)) == future


def test_one_hot_observations(world):
    env = MDPEnv(world, one_hot=True)
    observation, _ = env.reset(options={"state": 1})
    assert observation.dtype == np.float32 and (observation == [0, 1, 0, 0]).all()
    env = MDPVectorEnv(world, 3, one_hot=True)
    observation, _ = env.reset(seed=0)
    assert observation.dtype == np.float32 and observation.shape == (3, 4) and (observation.sum(1) == 1).all()


def moved_to(env, states):
    """The vector environment, all slots in the given states at the start of an episode."""
    env.reset(seed=0)
    env.set_state({**env.get_state(), "state": np.array(states), "steps": np.zeros(len(states), dtype=int)})
    return env


FORWARD = np.array([1, 1])


def test_next_step_mode_shows_the_end_then_a_filler_row(world):
    env = moved_to(MDPVectorEnv(world, 2, autoreset_mode=NEXT), [2, 1])
    assert env.metadata["autoreset_mode"] is NEXT
    observation, reward, terminated, truncated, infos = env.step(FORWARD)
    assert list(observation) == [3, 2] and list(reward) == [23.0, 12.0] and infos == {}
    assert list(terminated) == [True, False] and not truncated.any()
    observation, reward, terminated, truncated, _ = env.step(FORWARD)
    assert observation[0] in (0, 1) and reward[0] == 0.0 and not terminated[0]
    assert observation[1] == 3 and reward[1] == 23.0 and terminated[1]


def test_same_step_mode_shows_the_start_and_keeps_the_end(world):
    env = moved_to(MDPVectorEnv(world, 2, autoreset_mode=SAME), [2, 1])
    observation, reward, terminated, _, infos = env.step(FORWARD)
    assert observation[0] in (0, 1) and observation[1] == 2 and list(reward) == [23.0, 12.0]
    assert list(terminated) == [True, False]
    assert infos["final_obs"][0] == 3 and infos["final_obs"][1] is None and list(infos["_final_obs"]) == [True, False]
    _, _, terminated, _, infos = env.step(np.array([0, 1]))
    assert list(terminated) == [False, True] and infos["final_obs"][1] == 3


def test_disabled_mode_waits_for_a_reset(world):
    env = moved_to(MDPVectorEnv(world, 2, autoreset_mode=OFF), [2, 1])
    observation, _, terminated, _, _ = env.step(FORWARD)
    assert list(observation) == [3, 2]
    with pytest.raises(ResetNeeded, match="reset_mask"):
        env.step(FORWARD)
    options = {"reset_mask": terminated}
    observation, _ = env.reset(options=options)
    assert observation[0] in (0, 1) and observation[1] == 2 and "reset_mask" in options
    assert list(env.step(FORWARD)[2]) == [False, True]


@pytest.mark.parametrize("mode", [NEXT, SAME, OFF])
def test_time_limits_truncate_in_every_mode(world, mode):
    env = moved_to(MDPVectorEnv(world, 2, max_steps=2, autoreset_mode=mode), [0, 1])
    env.step(np.array([1, 0]))
    observation, _, terminated, truncated, infos = env.step(np.array([0, 1]))
    assert not terminated.any() and truncated.all()
    reached = infos["final_obs"] if mode is SAME else observation
    assert reached[0] in (0, 1) and reached[1] in (1, 2)
    if mode is OFF:
        env.reset(options={"reset_mask": truncated})
    counted = env.get_state()["steps"]
    assert list(counted) == ([2, 2] if mode is NEXT else [0, 0])
    env = moved_to(MDPVectorEnv(world, 2, max_steps=1, autoreset_mode=mode), [2, 1])
    _, _, terminated, truncated, _ = env.step(FORWARD)
    assert list(terminated) == [True, False] and list(truncated) == [False, True]


@pytest.mark.parametrize("mode", [NEXT, SAME])
def test_a_vector_state_put_back_continues_identically(world, mode):
    actions = np.random.default_rng(0).integers(0, 2, (80, 5))
    env = MDPVectorEnv(world, 5, max_steps=6, autoreset_mode=mode)
    env.reset(seed=3)
    for a in actions[:30]:
        env.step(a)
    other = MDPVectorEnv(world, 5, max_steps=6, autoreset_mode=mode)
    other.set_state(env.get_state())
    for a in actions[30:]:
        for x, y in zip(env.step(a)[:4], other.step(a)[:4], strict=True):
            np.testing.assert_array_equal(x, y)
    with pytest.raises(ValueError, match="num_envs must be the same"):
        MDPVectorEnv(world, 4).set_state(env.get_state())


def test_slots_depend_on_their_own_seed_only(world):
    actions = np.zeros((40, 3), dtype=int)

    def run(seed, slots):
        env = MDPVectorEnv(world, slots, max_steps=5, autoreset_mode=SAME)
        first = env.reset(seed=seed)[0]
        return np.array([first, *(env.step(a[:slots])[0] for a in actions)])

    three = run(7, 3)
    np.testing.assert_array_equal(run(7, 3), three)
    np.testing.assert_array_equal(run([8], 1)[:, 0], three[:, 1])
    assert (three[:, 0] != three[:, 1]).any() and (three[:, 1] != three[:, 2]).any()


def test_a_reset_of_some_slots_reseeds_only_those(world):
    env = MDPVectorEnv(world, 2, autoreset_mode=OFF)
    env.reset(seed=0)
    before = env.get_state()
    env.reset(seed=[9, None], options={"reset_mask": np.array([True, False])})
    after = env.get_state()
    assert before["key"][0] != after["key"][0] and before["key"][1] == after["key"][1]
    assert before["drawn"][1] == after["drawn"][1]
    with pytest.raises(ValueError, match="seed lists 1 seeds for num_envs = 2"):
        env.reset(seed=[1])
    with pytest.raises(ValueError, match="give a bool mask of 2"):
        env.reset(options={"reset_mask": np.array([1, 0])})


@pytest.mark.parametrize("vector", [False, True])
def test_transitions_follow_the_mdp(world, vector):
    """Frequencies of (s, 0, s') within four standard errors of P."""
    n = 20_000
    if vector:
        env = moved_to(MDPVectorEnv(world, n), [1] * n)
        reached = env.step(np.zeros(n, dtype=int))[0]
    else:
        n, env, reached = 2000, MDPEnv(world), []
        env.reset(seed=0)
        for _ in range(n):
            env.reset(options={"state": 1})
            reached.append(env.step(0)[0])
    frequency = np.bincount(reached, minlength=4) / n
    np.testing.assert_allclose(frequency, world.P[1, 0], atol=4 * 0.5 / np.sqrt(n))


def test_random_numbers_are_uniform_and_uncorrelated(world):
    env = MDPVectorEnv(world, 1000)
    env.reset(seed=0)
    u = np.array([env._uniform(np.ones(1000, dtype=bool)) for _ in range(100)])
    assert (u >= 0).all() and (u < 1).all()
    assert abs(u.mean() - 0.5) < 4 * np.sqrt(1 / 12 / u.size) and abs(u.var() - 1 / 12) < 4 * np.sqrt(1 / 180 / u.size)
    for x, y in ((u[1:], u[:-1]), (u[:, 1:], u[:, :-1])):
        assert abs(np.corrcoef(x.ravel(), y.ravel())[0, 1]) < 4 / np.sqrt(x.size)
