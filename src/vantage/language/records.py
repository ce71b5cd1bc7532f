"""The records of the language world: prompts, completions, both as padded sequences with one boolean mask, and what was
seen of them.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from vantage.recipe.schedule import check, check_whole
from vantage.rollout import Rollout
from vantage.runs.config import known

Tensor = torch.Tensor


@known
@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the actor completes a prompt. Nothing cuts the distribution (no top-k, no top-p): π_old is what acted."""

    max_new_tokens: int = 53
    """The longest completion, in tokens."""
    temperature: float = 1.0
    """What logits are divided by, in sampling and in every log-probability."""

    def __post_init__(self) -> None:
        check_whole(self, "max_new_tokens")
        check(self.max_new_tokens >= 1, self, "max_new_tokens", "complete by at least one token")
        check(self.temperature > 0, self, "temperature", "a positive number; 1 samples from the model as it is")


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """Tokenised prompts, with what the reward may want to know about each."""

    ids: tuple[tuple[int, ...], ...]
    """Token ids of each prompt, without padding, as the model will see them."""
    prompts: tuple[Any, ...]
    """Each prompt as the user gave it: a string, or a list of messages; handed to the reward."""
    columns: dict[str, list[Any]] = field(default_factory=dict)
    """Further columns of the data, one entry a prompt; handed to the reward by keyword."""

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Any) -> "Prompts":
        """The prompts with these numbers, in this order; a number may come more than once."""
        rows = [int(row) for row in rows]
        return Prompts(
            ids=tuple(self.ids[row] for row in rows),
            prompts=tuple(self.prompts[row] for row in rows),
            columns={name: [column[row] for row in rows] for name, column in self.columns.items()},
        )


@dataclass(frozen=True, kw_only=True)
class Completions:
    """What the actor wrote after each prompt: R positions, right-padded. What is real is said by `mask`, never by a
    token's id.
    """

    ids: Int[Tensor, "B R"]
    mask: Bool[Tensor, "B R"]
    """A real token, the stop token included."""
    ended: Bool[Tensor, " B"]
    """The actor chose to stop (its last token is a stop token); False: cut at the length limit."""
    log_prob: Float[Tensor, "B R"] | None = None
    """log μ(y_t|…) as whoever sampled recorded it, float32, at the sampling temperature."""
    chosen: Bool[Tensor, "B R"] | None = None
    """Tokens that the actor sampled; None: all real ones. A tool's answer is real, but not chosen."""


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """Prompt and completion as the models read them: prompts left-padded to P, completions right-padded to R.

    What is real is said by the mask, never by a token's id: padding may be the end token.
    """

    ids: Int[Tensor, "B L"]
    mask: Bool[Tensor, "B L"]
    """A real token of prompt or completion."""
    prompt: int
    """P: where completions begin; L = P + R."""
    chosen: Bool[Tensor, "B R"] | None = None
    """Completion tokens that the actor sampled; None: all real ones. A tool's answer is real, but not chosen."""

    def __len__(self) -> int:
        return self.ids.shape[0]

    @property
    def completion(self) -> Int[Tensor, "B R"]:
        """y_t, the tokens of the completion."""
        return self.ids[:, self.prompt :]

    @property
    def real(self) -> Bool[Tensor, "B R"]:
        """The completion's real tokens."""
        return self.mask[:, self.prompt :]

    @property
    def decisions(self) -> Bool[Tensor, "B R"]:
        """The completion's real tokens that the actor chose."""
        return self.real if self.chosen is None else self.real & self.chosen

    @property
    def positions(self) -> Int[Tensor, "B L"]:
        """Place of each token in its own text, from 0: padding has no influence on it."""
        return (self.mask.long().cumsum(1) - 1).clamp(min=0)

    def take(self, rows: Any) -> "Sequences":
        """These columns."""
        chosen = None if self.chosen is None else self.chosen[rows]
        return replace(self, ids=self.ids[rows], mask=self.mask[rows], chosen=chosen)

    def trimmed(self) -> "Sequences":
        """Without the positions that are padding in every row: nothing but time is saved."""
        before, after = self.mask[:, : self.prompt].any(0), self.real.any(0).nonzero()
        left = int(before.long().argmax()) if bool(before.any()) else self.prompt - 1
        width = int(after[-1]) + 1 if len(after) else 1
        right = self.prompt + width
        chosen = None if self.chosen is None else self.chosen[:, :width]
        return Sequences(
            ids=self.ids[:, left:right], mask=self.mask[:, left:right], prompt=self.prompt - left, chosen=chosen
        )

    def to(self, device: Any) -> "Sequences":
        """The same on another device."""
        chosen = None if self.chosen is None else self.chosen.to(device)
        return replace(self, ids=self.ids.to(device), mask=self.mask.to(device), chosen=chosen)


@dataclass(frozen=True, kw_only=True)
class Experience:
    """What one collection saw: the rollout, the sequences its rows stand in, and what only this world records.

    Rows are completion positions, columns completions: row t of column b is the decision y_t after prompt and y_{<t}.
    """

    rollout: Rollout
    sequences: Sequences
    score: Float[Tensor, " B"]
    """The reward function's number for each completion, untouched."""
    ended: Bool[Tensor, " B"]
    """The actor stopped by itself; False: cut at the length limit."""
    reference_log_prob: Float[Tensor, "T B"] | None = None
    """log π_ref(y_t|…), nats, float32, at the sampling temperature."""


def pad_left(rows: Any, pad: int) -> tuple[Int[Tensor, "B P"], Bool[Tensor, "B P"]]:
    """(ids, mask) of token lists of mixed length, aligned at their ends."""
    width = max(map(len, rows))
    ids, mask = np.full((len(rows), width), pad, np.int64), np.zeros((len(rows), width), bool)
    for i, row in enumerate(rows):
        ids[i, width - len(row) :], mask[i, width - len(row) :] = row, True
    return torch.from_numpy(ids), torch.from_numpy(mask)


def join(prompt_ids: Int[Tensor, "B P"], prompt_mask: Bool[Tensor, "B P"], completions: Completions) -> Sequences:
    """Prompts, left-padded, and their completions as one record."""
    return Sequences(
        ids=torch.cat([prompt_ids, completions.ids], 1),
        mask=torch.cat([prompt_mask, completions.mask], 1),
        prompt=prompt_ids.shape[1],
        chosen=completions.chosen,
    )
