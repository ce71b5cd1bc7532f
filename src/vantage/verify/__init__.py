"""The proof: every claim of the theory, checked on this machine against values derived independently."""

import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from difflib import get_close_matches
from importlib import import_module

from vantage.verify import claims as _claims  # noqa: F401 - registers every claim
from vantage.verify.backend import BACKENDS, installed
from vantage.verify.claim import CLAIMS, Check, Claim
from vantage.verify.planted import BUGS, Bug
from vantage.verify.report import Report, Row

__all__ = ["BACKENDS", "BUGS", "CLAIMS", "Bug", "Check", "Claim", "Report", "Row", "run", "select"]


def select(section: str | None = None) -> list[Claim]:
    """The claims of a section ("8", "8.3"), or the one with this id, or all; in the order of the theory.

    Raises ValueError if there is none.
    """
    found = [c for c in CLAIMS.values() if section is None or c.id == section or f"{c.id}.".startswith(f"{section}.")]
    if not found:
        known = [*CLAIMS, *(c.section for c in CLAIMS.values())]
        raise ValueError(f"section = {section!r}: no claim there; {_nearest(section, known)}")
    return sorted(found, key=lambda c: tuple(int(n) for n in c.section.split(".")))


def run(section: str | None = None, mutate: str | None = None, backends: Iterable[str] | None = None) -> Report:
    """Check the claims of a section, or all, on the named array libraries, or all that are installed.

    `mutate` plants the known bug of that name first: then claims must fail.
    Raises ValueError for an unknown section, bug or backend, a named backend that is not installed, and where there
    is nothing to check.
    """
    wanted = list(dict.fromkeys(BACKENDS if backends is None else backends))
    present = [name for name in wanted if installed(name)] if backends is None else [_present(n) for n in wanted]
    bug = None if mutate is None else _claimed(mutate)
    chosen, start = select(section), time.perf_counter()
    if not any(c.runs_on(name) for c in chosen for name in present):
        able = " or ".join(name for name in BACKENDS if any(c.runs_on(name) for c in chosen))
        raise ValueError(f"section = {section!r}: {' and '.join(present) or 'no backend'} cannot check it; take {able}")
    with bug.planted() if bug else nullcontext():
        rows = _rows(chosen, present)
    skipped = tuple(name for name in wanted if name not in present)
    seconds = time.perf_counter() - start
    return Report(rows=rows, backends=tuple(present), skipped=skipped, mutation=mutate, seconds=seconds)


def _nearest(word: str | None, known: Iterable[str]) -> str:
    """A remedy for a misspelt name; there are too many to list them all."""
    near = get_close_matches(str(word), list(known), n=1)
    return f"did you mean {near[0]}?" if near else "`vantage verify --list` lists them"


def _present(name: str) -> str:
    """The name of a backend that somebody asked for, if it can be had."""
    if name not in BACKENDS:
        near = get_close_matches(name, BACKENDS, n=1)
        raise ValueError(
            f"backend = {name!r}: " + (f"did you mean {near[0]}?" if near else f"choose among {', '.join(BACKENDS)}")
        )
    if not installed(name):
        raise ValueError(f"backend = {name!r} is not installed: pip install {name}")
    return name


def _claimed(name: str) -> Bug:
    """The bug of this name, if claims can tell."""
    if name not in BUGS:
        raise ValueError(f"mutate = {name!r}: no such bug; {_nearest(name, BUGS)}")
    bug = BUGS[name]
    if not bug.touches_claims:
        tests = " and ".join(bug.guards)
        raise ValueError(
            f"mutate = {name!r}: no claim runs the training loop; {tests} in tests/planted catches this bug"
        )
    return bug


def _rows(chosen: list[Claim], present: list[str]) -> tuple[Row, ...]:
    """A row each, on all cores: most of the time goes into JAX compiling, which needs no lock."""
    for name in present:
        import_module(name)  # here, since a library half imported by another thread confuses array_api_compat
    made = {name: BACKENDS[name]() for name in present}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return tuple(pool.map(lambda c: Row.of(c, {n: on for n, on in made.items() if c.runs_on(n)}), chosen))
