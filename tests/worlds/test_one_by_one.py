"""Slots stepped one after another give what Gymnasium's own `SyncVectorEnv` gives."""

import gymnasium as gym
import jax
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from vantage.control.one_by_one import OneByOne


class Talker(gym.Env):
    """Its observation is one buffer, changed in place; its infos have all the kinds of values that there are."""

    action_space = Discrete(3, start=1)

    def __init__(self, space):
        self.observation_space, self._n, self._seen = space, 0, np.zeros(2)

    def _observe(self):
        self._seen[:] = self._n, self.np_random.random()
        if isinstance(self.observation_space, Dict):
            return {"n": self._n, "x": self._seen.astype(np.float32)}
        return self._seen

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._n = 0
        return self._observe(), {"begun": True}

    def step(self, action):
        self._n += int(action)
        info = {"n": self._n, "deep": {"half": self._n / 2}, "array": np.full(2, self._n)} | (
            {"word": "odd"} if self._n % 2 else {}
        )
        return self._observe(), 0.1 * self._n, self._n > 7, self._n == 5, info


SPACES = {
    "box": Box(-np.inf, np.inf, (2,), np.float32),
    "dict": Dict({"n": Discrete(11), "x": Box(0.0, np.inf, (2,), np.float32)}),
}


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("slots", [1, 3])
def test_it_gives_what_gymnasiums_gives(space, slots):
    made = [lambda: Talker(SPACES[space])] * slots
    ours, theirs = OneByOne(made), SyncVectorEnv(made, autoreset_mode=AutoresetMode.SAME_STEP)
    assert ours.metadata == theirs.metadata
    ours.reset(seed=3)
    theirs.reset(seed=3)
    theirs.action_space.seed(0)
    ended = 0
    for _ in range(40):
        action = theirs.action_space.sample()
        mine, other = ours.step(action), theirs.step(action)
        ended += int((mine[2] | mine[3]).sum())
        alike(mine[:4], other[:4])
        assert list(mine[4]) == list(other[4])
        alike(dict(mine[4]), other[4])
        assert mine[4].get("nothing", 1) == 1
        assert ("n" in mine[4]) == ("n" in other[4])
    assert ended > 3


def alike(mine, other):
    """The same arrays of the same types, however nested."""
    mine, other = jax.tree.leaves_with_path(mine), jax.tree.leaves_with_path(other)
    assert [path for path, _ in mine] == [path for path, _ in other]
    for (_, x), (_, y) in zip(mine, other, strict=True):
        assert np.asarray(x).dtype == np.asarray(y).dtype
        if np.asarray(x).dtype == object:
            jax.tree.map(np.testing.assert_array_equal, list(x), list(y))
        else:
            np.testing.assert_array_equal(x, y)


def test_what_was_given_stays_as_it_was():
    env = OneByOne([lambda: Talker(SPACES["box"])])
    env.reset(seed=0)
    first = env.step(np.array([1]))
    kept = [np.copy(x) for x in first[:4]]
    env.step(np.array([2]))
    for x, y in zip(first[:4], kept, strict=True):
        np.testing.assert_array_equal(x, y)
    assert first[4]["n"] == [1]
