"""The runs of a comparison: each trained and evaluated as far as it is not yet, several at a time in processes."""

import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any

from vantage.cli import UsageError, plan
from vantage.runs.folder import RunFolder

Cell = dict[str, Any]
"""What came out of one run: where it lies, its seed, and the returns of its evaluation or the error that ended it."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run that is wanted."""

    env: str
    given: dict[str, Any]
    path: Path
    episodes: int
    """Whole episodes, with deterministic actions, that the trained agent is judged by."""


class Stopped(Exception):  # noqa: N818 (no error: the user asked for it)
    """The user has interrupted a run; the same command goes on."""


def run_all(jobs: Sequence[Job], at_once: int, heard: Callable[[Job, Cell], None]) -> list[Cell]:
    """The result of each job, in order; `heard` is told of each as it comes. Raises `Stopped` if interrupted."""
    cells: dict[Path, Cell] = {}

    def note(job: Job, cell: Cell) -> None:
        cells[job.path] = cell
        heard(job, cell)

    if at_once > 1 and len(jobs) > 1:
        together(jobs, at_once, finished, note)
    else:
        for job in jobs:
            note(job, finished(job))
    return [cells[job.path] for job in jobs]


# ---- one run ----


def finished(job: Job) -> Cell:
    """The result of one run, which is trained now as far as it is not yet. Raises `Stopped` if that was interrupted."""
    from vantage.runs.config import to_json

    folder, wanted = RunFolder(job.path), plan.make(job.env, job.given)
    if folder.config.is_file():
        known = folder.read_config()
        settings = json.loads(json.dumps(to_json(wanted.settings)))
        if (known["env"], known["settings"], known["total_steps"]) != (job.env, settings, wanted.total_steps):
            raise UsageError(
                f"{job.path} holds a run with other settings: give the old ones, or another folder with --out"
            )
    result = job.path / "evaluation.json"
    if result.is_file():
        cell = json.loads(result.read_text(encoding="utf-8"))
        if "error" in cell or cell["episodes"] == job.episodes:
            return cell
    cell = _train_and_evaluate(job, folder, wanted.total_steps)
    draft = result.with_suffix(".part")
    draft.write_text(json.dumps(cell) + "\n", encoding="utf-8")
    os.replace(draft, result)
    return cell


def _train_and_evaluate(job: Job, folder: RunFolder, total: int) -> Cell:
    import vantage as vt
    from vantage.cli import live
    from vantage.cli.train import resume, start

    facts = {"run": str(folder.path), "seed": job.given["seed"], "episodes": job.episodes}
    left = [vt.load(path) for path in (folder.agent, folder.checkpoint) if path.is_file()]
    try:
        if not any(agent.steps >= total for agent in left):
            silent = live.console(quiet=True)
            if folder.config.is_file():
                done = resume({"resume": folder.path}, silent)
            else:
                done = start({"ENV": job.env, **job.given, "out": str(folder.path)}, silent)
            if done["stopped"] == "interrupt":
                raise Stopped
        agent = vt.load(folder.newest)
        played = agent.evaluate(job.episodes, deterministic=True, seed=job.given["seed"])
    except ArithmeticError as error:  # a recipe that diverges is a result, too
        return facts | {"error": str(error)}
    return facts | {"steps": agent.steps, "mean": played.mean, "std": played.std, "returns": list(played.returns)}


# ---- several at a time ----


def together(jobs: Sequence[Any], at_once: int, work: Callable[[Any], Any], heard: Callable[[Any, Any], None]) -> None:
    """`work(job)` for each job in a process of its own, `heard(job, result)` here as they come.

    Ctrl-C is handed on, so that each ends after its update in progress. Raises `Stopped` if interrupted, or the first
    error of a job, after the others have been stopped.
    """
    waiting, running, failed = list(jobs), {}, None
    with _interruptible() as interrupted:
        while running or waiting:
            while waiting and len(running) < at_once and not interrupted() and failed is None:
                job = waiting.pop(0)
                line, process = _begin(work, job)
                running[line] = (job, process)
            if not running:
                break
            if interrupted() or failed is not None:
                for _, process in running.values():
                    _interrupt_once(process)
            for line in connection.wait(list(running), timeout=0.2):
                job, process = running.pop(line)
                kind, found = _heard(line)
                process.join()
                if kind == "done":
                    heard(job, found)
                elif kind == "failed":
                    failed = failed or found
                elif not interrupted() and failed is None:
                    failed = RuntimeError("a process has died (out of memory?): the same command goes on")
        if failed is not None:
            raise failed
        if interrupted() or waiting:
            raise Stopped


def _begin(work: Callable[[Any], Any], job: Any) -> tuple[Any, Any]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_live, args=(work, job, theirs))
    process.start()
    theirs.close()
    return ours, process


def _heard(line: Any) -> tuple[str, Any]:
    """What a process has sent; one that has died without a word was stopped."""
    try:
        return line.recv()
    except EOFError:
        return "stopped", None
    finally:
        line.close()


def _live(work: Callable[[Any], Any], job: Any, line: Any) -> None:
    """The life of a process: in a group of its own, so that a terminal's Ctrl-C comes once, from the parent."""
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(130))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        line.send(("done", work(job)))
    except Stopped:
        line.send(("stopped", None))
    except Exception as error:
        line.send(("failed", type(error)(str(error)) if isinstance(error, UsageError | OSError) else _plain(error)))


def _plain(error: Exception) -> Exception:
    """An error that can be sent to another process, whatever it holds."""
    return RuntimeError(str(error) or type(error).__name__)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGINT)


def _interrupt_once(process: Any) -> None:
    if process.is_alive() and not getattr(process, "interrupted", False):
        process.interrupted = True
        os.kill(process.pid, signal.SIGINT)


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Turn SIGINT and SIGTERM into a flag while processes run; outside the main thread that is impossible."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    kinds = (signal.SIGINT, signal.SIGTERM)
    old = {number: signal.signal(number, lambda n, frame: asked.append(n)) for number in kinds}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
