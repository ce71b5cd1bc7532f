"""Train PPO on CartPole-v1 until it is solved, with a learning curve and a GIF"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vantage.cli import live
from vantage.cli.options import Parser, of_fields
from vantage.cli.train import Run, start

ENV, SOLVED = "CartPole-v1", 475.0
"""Gymnasium's own threshold for this environment."""
SEED = 1
"""A usual run, solved in about two thirds of its steps; some seeds take all of them."""


def main(argv: Sequence[str]) -> int:
    """`vantage demo`."""
    import vantage as vt
    from vantage.runs.folder import RunFolder
    from vantage.runs.video import record

    options = [option for option in of_fields(Run, "run") if option.name in ("steps", "out")]
    given: dict[str, Any] = {"ENV": ENV, "until": SOLVED, "seed": SEED, **Parser("demo", options).read(argv)}
    out = live.console()
    result = start(given, out)
    if result["stopped"] == "interrupt":
        return 130
    folder = RunFolder(Path(result["run"]))
    agent = vt.load(folder.newest)
    evaluation = agent.evaluate(20)
    solved = evaluation.mean >= SOLVED
    record(agent, folder.gif)
    word = "[bold green]solved[/bold green]" if solved else "[bold]not solved yet[/bold]"
    live.say(out, f"{ENV} is {word}: return {evaluation}, deterministic actions; {SOLVED:g} counts as solved.\n")
    live.say(out, str(folder.curve), style="dim")
    live.say(out, f"{folder.gif}\n", style="dim")
    return 0 if solved else 1
