"""`vantage check`: each seeded fault is found, by its rule, and sound environments are left alone."""

import json

import gymnasium as gym
import numpy as np
import pytest

from vantage.cli import main
from vantage.control.check import check


class Sound(gym.Env):
    """A random walk that may fail at any step; subclasses each have one fault."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = self.np_random.standard_normal(2).astype(np.float32)
        self.t = 0
        return self.at.copy(), {}

    def step(self, action):
        self.t += 1
        self.at = self.at + self.noise()
        return self.at.copy(), self.reward(), bool(self.np_random.random() < 0.1), False, {}

    def noise(self):
        return self.np_random.standard_normal(2).astype(np.float32)

    def reward(self):
        return 1.0


class Shape(Sound):
    observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)


class Type(Sound):
    """float64 where float32 was promised."""

    def noise(self):
        return np.zeros(2)


class NotANumber(Sound):
    def noise(self):
        return np.full(2, np.nan if self.t == 5 else 0.0, np.float32)


class InfiniteReward(Sound):
    def reward(self):
        return float("inf") if self.t == 3 else 0.5


class NotANumberReward(Sound):
    def reward(self):
        return float("nan")


class ArrayReward(Sound):
    def reward(self):
        return np.array([1.0])


class HugeReward(Sound):
    def reward(self):
        return 1e6


class NoReward(Sound):
    def reward(self):
        return 0.0


class FarOut(Sound):
    def noise(self):
        return np.full(2, 1e4, np.float32)


class UnseededStep(Sound):
    luck = np.random.default_rng()

    def noise(self):
        return self.luck.standard_normal(2).astype(np.float32)


class UnseededReset(Sound):
    def reset(self, *, seed=None, options=None):
        super().reset()
        return super().reset()


class HidesTruncation(Sound):
    """A wrapper's time limit that is said to be a termination."""

    def step(self, action):
        observation, reward, _, _, _ = super().step(action)
        return observation, reward, self.t == 20, False, {}


class Endless(Sound):
    def step(self, action):
        return *super().step(action)[:2], False, False, {}


class OldStep(Sound):
    def step(self, action):
        return super().step(action)[:4]


class OldReset(Sound):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0]


class NoBool(Sound):
    def step(self, action):
        observation, reward, terminated, _, _ = super().step(action)
        return observation, reward, int(terminated), False, {}


class Raises(Sound):
    def step(self, action):
        raise KeyError("missing")


class WideActions(Sound):
    action_space = gym.spaces.Box(-1000.0, 1000.0, (1,), np.float32)


class Unbounded(Sound):
    action_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)


class Strange(Sound):
    observation_space = gym.spaces.Text(5)


class FloatPicture(Sound):
    """Pixels without bounds."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (8, 8, 3), np.float32)

    def noise(self):
        return np.zeros(2, np.float32)

    def reset(self, **given):
        return np.zeros((8, 8, 3), np.float32), super().reset(**given)[1]

    def step(self, action):
        return np.zeros((8, 8, 3), np.float32), *super().step(action)[1:]


class FaintPicture(Sound):
    """Pixels of 0 and 1 that are said to reach 255."""

    observation_space = gym.spaces.Dict(eye=gym.spaces.Box(0, 255, (8, 9, 3), np.uint8))

    def _see(self):
        return {"eye": np.ones((8, 9, 3), np.uint8)}

    def reset(self, **given):
        return self._see(), super().reset(**given)[1]

    def step(self, action):
        return self._see(), *super().step(action)[1:]


class EitherWay(FaintPicture):
    observation_space = gym.spaces.Dict(eye=gym.spaces.Box(0, 255, (5, 8, 5), np.uint8))


class Masked(Sound):
    """Complains about what its masks rule out."""

    action_space = gym.spaces.MultiDiscrete([2, 3])

    def action_masks(self):
        return np.array([1, 0, 0, 1, 1]) if self.t % 2 else np.array([1, 1, 1, 0, 0])

    def step(self, action):
        chosen = np.array([0, 2]) + action
        assert self.action_masks()[chosen].all()
        return super().step(action)


class ShortMask(Sound):
    def action_masks(self):
        return [1]


class EmptyMask(Masked):
    def action_masks(self):
        return np.zeros(5) if self.t == 3 else np.ones(5)


FAULTS = [
    (FloatPicture, "image-type"), (FaintPicture, "image-range"), (EitherWay, "image-channels"),
    (ShortMask, "action-mask"), (EmptyMask, "action-mask"),
    (Shape, "observation"), (Type, "observation"), (NotANumber, "finite-observation"),
    (InfiniteReward, "finite-reward"), (ArrayReward, "reward"), (HugeReward, "reward-scale"),
    (NoReward, "reward-sparse"), (FarOut, "observation-scale"),
    (UnseededStep, "seed"), (UnseededReset, "seed"), (HidesTruncation, "hidden-truncation"), (Endless, "endless"),
    (OldStep, "api"), (OldReset, "api"), (NoBool, "terminated"), (Raises, "api"), (WideActions, "action-scale"),
    (Unbounded, "action-scale"), (Strange, "observation-space"),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "rule"), FAULTS, ids=lambda x: getattr(x, "__name__", x))
def test_each_fault_is_found(fault, rule):
    found = {finding.rule: finding for finding in check(fault, steps=300)}
    assert rule in found
    assert found[rule].remedy
    assert str(found[rule]).count(": ") >= 1


@pytest.mark.parametrize("fault", [NotANumberReward, ArrayReward])
def test_one_fault_is_not_taken_for_another(fault):
    assert [finding.rule for finding in check(fault, steps=60) if finding.certain] in (["finite-reward"], ["reward"])
    assert "reward-sparse" not in {finding.rule for finding in check(fault, steps=60)}


def test_a_time_limit_that_a_wrapper_hides_is_certain():
    class Hide(gym.Wrapper):
        def step(self, action):
            observation, reward, terminated, truncated, info = self.env.step(action)
            return observation, reward, terminated or truncated, False, info

    found = check(lambda: Hide(gym.make("Pendulum-v1")), steps=1000)
    assert [finding.rule for finding in found] == ["hidden-truncation"]
    assert found[0].certain


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1", "Acrobot-v1", "MountainCarContinuous-v0"])
def test_sound_environments_are_left_alone(env):
    assert check(lambda: gym.make(env, disable_env_checker=True), steps=1000) == []


def test_a_sound_one_of_ours():
    assert check(Sound) == []
    assert check(Masked, steps=500) == []


def test_a_game_is_checked_as_it_is_shown(capsys):
    pytest.importorskip("ale_py")
    pytest.importorskip("cv2")
    assert main(["check", "ALE/Breakout-v5", "--steps", "100", "--json"]) == 0
    rules = {finding["rule"] for finding in json.loads(capsys.readouterr().out)}
    assert rules <= {"reward-sparse"}  # what 100 steps of the game cannot show; it has a time limit of its own


def test_the_command(capsys):
    assert main(["check", "CartPole-v1", "--steps", "300"]) == 0
    assert "nothing found in 300" in capsys.readouterr().out
    gym.register("Broken-v0", NotANumber)
    try:
        assert main(["check", "Broken-v0", "--steps", "100", "--json"]) == 1
    finally:
        del gym.registry["Broken-v0"]
    assert json.loads(capsys.readouterr().out)[0]["rule"] == "finite-observation"
    assert main(["check", "CartPole-v11"]) == 1
    assert "did you mean" in capsys.readouterr().err


@pytest.mark.parametrize("env", ["mdp:cliff", "gymnax:CartPole-v1", "envpool:CartPole-v1"])
def test_what_is_not_gymnasiums_is_not_called_sound(env, capsys):
    assert main(["check", env]) == 2
    assert "only those are checked" in capsys.readouterr().err
