"""Networks: small perceptrons whose forward pass is one function for NumPy and JAX arrays."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from vantage.recipe import check
from vantage.runs.config import known

Array = Any
Activation = Literal["tanh", "relu", "silu"]

ACTIVATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "tanh": lambda xp, x: xp.tanh(x),
    "relu": lambda xp, x: xp.maximum(x, 0),
    "silu": lambda xp, x: x / (1 + xp.exp(-x)),
}


@runtime_checkable
class Network(Protocol):
    """How to build the function from features `[D]` to outputs `[O]`.

    Implement it as a frozen dataclass, decorated with `runs.known` if agents that use it are to be saved.

    `build` returns any pytree that is callable. One that maps a single vector, as Equinox modules do, is mapped over
    the batch.
    """

    def build(self, rng: np.random.Generator, inputs: int, outputs: int, gain: float) -> Callable[..., Any]: ...


class Tower(eqx.Module):
    """A perceptron that takes batches, `[…, D]` → `[…, O]`; W is `[in, out]`, so NumPy leaves work as well as JAX
    ones.
    """

    weights: tuple[Any, ...]
    biases: tuple[Any, ...]
    activation: str = eqx.field(static=True)

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B O"]:
        return perceptron(jnp, ACTIVATIONS[self.activation], self.layers, x)

    @property
    def layers(self) -> list[tuple[Any, Any]]:
        """The pairs (W, b)."""
        return list(zip(self.weights, self.biases, strict=True))


def perceptron(xp: Any, activation: Callable[[Any, Any], Any], layers: list[tuple[Any, Any]], x: Any) -> Any:
    """h ← f(hW + b) through all layers but the last, which is linear. `xp` is numpy or jax.numpy."""
    for weight, bias in layers[:-1]:
        x = activation(xp, x @ weight + bias)
    weight, bias = layers[-1]
    return x @ weight + bias


@known
@dataclass(frozen=True, kw_only=True)
class MLP:
    """A perceptron with orthogonal initialisation: gain √2 inside, `gain` at the head; biases 0."""

    hidden: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers."""
    activation: Activation = "tanh"
    """What follows each hidden layer."""

    def __post_init__(self) -> None:
        check(all(width >= 1 for width in self.hidden), self, "hidden", "each layer needs at least one unit")
        check(self.activation in ACTIVATIONS, self, "activation", f"choose one of {', '.join(ACTIVATIONS)}")

    def build(self, rng: np.random.Generator, inputs: int, outputs: int, gain: float) -> Tower:
        """The tower with fresh weights, float32."""
        sizes = (inputs, *self.hidden, outputs)
        gains = (np.sqrt(2.0),) * len(self.hidden) + (gain,)
        weights = tuple(orthogonal(rng, m, n, g) for m, n, g in zip(sizes[:-1], sizes[1:], gains, strict=True))
        return Tower(weights, tuple(np.zeros(n, np.float32) for n in sizes[1:]), self.activation)


def orthogonal(rng: np.random.Generator, rows: int, columns: int, gain: float) -> Float[Array, "M N"]:
    """A random matrix with orthonormal rows or columns, whichever are fewer, times `gain`; uniform by Haar.

    Source: Saxe et al. (2014).
    """
    tall = rng.standard_normal((max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(tall)
    q = q * np.sign(np.diag(r))
    return (gain * (q if rows >= columns else q.T)).astype(np.float32)


def forward(module: Any, x: Float[Array, "*B D"]) -> Float[Array, "*B O"]:
    """A module on a batch with any leading shape; one that is not a `Tower` maps single vectors."""
    if isinstance(module, Tower):
        return module(x)
    rows = x.reshape(-1, x.shape[-1])
    out = jax.vmap(module)(rows)
    return out.reshape(*x.shape[:-1], -1)


def host_forward(module: Any) -> Callable[[Any], Any]:
    """The forward pass for acting, on NumPy arrays `[B, D]`: NumPy itself for a `Tower`, else jitted JAX (said once).

    The module's leaves must be NumPy arrays that nobody changes. Both ways agree to 1e-5.
    """
    if isinstance(module, Tower):
        layers, activation = module.layers, ACTIVATIONS[module.activation]
        return lambda x: perceptron(np, activation, layers, x)
    _say_once(type(module).__name__)
    return lambda x: np.asarray(_jitted_forward(module, x))


@eqx.filter_jit
def _jitted_forward(module: Any, x: Any) -> Any:
    return forward(module, x)


_said: set[str] = set()


def _say_once(name: str) -> None:
    if name not in _said:
        _said.add(name)
        warnings.warn(
            f"{name} is not a vantage Tower, so the collector acts through a jitted call (about 100 µs), not NumPy",
            stacklevel=3,
        )
