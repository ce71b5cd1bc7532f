"""The language world: prompts to complete, models in four roles, and what changes while the actor learns."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from vantage.language import data, experience, generators, metrics, sharding, zero
from vantage.language import update as learning
from vantage.language._memory import keep_freed_memory
from vantage.language.parallel import Processes
from vantage.language.records import Completions, Experience, Prompts, Sequences, join, pad_left
from vantage.language.roles import Roles
from vantage.language.settings import Settings
from vantage.language.state import export, put
from vantage.language.streams import Stream, noise, orders
from vantage.recipe import KLInLoss, Penalty, Recipe, adaptive, optim_at, value
from vantage.recipe.schedule import at, swap
from vantage.rollout import Rollout
from vantage.world import TrainState

Tensor = torch.Tensor
MISMATCH = {False: 1e-3, True: 0.5}
"""The run stops where the generator's log-probability is further than this from the scored one, in nats; the second
number is for bfloat16."""
DEVIATION = {False: 1e-3, True: 0.5}
"""The run stops where a ratio of the first minibatch is further than this from 1."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One completion, as it is shown."""

    prompt: Any
    completion: Any
    score: float


class LanguageWorld:
    """A `World` of prompts. `steps` counts completions ("episodes"), the unit in which RLHF runs are planned."""

    unit = "completions"

    def __init__(
        self,
        settings: Settings,
        roles: Roles,
        reward: Any,
        tokenizer: Any,
        stop: tuple[int, ...],
        device: Any = "cpu",
        reply: Any = None,
    ) -> None:
        self._settings, self._roles, self._reward, self._tokenizer = settings, roles, reward, tokenizer
        self._pad = data.pad_id(tokenizer)
        if torch.device(device).type == "cpu":
            keep_freed_memory()
        self._processes, dealt = Processes.join(), zero.configuration()
        self._check_shares(dealt is not None)
        if settings.shard and self._processes.size > 1:
            sharding.shard(roles)
        self.how = learning.Pass(
            temperature=settings.sampling.temperature, micro_batch=settings.micro_batch, bf16=settings.bf16,
            checkpointing=settings.gradient_checkpointing, device=device,
            packing=settings.packing and not (settings.gradient_checkpointing or settings.shard or dealt),
        )  # fmt: skip
        self._zero = None if dealt is None else zero.Zero(roles, settings.optim, dealt, self._processes)
        self._generator = generators.build(
            settings, roles.actor, stop, self._pad, self.how, self._processes, reply, tokenizer
        )
        self._moving = self._zero or learning.Moving.of(roles, settings.optim)
        objective = settings.recipe.objective
        self.beta: float | None = value(objective.beta, 0.0) if isinstance(objective, Penalty) else None
        self.kl_coef = float(settings.kl.beta) if settings.kl is not None else 0.0
        self.steps = self.updates = self.tokens = 0
        self._prompts_used, self._lr = 0, None
        self._scores = (0.0, 0.0, 0.0)
        self.prompts: Prompts | None = None
        self.experience: Experience | None = None
        self.samples: list[Sample] = []
        self._metrics: dict[str, float] = {}

    def _check_shares(self, dealt: bool) -> None:
        chosen, n = self._settings, self._processes.size
        if chosen.prompts_per_update < n:
            raise ValueError(
                f"Settings.batch_size = {chosen.batch_size}: an update needs a prompt for each of the {n} processes, "
                f"and has {chosen.prompts_per_update}; raise it"
            )
        parts = chosen.recipe.n_minibatches * n
        if chosen.shard and dealt:
            raise ValueError("Settings.shard = True: DeepSpeed deals out the parameters already; leave it out")
        if (chosen.shard or dealt) and chosen.batch_size % parts:
            raise ValueError(
                f"Settings.batch_size = {chosen.batch_size}: with {'DeepSpeed' if dealt else 'shard'} it must be a "
                f"multiple of the {parts} shares of {n} processes in {chosen.recipe.n_minibatches} minibatches"
            )

    def exact(self) -> bool:
        """Always: all that changes is in `state`."""
        return True

    def cut(self) -> None:
        """Nothing runs on between two updates."""

    # ---- collect ----

    def collect(self, recipe: Recipe) -> Rollout:
        """Complete prompts, score the completions, and bring them to a `Rollout`.

        Raises FloatingPointError or the reward's own error before anything has moved.
        """
        if self.prompts is None:
            raise ValueError("there are no prompts: set world.prompts, or use RLHF.learn(prompts)")
        chosen = self._settings
        rows = data.rows(chosen.seed, self._prompts_used, chosen.prompts_per_update, len(self.prompts))
        seen = self.generate_experience(self.prompts.take(rows), chosen.group_size)
        self.experience = experience.with_signal(seen, chosen.kl, self.kl_coef, chosen.shaping)
        record = self.experience.rollout
        self._metrics = metrics.of_experience(self.experience, self.kl_coef, recipe) | self._mismatch(record)
        if hasattr(self._reward, "metrics"):
            self._metrics |= self._reward.metrics()
        self._prompts_used += chosen.prompts_per_update
        self.steps += chosen.batch_size
        self.tokens += int(record.mask.sum())
        self._move_scores(seen.score)
        return record

    def generate_experience(
        self, prompts: Prompts, copies: int = 1, stream: Stream = Stream.NOISE, seed: int | None = None
    ) -> Experience:
        """`copies` completions of each prompt, side by side, scored by all four roles; each process makes its share."""
        chosen, n = self._settings, len(prompts) * copies
        share = self._processes.share(len(prompts))
        mine = prompts.take(range(len(prompts))[share])
        share = slice(share.start * copies, share.stop * copies)
        draws = noise(chosen, self.updates if seed is None else seed, n, stream)
        ids, mask, says = self._complete(mine, draws[:, share], copies)
        mine = mine.take(np.repeat(np.arange(len(mine)), copies))
        score, texts = self._score(mine, says)
        ids, mask, says, score = self._gathered(ids, mask, says, score)
        sequences = join(ids, mask, says).trimmed()
        self._show(mine, texts, score[share])
        scored = self._scored(sequences)
        shaped = experience.shaped(score, says.ended, chosen.shaping, *self._score_moments())
        acted = None if says.log_prob is None else says.log_prob[:, : sequences.completion.shape[1]]
        record = experience.rollout(
            sequences, scored["log_prob"], shaped, says.ended, gamma=chosen.gamma, shaping=chosen.shaping,
            values=scored.get("values"), actor_log_prob=acted, group=torch.arange(n) // copies,
        )  # fmt: skip
        reference, logits = scored.get("reference"), scored.get("logits")
        if logits is not None:
            record = replace(record, policy=(logits.transpose(0, 1),))
        return Experience(
            rollout=record, sequences=sequences, score=score, ended=says.ended,
            reference_log_prob=None if reference is None else reference.T,
        )  # fmt: skip

    def observe(self, prompts: Prompts, seed: int) -> tuple[Experience, list[Sample]]:
        """Completions of these prompts, scored, and as they are shown; nothing that changes is touched."""
        held = self.samples
        seen = self.generate_experience(prompts, 1, Stream.EVALUATE, seed)
        shown, self.samples = self.samples, held
        return seen, shown

    def complete(self, prompts: Prompts, seed: int) -> list[str]:
        """Texts that the actor writes after these prompts."""
        draws = noise(self._settings, seed, len(prompts), Stream.EVALUATE)
        _, _, says = self._complete(prompts, draws, 1)
        return self._tokenizer.batch_decode(_real(says), skip_special_tokens=True)

    @property
    def first(self) -> bool:
        """Whether this process writes files and speaks."""
        return self._processes.first

    def wait(self) -> None:
        """Until all processes are here."""
        self._processes.gather(None)

    def _complete(self, prompts: Prompts, draws: Tensor, copies: int) -> tuple[Tensor, Tensor, Completions]:
        """The prompts, left-padded, with their copies, and a completion of each, as wide as completions may be."""
        ids, mask = pad_left(prompts.ids, self._pad)
        with self._generator.ready():
            says = self._generator.complete(prompts, draws, copies)
        missing = len(draws) - says.ids.shape[1]
        fill = {"ids": self._pad, "mask": False, "log_prob": 0.0, "chosen": False}
        padded = {
            name: torch.nn.functional.pad(getattr(says, name).cpu(), (0, missing), value=value)
            for name, value in fill.items()
            if getattr(says, name) is not None
        }
        ids, mask = (x.repeat_interleave(copies, 0) for x in (ids, mask))
        return ids, mask, Completions(**padded, ended=says.ended.cpu())

    def _score(self, prompts: Prompts, says: Completions) -> tuple[Tensor, list[Any]]:
        """The reward of each completion, and its text."""
        real = _real(says)
        texts = data.completions(prompts.prompts, self._tokenizer.batch_decode(real, skip_special_tokens=True))
        score = self._reward.score(list(prompts.prompts), texts, prompts.columns, real)
        parts = self._processes.gather(getattr(self._reward, "parts", {}))
        if len(parts) > 1:
            self._reward.parts = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return torch.as_tensor(np.asarray(score, np.float32)), texts

    def _gathered(self, ids: Tensor, mask: Tensor, says: Completions, score: Tensor) -> Any:
        """What all processes generated, in the order of the prompts."""
        if self._processes.size == 1:
            return ids, mask, says, score
        parts = self._processes.gather((ids, mask, vars(says), score))
        width = max(part[0].shape[1] for part in parts)
        left = [(torch.nn.functional.pad(x, (width - x.shape[1], 0)) for x in part[:2]) for part in parts]
        ids, mask = (torch.cat(list(xs)) for xs in zip(*left, strict=True))
        joined: dict[str, Any] = {
            k: None if x is None else torch.cat([part[2][k] for part in parts]) for k, x in vars(says).items()
        }
        return ids, mask, Completions(**joined), torch.cat([part[3] for part in parts])

    def _scored(self, sequences: Sequences) -> dict[str, Tensor]:
        """log π_old, log π_ref and V of all completions, by the functions that the update differentiates."""
        roles, how, n = self._roles, self.how, len(sequences)
        mine = sequences.take(self._processes.share(n))
        found = {"log_prob": learning.score_log_probs(roles.actor, how, mine)}
        if roles.has_reference:
            with roles.reference() as model:
                found["reference"] = learning.score_log_probs(model, how, mine)
        if self._settings.exact_kl:
            found["logits"] = learning.score_logits(roles.actor, how, mine).transpose(0, 1)
        if roles.critic is not None:
            found["values"] = learning.score_values(roles, how, mine)
        parts = self._processes.gather(found)
        return {name: torch.cat([part[name] for part in parts]) for name in found}

    def _mismatch(self, record: Rollout) -> dict[str, float]:
        """How far the generator's log-probabilities are from the trainer's."""
        acted = record.actor_log_prob
        if acted is None:
            return {}
        gap = torch.where(record.mask, (acted - record.log_prob).abs(), torch.zeros_like(record.log_prob)).max()
        bound = MISMATCH[self.how.bf16]
        if float(gap) > bound and self._settings.correction is None:
            raise RuntimeError(
                f"the model that generated is not the one that learns: log-probabilities differ by {float(gap):.3g} "
                f"(more than {bound}); its weights or its positions are stale, or set correction=Truncated()"
            )
        return {"train/act_mismatch": float(gap)}

    def _score_moments(self) -> tuple[float, float]:
        count, mean, squares = self._scores
        return (mean, max((squares / count) ** 0.5, 1e-4)) if count > 1 else (0.0, 1.0)

    def _move_scores(self, score: Tensor) -> None:
        """Running mean and sum of squared deviations of scores (Welford), used from the next experience on."""
        for x in score.double().tolist():
            count, mean, squares = self._scores
            moved = mean + (x - mean) / (count + 1)
            self._scores = (count + 1, moved, squares + (x - mean) * (x - moved))

    def _show(self, prompts: Prompts, texts: list[Any], score: Tensor) -> None:
        rows = zip(prompts.prompts, texts, score.tolist(), strict=True)
        self.samples = [Sample(prompt=p, completion=c, score=s) for p, c, s in rows]

    # ---- update ----

    def update(self, recipe: Recipe, rollout: Rollout, progress: float) -> dict[str, float]:
        """`ppo_epochs` over the experience just collected, then both coefficients."""
        assert self.experience is not None
        chosen, kl = self._settings, at(self._settings.kl, progress)
        given: Any = chosen.optim
        optim = optim_at(given, progress, self._lr)
        plan = learning.Plan(
            recipe=recipe, roles=self._roles, how=self.how, optim=optim,
            reference=swap(kl, beta=self.kl_coef) if isinstance(kl, KLInLoss) else None, correction=chosen.correction,
            adaptive=getattr(recipe.objective, "rule", None) is not None or adaptive(chosen.optim) is not None,
            deviation=DEVIATION[self.how.bf16], train_actor=self.updates >= chosen.critic_warmup,
            processes=self._processes, zero=self._zero,
        )  # fmt: skip
        taken = orders(chosen.seed, self.updates, recipe.n_epochs, rollout.shape[1], recipe.n_minibatches)
        seen = replace(self.experience, rollout=rollout)
        read = learning.ppo_epochs(plan, seen, self._moving, taken)
        self._generator.moved()
        self.updates += 1
        told = metrics.told(recipe, optim, self.steps, self.tokens) | self._move(recipe, kl, read)
        return metrics.with_familiar_names(self._metrics | read | told)

    def _move(self, recipe: Recipe, kl: Any, read: dict[str, float]) -> dict[str, float]:
        """β of the policy's penalty, β of the reference and an adaptive rate, each once per update."""
        told: dict[str, float] = {}
        n, rule = self._settings.batch_size, adaptive(self._settings.optim)
        if isinstance(recipe.objective, Penalty):
            told["train/beta"] = value(recipe.objective.beta, 0.0)
            if recipe.objective.rule is not None:
                self.beta = float(recipe.objective.rule(told["train/beta"], read["train/kl"], n))
        if rule is not None:
            self._lr = rule(rule.start if self._lr is None else self._lr, read["train/kl"])
        if kl is not None:
            told["objective/kl_coef"] = self.kl_coef
            if kl.controller is not None:
                self.kl_coef = float(kl.controller(self.kl_coef, self._metrics["objective/kl"], n))
        return told

    # ---- state ----

    def state(self) -> TrainState:
        """Everything that changes in training, copied."""
        counters = {
            "steps": self.steps, "updates": self.updates, "tokens": self.tokens, "prompts": self._prompts_used,
            "beta": self.beta, "kl_coef": self.kl_coef, "lr": self._lr, "scores": list(self._scores),
        }  # fmt: skip
        return TrainState(arrays=export(self._roles, self._moving), counters=counters)

    def restore(self, state: TrainState) -> None:
        """Go on exactly from `state`."""
        put(self._roles, self._moving, state.arrays)
        self._generator.moved()
        c = state.counters
        self.steps, self.updates, self.tokens, self._prompts_used = c["steps"], c["updates"], c["tokens"], c["prompts"]
        self.beta, self.kl_coef, self._lr = c["beta"], c["kl_coef"], c["lr"]
        self._scores = (c["scores"][0], c["scores"][1], c["scores"][2])


def _real(says: Completions) -> list[list[int]]:
    """Each completion's own tokens."""
    return [row[m].tolist() for row, m in zip(says.ids, says.mask, strict=True)]
