"""Watch a run's agent: in a window, as a GIF or as a film"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vantage.cli import UsageError
from vantage.cli.eval_ import agent_of
from vantage.cli.options import Parser, of_fields
from vantage.runs.folder import RunFolder, reason
from vantage.runs.video import episode, record


@dataclass(frozen=True, kw_only=True)
class Play:
    """The options of `vantage play`."""

    gif: str | None = None
    """File to write; by default agent.gif in the run folder."""
    mp4: str | None = None
    """File to write as a film instead; needs imageio-ffmpeg."""
    human: bool = False
    """Show it in a window instead."""
    stochastic: bool = False
    """Sample the actions as in training, instead of taking the most likely one."""
    seed: int = 0
    """Seed of the environment."""
    max_frames: int = 500
    """Stop after this many steps."""


def main(argv: Sequence[str]) -> None:
    """`vantage play RUN`."""
    given = Parser("play", of_fields(Play, "what to show"), {"RUN": "a run folder, or the file of an agent"}).read(argv)
    chosen = Play(**{name: value for name, value in given.items() if name != "RUN"})
    if chosen.max_frames < 1:
        raise UsageError(f"--max-frames {chosen.max_frames}: show at least one")
    source = Path(given["RUN"])
    agent = agent_of(source)
    how: dict[str, Any] = {
        "deterministic": not chosen.stochastic, "seed": chosen.seed, "max_frames": chosen.max_frames
    }  # fmt: skip
    if chosen.human:
        print(f"{agent.name}: return {episode(agent, 'human', **how).total:g}")
        return
    target = Path(chosen.gif or chosen.mp4 or RunFolder(source if source.is_dir() else source.parent).gif)
    try:
        total, frames = record(agent, target, **how)
    except OSError as error:
        raise OSError(reason(error, target).replace("--out", "--mp4" if chosen.mp4 else "--gif")) from error
    print(f"{agent.name}: return {total:g}, {frames} frames in {target}")
