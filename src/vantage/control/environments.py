"""Environments from an id or a callable: which implementation steps them, and in which autoreset mode."""

import difflib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from jaxtyping import Float

from vantage.control.atari import Atari, is_game, is_game_of_envpool
from vantage.control.jax_env import JaxEnv, JaxVectorEnv
from vantage.control.one_by_one import OneByOne
from vantage.control.wrappers import around

Source = Any
"""An id (`CartPole-v1`, `envpool:…`, `gymnax:…`, `brax:…`, `mdp:…`), a callable that returns a `gymnasium.Env`, an
`MDP`, or a `JaxEnv`.
"""
Wrappers = dict[str, dict[str, Any]]
Backend = Literal["auto", "sync", "async", "vector"]
"""How Gymnasium's environments are stepped: one by one, in processes, or by a vector implementation of their own."""
EXTRAS = ("box2d", "mujoco")
"""Parts of Gymnasium, and our extras that install what they need."""
IN_JIT = {
    "gymnax": "vantage.control.adapters.gymnax_env",
    "brax": "vantage.control.adapters.brax_env",
    "mdp": "vantage.mdp.jax_env",
}
"""Prefixes of environments that are written in JAX, and the modules whose `make` builds them."""
SUCCESS = "is_success"
"""The key of an info that says whether the episode that ends reached its goal."""


def own_vector(source: Source) -> int:
    """From how many slots on an environment's own vector implementation is faster than single ones (measured on
    CartPole-v1, Gymnasium's in NumPy: 70 µs a step for any number of slots, against 11 for each).
    """
    spec = find(source) if isinstance(source, str) else None
    return 6 if spec and str(spec.vector_entry_point).startswith("gymnasium.envs.") else 4


def _takes_own(source: Source, backend: Backend, slots: int) -> bool:
    """Whether a vector implementation, where there is one, is used."""
    return backend == "vector" or (backend == "auto" and slots >= own_vector(source))


def in_jit(source: Source) -> bool:
    """Whether the environment is written in JAX, so that it runs inside the compiled program."""
    if isinstance(source, str):
        return prefix(source) in IN_JIT
    return _is_mdp(source) or (isinstance(source, JaxEnv) and not isinstance(source, type | gym.Env | VectorEnv))


def prefix(env_id: str) -> str | None:
    """`gymnax` of `gymnax:CartPole-v1`; None for an id of Gymnasium's own."""
    head, colon, _ = env_id.partition(":")
    return head if colon and (head in IN_JIT or head == "envpool") else None


def jax_env(source: Source, env_kwargs: dict[str, Any], max_episode_steps: int | None) -> JaxEnv:
    """The environment as pure functions of JAX; for sources that are `in_jit`. Raises what their adapters raise."""
    if isinstance(source, str):
        head, _, name = source.partition(":")
        return import_module(IN_JIT[head]).make(name, max_episode_steps=max_episode_steps, **env_kwargs)
    if _is_mdp(source):
        return import_module(IN_JIT["mdp"]).of(source, max_episode_steps, **env_kwargs)
    if env_kwargs or max_episode_steps is not None:
        raise ValueError("env_kwargs and max_episode_steps belong to environments made by name: give them to your own")
    return source


def check_backend(source: Source, backend: Backend) -> None:
    """Raise ValueError for a way of stepping that an environment does not have a choice of."""
    if backend != "auto" and (in_jit(source) or (isinstance(source, str) and prefix(source) == "envpool")):
        raise ValueError(f"backend = {backend!r}: {name(source)} has one way of being stepped; leave backend at 'auto'")


def shown(
    source: Source, atari: Atari | None, env_kwargs: dict[str, Any], frame_stack: int, wrappers: Wrappers | None = None
) -> Atari | None:
    """How a game is shown: as chosen, or Atari(); None for what is no Atari game.

    Raises ValueError for a choice that the environment does not have.
    """
    own = isinstance(source, str) and prefix(source) is None and not in_jit(source)
    pool = isinstance(source, str) and prefix(source) == "envpool"
    game = is_game(find(source), env_kwargs) if own else pool and is_game_of_envpool(source.partition(":")[2])
    if atari is not None and not game:
        raise ValueError(f"atari: {name(source)} is no Atari game that is seen; leave it out")
    if frame_stack > 1 and game:
        raise ValueError(f"frame_stack = {frame_stack}: games are stacked by atari=Atari(frames={frame_stack})")
    if frame_stack > 1 and (pool or in_jit(source)):
        raise ValueError(f"frame_stack = {frame_stack}: only Gymnasium's environments are stacked, not {name(source)}")
    if wrappers and (game or pool or in_jit(source)):
        shows = "games are shown by atari=Atari(…)" if game else "only Gymnasium's environments are wrapped"
        raise ValueError(f"wrappers = {', '.join(wrappers)}: {shows}; leave them out for {name(source)}")
    if game and own and "frameskip" in env_kwargs:
        raise ValueError("env_kwargs: frameskip is set by atari=Atari(frame_skip=…)")
    return (atari or Atari()) if game else None


def make(
    source: Source,
    slots: int,
    env_kwargs: dict[str, Any],
    max_episode_steps: int | None,
    backend: Backend = "auto",
    atari: Atari | None = None,
    frame_stack: int = 1,
    wrappers: Wrappers | None = None,
) -> VectorEnv:
    """`slots` copies of an environment, stepped together from outside of any compiled program.

    `atari` says how a game is shown; others have `wrappers` around them, and `frame_stack` observations are seen
    together, which only single environments do.

    With "auto" an id whose environment has a vector implementation of its own uses that from `own_vector` slots on, a
    callable that has `make_vector(slots)` is asked for all of them, and others are stepped one by one. Raises
    ValueError for an unknown id, TypeError for a callable that returns something else, ModuleNotFoundError for a
    package that the environment needs.
    """
    if in_jit(source):
        return JaxVectorEnv(jax_env(source, env_kwargs, max_episode_steps), slots)
    if isinstance(source, str) and prefix(source) == "envpool":
        from vantage.control.adapters import envpool_env

        options = ({} if atari is None else atari.of_envpool) | env_kwargs
        return envpool_env.make(source.partition(":")[2], slots, max_episode_steps, **options)
    if frame_stack > 1 or wrappers:
        one, seen = around(_single(source, env_kwargs, max_episode_steps), wrappers or {}), _stacked(frame_stack)
        return _together(source, lambda: seen(one()), slots, backend)
    if isinstance(source, str):
        return _of_gymnasium(source, slots, env_kwargs, max_episode_steps, backend, atari)
    if not callable(source):
        raise TypeError(
            f"env = {source!r}: give a Gymnasium id such as 'CartPole-v1', or a callable that returns an environment"
        )
    if hasattr(source, "make_vector") and _takes_own(source, backend, slots):
        return source.make_vector(slots, **env_kwargs)
    return _together(source, _single(source, env_kwargs, max_episode_steps), slots, backend)


def _single(source: Source, env_kwargs: dict[str, Any], max_episode_steps: int | None) -> Callable[[], gym.Env]:
    """What makes one environment of Gymnasium's."""
    if isinstance(source, str):
        return lambda: gym.make(source, max_episode_steps=max_episode_steps, **env_kwargs)
    return lambda: _limited(source(**env_kwargs), max_episode_steps)


def _stacked(frames: int) -> Callable[[gym.Env], gym.Env]:
    """What shows the last `frames` observations together."""
    if frames == 1:
        return lambda env: env
    return lambda env: gym.wrappers.FrameStackObservation(env, frames, padding_type="reset")


def _of_gymnasium(
    env_id: str,
    slots: int,
    env_kwargs: dict[str, Any],
    max_episode_steps: int | None,
    backend: Backend,
    atari: Atari | None,
) -> VectorEnv:
    spec = find(env_id)
    own = spec.vector_entry_point is not None and _takes_own(env_id, backend, slots)
    if atari is not None:
        if own:
            return atari.several(env_id, slots, max_episode_steps, **env_kwargs)
        return _together(env_id, lambda: atari.one(env_id, max_episode_steps, **env_kwargs), slots, backend)
    if own:
        limit = {} if max_episode_steps is None else {_limit_name(spec): max_episode_steps}
        return gym.make_vec(env_id, slots, vectorization_mode="vector_entry_point", **limit, **env_kwargs)
    with _installed(spec):
        return _together(env_id, _single(env_id, env_kwargs, max_episode_steps), slots, backend)


def _together(source: Source, make_one: Callable[[], gym.Env], slots: int, backend: Backend) -> VectorEnv:
    """Single environments, one after another or each in a process."""
    if backend == "vector":
        raise ValueError(f"backend = 'vector': {name(source)} has no vector implementation; choose 'sync' or 'async'")
    if backend == "async":
        # A fork of a process in which JAX has started threads may hang for ever.
        context = "spawn" if sys.platform == "win32" else "forkserver"
        return AsyncVectorEnv([make_one] * slots, autoreset_mode=AutoresetMode.SAME_STEP, context=context)
    return OneByOne([make_one] * slots)


def describe(source: Source, env: VectorEnv | JaxEnv, slots: int) -> str:
    """Which implementation steps the environments: one line for people."""
    copies = f"{slots} slot{'' if slots == 1 else 's'}"
    if in_jit(source):
        return f"{name(source)}: written in JAX, so acting and learning are one compiled program ({copies})"
    if isinstance(source, str) and prefix(source) == "envpool":
        return f"{source}: EnvPool's threads ({copies})"
    if isinstance(env, AsyncVectorEnv):
        return f"{name(source)}: each in a process of its own ({copies})"
    if not isinstance(env, SyncVectorEnv):
        made = type(getattr(env, "unwrapped", env)).__name__
        return f"{name(source)}: its own vector implementation {made} ({copies})"
    hint = ""
    if isinstance(source, str) and slots > 1 and _in_envpool(source):
        hint = f"; envpool:{source} steps them in threads"
    return f"{name(source)}: Gymnasium, one after another ({copies}){hint}"


def reason(source: Source, env: VectorEnv | JaxEnv, backend: Backend, frame_stack: int, wrappers: Wrappers) -> str:
    """Why that implementation was chosen: one clause for people."""
    if in_jit(source) or (isinstance(source, str) and prefix(source) == "envpool"):
        return "the only way there is"
    if backend != "auto":
        return f"backend = {backend!r}"
    if not isinstance(env, SyncVectorEnv | AsyncVectorEnv):
        return f"faster from {own_vector(source)} slots on"
    if frame_stack > 1 or wrappers:
        return "single ones are wrapped"
    own = find(source).vector_entry_point is not None if isinstance(source, str) else hasattr(source, "make_vector")
    return f"faster below {own_vector(source)} slots" if own else "it has no vector implementation of its own"


def _in_envpool(env_id: str) -> bool:
    """Whether EnvPool is installed and its kind of environment; whether it has this one only EnvPool can say."""
    return find_spec("envpool") is not None and "gymnasium.envs.mujoco" in str(find(env_id).entry_point)


def name(source: Source) -> str:
    """What to call a source: its id, or the name of the callable or class."""
    return source if isinstance(source, str) else getattr(source, "__name__", type(source).__name__)


def _is_mdp(source: Source) -> bool:
    """Whether it is a `vantage.mdp.MDP`; a world that this one does not import."""
    model = sys.modules.get("vantage.mdp.model")
    return model is not None and isinstance(source, model.MDP)


def find(env_id: str) -> Any:
    """The registration of an id, which may be `module:id`. Raises ValueError, with the nearest id, if there is none."""
    module, _, name = env_id.rpartition(":")
    module = module or ("ale_py" if name.startswith("ALE/") or name.endswith("NoFrameskip-v4") else "")
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
            f"environment {env_id!r} needs the module {error.name!r}: install it, or put its folder on PYTHONPATH"
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


def successes(info: Mapping[str, Any], slots: int) -> Float[np.ndarray, " B"]:
    """What the step that ended episodes told of each slot's `is_success`: 1 or 0, NaN where nothing."""
    told, found = info.get("final_info", info), np.full(slots, np.nan)
    if SUCCESS in told:
        there = np.asarray(told.get(f"_{SUCCESS}", np.ones(slots, bool)))
        found[there] = np.asarray(told[SUCCESS])[there].astype(float)
    return found


def _limit_name(spec: Any) -> str:
    """How a vector implementation calls its time limit: Gymnasium's take `max_episode_steps`, an MDP `max_steps`."""
    return "max_steps" if str(spec.vector_entry_point).startswith("vantage.mdp") else "max_episode_steps"


def _limited(env: Any, max_episode_steps: int | None) -> gym.Env:
    if not isinstance(env, gym.Env):
        raise TypeError(f"env() returned {type(env).__name__}: give a callable that returns a gymnasium.Env")
    return env if max_episode_steps is None else gym.wrappers.TimeLimit(env, max_episode_steps)
