"""TRPO's move of the actor: a natural step by conjugate gradients, shortened until it keeps to its trust region."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.sparse.linalg import cg
from jaxtyping import Float

from vantage.control.coefficients import numbers, refill, structure
from vantage.control.measure import ActorOnly
from vantage.control.model import Model
from vantage.control.update import memory_of, outputs
from vantage.recipe import Recipe, TrustRegion
from vantage.rollout import Rollout
from vantage.theory import reduce
from vantage.theory.loss import loss

Array = Any
Product = Callable[[Array], Array]
RESIDUAL = 1e-6
"""Conjugate gradients end at ‖g − (F + damping) s‖ ≤ this · ‖g‖: float32 holds no better."""


class Trial(NamedTuple):
    """One length of the line search: the actor there, its KL from the old one, its gain, and whether it will do."""

    tried: Array
    actor: Float[Array, " N"]
    kl: Array
    gain: Array
    accepted: Array


def move_actor(
    model: Model, recipe: Recipe, vector: Float[Array, " P"], rollout: Rollout
) -> tuple[Float[Array, " P"], dict[str, Array]]:
    """The parameters after the actor's natural step on the whole rollout; the critic's are not touched.

        maximise L(θ) = reduce(r_t(θ)Ψ_t + c_ent H_t)   subject to   E[KL(π_old‖π_θ)] ≤ δ

    Whole step as in `natural_step`, shortened to `shrink`^i of it until E[KL] ≤ δ and L has grown: both evaluated in
    float64 at the parameters as they will be stored, for in float32 a KL is good to about 1e-7 nats only. If no length
    does, the parameters come back bit for bit. Masked rows count nowhere; row weights count everywhere.
    Source: Schulman et al. (2015) section 6, appendix C; theory 8.4.
    """
    with jax.enable_x64(True):
        return _move(model, structure(recipe), vector, numbers(recipe), vars(rollout))


@partial(jax.jit, static_argnames=("model", "plan"))
def _move(
    model: Model, plan: Recipe, vector: Float[Array, " P"], values: list[Any], columns: dict[str, Any]
) -> tuple[Float[Array, " P"], dict[str, Array]]:
    recipe, rollout = refill(plan, values), Rollout(**columns)
    region, batch = recipe.objective, recipe.prepare(rollout)
    alone, total = ActorOnly(region, recipe.ent_coef, recipe.whiten), recipe.reduction.total(rollout)
    actor, critic = vector[: model.n_actor], vector[model.n_actor :]
    inputs = {"observation": _finite(rollout.observation, rollout.mask), "action": rollout.action}
    inputs["memory"] = memory_of(model, rollout)

    def whole(part: Array) -> Array:
        return jnp.concatenate([part, critic.astype(part.dtype)])

    def cost(part: Array) -> tuple[Array, dict[str, Array]]:
        return loss(alone, batch, outputs(model, recipe, whole(part), inputs), total=total)

    def policy(part: Array) -> Any:
        return model.policy(whole(part), inputs["observation"], inputs["memory"])

    def divergence(old: Any) -> Product:
        return lambda part: reduce.mean(old.kl(policy(part)), batch.mask, batch.weight)

    slope, now = jax.grad(cost, has_aux=True)(actor)
    curvature = fisher_product(divergence(policy(actor)), actor)
    before = cost(wide(actor))[0]
    found = search(
        actor, natural_step(-slope, curvature, region), region,
        kl=divergence(policy(wide(actor))), gain=lambda part: before - cost(part)[0],
    )  # fmt: skip
    return whole(found.actor), {
        "train/policy_objective": -before,
        "train/surrogate_gain": found.gain,
        "train/actor_grad_norm": jnp.linalg.norm(slope),
        "train/kl": found.kl,
        "train/line_search_steps": found.tried,
        "train/is_line_search_success": found.accepted,
        "train/first_ratio_deviation": now["train/ratio_deviation"],
    }


def fisher_product(kl: Product, actor: Float[Array, " N"]) -> Product:
    """The product with the Fisher matrix of the rows' states, v ↦ Fv, without the matrix.

        F = ∇²_θ E[KL(π_old‖π_θ)] at θ = θ_old   (= E[∇log π ∇log πᵀ])

    `kl` is θ ↦ E[KL(π_old‖π_θ)], exact over actions; its gradient is differentiated once more along v.
    Shapes `[N]` → `[N]`. Source: Schulman et al. (2015) appendix C.1; theory 8.4.
    """
    return jax.linearize(jax.grad(kl), actor)[1]


def natural_step(gradient: Float[Array, " N"], curvature: Product, region: TrustRegion) -> Float[Array, " N"]:
    """The step along s = (F + damping)⁻¹g that reaches δ in the quadratic model of the KL with that same matrix.

        √(2δ / sᵀ(F + damping)s) · s

    `curvature` is v ↦ Fv. The damping stands in the length too, as in baselines and sb3-contrib, so the
    true KL of the step falls short of δ rather than past it. Shapes `[N]`. A gradient of 0 gives a step of 0.
    Source: Schulman et al. (2015) appendix C.
    """
    size = jnp.max(jnp.abs(gradient))  # no gradient's square over- or underflows
    scaled = gradient / jnp.where(size > 0, size, 1.0)

    def damped(v: Array) -> Array:
        return curvature(v) + (region.damping * v).astype(v.dtype)

    direction, _ = cg(damped, scaled, tol=RESIDUAL, maxiter=region.cg_steps)
    quadratic = direction @ damped(direction)
    length = jnp.sqrt(2.0 * cast(float, region.delta) / jnp.where(size > 0, quadratic, 1.0))
    return (length * direction).astype(gradient.dtype)


def search(
    actor: Float[Array, " N"], step: Float[Array, " N"], region: TrustRegion, kl: Product, gain: Product
) -> Trial:
    """The longest of the steps `shrink`^i · step, i < backtracks, with kl ≤ δ and gain > 0; the actor as it was if none
    has both.

    `kl` and `gain` are functions of the actor in float64. A step that is 0 or not finite is not tried.
    """

    def attempt(trial: Trial) -> Trial:
        moved = (actor + region.shrink**trial.tried * step).astype(actor.dtype)
        far, more = kl(wide(moved)), gain(wide(moved))
        return Trial(trial.tried + 1, moved, far, more, (far <= region.delta) & (more > 0))

    nothing = jnp.zeros((), jnp.float64)
    still = Trial(jnp.int32(0), actor, nothing, nothing, jnp.bool_(False))
    possible = jnp.isfinite(step).all() & (step != 0).any()
    last = lax.while_loop(lambda t: possible & ~t.accepted & (t.tried < region.backtracks), attempt, still)
    return jax.tree.map(partial(jnp.where, last.accepted), last, still._replace(tried=last.tried))


def wide(x: Array) -> Array:
    """x in float64."""
    return x.astype(jnp.float64)


def _finite(observation: Any, mask: Array) -> Any:
    """Observations with 0 in masked rows, lest what stands there reach a gradient as 0 · NaN."""
    return jax.tree.map(lambda x: jnp.where(mask.reshape(*mask.shape, *(1,) * (x.ndim - mask.ndim)), x, 0), observation)
