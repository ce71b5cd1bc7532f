"""Pictures among the observations: recorded as bytes, channel last; the networks read their pixels in [0, 1]."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from array_api_compat import is_jax_array
from gymnasium import spaces
from jax import lax
from jaxtyping import Float, Num, UInt8

from vantage.control.networks import Image, Inputs
from vantage.control.observations import FlatObservations, Recorded, Several, as_array, beside
from vantage.runs.config import known

Array = Any
Channels = Literal["first", "last"]
"""Which axis of a picture holds its channels."""


@known
@dataclass(frozen=True, kw_only=True)
class Picture:
    """A Box whose entries are pixels from `low` to `high`. The axes `order` of it are height, width and channels, of
    which there may be none or several, as when colour frames are stacked.
    """

    dims: tuple[int, ...]
    order: tuple[int, ...]
    low: float = 0.0
    high: float = 255.0
    bytes: bool = True
    """Whether the pixels are uint8; otherwise they are numbers, and recorded as float32."""

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Which of its numbers are quantities, for normalisation: none."""
        return () if self.bytes else (False,) * self.size

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        height, width, *channels = (self.dims[axis] for axis in self.order)
        return height, width, int(np.prod(channels, dtype=int))

    @property
    def size(self) -> int:
        """How many pixels there are, times channels."""
        return int(np.prod(self.dims))

    @property
    def dtype(self) -> Any:
        """Of the record."""
        return np.uint8 if self.bytes else np.float32

    def pixels(self, x: Any) -> Num[Array, "*S H W C"]:
        """The picture with its channels last."""
        x = as_array(x, self.dtype)
        lead = x.ndim - len(self.dims)
        return x.transpose(*range(lead), *(lead + axis for axis in self.order)).reshape(*x.shape[:lead], *self.shape)

    def scaled(self, xp: Any, pixels: Array) -> Float[Array, "*S"]:
        """(x − low)/(high − low) in float32."""
        scale, shift = np.float32(1.0 / (self.high - self.low)), np.float32(self.low)
        pixels = pixels.astype(np.float32)
        return pixels * scale if shift == 0.0 else (pixels - shift) * scale

    def flat(self, x: Any) -> Float[Array, "*S N"]:
        """Its share of the numbers of a nested observation: none, or all pixels where they are no bytes."""
        pixels = self.pixels(x)
        flat = pixels.reshape(*pixels.shape[:-3], self.size)
        return flat[..., :0].astype(np.float32) if self.bytes else flat

    def image(self, start: int) -> Image:
        """Where it stands among the features."""
        height, width, channels = self.shape
        return Image(start=start, height=height, width=width, channels=channels)


@known
@dataclass(frozen=True, kw_only=True)
class ImageObservations(Recorded):
    """One picture: `[…, H, W, C]`, uint8 where the environment gives bytes."""

    picture: Picture

    normalisable = False
    numeric = False
    mask = None
    choices = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one observation as it is recorded."""
        return self.picture.shape

    @property
    def dtype(self) -> Any:
        """Of the record."""
        return self.picture.dtype

    @property
    def inputs(self) -> Inputs:
        """What it offers a network."""
        return Inputs(size=self.picture.size, images=(self.picture.image(0),))

    def record(self, observation: Any) -> Array:
        """What the environment gave, channel last."""
        return self.picture.pixels(observation)

    def features(self, xp: Any, recorded: Array) -> Float[Array, "*S D"]:
        """The pixels in [0, 1], row by row."""
        return self.picture.scaled(xp, recorded).reshape(*recorded.shape[:-3], self.picture.size)


@known
@dataclass(frozen=True, kw_only=True)
class PackedObservations(FlatObservations):
    """Pictures with other parts or a mask, as one row of bytes: pixels, then numbers (float32), then the mask.

    The networks read the pictures of bytes first, in [0, 1], then the numbers.
    """

    dtype = np.uint8

    @cached_property
    def pictures(self) -> tuple[Picture, ...]:
        """Those that are recorded as bytes."""
        return tuple(part for part in _leaves(self.part) if isinstance(part, Picture) and part.bytes)

    @cached_property
    def _pixels(self) -> int:
        return sum(picture.size for picture in self.pictures)

    @cached_property
    def _numbers(self) -> int:
        return len(self.part.numeric)

    @cached_property
    def size(self) -> int:
        """How many numbers the networks read."""
        return self._pixels + self._numbers

    @cached_property
    def inputs(self) -> Inputs:
        """What it offers a network."""
        images, start, behind = [], 0, self._pixels
        for part in _leaves(self.part):
            if isinstance(part, Picture):
                images.append(part.image(start if part.bytes else behind))
                start += part.size * part.bytes
            behind += len(part.numeric)
        return Inputs(size=self.size, images=tuple(sorted(images, key=lambda image: image.start)))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one observation as it is recorded, in bytes."""
        return (self._pixels + 4 * self._numbers + sum(self.choices),)

    @property
    def statistics(self) -> tuple[int, ...]:
        """The shape of the numbers of one observation."""
        return (self._numbers,)

    @cached_property
    def numeric(self) -> Array:
        """Which numbers are quantities."""
        return np.array(self.part.numeric, bool)

    def record(self, observation: Any, allowed: Array | None = None) -> UInt8[Array, "*S N"]:
        """What the environment gave, as bytes; the mask `allowed`, `[…, M]`, behind it, or all 1 where nobody acts."""
        numbers = to_bytes(self.part.flat(observation))
        pixels = [x.reshape(*numbers.shape[:-1], -1) for x in _seen(self.part, observation)]
        behind = [] if self.mask is None else [self._behind(observation, allowed, numbers.shape[:-1])]
        return beside([*pixels, numbers, *behind])

    def features(self, xp: Any, recorded: Array) -> Float[Array, "*S D"]:
        """Pixels in [0, 1], picture after picture, then the numbers."""
        parts, at = [], 0
        for picture in self.pictures:
            parts.append(picture.scaled(xp, recorded[..., at : at + picture.size]))
            at += picture.size
        return xp.concatenate([*parts, *self._unpacked(xp, self.numbers(recorded))], axis=-1)

    def numbers(self, recorded: Array) -> Float[Array, "*S Q"]:
        """What is recorded beside the pixels."""
        return to_numbers(recorded[..., self._pixels : self._pixels + 4 * self._numbers])

    def with_numbers(self, recorded: Array, numbers: Array) -> Array:
        """The record with other numbers."""
        end = self._pixels + 4 * self._numbers
        return beside([recorded[..., : self._pixels], to_bytes(numbers), recorded[..., end:]])

    def allowed(self, recorded: Array) -> Any:
        """Which options the mask allows."""
        return recorded[..., self._pixels + 4 * self._numbers :] > 0

    def _unpacked(self, xp: Any, numbers: Array) -> Iterator[Array]:
        """The numbers, those of pictures scaled."""
        at = 0
        for part in _leaves(self.part):
            n = len(part.numeric)
            x = numbers[..., at : at + n]
            yield part.scaled(xp, x) if isinstance(part, Picture) else x
            at += n


def to_bytes(numbers: Float[Array, "*S N"]) -> UInt8[Array, "*S M"]:
    """Four bytes for each float32, M = 4N."""
    if is_jax_array(numbers):
        return lax.bitcast_convert_type(numbers, np.uint8).reshape(*numbers.shape[:-1], -1)
    return np.ascontiguousarray(numbers, np.float32).view(np.uint8)


def to_numbers(packed: UInt8[Array, "*S M"]) -> Float[Array, "*S N"]:
    """The inverse of `to_bytes`."""
    if is_jax_array(packed):
        return lax.bitcast_convert_type(packed.reshape(*packed.shape[:-1], packed.shape[-1] // 4, 4), np.float32)
    return np.ascontiguousarray(packed).view(np.float32)


def _leaves(part: Any) -> Iterator[Any]:
    """The parts of a nested observation that are not nested."""
    if isinstance(part, Several):
        for inner in part.parts:
            yield from _leaves(inner)
    else:
        yield part


def _seen(part: Any, x: Any) -> Iterator[Array]:
    """The pixels of the pictures of bytes, in order."""
    if isinstance(part, Several):
        for inner, entry in part.each(x):
            yield from _seen(inner, entry)
    elif isinstance(part, Picture) and part.bytes:
        yield part.pixels(x)


def has_pictures(part: Any) -> bool:
    """Whether one of the parts is a picture."""
    return any(isinstance(leaf, Picture) for leaf in _leaves(part))


def picture(space: spaces.Box, channels: Channels | None = None) -> Picture | None:
    """The picture that a Box is, or None: one of uint8 with two, three or four axes, or of floats with three or four,
    and with the same finite bounds throughout.

    With four axes the first counts stacked frames. Channels are the smaller one of the first and the last axis of a
    frame unless `channels` says which; the last one where they are equal.
    """
    n, low, high = len(space.shape), np.min(space.low), np.max(space.high)
    bytes = space.dtype == np.uint8
    fit = n in (2, 3, 4) if bytes else n in (3, 4) and np.issubdtype(space.dtype, np.floating)
    if not fit or not np.isfinite([low, high]).all() or low == high:
        return None
    if (space.low != low).any() or (space.high != high).any():
        return None
    stacked, axes = tuple(range(n - 3)), tuple(range(max(n - 3, 0), n))
    if n > 2:
        first = channels == "first" or (channels is None and space.shape[axes[0]] < space.shape[axes[-1]])
        axes = (*axes[1:], *stacked, axes[0]) if first else (*axes[:2], *stacked, axes[-1])
    return Picture(dims=space.shape, order=axes, low=float(low), high=float(high), bytes=bytes)
