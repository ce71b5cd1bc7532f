"""Convolutional networks for pictures; the convolution is made of matrix products, because XLA's own is slow on a CPU:
1.5 times with a stride, and 13 times within a loop, where it may not use its quick code.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float

from vantage.control.networks import MLP, Batched, Image, Inputs, Tower, orthogonal, tower
from vantage.recipe import check
from vantage.runs.config import known

Array = Any
CHUNK = 256
"""So many pictures pass through a network at once: more are no faster, and take more memory."""
LARGE = 36
"""The height and width from which on NatureCNN suits a picture: of 36 × 36 its three layers leave one place."""


def convolve(x: Float[Array, "N H W C"], weight: Float[Array, "K L C O"], stride: int) -> Float[Array, "N P Q O"]:
    """Cross-correlation without padding, with the stride s both ways.

        y[n, p, q, o] = Σ_{i, j, c} x[n, ps + i, qs + j, c] · w[i, j, c, o],   P = ⌊(H − K)/s⌋ + 1, Q likewise

    Blocks of s × s pixels become channels of one pixel, so that a kernel of stride 1 and ⌈K/s⌉ × ⌈L/s⌉ is left.
    """
    (height, width), kernel, s = x.shape[1:3], weight.shape[:2], stride
    p, q, (deep, wide) = places(height, kernel[0], s), places(width, kernel[1], s), (-(-k // s) for k in kernel)
    if s > 1:
        x = _blocks(_sized(_sized(x, 1, s * (p + deep - 1)), 2, s * (q + wide - 1)), s)
        filled = _sized(_sized(weight, 0, s * deep), 1, s * wide)
        weight = _blocks(filled.transpose(3, 0, 1, 2), s).transpose(1, 2, 3, 0)
    columns = jnp.concatenate([x[:, :, j : j + q] for j in range(weight.shape[1])], axis=-1)
    rows = weight.reshape(len(weight), -1, weight.shape[-1])
    return sum(columns[:, i : i + p] @ kernel for i, kernel in enumerate(rows))  # type: ignore[return-value]


def places(size: int, kernel: int, stride: int) -> int:
    """How many places a kernel has along an axis."""
    return (size - kernel) // stride + 1


def _sized(x: Array, axis: int, size: int) -> Array:
    """An axis cut, or filled up with zeros, to a size."""
    if x.shape[axis] >= size:
        return lax.slice_in_dim(x, 0, size, axis=axis)
    return jnp.pad(x, [(0, size - n if i == axis else 0) for i, n in enumerate(x.shape)])


def _blocks(x: Float[Array, "N H W C"], s: int) -> Float[Array, "N P Q D"]:
    """Each block of s × s pixels as the s²C channels of one."""
    n, height, width, channels = x.shape
    cut = x.reshape(n, height // s, s, width // s, s, channels)
    return cut.transpose(0, 1, 3, 2, 4, 5).reshape(n, height // s, width // s, s * s * channels)


class Eye(Batched):
    """Convolutions over one picture, ReLU after each, and one layer of features upon them."""

    kernels: tuple[Any, ...]
    biases: tuple[Any, ...]
    dense: Tower
    strides: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, x: Float[Array, "N H W C"]) -> Float[Array, "N F"]:
        for weight, bias, stride in zip(self.kernels, self.biases, self.strides, strict=True):
            x = jnp.maximum(convolve(x, weight, stride) + bias, 0)
        return self.dense(x.reshape(len(x), -1))


class Sight(Batched):
    """Pictures by convolutions, other features by a perceptron, side by side; and a head, if it is no trunk."""

    eyes: tuple[Eye, ...]
    rest: Tower | None
    head: Tower | None
    images: tuple[Image, ...] = eqx.field(static=True)

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B O"]:
        rows = x.reshape(-1, x.shape[-1])
        parts = -(-len(rows) // CHUNK)
        if parts <= 1:
            out = self._rows(rows)
        else:
            each = -(-len(rows) // parts)
            chunks = _sized(rows, 0, parts * each).reshape(parts, each, -1)
            out = lax.map(self._rows, chunks).reshape(parts * each, -1)[: len(rows)]
        return out.reshape(*x.shape[:-1], out.shape[-1])

    def on_host(self) -> Callable[[Any], Any]:
        """The jitted call; the parameters are handed to JAX once."""
        return Batched.on_host(jax.tree.map(jnp.asarray, self))

    def _rows(self, x: Float[Array, "N D"]) -> Float[Array, "N O"]:
        parts = [eye(_cut(x, image)) for eye, image in zip(self.eyes, self.images, strict=True)]
        others = _others(x, self.images)
        parts.append(others if self.rest is None else self.rest(others))
        features = jnp.concatenate(parts, axis=-1)
        return features if self.head is None else self.head(features)


def _cut(x: Float[Array, "N D"], image: Image) -> Float[Array, "N H W C"]:
    pixels = x[:, image.start : image.start + image.size]
    return pixels.reshape(len(x), image.height, image.width, image.channels)


def _others(x: Float[Array, "N D"], images: tuple[Image, ...]) -> Float[Array, "N R"]:
    """The features that belong to no picture."""
    starts = [0, *(image.start + image.size for image in images)]
    ends = [*(image.start for image in images), x.shape[-1]]
    return jnp.concatenate([x[:, i:j] for i, j in zip(starts, ends, strict=True)], axis=-1)


@known
@dataclass(frozen=True, kw_only=True)
class NatureCNN:
    """The convolutional network of Mnih et al. (2015), with ReLU and orthogonal initialisation of gain √2, biases 0.

    Each picture has convolutions of its own; other features go through a perceptron; all features stand side by side
    under the heads. A kernel is at most as large as what it is applied to, so that a picture of any size will do.
    """

    features: int = 512
    """Units of the layer upon the convolutions of each picture."""
    shared: bool = True
    """Whether actor and critic have everything but their heads in common."""
    channels: tuple[int, ...] = (32, 64, 64)
    """Of each convolution."""
    kernels: tuple[int, ...] = (8, 4, 3)
    """Height and width of each kernel, in pixels."""
    strides: tuple[int, ...] = (4, 2, 1)
    """How far apart, in pixels, the places of each kernel are."""
    beside: tuple[int, ...] = (64,)
    """Hidden layers for what is no picture."""

    def __post_init__(self) -> None:
        check(self.features >= 1, self, "features", "at least one unit")
        check(len(self.channels) >= 1, self, "channels", "at least one convolution")
        for name in ("channels", "kernels", "strides", "beside"):
            check(all(x >= 1 for x in getattr(self, name)), self, name, "each number is at least 1")
        for name in ("kernels", "strides"):
            same = len(getattr(self, name)) == len(self.channels)
            check(same, self, name, f"one number for each of the {len(self.channels)} convolutions in channels")

    def build(self, rng: np.random.Generator, inputs: Inputs, outputs: int, gain: float) -> Sight:
        """Convolutions, features and head with fresh weights, float32."""
        trunk, n = self.build_trunk(rng, inputs)
        return Sight(trunk.eyes, trunk.rest, self.build_head(rng, n, outputs, gain), trunk.images)

    def build_trunk(self, rng: np.random.Generator, inputs: Inputs) -> tuple[Sight, int]:
        """Everything but the head. Raises ValueError for observations without a picture."""
        if not inputs.images:
            raise ValueError(f"network = {type(self).__name__}: the observation holds no picture; use MLP()")
        others = inputs.size - sum(image.size for image in inputs.images)
        rest, n = None, self.features * len(inputs.images)
        eyes = tuple(self._eye(rng, image) for image in inputs.images)
        if others and self.beside:
            rest = tower(rng, (others, *self.beside), "relu", np.sqrt(2.0), linear_end=False)
        width = 0 if not others else self.beside[-1] if self.beside else others
        return Sight(eyes, rest, None, inputs.images), n + width

    def build_head(self, rng: np.random.Generator, features: int, outputs: int, gain: float) -> Tower:
        """One linear layer."""
        return tower(rng, (features, outputs), "relu", gain)

    def _eye(self, rng: np.random.Generator, image: Image) -> Eye:
        height, width, depth, kernels = image.height, image.width, image.channels, []
        for channels, kernel, stride in zip(self.channels, self.kernels, self.strides, strict=True):
            k, m = min(kernel, height), min(kernel, width)
            kernels.append(orthogonal(rng, k * m * depth, channels, np.sqrt(2.0)).reshape(k, m, depth, channels))
            height, width, depth = places(height, k, stride), places(width, m, stride), channels
        biases = tuple(np.zeros(channels, np.float32) for channels in self.channels)
        dense = tower(rng, (height * width * depth, self.features), "relu", np.sqrt(2.0), linear_end=False)
        return Eye(tuple(kernels), biases, dense, self.strides)


@known
@dataclass(frozen=True, kw_only=True)
class SmallCNN(NatureCNN):
    """The same with smaller kernels and no stride, which would lose where things are: for pictures of a few pixels,
    such as those of MiniGrid (7 × 7).
    """

    features: int = 128
    channels: tuple[int, ...] = (16, 32)
    kernels: tuple[int, ...] = (3, 3)
    strides: tuple[int, ...] = (1, 1)


def fitting(inputs: Inputs, shared: bool = True) -> MLP | NatureCNN:
    """The network that suits what an observation offers: MLP() without pictures, NatureCNN where all are at least 36 ×
    36, else SmallCNN; these with a shared trunk if it may be.
    """
    if not inputs.images:
        return MLP()
    large = all(min(image.height, image.width) >= LARGE for image in inputs.images)
    return (NatureCNN if large else SmallCNN)(shared=shared)
