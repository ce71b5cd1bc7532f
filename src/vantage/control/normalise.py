"""Running normalisation of observations and rewards.

Statistics are values: frozen while a rollout is taken, scored and learned from, replaced once after it.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Num

from vantage.theory._array import namespace

Array = Any
CLIP = 10.0


@dataclass(frozen=True)
class Moments:
    """Mean and variance of everything seen so far, per feature, float64."""

    mean: Float[Array, "*D"]
    var: Float[Array, "*D"]
    count: float

    @staticmethod
    def fresh(shape: tuple[int, ...]) -> "Moments":
        """Mean 0, variance 1, nothing seen."""
        return Moments(np.zeros(shape), np.ones(shape), 0.0)

    def moved(self, x: Float[Array, "N *D"]) -> "Moments":
        """With a batch of N more samples."""
        if len(x) == 0:
            return self
        x = np.asarray(x, np.float64)
        return self.merged(x.mean(axis=0), x.var(axis=0), len(x))

    def merged(self, mean: Float[Array, "*D"], var: Float[Array, "*D"], n: int) -> "Moments":
        """With n more samples of which only mean and (population) variance are known.

            N = n₁ + n₂,   mean = mean₁ + Δ n₂/N,   var = (n₁ var₁ + n₂ var₂ + Δ² n₁ n₂/N)/N,   Δ = mean₂ − mean₁

        Source: Chan et al. (1979).
        """
        count = self.count + n
        delta, share = mean - self.mean, n / count
        spread = (1.0 - share) * self.var + share * var + delta**2 * share * (1.0 - share)
        return Moments(self.mean + delta * share, spread, float(count))

    def only(self, numeric: Any) -> "Moments":
        """With mean 0 and variance 1, which change nothing, for entries that are not quantities (one-hot entries,
        switches, masks).
        """
        if np.all(numeric):
            return self
        return Moments(np.where(numeric, self.mean, 0.0), np.where(numeric, self.var, 1.0), self.count)

    @property
    def scale(self) -> Float[Array, "*D"]:
        """1/√(var + 1e-8)."""
        return 1.0 / np.sqrt(self.var + 1e-8)

    @cached_property
    def frame(self) -> tuple[Float[Array, "*D"], Float[Array, "*D"]]:
        """(shift, scale) in float32, as `standardise` takes them."""
        return self.mean.astype(np.float32), self.scale.astype(np.float32)

    def arrays(self) -> dict[str, Array]:
        """For a checkpoint."""
        return {"mean": self.mean, "var": self.var, "count": np.float64(self.count)}

    @staticmethod
    def of(arrays: dict[str, Array]) -> "Moments":
        """From a checkpoint."""
        return Moments(arrays["mean"], arrays["var"], float(arrays["count"]))


def observe(moments: Moments | None, x: Num[Array, "*B D"]) -> Num[Array, "*B D"]:
    """clip((x − mean)/√(var + 1e-8), ±10) in float32; x itself without moments."""
    return standardise(None if moments is None else moments.frame, x)


def standardise(frame: tuple[Any, Any] | None, x: Num[Array, "*B D"]) -> Num[Array, "*B D"]:
    """clip((x − shift) · scale, ±10) for a frame (shift, scale) of float32; x itself without one."""
    if frame is None:
        return x
    xp = np if isinstance(x, np.ndarray) else namespace(x)
    shift, scale = frame
    return xp.minimum(xp.maximum((x - shift) * scale, np.float32(-CLIP)), np.float32(CLIP))


def signal(moments: Moments | None, reward: Float[Array, "T B"]) -> Float[Array, "T B"]:
    """clip(r/√(Var(discounted return) + 1e-8), ±10) in float32: scaled, never shifted; the plain reward without
    moments.
    """
    return rescale(None if moments is None else moments.scale, reward)


def rescale(scale: Any, reward: Float[Array, "T B"]) -> Float[Array, "T B"]:
    """clip(r · scale, ±10) in float32; the plain reward without a scale."""
    xp = namespace(reward)
    if scale is None:
        return xp.astype(reward, xp.float32)
    return xp.astype(xp.clip(reward * scale, -CLIP, CLIP), xp.float32)


def running_returns(
    reward: Float[Array, "T B"],
    done: Bool[Array, "T B"],
    mask: Bool[Array, "T B"],
    gamma: float,
    carry: Float[Array, " B"],
) -> tuple[Float[Array, "T B"], Float[Array, " B"]]:
    """R_t = γR_{t−1} + r_t, from 0 at the start of each episode, and the R to go on from.

    Shapes `[T, B]`, `[B]`; units: reward.
    """
    out = np.empty(reward.shape)
    for t in range(len(reward)):
        out[t], carry = next_return(reward[t], done[t], mask[t], gamma, carry)
    return out, carry


def next_return(reward: Array, done: Array, mask: Array | bool, gamma: Any, carry: Array) -> tuple[Array, Array]:
    """(R_t, the R that step t + 1 goes on from) of a row `[B]`."""
    xp = namespace(reward)
    now = xp.where(mask, gamma * carry + reward, carry)
    return now, xp.where(done, 0.0, now)
