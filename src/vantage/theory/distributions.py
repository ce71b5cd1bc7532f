"""The policy's distributions π(·|s): plain records of parameters with the mathematics on them.

`sample` is a pure function of noise that the caller supplies, so action noise depends on nothing but a seed.
Parameters are `[…, A]` or `[…, D]` with any leading shape; log-probabilities, entropies and KLs come back as `[…]`,
in nats.
"""

import math
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float

from vantage.theory import divergences as kl
from vantage.theory._array import Array, namespace, take_last

LOG_2PI = math.log(2.0 * math.pi)


@runtime_checkable
class Distribution(Protocol):
    """What a policy head must offer.

    `noise` says what `sample` wants: "uniform" in [0, 1) or "normal", one per action entry.
    """

    @property
    def parameters(self) -> tuple[Any, ...]: ...

    def log_prob(self, action: Any) -> Any: ...

    def entropy(self) -> Any: ...

    def kl(self, other: Any) -> Any: ...

    def mode(self) -> Any: ...

    def sample(self, noise: Any) -> Any: ...


@dataclass(frozen=True)
class Categorical:
    """One of A actions: p_a = exp z_a / Σ_b exp z_b. An action ruled out has logit −inf."""

    logits: Float[Array, "*S A"]

    noise = "uniform"

    @property
    def parameters(self) -> tuple[Array, ...]:
        """(logits,), `[…, A]`."""
        return (self.logits,)

    def log_prob(self, action: Array) -> Array:
        """log π(a|s) = z_a − log Σ_b exp z_b."""
        return take_last(kl.log_softmax(self.logits), action)

    def entropy(self) -> Array:
        """H = −Σ_a p_a log p_a, between 0 and log A."""
        return kl.categorical_entropy(self.logits)

    def kl(self, other: "Categorical") -> Array:
        """KL(self‖other), exact."""
        return kl.categorical_kl(self.logits, other.logits)

    def mode(self) -> Array:
        """argmax_a p_a."""
        return namespace(self.logits).argmax(self.logits, axis=-1)

    def sample(self, noise: Array) -> Array:
        """The first a whose cumulative probability exceeds the uniform `noise`, `[…]`; p_a = 0 is never drawn."""
        xp = namespace(self.logits)
        p = xp.exp(self.logits - xp.max(self.logits, axis=-1, keepdims=True))
        # A prefix sum computed in parallel may move by a rounding where p = 0: hence the mask.
        reached = xp.where(p > 0, xp.cumulative_sum(p, axis=-1), 0.0)
        threshold = noise[..., None] * xp.max(reached, axis=-1, keepdims=True)
        return xp.argmax(xp.astype(reached > threshold, xp.int32), axis=-1)


SDE_FLOOR = 1e-3
"""ε₀: the standard deviation that is left where all features are 0."""


def state_dependent_log_std(features: Float[Array, "*S F"], log_std: Float[Array, "F D"]) -> Float[Array, "*S D"]:
    """log σ(s) of an action whose noise is a random matrix times features of the state, E φ(s), E_ij ∼ N(0, σ_ij²).

        log σ_i(s) = ½ log(Σ_j σ_ij² φ_j(s)² + ε₀²)

    Shapes `[…, F]`, `[F, D]` → `[…, D]`. Units: those of the action, in logarithm; ε₀ = 1e-3 bounds it below, and is
    part of what is sampled. Source: Raffin et al. (2021) eq. 6; Stable-Baselines3 `StateDependentNoiseDistribution`.
    """
    xp = namespace(features)
    return 0.5 * xp.log(features**2 @ xp.exp(2.0 * log_std) + SDE_FLOOR**2)


@dataclass(frozen=True)
class DiagonalGaussian:
    """Independent normals a_i ∼ N(μ_i, σ_i²); `log_std` is log σ, of the same shape as the mean."""

    mean: Float[Array, "*S D"]
    log_std: Float[Array, "*S D"]

    noise = "normal"

    @property
    def parameters(self) -> tuple[Array, ...]:
        """(mean, log_std), each `[…, D]`."""
        return (self.mean, self.log_std)

    def log_prob(self, action: Array) -> Array:
        """log π(a|s) = −Σ_i ½ ((a_i − μ_i)/σ_i)² + log σ_i + ½ log 2π, a density per unit of action."""
        xp = namespace(self.mean)
        z = (action - self.mean) * xp.exp(-self.log_std)
        return -xp.sum(0.5 * z**2 + self.log_std + 0.5 * LOG_2PI, axis=-1)

    def entropy(self) -> Array:
        """H = Σ_i log σ_i + ½ log 2πe."""
        xp = namespace(self.mean)
        return xp.sum(self.log_std + 0.0 * self.mean + 0.5 * (LOG_2PI + 1.0), axis=-1)

    def kl(self, other: "DiagonalGaussian") -> Array:
        """KL(self‖other), exact."""
        return kl.gaussian_kl(self.mean, self.log_std, other.mean, other.log_std)

    def mode(self) -> Array:
        """μ."""
        return self.mean

    def sample(self, noise: Array) -> Array:
        """μ + σ · noise, with standard normal `noise`, `[…, D]`."""
        return self.mean + namespace(self.mean).exp(self.log_std) * noise


@dataclass(frozen=True)
class SquashedGaussian(DiagonalGaussian):
    """A Gaussian seen through tanh: the environment gets tanh(u), the record keeps u ("pre-tanh").

    KL is that of the Gaussians, for tanh is a bijection. The entropy has no closed form: `entropy` raises, and
    −log π of samples is its unbiased estimate.
    """

    def log_prob(self, action: Array) -> Array:
        """log π(tanh u|s) = log N(u) − Σ_i log(1 − tanh² u_i), given the pre-tanh u; written so that no u overflows."""
        xp = namespace(self.mean)
        size = xp.abs(action)
        log_slope = 2.0 * (math.log(2.0) - size - xp.log1p(xp.exp(-2.0 * size)))
        return DiagonalGaussian.log_prob(self, action) - xp.sum(log_slope, axis=-1)

    def entropy(self) -> Array:
        """Raises NotImplementedError: there is no closed form."""
        raise NotImplementedError(
            "a squashed Gaussian's entropy has no closed form; estimate it as the mean of −log_prob"
        )

    @staticmethod
    def squash(action: Array) -> Array:
        """tanh(u): what the environment gets, in (−1, 1)."""
        return namespace(action).tanh(action)


@dataclass(frozen=True)
class Bernoulli:
    """D independent switches with P(a_i = 1) = 1/(1 + exp(−z_i))."""

    logits: Float[Array, "*S D"]

    noise = "uniform"

    @property
    def parameters(self) -> tuple[Array, ...]:
        """(logits,), `[…, D]`."""
        return (self.logits,)

    def _log_p(self) -> Array:
        return kl.log_softmax(kl.two_logits(self.logits))

    def log_prob(self, action: Array) -> Array:
        """log π(a|s) = Σ_i log P(a_i)."""
        return namespace(self.logits).sum(take_last(self._log_p(), action), axis=-1)

    def entropy(self) -> Array:
        """H = Σ_i H(a_i), at most D log 2."""
        return namespace(self.logits).sum(kl.categorical_entropy(kl.two_logits(self.logits)), axis=-1)

    def kl(self, other: "Bernoulli") -> Array:
        """KL(self‖other), exact."""
        return kl.bernoulli_kl(self.logits, other.logits)

    def mode(self) -> Array:
        """1 where P(a_i = 1) > ½."""
        xp = namespace(self.logits)
        return xp.astype(self.logits > 0, xp.int32)

    def sample(self, noise: Array) -> Array:
        """1 where the uniform number `noise`, `[…, D]`, lies below P(a_i = 1)."""
        xp = namespace(self.logits)
        return xp.astype(noise < xp.exp(self._log_p()[..., 1]), xp.int32)


@dataclass(frozen=True)
class Product:
    """Independent parts acting together: MultiDiscrete, Tuple and Dict actions.

    An action is a tuple, one entry a part.
    """

    parts: tuple[Any, ...]

    @property
    def noise(self) -> tuple[str, ...]:
        """The kind of noise of each part."""
        return tuple(part.noise for part in self.parts)

    @property
    def parameters(self) -> tuple[Array, ...]:
        """The parts' parameters, one after the other."""
        return tuple(p for part in self.parts for p in part.parameters)

    def log_prob(self, action: tuple[Array, ...]) -> Array:
        """log π(a|s) = Σ_k log π_k(a_k|s)."""
        return sum(part.log_prob(a) for part, a in zip(self.parts, action, strict=True))

    def entropy(self) -> Array:
        """H = Σ_k H_k."""
        return sum(part.entropy() for part in self.parts)

    def kl(self, other: "Product") -> Array:
        """KL(self‖other) = Σ_k KL_k."""
        return sum(p.kl(q) for p, q in zip(self.parts, other.parts, strict=True))

    def mode(self) -> tuple[Array, ...]:
        """The mode of each part."""
        return tuple(part.mode() for part in self.parts)

    def sample(self, noise: tuple[Array, ...]) -> tuple[Array, ...]:
        """A sample of each part from its own noise."""
        return tuple(part.sample(n) for part, n in zip(self.parts, noise, strict=True))
