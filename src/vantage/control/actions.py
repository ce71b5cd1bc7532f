"""Action spaces: the distribution over them, how the record keeps an action, and what the environment gets.

The record keeps one array however nested the space is; a nested one's parts lie side by side in it.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from vantage.runs.config import known
from vantage.theory._array import namespace
from vantage.theory.distributions import Bernoulli, Categorical, DiagonalGaussian, Product, SquashedGaussian

Array = Any


@known
@dataclass(frozen=True, kw_only=True)
class DiscreteActions:
    """Discrete(n): a categorical policy; recorded actions count from 0."""

    n: int
    start: int = 0

    shape = ()
    dtype = np.int32
    stds = 0
    n_parameters = 1

    @property
    def outputs(self) -> int:
        """How many numbers the actor gives: one logit an action."""
        return self.n

    @property
    def choices(self) -> tuple[int, ...]:
        """How many options each choice that a mask can narrow has."""
        return (self.n,)

    def rule_out(self, outputs: Float[Array, "*S A"], allowed: Bool[Array, "*S A"]) -> Float[Array, "*S A"]:
        """The logits, −inf where an action is not allowed; where none is, nothing is ruled out (no decision is made
        there).
        """
        xp = namespace(outputs)
        return xp.where(allowed | ~xp.any(allowed, axis=-1, keepdims=True), outputs, -xp.inf)

    def distribution(self, outputs: Array, log_std: Array | None) -> Categorical:
        """π(·|s)."""
        return Categorical(outputs)

    def rebuild(self, parameters: tuple[Array, ...]) -> Categorical:
        """The distribution that a rollout's `policy` describes."""
        return Categorical(*parameters)

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """Standard Gumbel variables, one an action: the place of the largest z_a + g_a is distributed as softmax(z)."""
        return rng.gumbel(size=(*shape, self.n)).astype(np.float32)

    def sample(self, outputs: Array, std: Array | None, noise: Array) -> Array:
        """The Gumbel-max draw, in NumPy."""
        return (outputs + noise).argmax(axis=-1)

    def mode(self, outputs: Array) -> Array:
        """The most probable action."""
        return outputs.argmax(axis=-1)

    def to_env(self, action: Array) -> Array:
        """As the environment counts them."""
        return action + self.start if self.start else action


@known
@dataclass(frozen=True, kw_only=True)
class BoxActions:
    """A Box: a Gaussian policy with a standard deviation that does not depend on the state.

    The record holds the action as sampled, flat. The environment gets it clipped to the box or, if `squash`, tanh(u)
    stretched over the box, in the shape `dims` (None: flat).
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    squash: bool = False
    dims: tuple[int, ...] | None = None

    dtype = np.float32
    n_parameters = 2
    choices = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one action as it is recorded."""
        return (len(self.low),)

    @property
    def outputs(self) -> int:
        """How many numbers the actor gives: one mean a dimension."""
        return len(self.low)

    @property
    def stds(self) -> int:
        """How many standard deviations are learned: one a dimension."""
        return len(self.low)

    @cached_property
    def _bounds(self) -> tuple[Array, Array]:
        return np.asarray(self.low, np.float32), np.asarray(self.high, np.float32)

    def rule_out(self, outputs: Array, allowed: Array) -> Array:
        """The outputs: no mask narrows a box."""
        return outputs

    def distribution(self, outputs: Array, log_std: Array | None) -> DiagonalGaussian:
        """π(·|s), with log σ of the shape of the mean."""
        assert log_std is not None
        return self.rebuild((outputs, log_std + 0.0 * outputs))

    def rebuild(self, parameters: tuple[Array, ...]) -> DiagonalGaussian:
        """The distribution that a rollout's `policy` describes."""
        return (SquashedGaussian if self.squash else DiagonalGaussian)(*parameters)

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """Standard normal variables, one a dimension."""
        return rng.standard_normal((*shape, len(self.low)), dtype=np.float32)

    def sample(self, outputs: Array, std: Array | None, noise: Array) -> Array:
        """μ + σ · noise, in NumPy."""
        return outputs + std * noise

    def mode(self, outputs: Array) -> Array:
        """μ."""
        return outputs

    def to_env(self, action: Array) -> Array:
        """Inside the box."""
        xp = np if isinstance(action, np.ndarray) else namespace(action)
        low, high = self._bounds
        if self.squash:
            inside = low + (SquashedGaussian.squash(action) + 1.0) * (0.5 * (high - low))
        else:
            inside = xp.minimum(xp.maximum(action, low), high)
        return inside if self.dims is None else inside.reshape(*inside.shape[:-1], *self.dims)


@known
@dataclass(frozen=True, kw_only=True)
class MultiBinaryActions:
    """MultiBinary: independent switches, recorded flat; the environment gets them in the shape `dims`."""

    dims: tuple[int, ...]

    dtype = np.int32
    stds = 0
    n_parameters = 1
    choices = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one action as it is recorded."""
        return (self.outputs,)

    @property
    def outputs(self) -> int:
        """How many numbers the actor gives: one logit a switch."""
        return int(np.prod(self.dims))

    def rule_out(self, outputs: Array, allowed: Array) -> Array:
        """The outputs: no mask narrows switches."""
        return outputs

    def distribution(self, outputs: Array, log_std: Array | None) -> Bernoulli:
        """π(·|s)."""
        return Bernoulli(outputs)

    def rebuild(self, parameters: tuple[Array, ...]) -> Bernoulli:
        """The distribution that a rollout's `policy` describes."""
        return Bernoulli(*parameters)

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """Uniform variables in [0, 1), one a switch."""
        return rng.random((*shape, self.outputs), dtype=np.float32)

    def sample(self, outputs: Array, std: Array | None, noise: Array) -> Array:
        """1 where the noise lies below P(1)."""
        return Bernoulli(outputs).sample(noise)

    def mode(self, outputs: Array) -> Array:
        """1 where P(1) > ½."""
        return Bernoulli(outputs).mode()

    def to_env(self, action: Array) -> Array:
        """0 and 1 as bytes."""
        return action.astype(np.int8).reshape(*action.shape[:-1], *self.dims)


@dataclass(frozen=True)
class FlatProduct(Product):
    """A product of distributions over actions that are recorded side by side, `[…, K]`."""

    space: "JointActions"

    def log_prob(self, action: Array) -> Array:
        """log π(a|s) = Σ_k log π_k(a_k|s)."""
        return Product.log_prob(self, self.space.split(action))

    def mode(self) -> Array:
        """The mode of each part."""
        return self.space.join(Product.mode(self))

    def sample(self, noise: tuple[Array, ...]) -> Array:
        """A sample of each part from its own noise."""
        return self.space.join(Product.sample(self, noise))


@dataclass(frozen=True, kw_only=True)
class JointActions:
    """Independent parts chosen together; what the environment gets is for the subclasses to say."""

    parts: tuple[Any, ...]

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Of one action as it is recorded: the parts' entries side by side."""
        return (sum(_width(part) for part in self.parts),)

    @cached_property
    def dtype(self) -> Any:
        """Whole numbers if all parts are; else float32, which holds them exactly up to 2²⁴."""
        return np.int32 if all(part.dtype is np.int32 for part in self.parts) else np.float32

    @cached_property
    def outputs(self) -> int:
        """How many numbers the actor gives."""
        return sum(part.outputs for part in self.parts)

    @cached_property
    def stds(self) -> int:
        """How many standard deviations are learned."""
        return sum(part.stds for part in self.parts)

    @cached_property
    def n_parameters(self) -> int:
        """How many arrays describe the distribution."""
        return sum(part.n_parameters for part in self.parts)

    @cached_property
    def choices(self) -> tuple[int, ...]:
        """How many options each choice that a mask can narrow has."""
        return tuple(n for part in self.parts for n in part.choices)

    def rule_out(self, outputs: Array, allowed: Array) -> Array:
        """The outputs with −inf for what is not allowed."""
        each = zip(self.parts, self._outputs(outputs), _cut(allowed, [sum(p.choices) for p in self.parts]), strict=True)
        return namespace(outputs).concat([part.rule_out(out, may) for part, out, may in each], axis=-1)

    def distribution(self, outputs: Array, log_std: Array | None) -> FlatProduct:
        """π(·|s)."""
        each = zip(self.parts, self._outputs(outputs), self._stds(log_std), strict=True)
        return FlatProduct(tuple(part.distribution(out, std) for part, out, std in each), self)

    def rebuild(self, parameters: tuple[Array, ...]) -> FlatProduct:
        """The distribution that a rollout's `policy` describes."""
        found, at = [], 0
        for part in self.parts:
            found.append(part.rebuild(parameters[at : at + part.n_parameters]))
            at += part.n_parameters
        return FlatProduct(tuple(found), self)

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """The parts' noise side by side."""
        return np.concatenate([part.noise(rng, shape) for part in self.parts], axis=-1)

    def sample(self, outputs: Array, std: Array | None, noise: Array) -> Array:
        """The parts' draws side by side, in NumPy."""
        each = zip(self.parts, self._outputs(outputs), self._stds(std), self._outputs(noise), strict=True)
        return self.join(tuple(part.sample(out, s, n) for part, out, s, n in each))

    def mode(self, outputs: Array) -> Array:
        """The parts' modes side by side."""
        return self.join(tuple(part.mode(out) for part, out in zip(self.parts, self._outputs(outputs), strict=True)))

    def split(self, action: Array) -> tuple[Array, ...]:
        """The parts' actions, each as its part would be recorded alone."""
        entries = zip(self.parts, _cut(action, [_width(part) for part in self.parts]), strict=True)
        return tuple((x if part.shape else x[..., 0]).astype(part.dtype) for part, x in entries)

    def join(self, actions: tuple[Array, ...]) -> Array:
        """The inverse of `split`."""
        each = zip(self.parts, actions, strict=True)
        columns = [(x if part.shape else x[..., None]).astype(self.dtype) for part, x in each]
        return namespace(columns[0]).concat(columns, axis=-1)

    def _outputs(self, x: Array) -> list[Array]:
        return _cut(x, [part.outputs for part in self.parts])

    def _stds(self, std: Array | None) -> list[Array | None]:
        return [None for _ in self.parts] if std is None else _cut(std, [part.stds for part in self.parts])

    def _each_to_env(self, action: Array) -> list[Any]:
        return [part.to_env(x) for part, x in zip(self.parts, self.split(action), strict=True)]


@known
@dataclass(frozen=True, kw_only=True)
class MultiDiscreteActions(JointActions):
    """MultiDiscrete: independent categorical choices, of the shape `dims` for the environment."""

    dims: tuple[int, ...]

    def to_env(self, action: Array) -> Array:
        """One array, each choice as the environment counts it."""
        flat = action + np.array([part.start for part in self.parts])
        return flat.reshape(*action.shape[:-1], *self.dims)


@known
@dataclass(frozen=True, kw_only=True)
class TupleActions(JointActions):
    """Tuple of action spaces."""

    def to_env(self, action: Array) -> tuple[Any, ...]:
        """One action a part."""
        return tuple(self._each_to_env(action))


@known
@dataclass(frozen=True, kw_only=True)
class DictActions(JointActions):
    """Dict of action spaces."""

    names: tuple[str, ...]

    def to_env(self, action: Array) -> dict[str, Any]:
        """One action a name."""
        return dict(zip(self.names, self._each_to_env(action), strict=True))


Actions = DiscreteActions | BoxActions | MultiBinaryActions | MultiDiscreteActions | TupleActions | DictActions


def _width(part: Any) -> int:
    return part.shape[0] if part.shape else 1


def _cut(x: Array, sizes: list[int]) -> list[Array]:
    """The last axis in pieces of the given sizes."""
    ends = np.cumsum(sizes).tolist()
    return [x[..., end - size : end] for size, end in zip(sizes, ends, strict=True)]
