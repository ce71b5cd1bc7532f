"""Evaluate a run: the mean return of whole episodes"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vantage.cli import UsageError
from vantage.cli.options import Parser, of_fields
from vantage.runs.folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Eval:
    """The options of `vantage eval`."""

    episodes: int = 20
    """How many whole episodes to play."""
    stochastic: bool = False
    """Sample the actions as in training, instead of taking the most likely one."""
    seed: int = 0
    """Seed of the environments."""
    json: bool = False
    """Print the result as one JSON object, and nothing else."""


def main(argv: Sequence[str]) -> None:
    """`vantage eval RUN`."""
    given = Parser("eval", of_fields(Eval, "evaluation"), {"RUN": "a run folder, or the file of an agent"}).read(argv)
    chosen = Eval(**{name: value for name, value in given.items() if name != "RUN"})
    if chosen.episodes < 1:
        raise UsageError(f"--episodes {chosen.episodes}: play at least one")
    agent = agent_of(Path(given["RUN"]))
    result = agent.evaluate(chosen.episodes, deterministic=not chosen.stochastic, seed=chosen.seed)
    if chosen.json:
        print(json.dumps({"env": agent.name, "steps": agent.steps, "mean": result.mean, "std": result.std,
                          "returns": list(result.returns), "lengths": list(result.lengths)}))  # fmt: skip
    else:
        how = "sampled" if chosen.stochastic else "deterministic"
        print(f"{agent.name} after {agent.steps:,} steps, {how} actions: {result}")


def agent_of(path: Path) -> Any:
    """The agent that a run folder, or a file, holds."""
    import vantage as vt

    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist: give a folder that vantage train made, or the file of an agent"
        )
    return vt.load(RunFolder(path).newest if path.is_dir() else path)
