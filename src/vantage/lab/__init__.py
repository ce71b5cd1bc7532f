"""See what an estimator really does: exact tables and figures, probes and diagnoses."""

from vantage.lab.table import Lab, Row, Table

__all__ = ["Lab", "Row", "Table"]
