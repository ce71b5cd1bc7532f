"""The one place where outputs become a scalar, and where the one minus sign stands."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Bool, Float

from vantage.theory import divergences, importance, objectives, reduce
from vantage.theory._array import Array, keep, namespace, stop_gradient


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What an update reads: rows of a rollout, with Ψ and the critic's target already computed and fixed.

    Shapes: all alike.
    """

    log_prob: Float[Array, "*S"]
    """log π_old(a_t|s_t)."""
    psi: Float[Array, "*S"]
    """Ψ_t."""
    target: Float[Array, "*S"] | None = None
    """R_t, what the critic is drawn to."""
    value: Float[Array, "*S"] | None = None
    """V_old(s_t); Q_old(s_t, a_t) of a critic of actions."""
    reward: Float[Array, "*S"] | None = None
    """The signal r_t; only the residual TD error reads it."""
    discount: Float[Array, "*S"] | None = None
    """γ_t; only the residual TD error reads it."""
    reference_log_prob: Float[Array, "*S"] | None = None
    """log π_ref(a_t|s_t) of a model that π must not leave far behind; only `reference` reads it."""
    correction: Float[Array, "*S"] | None = None
    """w_t, the weight of a decision that another program than the trainer sampled; None: 1."""
    mask: Bool[Array, "*S"] | None = None
    weight: Float[Array, "*S"] | None = None


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What the networks say now about the same rows; gradients flow through these alone."""

    log_prob: Float[Array, "*S"]
    """log π_θ(a_t|s_t)."""
    entropy: Float[Array, "*S"] | None = None
    """H(π_θ(·|s_t)); None where there is no closed form: its estimate −r_t(θ) log π_θ(a_t|s_t) then stands in."""
    kl: Float[Array, "*S"] | None = None
    """KL(π_old(·|s_t)‖π_θ(·|s_t)), exact; None: its k3 estimate."""
    value: Float[Array, "*S"] | None = None
    """V_φ(s_t); Q_φ(s_t, a_t) of a critic of actions."""
    next_value: Float[Array, "*S"] | None = None
    """V_φ(s_{t+1}); only the residual TD error reads it."""
    reference_kl: Float[Array, "*S"] | None = None
    """KL(π_θ(·|s_t)‖π_ref(·|s_t)), exact; only `reference` reads it."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What an objective may use, per decision: Ψ_t, log π_θ, r_t(θ), KL(π_old‖π_θ), and of a reference model
    log π_ref and KL(π_θ‖π_ref).
    """

    psi: Float[Array, "*S"]
    log_prob: Float[Array, "*S"]
    ratio: Float[Array, "*S"]
    kl: Float[Array, "*S"]
    reference_log_prob: Float[Array, "*S"] | None = None
    reference_kl: Float[Array, "*S"] | None = None


@runtime_checkable
class Plan(Protocol):
    """The part of a Recipe that the loss reads."""

    @property
    def objective(self) -> Any: ...
    @property
    def critic(self) -> Any: ...
    @property
    def ent_coef(self) -> Any: ...
    @property
    def whiten(self) -> Any: ...


def loss(
    recipe: Plan,
    batch: Batch,
    outputs: Outputs,
    *,
    vf_coef: float | Float[Array, ""] = 1.0,
    total: float | Float[Array, ""] | None = None,
    reference: Callable[[Terms], Array] | None = None,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """What the update minimises.

        −reduce(w_t objective_t − reference_t + c_ent H_t) + c_v · reduce(critic loss_t)

    `reference` is the price of leaving the reference model, such as `KLInLoss`; w_t the batch's `correction`. Ψ is
    whitened over the rows given if the recipe says so, then held fixed. `total` is the denominator of
    `reduce`: pass it to split a batch into parts that add up. Masked rows, NaN included, change neither value nor
    gradient. Shapes: all fields alike → scalar and a dict of scalar metrics. Source: Schulman et al. (2017) eq. 9.
    """
    mask, weight = batch.mask, batch.weight
    batch, outputs = _real(batch, mask), _real(outputs, mask)
    terms = _terms(recipe, batch, outputs)
    entropy = -terms.ratio * terms.log_prob if outputs.entropy is None else outputs.entropy
    gain = recipe.objective(terms)
    gain = gain if batch.correction is None else objectives.importance_weighted(batch.correction, gain)
    gain = gain if reference is None else gain - reference(terms)
    surrogate = reduce.reduce(objectives.with_entropy(gain, entropy, recipe.ent_coef), mask, weight, total)
    value = -surrogate
    metrics = _policy_metrics(recipe, terms, batch)
    metrics["train/policy_gradient_loss"] = -reduce.reduce(stop_gradient(gain), mask, weight, total)
    metrics["train/entropy_loss"] = -reduce.mean(stop_gradient(entropy), mask, weight)
    if recipe.critic is not None:
        value_loss = reduce.reduce(recipe.critic(batch, outputs.value, outputs.next_value), mask, weight, total)
        value = value + vf_coef * value_loss
        metrics["train/value_loss"] = stop_gradient(value_loss)
    metrics["train/loss"] = stop_gradient(value)
    return value, metrics


def _real(record: Any, mask: Array | None) -> Any:
    """The record with masked entries replaced before any exp or log can spread what stands there."""
    return replace(record, **{f.name: keep(getattr(record, f.name), mask) for f in fields(record) if f.name != "mask"})


def _terms(recipe: Plan, batch: Batch, outputs: Outputs) -> Terms:
    log_prob, old = outputs.log_prob, stop_gradient(batch.log_prob)
    psi = reduce.whiten(batch.psi, batch.mask, batch.weight) if recipe.whiten == "minibatch" else batch.psi
    kl = divergences.k3(old, log_prob) if outputs.kl is None else outputs.kl
    return Terms(
        psi=stop_gradient(psi), log_prob=log_prob, ratio=importance.ratio(log_prob, old), kl=kl,
        reference_log_prob=stop_gradient(batch.reference_log_prob), reference_kl=outputs.reference_kl,
    )  # fmt: skip


def _policy_metrics(recipe: Plan, terms: Terms, batch: Batch) -> dict[str, Array]:
    mask, weight = batch.mask, batch.weight
    ratio, old, now = stop_gradient(terms.ratio), stop_gradient(batch.log_prob), stop_gradient(terms.log_prob)
    xp = namespace(ratio)
    metrics = {
        "train/approx_kl": reduce.mean(divergences.k3(old, now), mask, weight),
        "train/kl": reduce.mean(stop_gradient(terms.kl), mask, weight),
        "train/ess": importance.effective_sample_size(ratio, mask, weight) / reduce.total_steps(ratio, mask, weight),
        "train/ratio_deviation": xp.max(keep(xp.abs(ratio - 1.0), mask)),
    }
    outside = recipe.objective.outside(terms)
    if outside is not None:
        metrics["train/clip_fraction"] = reduce.mean(xp.astype(outside, ratio.dtype), mask, weight)
    return metrics
