"""Generalised state-dependent exploration (gSDE): noise that is a function of the state, held for several steps."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from vantage.control.actions import BoxActions
from vantage.control.networks import Batched, forward, host_forward
from vantage.runs.config import known
from vantage.theory._array import stop_gradient
from vantage.theory.distributions import SDE_FLOOR, DiagonalGaussian, state_dependent_log_std

Array = Any


@known
@dataclass(frozen=True, kw_only=True)
class StateDependentActions(BoxActions):
    """A Box whose noise is E φ(s): φ are the actor's last features, E is drawn anew every `hold` steps.

        a = μ(s) + E φ(s) + ε₀ ξ,   E_ij ∼ N(0, σ_ij²), ξ ∼ N(0, 1)   ⇒   a_i | s ∼ N(μ_i(s), Σ_j σ_ij² φ_j(s)² + ε₀²)

    What is scored is that density of one action, exact given its state; successive actions share E, as in
    Stable-Baselines3. The features are data where they scale the noise. The actor says (μ, φ).
    Source: Raffin et al. (2021) section 3.
    """

    features: int = 0
    """How many features there are; 0 before the network is known."""
    hold: int = -1
    """For how many steps a draw of E holds; -1: for the whole rollout."""

    @property
    def dimensions(self) -> int:
        """How many entries an action has."""
        return len(self.low)

    @property
    def outputs(self) -> int:
        """How many numbers the actor gives: the mean, then the features."""
        return self.dimensions + self.features

    @property
    def stds(self) -> int:
        """How many standard deviations are learned: one for each feature and dimension."""
        return self.features * self.dimensions

    def distribution(self, outputs: Array, log_std: Array | None) -> DiagonalGaussian:
        """π(·|s)."""
        assert log_std is not None
        mean, features = self._parts(outputs)
        matrix = log_std.reshape(self.features, self.dimensions)
        return self.rebuild((mean, state_dependent_log_std(stop_gradient(features), matrix)))

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """What E and ξ are made of, standard normal: rows of a rollout `(T, B)` share a draw as long as it holds."""
        width = (self.features + 1) * self.dimensions
        if len(shape) < 2:
            return rng.standard_normal((*shape, width), dtype=np.float32)
        rows = shape[0]
        hold = rows if self.hold < 1 else min(self.hold, rows)
        drawn = rng.standard_normal((-(-rows // hold), *shape[1:], width), dtype=np.float32)
        return np.broadcast_to(drawn, (rows, *drawn.shape[1:])) if hold == rows else drawn[np.arange(rows) // hold]

    def sample(self, outputs: Array, std: Array | None, noise: Array) -> Array:
        """μ + E φ + ε₀ ξ, in NumPy."""
        assert std is not None
        mean, features = self._parts(outputs)
        drawn = noise.reshape(*noise.shape[:-1], self.features + 1, self.dimensions)
        matrix = drawn[..., :-1, :] * std.reshape(self.features, self.dimensions)
        return mean + (features[..., None, :] @ matrix)[..., 0, :] + np.float32(SDE_FLOOR) * drawn[..., -1, :]

    def mode(self, outputs: Array) -> Array:
        """μ."""
        return outputs[..., : self.dimensions]

    def _parts(self, outputs: Array) -> tuple[Array, Array]:
        return outputs[..., : self.dimensions], outputs[..., self.dimensions :]


class Exposed(Batched):
    """An actor that says what its head says, and the features that the head reads: `[…, D]` → `[…, A + F]`."""

    trunk: Any
    """The hidden layers; None where they are shared with the critic and already applied."""
    head: Any

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B O"]:
        features = x if self.trunk is None else forward(self.trunk, x)
        return jnp.concatenate([forward(self.head, features), features], axis=-1)

    def on_host(self) -> Callable[[Any], Any]:
        """NumPy throughout."""
        trunk = (lambda x: x) if self.trunk is None else host_forward(self.trunk)
        head = host_forward(self.head)

        def run(x: Any) -> Any:
            features = trunk(x)
            return np.concatenate([head(features), features], axis=-1)

        return run
