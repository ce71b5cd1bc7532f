"""Draw metrics of runs over steps, seeds of the same settings as one line with its interval."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vantage.cli.options import Parser, of_fields
from vantage.runs.folder import reason


@dataclass(frozen=True, kw_only=True)
class Plot:
    """The options of `vantage plot`."""

    metrics: str = "rollout/ep_rew_mean"
    """What to draw, separated by commas; one panel each."""
    out: str = "curves.png"
    """The picture to write."""
    title: str = ""
    """What stands above it."""


def main(argv: Sequence[str]) -> None:
    """`vantage plot RUN…`."""
    from vantage.lab.curves import draw, find, group

    given = Parser("plot", of_fields(Plot, "picture"), {"RUN+": "run folders, or folders that hold some"}).read(argv)
    chosen = Plot(**{name: value for name, value in given.items() if name != "RUN"})
    groups = group(find(map(Path, given["RUN"])))
    target = Path(chosen.out)
    try:
        draw(groups, [name.strip() for name in chosen.metrics.split(",")], target, title=chosen.title)
    except OSError as error:
        raise OSError(reason(error, target)) from error
    runs, kinds = sum(len(known.rows) for known in groups), len(groups)
    told = "with the same settings" if kinds == 1 else f"with {kinds} different settings"
    print(f"{target}: {runs} run{'s' if runs > 1 else ''} {told}")
