"""Gymnasium's environments stepped one after another, with little around their own steps."""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import concatenate, iterate


class OneByOne(SyncVectorEnv):
    """A `SyncVectorEnv` whose episodes begin anew in the step that ends them.

    It gives what that gives; but what the slots' infos say is put together only where somebody reads it, which takes
    as long as half a step of a small physics simulation.
    """

    def __init__(self, made: list[Callable[[], gym.Env]]) -> None:
        super().__init__(made, autoreset_mode=AutoresetMode.SAME_STEP)
        space = self.single_observation_space
        plain = isinstance(space, gym.spaces.Box)
        self._together = partial(np.array, dtype=space.dtype) if plain else self._concatenated

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, Any]:
        """One step of every slot."""
        n, seen, told = self.num_envs, [], []
        rewards, terminated, truncated = np.empty(n), np.empty(n, bool), np.empty(n, bool)
        for i, (action, env) in enumerate(zip(iterate(self.action_space, actions), self.envs, strict=True)):
            observation, rewards[i], terminated[i], truncated[i], info = env.step(action)
            if terminated[i] or truncated[i]:
                told.append((i, {"final_obs": observation, "final_info": info}))
                observation, info = env.reset()
            seen.append(observation)
            told.append((i, info))
        return self._together(seen), rewards, terminated, truncated, Infos(self._add_info, told)

    def _concatenated(self, seen: list[Any]) -> Any:
        space = self.single_observation_space
        return concatenate(space, seen, gym.vector.utils.create_empty_array(space, self.num_envs))


class Infos(Mapping[str, Any]):
    """What the slots told, as `SyncVectorEnv` puts it together, from the first time that it is read."""

    def __init__(self, add: Callable[[dict[str, Any], dict[str, Any], int], Any], told: list[Any]) -> None:
        self._add, self._told = add, told

    @cached_property
    def _all(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for slot, info in self._told:
            self._add(found, info, slot)
        return found

    def __getitem__(self, key: str) -> Any:
        return self._all[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)
