"""What Gymnasium's spaces mean for a policy: which class of actions or observations stands for each."""

import math
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from vantage.control.actions import (
    Actions,
    BoxActions,
    DictActions,
    DiscreteActions,
    MultiBinaryActions,
    MultiDiscreteActions,
    TupleActions,
)
from vantage.control.exploration import StateDependentActions
from vantage.control.images import Channels, ImageObservations, PackedObservations, Picture, has_pictures, picture
from vantage.control.observations import (
    KEY,
    FlatObservations,
    MaskSource,
    Numbers,
    OneHot,
    Several,
    StateObservations,
    VectorObservations,
)

__all__ = [
    "Actions", "BoxActions", "DictActions", "DiscreteActions", "FlatObservations", "ImageObservations",
    "MultiBinaryActions", "MultiDiscreteActions", "Observations", "PackedObservations", "StateObservations",
    "TupleActions", "VectorObservations", "actions", "observations",
]  # fmt: skip


Observations = VectorObservations | StateObservations | FlatObservations | ImageObservations


def observations(
    space: gym.Space,
    mask: MaskSource | None = None,
    choices: tuple[int, ...] = (),
    channels: Channels | None = None,
) -> Observations:
    """How a space is observed, with action masks over `choices` from `mask` recorded along; `channels` says which axis
    of pictures holds their channels.

    Raises TypeError naming the space and the remedy for one that is not supported.
    """
    if mask == "observation":
        space = spaces.Dict({name: x for name, x in space.spaces.items() if name != KEY})  # type: ignore[attr-defined]
    if mask is None and isinstance(space, spaces.Discrete):
        return StateObservations(size=int(space.n), start=int(space.start))
    if mask is None and isinstance(space, spaces.Box) and len(space.shape) == 1:
        return VectorObservations(size=space.shape[0])
    part = _part(space, channels)
    if mask is None and isinstance(part, Picture):
        return ImageObservations(picture=part)
    kind = PackedObservations if has_pictures(part) else FlatObservations
    return kind(part=part, mask=mask, choices=choices if mask else ())


def _part(space: gym.Space, channels: Channels | None) -> Numbers | OneHot | Several | Picture:
    if isinstance(space, spaces.Box):
        return picture(space, channels) or Numbers(dims=space.shape)
    if isinstance(space, spaces.MultiBinary):
        return Numbers(dims=space.shape, scaled=False)
    if isinstance(space, spaces.Discrete):
        return OneHot(sizes=(int(space.n),), starts=(int(space.start),))
    if isinstance(space, spaces.MultiDiscrete):
        return OneHot(sizes=_ints(space.nvec), starts=_ints(space.start), dims=space.shape)
    if isinstance(space, spaces.Tuple):
        return Several(parts=tuple(_part(x, channels) for x in space.spaces))
    if isinstance(space, spaces.Dict):
        return Several(parts=tuple(_part(x, channels) for x in space.spaces.values()), names=tuple(space.spaces))
    raise TypeError(
        f"observation space {_brief(space)} is not supported: wrap the environment in "
        "gymnasium.wrappers.FlattenObservation, so that it is a flat Box"
    )


def actions(space: gym.Space, squash: bool = False, sde_hold: int | None = None) -> Actions:
    """How a space is acted in; with `sde_hold`, by noise that depends on the state and holds for so many steps.

    Raises TypeError naming the space and the remedy for one that is not supported.
    """
    found = _actions(space, squash)
    if sde_hold is not None:
        if not isinstance(found, BoxActions):
            raise ValueError(
                f"use_sde = True: that noise is for one Box of actions, got {_brief(space)}; leave it False"
            )
        return StateDependentActions(**vars(found), hold=sde_hold)
    if squash and not found.stds:
        raise ValueError(f"squash_actions = True: tanh belongs to Box actions, got {_brief(space)}; leave it False")
    return found


def _actions(space: gym.Space, squash: bool) -> Actions:
    if isinstance(space, spaces.Discrete):
        return DiscreteActions(n=int(space.n), start=int(space.start))
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        return _box(space, squash)
    if isinstance(space, spaces.MultiDiscrete):
        each = zip(_ints(space.nvec), _ints(space.start), strict=True)
        return MultiDiscreteActions(parts=tuple(DiscreteActions(n=n, start=s) for n, s in each), dims=space.shape)
    if isinstance(space, spaces.MultiBinary):
        return MultiBinaryActions(dims=space.shape)
    if isinstance(space, spaces.Tuple):
        return TupleActions(parts=tuple(_actions(x, squash) for x in space.spaces))
    if isinstance(space, spaces.Dict):
        parts = tuple(_actions(x, squash) for x in space.spaces.values())
        return DictActions(parts=parts, names=tuple(space.spaces))
    raise TypeError(
        f"action space {_brief(space)} is not supported: wrap the environment in gymnasium.wrappers.TransformAction, "
        "so that it is Discrete or a Box of floats"
    )


def _box(space: spaces.Box, squash: bool) -> BoxActions:
    low, high = tuple(map(float, space.low.ravel())), tuple(map(float, space.high.ravel()))
    if squash and not all(map(math.isfinite, low + high)):
        raise ValueError(f"squash_actions = True needs a bounded box, got {_brief(space)}: leave it False")
    return BoxActions(low=low, high=high, squash=squash, dims=None if len(space.shape) == 1 else space.shape)


def _ints(x: Any) -> tuple[int, ...]:
    return tuple(int(entry) for entry in np.ravel(x))


def _brief(space: Any) -> str:
    text = str(space)
    return text if len(text) < 80 else f"{type(space).__name__}{getattr(space, 'shape', None) or ''}"
