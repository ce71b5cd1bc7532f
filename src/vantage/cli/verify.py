"""`vantage verify`: every formula of the library against values derived independently, on this machine."""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from vantage.verify import BACKENDS, BUGS, Check, Report, Row, run, select

MARKS = {True: "✓", False: "✗", None: "·"}
WIDTH, NARROWEST, NUMBER = 140, 110, 18
"""Characters of a line where there is no terminal to ask, of the narrowest table, and of a number in it."""


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        prog="vantage verify", description="Check every formula of the library against values derived independently."
    )
    made.add_argument("--section", help='a section of the theory, such as 8 or 8.3, or a claim, such as "6.6.td-bias"')
    made.add_argument("--backend", action="append", choices=list(BACKENDS), help="only this array library; repeatable")
    made.add_argument("--mutate", metavar="NAME", help="plant a known bug first: the run must then fail")
    made.add_argument("--list", action="store_true", help="list claims and known bugs, and check nothing")
    made.add_argument("--json", action="store_true", help="everything as JSON")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Check claims; 0 if all hold, 1 if one fails, as it must with a planted bug, 2 for bad options."""
    given = parser().parse_args(argv)
    try:
        if given.list:
            return _list(given.section, given.json)
        report = run(given.section, given.mutate, given.backend)
    except ValueError as error:
        print(f"vantage verify: {error}", file=sys.stderr)
        return 2
    if given.json:
        print(json.dumps(report.record(), ensure_ascii=False, indent=1))
    else:
        _show(report)
    return 0 if report.ok else 1


def _list(section: str | None, as_json: bool) -> int:
    claims = {c.id: f"{c.formula}" for c in select(section)}
    bugs = {b.name: b.story for b in BUGS.values()}
    if as_json:
        print(json.dumps({"claims": claims, "bugs": bugs}, ensure_ascii=False, indent=1))
        return 0
    for title, entries in (("claims", claims), ("bugs to plant with --mutate", bugs)):
        print(f"{len(entries)} {title}")
        width = max(map(len, entries))
        print(*(f"  {name:<{width}}  {text}" for name, text in entries.items()), sep="\n")
    return 0


def _show(report: Report) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminal = sys.stdout.isatty()
    width = max(shutil.get_terminal_size().columns, NARROWEST) if terminal else WIDTH
    console = Console(width=width, highlight=False, no_color=not terminal, soft_wrap=True)
    longest = max(len(row.claim.id) for row in report.rows)
    formula = width - longest - 2 * (NUMBER + 1) - 10 - sum(len(b) + 1 for b in report.backends)
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
        table.add_row(*cells, *marks, style=None if row.ok else "bold red")
    console.print(table)
    for row in report.failed:
        console.print(Text(f"\n{row.claim.id}  {row.claim.formula}\n  {row.claim.statement}"))
        for line in _details(row):
            console.print(Text(f"  {line}"), style="red")
    console.print(Text("\n" + summary(report)), style="bold green" if report.ok else "bold red")


def summary(report: Report) -> str:
    """The last line: how many claims hold, where, in what time; and what became of a planted bug."""
    held, of = len(report.rows) - len(report.failed), len(report.rows)
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
    return sign + _brief(check.expected), _brief(check.got), f"{row.deviation:.0e}"


def _brief(x: Any) -> str:
    """A number with six digits; two numbers; of more, the largest in size with their count."""
    entries = np.asarray(x, dtype=np.float64).reshape(-1)
    if entries.size <= 2:
        return ", ".join(f"{v:.6g}" if abs(v) > 1e-12 else "0" for v in entries)
    largest = entries[np.argmax(np.abs(entries))]
    value = f"{largest:.6g}" if abs(largest) > 1e-12 else "0"
    return f"{value} (of {entries.size})"


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
    got, expected = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (check.got, check.expected)))
    difference = np.nan_to_num(np.abs(got - expected), nan=np.inf)
    i = int(np.argmax(difference)) if difference.size else 0
    return float(got.reshape(-1)[i]), float(expected.reshape(-1)[i])
