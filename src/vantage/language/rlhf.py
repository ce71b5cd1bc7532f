"""RLHF: an actor, a reward, and what they need to learn from prompts."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vantage.language import data, files, rewards, roles, sharding
from vantage.language.parallel import own_device
from vantage.language.settings import Settings, settings
from vantage.language.training import LanguageWorld, Sample
from vantage.loop import Listener, Report, learn
from vantage.recipe import Recipe
from vantage.theory import divergences, reduce
from vantage.world import TrainState


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Completions of held-out prompts, one each, and what the reward said."""

    samples: tuple[Sample, ...]
    scores: tuple[float, ...]
    kl: float | None
    """Mean KL(π‖π_ref) in nats per completion, by k1; None without a reference."""
    lengths: tuple[int, ...]

    @property
    def mean(self) -> float:
        """Mean score."""
        return float(np.mean(self.scores))

    @property
    def standard_error(self) -> float:
        """Of the mean score."""
        return float(np.std(self.scores, ddof=1) / len(self.scores) ** 0.5) if len(self.scores) > 1 else float("nan")

    def __str__(self) -> str:
        return f"{self.mean:.4g} ± {self.standard_error:.2g} (standard error) over {len(self.scores)} completions"


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """Where a run's checkpoints go: one folder, renewed every `every` updates."""

    rlhf: "RLHF"
    folder: Path
    every: int

    def save(self, state: TrainState) -> None:
        """Write the run as of `state`."""
        self.rlhf._write(self.folder, state)


class RLHF:
    """A language model that learns from a reward.

    `actor` is a path, a model's name or a causal language model; `reward` a Python function
    `f(prompts, completions, **columns) -> list[float]`, a sequence-classification model or its path, or a list of
    these, each alone or with a weight. `critic` and `reference` are paths or modules; left out, the critic is
    `FromActor()` and the reference a frozen copy of the actor, or with `lora` both are adapters on one backbone.
    `reply(prompts, completions, **columns)` answers the actor inside a completion, as a tool does. The keywords are the
    other fields of `Settings`. Raises ValueError or TypeError, before any work, for what cannot be trained.
    """

    def __init__(
        self,
        actor: Any,
        reward: Any,
        recipe: Recipe | None = None,
        *,
        critic: Any = None,
        reference: Any = None,
        tokenizer: Any = None,
        device: Any = None,
        reply: Callable[..., Any] | None = None,
        **options: Any,
    ) -> None:
        chosen = settings(**options) if recipe is None else settings(recipe=recipe, **options)
        self._set_up(actor, reward, chosen, critic, reference, tokenizer, device)
        self._reply = reply

    def _set_up(
        self, actor: Any, reward: Any, chosen: Settings, critic: Any, reference: Any, tokenizer: Any, device: Any
    ) -> None:
        self.settings = chosen
        self.device = own_device() if device is None else torch.device(device)
        self.tokenizer = tokenizer_of(actor, tokenizer)
        self.reward = reward if hasattr(reward, "score") and hasattr(reward, "check") else _reward(reward, self)
        self._sources = {"actor": actor, "critic": critic, "reference": reference}
        torch.manual_seed(chosen.seed)  # what a new head or adapter begins with
        self.roles = roles.build(
            actor,
            critic=critic,
            reference=reference,
            reward_model=getattr(self.reward, "model", None),
            lora=chosen.lora,
            needs_critic=chosen.recipe.critic is not None,
            needs_reference=chosen.kl is not None,
            device=self.device,
        )
        self.stop = stop_tokens(self.roles.actor, self.tokenizer)
        self._restored: TrainState | None = None

    def __repr__(self) -> str:
        kind = type(self.actor).__name__
        return f"RLHF({kind}, seed {self.settings.seed}, {self.world.steps:,} completions made)"

    @property
    def actor(self) -> Any:
        """The model that learns."""
        return self.roles.actor

    @cached_property
    def world(self) -> LanguageWorld:
        """The training world, made when first needed; it holds everything that changes."""
        world = LanguageWorld(
            self.settings, self.roles, self.reward, self.tokenizer, self.stop, self.device, self._reply
        )
        if self._restored is not None:
            world.restore(self._restored)
        return world

    # ---- learning ----

    def learn(
        self,
        prompts: Any,
        total_episodes: int | None = None,
        callbacks: Listener | Iterable[Listener] = (),
        checkpoint: str | Path | None = None,
        checkpoint_every: int = 50,
        max_prompt_tokens: int | None = None,
    ) -> Report:
        """Train until `total_episodes` completions have been made in all, earlier ones included; None: one pass over
        the prompts.

        `prompts` are texts, rows with a `prompt` column, a data set or a file of them. With `checkpoint` a folder is
        kept there, renewed every `checkpoint_every` updates; see `RLHF.resume`. A reward that fails stops the run, with
        the completions so far saved in that folder.
        """
        if checkpoint_every < 1:
            raise ValueError(f"checkpoint_every = {checkpoint_every}: a number of updates, at least 1")
        chosen, world = self.settings, self.world
        world.prompts = data.load(prompts, self.tokenizer, max_prompt_tokens=max_prompt_tokens)
        if hasattr(self.reward, "check"):
            self.reward.check(list(world.prompts.columns))
        total = len(world.prompts) * chosen.group_size if total_episodes is None else total_episodes
        saver = None if checkpoint is None else Checkpoints(rlhf=self, folder=Path(checkpoint), every=checkpoint_every)
        try:
            return learn(world, chosen.recipe, total, callbacks, saver)
        except rewards.RewardError as error:
            if saver is not None and world.first:
                saver.folder.mkdir(parents=True, exist_ok=True)
                error.save(saver.folder / "experience.jsonl")
            raise

    # ---- using ----

    def generate(self, prompts: Any, n: int = 1, seed: int = 0) -> list[list[str]]:
        """`n` completions of each prompt by the actor as it is, sampled as in training."""
        loaded = data.load(prompts, self.tokenizer)
        says = self.world.complete(loaded.take(np.repeat(np.arange(len(loaded)), n)), seed)
        return [says[i : i + n] for i in range(0, len(says), n)]

    def evaluate(self, prompts: Any, seed: int = 0) -> Evaluation:
        """One completion of each (held-out) prompt, sampled as in training, scored by the reward; nothing learns."""
        loaded = data.load(prompts, self.tokenizer)
        seen, samples = self.world.observe(loaded, seed)
        record, kl = seen.rollout, None
        if seen.reference_log_prob is not None:
            gap = divergences.k1(record.log_prob, seen.reference_log_prob)
            kl = float(reduce.reduce(gap, record.mask, total=float(len(loaded))))
        return Evaluation(
            samples=tuple(samples),
            scores=tuple(seen.score.tolist()),
            kl=kl,
            lengths=tuple(record.mask.sum(0).tolist()),
        )

    def describe(self) -> str:
        """Every setting as it was resolved, one a line."""
        return "\n".join(_lines(self.settings, ""))

    # ---- files ----

    def save(self, folder: str | Path) -> None:
        """Write the run: `folder/actor` in the form of `save_pretrained`, everything else that changes beside it."""
        self._write(Path(folder), self.world.state())

    def _write(self, folder: Path, state: TrainState) -> None:
        weights = sharding.whole_state(self.actor)
        if self.world.first:
            files.write(folder, self.settings, self._sources, state, self.actor, self.tokenizer, weights)
        self.world.wait()

    @classmethod
    def resume(
        cls,
        folder: str | Path,
        reward: Any,
        *,
        actor: Any = None,
        critic: Any = None,
        reference: Any = None,
        tokenizer: Any = None,
        device: Any = None,
        reply: Callable[..., Any] | None = None,
    ) -> "RLHF":
        """The run that a folder holds, ready to `learn` on the same prompts as if it had never stopped.

        The reward, the reply, and models that were given as modules, must be given again, as they were at the very
        beginning. Raises ValueError naming the one that is missing.
        """
        read = files.read(Path(folder))
        given = {"actor": actor, "critic": critic, "reference": reference}
        models = {name: _again(name, model, read.sources) for name, model in given.items()}
        tokenizer = files.tokenizer(Path(folder)) if tokenizer is None else tokenizer
        rlhf = cls.__new__(cls)
        rlhf._set_up(
            models["actor"], reward, read.settings, models["critic"], models["reference"], tokenizer, device
        )  # fmt: skip
        rlhf._restored, rlhf._reply = read.state, reply
        return rlhf


def _again(name: str, model: Any, sources: dict[str, Any]) -> Any:
    """A model as it was at the beginning: given again, or from where it came then."""
    held = sources[name]
    if model is not None or held is None:
        return model
    if held == files.MODULE:
        raise ValueError(f"{name} was given as a module when the run began: give it again, as it was then")
    return held


def tokenizer_of(actor: Any, tokenizer: Any = None) -> Any:
    """The tokenizer given, as an object or a path, or that of the actor's path."""
    if tokenizer is not None and not isinstance(tokenizer, str | Path):
        return tokenizer
    path = tokenizer or (actor if isinstance(actor, str | Path) else getattr(actor, "name_or_path", None))
    if not path:
        raise ValueError("tokenizer: the actor is a module without a path; give tokenizer=")
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path)


def _reward(reward: Any, rlhf: RLHF) -> Any:
    made = rewards.make(reward, rlhf.tokenizer)
    if made.model is not None:
        made.model.to(rlhf.device)
    return made


def stop_tokens(actor: Any, tokenizer: Any) -> tuple[int, ...]:
    """The tokens by which the actor ends a completion: the model's own, and the tokenizer's."""
    own = getattr(getattr(actor, "generation_config", None), "eos_token_id", None)
    found: Sequence[Any] = own if isinstance(own, list | tuple) else [own]
    return tuple(sorted({int(x) for x in [*found, tokenizer.eos_token_id] if x is not None}))


def _lines(choice: Any, prefix: str) -> list[str]:
    """`name.of.field = value` of a dataclass, however deep."""
    lines: list[str] = []
    for f in fields(choice):
        value = getattr(choice, f.name)
        name = f"{prefix}{f.name}"
        if hasattr(value, "__dataclass_fields__"):
            lines += [f"{name} = {type(value).__name__}", *_lines(value, f"{name}.")]
        else:
            lines.append(f"{name} = {value!r}")
    return lines
