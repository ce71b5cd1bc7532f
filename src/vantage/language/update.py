"""`ppo_epochs`: the actor's and the critic's steps over one experience, by the functions that control uses too.

Every sum is divided by a total of the whole minibatch, so neither micro-batches nor padding nor the number of
processes changes a loss, a gradient or a metric.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from vantage.language import scoring
from vantage.language.experience import both_values, with_values
from vantage.language.moving import Moving
from vantage.language.parallel import Processes
from vantage.language.records import Experience, Sequences
from vantage.language.roles import Roles, checkpoint_layers, scoring_mode
from vantage.language.sharding import gathered
from vantage.language.zero import Zero
from vantage.recipe import Constant, Joint, KLInLoss, Recipe, ResidualTD
from vantage.recipe.schedule import swap
from vantage.rollout import Rollout
from vantage.theory import divergences, importance, reduce
from vantage.theory._array import keep
from vantage.theory.loss import Batch, Outputs, loss

Tensor = torch.Tensor


@dataclass(frozen=True, kw_only=True)
class Pass:
    """How models are run: the same in scoring and update."""

    temperature: float = 1.0
    micro_batch: int = 8
    """Completions in one forward pass."""
    bf16: bool = False
    """Whether matrix products are taken in bfloat16; parameters and log-probabilities stay in float32."""
    checkpointing: bool = False
    """Whether activations are recomputed in the backward pass."""
    packing: bool = False
    """Whether models read texts without padding, where we know a way through them that gives their own numbers."""
    device: Any = "cpu"

    def precision(self) -> AbstractContextManager[Any]:
        """The context of a forward pass."""
        kind = torch.device(self.device).type
        return torch.autocast(kind, torch.bfloat16) if self.bf16 else nullcontext()

    def parts(self, sequences: Sequences) -> Iterator[tuple[Any, Sequences]]:
        """Rows, and their sequences without common padding, of like lengths so that little of it remains."""
        order = torch.argsort(sequences.mask.sum(1), stable=True)
        for start in range(0, len(sequences), self.micro_batch):
            rows = order[start : start + self.micro_batch]
            yield rows, sequences.take(rows).trimmed().to(self.device)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything an update needs besides the experience and what moves."""

    recipe: Recipe
    roles: Roles
    how: Pass
    optim: Any
    reference: KLInLoss | None = None
    """The KL to the reference, where it stands in the loss."""
    correction: Any = None
    """How tokens of a generator that is not the trainer are weighted; None: they are not."""
    deviation: float = float("inf")
    """How far a ratio of the first minibatch may be from 1 before the run is stopped."""
    adaptive: bool = False
    """Whether the KL of the whole update is wanted, because something moves by it."""
    train_actor: bool = True
    """False while the critic warms up."""
    processes: Processes = Processes()  # noqa: RUF009 (frozen)
    zero: Zero | None = None
    """DeepSpeed's engines, where they differentiate."""


def prepare(plan: Plan, experience: Experience) -> Batch:
    """Ψ, targets and what else the loss reads, `[T, B]`, once for all epochs."""
    record = experience.rollout
    batch = plan.recipe.prepare(record)
    acted, correction = record.actor_log_prob, None
    if plan.correction is not None and acted is not None:
        correction = plan.correction(record.log_prob, torch.where(record.mask, acted, record.log_prob))
    return replace(batch, reference_log_prob=experience.reference_log_prob, correction=correction)


def ppo_epochs(
    plan: Plan, experience: Experience, moving: Moving | Zero, orders: Int[np.ndarray, "E B"]
) -> dict[str, float]:
    """All epochs over one experience: `orders` says in which order each epoch takes the columns.

    Returns metrics averaged over the minibatches; `train/first_ratio_deviation` is that of the first one.
    """
    recipe, count, stopped = plan.recipe, 0, False
    sums: dict[str, float] = {}
    bound = recipe.kl_bound
    batch = prepare(plan, experience)
    for epoch, order in enumerate(orders):
        if epoch and recipe.recompute_advantages and plan.roles.critic is not None:
            experience = revalued(plan, experience)
            batch = prepare(plan, experience)
        for columns in np.array_split(order, recipe.n_minibatches):
            moving.zero_grad()
            part, sequences = _whitened(recipe, take(batch, columns)), experience.sequences.take(columns)
            total = denominator(recipe, experience.rollout, columns)
            says = gradients(plan, part, sequences, total, old_logits(experience.rollout, columns))
            metrics = {k: float(v) for k, v in measured(plan, part, says, total).items()}
            stopped = bound is not None and metrics["train/approx_kl"] > bound
            if not count:
                sums["train/first_ratio_deviation"] = _must_begin_at_one(plan, metrics["train/ratio_deviation"])
            if not stopped:
                metrics |= moving.step(plan.optim, plan.train_actor, plan.processes)
            count += 1
            sums |= {name: sums.get(name, 0.0) + x for name, x in metrics.items()}
            if stopped:
                break
        if stopped:
            break
    moving.zero_grad()
    first = sums.pop("train/first_ratio_deviation")
    told = {"train/first_ratio_deviation": first, "train/minibatches": float(count)}
    if plan.adaptive:
        told["train/kl"] = moved_by(plan, experience)
    return {k: v / count for k, v in sums.items()} | told


def _must_begin_at_one(plan: Plan, deviation: float) -> float:
    """Raises RuntimeError, before anything has moved, where π_θ is not π_old at the first minibatch."""
    if deviation > plan.deviation:
        raise RuntimeError(
            f"π_θ differs from π_old before the first step: a ratio is {deviation:.3g} from 1 (more than "
            f"{plan.deviation}); the update sees other inputs than scoring, or dropout is on; no parameter was changed"
        )
    return deviation


def moved_by(plan: Plan, experience: Experience) -> float:
    """KL(π_old‖π) over the whole batch as the epochs left it, nats per decision; exact where π_old's logits were kept,
    else by k3.
    """
    record, sequences = experience.rollout, experience.sequences
    share = plan.processes.share(len(sequences))
    mine = sequences.take(share)
    if record.policy is None:
        now = score_log_probs(plan.roles.actor, plan.how, mine).T
        width = now.shape[0]
        gap = divergences.k3(record.log_prob[:width, share], torch.where(record.mask[:, share], now, 0.0 * now))
    else:
        gap = divergences.categorical_kl(record.policy[0][:, share], score_logits(plan.roles.actor, plan.how, mine))
    return float(reduce.mean(torch.cat(plan.processes.gather(gap), 1), record.mask))


def _whitened(recipe: Recipe, batch: Batch) -> Batch:
    """Ψ of a whole minibatch as the recipe wants it, so that a micro-batch needs no statistics of its own."""
    if recipe.whiten != "minibatch":
        return batch
    return replace(batch, psi=reduce.whiten(batch.psi, batch.mask, batch.weight))


def old_logits(record: Rollout, columns: Any) -> Float[Tensor, "N R V"] | None:
    """The logits of π_old for these columns, where they were kept."""
    return None if record.policy is None else record.policy[0][:, columns].transpose(0, 1)


def gradients(
    plan: Plan, batch: Batch, sequences: Sequences, total: Float[Tensor, ""], old: Tensor | None = None
) -> Outputs:
    """Adds the gradient of a minibatch's loss to what is to be moved, in micro-batches; returns what the networks said
    of the whole of it, without gradients.

    The actor's part of the loss is differentiated first, then the critic's: only one network's activations are held at
    a time.
    """
    own = slice(plan.processes.rank, None, plan.processes.size)
    mine, seen = take(batch, own), sequences.take(own)
    says = {f.name: torch.zeros_like(mine.psi) for f in fields(Outputs)}
    known = {"log_prob"}
    recipe = swap(plan.recipe, whiten=None)
    roles, vf_coef = plan.roles, plan.optim.vf_coef if isinstance(plan.optim, Joint) else 1.0
    scoring_mode(roles.actor, roles.critic)
    if plan.how.checkpointing:
        checkpoint_layers(roles.actor)
        checkpoint_layers(roles.critic)
    parts = list(plan.how.parts(seen))

    def of_actor(rows: Any, some: Sequences) -> tuple[Tensor, Outputs]:
        part = _rows(mine, rows, some)
        with plan.how.precision(), torch.set_grad_enabled(plan.train_actor):
            outputs = actor_outputs(plan, some, None if old is None else old[own][rows])
        held = replace(outputs, value=part.value, next_value=part.value)  # the critic's part is a constant here
        return loss(recipe, part, held, vf_coef=vf_coef, total=total, reference=plan.reference)[0], outputs

    def of_critic(rows: Any, some: Sequences) -> tuple[Tensor, Outputs]:
        part, held = _rows(mine, rows, some), Outputs(**_now(says, known, rows, some))
        with plan.how.precision():
            outputs = replace(held, **critic_outputs(plan, some))
        return loss(recipe, part, outputs, vf_coef=vf_coef, total=total, reference=plan.reference)[0], outputs

    for i, (rows, some) in enumerate(parts):
        outputs = _differentiated(plan, "actor", partial(of_actor, rows, some), last=i + 1 == len(parts))
        known |= _note(says, outputs, rows)
    for i, (rows, some) in enumerate(parts if recipe.critic is not None else []):
        with roles.valuing():
            outputs = _differentiated(plan, "critic", partial(of_critic, rows, some), last=i + 1 == len(parts))
        known |= _note(says, outputs, rows)
    if plan.zero is None:
        plan.processes.add_gradients([p for _, p in [*roles.actor_parameters, *roles.critic_parameters]])
    gathered = plan.processes.interleave({name: says[name] for name in sorted(known)}, batch.psi.shape[1])
    return Outputs(**gathered)


def _differentiated(plan: Plan, name: str, compute: Callable[[], tuple[Tensor, Outputs]], last: bool) -> Outputs:
    """A micro-batch's outputs, its loss differentiated: by DeepSpeed's engine where there is one."""
    if name == "actor" and not plan.train_actor:
        return compute()[1]
    if plan.zero is not None:
        return plan.zero.backward(name, compute, last)
    value, outputs = compute()
    value.backward()
    return outputs


def actor_outputs(plan: Plan, sequences: Sequences, old: Tensor | None = None) -> Outputs:
    """What the loss reads of the actor: log π, and over the whole vocabulary only what the recipe asks for."""
    recipe, how = plan.recipe, plan.how
    exact = plan.reference is not None and plan.reference.estimator == "exact"
    if recipe.ent_coef == 0 and old is None and not exact:
        return Outputs(log_prob=scoring.log_probs(plan.roles.actor, sequences, how.temperature, how.packing).T)
    logits = scoring.response_logits(plan.roles.actor, sequences, how.temperature, how.packing)
    said: dict[str, Any] = {"log_prob": scoring.token_log_prob(logits, sequences.completion).T}
    if recipe.ent_coef != 0:
        said["entropy"] = divergences.categorical_entropy(_wide(logits)).T
    if old is not None:
        old = old[:, : logits.shape[1]].to(logits.device)
        said["kl"] = divergences.categorical_kl(old, _wide(logits)).T
    if exact:
        with plan.roles.reference() as model:
            other = scoring.response_logits(model, sequences, how.temperature, how.packing)
        said["reference_kl"] = divergences.categorical_kl(_wide(logits), _wide(other)).T
    return Outputs(**said)


def _wide(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def critic_outputs(plan: Plan, sequences: Sequences) -> dict[str, Any]:
    """What the loss reads of the critic."""
    said = scoring.values(plan.roles.critic, sequences, plan.how.packing)
    if not isinstance(plan.recipe.critic, ResidualTD):
        return {"value": said[:, :-1].T}
    return dict(zip(("value", "next_value"), both_values(sequences, said), strict=True))


def measured(plan: Plan, batch: Batch, says: Outputs, total: Float[Tensor, ""]) -> dict[str, Any]:
    """The metrics of a whole minibatch, by the loss function itself."""
    vf_coef = plan.optim.vf_coef if isinstance(plan.optim, Joint) else 1.0
    recipe = swap(plan.recipe, whiten=None)
    _, metrics = loss(recipe, batch, says, vf_coef=vf_coef, total=total, reference=plan.reference)
    ratio = importance.ratio(keep(says.log_prob, batch.mask), keep(batch.log_prob, batch.mask))
    metrics["val/ratio"] = reduce.mean(ratio, batch.mask)
    metrics["val/ratio_var"] = reduce.variance(ratio, batch.mask)
    width = getattr(recipe.critic, "width", None)
    if width is not None and says.value is not None:
        left = (says.value - batch.value).abs() > width
        metrics["train/value_clip_fraction"] = reduce.mean(left.to(batch.psi.dtype), batch.mask)
    return metrics


def denominator(recipe: Recipe, record: Rollout, columns: Any) -> Float[Tensor, ""]:
    """The total of a minibatch; a constant one is shared by columns."""
    part = record_of(record, columns)
    total = recipe.reduction.total(part)
    return total * len(columns) / record.shape[1] if isinstance(recipe.reduction, Constant) else total


def record_of(record: Rollout, columns: Any) -> Rollout:
    """These columns of a rollout."""
    held = {f.name: getattr(record, f.name) for f in fields(Rollout)}
    for name in ("group", "weight"):
        held[name] = None if held[name] is None else held[name][columns]
    wide = [name for name, x in held.items() if getattr(x, "ndim", 0) == 2]
    return Rollout(**held | {name: held[name][:, columns] for name in wide} | {"policy": None})


def take(batch: Batch, columns: Any) -> Batch:
    """These columns of a batch."""
    return Batch(**{f.name: _columns(getattr(batch, f.name), columns) for f in fields(Batch)})


def _columns(x: Any, columns: Any) -> Any:
    return None if x is None else x[:, columns]


def _rows(batch: Batch, rows: Any, some: Sequences) -> Batch:
    """The columns of a micro-batch, as long as its longest completion, where the models are."""
    width = some.completion.shape[1]
    cut = {f.name: _columns(getattr(batch, f.name), rows) for f in fields(Batch)}
    return Batch(**{name: None if x is None else x[:width].to(some.ids.device) for name, x in cut.items()})


def _note(says: dict[str, Tensor], outputs: Outputs, rows: Any) -> set[str]:
    """Enter a micro-batch's outputs into the whole."""
    found = {name: x.detach() for name, x in vars(outputs).items() if x is not None and name in says}
    for name, x in found.items():
        says[name][: len(x), rows] = x.to(says[name].dtype).to(says[name].device)
    return set(found)


def _now(says: dict[str, Tensor], known: set[str], rows: Any, some: Sequences) -> dict[str, Tensor]:
    width = some.completion.shape[1]
    return {name: says[name][:width, rows].to(some.ids.device) for name in known - {"value", "next_value"}}


def revalued(plan: Plan, experience: Experience) -> Experience:
    """The experience with the values of the present critic."""
    return with_values(experience, score_values(plan.roles, plan.how, experience.sequences))


def score_values(roles: Roles, how: Pass, sequences: Sequences) -> Float[Tensor, "B R1"]:
    """V before each completion token and after the last one, without gradients."""
    width = sequences.completion.shape[1] + 1
    scored = torch.zeros(len(sequences), width)
    scoring_mode(roles.critic)
    with torch.no_grad(), how.precision(), gathered(roles.critic):
        for rows, some in how.parts(sequences):
            said = scoring.values(roles.critic, some, how.packing)
            scored = scored.to(said.dtype) if said.dtype == torch.float64 else scored
            scored[rows, : said.shape[1]] = said.to(scored.device)
    return scored


def score_logits(model: Any, how: Pass, sequences: Sequences) -> Float[Tensor, "R B V"]:
    """The logits of every completion position, without gradients; 0 at padding."""
    scored: Tensor | None = None
    scoring_mode(model)
    with torch.no_grad(), how.precision(), gathered(model):
        for rows, some in how.parts(sequences):
            said = scoring.response_logits(model, some, how.temperature, how.packing).transpose(0, 1)
            said = said.to(torch.promote_types(said.dtype, torch.float32)).cpu()
            if scored is None:
                scored = said.new_zeros((sequences.completion.shape[1], len(sequences), said.shape[-1]))
            scored[: len(said), rows] = said
    assert scored is not None
    return scored


def score_log_probs(model: Any, how: Pass, sequences: Sequences) -> Float[Tensor, "B R"]:
    """log π of each completion token under a model, without gradients."""
    scored = torch.zeros(sequences.completion.shape)
    scoring_mode(model)
    with torch.no_grad(), how.precision(), gathered(model):
        for rows, some in how.parts(sequences):
            said = scoring.log_probs(model, some, how.temperature, how.packing)
            scored = scored.to(said.dtype) if said.dtype == torch.float64 else scored
            scored[rows, : said.shape[1]] = said.to(scored.device)
    return scored
