"""What the library would do with a whole enumeration as its batch: the left-hand side of most claims."""

from collections.abc import Callable
from typing import Any

import numpy as np

from vantage import theory
from vantage.recipe import REINFORCE, Columns, Recipe, TotalReturn
from vantage.rollout import Rollout
from vantage.theory import distributions, returns
from vantage.verify.backend import Backend
from vantage.verify.worlds import THETA

Array = Any

PLAIN = REINFORCE(psi=TotalReturn(), reduction=Columns())
"""Σ_t Ψ_t log π_θ(a_t|s_t), summed over time and averaged over columns: its gradient is ∇J as the theory writes it."""


def outputs(theta: Array, r: Rollout) -> theory.Outputs:
    """What a table policy with logits θ, and the rollout's own critic, say about its rows."""
    new = distributions.Categorical(theta[r.observation])
    kl = None if r.policy is None else distributions.Categorical(r.policy[0]).kl(new)
    return theory.Outputs(log_prob=new.log_prob(r.action), entropy=new.entropy(), kl=kl, value=r.value)


def objective(
    plan: Recipe, r: Rollout, batch: theory.Batch | None = None, total: Array | None = None
) -> Callable[[Array], Array]:
    """θ ↦ what the update maximises, with the rollout as its batch: minus `theory.loss`."""
    batch = plan.prepare(r) if batch is None else batch
    total = plan.reduction.total(r) if total is None else total
    return lambda theta: -theory.loss(plan, batch, outputs(theta, r), total=total)[0]


def ascent(
    on: Backend, plan: Recipe, rollout: Rollout, batch: theory.Batch | None = None, theta: Array = THETA, **options: Any
) -> Array:
    """∇_θ of `objective` at θ, `[S, A]`: the direction in which the library's own update would go."""
    return on.gradient(objective(plan, on.rollout(rollout), batch, **options), theta)


def weighed(r: Rollout, psi: Array, discounted: bool = True) -> theory.Batch:
    """A batch with any Ψ `[T, B]`, times γ^t for the gradient of the discounted J."""
    weight = returns.discount_weight(r.time, r.gamma) if discounted else 1.0
    return theory.Batch(log_prob=r.log_prob, psi=psi * weight, mask=r.mask, weight=r.row_weight)


def conditional_mean(rollout: Rollout, x: Array, shape: tuple[int, int, int]) -> Array:
    """E[x_t | s_t = s, a_t = a], `[T, S, A]`, of a quantity `[T, B]` over an enumeration."""
    total, weight = np.zeros(shape), np.zeros(shape)
    at = (np.asarray(rollout.time), np.asarray(rollout.observation), np.asarray(rollout.action))
    p = np.where(rollout.mask, np.asarray(rollout.row_weight), 0.0)
    np.add.at(total, at, p * x)
    np.add.at(weight, at, p)
    with np.errstate(invalid="ignore"):
        return total / weight
