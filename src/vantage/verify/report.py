"""What came out: a row a claim, its checks on each backend, and the verdict."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vantage.verify.backend import Backend
from vantage.verify.claim import Check, Claim


@dataclass(frozen=True)
class Row:
    """A claim and what each backend that could check it found: its comparisons, or the error that stopped them."""

    claim: Claim
    checks: Mapping[str, tuple[Check, ...]]
    errors: Mapping[str, str]
    seconds: float

    @classmethod
    def of(cls, claim: Claim, backends: Mapping[str, Backend]) -> "Row":
        """Run the claim on each backend; an exception is a failure with a name, not the end of the run."""
        checks: dict[str, tuple[Check, ...]] = {}
        errors: dict[str, str] = {}
        start = time.perf_counter()
        for name, on in backends.items():
            try:
                checks[name] = tuple(claim.checks(on))
            except Exception as error:  # a planted bug may raise anything
                errors[name] = f"{type(error).__name__}: {error}"
        return cls(claim, checks, errors, time.perf_counter() - start)

    def passed(self, backend: str) -> bool | None:
        """The verdict of one backend; None if it did not check this claim."""
        if backend in self.errors:
            return False
        found = self.checks.get(backend)
        return None if found is None else bool(found) and all(c.passed for c in found)

    @property
    def checked(self) -> bool:
        """Whether any backend could check it."""
        return bool(self.checks or self.errors)

    @property
    def ok(self) -> bool:
        """Whether a backend checked it, and all that did agree."""
        return self.checked and not self.errors and all(self.passed(name) for name in self.checks)

    @property
    def deviation(self) -> float:
        """The largest deviation over equalities and bounds, all backends."""
        found = [c.deviation for cs in self.checks.values() for c in cs if c.relation != "≠"]
        return float("nan") if self.errors else max(found, default=0.0)

    @property
    def shown(self) -> Check | None:
        """The comparison to show: the first that failed, or else the first."""
        every = [c for cs in self.checks.values() for c in cs]
        return next((c for c in every if not c.passed), every[0] if every else None)

    @property
    def verdict(self) -> str:
        """pass, fail, or skip where no backend of this run could check it."""
        return "pass" if self.ok else "fail" if self.checked else "skip"

    def record(self) -> dict[str, Any]:
        """The row as JSON."""
        return {
            "id": self.claim.id, "section": self.claim.section, "formula": self.claim.formula,
            "statement": self.claim.statement, "verdict": self.verdict,
            "seconds": round(self.seconds, 4), "errors": dict(self.errors),
            "backends": {name: [_record(c) for c in cs] for name, cs in self.checks.items()},
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Report:
    """All rows, the backends that ran, those that are not installed, and the bug that was planted, if any."""

    rows: tuple[Row, ...]
    backends: tuple[str, ...]
    skipped: tuple[str, ...] = ()
    mutation: str | None = None
    seconds: float = 0.0

    @property
    def checked(self) -> tuple[Row, ...]:
        """The rows that a backend could check."""
        return tuple(row for row in self.rows if row.checked)

    @property
    def failed(self) -> tuple[Row, ...]:
        """The rows that did not hold."""
        return tuple(row for row in self.checked if not row.ok)

    @property
    def ok(self) -> bool:
        """Whether something was checked and every claim holds on every backend that ran."""
        return bool(self.checked) and not self.failed

    def record(self) -> dict[str, Any]:
        """The report as JSON."""
        return {
            "ok": self.ok, "claims": len(self.checked), "failed": [row.claim.id for row in self.failed],
            "seconds": round(self.seconds, 3), "backends": list(self.backends), "skipped": list(self.skipped),
            "mutation": self.mutation, "rows": [row.record() for row in self.rows],
        }  # fmt: skip


def _record(check: Check) -> dict[str, Any]:
    return {
        "what": check.what, "relation": check.relation, "expected": _plain(check.expected), "got": _plain(check.got),
        "deviation": _plain(check.deviation), "tolerance": check.tolerance, "passed": check.passed,
    }  # fmt: skip


def _plain(x: Any) -> Any:
    """Numbers that JSON knows: infinities and NaN become text."""
    if isinstance(x, list):
        return [_plain(y) for y in x]
    if isinstance(x, np.ndarray | np.generic):
        return _plain(x.tolist())
    return x if not isinstance(x, float) or np.isfinite(x) else str(x)
