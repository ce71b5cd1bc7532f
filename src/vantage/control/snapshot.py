"""The state of running environments as arrays and JSON, and a probe that finds out whether that is all of it."""

from functools import partial
from typing import Any

import gymnasium as gym
import jax
import numpy as np
from gymnasium.vector import AsyncVectorEnv

from vantage.control import masks

Array = Any
PROBE_STEPS = 40
_CONFIGURATION = ("spec", "_cached_spec", "metadata", "_metadata", "render_mode")


def take(env: Any) -> tuple[dict[str, Array], dict[str, Any]]:
    """(arrays, JSON) from which `put` restores a vector environment: what its parts keep in arrays, numbers and
    random generators.

    Each part that has `get_state` is asked for it instead. Whether this is the whole state is for `is_faithful` to say.
    """
    arrays, info = {}, {}
    for name, part in _parts(env).items():
        held = part.get_state() if hasattr(part, "get_state") else _held(part)
        for key, value in held.items():
            if isinstance(value, np.ndarray):
                arrays[f"{name}:{key}"] = value.copy()
            else:
                info[f"{name}:{key}"] = value
    return arrays, info


def put(env: Any, arrays: dict[str, Array], info: dict[str, Any]) -> None:
    """Restore what `take` read into a vector environment of the same make."""
    held: dict[str, dict[str, Any]] = {}
    for path, value in [*arrays.items(), *info.items()]:
        name, key = path.split(":", 1)
        held.setdefault(name, {})[key] = value.copy() if isinstance(value, np.ndarray) else value
    for name, part in _parts(env).items():
        values = held.get(name, {})
        if hasattr(part, "set_state"):
            part.set_state(values)
        else:
            _hold(part, values)


def is_faithful(make_env: Any, observations: Any, actions: Any) -> bool:
    """Whether a fresh environment given a snapshot goes on exactly as the original: tried over steps and resets, with
    two slots, by random actions that its masks allow.
    """
    first, second = make_env(2), make_env(2)
    play = partial(_play, observations, actions)
    try:
        if isinstance(first, AsyncVectorEnv):  # the state is in other processes
            return False
        now, _ = play(first, first.reset(seed=1), 7, 0)
        play(second, second.reset(seed=2), 3, 1)
        put(second, *take(first))
        _, goes_on = play(first, now, PROBE_STEPS, 2)
        if not _same(goes_on, play(second, now, PROBE_STEPS, 2)[1]):
            return False
        put(second, *take(first))
        begins, also = first.reset(), second.reset()
        return _same(
            [*jax.tree.leaves(begins[0]), *play(first, begins, PROBE_STEPS, 3)[1]],
            [*jax.tree.leaves(also[0]), *play(second, also, PROBE_STEPS, 3)[1]],
        )
    except Exception:  # whatever fails here would fail at a resume: the state cannot be exported
        return False
    finally:
        first.close()
        second.close()


def _parts(env: Any) -> dict[str, Any]:
    """The layers of wrappers and the single environments inside, by a path that a fresh one shares."""
    parts, name = {}, "env"
    while True:
        parts[name] = env
        for i, one in enumerate(getattr(env, "envs", ()) if not isinstance(env, gym.Env) else ()):
            parts |= {f"{name}.{i}.{inner}": part for inner, part in _parts(one).items()}
        if "env" not in vars(env):
            return parts
        env, name = vars(env)["env"], f"{name}.env"


def _held(part: Any) -> dict[str, Any]:
    held = {}
    for key, value in vars(part).items():
        if key in _CONFIGURATION:
            continue
        if isinstance(value, np.random.Generator):
            held[key] = {"bit_generator": _plain(value.bit_generator.state)}
        elif isinstance(value, np.ndarray) and value.dtype.kind in "biuf":  # what a file can hold
            held[key] = value
        elif isinstance(value, np.generic):
            held[key] = {"scalar": value.item(), "dtype": value.dtype.str}
        elif value is None or isinstance(value, bool | int | float | str):
            held[key] = value
        elif isinstance(value, tuple | list) and all(isinstance(x, bool | int | float) for x in value):
            held[key] = {
                "items": [float(x) if isinstance(x, np.floating) else x for x in value],
                "of": type(value).__name__,
            }
    return held


def _hold(part: Any, values: dict[str, Any]) -> None:
    for key, value in values.items():
        if not isinstance(value, dict):
            setattr(part, key, value)
        elif "bit_generator" in value:
            state = value["bit_generator"]
            bits = getattr(np.random, state["bit_generator"])()
            bits.state = state
            setattr(part, key, np.random.Generator(bits))
        elif "scalar" in value:
            setattr(part, key, np.dtype(value["dtype"]).type(value["scalar"]))
        else:
            setattr(part, key, tuple(value["items"]) if value["of"] == "tuple" else list(value["items"]))


def _plain(state: Any) -> Any:
    """A bit generator's state with lists for arrays: JSON holds integers of any size."""
    if isinstance(state, dict):
        return {key: _plain(value) for key, value in state.items()}
    return state.tolist() if isinstance(state, np.ndarray) else state


def _play(observations: Any, actions: Any, env: Any, now: tuple[Any, Any], steps: int, seed: int) -> tuple[Any, Any]:
    """What `steps` random actions lead to from `now`, (observation, info): the last of these, and all that was seen."""
    rng, std, seen = np.random.default_rng(seed), np.ones(actions.stds, np.float32), []
    for _ in range(steps):
        outputs = np.zeros((env.num_envs, actions.outputs), np.float32)
        if observations.mask is not None:
            allowed = observations.allowed(masks.recorded(observations, env, *now))
            outputs = actions.rule_out(outputs, allowed)
        chosen = actions.sample(outputs, std, actions.noise(rng, (env.num_envs,)))
        observation, reward, terminated, truncated, info = env.step(actions.to_env(chosen))
        now = observation, info
        seen += [np.copy(x) for x in (*jax.tree.leaves(observation), reward, terminated, truncated)]
    return now, seen


def _same(a: list[Any], b: list[Any]) -> bool:
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
