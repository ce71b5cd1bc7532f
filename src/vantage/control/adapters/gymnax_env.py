"""gymnax's environments: `gymnax:CartPole-v1`."""

import difflib
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import gymnasium as gym
import numpy as np

Array = Any
REMEDY = 'pip install --no-deps "gymnax==1.0.1"; pip install flax six seaborn'
"""gymnax 1.0.1 asks for gymnasium<1.4 but works with it, so that pip left alone chooses the older 0.0.9."""


@dataclass(frozen=True)
class GymnaxEnv:
    """An environment of gymnax without its automatic resets: its own flags say how an episode ended.

    `options` are pairs of arguments: those that `gymnax.make` takes, and fields of the environment's parameters.
    """

    name: str
    options: tuple[tuple[str, Any], ...] = ()
    max_episode_steps: int | None = None
    observation_space: gym.Space = field(default=gym.Space(), compare=False, repr=False)
    """As Gymnasium names it; so is `action_space`."""
    action_space: gym.Space = field(default=gym.Space(), compare=False, repr=False)
    env: Any = field(default=None, compare=False, repr=False)
    params: Any = field(default=None, compare=False, repr=False)

    def reset(self, key: Array) -> tuple[Any, Any]:
        """(state, s_0)."""
        observation, state = self.env.reset_env(key, self.params)
        return state, observation

    def step(self, key: Array, state: Any, action: Any) -> tuple[Any, Any, Array, Array, Array]:
        """(state, s_{t+1}, r_t, terminated, truncated)."""
        observation, state, reward, terminated, _ = self.env.step_env(key, state, action, self.params)
        return state, observation, reward, terminated, self.env.is_truncated(state, self.params)


def make(name: str, max_episode_steps: int | None = None, **options: Any) -> GymnaxEnv:
    """The environment of that name. Raises ModuleNotFoundError without gymnax, ImportError for one that is too old,
    ValueError for an unknown name or option.
    """
    gymnax = _gymnax()
    if name not in gymnax.registered_envs:
        near = difflib.get_close_matches(name, gymnax.registered_envs, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(gymnax.registered_envs)}"
        raise ValueError(f"unknown environment 'gymnax:{name}': {hint}")
    limit = {} if max_episode_steps is None else {"max_steps_in_episode": max_episode_steps}
    try:
        _, standard = gymnax.make(name)
        own = {key: x for key, x in options.items() if not hasattr(standard, key)}
        env, params = gymnax.make(name, **own)
        params = params.replace(**{key: x for key, x in options.items() if key not in own}, **limit)
    except TypeError as error:
        raise ValueError(f"env_kwargs = {options}: gymnax:{name} does not take them ({error})") from error
    seen, done = space(env.observation_space(params)), space(env.action_space(params))
    return GymnaxEnv(name, tuple(sorted(options.items())), max_episode_steps, seen, done, env, params)


def _gymnax() -> Any:
    try:
        import gymnax
        from gymnax.environments.environment import Environment
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"gymnax environments need {error.name}: {REMEDY}") from error
    if not hasattr(Environment, "is_truncated"):
        version = metadata.version("gymnax")
        raise ImportError(f"gymnax {version} takes a time limit for an end of the world, so V would be wrong: {REMEDY}")
    return gymnax


def space(given: Any) -> gym.Space:
    """A space of gymnax's as Gymnasium's. Raises TypeError for a kind that is not known."""
    kind = type(given).__name__
    if kind == "Discrete":
        return gym.spaces.Discrete(int(given.n))
    if kind == "Box":
        low, high = (np.broadcast_to(np.asarray(x, np.float32), given.shape) for x in (given.low, given.high))
        return gym.spaces.Box(low.copy(), high.copy(), given.shape, np.float32)
    if kind == "Dict":
        return gym.spaces.Dict({name: space(x) for name, x in given.spaces.items()})
    if kind == "Tuple":
        return gym.spaces.Tuple([space(x) for x in given.spaces])
    raise TypeError(f"gymnax's space {kind} is not supported: wrap the environment so that it has Discrete or Box")
