"""Completions of several turns: the actor writes, somebody answers inside the completion, the actor goes on."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from jaxtyping import Float

from vantage.language import data
from vantage.language.records import Completions, Prompts
from vantage.language.rewards import Batch, Function

Tensor = torch.Tensor


class Turns:
    """A `Generator` in which `reply(prompts, completions, completion_ids, **columns)` answers the actor.

    It is called by keyword, as rewards are, with the completions that have just come to an end, and returns a text for
    each, or None where the completion is over. A text is read by every model and was chosen by nobody: it is no
    decision. What the actor writes and what it is answered together have at most `longest` tokens. Token t of a
    completion draws the number noise[t] of its column, whatever others do.
    """

    def __init__(self, inner: Any, reply: Callable[..., Any], tokenizer: Any, longest: int, pad: int) -> None:
        self._inner, self._tokenizer, self._longest, self._pad = inner, tokenizer, longest, pad
        self._reply = Function(reply)
        self._reply.role = "reply"

    def ready(self) -> AbstractContextManager[None]:
        """When whoever writes is."""
        return self._inner.ready()

    def moved(self) -> None:
        """The same for whoever writes."""
        self._inner.moved()

    def complete(
        self, prompts: Prompts, noise: Float[Tensor, "R B"] | None = None, copies: int = 1
    ) -> Completions:  # fmt: skip
        """Completions whose `chosen` marks what the actor wrote. Raises ValueError or TypeError for a reply that is
        neither text nor None.
        """
        self._reply.check(list(prompts.columns))
        longest = self._longest if noise is None else len(noise)
        said = _rows(self._inner.complete(prompts, noise, copies))
        prompts = prompts.take([row for row in range(len(prompts)) for _ in range(copies)])
        open_rows = [b for b, row in enumerate(said) if row.ended and len(row.ids) < longest]
        while open_rows:
            answers = self._answers(prompts.take(open_rows), [said[b] for b in open_rows])
            open_rows = [b for b, answer in zip(open_rows, answers, strict=True) if answer]
            for b, answer in zip(open_rows, filter(None, answers), strict=True):
                said[b].hear(answer[: longest - len(said[b].ids)])
            open_rows = [b for b in open_rows if len(said[b].ids) < longest]
            self._go_on(prompts, said, open_rows, noise, longest)
            open_rows = [b for b in open_rows if said[b].ended and len(said[b].ids) < longest]
        return _record(said, self._pad)

    def _answers(self, prompts: Prompts, said: list["_Row"]) -> list[list[int] | None]:
        """The tokens of each reply; None where there is none."""
        ids = [row.ids for row in said]
        texts = data.completions(prompts.prompts, self._tokenizer.batch_decode(ids, skip_special_tokens=True))
        given = Batch(prompts=list(prompts.prompts), completions=texts, columns=prompts.columns, completion_ids=ids)
        told = self._reply.score(given)
        if not isinstance(told, list | tuple) or len(told) != len(said):
            raise ValueError(f"reply returned {told!r} for {len(said)} completions: return one text or None for each")
        odd = [x for x in told if not (x is None or isinstance(x, str))]
        if odd:
            raise TypeError(f"reply returned {odd[0]!r}: return a text, or None where the completion is over")
        return [self._tokenizer(x, add_special_tokens=False)["input_ids"] if x else None for x in told]

    def _go_on(self, prompts: Prompts, said: list["_Row"], rows: list[int], noise: Tensor | None, longest: int) -> None:
        """The actor's next turn in these rows, each with the numbers that its position has."""
        if not rows:
            return
        room = longest - min(len(said[b].ids) for b in rows)
        draws = None
        if noise is not None:
            shifted = [torch.roll(noise[:, b], -len(said[b].ids))[:room] for b in rows]
            draws = torch.stack(shifted, 1)
        begun = [(*prompts.ids[b], *said[b].ids) for b in rows]
        more = self._inner.complete(Prompts(ids=tuple(begun), prompts=tuple(prompts.prompts[b] for b in rows)), draws)
        for b, row in zip(rows, _rows(more), strict=True):
            said[b].speak(row, longest)


class _Row:
    """One completion under way."""

    def __init__(self, ids: list[int], log_prob: list[float], ended: bool) -> None:
        self.ids, self.log_prob, self.ended = ids, log_prob, ended
        self.chosen = [True] * len(ids)

    def hear(self, ids: list[int]) -> None:
        """What somebody else says."""
        self.ids, self.log_prob = self.ids + ids, self.log_prob + [0.0] * len(ids)
        self.chosen, self.ended = self.chosen + [False] * len(ids), False

    def speak(self, more: "_Row", longest: int) -> None:
        """What the actor says next, as far as there is room."""
        room = longest - len(self.ids)
        self.ended = more.ended and len(more.ids) <= room
        self.ids, self.log_prob = self.ids + more.ids[:room], self.log_prob + more.log_prob[:room]
        self.chosen = self.chosen + [True] * min(room, len(more.ids))


def _rows(says: Completions) -> list[_Row]:
    told = torch.zeros(says.ids.shape) if says.log_prob is None else says.log_prob
    parts = zip(says.ids, told, says.mask, says.ended.tolist(), strict=True)
    return [_Row(ids[real].tolist(), log_prob[real].tolist(), ended) for ids, log_prob, real, ended in parts]


def _record(said: list[_Row], pad: int) -> Completions:
    width = max(len(row.ids) for row in said)

    def padded(rows: list[Any], fill: Any, dtype: Any) -> Tensor:
        return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows], dtype=dtype)

    return Completions(
        ids=padded([row.ids for row in said], pad, torch.int64),
        mask=padded([[True] * len(row.ids) for row in said], False, torch.bool),
        ended=torch.tensor([row.ended for row in said]),
        log_prob=padded([row.log_prob for row in said], 0.0, torch.float32),
        chosen=padded([row.chosen for row in said], False, torch.bool),
    )
