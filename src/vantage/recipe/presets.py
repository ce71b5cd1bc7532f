"""The algorithms by name: each is a function that returns a Recipe."""

from collections.abc import Callable
from dataclasses import fields, replace
from difflib import get_close_matches
from functools import wraps
from inspect import signature
from typing import Any, Literal, ParamSpec

from vantage.recipe.core import Recipe
from vantage.recipe.critic import QCritic, Squared
from vantage.recipe.objective import BetaRule, Clip, Likelihood, Penalty, Ratio, Thresholds, TrustRegion
from vantage.recipe.psi import GAE, AnyPsi, GroupRelative, RewardToGo, TDError
from vantage.recipe.reduction import Columns, Reduction, SequenceMean, Trajectories
from vantage.recipe.refused import reads_action_values
from vantage.recipe.schedule import Coefficient

P = ParamSpec("P")


def _named(build: Callable[P, Recipe]) -> Callable[P, Recipe]:
    """The same function, whose unknown options are errors that suggest the nearest one."""
    own = [name for name, p in signature(build).parameters.items() if p.kind is not p.VAR_KEYWORD]
    known = list(dict.fromkeys([*own, *(f.name for f in fields(Recipe) if f.name != "objective")]))

    @wraps(build)
    def checked(*args: P.args, **options: P.kwargs) -> Recipe:
        for name in options:
            if name not in known:
                near = get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
                raise TypeError(f"{build.__name__} has no option {name!r}: {hint}")
        if "gae_lambda" in options and options.get("psi") is not None:
            raise TypeError(
                f"{build.__name__} was given gae_lambda = {options['gae_lambda']!r} and psi = {options['psi']!r}: "
                "leave out one of them; a λ for your psi is psi=GAE(lam=…)"
            )
        recipe = build(*args, **options)
        object.__setattr__(recipe, "told", (build.__name__, frozenset(options)))
        return recipe

    return checked


def in_world(recipe: Recipe, defaults: dict[str, dict[str, Any]]) -> Recipe:
    """The recipe with a world's own defaults for what its preset was not told.

    `defaults` maps a preset's name to options of `Recipe`; one that was assembled by hand stays as it is.
    """
    preset, told = vars(recipe).get("told", ("", frozenset()))
    return replace(recipe, **{k: v for k, v in defaults.get(preset, {}).items() if k not in told})


@_named
def REINFORCE(
    *, psi: AnyPsi = RewardToGo(), whiten: Literal["minibatch", "batch"] | None = None, **others: Any
) -> Recipe:
    """Ψ log π once, on whole episodes: E_{τ∼π_θ}[Σ_t Ψ_t ∇log π_θ(a_t|s_t)]. Theory 5, 6.1."""
    critic = QCritic() if reads_action_values(psi) else Squared()
    needs = dict(
        critic=critic if getattr(psi, "needs_value", True) else None,
        n_epochs=1,
        n_minibatches=1,
        reduction=Trajectories(),
    )
    return Recipe(objective=Likelihood(), **{**needs, "psi": psi, "whiten": whiten, **others})


@_named
def ActorCritic(
    *, psi: AnyPsi = TDError(), whiten: Literal["minibatch", "batch"] | None = None, **others: Any
) -> Recipe:
    """Ψ log π once, with the TD error as Ψ, meant for batches of single steps. Theory 7.1, 7.2."""
    return A2C(psi=psi, whiten=whiten, **others)


@_named
def A2C(*, psi: AnyPsi = GAE(lam=1.0), whiten: Literal["minibatch", "batch"] | None = None, **others: Any) -> Recipe:
    """Actor-critic: Ψ log π once, with Ψ from the critic. Theory 7."""
    return Recipe(objective=Likelihood(), psi=psi, whiten=whiten, **{"n_epochs": 1, "n_minibatches": 1, **others})


@_named
def ImportanceWeighted(*, psi: AnyPsi = GAE(), **others: Any) -> Recipe:
    """r_t(θ)Ψ_t, k times over the same data, with nothing holding π near π_old. Theory 8.2."""
    return Recipe(objective=Ratio(), psi=psi, **others)


@_named
def TRPO(
    *,
    delta: Coefficient = 0.01,
    cg_steps: int = 15,
    damping: Coefficient = 0.1,
    backtracks: int = 10,
    shrink: Coefficient = 0.8,
    gae_lambda: Coefficient = 0.95,
    psi: AnyPsi | None = None,
    whiten: Literal["minibatch", "batch"] | None = "batch",
    **others: Any,
) -> Recipe:
    """TRPO: rΨ subject to E[KL(π_old‖π)] ≤ δ, one natural step a rollout; the epochs are the critic's. Theory 8.4."""
    region = TrustRegion(delta=delta, cg_steps=cg_steps, damping=damping, backtracks=backtracks, shrink=shrink)
    sizes = {"n_epochs": 10, "n_minibatches": 8, **others}
    return Recipe(objective=region, psi=psi or GAE(lam=gae_lambda), whiten=whiten, **sizes)


@_named
def PPO(
    *,
    clip_range: Coefficient = 0.2,
    clip_range_high: Coefficient | None = None,
    dual_clip: Coefficient | None = None,
    gae_lambda: Coefficient = 0.95,
    psi: AnyPsi | None = None,
    **others: Any,
) -> Recipe:
    """PPO-Clip: min(rΨ, clip(r, 1−ε, 1+ε)Ψ), k epochs of minibatches. Theory 8.5."""
    clip = Clip(low=clip_range, high=clip_range_high, dual=dual_clip)
    return Recipe(objective=clip, psi=psi or GAE(lam=gae_lambda), **others)


@_named
def PPOPenalty(
    *,
    beta: Coefficient = 1.0,
    rule: BetaRule | None = Thresholds(),
    gae_lambda: Coefficient = 0.95,
    psi: AnyPsi | None = None,
    **others: Any,
) -> Recipe:
    """PPO-Penalty: rΨ − β KL(π_old‖π), β adapted once per update. Theory 8.6."""
    return Recipe(objective=Penalty(beta=beta, rule=rule), psi=psi or GAE(lam=gae_lambda), **others)


@_named
def GRPO(
    *,
    group_size: int = 8,
    scale: bool = True,
    clip_range: Coefficient = 0.2,
    clip_range_high: Coefficient | None = None,
    dual_clip: Coefficient | None = None,
    reduction: Reduction = SequenceMean(),
    **others: Any,
) -> Recipe:
    """GRPO: PPO-Clip without a critic, Ψ relative to the other answers to the same prompt. Shao et al. (2024).

    Its variants are options: `scale=False` with `ConstantLength` (Dr. GRPO), `clip_range_high` with `Steps` (DAPO).
    """
    clip = Clip(low=clip_range, high=clip_range_high, dual=dual_clip)
    sizes = {"n_epochs": 1, "n_minibatches": 1, "whiten": None, "critic": None, **others}
    return Recipe(
        objective=clip, **{"psi": GroupRelative(size=group_size, scale=scale), "reduction": reduction, **sizes}
    )


@_named
def RLOO(*, group_size: int = 4, **others: Any) -> Recipe:
    """RLOO: Ψ log π once, less the mean return of the other answers to the same prompt. Ahmadian et al. (2024)."""
    group = GroupRelative(size=group_size, leave_one_out=True, scale=False)
    sizes = {"n_epochs": 1, "n_minibatches": 1, "whiten": None, "critic": None, "reduction": Columns(), **others}
    return Recipe(objective=Likelihood(), **{"psi": group, **sizes})


RECIPES: dict[str, Callable[..., Recipe]] = {
    "reinforce": REINFORCE,
    "actor-critic": ActorCritic,
    "a2c": A2C,
    "importance-weighted": ImportanceWeighted,
    "trpo": TRPO,
    "ppo": PPO,
    "ppo-penalty": PPOPenalty,
}
"""The named recipes, as the command line knows them."""

LANGUAGE_RECIPES: dict[str, Callable[..., Recipe]] = {
    **{name: build for name, build in RECIPES.items() if build is not TRPO},
    "grpo": GRPO,
    "rloo": RLOO,
}
"""Those for language models: with groups of answers to one prompt, without a trust region."""

EVERY_RECIPE: dict[str, Callable[..., Recipe]] = {**RECIPES, **LANGUAGE_RECIPES}
"""The named recipes of all worlds."""
