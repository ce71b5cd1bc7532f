"""EnvPool's environments, stepped in threads: `envpool:HalfCheetah-v5`."""

import difflib
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

Array = Any


class EnvPoolEnv(VectorEnv):
    """A pool as a vector environment of Gymnasium's; it resets in the step after an end (NEXT_STEP).

    EnvPool takes seeds only when a pool is made, so `reset(seed=…)` makes a new one.
    """

    def __init__(self, name: str, slots: int, max_episode_steps: int | None, options: dict[str, Any]) -> None:
        self._name, self.num_envs = name, slots
        self._options = options | ({} if max_episode_steps is None else {"max_episode_steps": max_episode_steps})
        self._pool = self._make(0)
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP, "render_modes": []}
        self.single_observation_space, self.single_action_space = self._pool.observation_space, self._pool.action_space
        self.observation_space = batch_space(self.single_observation_space, slots)
        self.action_space = batch_space(self.single_action_space, slots)
        self._fresh = True
        self._kind = self.single_action_space.dtype

    def _make(self, seed: int) -> Any:
        seeds = [(seed + slot) % (2**31 - 1) for slot in range(self.num_envs)]
        return _envpool().make(
            self._name, env_type="gymnasium", num_envs=self.num_envs, seed=seeds, **self._options
        )  # fmt: skip

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        if seed is not None:
            self._pool.close()
            self._pool = self._make(seed if isinstance(seed, int) else (seed[0] or 0))
        return self._pool.reset()

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        return self._pool.step(np.asarray(actions, self._kind))

    def close_extras(self, **kwargs: Any) -> None:
        self._pool.close()


def make(name: str, slots: int, max_episode_steps: int | None = None, **options: Any) -> EnvPoolEnv:
    """A pool of `slots` environments of that name. Raises ModuleNotFoundError without EnvPool, ValueError for an
    unknown name or option.
    """
    known = _envpool().list_all_envs()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "envpool.list_all_envs() lists them"
        raise ValueError(f"unknown environment 'envpool:{name}': {hint}")
    try:
        return EnvPoolEnv(name, slots, max_episode_steps, options)
    except (AssertionError, TypeError, ValueError) as error:
        raise ValueError(f"env_kwargs = {options}: envpool:{name} does not take them ({error})") from error


def _envpool() -> Any:
    try:
        import envpool
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"EnvPool environments need {error.name}: pip install 'vantage[envpool]'") from error
    return envpool
