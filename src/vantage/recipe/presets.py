"""The algorithms by name: each is a function that returns a Recipe."""

import difflib
from collections.abc import Callable
from dataclasses import fields
from typing import Any, Literal

from vantage.recipe.core import Recipe
from vantage.recipe.critic import Squared
from vantage.recipe.objective import BetaRule, Clip, Likelihood, Objective, Penalty, Ratio, Thresholds
from vantage.recipe.psi import GAE, Psi, RewardToGo, TDError
from vantage.recipe.reduction import Trajectories
from vantage.recipe.schedule import Coefficient


def REINFORCE(*, psi: Psi = RewardToGo(), whiten: Literal["minibatch", "batch"] | None = None, **others: Any) -> Recipe:
    """Ψ log π once, on whole episodes: E_{τ∼π_θ}[Σ_t Ψ_t ∇log π_θ(a_t|s_t)]. Theory 5, 6.1."""
    needs = dict(critic=Squared() if psi.needs_value else None, n_epochs=1, n_minibatches=1, reduction=Trajectories())
    return recipe(Likelihood(), **{**needs, "psi": psi, "whiten": whiten, **others})


def ActorCritic(*, psi: Psi = TDError(), whiten: Literal["minibatch", "batch"] | None = None, **others: Any) -> Recipe:
    """Ψ log π once, with the TD error as Ψ, meant for batches of single steps. Theory 7.1, 7.2."""
    return A2C(psi=psi, whiten=whiten, **others)


def A2C(*, psi: Psi = GAE(lam=1.0), whiten: Literal["minibatch", "batch"] | None = None, **others: Any) -> Recipe:
    """Actor-critic: Ψ log π once, with Ψ from the critic. Theory 7."""
    return recipe(Likelihood(), **{"n_epochs": 1, "n_minibatches": 1, "psi": psi, "whiten": whiten, **others})


def ImportanceWeighted(*, psi: Psi = GAE(), **others: Any) -> Recipe:
    """r_t(θ)Ψ_t, k times over the same data, with nothing holding π near π_old. Theory 8.2."""
    return recipe(Ratio(), **{"psi": psi, **others})


def PPO(
    *,
    clip_range: Coefficient = 0.2,
    clip_range_high: Coefficient | None = None,
    dual_clip: float | None = None,
    gae_lambda: Coefficient = 0.95,
    psi: Psi | None = None,
    **others: Any,
) -> Recipe:
    """PPO-Clip: min(rΨ, clip(r, 1−ε, 1+ε)Ψ), k epochs of minibatches. Theory 8.5."""
    return recipe(Clip(low=clip_range, high=clip_range_high, dual=dual_clip), psi=psi or GAE(lam=gae_lambda), **others)


def PPOPenalty(
    *,
    beta: float = 1.0,
    rule: BetaRule | None = Thresholds(),
    gae_lambda: Coefficient = 0.95,
    psi: Psi | None = None,
    **others: Any,
) -> Recipe:
    """PPO-Penalty: rΨ − β KL(π_old‖π), β adapted once per update. Theory 8.6."""
    return recipe(Penalty(beta=beta, rule=rule), psi=psi or GAE(lam=gae_lambda), **others)


def recipe(objective: Objective, **options: Any) -> Recipe:
    """A Recipe with the given objective; an unknown option is an error that suggests the nearest one."""
    known = [f.name for f in fields(Recipe)]
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise TypeError(f"unknown recipe option {name!r}: {hint}")
    return Recipe(objective=objective, **options)


RECIPES: dict[str, Callable[..., Recipe]] = {
    "reinforce": REINFORCE,
    "actor-critic": ActorCritic,
    "a2c": A2C,
    "importance-weighted": ImportanceWeighted,
    "ppo": PPO,
    "ppo-penalty": PPOPenalty,
}
"""The named recipes, as the command line knows them."""
