"""Brax's environments: `brax:ant`."""

import difflib
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import jax.numpy as jnp
import numpy as np

Array = Any
EPISODE = 1000
"""The time limit that Brax's own training gives every environment."""


@dataclass(frozen=True)
class BraxEnv:
    """An environment of Brax without its wrappers: they overwrite the final observation, and begin every episode of a
    slot in the same state. The time limit is counted here.
    """

    name: str
    options: tuple[tuple[str, Any], ...] = ()
    max_episode_steps: int = EPISODE
    observation_space: gym.Space = field(default=gym.Space(), compare=False, repr=False)
    """As Gymnasium names it."""
    action_space: gym.Space = field(default=gym.Space(), compare=False, repr=False)
    """[−1, 1] for each actuator."""
    env: Any = field(default=None, compare=False, repr=False)

    def reset(self, key: Array) -> tuple[Any, Any]:
        """(state, s_0)."""
        state = self.env.reset(key)
        return (state, jnp.int32(0)), state.obs

    def step(self, key: Array, state: Any, action: Any) -> tuple[Any, Any, Array, Array, Array]:
        """(state, s_{t+1}, r_t, terminated, truncated)."""
        before, t = state
        after = self.env.step(before, action)
        terminated = after.done > 0
        return (after, t + 1), after.obs, after.reward, terminated, t + 1 >= self.max_episode_steps


def make(name: str, max_episode_steps: int | None = None, **options: Any) -> BraxEnv:
    """The environment of that name; `options` such as `backend` go to its class. Raises ModuleNotFoundError without
    Brax, ValueError for an unknown name or option.
    """
    try:
        from brax import envs
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"brax:{name} needs {error.name}: pip install 'vantage[jaxenvs]'") from error
    known = list(envs._envs)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
        raise ValueError(f"unknown environment 'brax:{name}': {hint}")
    try:
        env = envs.get_environment(name, **options)
    except TypeError as error:
        raise ValueError(f"env_kwargs = {options}: brax:{name} does not take them ({error})") from error
    sizes = env.observation_size
    seen = _box(sizes) if isinstance(sizes, int) else gym.spaces.Dict({key: _box(n) for key, n in sizes.items()})
    done = gym.spaces.Box(-1.0, 1.0, (env.action_size,), np.float32)
    return BraxEnv(name, tuple(sorted(options.items())), max_episode_steps or EPISODE, seen, done, env)


def _box(size: Any) -> gym.spaces.Box:
    shape = (size,) if isinstance(size, int) else tuple(size)
    return gym.spaces.Box(-np.inf, np.inf, shape, np.float32)
