"""Environments' state survives a file: Gymnasium's toy texts keep their map in an array of bytes."""

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
