"""Environments' state survives a file: Gymnasium's toy texts keep their map in an array of bytes."""

import gymnasium as gym
import numpy as np
import pytest

import vantage as vt


@pytest.mark.parametrize("env", ["FrozenLake-v1", "Taxi-v4", "CliffWalking-v1"])
def test_toy_texts_are_saved_and_go_on_exactly(env, tmp_path):
    whole = vt.Agent(env, n_envs=2, n_steps=8, seed=3)
    half = vt.Agent(env, n_envs=2, n_steps=8, seed=3)
    whole.learn(64)
    half.learn(32)
    half.save(tmp_path / "half")
    resumed = vt.Agent.resume(tmp_path / "half")
    resumed.learn(64)
    assert whole.world.exact()
    np.testing.assert_array_equal(resumed.world.vector, whole.world.vector)


class StrictByInfo(gym.Env):
    """Raises on an action that its mask does not allow: a is legal if it differs from the action before."""

    observation_space, action_space = gym.spaces.Box(-9, 9, (1,), np.float32), gym.spaces.Discrete(3)

    def shown(self):
        return np.array([self.before], np.float32), {"action_mask": np.arange(3) != self.before}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.before, self.t = int(self.np_random.integers(3)), 0
        return self.shown()

    def step(self, action):
        assert action != self.before, "illegal"
        self.before, self.t = int(action), self.t + 1
        observation, info = self.shown()
        return observation, float(self.np_random.random()), self.t == 5, False, info


class Strict(StrictByInfo):
    """The same, its mask asked for by a method."""

    def action_masks(self):
        return np.arange(3) != self.before


@pytest.mark.parametrize("env", [Strict, StrictByInfo])
def test_an_environment_that_raises_on_illegal_actions_is_exported(env):
    """The probe plays what the masks allow; playing anything else would make it look as if nothing could be saved."""
    assert vt.Agent(env, n_envs=2, n_steps=8).world.exact()


def test_processes_cannot_be_exported_and_are_not_tried():
    made = vt.Agent(lambda: Strict(), n_envs=1, n_steps=8, backend="async")
    assert not made.world.exact()
    made.world.close()
