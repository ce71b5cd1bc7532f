"""Small environments with known answers, for the tests of the control world."""

from collections.abc import Callable

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv


class Probe(gym.Env):
    """`steps` steps an episode, with observation and reward given by functions."""

    def __init__(
        self,
        steps: int,
        observe: Callable[[int, float], float] = lambda t, x: 1.0,
        reward: Callable[[int, float, int], float] = lambda t, x, a: 1.0,
    ) -> None:
        self.observation_space, self.action_space = Box(-9.0, 9.0, (1,), np.float32), Discrete(2)
        self.steps, self.observe, self.reward = steps, observe, reward

    def _see(self) -> np.ndarray:
        return np.array([self.observe(self.t, self.x)], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.x = 0, float(self.np_random.choice([-1.0, 1.0]))
        return self._see(), {}

    def step(self, action):
        reward = self.reward(self.t, self.x, int(action))
        self.t += 1
        return self._see(), reward, self.t == self.steps, False, {}


class Counter(gym.Env):
    """Observes (number of the episode, t); reward 10·episode + t.

    Episodes end after 2, 3, 4, 2, … steps, by turns terminated and truncated.
    """

    def __init__(self, action_space: gym.Space | None = None, spoil: tuple[str, int] | None = None) -> None:
        self.observation_space, self.action_space = Box(-1e9, 1e9, (2,), np.float32), action_space or Discrete(2)
        self.episode, self.spoil, self.total, self.got = -1, spoil, 0, []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.t = (0 if seed is not None else self.episode + 1), 0
        return np.array([self.episode, 0], np.float32), {}

    def step(self, action):
        self.got.append(np.copy(action))
        reward = 10.0 * self.episode + self.t
        self.t, self.total = self.t + 1, self.total + 1
        over = self.t == 2 + self.episode % 3
        observation = np.array([self.episode, self.t], np.float32)
        if self.spoil and self.total == self.spoil[1]:
            reward, observation = (np.nan, observation) if self.spoil[0] == "reward" else (reward, observation * np.nan)
        return observation, reward, over and self.episode % 2 == 0, over and self.episode % 2 == 1, {}


class Secretive(Counter):
    """A Counter that hides part of its state where no snapshot looks."""

    def __init__(self) -> None:
        super().__init__()
        hidden = {"luck": 0.0}
        self.hidden = lambda: hidden

    def reset(self, *, seed=None, options=None):
        first = super().reset(seed=seed, options=options)
        if seed is not None:
            self.hidden()["luck"] = float(self.np_random.random())
        return first

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        self.hidden()["luck"] = (self.hidden()["luck"] * 3.7) % 1.0
        return observation, reward + self.hidden()["luck"], terminated, truncated, info


class Vectorised:
    """A source of environments that come in one autoreset mode."""

    def __init__(self, one: Callable[[], gym.Env], mode: AutoresetMode) -> None:
        self.one, self.mode = one, mode

    def __call__(self) -> gym.Env:
        return self.one()

    def make_vector(self, slots: int) -> SyncVectorEnv:
        return SyncVectorEnv([self.one] * slots, autoreset_mode=self.mode)
