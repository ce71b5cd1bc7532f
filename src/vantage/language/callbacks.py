"""What listens to an RLHF run: sample completions with their scores, evaluation on held-out prompts."""

import json
from pathlib import Path
from typing import Any

from vantage.callbacks import Each
from vantage.language.rlhf import RLHF
from vantage.language.training import Sample
from vantage.loop import Report, Update
from vantage.recipe import Recipe
from vantage.runs.log import event_writer, keep_lines
from vantage.world import World


class Samples(Each):
    """Shows some completions of the update with their scores, every `every` completions.

    They go to the terminal as a table, to the file `path` as JSON lines, and to the folder `tensorboard` as text; each
    where it is given. A resumed run drops the lines behind its checkpoint.
    """

    writes = True

    def __init__(
        self, every: int = 1_000, n: int = 4, *, path: str | Path | None = None, tensorboard: str | Path | None = None,
        table: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(self._show, every)
        if n < 1:
            raise ValueError(f"n = {n}: how many completions are shown, at least 1")
        self._n, self._path, self._table = n, None if path is None else Path(path), table
        self._folder, self._events = tensorboard, None

    def on_start(self, world: Any, recipe: Recipe, total_steps: int) -> None:
        """Open what is written to."""
        super().on_start(world, recipe, total_steps)
        if self._path is not None:
            keep_lines(self._path, "episode", world.steps)
        if self._folder is not None:
            # a name of its own: the metrics' file is opened in the same second
            self._events: Any = event_writer(
                Path(self._folder), purge_step=world.steps or None, filename_suffix=".samples"
            )

    def _show(self, update: Update) -> None:
        world: Any = update.world
        chosen = world.samples[: self._n]
        if self._path is not None:
            with open(self._path, "a", encoding="utf-8") as file:
                file.writelines(f"{json.dumps(_row(sample, update.steps))}\n" for sample in chosen)
        if self._events is not None:
            self._events.add_text("completions", _markdown(chosen), update.steps)
        if self._table:
            print_table(chosen, f"after {update.steps:,} completions")

    def on_end(self, report: Report) -> None:
        """Close what was opened."""
        if self._events is not None:
            self._events.close()


class Evaluate(Each):
    """Completes held-out prompts every `every` completions, and before the first update.

    Adds `eval/score`, `eval/score_se`, `eval/kl` and `eval/length` to the update's metrics: let it stand before the
    callbacks that log them. `evaluations` holds (completions made, evaluation) of each time.
    """

    def __init__(self, rlhf: RLHF, prompts: Any, every: int = 1_000, seed: int = 0) -> None:
        super().__init__(self._evaluate, every)
        self._rlhf, self._prompts, self._seed = rlhf, prompts, seed
        self.evaluations: list[tuple[int, Any]] = []

    def on_start(self, world: World, recipe: Recipe, total_steps: int) -> None:
        """Evaluate what the run begins with."""
        super().on_start(world, recipe, total_steps)
        self.evaluations.append((world.steps, self._rlhf.evaluate(self._prompts, self._seed)))

    def _evaluate(self, update: Update) -> None:
        seen = self._rlhf.evaluate(self._prompts, self._seed)
        self.evaluations.append((update.steps, seen))
        update.metrics["eval/score"], update.metrics["eval/score_se"] = seen.mean, seen.standard_error
        update.metrics["eval/length"] = sum(seen.lengths) / len(seen.lengths)
        if seen.kl is not None:
            update.metrics["eval/kl"] = seen.kl


def print_table(samples: list[Sample], title: str) -> None:
    """The samples as a table in the terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("prompt", "completion", "score", title=title, show_lines=True)
    for sample in samples:  # what a model wrote is no markup
        table.add_row(Text(_text(sample.prompt)), Text(_text(sample.completion)), f"{sample.score:.3g}")
    Console().print(table)


def _text(x: Any) -> str:
    """A text, or messages one a line."""
    return x if isinstance(x, str) else "\n".join(f"{message['role']}: {message['content']}" for message in x)


def _row(sample: Sample, steps: int) -> dict[str, Any]:
    return {"episode": steps, "prompt": sample.prompt, "completion": sample.completion, "score": sample.score}


def _markdown(samples: list[Sample]) -> str:
    cells = [[_text(s.prompt), _text(s.completion), f"{s.score:.3g}"] for s in samples]
    rows = [" | ".join(cell.replace("\n", "<br>").replace("|", "\\|") for cell in row) for row in cells]
    return "\n".join(["prompt | completion | score", "--- | --- | ---", *rows])


__all__ = ["Evaluate", "Samples", "print_table"]
