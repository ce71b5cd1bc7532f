"""Find what would break training in an environment, each with its remedy."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

from vantage.cli import UsageError
from vantage.cli.options import Parser, of_fields


@dataclass(frozen=True, kw_only=True)
class Check:
    """The options of `vantage check`."""

    steps: int = 2000
    """Random steps to play."""
    seed: int = 0
    """Seed of the environment and of the actions."""
    json: bool = False
    """Print the findings as one JSON list, and nothing else."""


def main(argv: Sequence[str]) -> int:
    """`vantage check ENV`; 1 if something is certainly wrong."""
    given = Parser("check", of_fields(Check, "check"), {"ENV": "a Gymnasium environment, such as CartPole-v1"}).read(
        argv
    )
    chosen = Check(**{name: value for name, value in given.items() if name != "ENV"})
    import gymnasium as gym

    from vantage.control.check import check
    from vantage.control.environments import find, prefix, shown

    if prefix(given["ENV"]) is not None:
        raise UsageError(f"{given['ENV']} is no environment of Gymnasium, and only those are checked")
    find(given["ENV"])
    atari = shown(given["ENV"], None, {}, 1)
    made = gym.make if atari is None else partial(atari.one, max_episode_steps=None)
    found = check(lambda: made(given["ENV"], disable_env_checker=True), chosen.steps, chosen.seed)
    if chosen.json:
        print(json.dumps([asdict(finding) for finding in found], ensure_ascii=False))
    else:
        print("\n".join(map(str, found)) or f"{given['ENV']}: nothing found in {chosen.steps:,} random steps.")
    return int(any(finding.certain for finding in found))
