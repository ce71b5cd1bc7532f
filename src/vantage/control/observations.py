"""Observation spaces: how the record keeps an observation and what the networks read of it.

Nested observations are recorded flat, in the order of `gymnasium.spaces.utils.flatten`; so are action masks, behind
them, so that whoever scores an action sees the mask under which it was chosen.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from array_api_compat import is_jax_array
from jaxtyping import Bool, Float

from vantage.control.networks import Inputs
from vantage.control.normalise import standardise
from vantage.runs.config import known

Array = Any
MaskSource = Literal["observation", "method", "info"]
"""Where action masks come from: the observation's key `action_mask`, the environment's `action_masks()`, or
`info["action_mask"]`.
"""
KEY = "action_mask"


def as_array(x: Any, dtype: Any) -> Array:
    """An array of NumPy, or of JAX where x is one, also inside a compiled program."""
    return np.asarray(x, dtype) if isinstance(x, np.ndarray) or not is_jax_array(x) else x.astype(dtype)


def beside(parts: list[Array]) -> Array:
    """The last axes one after another, by NumPy, or by JAX where one part is its array."""
    return (jnp if any(map(is_jax_array, parts)) else np).concatenate(parts, axis=-1)


class Recorded:
    """Records that are numbers throughout, so that running statistics are of all that is recorded."""

    shape: Any

    @property
    def statistics(self) -> tuple[int, ...]:
        """The shape of the numbers of one observation."""
        return self.shape

    def numbers(self, recorded: Array) -> Array:
        """What running statistics are of."""
        return recorded

    def with_numbers(self, recorded: Array, numbers: Array) -> Array:
        """The record with other numbers."""
        return numbers


def standardised(observations: Any, frame: tuple[Any, Any] | None, recorded: Array) -> Array:
    """The record with its numbers standardised by a frame (shift, scale); as it is without one."""
    if frame is None:
        return recorded
    return observations.with_numbers(recorded, standardise(frame, observations.numbers(recorded)))


@known
@dataclass(frozen=True, kw_only=True)
class VectorObservations(Recorded):
    """A flat Box: `[…, D]`, as float32."""

    size: int

    dtype = np.float32
    normalisable = True
    mask = None
    choices = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one observation as it is recorded."""
        return (self.size,)

    @property
    def inputs(self) -> Inputs:
        """What it offers a network."""
        return Inputs(size=self.size)

    @property
    def numeric(self) -> bool:
        """Which entries are quantities, for normalisation: all."""
        return True

    def record(self, observation: Any) -> Array:
        """What the environment gave, as the rollout keeps it."""
        return as_array(observation, np.float32)

    def features(self, xp: Any, recorded: Array) -> Array:
        """What the network reads, `[…, D]`."""
        return recorded


@known
@dataclass(frozen=True, kw_only=True)
class StateObservations(Recorded):
    """Discrete(n): recorded as the number of the state, from 0; the network reads it one-hot."""

    size: int
    start: int = 0

    shape = ()
    dtype = np.int32
    normalisable = False
    numeric = False
    mask = None
    choices = ()

    @property
    def inputs(self) -> Inputs:
        """What it offers a network."""
        return Inputs(size=self.size)

    def record(self, observation: Any) -> Array:
        """What the environment gave, counted from 0."""
        return as_array(observation, np.int32) - np.int32(self.start)

    def features(self, xp: Any, recorded: Array) -> Array:
        """One-hot, `[…, n]`."""
        return (recorded[..., None] == xp.arange(self.size)).astype(np.float32)


@known
@dataclass(frozen=True, kw_only=True)
class Numbers:
    """A Box or MultiBinary of the shape `dims`: its entries; `scaled` says whether normalisation applies to them."""

    dims: tuple[int, ...]
    scaled: bool = True

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Which entries are quantities."""
        return (self.scaled,) * int(np.prod(self.dims))

    def flat(self, x: Any) -> Float[Array, "*S D"]:
        """The entries in row-major order."""
        x = as_array(x, np.float32)
        return x.reshape(*x.shape[: x.ndim - len(self.dims)], len(self.numeric))


@known
@dataclass(frozen=True, kw_only=True)
class OneHot:
    """A Discrete or MultiDiscrete of the shape `dims`: each value one-hot, side by side."""

    sizes: tuple[int, ...]
    starts: tuple[int, ...]
    dims: tuple[int, ...] = ()

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Which entries are quantities: none."""
        return (False,) * sum(self.sizes)

    @cached_property
    def _labels(self) -> Array:
        each = zip(self.starts, self.sizes, strict=True)
        return np.concatenate([np.arange(start, start + n) for start, n in each])

    @cached_property
    def _places(self) -> Array:
        return np.repeat(np.arange(len(self.sizes)), self.sizes)

    def flat(self, x: Any) -> Float[Array, "*S D"]:
        """1 at each value's place, 0 elsewhere."""
        x = as_array(x, np.int32)
        values = x.reshape(*x.shape[: x.ndim - len(self.dims)], len(self.sizes))
        return (values[..., self._places] == self._labels).astype(np.float32)


@known
@dataclass(frozen=True, kw_only=True)
class Several:
    """A Tuple, or a Dict with `names`: the parts side by side."""

    parts: tuple[Any, ...]
    names: tuple[str, ...] | None = None

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Which entries are quantities."""
        return tuple(flag for part in self.parts for flag in part.numeric)

    def flat(self, x: Any) -> Float[Array, "*S D"]:
        """The parts flattened."""
        return beside([part.flat(entry) for part, entry in self.each(x)])

    def each(self, x: Any) -> list[tuple[Any, Any]]:
        """The parts with their entries. Raises ValueError, naming it, for a part that is not there."""
        if self.names is None:
            return list(zip(self.parts, x, strict=True))
        missing = [name for name in self.names if name not in x]
        if missing:
            raise ValueError(f"the observation has no entry {missing[0]!r}: give {', '.join(self.names)}")
        return [(part, x[name]) for part, name in zip(self.parts, self.names, strict=True)]


@known
@dataclass(frozen=True, kw_only=True)
class FlatObservations(Recorded):
    """Any other observation, recorded flat, `[…, D]`; with a mask `[…, D + M]`: 1 for each option that is allowed.

    `choices` are the numbers of options of the choices that the mask narrows; M is their sum.
    """

    part: Any
    mask: MaskSource | None = None
    choices: tuple[int, ...] = ()

    dtype = np.float32

    @cached_property
    def size(self) -> int:
        """D: how many numbers the networks read."""
        return len(self.part.numeric)

    @property
    def inputs(self) -> Inputs:
        """What it offers a network."""
        return Inputs(size=self.size)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one observation as it is recorded."""
        return (self.size + sum(self.choices),)

    @cached_property
    def numeric(self) -> Bool[Array, " N"]:
        """Which entries are quantities; one-hot entries, switches and masks are not."""
        return np.array([*self.part.numeric, *(False,) * sum(self.choices)])

    @property
    def normalisable(self) -> bool:
        """Whether normalisation would change anything."""
        return bool(self.numeric.any())

    def record(self, observation: Any, allowed: Array | None = None) -> Array:
        """What the environment gave, flat; the mask `allowed`, `[…, M]`, behind it, or all 1 where nobody acts."""
        flat = self.part.flat(observation)
        return flat if self.mask is None else beside([flat, self._behind(observation, allowed, flat.shape[:-1])])

    def _behind(self, observation: Any, allowed: Array | None, lead: tuple[int, ...]) -> Array:
        """The mask, `[…, M]`, in the type of the record."""
        given = observation[KEY] if self.mask == "observation" else 1 if allowed is None else allowed
        given, shape = as_array(given, self.dtype), (*lead, sum(self.choices))
        return (jnp if is_jax_array(given) else np).broadcast_to(given, shape)

    def features(self, xp: Any, recorded: Array) -> Array:
        """What the networks read, `[…, D]`."""
        return recorded[..., : self.size]

    def allowed(self, recorded: Array) -> Bool[Array, "*S M"]:
        """Which options the mask allows."""
        return recorded[..., self.size :] > 0.5

    def stuck(self, recorded: Array) -> Bool[Array, "*S"]:
        """Whether some choice has no option left."""
        starts = np.cumsum([0, *self.choices[:-1]])
        return ~np.logical_or.reduceat(self.allowed(recorded), starts, axis=-1).all(axis=-1)
