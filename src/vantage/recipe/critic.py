"""What the critic's step minimises, as a choice."""

from dataclasses import dataclass
from typing import Any

from vantage.recipe.schedule import Coefficient, check, positive
from vantage.theory import critics
from vantage.theory.loss import Batch

Array = Any


@dataclass(frozen=True, kw_only=True)
class Squared:
    """(V_φ − R_t)², with the target R_t that belongs to Ψ. Theory 8.7."""

    def __call__(self, batch: Batch, value: Array, next_value: Array | None) -> Array:
        return critics.squared(value, batch.target)


@dataclass(frozen=True, kw_only=True)
class ClippedValue:
    """max((V_φ − R_t)², (clip(V_φ, V_old ± width) − R_t)²); `width` is in units of the value, never the policy's ε.

    Theory 8.7.
    """

    width: Coefficient = 0.2
    """How far V_φ may leave V_old before the step stops earning, in units of the value."""

    def __post_init__(self) -> None:
        check(positive(self.width), self, "width", "a positive number in units of the value")

    def __call__(self, batch: Batch, value: Array, next_value: Array | None) -> Array:
        return critics.clipped_value(value, batch.value, batch.target, self.width)


@dataclass(frozen=True, kw_only=True)
class ResidualTD:
    """(r_t + γV_φ(s_{t+1}) − V_φ(s_t))² with the full gradient, through the target too. Theory 7.2."""

    def __call__(self, batch: Batch, value: Array, next_value: Array | None) -> Array:
        return critics.squared_td_error(batch.reward, value, next_value, batch.discount, residual=True)


@dataclass(frozen=True, kw_only=True)
class QCritic:
    """(Q_φ(s_t, a_t) − R_t)²: the critic says Q of every action, and V(s) = Σ_a π(a|s) Q(s, a). Discrete actions.

    With Ψ = Q or A the target is that of expected SARSA; with any other Ψ, which then reads this V, its own.
    Theory 6.4, 6.5.
    """

    of_actions = True

    def __call__(self, batch: Batch, value: Array, next_value: Array | None) -> Array:
        return critics.squared(value, batch.target)


CriticLoss = Squared | ClippedValue | ResidualTD | QCritic
