"""What the actor's step maximises, as a choice, and how the price β of a penalty moves."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from vantage.recipe.schedule import Coefficient, Schedule, check, everywhere, positive, settled
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
    """ε, or ε_low: how far below 1 a ratio earns anything; no unit."""
    high: Coefficient | None = None
    """ε_high: the same above 1; None: as far as below."""
    dual: Coefficient | None = None
    """c: where Ψ < 0, ratios above this earn nothing either; None: no dual clip."""
    reuses = True

    def __post_init__(self) -> None:
        check(positive(self.low), self, "low", "the clip range is a positive ratio, such as 0.2")
        check(self.high is None or positive(self.high), self, "high", "a positive ratio, such as 0.28, or None")
        check(
            self.dual is None or everywhere(lambda c: c > 1.0, self.dual),
            self,
            "dual",
            "the dual clip is a ratio above 1, such as 3.0",
        )

    def __call__(self, terms: Terms) -> Array:
        return objectives.clipped(terms.ratio, terms.psi, self.low, self.high, self.dual)

    def outside(self, terms: Terms) -> Array | None:
        """Where the ratio has left the clip range."""
        return objectives.clip_fraction(terms.ratio, self.low, self.high)


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """β doubles at KL ≥ kl_max and halves at KL ≤ kl_min. Theory 8.6."""

    kl_min: Coefficient = 0.005
    """KL at or below which β falls, in nats per step."""
    kl_max: Coefficient = 0.02
    """KL at or above which β grows, in nats per step."""
    factor: Coefficient = 2.0
    """By what β is multiplied or divided."""
    beta_min: Coefficient = 1e-6
    """β falls no lower."""
    beta_max: Coefficient = 1e6
    """β grows no higher."""

    def __post_init__(self) -> None:
        below = everywhere(lambda low, high: 0.0 <= low < high, self.kl_min, self.kl_max)
        check(below, self, "kl_min", f"it must lie below kl_max = {self.kl_max}")
        check(everywhere(lambda x: x > 1.0, self.factor), self, "factor", "a factor above 1 is needed, such as 2")
        within = everywhere(lambda low, high: 0.0 < low <= high, self.beta_min, self.beta_max)
        check(within, self, "beta_min", f"it must be positive and not above beta_max = {self.beta_max}")

    def __call__(self, beta: float, kl: float, n: int) -> float:
        low, high, factor = settled(self.kl_min), settled(self.kl_max), settled(self.factor)
        bounds = settled(self.beta_min), settled(self.beta_max)
        return kl_control.threshold_beta(beta, kl, low, high, factor, bounds)


@dataclass(frozen=True, kw_only=True)
class PaperTarget:
    """β doubles above 1.5 d_targ and halves below d_targ/1.5, as in the PPO paper."""

    target: Coefficient = 0.01
    """d_targ: the KL wanted per update, in nats per step."""
    beta_min: Coefficient = 1e-6
    """β falls no lower."""
    beta_max: Coefficient = 1e6
    """β grows no higher."""

    def __post_init__(self) -> None:
        check(everywhere(lambda x: x > 0.0, self.target), self, "target", "a KL target in nats per step, such as 0.01")
        within = everywhere(lambda low, high: 0.0 < low <= high, self.beta_min, self.beta_max)
        check(within, self, "beta_min", f"it must be positive and not above beta_max = {self.beta_max}")

    def __call__(self, beta: float, kl: float, n: int) -> float:
        bounds = settled(self.beta_min), settled(self.beta_max)
        return kl_control.paper_beta(beta, kl, settled(self.target), bounds=bounds)


@dataclass(frozen=True, kw_only=True)
class Proportional:
    """β moves by at most 20 % · n/horizon towards the target (Ziegler et al. 2019)."""

    target: Coefficient = 6.0
    """The KL wanted, in the unit of the KL that is passed in: nats per sequence in RLHF."""
    horizon: Coefficient = 10_000.0
    """Episodes over which β may change by 20 %."""

    def __post_init__(self) -> None:
        check(everywhere(lambda x: x > 0.0, self.target), self, "target", "a KL target in nats, such as 6")
        some = everywhere(lambda x: x > 0.0, self.horizon)
        check(some, self, "horizon", "a positive number of episodes, such as 10000")

    def __call__(self, beta: float, kl: float, n: int) -> float:
        return kl_control.proportional_beta(beta, kl, settled(self.target), n, settled(self.horizon))


BetaRule = Thresholds | PaperTarget | Proportional


@dataclass(frozen=True, kw_only=True)
class Penalty:
    """PPO-Penalty: rΨ − β KL(π_old‖π); `rule=None` keeps β fixed. Theory 8.6."""

    beta: Coefficient = 1.0
    """β, at the start if a rule moves it: the price of one nat of KL, in units of Ψ."""
    rule: BetaRule | None = Thresholds()
    """How β moves after each update; None: it stays."""
    reuses = True

    def __post_init__(self) -> None:
        check(everywhere(lambda x: x >= 0, self.beta), self, "beta", "the price of KL is not negative")
        fixed = self.rule is None or not isinstance(self.beta, Schedule)
        check(fixed, self, "beta", "a rule moves it from a number on: give a number, or a schedule with rule=None")

    def __call__(self, terms: Terms) -> Array:
        return objectives.penalised(terms.ratio, terms.psi, terms.kl, self.beta)

    def outside(self, terms: Terms) -> Array | None:
        """No clip range."""
        return None


@dataclass(frozen=True, kw_only=True)
class TrustRegion:
    """TRPO: r_t(θ)Ψ_t subject to E[KL(π_old‖π)] ≤ δ, by one natural step of the actor a rollout. Theory 8.4.

    Before the epochs, the natural step: (F + damping)⁻¹g over the whole rollout, shortened until E[KL] ≤ δ and the
    objective has grown, or else not taken; the epochs then move the critic alone.
    Source: Schulman et al. (2015) appendix C.
    """

    delta: Coefficient = 0.01
    """δ: how far the policy may move in one update, in nats per step."""
    cg_steps: int = 15
    """Iterations of conjugate gradients on (F + damping) s = g."""
    damping: Coefficient = 0.1
    """What is added to the diagonal of the Fisher matrix F, in nats per squared parameter."""
    backtracks: int = 10
    """How many step lengths are tried, beginning with the whole one, before the actor stays as it is."""
    shrink: Coefficient = 0.8
    """Each step length tried is this share of the one before."""
    reuses = True

    def __post_init__(self) -> None:
        check(positive(self.delta), self, "delta", "a positive KL in nats per step, such as 0.01")
        check(self.cg_steps >= 1, self, "cg_steps", "take at least one; 10 to 15 are usual")
        check(everywhere(lambda x: x >= 0, self.damping), self, "damping", "0 or a small positive number, such as 0.1")
        check(self.backtracks >= 1, self, "backtracks", "at least the whole step is tried; 10 is usual")
        within = everywhere(lambda x: 0.0 < x < 1.0, self.shrink)
        check(within, self, "shrink", "a share between 0 and 1, such as 0.8")

    def __call__(self, terms: Terms) -> Array:
        return objectives.importance_weighted(terms.ratio, terms.psi)

    def outside(self, terms: Terms) -> Array | None:
        """No clip range."""
        return None


@runtime_checkable
class OwnObjective(Protocol):
    """An objective of the user's own: one number a decision, to be maximised, neither reduced nor negated."""

    @property
    def reuses(self) -> bool:
        """Whether data of an older policy may be used."""
        ...

    def __call__(self, terms: Terms) -> Array: ...

    def outside(self, terms: Terms) -> Array | None:
        """Which decisions have left its range; None: it has none."""
        ...


Objective = Likelihood | Ratio | Clip | Penalty | TrustRegion
AnyObjective = Objective | OwnObjective
