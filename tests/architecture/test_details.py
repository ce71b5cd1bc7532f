"""The page of details names functions and tests that exist."""

import ast
import importlib
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "details.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith(("| detail", "| ---"))
]


@cache
def names_in(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_the_lists_are_whole():
    numbered = [row[0] for row in ROWS if re.match(r"\d+\.", row[0])]
    assert [int(text.split(".")[0]) for text in numbered] == [*range(1, 14), *range(1, 10), *range(1, 6)]
    assert all(len(row) == 5 for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=[row[0][:40] for row in ROWS])
def test_a_detail_names_what_exists(row):
    *_, function, test = row
    if (function, test) == ("—", "—"):
        assert row[1] == "no"
        return
    parts = function.strip("`").split(".")
    found, left = None, parts
    for cut in range(len(parts), 0, -1):
        try:
            found, left = importlib.import_module("vantage." + ".".join(parts[:cut])), parts[cut:]
            break
        except ModuleNotFoundError:
            continue
    assert left, f"{function} is a module"
    for part in left:
        found = getattr(found, part)
    path, _, name = test.strip("`").partition("::")
    assert name in names_in(path)
