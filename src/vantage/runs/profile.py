"""Where the time of a run goes: timers around its parts, which cost nothing in a run without one."""

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from vantage.loop import Callback, Report, Update
from vantage.recipe import Recipe
from vantage.runs.seams import seams, wrapped
from vantage.world import World

PARTS = {
    "act": "the policy's forward pass and the choice of actions",
    "step": "the environments",
    "score": "log π_old and V of the whole rollout",
    "record": "all else of collecting: the record, statistics, checks",
    "estimate": "Ψ and the critic's targets, measured alone",
    "update": "the epochs of gradient steps",
    "log": "callbacks: logs, evaluation, checkpoints",
}
"""The parts, in the order of a run."""
INSIDE = {"act": "collect", "step": "collect", "score": "collect"}
"""What is counted only where it is called by another part."""


class Profile(Callback):
    """Times the parts of a run from its second update on; the first, which also compiles, is told apart.

    After the run `seconds` holds each part, `first` the first update, and `str(profile)` is a table.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        """Seconds by part, the first update left out."""
        self.first = 0.0
        """Seconds of the first rollout and update, in which everything is compiled."""
        self.updates = self.steps = 0
        """How many updates and steps the seconds are of."""
        self._sum: dict[str, float] = {}
        self._within: str | None = None
        self._named: set[str] = set()
        self._hold, self._last = ExitStack(), None
        self._began = 0.0
        self._before = 0

    def on_start(self, world: World, recipe: Recipe, total_steps: int) -> None:
        """Put a timer around each part."""
        self._named = set(seams(world))
        places = {"collect": [(world, "collect")], "whole update": [(world, "update")], **seams(world)}
        for part, where in places.items():
            self._hold.enter_context(wrapped(where, lambda call, part=part: self._timed(part, call)))
        self._began, self.updates, self._last = time.perf_counter(), 0, None

    def _timed(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any, **named: Any) -> Any:
            began, outside = time.perf_counter(), self._within
            self._within = part
            try:
                return call(*given, **named)
            finally:
                self._within = outside
                if outside == INSIDE.get(part, outside):  # an evaluation acts as well, but not for the record
                    self._sum[part] = self._sum.get(part, 0.0) + time.perf_counter() - began

        return timed

    def on_update(self, update: Update) -> None:
        """Begin to count after the first one."""
        if self._last is None:
            now = time.perf_counter()
            self.first, self._began, self._before = now - self._began, now, update.steps
            self._sum = {}
        else:
            self.updates += 1
        self.steps, self._last = update.steps - self._before, update

    def on_end(self, report: Report) -> None:
        """Take the timers away and add up."""
        total = time.perf_counter() - self._began
        self._hold.close()
        known = {name: self._sum.get(name, 0.0) for name in INSIDE if name in self._named}
        collect, update = self._sum.get("collect", 0.0), self._sum.get("whole update", 0.0)
        estimate = min(update, self.updates * _estimate(self._last)) if self.updates and self._last else 0.0
        parts = {
            **known, "record": collect - sum(known.values()), "estimate": estimate, "update": update - estimate,
            "log": total - collect - update,
        }  # fmt: skip
        self.seconds = {name: max(0.0, parts[name]) for name in PARTS if name in parts} if self.updates else {}

    def rows(self) -> list[dict[str, Any]]:
        """A row a part: its name, seconds, share, and microseconds a step."""
        total = sum(self.seconds.values()) or 1.0
        return [
            {"part": part, "seconds": x, "share": x / total, "us_per_step": 1e6 * x / max(1, self.steps)}
            for part, x in self.seconds.items()
        ]

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON-able data."""
        return {"first_update_seconds": self.first, "updates": self.updates, "steps": self.steps, "parts": self.rows()}

    def __str__(self) -> str:
        if not self.seconds:
            return "Nothing to time: a profile leaves the first update out, so train for at least two."
        total = sum(self.seconds.values())
        lines = [f"{'part':<10}{'seconds':>9}{'share':>8}{'µs a step':>12}"]
        for row in self.rows():
            numbers = f"{row['seconds']:>9.3f}{row['share']:>8.1%}{row['us_per_step']:>12.2f}"
            lines.append(f"{row['part']:<10}{numbers}   {PARTS[row['part']]}")
        if not self._named:
            lines.append("Acting is a part of the update here: one compiled program.")
        speed = f"{self.steps / total:,.0f} steps/s over {self.updates:,} updates"
        return "\n".join([*lines, f"{speed}; the first, with compilation, took {self.first:.2f} s and is left out."])


def _estimate(update: Update) -> float:
    """Seconds that Ψ and the targets of one rollout take, compiled as in the update where that is compiled."""
    rollout, recipe = update.rollout, update.recipe
    times = recipe.n_epochs if recipe.recompute_advantages else 1
    columns: Any = {name: x for name, x in vars(rollout).items() if not isinstance(x, int | float) and x is not None}

    def prepare(columns: Any) -> Any:
        return vars(recipe.prepare(replace(rollout, **columns)))

    if "jax" in sys.modules and "torch" not in type(rollout.reward).__module__:
        import jax

        prepare = jax.jit(prepare)
        jax.block_until_ready(prepare(columns))
    began = time.perf_counter()
    found = prepare(columns)
    if "jax" in sys.modules:
        sys.modules["jax"].block_until_ready([x for x in found.values() if x is not None])
    return times * (time.perf_counter() - began)
