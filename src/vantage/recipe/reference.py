"""Where the KL to a reference model stands: in the reward or in the loss, chosen by type; and what mends a generator
that is not the trainer.
"""

from dataclasses import dataclass
from typing import Any, Literal

from vantage.recipe.objective import BetaRule
from vantage.recipe.schedule import check
from vantage.theory import divergences, importance, objectives, signal
from vantage.theory._array import stop_gradient
from vantage.theory.loss import Terms

Array = Any


@dataclass(frozen=True, kw_only=True)
class KLInReward:
    """Each decision costs β (log π − log π_ref), taken off the reward before Ψ is made. Theory 8.7."""

    beta: float = 0.05
    """β at the start: the price of one nat of KL(π‖π_ref), in units of the score."""
    controller: BetaRule | None = None
    """How β moves after each update, from the mean KL in nats per *sequence*; None: it stays."""

    def __post_init__(self) -> None:
        check(self.beta >= 0, self, "beta", "the price of KL is not negative")

    def signal(self, reward: Array, log_prob: Array, reference_log_prob: Array, beta: float, mask: Array) -> Array:
        """The reward as Ψ reads it."""
        return signal.kl_signal(reward, log_prob, reference_log_prob, beta, mask)


@dataclass(frozen=True, kw_only=True)
class KLInLoss:
    """β times an estimate of the KL to the reference is taken off each decision's objective.

    The estimate is of the decision alone: it forgets that a decision also changes the KL of those that follow, so its
    optimum is not that of `KLInReward`. Samples are of π_old, so k2 and k3 carry the ratio r_t. With r_t as data the
    gradient of k2 is that of KL(π‖π_ref), of k3 that of KL(π_ref‖π); with `through_ratio` that of the estimate's mean,
    which for k3 is KL(π‖π_ref).
    """

    beta: float = 0.05
    """β: the price of one nat, in units of Ψ."""
    estimator: Literal["k2", "k3", "exact"] = "k2"
    """How the KL of a decision is estimated: from the sampled token, or exactly over the vocabulary."""
    through_ratio: bool = False
    """Whether the gradient flows through r_t too; "exact" has no ratio."""
    controller: BetaRule | None = None
    """How β moves after each update, from the mean KL in nats per *sequence*; None: it stays."""

    def __post_init__(self) -> None:
        check(self.beta >= 0, self, "beta", "the price of KL is not negative")
        known = self.estimator in ("k2", "k3", "exact")
        check(known, self, "estimator", 'choose "k2", "k3" or "exact"; k1 has no gradient in the mean')
        exact = self.estimator == "exact" and self.through_ratio
        check(not exact, self, "through_ratio", "the exact KL is a sum over the vocabulary: it carries no ratio")

    def __call__(self, terms: Terms) -> Array:
        kl: Array = terms.reference_kl
        if self.estimator == "exact":
            return self.beta * kl
        estimate = getattr(divergences, self.estimator)(terms.log_prob, terms.reference_log_prob)
        ratio = terms.ratio if self.through_ratio else stop_gradient(terms.ratio)
        return self.beta * objectives.importance_weighted(ratio, estimate)


KLHome = KLInReward | KLInLoss


@dataclass(frozen=True, kw_only=True)
class Truncated:
    """w_t = min(π_old/μ, cap): tokens that the generator gave too little weight count more, up to a bound."""

    cap: float = 2.0
    """The largest weight."""

    def __post_init__(self) -> None:
        check(self.cap > 0, self, "cap", "a positive ratio, such as 2.0")

    def __call__(self, log_prob: Array, actor_log_prob: Array) -> Array:
        return importance.truncated_ratio(log_prob, actor_log_prob, self.cap)


@dataclass(frozen=True, kw_only=True)
class Banded:
    """w_t = π_old/μ inside [low, high], else 0: tokens on which generator and trainer disagree teach nothing."""

    low: float = 0.5
    """The smallest ratio that counts."""
    high: float = 5.0
    """The largest."""

    def __post_init__(self) -> None:
        check(0 < self.low < 1, self, "low", "a ratio between 0 and 1")
        check(self.high > 1, self, "high", "a ratio above 1")

    def __call__(self, log_prob: Array, actor_log_prob: Array) -> Array:
        return importance.banded_ratio(log_prob, actor_log_prob, self.low, self.high)


Correction = Truncated | Banded
