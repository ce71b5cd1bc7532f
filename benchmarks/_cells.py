"""What the resumable benchmarks share: cells kept as files, intervals, tables."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

RESULTS = Path(__file__).parent / "results"


def kept(path: Path, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result in the file; if there is none, that of `run`, which is then written there."""
    if not path.exists():
        result = run()
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(result) + "\n")
        part.replace(path)
    return json.loads(path.read_text())


def interval(x: np.ndarray) -> tuple[float, float]:
    """Half-width of Student's 95 % interval of the mean, and the mean."""
    half = stats.t.ppf(0.975, len(x) - 1) * stats.sem(x) if len(x) > 1 else np.nan
    return float(half), float(x.mean())


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows))
