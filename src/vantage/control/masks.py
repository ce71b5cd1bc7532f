"""Action masks: where an environment gives them, and observations recorded together with them."""

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import jax
import numpy as np

from vantage.control.actions import Actions
from vantage.control.observations import KEY, FlatObservations, MaskSource
from vantage.control.spaces import Observations

Array = Any
METHOD = "action_masks"


def find(env: Any, actions: Actions) -> MaskSource | None:
    """Where the masks of a vector environment of one slot come from, looked for in this order: its observation's key
    `action_mask`, its method `action_masks()`, the key `action_mask` of what `reset` tells. None: nowhere, or there is
    no choice that a mask could narrow.

    Raises ValueError for a mask that does not have one entry for each option.
    """
    if not actions.choices:
        return None
    space = env.single_observation_space
    if isinstance(space, gym.spaces.Dict) and KEY in space.spaces:
        source, size = "observation", space.spaces[KEY].shape
    else:
        _, info = env.reset(seed=0)
        singles = getattr(env, "envs", ())
        if singles and singles[0].has_wrapper_attr(METHOD):
            source, size = "method", _rows(env.call(METHOD))[0].shape
        elif KEY in info:
            source, size = "info", _rows(info[KEY])[0].shape
        else:
            return None
    if size != (sum(actions.choices),):
        raise ValueError(
            f"the action mask ({source}) has shape {size}: give ({sum(actions.choices)},), one entry for each option "
            f"of the choices of {', '.join(map(str, actions.choices))} options"
        )
    return source


def recorded(observations: Observations, env: Any, observation: Any, info: Mapping[str, Any]) -> Array:
    """What a vector environment gave, as the rollout keeps it, with the masks that hold now.

    A slot that gave no mask is recorded with no option left; see `FlatObservations.stuck`.
    """
    if not isinstance(observations, FlatObservations) or observations.mask in (None, "observation"):
        return observations.record(observation)
    if observations.mask == "method":
        own = getattr(env, METHOD, None)
        return observations.record(observation, _rows(env.call(METHOD) if own is None else own()))
    given = np.zeros((env.num_envs, sum(observations.choices)), np.float32)
    if KEY in info:
        there = np.asarray(info.get(f"_{KEY}", np.ones(env.num_envs, bool)))
        given[there] = _rows([mask for mask, one in zip(info[KEY], there, strict=True) if one])
    return observations.record(observation, given)


def one_mask(mask: Any) -> Array:
    """A mask, or a tuple of one mask a choice, as one array."""
    return mask if isinstance(mask, np.ndarray) else np.concatenate([np.ravel(x) for x in jax.tree.leaves(mask)])


def _rows(masks: Any) -> Array:
    """`[B, M]`."""
    if isinstance(masks, np.ndarray) and masks.dtype != object:
        return masks.reshape(len(masks), -1)
    return np.stack([np.ravel(one_mask(mask)) for mask in masks])
