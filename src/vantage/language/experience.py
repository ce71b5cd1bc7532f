"""From scored completions to a `Rollout`: where the score stands, what the KL costs, where a column ends."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int

from vantage.language.records import Experience, Sequences
from vantage.recipe import KLInReward
from vantage.recipe.schedule import check
from vantage.rollout import Rollout
from vantage.runs.config import known
from vantage.theory.reduce import whiten
from vantage.theory.scan import reverse_scan

Tensor = torch.Tensor


@known
@dataclass(frozen=True, kw_only=True)
class Replace:
    """A completion that did not end by itself gets this score, whatever the reward said."""

    score: float = -1.0
    """The score in its place."""

    def __call__(self, score: Tensor, ended: Tensor) -> Tensor:
        return torch.where(ended, score, torch.full_like(score, self.score))


@known
@dataclass(frozen=True, kw_only=True)
class Subtract:
    """A completion that did not end by itself loses this much of its score."""

    amount: float = 1.0
    """What is taken off."""

    def __call__(self, score: Tensor, ended: Tensor) -> Tensor:
        return torch.where(ended, score, score - self.amount)


@known
@dataclass(frozen=True, kw_only=True)
class Shaping:
    """What happens to scores and ends before Ψ reads them."""

    missing_eos: Replace | Subtract | None = None
    """What a completion costs that was cut at the length limit; None: nothing."""
    length_cut: Literal["terminated", "truncated"] = "terminated"
    """What the length limit means: the answer is over, or it would have gone on and V says for how much."""
    score_clip: float | None = None
    """Bound on |score| after normalisation; None: none."""
    normalise_score: bool = False
    """Whether scores are brought to mean 0 and deviation 1 with running statistics."""
    whiten_reward: bool = False
    """Whether what Ψ reads is divided by its deviation over the experience, its mean left in place."""

    def __post_init__(self) -> None:
        known_cut = self.length_cut in ("terminated", "truncated")
        check(known_cut, self, "length_cut", 'choose "terminated" or "truncated"')
        check(self.score_clip is None or self.score_clip > 0, self, "score_clip", "a positive bound, or None")


def shaped(score: Tensor, ended: Tensor, shaping: Shaping, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """The score as the reward's last row gets it: normalised, clipped, then the missing end paid for."""
    score = (score - mean) / std if shaping.normalise_score else score
    score = score if shaping.score_clip is None else score.clamp(-shaping.score_clip, shaping.score_clip)
    return score if shaping.missing_eos is None else shaping.missing_eos(score, ended)


def last_decision(mask: Bool[Tensor, "T B"]) -> Bool[Tensor, "T B"]:
    """Where each column's last real row is."""
    later = mask.flip(0).cumsum(0).flip(0)
    return mask & (later == 1)


def rollout(
    sequences: Sequences,
    log_prob: Float[Tensor, "B R"],
    score: Float[Tensor, " B"],
    ended: Bool[Tensor, " B"],
    *,
    gamma: float = 1.0,
    shaping: Shaping = Shaping(),
    values: Float[Tensor, "B R1"] | None = None,
    actor_log_prob: Float[Tensor, "B R"] | None = None,
    group: Int[Tensor, " B"] | None = None,
    weight: Float[Tensor, " B"] | None = None,
) -> Rollout:
    """The record of scored completions: row t is completion token t, column b completion b.

    The score stands at the last decision. A column ends there: with discount 0, or γ and V of what was reached where
    `shaping` takes the length limit for a truncation. `score` is already shaped. `values` has one entry more than
    there are tokens: V before each, and after the last position.
    """
    mask = sequences.decisions.T
    last = last_decision(mask)
    like = torch.zeros_like(log_prob.T)
    reward = torch.where(last, score.to(like.dtype)[None, :], like)
    over = ended | (shaping.length_cut == "terminated")
    discount = torch.where(last & over[None, :], like, like + gamma)
    value = next_value = None
    if values is not None:
        value, next_value = both_values(sequences, values)
    return Rollout(
        observation=None, action=sequences.completion.T, reward=reward, signal=reward, discount=discount, last=last,
        mask=mask, log_prob=torch.where(mask, log_prob.T, like), value=value, next_value=next_value,
        actor_log_prob=None if actor_log_prob is None else actor_log_prob.T,
        group=group, weight=weight, gamma=gamma, time=(mask.long().cumsum(0) - 1).clamp(min=0),
    )  # fmt: skip


def with_values(experience: Experience, values: Float[Tensor, "B R1"]) -> Experience:
    """The experience with V of another moment."""
    value, next_value = both_values(experience.sequences, values)
    return replace(experience, rollout=replace(experience.rollout, value=value, next_value=next_value))


def both_values(
    sequences: Sequences, values: Float[Tensor, "B R1"]
) -> tuple[Float[Tensor, "T B"], Float[Tensor, "T B"]]:
    """V(s_t) and V(s_{t+1}), which is that of the next decision, across a tool's answer too; behind the last real token
    where the column ends.
    """
    mask = sequences.decisions.T
    value = torch.where(mask, values[:, :-1].T, torch.zeros_like(values[:, :-1].T))
    following = torch.cat([value[1:], torch.zeros_like(value[:1])])
    decided = torch.cat([mask[1:], torch.zeros_like(mask[:1])]).to(value.dtype)
    ahead = reverse_scan(following * decided, 1.0 - decided)
    length = sequences.real.long() * (torch.arange(sequences.real.shape[1], device=mask.device) + 1)
    behind = values.gather(1, length.amax(1)[:, None])[:, 0]
    reached = torch.where(last_decision(mask), behind[None, :], ahead)
    return value, torch.where(mask, reached, torch.zeros_like(value))


def with_signal(
    experience: Experience, kl: Any, beta: float, shaping: Shaping = Shaping()
) -> Experience:  # fmt: skip
    """The experience with r_t as Ψ reads it: less β (log π − log π_ref) where the KL stands in the reward."""
    record = experience.rollout
    signal = record.reward
    if isinstance(kl, KLInReward) and experience.reference_log_prob is not None:
        signal = kl.signal(signal, record.log_prob, experience.reference_log_prob, beta, record.mask)
    if shaping.whiten_reward:
        signal = whiten(signal, record.mask, shift=False)
    return replace(experience, rollout=replace(record, signal=signal))
