"""Running normalisation of observations and rewards.

Statistics are values: frozen while a rollout is taken, scored and learned from, replaced once after it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Num

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
        """With a batch of N more samples.

            n = n₁ + n₂,   mean = mean₁ + Δ n₂/n,   var = (n₁ var₁ + n₂ var₂ + Δ² n₁ n₂/n)/n,   Δ = mean₂ − mean₁

        Source: Chan et al. (1979).
        """
        if len(x) == 0:
            return self
        x = np.asarray(x, np.float64)
        mean, var, n = x.mean(axis=0), x.var(axis=0), self.count + len(x)
        delta, share = mean - self.mean, len(x) / n
        spread = (1.0 - share) * self.var + share * var + delta**2 * share * (1.0 - share)
        return Moments(self.mean + delta * share, spread, float(n))

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

    def arrays(self) -> dict[str, Array]:
        """For a checkpoint."""
        return {"mean": self.mean, "var": self.var, "count": np.float64(self.count)}

    @staticmethod
    def of(arrays: dict[str, Array]) -> "Moments":
        """From a checkpoint."""
        return Moments(arrays["mean"], arrays["var"], float(arrays["count"]))


def observe(moments: Moments | None, x: Num[Array, "*B D"]) -> Num[Array, "*B D"]:
    """clip((x − mean)/√(var + 1e-8), ±10) in float32; x itself without moments."""
    if moments is None:
        return x
    shift, scale = moments.mean.astype(np.float32), moments.scale.astype(np.float32)
    return np.minimum(np.maximum((x - shift) * scale, np.float32(-CLIP)), np.float32(CLIP))


def signal(moments: Moments | None, reward: Float[Array, "T B"]) -> Float[Array, "T B"]:
    """clip(r/√(Var(discounted return) + 1e-8), ±10) in float32: scaled, never shifted; the plain reward without
    moments.
    """
    if moments is None:
        return reward.astype(np.float32)
    return np.clip(reward * moments.scale, -CLIP, CLIP).astype(np.float32)


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
        out[t] = np.where(mask[t], gamma * carry + reward[t], carry)
        carry = np.where(done[t], 0.0, out[t])
    return out, carry
