"""Rewards of completions: Python functions called as TRL calls them, sequence-classification models, weighted sums."""

import asyncio
import inspect
import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

Array = Any


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What is scored: each field has one entry a row."""

    prompts: list[Any]
    """As the data gave them: texts, or lists of messages."""
    completions: list[Any]
    """In the same form."""
    columns: dict[str, list[Any]] = field(default_factory=dict)
    """Further columns of the data."""
    completion_ids: list[list[int]] = field(default_factory=list)
    """Token ids of each completion, its end-of-sequence token included."""

    def __len__(self) -> int:
        return len(self.prompts)


@runtime_checkable
class Scorer(Protocol):
    """One source of rewards."""

    name: str

    def score(self, batch: Batch) -> Any:
        """A number or None a row, or an awaitable of that."""
        ...

    def check(self, columns: Sequence[str]) -> None:
        """Raise ValueError if rows with these columns cannot be scored."""
        ...


class RewardError(RuntimeError):
    """A reward could not be had; the rows generated so far, and the scores they already got, can be saved."""

    def __init__(self, message: str, batch: Batch, parts: Mapping[str, Array]) -> None:
        super().__init__(message)
        self.batch, self.parts = batch, dict(parts)

    def save(self, path: str | Path) -> Path:
        """Write the rows as JSON lines: prompt, completion, its ids, columns, scores; returns the path."""
        batch = self.batch
        with open(path, "w", encoding="utf-8") as file:
            for row in range(len(batch)):
                line = {
                    "prompt": batch.prompts[row],
                    "completion": batch.completions[row],
                    "completion_ids": batch.completion_ids[row] if batch.completion_ids else None,
                    **{name: column[row] for name, column in batch.columns.items()},
                    "scores": {name: _number_or_none(part[row]) for name, part in self.parts.items()},
                }
                file.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")
        return Path(path)


class Rewards:
    """The weighted sum of several sources of rewards, with each one's part in it.

    After `score`: `parts` holds the scores by source, NaN where one does not apply; `extra` and `logged` what functions
    handed to `log_extra` and `log_metric`.
    """

    def __init__(self, scorers: Sequence[Scorer], weights: Sequence[float], retries: int = 0) -> None:
        if retries < 0:
            raise ValueError(f"retries = {retries}: how often a failing reward is asked again, at least 0")
        self.scorers, self.weights, self.retries = _distinct(scorers), tuple(map(float, weights)), retries
        self.parts: dict[str, Array] = {}
        self.extra: dict[str, list[Any]] = {}
        self.logged: dict[str, list[float]] = {}
        for scorer in self.scorers:
            if isinstance(scorer, Function):
                scorer.offer(log_extra=self.extra.__setitem__, log_metric=self._log)

    @property
    def model(self) -> Any:
        """The one reward model, or None where there is none or more than one."""
        found = [model for model in (getattr(scorer, "model", None) for scorer in self.scorers) if model is not None]
        return found[0] if len(found) == 1 else None

    def check(self, columns: Sequence[str]) -> None:
        """Raise ValueError if a function needs a column that the data does not have."""
        for scorer in self.scorers:
            scorer.check(columns)

    def score(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        columns: Mapping[str, Sequence[Any]] | None = None,
        completion_ids: Sequence[Sequence[int]] = (),
    ) -> Float[np.ndarray, " B"]:
        """r = Σ_i w_i r_i over the sources that apply, `[B]`, float64.

        Raises RewardError, naming source, row and remedy, where a source fails, or none applies to a row.
        """
        batch = Batch(
            prompts=list(prompts),
            completions=list(completions),
            columns={name: list(column) for name, column in (columns or {}).items()},
            completion_ids=[list(ids) for ids in completion_ids],
        )
        self.parts, failure = {}, None
        self.extra.clear()
        self.logged.clear()
        for scorer, answer in zip(self.scorers, self._answers(batch), strict=True):
            if isinstance(answer, Exception):
                failure = failure or (scorer.name, answer)
            else:
                self.parts[scorer.name] = answer
        if failure is not None:
            raise self._error(f"reward {failure[0]!r} {_why(failure[1])}", batch) from failure[1]
        stacked = np.stack([self.parts[scorer.name] for scorer in self.scorers])
        none = np.isnan(stacked).all(0)
        if none.any():
            row = int(none.argmax())
            raise self._error(f"no reward applies to row {row}: let one function return a number there", batch)
        return np.nansum(np.asarray(self.weights)[:, None] * stacked, 0)

    def metrics(self) -> dict[str, float]:
        """Mean and (sample) standard deviation of each source in the last call, over the rows it applies to."""
        found: dict[str, float] = {name: float(np.mean(values)) for name, values in self.logged.items()}
        for name, part in self.parts.items():
            real = part[~np.isnan(part)]
            if len(real) > 0:
                found[f"rewards/{name}/mean"] = float(real.mean())
            if len(real) > 1:
                found[f"rewards/{name}/std"] = float(real.std(ddof=1))
        return found

    def _log(self, name: str, value: float) -> None:
        self.logged.setdefault(name, []).append(float(value))

    def _error(self, message: str, batch: Batch) -> RewardError:
        return RewardError(message, batch, self.parts)

    def _answers(self, batch: Batch) -> list[Array | Exception]:
        """What each source says, asked again up to `retries` times where it fails."""
        answers = _ask(self.scorers, batch)
        for _ in range(self.retries):
            again = [number for number, answer in enumerate(answers) if isinstance(answer, Exception)]
            for number, answer in zip(again, _ask([self.scorers[number] for number in again], batch), strict=True):
                answers[number] = answer
        return answers


class Function:
    """A Python function as a source: `f(prompts=…, completions=…, completion_ids=…, **columns) -> list[float | None]`.

    It is called by keyword with whatever of these it takes, and may be a coroutine function.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.name, self.role = function, _name(function), "reward"
        self._offered: dict[str, Any] = {}
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except ValueError:  # some built-in: it takes what it takes
            parameters = [inspect.Parameter("columns", inspect.Parameter.VAR_KEYWORD)]
        by_position = [p.name for p in parameters if p.kind is p.POSITIONAL_ONLY and p.default is p.empty]
        if by_position:
            raise TypeError(f"{self.role} {self.name!r} takes {by_position[0]!r} by position: let it take keywords")
        self._any = any(p.kind is p.VAR_KEYWORD for p in parameters)
        named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        self._takes = {p.name for p in named}
        self._needs = [p.name for p in named if p.default is p.empty]

    def offer(self, **tools: Callable[..., None]) -> None:
        """Further arguments, for functions that take them."""
        self._offered = tools

    def check(self, columns: Sequence[str]) -> None:
        """Raise ValueError if the function needs what is neither a column nor ours."""
        known = ["prompts", "completions", "completion_ids", *self._offered, *columns]
        missing = [name for name in self._needs if name not in known]
        if missing:
            raise ValueError(
                f"{self.role} {self.name!r} needs {missing[0]!r}, which is no column of the prompts "
                f"(there are {', '.join(columns) or 'none'}): add it to the data, or give it a default"
            )

    def score(self, batch: Batch) -> Any:
        """The function's answer, or its coroutine."""
        self.check(list(batch.columns))
        given = {
            "prompts": batch.prompts,
            "completions": batch.completions,
            "completion_ids": batch.completion_ids,
            **self._offered,
            **batch.columns,
        }
        return self.function(**{name: x for name, x in given.items() if self._any or name in self._takes})


def make(source: Any, tokenizer: Any = None, *, retries: int = 0, batch_size: int = 32) -> Rewards:
    """Rewards from a function, a sequence-classification model (module or path), or a list of these.

    In a list, a pair (source, weight) gives a source another weight than 1. A model reads with its own tokenizer if it
    comes from a path or as `vantage.language.classifier.Classifier`, else with `tokenizer`, the actor's. Raises
    TypeError or ValueError, before anything is generated, for what cannot score.
    """
    if isinstance(source, Rewards):
        return source
    several = source if isinstance(source, list) else [source]
    if not several:
        raise ValueError("reward is an empty list: give at least one function or model")
    pairs = [each if _is_pair(each) else (each, 1.0) for each in several]
    scorers = [_scorer(each, tokenizer, batch_size) for each, _ in pairs]
    return Rewards(scorers, [weight for _, weight in pairs], retries)


def _is_pair(x: Any) -> bool:
    return isinstance(x, tuple) and len(x) == 2 and isinstance(x[1], int | float)


def _scorer(source: Any, tokenizer: Any, batch_size: int) -> Scorer:
    from torch import nn

    from vantage.language.classifier import Classifier

    if isinstance(source, str | Path):
        return Classifier.load(source, actor_tokenizer=tokenizer, batch_size=batch_size)
    if isinstance(source, nn.Module):
        return Classifier(source, tokenizer, actor_tokenizer=tokenizer, batch_size=batch_size)
    if isinstance(source, Scorer):
        return source
    if callable(source):
        return Function(source)
    raise TypeError(
        f"reward has {source!r}: give a function f(prompts, completions, **columns), a sequence-classification model "
        "or its path, or a list of these"
    )


def _distinct(scorers: Sequence[Scorer]) -> tuple[Scorer, ...]:
    """The sources, a number behind a name that comes again."""
    seen: dict[str, int] = {}
    for scorer in scorers:
        seen[scorer.name] = count = seen.get(scorer.name, 0) + 1
        scorer.name = scorer.name if count == 1 else f"{scorer.name}-{count}"
    return tuple(scorers)


def _ask(scorers: Sequence[Scorer], batch: Batch) -> list[Array | Exception]:
    """One answer or exception a source; coroutines wait for each other's answers together."""
    answers: list[Any] = []
    for scorer in scorers:
        try:
            answers.append(scorer.score(batch))
        except Exception as error:  # what the user's function may raise, nobody knows
            answers.append(error)
    waiting = [number for number, answer in enumerate(answers) if inspect.isawaitable(answer)]
    for number, answer in zip(waiting, _gather([answers[number] for number in waiting]), strict=True):
        answers[number] = answer
    return [_checked(answer, len(batch)) for answer in answers]


def _gather(awaitables: list[Any]) -> list[Any]:
    """The results of awaitables; in a thread of its own, since a notebook's thread already runs an event loop."""
    if not awaitables:
        return []
    found: list[Any] = []

    async def together() -> None:
        found.extend(await asyncio.gather(*awaitables, return_exceptions=True))

    thread = threading.Thread(target=lambda: asyncio.run(together()))
    thread.start()
    thread.join()
    return found


def _checked(answer: Any, rows: int) -> Array | Exception:
    """The answer as float64 with NaN for None, or what is wrong with it."""
    if isinstance(answer, BaseException):
        return answer if isinstance(answer, Exception) else RuntimeError(repr(answer))
    try:
        return np.array(list(_numbers(answer, rows)), dtype=np.float64)
    except (TypeError, ValueError) as error:
        return Wrong(str(error))


class Wrong(Exception):  # noqa: N818 - it says what is wrong with an answer
    """An answer that is no list of one finite number a row."""


def _numbers(answer: Any, rows: int) -> Iterator[float]:
    if hasattr(answer, "tolist"):
        answer = answer.tolist()
    if not isinstance(answer, list | tuple):
        raise TypeError(f"returned a {type(answer).__name__}: return a list of one number (or None) a completion")
    if len(answer) != rows:
        raise ValueError(f"returned {len(answer)} numbers for {rows} completions: return one number (or None) for each")
    for row, x in enumerate(answer):
        if x is None:
            yield math.nan
            continue
        x = x.item() if hasattr(x, "item") else x
        if not isinstance(x, int | float):
            raise TypeError(f"returned {x!r} for row {row}: return a number, or None where it does not apply")
        if not math.isfinite(x):
            raise ValueError(f"returned {x} for row {row}: return a finite number, or None where it does not apply")
        yield float(x)


def _why(error: Exception) -> str:
    if isinstance(error, Wrong):
        return str(error)
    return f"raised {type(error).__name__}: {error}; mend it, or let it be asked again with retries"


def _name(function: Any) -> str:
    inner = function.func if isinstance(function, partial) else function
    name = getattr(inner, "__name__", type(inner).__name__)
    return "reward" if name == "<lambda>" else name


def _number_or_none(x: float) -> float | None:
    return None if math.isnan(x) else float(x)
