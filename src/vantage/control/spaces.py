"""What Gymnasium's spaces mean for a policy: features of observations, distributions over actions, and what the
environment gets.
"""

import math
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from vantage.runs.config import known
from vantage.theory.distributions import Categorical, DiagonalGaussian, SquashedGaussian

Array = Any


@known
@dataclass(frozen=True, kw_only=True)
class VectorObservations:
    """A flat Box: `[…, D]`, as float32."""

    size: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one observation as it is recorded."""
        return (self.size,)

    dtype = np.float32

    def record(self, observation: Any) -> Array:
        """What the environment gave, as the rollout keeps it."""
        return np.asarray(observation, np.float32)

    def features(self, xp: Any, recorded: Array) -> Array:
        """What the network reads, `[…, D]`."""
        return recorded


@known
@dataclass(frozen=True, kw_only=True)
class StateObservations:
    """Discrete(n): recorded as the number of the state, from 0; the network reads it one-hot."""

    size: int
    start: int = 0

    shape = ()
    dtype = np.int32

    def record(self, observation: Any) -> Array:
        """What the environment gave, counted from 0."""
        return np.asarray(observation, np.int32) - np.int32(self.start)

    def features(self, xp: Any, recorded: Array) -> Array:
        """One-hot, `[…, n]`."""
        return (recorded[..., None] == xp.arange(self.size)).astype(np.float32)


Observations = VectorObservations | StateObservations


@known
@dataclass(frozen=True, kw_only=True)
class DiscreteActions:
    """Discrete(n): a categorical policy; recorded actions count from 0."""

    n: int
    start: int = 0

    shape = ()
    dtype = np.int32
    learned_std = False

    @property
    def outputs(self) -> int:
        """How many numbers the actor gives: one logit an action."""
        return self.n

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
    """A flat Box: a Gaussian policy with a standard deviation that does not depend on the state.

    The record holds the action as sampled. The environment gets it clipped to the box or, if `squash`, tanh(u)
    stretched over the box.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    squash: bool = False

    dtype = np.float32
    learned_std = True

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one action."""
        return (len(self.low),)

    @property
    def outputs(self) -> int:
        """How many numbers the actor gives: one mean a dimension."""
        return len(self.low)

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
        low, high = np.asarray(self.low, np.float32), np.asarray(self.high, np.float32)
        if self.squash:
            return low + (SquashedGaussian.squash(action) + 1.0) * (0.5 * (high - low))
        return np.minimum(np.maximum(action, low), high)


Actions = DiscreteActions | BoxActions


def observations(space: gym.Space) -> Observations:
    """How a space is observed. Raises TypeError naming the space and the remedy for one that is not supported."""
    if isinstance(space, gym.spaces.Discrete):
        return StateObservations(size=int(space.n), start=int(space.start))
    if isinstance(space, gym.spaces.Box) and len(space.shape) == 1:
        return VectorObservations(size=space.shape[0])
    raise TypeError(
        f"observation space {_brief(space)} is not supported: wrap the environment in "
        "gymnasium.wrappers.FlattenObservation, so that it is a flat Box"
    )


def actions(space: gym.Space, squash: bool = False) -> Actions:
    """How a space is acted in. Raises TypeError naming the space and the remedy for one that is not supported."""
    if isinstance(space, gym.spaces.Discrete):
        if squash:
            raise ValueError("squash_actions = True: tanh belongs to Box actions; leave it False for Discrete ones")
        return DiscreteActions(n=int(space.n), start=int(space.start))
    if isinstance(space, gym.spaces.Box) and len(space.shape) == 1:
        low, high = tuple(map(float, space.low)), tuple(map(float, space.high))
        if squash and not all(map(math.isfinite, low + high)):
            raise ValueError(f"squash_actions = True needs a bounded box, got {_brief(space)}: leave it False")
        return BoxActions(low=low, high=high, squash=squash)
    raise TypeError(
        f"action space {_brief(space)} is not supported: wrap the environment in gymnasium.wrappers.TransformAction, "
        "so that it is Discrete or a flat Box"
    )


def _brief(space: Any) -> str:
    text = str(space)
    return text if len(text) < 80 else f"{type(space).__name__}{getattr(space, 'shape', '')}"
