"""See what an estimator really does: exact tables and figures, probes and diagnoses."""

from typing import Any

from vantage.lab.table import Lab, Row, Table

__all__ = ["Lab", "Row", "Table", "figures"]


def __getattr__(name: str) -> Any:
    if name == "figures":
        from importlib import import_module

        return import_module("vantage.lab.figures")
    raise AttributeError(f"module 'vantage.lab' has no attribute {name!r}")
