"""What an update did to the policy, measured after it: on the columns that it learned from, and on columns held out."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from vantage.control.model import Model
from vantage.recipe import Recipe
from vantage.rollout import Rollout
from vantage.theory import critics
from vantage.theory.loss import Outputs, loss

Array = Any


class ActorOnly(NamedTuple):
    """A recipe as `theory.loss` reads it, without its critic."""

    objective: Any
    ent_coef: Any
    whiten: Any
    critic: None = None


def measured(recipe: Recipe, rollout: Rollout, before: Any, after: Any) -> dict[str, Array]:
    """How far a policy went from π_old, `before`, to π, `after`, on the real rows of a rollout, and what it gained.

        surrogate_gain = reduce(objective_t(π) + c_ent H_t(π)) − the same at π_old

    Both are distributions `[T, B]`. KL and entropy are exact in each state; explained variance is that of V_old.
    """
    batch, alone = recipe.prepare(rollout), ActorOnly(recipe.objective, recipe.ent_coef, recipe.whiten)
    total, still = recipe.reduction.total(rollout), jnp.zeros_like(rollout.log_prob)
    old = Outputs(log_prob=rollout.log_prob, entropy=entropy_of(before), kl=still)
    new = Outputs(log_prob=after.log_prob(rollout.action), entropy=entropy_of(after), kl=before.kl(after))
    was, now = loss(alone, batch, old, total=total)[0], loss(alone, batch, new, total=total)
    names = ("train/kl", "train/approx_kl", "train/clip_fraction", "train/ess")
    found = {name.removeprefix("train/"): now[1][name] for name in names if name in now[1]}
    found |= {"surrogate_gain": was - now[0], "entropy": -now[1]["train/entropy_loss"]}
    if batch.value is not None and batch.target is not None:
        found["explained_variance"] = critics.explained_variance(batch.value, batch.target, batch.mask)
    return found


def entropy_of(policy: Any) -> Array | None:
    """H(π(·|s)); None where there is no closed form."""
    try:
        return policy.entropy()
    except NotImplementedError:
        return None


def gradient_norms(model: Model, gradient: Float[Array, " P"]) -> dict[str, Array]:
    """‖∇ loss‖ before it is clipped: of everything, and of what is the actor's and the critic's alone."""
    first, last = model.n_trunk, model.n_trunk + model.n_actor
    parts = {"grad_norm": gradient, "actor_grad_norm": gradient[first:last], "critic_grad_norm": gradient[last:]}
    return {f"train/{name}": jnp.sqrt(jnp.sum(part**2)) for name, part in parts.items() if part.size}


def held_out(rng: np.random.Generator, columns: int, number: int) -> Bool[Array, " B"] | None:
    """Which columns of a rollout nothing is learned from: `number` of them, drawn; None for 0."""
    return np.isin(np.arange(columns), rng.permutation(columns)[:number]) if number else None
