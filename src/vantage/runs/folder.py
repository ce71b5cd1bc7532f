"""The folder of a run: what lies where, and whether it can be written, found out before any work is done."""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROBE = 1 << 20
"""Bytes written to find out whether there is room: about what a small run leaves behind."""


@dataclass(frozen=True)
class RunFolder:
    """Names the files of a run."""

    path: Path

    @property
    def config(self) -> Path:
        """Everything that was set, as JSON."""
        return self.path / "config.json"

    @property
    def metrics(self) -> Path:
        """One row an update, as CSV."""
        return self.path / "metrics.csv"

    @property
    def checkpoint(self) -> Path:
        """The state of the run, to resume it."""
        return self.path / "checkpoint.safetensors"

    @property
    def agent(self) -> Path:
        """The agent as it was when the run ended or was stopped."""
        return self.path / "agent.safetensors"

    @property
    def best(self) -> Path:
        """The agent of the best evaluation during training."""
        return self.path / "best.safetensors"

    @property
    def newest(self) -> Path:
        """The agent to evaluate: the one at the end, or that of the last checkpoint while the run goes on.

        Raises FileNotFoundError if the run has left neither.
        """
        found = [path for path in (self.agent, self.checkpoint) if path.is_file()]
        if not found:
            self.read_config()
            raise FileNotFoundError(
                f"{self.path} has no agent yet: go on with it by vantage train --resume {self.path}"
            )
        return max(found, key=lambda path: path.stat().st_mtime)

    @property
    def copies(self) -> Path:
        """The agent as it was along the way, one file each time."""
        return self.path / "copies"

    @property
    def videos(self) -> Path:
        """Films of the agent along the way."""
        return self.path / "videos"

    @property
    def profile(self) -> Path:
        """Where the time went, as JSON."""
        return self.path / "profile.json"

    @property
    def report(self) -> Path:
        """The run as one page."""
        return self.path / "report.html"

    @property
    def curve(self) -> Path:
        """The learning curve as a picture."""
        return self.path / "learning_curve.png"

    @property
    def gif(self) -> Path:
        """The agent at work."""
        return self.path / "agent.gif"

    def read_config(self) -> dict[str, Any]:
        """The settings of the run. Raises FileNotFoundError if this is no run."""
        if not self.config.is_file():
            raise FileNotFoundError(f"{self.path} is no run: give a folder that vantage train made, such as runs/NAME")
        return json.loads(self.config.read_text(encoding="utf-8"))

    def write_config(self, settings: dict[str, Any]) -> None:
        """Write the settings, whole or not at all."""
        draft = self.config.with_suffix(".part")
        draft.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(draft, self.config)


def free_name(parent: Path, name: str) -> Path:
    """`parent/name`, or `parent/name-2`, `-3`, … where that exists."""
    path, number = parent / name, 2
    while path.exists():
        path, number = parent / f"{name}-{number}", number + 1
    return path


def create(path: Path) -> RunFolder:
    """A new, writable run folder.

    Raises OSError with a sentence that names the remedy if it exists and is not empty, or cannot be written.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        remedy = f"go on with it by --resume {path}, or choose another folder with --out"
        raise FileExistsError(f"{path} exists already: {remedy}")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(reason(error, path)) from error
    probe(path)
    return RunFolder(path)


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Keep other processes from writing to a run; the system ends the claim with the process, however that ends.

    Raises BlockingIOError, naming the process, if another one has it.
    """
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        yield
        return
    with open(path / ".lock", "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise BlockingIOError(f"{path} is in use by process {file.read().strip()}") from None
        except OSError:  # a file system without locks
            pass
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def probe(path: Path) -> None:
    """Write and remove a file; raises OSError with a sentence that names the remedy if that fails."""
    trial = path / ".probe"
    try:
        with open(trial, "wb") as file:
            file.write(b"\0" * PROBE)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(reason(error, path)) from error
    finally:
        if os.access(path, os.W_OK):
            trial.unlink(missing_ok=True)


def reason(error: OSError, path: Path) -> str:
    """Why a folder cannot be written and what to do about it, in one sentence."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{path} is on a full disk: free some space, or choose a folder elsewhere with --out"
    why = (error.strerror or str(error)).lower()
    return f"{path} cannot be written ({why}): choose a folder that you may write to with --out"
