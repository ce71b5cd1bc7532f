"""Networks: small perceptrons whose forward pass is one function for NumPy and JAX arrays."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
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


@dataclass(frozen=True, kw_only=True)
class Image:
    """A picture among the features: the entries from `start` on are its pixels in [0, 1], row by row, channel last."""

    start: int
    height: int
    width: int
    channels: int

    @property
    def size(self) -> int:
        """How many features it takes."""
        return self.height * self.width * self.channels


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What an observation offers a network: one vector of `size` features, some of which are pictures."""

    size: int
    images: tuple[Image, ...] = ()


@runtime_checkable
class Network(Protocol):
    """How to build the function from features `[D]` to outputs `[O]`; D is `inputs.size`.

    Implement it as a frozen dataclass, decorated with `runs.known` if agents that use it are to be saved.

    `build` returns any pytree that is callable. One that maps a single vector, as Equinox modules do, is mapped over
    the batch. Where there is a property `critic`, another network, the critic is built by that.
    """

    def build(self, rng: np.random.Generator, inputs: Inputs, outputs: int, gain: float) -> Callable[..., Any]: ...


@runtime_checkable
class Divisible(Network, Protocol):
    """A network made of a trunk, which turns an observation into features, and a head upon it.

    With `shared` actor and critic have one trunk between them.
    """

    @property
    def shared(self) -> bool: ...

    def build_trunk(self, rng: np.random.Generator, inputs: Inputs) -> tuple[Callable[..., Any], int]:
        """The trunk, and how many features it gives."""
        ...

    def build_head(self, rng: np.random.Generator, features: int, outputs: int, gain: float) -> Callable[..., Any]:
        """What stands on the trunk."""
        ...


def shares(network: Any) -> bool:
    """Whether actor and critic have something in common: the network's trunk, or what a recurrent one has before it."""
    return isinstance(network, Divisible) and (network.shared or shares(getattr(network, "before", None)))


def critic_of(network: Any) -> Any:
    """What the critic is built by: the network's own `critic` where it has one, else the network itself."""
    own = getattr(network, "critic", None)
    return own if isinstance(own, Network) else network


class Batched(eqx.Module):
    """A module that maps batches with any leading shape itself, `[…, D]` → `[…, O]`."""

    def on_host(self) -> Callable[[Any], Any]:
        """The same function of NumPy arrays `[B, D]`, for acting; the leaves are NumPy arrays that nobody changes."""
        return lambda x: np.asarray(_jitted_forward(self, x))


class Tower(Batched):
    """A perceptron; W is `[in, out]`, so NumPy leaves work as well as JAX ones."""

    weights: tuple[Any, ...]
    biases: tuple[Any, ...]
    activation: str = eqx.field(static=True)
    linear_end: bool = eqx.field(static=True, default=True)
    """Whether nothing follows the last layer, as in a head."""

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B O"]:
        out = perceptron(jnp, ACTIVATIONS[self.activation], self.layers, x)
        return out if self.linear_end else ACTIVATIONS[self.activation](jnp, out)

    def on_host(self) -> Callable[[Any], Any]:
        """NumPy throughout."""
        layers, activation = self.layers, ACTIVATIONS[self.activation]
        if self.linear_end:
            return lambda x: perceptron(np, activation, layers, x)
        return lambda x: activation(np, perceptron(np, activation, layers, x))

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
    """A perceptron; its weights begin orthogonal with gain √2 inside and `gain` at the head, its biases at 0."""

    hidden: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers."""
    critic_hidden: tuple[int, ...] | None = None
    """Widths of the critic's hidden layers; None: as the actor's."""
    activation: Activation = "tanh"
    """What follows each hidden layer."""
    shared: bool = False
    """Whether actor and critic have all hidden layers in common."""
    orthogonal: bool = True
    """Whether weights begin orthogonal; else weights and biases are uniform in ±1/√(inputs of the layer)."""

    def __post_init__(self) -> None:
        for name in ("hidden", "critic_hidden"):
            fits = all(width >= 1 for width in getattr(self, name) or ())
            check(fits, self, name, "each layer needs at least one unit")
        own = self.critic_hidden is None or not self.shared
        check(own, self, "critic_hidden", "the critic's layers are the actor's; set shared=False, or leave it out")
        check(self.activation in ACTIVATIONS, self, "activation", f"choose one of {', '.join(ACTIVATIONS)}")

    @property
    def critic(self) -> "MLP":
        """What the critic is built by."""
        hidden = self.hidden if self.critic_hidden is None else self.critic_hidden
        return replace(self, hidden=hidden, critic_hidden=None)

    def build(self, rng: np.random.Generator, inputs: Inputs, outputs: int, gain: float) -> Tower:
        """The tower with fresh weights, float32."""
        return self._tower(rng, (inputs.size, *self.hidden, outputs), gain)

    def build_trunk(self, rng: np.random.Generator, inputs: Inputs) -> tuple[Tower, int]:
        """The hidden layers."""
        check(len(self.hidden) > 0, self, "hidden", "a shared perceptron needs a hidden layer")
        sizes = (inputs.size, *self.hidden)
        return self._tower(rng, sizes, np.sqrt(2.0), linear_end=False), sizes[-1]

    def build_head(self, rng: np.random.Generator, features: int, outputs: int, gain: float) -> Tower:
        """One linear layer."""
        return self._tower(rng, (features, outputs), gain)

    def _tower(self, rng: np.random.Generator, sizes: tuple[int, ...], gain: float, linear_end: bool = True) -> Tower:
        if self.orthogonal:
            return tower(rng, sizes, self.activation, gain, linear_end)
        return Tower(*uniform(rng, sizes), self.activation, linear_end)


def uniform(rng: np.random.Generator, sizes: tuple[int, ...]) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """Weights and biases of each layer, uniform in ±1/√(its inputs): how PyTorch begins."""
    pairs = [(m, n, 1.0 / np.sqrt(m)) for m, n in pairwise(sizes)]
    weights = tuple(rng.uniform(-k, k, (m, n)).astype(np.float32) for m, n, k in pairs)
    return weights, tuple(rng.uniform(-k, k, n).astype(np.float32) for _, n, k in pairs)


def tower(
    rng: np.random.Generator, sizes: tuple[int, ...], activation: str, gain: float, linear_end: bool = True
) -> Tower:
    """A perceptron of these widths with orthogonal weights: gain √2, and `gain` in the last layer; biases 0."""
    gains = (np.sqrt(2.0),) * (len(sizes) - 2) + (gain,)
    weights = tuple(orthogonal(rng, m, n, g) for m, n, g in zip(sizes[:-1], sizes[1:], gains, strict=True))
    return Tower(weights, tuple(np.zeros(n, np.float32) for n in sizes[1:]), activation, linear_end)


def orthogonal(rng: np.random.Generator, rows: int, columns: int, gain: float) -> Float[Array, "M N"]:
    """A random matrix with orthonormal rows or columns, whichever are fewer, times `gain`; uniform by Haar.

    Source: Saxe et al. (2014).
    """
    tall = rng.standard_normal((max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(tall)
    q = q * np.sign(np.diag(r))
    return (gain * (q if rows >= columns else q.T)).astype(np.float32)


def forward(module: Any, x: Float[Array, "*B D"]) -> Float[Array, "*B O"]:
    """A module on a batch with any leading shape; one that is not `Batched` maps single vectors."""
    if isinstance(module, Batched):
        return module(x)  # type: ignore[operator]
    rows = x.reshape(-1, x.shape[-1])
    out = jax.vmap(module)(rows)
    return out.reshape(*x.shape[:-1], -1)


def host_forward(module: Any) -> Callable[[Any], Any]:
    """The forward pass for acting, on NumPy arrays `[B, D]`: the module's own if it is `Batched`, else jitted JAX (said
    once).

    The module's leaves must be NumPy arrays that nobody changes. Both ways agree to 1e-5.
    """
    if isinstance(module, Batched):
        return module.on_host()
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
            f"{name} is no vantage.control.networks.Batched: the collector acts through a jitted call (about 100 µs), "
            "not NumPy",
            stacklevel=3,
        )
