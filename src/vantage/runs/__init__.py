"""What a run leaves on disk: its settings and its checkpoints, in formats that cannot carry code."""

from vantage.runs.checkpoint import load, save
from vantage.runs.config import from_json, known, to_json

__all__ = ["from_json", "known", "load", "save", "to_json"]
