"""What may listen to a run: evaluation, the best agent kept, reasons to stop early, copies, films, logs, any function.

None of them touches what training depends on: with or without them a run is the same bit for bit. All decide by the
number of steps or the metrics of an update, so that a resumed run decides alike; `rows` are the metrics it had so far.
"""

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from vantage.loop import Callback, Report, Step, Update
from vantage.recipe import Recipe
from vantage.rollout import Rollout
from vantage.runs.log import Csv, TensorBoard, keep_lines
from vantage.runs.profile import Profile
from vantage.runs.progress import Progress
from vantage.runs.video import record
from vantage.world import World

__all__ = [
    "Callback", "Checkpoints", "Csv", "Each", "Episodes", "Evaluate", "JsonLines", "Profile", "Progress", "RecordVideo",
    "Step", "StopAfterEpisodes", "StopAtReward", "StopWithoutImprovement", "TensorBoard", "Update", "WandB", "ended",
]  # fmt: skip

Row = Mapping[str, float]
STEPS = "time/total_timesteps"
REWARD, LENGTH, SUCCESS = "eval/mean_reward", "eval/mean_ep_length", "eval/success_rate"
EPISODES = "rollout/episodes"


@runtime_checkable
class Trainee(Protocol):
    """What is evaluated and saved: an `Agent`."""

    def evaluate(self, episodes: int = ..., deterministic: bool = ..., seed: int = ...) -> Any: ...

    def save(self, path: Path) -> None: ...


class Each(Callback):
    """Calls `function(update)` after every update, or after the first one at or beyond each multiple of `every` steps.

    The run ends when it returns False. Raises ValueError for `every` < 1.
    """

    def __init__(self, function: Callable[[Update], bool | None], every: int | None = None) -> None:
        if every is not None and every < 1:
            raise ValueError(f"every = {every}: a number of environment steps, at least 1, or None for each update")
        self._function, self._every, self._before = function, every, 0

    def on_start(self, world: World, recipe: Recipe, total_steps: int) -> None:
        """Note where the run begins."""
        self._before = world.steps

    def on_update(self, update: Update) -> bool | None:
        """Call the function if it is time."""
        before, self._before = self._before, update.steps
        if self._every is None or update.steps // self._every > before // self._every:
            return self._function(update)
        return None


class Evaluate(Each):
    """Plays `episodes` whole episodes every `every` steps, on environments and with seeds of their own.

    Adds `eval/mean_reward` and `eval/mean_ep_length` to the update's metrics: let it stand before the callbacks that
    read or log them. With `best` the agent is saved there whenever the mean reward is higher than ever before.
    All callbacks then hear `on_evaluation`, and `on_new_best` if it is one; functions given here under these names are
    called with the update at once. The run ends when one returns False.
    """

    def __init__(
        self,
        agent: Trainee,
        every: int = 10_000,
        episodes: int = 10,
        *,
        best: str | Path | None = None,
        deterministic: bool = True,
        seed: int = 0,
        on_evaluation: Callable[[Update], bool | None] | None = None,
        on_new_best: Callable[[Update], bool | None] | None = None,
        rows: Iterable[Row] = (),
    ) -> None:
        super().__init__(self._evaluate, every)
        self.highest = max((row[REWARD] for row in rows if REWARD in row), default=-float("inf"))
        """The best mean reward so far."""
        self._agent, self._path = agent, None if best is None else Path(best)
        self._how = {"episodes": episodes, "deterministic": deterministic, "seed": seed}
        self._on_evaluation, self._on_new_best = on_evaluation, on_new_best

    def _evaluate(self, update: Update) -> bool | None:
        played = self._agent.evaluate(**self._how)
        update.metrics[REWARD] = float(played.mean)
        update.metrics[LENGTH] = sum(played.lengths) / len(played.lengths)
        if getattr(played, "success", None) is not None:
            update.metrics[SUCCESS] = float(played.success)
        called = [self._on_evaluation]
        update.events.append("evaluation")
        if played.mean > self.highest:
            self.highest = float(played.mean)
            called.append(self._on_new_best)
            update.events.append("new_best")
            if self._path is not None:
                self._agent.save(self._path)
        return False if [hear for hear in called if hear is not None and hear(update) is False] else None


class StopAtReward(Callback):
    """Ends the run when a metric, by default that of `Evaluate`, is at least `threshold`."""

    def __init__(self, threshold: float, metric: str = REWARD) -> None:
        self._threshold, self._metric = threshold, metric

    def on_update(self, update: Update) -> bool | None:
        """False when the threshold is reached."""
        return False if update.metrics.get(self._metric, -float("inf")) >= self._threshold else None


class StopWithoutImprovement(Callback):
    """Ends the run when a metric has not risen above its highest value for `patience` measurements in a row.

    Raises ValueError for `patience` < 1.
    """

    def __init__(self, patience: int, metric: str = REWARD, rows: Iterable[Row] = ()) -> None:
        if patience < 1:
            raise ValueError(f"patience = {patience}: a number of evaluations, at least 1")
        self._patience, self._metric = patience, metric
        self._highest, self._waited = -float("inf"), 0
        for row in rows:
            self._see(row)

    def on_update(self, update: Update) -> bool | None:
        """False when patience is exhausted."""
        self._see(update.metrics)
        return False if self._waited >= self._patience else None

    def _see(self, row: Row) -> None:
        if self._metric in row:
            higher = row[self._metric] > self._highest
            self._waited = 0 if higher else self._waited + 1
            self._highest = max(self._highest, row[self._metric])


class StopAfterEpisodes(Callback):
    """Ends the run when `episodes` episodes have ended in all; adds their number, `rollout/episodes`, to the metrics.

    Raises ValueError for `episodes` < 1.
    """

    def __init__(self, episodes: int, rows: Iterable[Row] = ()) -> None:
        if episodes < 1:
            raise ValueError(f"episodes = {episodes}: a number of episodes, at least 1")
        self._goal = episodes
        self.ended = max((int(row[EPISODES]) for row in rows if EPISODES in row), default=0)
        """How many have ended so far."""

    def on_update(self, update: Update) -> bool | None:
        """False when there are enough."""
        self.ended += ended(update.rollout)
        update.metrics[EPISODES] = float(self.ended)
        return False if self.ended >= self._goal else None


def ended(rollout: Rollout) -> int:
    """How many episodes ended in a rollout; in its last row, where every column is cut, only terminations count."""
    last, mask = np.asarray(rollout.last), np.asarray(rollout.mask)
    inside = (last & mask)[:-1].sum()
    return int(inside + ((np.asarray(rollout.discount)[-1] == 0.0) & mask[-1]).sum())


class Checkpoints(Each):
    """Saves the agent every `every` steps to a file of its own, `folder/step_STEPS.safetensors`, and keeps them all.

    To go on with a run, use the checkpoint of `Agent.learn`; these are for looking back.
    """

    def __init__(self, agent: Trainee, folder: str | Path, every: int = 50_000) -> None:
        super().__init__(self._save, every)
        self._agent, self._folder = agent, Path(folder)

    def _save(self, update: Update) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._agent.save(self._folder / f"step_{update.steps}.safetensors")


class RecordVideo(Each):
    """Films one episode every `every` steps, on an environment of its own: `folder/step_STEPS.gif`, or .mp4.

    `kind` "mp4" needs imageio-ffmpeg: pip install 'vantage[video]'. Raises ValueError for another kind, or `every` < 1.
    """

    def __init__(
        self, agent: Any, folder: str | Path, every: int = 50_000, *, kind: str = "gif", deterministic: bool = True,
        seed: int = 0, max_frames: int = 500,
    ) -> None:  # fmt: skip
        super().__init__(self._record, every)
        if kind not in ("gif", "mp4"):
            raise ValueError(f"kind = {kind!r}: choose gif or mp4")
        self._agent, self._folder, self._kind = agent, Path(folder), kind
        self._how = {"deterministic": deterministic, "seed": seed, "max_frames": max_frames}

    def _record(self, update: Update) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        record(self._agent, self._folder / f"step_{update.steps}.{self._kind}", **self._how)


class JsonLines(Callback):
    """Appends each update's metrics to a file, one JSON object a line; what is not finite becomes null.

    When a run is resumed, the lines behind its checkpoint are dropped first.
    """

    writes = True

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)

    def on_start(self, world: World, recipe: Recipe, total_steps: int) -> None:
        """Keep of an older file what the run has already done."""
        keep_lines(self._path, STEPS, world.steps)

    def on_update(self, update: Update) -> None:
        """Append a line."""
        row = {name: float(x) if math.isfinite(x) else None for name, x in update.metrics.items()}
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


class Episodes(Callback):
    """Writes each finished episode to a CSV file: `steps` of the run at the rollout's end, slot, return and length.

    An episode that a time limit ends is known to be over when the next one of its slot begins, at the latest in the
    next rollout. A resumed run writes on, without the episodes that were running when it stopped.
    """

    def __init__(self, path: str | Path) -> None:
        self._path, self._total, self._length = Path(path), {}, {}

    def on_start(self, world: World, recipe: Recipe, total_steps: int) -> None:
        """Begin the file, or go on with it."""
        self._total, self._length = {}, {}
        if not (world.steps and self._path.is_file()):
            self._path.write_text("steps,slot,return,length\n", encoding="utf-8")

    def on_update(self, update: Update) -> None:
        """Append the episodes that are over."""
        rollout, over = update.rollout, []
        mask, reward = np.asarray(rollout.mask), np.asarray(rollout.reward)
        begins, ends = np.asarray(rollout.time) == 0, np.asarray(rollout.discount) == 0.0
        for row, slot in np.argwhere(mask).tolist():
            if begins[row, slot]:
                over += self._close(slot)
                self._total[slot], self._length[slot] = 0.0, 0
            if slot in self._total:
                self._total[slot] += float(reward[row, slot])
                self._length[slot] += 1
                over += self._close(slot) if ends[row, slot] else []
        with open(self._path, "a", encoding="utf-8") as file:
            file.writelines(f"{update.steps},{slot},{total!r},{length}\n" for slot, total, length in over)

    def _close(self, slot: int) -> list[tuple[int, float, int]]:
        """The episode of a slot, if one is running, which then is not any more."""
        return [(slot, self._total.pop(slot), self._length.pop(slot))] if slot in self._total else []


class WandB(Callback):
    """Logs each update's metrics to Weights & Biases, offline unless another `mode` or WANDB_MODE is given; nothing
    leaves the machine before `wandb sync`.

    The options are those of `wandb.init`. Raises ModuleNotFoundError, saying what to install, without the package.
    """

    writes = True

    def __init__(self, **options: Any) -> None:
        try:
            wandb: Any = import_module("wandb")
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("Weights & Biases needs its package: pip install 'vantage[wandb]'") from error
        self._open, self._run = wandb.init, None
        self._options = {"mode": os.environ.get("WANDB_MODE", "offline"), **options}

    def on_start(self, world: World, recipe: Recipe, total_steps: int) -> None:
        """Begin a run whose configuration holds the recipe."""
        config = {"recipe": repr(recipe), "total_steps": total_steps, **self._options.get("config", {})}
        self._run: Any = self._open(**{**self._options, "config": config})

    def on_update(self, update: Update) -> None:
        """Log the metrics at this number of steps."""
        self._run.log(dict(update.metrics), step=update.steps)

    def on_end(self, report: Report) -> None:
        """Close the run."""
        if self._run is not None:
            self._run.finish()
