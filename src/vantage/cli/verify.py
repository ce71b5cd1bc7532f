"""Check every formula of the library against values derived independently, on this machine."""

import json
import re
import shutil
import sys
from argparse import SUPPRESS
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vantage.cli import UsageError
from vantage.cli.options import Parser, of_fields
from vantage.verify import BACKENDS, BUGS, Check, Report, Row, run, select

MARKS = {True: "✓", False: "✗", None: "·"}
NARROWEST, NUMBER = 110, 18
"""Characters of the narrowest table, and of a number in it."""


@dataclass(frozen=True, kw_only=True)
class Verify:
    """The options of `vantage verify`."""

    section: str | None = None
    """A section of the theory, such as 8 or 8.3, or a claim, such as 6.6.td-bias."""
    backend: Literal["numpy", "jax", "torch"] | None = None
    """Only this array library; repeatable."""
    mutate: str | None = None
    """Plant a known bug first: the run must then fail."""
    list: bool = False
    """List claims and known bugs, and check nothing."""
    json: bool = False
    """Everything as JSON."""


def parser() -> Parser:
    """The options."""
    options = of_fields(Verify, "verify")
    made = Parser("verify", options)
    made.conflict_handler = "resolve"  # the parser knows no option that may be repeated
    text = next(o.help for o in options if o.name == "backend")
    made.add_argument_group("array libraries").add_argument(
        "--backend", action="append", default=SUPPRESS, metavar=" | ".join(BACKENDS), help=text
    )
    return made


def main(argv: Sequence[str]) -> int:
    """Check claims; 0 if all hold, 1 if one fails, as it must with a planted bug."""
    given = parser().read(argv)
    try:
        if given.get("list"):
            return _list(given.get("section"), bool(given.get("json")))
        report = run(given.get("section"), given.get("mutate"), given.get("backend"))
    except ValueError as error:
        raise UsageError(re.sub(r"^(\w+) = '(.*?)'", r"--\1 \2", str(error))) from error
    if given.get("json"):
        print(json.dumps(report.record(), ensure_ascii=False, indent=1))
    else:
        _show(report)
    return 0 if report.ok else 1


def _list(section: str | None, as_json: bool) -> int:
    claims = {c.id: c.formula for c in select(section)}
    bugs = {b.name: b.story for b in BUGS.values() if b.touches_claims}
    others = {b.name: b.story for b in BUGS.values() if not b.touches_claims}
    if as_json:
        print(json.dumps({"claims": claims, "bugs": bugs, "training_loop_bugs": others}, ensure_ascii=False, indent=1))
        return 0
    titles = ("claims", "bugs to plant with --mutate", "bugs of the training loop, which tests/planted plants")
    for title, entries in zip(titles, (claims, bugs, others), strict=True):
        print(f"{len(entries)} {title}")
        width = max(map(len, entries))
        print(*(f"  {name:<{width}}  {text}" for name, text in entries.items()), sep="\n")
    return 0


def _show(report: Report) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminal = sys.stdout.isatty()
    longest, full = (max(len(x) for x in column) for column in zip(*_names(report), strict=True))
    others = longest + 2 * (NUMBER + 1) + 10 + sum(len(b) + 1 for b in report.backends)
    asked = shutil.get_terminal_size((0, 0)).columns  # 0 without a terminal: nothing is cut then
    width = max(asked, NARROWEST) if asked else others + full
    console = Console(width=width, highlight=False, no_color=not terminal, soft_wrap=True)
    formula = min(full, width - others)
    table = Table(box=None, padding=(0, 1, 0, 0), show_edge=False, header_style="bold")
    table.add_column("claim", width=longest, no_wrap=True)
    table.add_column("formula", width=formula, no_wrap=True, overflow="ellipsis")
    for name in ("expected", "got"):
        table.add_column(name, width=NUMBER, no_wrap=True, justify="right", overflow="ellipsis")
    table.add_column("off by", width=6, no_wrap=True, justify="right")
    for name in report.backends:
        table.add_column(name, width=len(name), no_wrap=True, justify="center")
    for row in report.rows:
        marks = [Text(MARKS[row.passed(b)], style="green" if row.passed(b) else "red") for b in report.backends]
        cells = (Text(x) for x in (row.claim.id, row.claim.formula, *_numbers(row)))
        table.add_row(*cells, *marks, style="bold red" if row.verdict == "fail" else None)
    console.print(table)
    for row in report.failed:
        console.print(Text(f"\n{row.claim.id}  {row.claim.formula}\n  {row.claim.statement}"))
        for line in _details(row):
            console.print(Text(f"  {line}"), style="red")
    console.print(Text("\n" + summary(report)), style="bold green" if report.ok else "bold red")


def _names(report: Report) -> list[tuple[str, str]]:
    return [(row.claim.id, row.claim.formula) for row in report.rows]


def summary(report: Report) -> str:
    """The last line: how many claims hold, where, in what time; and what became of a planted bug."""
    held, of = len(report.checked) - len(report.failed), len(report.checked)
    where = ", ".join(report.backends) or "no backend"
    line = f"{held} of {of} claims hold on {where} (float64), {report.seconds:.1f} s."
    if report.skipped:
        line += f" Not installed, skipped: {', '.join(report.skipped)}."
    if report.mutation is None:
        return line
    bug = BUGS[report.mutation]
    line += f"\nPlanted {bug.name}, seen in {bug.seen_in}: {bug.story}"
    if report.failed:
        caught = ", ".join(row.claim.id for row in report.failed)
        return f"{line}\nCaught by {caught}."
    return f"{line}\nNOT CAUGHT by these claims."


def _numbers(row: Row) -> tuple[str, str, str]:
    check = row.shown
    if check is None:
        return "", "error", ""
    sign = "" if check.relation == "=" else f"{check.relation} "
    expected, got = _brief(check)
    return sign + expected, got, f"{row.deviation:.0e}"


def _brief(check: Check) -> tuple[str, str]:
    """Expected and got, two entries or fewer; of more, with their count, the entry furthest off where that matters,
    or else the largest expected.
    """
    expected, got = check.pairs
    if expected.size <= 2:
        return ", ".join(map(_six, expected)), ", ".join(map(_six, got))
    off_matters = check.relation == "≠" or not check.passed
    i = int(np.argmax(check.deviations if off_matters else np.abs(expected)))
    return f"{_six(expected[i])} (of {expected.size})", f"{_six(got[i])} (of {got.size})"


def _six(value: float) -> str:
    return "0" if abs(value) <= 1e-12 else f"{value:.6g}"


def _details(row: Row) -> list[str]:
    """What failed, check by check."""
    lines = [f"{name}: {error}" for name, error in row.errors.items()]
    for name, checks in row.checks.items():
        lines += [f"{name}: {_sentence(c)}" for c in checks if not c.passed]
    return lines


def _sentence(check: Check) -> str:
    what = f"{check.what}: " if check.what else ""
    got, expected = _worst(check)
    return f"{what}got {got:.9g}, must be {check.relation} {expected:.9g} (off by {check.deviation:.2e})"


def _worst(check: Check) -> tuple[float, float]:
    """The entry that deviates most: (got, expected)."""
    expected, got = check.pairs
    i = int(np.argmax(check.deviations)) if expected.size else 0
    return (float(got[i]), float(expected[i])) if expected.size else (float("nan"), float("nan"))
