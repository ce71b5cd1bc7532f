"""What a person sees of a run: settings and result; its progress is `vantage.runs.progress`."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text


def console(quiet: bool = False) -> Console:
    """Where everything for people goes; nowhere if quiet."""
    return Console(quiet=quiet, highlight=False, soft_wrap=False)


def say(out: Console, text: str, style: str = "") -> None:
    """A sentence, indented; wrapped by words on a terminal, left whole for files and pipes."""
    if out.is_terminal:
        out.print(Padding(text, (0, 0, 0, 2)), style=style)
    else:
        out.print(f"  {text}", style=style, soft_wrap=True)


def settings_table(rows: Sequence[tuple[str, str, str]], out: Console) -> None:
    """Every setting with its value and where it comes from, in two columns where there is room."""
    columns = 2 if out.width >= 110 else 1
    height = -(-len(rows) // columns)
    table = Table.grid(padding=(0, 2))
    for left in range(height):
        cells: list[Any] = []
        for name, value, source in rows[left::height]:
            cells += [
                "",
                Text(name, style="dim"),
                Text(value),
                Text(source, style="cyan" if source == "you" else "dim"),
            ]
        table.add_row(*cells)
    out.print(table)
    out.print()
