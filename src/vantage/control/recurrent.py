"""Networks that remember: LSTM and GRU, with one array of hidden state that is carried from row to row.

A state is flat, `[B, S]`: layer after layer, of an LSTM (h, c) each, of a GRU h. It is 0 where an episode begins. The
forward pass is array-API code, so that acting needs NumPy only.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool, Float

from vantage.control.networks import (
    MLP,
    Batched,
    Divisible,
    Inputs,
    Network,
    critic_of,
    forward,
    host_forward,
    orthogonal,
)
from vantage.recipe import check
from vantage.recipe.schedule import check_type, check_whole
from vantage.runs.config import known

Array = Any
Step = Callable[[Any, Any], tuple[Any, Any]]
"""(x `[B, D]`, state `[B, S]`) → (out `[B, O]`, state `[B, S]`)."""


class Memory(NamedTuple):
    """What a recurrent policy needs to know of rows `[T, B]` besides their observations."""

    carry: Float[Array, "B C"]
    """The state before row 0."""
    begins: Bool[Array, "T B"]
    """The row is the first of an episode: its state before is 0."""
    mask: Bool[Array, "T B"]
    """A real decision; other rows leave the state as it is."""


def sigmoid(xp: Any, x: Any) -> Any:
    """σ(x) = (1 + tanh(x/2))/2, which does not overflow."""
    return 0.5 * (1.0 + xp.tanh(0.5 * x))


def lstm(xp: Any, z: Any, state: Any, weight: Any, bias: Any) -> Any:
    """The next (h, c) of an LSTM whose input says z = xW + b.

        i, f, g, o = z + hU,   c′ = σ(f)·c + σ(i)·tanh(g),   h′ = σ(o)·tanh(c′)

    Shapes: z `[…, 4H]`, state `[…, 2H]`, U `[H, 4H]`; `bias` is there for the GRU's sake.
    Source: Hochreiter & Schmidhuber (1997), Gers et al. (2000); gates in PyTorch's order.
    """
    n = weight.shape[0]
    gates = z + state[..., :n] @ weight
    kept = sigmoid(xp, gates[..., n : 2 * n]) * state[..., n:]
    cell = kept + sigmoid(xp, gates[..., :n]) * xp.tanh(gates[..., 2 * n : 3 * n])
    return xp.concatenate([sigmoid(xp, gates[..., 3 * n :]) * xp.tanh(cell), cell], axis=-1)


def gru(xp: Any, z: Any, state: Any, weight: Any, bias: Any) -> Any:
    """The next h of a GRU whose input says z = xW + b.

        r = σ(z_r + hU_r),   u = σ(z_u + hU_u),   n = tanh(z_n + r·(hU_n + b_n)),   h′ = (1 − u)·n + u·h

    Shapes: z `[…, 3H]`, state `[…, H]`, U `[H, 3H]`, b_n `[H]`. Source: Cho et al. (2014), in PyTorch's form and order.
    """
    n = weight.shape[0]
    own = state @ weight
    reset, keep = (sigmoid(xp, z[..., k : k + n] + own[..., k : k + n]) for k in (0, n))
    new = xp.tanh(z[..., 2 * n :] + reset * (own[..., 2 * n :] + bias))
    return new + keep * (state - new)


CELLS = {"lstm": (lstm, 4, 2), "gru": (gru, 3, 1)}
"""By kind: the step, how many H wide its gates are, and how many H wide its state."""


class Layer(eqx.Module):
    """One recurrent layer, `[…, D]` → `[…, H]`."""

    inward: Float[Array, "D G"]
    inward_bias: Float[Array, " G"]
    onward: Float[Array, "H G"]
    onward_bias: Float[Array, " H"] | None
    kind: str = eqx.field(static=True)

    @property
    def width(self) -> int:
        """H."""
        return self.onward.shape[0]

    @property
    def state_size(self) -> int:
        """How many numbers it keeps."""
        return CELLS[self.kind][2] * self.width

    def read(self, x: Any) -> Any:
        """z = xW + b, of all rows at once."""
        return x @ self.inward + self.inward_bias

    def next(self, xp: Any, z: Any, state: Any) -> Any:
        """The state after one row."""
        return CELLS[self.kind][0](xp, z, state, self.onward, self.onward_bias)


class Recurrent(eqx.Module):
    """Encoder, recurrent layers and head; encoder and head may be missing."""

    encoder: Any
    layers: tuple[Layer, ...]
    head: Any

    @property
    def state_size(self) -> int:
        """S: how many numbers it keeps."""
        return sum(layer.state_size for layer in self.layers)

    def scan(self, x: Float[Array, "T B D"], memory: Memory) -> tuple[Float[Array, "T B O"], Float[Array, "T B S"]]:
        """Row after row from `memory.carry`: outputs, and the state after each row."""
        x, states = _through(self.encoder, x), []
        for layer, carry in zip(self.layers, self._split(memory.carry), strict=True):
            states.append(_scan(layer, layer.read(x), memory._replace(carry=carry)))
            x = states[-1][..., : layer.width]
        return _through(self.head, x), jnp.concatenate(states or [x[..., :0]], axis=-1)

    def step(self, x: Float[Array, "*B D"], state: Float[Array, "*B S"]) -> tuple[Any, Any]:
        """One row of each of any number of columns, side by side."""
        return self._step(jnp, _through, x, state)

    def on_host(self) -> Step:
        """`step` of NumPy arrays, by NumPy alone; the leaves are NumPy arrays that nobody changes."""
        ends = {id(part): host_forward(part) for part in (self.encoder, self.head) if part is not None}
        return lambda x, state: self._step(np, lambda part, y: y if part is None else ends[id(part)](y), x, state)

    def _step(self, xp: Any, through: Any, x: Any, state: Any) -> tuple[Any, Any]:
        x, states = through(self.encoder, x), []
        for layer, before in zip(self.layers, self._split(state), strict=True):
            states.append(layer.next(xp, layer.read(x), before))
            x = states[-1][..., : layer.width]
        return through(self.head, x), states[0] if len(states) == 1 else xp.concatenate(states or [state], axis=-1)

    def _split(self, state: Any) -> list[Any]:
        """The state of each layer."""
        ends = np.cumsum([layer.state_size for layer in self.layers]).tolist()
        return [state[..., end - layer.state_size : end] for layer, end in zip(self.layers, ends, strict=True)]


class Detached(Batched):
    """A head whose loss does not reach what is below it."""

    head: Any

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B O"]:
        return forward(self.head, lax.stop_gradient(x))


def _through(part: Any, x: Any) -> Any:
    return x if part is None else forward(part, x)


def _scan(layer: Layer, z: Float[Array, "T B G"], memory: Memory) -> Float[Array, "T B S"]:
    def row(state: Array, now: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        z, begins, real = now
        state = jnp.where(begins[:, None], 0.0, state)
        state = jnp.where(real[:, None], layer.next(jnp, z, state), state)
        return state, state

    return lax.scan(row, memory.carry.astype(z.dtype), (z, memory.begins, memory.mask))[1]


def along(module: Any, x: Float[Array, "*S D"], memory: Memory | None) -> tuple[Any, Any]:
    """Any module, or none, over rows: outputs, and the state after each row, `[T, B, 0]` of one that keeps none."""
    if memory is not None and isinstance(module, Recurrent):
        return module.scan(x, memory)
    return _through(module, x), x[..., :0]


def once(module: Any, x: Float[Array, "*B D"], state: Float[Array, "*B S"]) -> tuple[Any, Any]:
    """Any module, or none, on one row."""
    return module.step(x, state) if isinstance(module, Recurrent) else (_through(module, x), state)


def host_step(module: Any) -> Step:
    """`once` for NumPy arrays."""
    if isinstance(module, Recurrent):
        return module.on_host()
    if module is None:
        return lambda x, state: (x, state)
    through = host_forward(module)
    return lambda x, state: (through(x), state)


def state_size(module: Any) -> int:
    """How many numbers a module keeps from row to row."""
    return module.state_size if isinstance(module, Recurrent) else 0


@dataclass(frozen=True, kw_only=True)
class Remembering:
    """What LSTM and GRU have in common."""

    hidden: int = 256
    """H, units of each recurrent layer."""
    layers: int = 1
    """How many recurrent layers there are."""
    before: Divisible | None = None
    """What reads the observation first, such as MLP(hidden=(64,)) or a CNN; None: the recurrent layer itself."""
    after: Network = MLP()  # noqa: RUF009 (frozen)
    """What stands between the recurrent layers and the outputs; MLP(hidden=()) for a linear head alone."""
    shared: bool = False
    """Whether actor and critic have the recurrent layers, and what is before them, in common."""
    critic_remembers: bool = True
    """Whether the critic has recurrent layers, too; False: only what is before and after them."""
    detached: bool = False
    """With `shared`: whether the critic's loss leaves what is shared alone."""
    sequence_length: int | None = None
    """Rows of a training sequence, through which the gradient flows back; it begins from the state that was there.
    None: the whole rollout.
    """

    def __post_init__(self) -> None:
        check_whole(self, "hidden", "layers")
        check(self.hidden >= 1, self, "hidden", "at least one unit")
        check(self.layers >= 1, self, "layers", "at least one layer")
        plain = isinstance(self.before, Divisible) and not isinstance(self.before, Remembering)
        check_type(self.before is None or plain, self, "before", "MLP(hidden=…), a CNN or None")
        plain = isinstance(self.after, Network) and not isinstance(self.after, Remembering)
        check_type(plain, self, "after", "a network such as MLP()")
        own = self.critic_remembers or not self.shared
        check(own, self, "critic_remembers", "the recurrent layers are shared; set shared=False, or leave it out")
        check(self.shared or not self.detached, self, "detached", "nothing is shared; set shared=True, or leave it out")
        fits = self.sequence_length is None or (isinstance(self.sequence_length, int) and self.sequence_length >= 1)
        check(fits, self, "sequence_length", "at least one row, or None for the whole rollout")

    @property
    def critic(self) -> "Remembering | Valuing":
        """What the critic is built by."""
        own = replace(self, before=critic_of(self.before), after=critic_of(self.after))
        return own if self.critic_remembers and not self.detached else Valuing(of=own)

    def build(self, rng: np.random.Generator, inputs: Inputs, outputs: int, gain: float) -> Recurrent:
        """Everything from the observation to the outputs."""
        encoder, n = (None, inputs.size) if self.before is None else self.before.build_trunk(rng, inputs)
        layers, head = self._layers(rng, n), self.after.build(rng, Inputs(size=self.hidden), outputs, gain)
        return Recurrent(encoder, layers, head)

    def build_trunk(self, rng: np.random.Generator, inputs: Inputs) -> tuple[Any, int]:
        """What actor and critic share: all but the heads, or only what is before the recurrent layers."""
        encoder, n = (None, inputs.size) if self.before is None else self.before.build_trunk(rng, inputs)
        return (Recurrent(encoder, self._layers(rng, n), None), self.hidden) if self.shared else (encoder, n)

    def build_head(self, rng: np.random.Generator, features: int, outputs: int, gain: float) -> Any:
        """What is the actor's or the critic's own."""
        if self.shared:
            return self.after.build(rng, Inputs(size=features), outputs, gain)
        head = self.after.build(rng, Inputs(size=self.hidden), outputs, gain)
        return Recurrent(None, self._layers(rng, features), head)

    def _layers(self, rng: np.random.Generator, inputs: int) -> tuple[Layer, ...]:
        """Orthogonal weights of gain 1, biases 0."""
        kind = type(self).__name__.lower()
        gates, bias = CELLS[kind][1] * self.hidden, None if kind == "lstm" else np.zeros(self.hidden, np.float32)
        return tuple(
            Layer(orthogonal(rng, n, gates, 1.0), np.zeros(gates, np.float32),
                  orthogonal(rng, self.hidden, gates, 1.0), bias, kind)
            for n in (inputs, *(self.hidden,) * (self.layers - 1))
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Valuing:
    """The critic of a recurrent network that does not remember, or whose loss leaves what is shared alone."""

    of: Remembering

    def build(self, rng: np.random.Generator, inputs: Inputs, outputs: int, gain: float) -> Recurrent:
        """What is before and after the recurrent layers."""
        encoder, n = (None, inputs.size) if self.of.before is None else self.of.before.build_trunk(rng, inputs)
        return Recurrent(encoder, (), self.of.after.build(rng, Inputs(size=n), outputs, gain))

    def build_head(self, rng: np.random.Generator, features: int, outputs: int, gain: float) -> Any:
        """What stands on what is shared."""
        head = self.of.after.build(rng, Inputs(size=features), outputs, gain)
        return Detached(head) if self.of.detached else head


@known
@dataclass(frozen=True, kw_only=True)
class LSTM(Remembering):
    """Long short-term memory, for environments that show only a part of their state."""


@known
@dataclass(frozen=True, kw_only=True)
class GRU(Remembering):
    """Gated recurrent units: three quarters of an LSTM's parameters, and half its state."""
