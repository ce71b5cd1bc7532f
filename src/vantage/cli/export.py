"""Write a run's policy as an ONNX file, checked against the agent."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vantage.cli.eval_ import agent_of
from vantage.cli.options import Parser, of_fields
from vantage.runs.folder import reason


@dataclass(frozen=True, kw_only=True)
class Export:
    """The options of `vantage export`."""

    onnx: str = "agent.onnx"
    """The file to write; its graph holds normalisation, network and the deterministic action."""


def main(argv: Sequence[str]) -> None:
    """`vantage export RUN`."""
    given = Parser("export", of_fields(Export, "export"), {"RUN": "a run folder, or the file of an agent"}).read(argv)
    agent, target = agent_of(Path(given["RUN"])), Path(given.get("onnx", Export.onnx))
    from vantage.control.export import export_onnx

    try:
        worst = export_onnx(agent, target)
    except OSError as error:
        raise OSError(reason(error, target).replace("--out", "--onnx")) from error
    print(
        f"{target}: {agent.name} after {agent.steps:,} steps; onnxruntime and the agent differ by at most {worst:.1g}"
    )
