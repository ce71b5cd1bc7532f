"""Write a run as one page: result, verdict, curves, settings and formulas."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vantage.cli.options import Parser, of_fields
from vantage.runs.folder import RunFolder, reason


@dataclass(frozen=True, kw_only=True)
class Report:
    """The options of `vantage report`."""

    out: str | None = None
    """File to write, .html or .md; by default report.html in the run folder."""


def main(argv: Sequence[str]) -> None:
    """`vantage report RUN`."""
    given = Parser("report", of_fields(Report, "report"), {"RUN": "a run folder"}).read(argv)
    from vantage.lab.report import write

    folder = RunFolder(Path(given["RUN"]))
    folder.read_config()
    target = Path(given.get("out") or folder.report)
    try:
        write(folder, target)
    except OSError as error:
        raise OSError(reason(error, target)) from error
    print(target)
