"""What the actor's step maximises, as a choice, and how the price β of a penalty moves."""

from dataclasses import dataclass
from typing import Any

from vantage.recipe.schedule import Coefficient, check, positive
from vantage.theory import kl_control, objectives
from vantage.theory.loss import Terms

Array = Any


@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """Ψ log π, for data of the very policy that is updated. Theory 5.2, 7.1."""

    reuses = False

    def __call__(self, terms: Terms) -> Array:
        return objectives.likelihood(terms.log_prob, terms.psi)

    def outside(self, terms: Terms) -> Array | None:
        """No clip range."""
        return None


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """r_t(θ) Ψ_t, importance-weighted and unconstrained. Theory 8.2."""

    reuses = True

    def __call__(self, terms: Terms) -> Array:
        return objectives.importance_weighted(terms.ratio, terms.psi)

    def outside(self, terms: Terms) -> Array | None:
        """No clip range."""
        return None


@dataclass(frozen=True, kw_only=True)
class Clip:
    """PPO-Clip: min(rΨ, clip(r, 1 − low, 1 + high)Ψ); `high=None` is symmetric, `dual` bounds the loss where Ψ < 0.

    Theory 8.5.
    """

    low: Coefficient = 0.2
    high: Coefficient | None = None
    dual: float | None = None
    reuses = True

    def __post_init__(self) -> None:
        check(positive(self.low), self, "low", "the clip range is a positive ratio, such as 0.2")
        check(self.high is None or positive(self.high), self, "high", "a positive ratio, such as 0.28, or None")
        check(self.dual is None or self.dual > 1.0, self, "dual", "the dual clip is a ratio above 1, such as 3.0")

    def __call__(self, terms: Terms) -> Array:
        return objectives.clipped(terms.ratio, terms.psi, self.low, self.high, self.dual)

    def outside(self, terms: Terms) -> Array | None:
        """Where the ratio has left the clip range."""
        return objectives.clip_fraction(terms.ratio, self.low, self.high)


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """β doubles at KL ≥ kl_max and halves at KL ≤ kl_min. Theory 8.6."""

    kl_min: float = 0.005
    kl_max: float = 0.02
    factor: float = 2.0

    def __post_init__(self) -> None:
        check(0.0 <= self.kl_min < self.kl_max, self, "kl_min", f"it must lie below kl_max = {self.kl_max}")
        check(self.factor > 1.0, self, "factor", "a factor above 1 is needed, such as 2")

    def __call__(self, beta: float, kl: float, n: int) -> float:
        return kl_control.threshold_beta(beta, kl, self.kl_min, self.kl_max, self.factor)


@dataclass(frozen=True, kw_only=True)
class PaperTarget:
    """β doubles above 1.5 d_targ and halves below d_targ/1.5, as in the PPO paper."""

    target: float = 0.01

    def __post_init__(self) -> None:
        check(self.target > 0.0, self, "target", "a KL target in nats per step, such as 0.01")

    def __call__(self, beta: float, kl: float, n: int) -> float:
        return kl_control.paper_beta(beta, kl, self.target)


@dataclass(frozen=True, kw_only=True)
class Proportional:
    """β moves by at most 20 % · n/horizon towards the target (Ziegler et al. 2019)."""

    target: float = 6.0
    horizon: float = 10_000.0

    def __post_init__(self) -> None:
        check(self.target > 0.0, self, "target", "a KL target in nats, such as 6")
        check(self.horizon > 0.0, self, "horizon", "a positive number of episodes, such as 10000")

    def __call__(self, beta: float, kl: float, n: int) -> float:
        return kl_control.proportional_beta(beta, kl, self.target, n, self.horizon)


BetaRule = Thresholds | PaperTarget | Proportional


@dataclass(frozen=True, kw_only=True)
class Penalty:
    """PPO-Penalty: rΨ − β KL(π_old‖π); `rule=None` keeps β fixed. Theory 8.6."""

    beta: float = 1.0
    rule: BetaRule | None = Thresholds()
    reuses = True

    def __post_init__(self) -> None:
        check(self.beta >= 0, self, "beta", "the price of KL is not negative")

    def __call__(self, terms: Terms) -> Array:
        return objectives.penalised(terms.ratio, terms.psi, terms.kl, self.beta)

    def outside(self, terms: Terms) -> Array | None:
        """No clip range."""
        return None


Objective = Likelihood | Ratio | Clip | Penalty
