"""The Recipe: Ψ × objective × critic loss × reuse × reduction × whitening."""

from dataclasses import dataclass
from typing import Any, Literal

from vantage.recipe.critic import CriticLoss, Squared
from vantage.recipe.objective import AnyObjective, Clip, Penalty
from vantage.recipe.psi import GAE, AnyPsi
from vantage.recipe.reduction import Reduction, Steps
from vantage.recipe.refused import must_fit
from vantage.recipe.schedule import (
    Coefficient,
    Schedule,
    at,
    check,
    check_type,
    check_whole,
    everywhere,
    settled,
    swap,
)
from vantage.theory import reduce, returns
from vantage.theory._array import namespace
from vantage.theory.loss import Batch

PARTS = (
    ("psi", "needs_value", "a Ψ such as GAE() or TDError()"),
    ("objective", "reuses", "an objective such as Clip() or Ratio()"),
    ("critic", "__call__", "a critic loss such as Squared(), or None"),
    ("reduction", "total", "a denominator such as Steps()"),
)
"""A part of a recipe, what only such a part has, and how to give one."""


def _check_types(recipe: "Recipe") -> None:
    for name, mark, wanted in PARTS:
        part = getattr(recipe, name)
        absent = part is None and name == "critic"
        check_type(absent or (hasattr(part, mark) and not isinstance(part, type)), recipe, name, wanted)
    check_whole(recipe, "n_epochs", "n_minibatches")
    for name in ("ent_coef", "target_kl"):
        x = getattr(recipe, name)
        fits = hasattr(x, "__float__") or isinstance(x, Schedule) or (x is None and name == "target_kl")
        check_type(fits, recipe, name, "a number")


KL_STOP = 1.5
"""How many times `target_kl` a minibatch may show before the epochs end."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One algorithm. γ belongs to the problem, learning rates to `Optim`.

    Everything else that distinguishes algorithms is here.
    """

    psi: AnyPsi = GAE()
    """How a step is weighed."""
    objective: AnyObjective = Clip()
    """What the actor's step maximises."""
    critic: CriticLoss | None = Squared()
    """What the critic's step minimises; None: there is no critic."""
    n_epochs: int = 10
    """k: how often each rollout is used."""
    n_minibatches: int = 4
    """Into how many parts a rollout is split, anew in each epoch."""
    ent_coef: Coefficient = 0.0
    """c_ent, weight of the entropy bonus, in Ψ per nat."""
    whiten: Literal["minibatch", "batch"] | None = "minibatch"
    """Over what Ψ is brought to mean 0 and variance 1; None leaves it as it is."""
    target_kl: Coefficient | None = None
    """Stop the epochs before a minibatch whose k3 estimate of KL(π_old‖π) exceeds 1.5 times this; None: never."""
    reduction: Reduction = Steps()
    """The denominator of the batch."""
    time_weighting: Literal["discounted", "undiscounted"] = "undiscounted"
    """Whether step t carries γ^t: exact for the discounted J with it, the usual practice without."""
    recompute_advantages: bool = False
    """Whether Ψ and targets are computed anew before each epoch with the critic of that moment."""

    def __post_init__(self) -> None:
        _check_types(self)
        check(self.n_epochs >= 1, self, "n_epochs", "use each rollout at least once")
        check(self.n_minibatches >= 1, self, "n_minibatches", "use at least one minibatch")
        check(self.whiten in ("minibatch", "batch", None), self, "whiten", 'choose "minibatch", "batch" or None')
        check(
            self.time_weighting in ("discounted", "undiscounted"),
            self,
            "time_weighting",
            'choose "discounted" or "undiscounted"',
        )
        check(
            self.target_kl is None or everywhere(lambda x: x > 0, self.target_kl),
            self,
            "target_kl",
            "a positive KL in nats per step, such as 0.01, or None",
        )
        must_fit(self)

    @property
    def kl_bound(self) -> Any:
        """The KL estimate beyond which the epochs end before a minibatch, 1.5 · target_kl in nats; None: never."""
        return None if self.target_kl is None else KL_STOP * settled(self.target_kl)

    def at(self, progress: float, beta: float | None = None) -> "Recipe":
        """The recipe at a moment of the run: schedules become numbers, and β is the one in the training state."""
        now = at(self, progress)
        if beta is not None and isinstance(now.objective, Penalty) and now.objective.rule is not None:
            now = swap(now, objective=swap(now.objective, beta=beta))
        return now

    def prepare(self, rollout: Any) -> Batch:
        """Ψ and the critic's target of a rollout, `[T, B]`, computed once and held fixed while the data is reused."""
        weights, target = self.psi(rollout)
        if self.time_weighting == "discounted" and not self.psi.counts_from_start:
            gamma = namespace(weights).asarray(rollout.gamma, dtype=weights.dtype)
            weights = weights * returns.discount_weight(rollout.time, gamma)
        row_weight = None if rollout.weight is None else rollout.row_weight
        if self.whiten == "batch":
            weights = reduce.whiten(weights, rollout.mask, row_weight)
        weigh = getattr(self.reduction, "weight", None)
        row_weight = row_weight if weigh is None else weigh(rollout)
        said = rollout.value if rollout.action_value is None else rollout.action_value
        return Batch(
            log_prob=rollout.log_prob, psi=weights, target=target, value=said, reward=rollout.signal,
            discount=rollout.discount, mask=rollout.mask, weight=row_weight,
        )  # fmt: skip
