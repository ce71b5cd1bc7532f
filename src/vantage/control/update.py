"""Scoring and learning: two compiled functions of the flat parameter vector."""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Bool, Float, Int

from vantage.control.coefficients import refill
from vantage.control.measure import entropy_of, gradient_norms, measured
from vantage.control.model import Model
from vantage.control.recurrent import Memory
from vantage.recipe import Adam, Joint, Penalty, Recipe, ResidualTD, RMSProp, RMSPropTF, Separate, TrustRegion
from vantage.rollout import Rollout
from vantage.theory import psi, reduce
from vantage.theory.loss import Batch, Outputs, loss

Array = Any
BLOCK = 2048
"""Rows that the networks read at a time outside of minibatches."""


class Moving(NamedTuple):
    """What learning changes: parameters, and the optimiser's state, such as Adam's moments and count."""

    vector: Float[Array, " P"]
    optimiser: Any


class Metrics(eqx.Module):
    """Named scalars as one vector, so that a single transfer brings them to the host."""

    values: Float[Array, " K"]
    names: tuple[str, ...] = eqx.field(static=True)

    def read(self) -> dict[str, float]:
        """The numbers by name."""
        return dict(zip(self.names, np.asarray(self.values).tolist(), strict=True))


@jax.tree_util.register_static
@dataclass(frozen=True)
class Fixed:
    """What is part of a compiled program, not among its numbers."""

    value: Any


class Rates(NamedTuple):
    """The optimiser at this moment, with plain numbers so that schedules do not compile anew."""

    actor: Any
    critic: Any
    vf_coef: Any
    max_grad_norm: Any
    eps: Any
    optimiser: Fixed


@partial(jax.jit, static_argnames=("model",))
def score(
    model: Model,
    vector: Float[Array, " P"],
    observation: Array,
    reached: Array,
    action: Array,
    memory: Memory | None = None,
) -> dict[str, Any]:
    """log π_old(a_t|s_t), the parameters of π_old(·|s_t), V(s_t) and V(s_{t+1}) of a whole rollout, by the functions
    that `learn` differentiates; from `memory` on, with the `carry` after the last row, if the networks remember.

    V(s_{t+1}) is that of the observation reached, upon the state after row t.
    """

    def scored(observation: Array, reached: Array, action: Array) -> dict[str, Any]:
        says = model.run(vector, observation, memory)
        found: dict[str, Any] = {"log_prob": says.policy.log_prob(action), "policy": says.policy.parameters}
        if model.has_critic:
            found |= {"value": says.value, "next_value": model.value(vector, reached, says.states)}
        if says.action_values is not None:
            found["action_value"] = psi.action_value(says.action_values, action)
        if says.states is not None:
            found["carry"] = says.states[-1]
        return found

    return in_blocks(model, scored, observation, reached, action)


def in_blocks(model: Model, f: Callable[..., Any], *rows: Array) -> Any:
    """f of rows `[T, B, …]` that do not depend on each other, a block of them at a time: what the networks compute on
    the way then stays in the processor's cache. For networks that remember, all at once.
    """
    steps, columns = rows[0].shape[:2]
    if model.carry or steps * columns <= 2 * BLOCK:
        return f(*rows)
    length = max(BLOCK // columns, 1)
    end = steps - steps % length
    blocks = [x[:end].reshape(-1, length, *x.shape[1:]) for x in rows]
    parts = [jax.tree.map(lambda x: x.reshape(end, *x.shape[2:]), lax.map(lambda block: f(*block), blocks))]
    parts += [f(*(x[end:] for x in rows))] if end < steps else []
    return jax.tree.map(lambda *x: jnp.concatenate(x), *parts)


def memory_of(model: Model, rollout: Rollout) -> Memory | None:
    """What a recurrent policy needs to know of a rollout; None for one that does not remember."""
    if not model.carry:
        return None
    return Memory(carry=rollout.carry, begins=cast(Any, rollout.time) == 0, mask=rollout.mask)


@partial(jax.jit, static_argnames=("model", "plan", "separate"), donate_argnames=("moving",))
def learn(
    model: Model,
    plan: Recipe,
    separate: bool,
    moving: Moving,
    numbers: list[Any],
    rates: Rates,
    columns: dict[str, Any],
    reached: Array,
    rows: Int[Array, "E M N"],
    held: Bool[Array, " B"] | None = None,
) -> tuple[Moving, Metrics]:
    """All epochs over one rollout: E epochs of M minibatches, whose N items `rows` names: rows, or sequences of rows
    if the networks remember (a number past the last item is padding).

    `plan` is the recipe with `numbers` taken out of it; of the columns `held` nothing is learned, and no row may name
    them. Returns what moved, and metrics averaged over the minibatches, or measured after the last.
    """
    recipe, whole = refill(plan, numbers), Rollout(**columns)
    rollout = only(whole, held, False)
    memory, split = memory_of(model, rollout), partial(items, model)
    table = jax.tree.map(split, _inputs(recipe, rollout, reached, memory))
    starts, bound = _starts(model, moving.vector, rollout.observation, memory), recipe.kl_bound
    total, seen = recipe.reduction.total(rollout), reduce.total_steps(rollout.reward, rollout.mask)

    def prepare(vector: Array) -> dict[str, Array]:
        return _fields(split, recipe.prepare(_valued(model, vector, rollout, reached, memory)))

    def minibatch(epoch: Array, i: Array, batch: dict[str, Array], moving: Moving) -> tuple[Array, dict[str, Array]]:
        chosen = rows[epoch, i]
        part, inputs = _batch(model, batch, chosen), _take(model, table, chosen)
        if starts is not None:
            carry = _take(model, starts, chosen)[0]
            inputs["memory"] = Memory(carry=carry, begins=inputs.pop("begins"), mask=cast(Array, part.mask))
        share = total * reduce.total_steps(part.log_prob, part.mask) / seen

        def value(vector: Array) -> tuple[Array, dict[str, Array]]:
            says = outputs(model, recipe, _held(model, recipe, vector), inputs)
            return loss(recipe, part, says, vf_coef=rates.vf_coef, total=share)

        gradient, metrics = jax.grad(value, has_aux=True)(moving.vector)
        return gradient, metrics | gradient_norms(model, gradient)

    def step(state: tuple) -> tuple:
        epoch, i, moving, batch, sums, stopped = state
        gradient, metrics = minibatch(epoch, i, batch, moving)
        stopped = stopped if bound is None else metrics["train/approx_kl"] > bound
        moved = _descend(model, moving, gradient, rates, separate)
        moving = moved if bound is None else jax.tree.map(partial(jnp.where, stopped), moving, moved)
        return epoch, i + 1, moving, batch, _accumulate(sums, metrics), stopped

    def epoch(state: tuple) -> tuple:
        number, moving, batch, sums, stopped = state
        if recipe.recompute_advantages:
            batch = prepare(moving.vector)
        inner = (number, jnp.int32(0), moving, batch, sums, stopped)
        inner = lax.while_loop(lambda s: (s[1] < rows.shape[1]) & ~s[5], step, inner)
        return number + 1, *inner[2:]

    batch = _fields(split, recipe.prepare(rollout))
    begun = (jnp.int32(0), moving, batch, _no_metrics(minibatch, batch, moving), jnp.bool_(False))
    _, moving, _, sums, _ = lax.while_loop(lambda s: (s[0] < rows.shape[0]) & ~s[4], epoch, begun)
    return moving, _summary(model, recipe, moving.vector, whole, held, sums)


def _inputs(recipe: Recipe, rollout: Rollout, reached: Array, memory: Memory | None) -> dict[str, Any]:
    """What the networks read of each row, and the policy that acted there."""
    table = {"observation": rollout.observation, "action": rollout.action, "policy": rollout.policy}
    table |= {"reached": reached} if isinstance(recipe.critic, ResidualTD) else {}
    return table | ({} if memory is None else {"begins": memory.begins})


def _valued(model: Model, vector: Array, rollout: Rollout, reached: Array, memory: Memory | None) -> Rollout:
    """The rollout with the values that the critic of this moment says."""
    fresh = score(model, vector, rollout.observation, reached, rollout.action, memory)
    now = {name: fresh[name] for name in ("value", "action_value", "next_value") if name in fresh}
    return replace(rollout, **now)


def only(rollout: Rollout, held: Bool[Array, " B"] | None, which: bool) -> Rollout:
    """The rollout with the decisions of the columns that are held out (`which`), or of the others, alone."""
    return rollout if held is None else replace(rollout, mask=rollout.mask & (held == which))


def outputs(model: Model, recipe: Recipe, vector: Array, inputs: dict[str, Any]) -> Outputs:
    """What `theory.loss` reads of the networks, for the given observations and actions."""
    policy, value, actions, states = model.run(vector, inputs["observation"], inputs.get("memory"))
    entropy = entropy_of(policy)
    if entropy is not None and isinstance(recipe.ent_coef, int):
        entropy = lax.stop_gradient(entropy)  # see `spared`
    needs_kl = isinstance(recipe.objective, Penalty)
    return Outputs(
        log_prob=policy.log_prob(inputs["action"]),
        entropy=entropy,
        kl=model.actions.rebuild(inputs["policy"]).kl(policy) if needs_kl else None,
        value=value if actions is None else psi.action_value(actions, inputs["action"]),
        next_value=model.value(vector, inputs["reached"], states) if "reached" in inputs else None,
    )


def spared(recipe: Recipe, constant: Recipe) -> Recipe:
    """The recipe of this moment; where the `constant` recipe says that ent_coef always is 0, with a 0 that is no float:
    part of the structure, so that no gradient of the entropy is computed.
    """
    if constant.ent_coef != 0:
        return recipe
    spare = copy(recipe)
    object.__setattr__(spare, "ent_coef", 0)
    return spare


def _held(model: Model, recipe: Recipe, vector: Array) -> Array:
    """The parameters, the actor's without gradient where it has taken its natural step already."""
    if not isinstance(recipe.objective, TrustRegion):
        return vector
    return jnp.concatenate([lax.stop_gradient(vector[: model.n_actor]), vector[model.n_actor :]])


def items(model: Model, x: Array) -> Array:
    """What minibatches are made of: the rows of `[T, B, …]`, `[T·B, …]`; for networks that remember sequences of L
    rows, `[L, ⌈T/L⌉·B, …]`, the last ones filled up with zeros, which a mask reads as no decision.
    """
    if not model.carry:
        return x.reshape(-1, *x.shape[2:])
    rows, length = x.shape[0], model.sequence(x.shape[0])
    parts = -(-rows // length)
    x = jnp.pad(x, [(0, parts * length - rows)] + [(0, 0)] * (x.ndim - 1))
    return x.reshape(parts, length, *x.shape[1:]).swapaxes(0, 1).reshape(length, -1, *x.shape[2:])


def _starts(model: Model, vector: Array, observation: Array, memory: Memory | None) -> Float[Array, "1 S C"] | None:
    """The state at the start of each sequence, as π_old left it."""
    if memory is None:
        return None
    rows = memory.mask.shape[0]
    length, first = model.sequence(rows), memory.carry[None]
    if length < rows:
        states = cast(Array, model.run(vector, observation, memory).states)
        first = jnp.concatenate([first, states[length - 1 : rows - 1 : length]])
    return first.reshape(1, -1, model.carry)


def _fields(split: Callable[[Array], Array], batch: Batch) -> dict[str, Array]:
    """The fields that are there, by items."""
    return {name: split(x) for name, x in vars(batch).items() if x is not None}


def _take(model: Model, x: Any, chosen: Int[Array, " N"]) -> Any:
    """The chosen items, which number the last axis that all fields have in common."""
    axis = 1 if model.carry else 0
    return jax.tree.map(lambda leaf: jnp.take(leaf, chosen, axis=axis, mode="clip"), x)


def _batch(model: Model, batch: dict[str, Array], chosen: Int[Array, " N"]) -> Batch:
    part = _take(model, batch, chosen)
    part["mask"] &= chosen < batch["mask"].shape[-1]
    return Batch(**part)


def _descend(model: Model, moving: Moving, gradient: Array, rates: Rates, separate: bool) -> Moving:
    """One step of the optimiser.

    The gradient is clipped by its *global* norm: of everything together, or of actor and critic each.
    """
    n = model.n_actor if separate else model.size
    parts = [_clip(part, rates.max_grad_norm) for part in (gradient[:n], gradient[n:]) if part.size]
    direction = transformation(rates.optimiser.value, rates.eps)
    scaled, state = direction.update(jnp.concatenate(parts), moving.optimiser, moving.vector)
    lr = jnp.where(jnp.arange(model.size) < n, rates.actor, rates.critic)
    return Moving(moving.vector - lr * jnp.asarray(scaled), state)


def transformation(optimiser: Any, eps: Any) -> optax.GradientTransformation:
    """What makes the direction of a step of a gradient."""
    match optimiser:
        case Adam():
            return optax.scale_by_adam(optimiser.b1, optimiser.b2, eps)
        case RMSPropTF():
            return optax.scale_by_rms(optimiser.decay, eps, initial_scale=1.0)
        case RMSProp():
            return optax.scale_by_rms(optimiser.decay, eps, eps_in_sqrt=False)
    return optimiser.build(eps)


def _clip(gradient: Array, bound: Any) -> Array:
    """g · min(1, bound/‖g‖)."""
    if bound is None:
        return gradient
    return gradient * reduce.clip_factor(jnp.sqrt(jnp.sum(gradient**2)), bound)


def _no_metrics(minibatch: Any, batch: dict[str, Array], moving: Moving) -> dict[str, Array]:
    """Zeros in the shape of the metrics' sums, found without computing anything."""
    zero = jnp.int32(0)
    shapes = jax.eval_shape(lambda: minibatch(zero, zero, batch, moving)[1])
    return {name: jnp.zeros((), x.dtype) for name, x in shapes.items()} | {
        "train/minibatches": jnp.zeros(()), "train/first_ratio_deviation": jnp.zeros(()),
    }  # fmt: skip


def _accumulate(sums: dict[str, Array], metrics: dict[str, Array]) -> dict[str, Array]:
    count = sums["train/minibatches"]
    first = jnp.where(count == 0, metrics["train/ratio_deviation"], sums["train/first_ratio_deviation"])
    added = {name: sums[name] + x for name, x in metrics.items()}
    return added | {"train/minibatches": count + 1, "train/first_ratio_deviation": first}


def _summary(
    model: Model, recipe: Recipe, vector: Array, rollout: Rollout, held: Array | None, sums: dict[str, Array]
) -> Metrics:
    count, first = sums.pop("train/minibatches"), sums.pop("train/first_ratio_deviation")
    metrics = {name: x / count for name, x in sums.items()}
    before = model.actions.rebuild(rollout.policy or ())
    memory = memory_of(model, rollout)
    after = in_blocks(model, lambda seen: model.policy(vector, seen, memory).parameters, rollout.observation)
    after = model.actions.rebuild(after)
    found = measured(recipe, only(rollout, held, False), before, after)
    metrics |= {
        "train/minibatches": count,
        "train/first_ratio_deviation": first,
        "train/kl": found["kl"],
        "train/surrogate_gain": found["surrogate_gain"],
    }
    if "explained_variance" in found:
        metrics["train/explained_variance"] = found["explained_variance"]
    if held is not None:
        apart = measured(recipe, only(rollout, held, True), before, after)
        metrics |= {f"held_out/{name}": x for name, x in apart.items()}
    return Metrics(jnp.stack(list(metrics.values())), tuple(metrics))


def start(vector: Float[Array, " P"], optim: Any = Joint()) -> Moving:  # noqa: B008 (frozen)
    """Parameters that have not moved yet."""
    return Moving(jnp.array(vector), transformation(_optimiser(optim), optim.eps).init(jnp.array(vector)))


def _optimiser(optim: Any) -> Any:
    return Adam() if isinstance(optim, Separate) else optim.optimiser


def rates(optim: Any) -> Rates:
    """The numbers of an optimiser whose schedules have been placed."""
    if isinstance(optim, Separate):
        numbers = optim.actor_lr, optim.critic_lr, 1.0, optim.max_grad_norm, optim.eps
    else:
        numbers = optim.lr, optim.lr, optim.vf_coef, optim.max_grad_norm, optim.eps
    return Rates(*numbers, Fixed(_optimiser(optim)))


def real_items(model: Model, mask: Bool[Array, "T B"]) -> Bool[Array, " S"]:
    """Which items hold a real decision; see `items`."""
    starts = range(0, len(mask), model.sequence(len(mask)))
    return np.logical_or.reduceat(mask, starts, axis=0).ravel()


def minibatches(rng: np.random.Generator, mask: Bool[Array, "*S"], epochs: int, parts: int) -> Int[Array, "E M N"]:
    """The items of each minibatch: real ones, permuted anew each epoch without replacement, in parts that differ by at
    most one.

    S items → `[epochs, parts, ⌈S/parts⌉]`; what is left over is filled with S, which stands for padding.
    """
    real, n = np.flatnonzero(mask.ravel()), mask.size
    width = -(-n // parts)
    rows = np.full((epochs, parts, width), n, np.int32)
    bounds = np.linspace(0, len(real), parts + 1).astype(int)
    for epoch in range(epochs):
        order = rng.permutation(real) if parts > 1 else real
        for i in range(parts):
            rows[epoch, i, : bounds[i + 1] - bounds[i]] = order[bounds[i] : bounds[i + 1]]
    return rows
