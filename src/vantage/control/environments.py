"""Vector environments from an id or a callable, in whichever autoreset mode they come."""

import difflib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import gymnasium as gym
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

Source = str | Callable[[], gym.Env]
EXTRAS = ("box2d", "mujoco")
"""Parts of Gymnasium, and our extras that install what they need."""


def make(
    source: Source, slots: int, env_kwargs: dict[str, Any], max_episode_steps: int | None, own_vector: bool
) -> VectorEnv:
    """`slots` copies of an environment, stepped together.

    With `own_vector` an id whose environment has a vector implementation of its own uses that, and a callable that has
    `make_vector(slots)` is asked for all of them; otherwise single environments are stepped one by one.
    Raises ValueError for an unknown id, TypeError for a callable that returns something else, ModuleNotFoundError for
    a package that the environment needs.
    """
    if isinstance(source, str):
        spec = find(source)
        if own_vector and spec.vector_entry_point is not None:
            limit = {} if max_episode_steps is None else {_limit_name(spec): max_episode_steps}
            return gym.make_vec(source, slots, vectorization_mode="vector_entry_point", **limit, **env_kwargs)
        with _installed(spec):
            return _one_by_one(lambda: gym.make(source, max_episode_steps=max_episode_steps, **env_kwargs), slots)
    if not callable(source):
        raise TypeError(
            f"env = {source!r}: give a Gymnasium id such as 'CartPole-v1', or a callable that returns an environment"
        )
    if own_vector and hasattr(source, "make_vector"):
        return source.make_vector(slots, **env_kwargs)
    return _one_by_one(lambda: _limited(source(**env_kwargs), max_episode_steps), slots)


def find(env_id: str) -> Any:
    """The registration of an id, which may be `module:id`. Raises ValueError, with the nearest id, if there is none."""
    module, _, name = env_id.rpartition(":")
    module = module or ("ale_py" if name.startswith("ALE/") else "")
    try:
        if module:
            import_module(module)
        return gym.spec(name)
    except gym.error.Error as error:
        near = difflib.get_close_matches(name, gym.registry, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "gymnasium.pprint_registry() lists what is installed"
        raise ValueError(f"unknown environment {env_id!r}: {hint}") from error
    except ModuleNotFoundError as error:
        if error.name == "ale_py":
            raise ModuleNotFoundError(f"{env_id} needs atari: pip install 'vantage[atari]'") from error
        raise ValueError(
            f"environment {env_id!r} needs the package {error.name!r}: pip install {error.name}"
        ) from error


@contextmanager
def _installed(spec: Any) -> Iterator[None]:
    """Name the extra to install where making an environment of Gymnasium fails for lack of a package."""
    try:
        yield
    except (gym.error.DependencyNotInstalled, ModuleNotFoundError) as error:
        extra = next((name for name in EXTRAS if f"gymnasium.envs.{name}" in str(spec.entry_point)), None)
        remedy = str(error) if extra is None else f"needs {extra}: pip install 'vantage[{extra}]'"
        raise ModuleNotFoundError(f"{spec.id} {remedy}") from error


def autoreset(env: VectorEnv) -> AutoresetMode:
    """How the environments begin anew."""
    return AutoresetMode(env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))


def _limit_name(spec: Any) -> str:
    """How a vector implementation calls its time limit: Gymnasium's take `max_episode_steps`, an MDP `max_steps`."""
    return "max_steps" if str(spec.vector_entry_point).startswith("vantage.mdp") else "max_episode_steps"


def _one_by_one(make_one: Callable[[], gym.Env], slots: int) -> VectorEnv:
    return SyncVectorEnv([make_one] * slots, autoreset_mode=AutoresetMode.SAME_STEP)


def _limited(env: Any, max_episode_steps: int | None) -> gym.Env:
    if not isinstance(env, gym.Env):
        raise TypeError(f"env() returned {type(env).__name__}: give a callable that returns a gymnasium.Env")
    return env if max_episode_steps is None else gym.wrappers.TimeLimit(env, max_episode_steps)
