"""Explanations as plain text, readable at 80 columns and more."""

import textwrap
from typing import Any

from vantage.explain.formula import Definition
from vantage.explain.symbols import KINDS

WIDTH = 100


def page(explanation: Any) -> str:
    """The page of a recipe: what is maximised, what is minimised, where, the update, the symbols."""
    parts = [explanation.title, "", "The actor maximises over θ", f"    {explanation.objective}"]
    if explanation.subject:
        parts += [f"    subject to {explanation.subject}"]
    if explanation.critic:
        parts += ["", "The critic minimises over φ", f"    {explanation.critic}"]
    parts += ["", "where", *definitions(explanation.where)]
    parts += ["", "One update", *numbered(explanation.update)]
    parts += ["", "Symbols", *symbols(explanation.rows())]
    kinds = dict.fromkeys(row["kind"] for row in explanation.rows() if row["kind"] != "index")
    parts += ["", *(f"    {kind:<10}{KINDS[kind]}" for kind in kinds)]
    return "\n".join(parts)


def definitions(where: tuple[Definition, ...]) -> list[str]:
    """Aligned at the equals sign; a condition stands behind or, where that is too long, below."""
    width = max((len(one.sign) for one in where), default=0)
    lines = []
    for one in where:
        head = f"    {one.sign:<{width}} = " if one.sign else "    " + " " * (width + 3)
        line = head + one.text
        fits = len(line) + 3 + len(one.when) <= WIDTH
        lines.append(line + (f"   {one.when}" if one.when and fits else ""))
        if one.when and not fits:
            indent = " " * len(head)
            lines += textwrap.wrap(one.when, WIDTH, initial_indent=indent, subsequent_indent=indent)
    return lines


def numbered(lines: tuple[str, ...]) -> list[str]:
    """1. 2. 3., wrapped."""
    return [
        row
        for i, line in enumerate(lines, 1)
        for row in textwrap.wrap(line, WIDTH, initial_indent=f"    {i}. ", subsequent_indent="       ")
    ]


def symbols(rows: list[dict[str, str]]) -> list[str]:
    """Two lines a symbol: what it is; kind, origin, shape, unit, and who computes it."""
    width = max((len(row["symbol"]) for row in rows), default=0)
    lines = []
    for row in rows:
        facts = [row["kind"], row["from"], row["shape"], row["unit"], row["by"]]
        lines.append(f"    {row['symbol']:<{width}}  {row['what']}")
        lines.append(" " * (width + 6) + " · ".join(fact for fact in facts if fact != "—"))
    return lines
