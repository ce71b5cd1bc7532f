"""Show versions and what is installed, or a run's settings, last metrics and verdict."""

import json
import platform
from collections.abc import Sequence
from importlib import metadata, util
from pathlib import Path
from typing import Any

from vantage.cli.options import Option, Parser

PARTS = {
    "core": ("numpy", "scipy", "jax", "equinox", "optax", "gymnasium", "safetensors"),
    "mujoco": ("mujoco",),
    "box2d": ("box2d",),
    "atari": ("ale-py",),
    "envpool": ("envpool",),
    "jaxenvs": ("brax",),
    "language": ("torch", "transformers", "peft", "accelerate", "datasets"),
    "tune": ("optuna",),
    "onnx": ("onnx", "onnxruntime"),
    "wandb": ("wandb",),
    "zoo": ("pyyaml",),
    "video": ("imageio_ffmpeg",),
    "bench": ("stable-baselines3",),
    "dev": ("pytest", "ruff", "pyright"),
}
"""Packages by extra; `pip install 'vantage[NAME]'` adds what is missing."""


def main(argv: Sequence[str]) -> None:
    """`vantage info [RUN]`."""
    as_json = Option(name="json", annotation=bool, help="Print it as one JSON object.", default=False)
    given = Parser("info", [as_json], {"RUN?": "a run folder; without it, the installation"}).read(argv)
    facts = run(Path(given["RUN"])) if "RUN" in given else installation()
    if given.get("json"):
        print(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        if facts.get("last"):
            from vantage.lab.report import ordered, readable

            facts["last"] = {name: readable(name, x) for name, x in ordered(facts["last"])}
        print("\n".join(_lines(facts)))


def installation() -> dict[str, Any]:
    """Versions of Python, Vantage and of each package by extra; None for what is not installed."""
    parts = {extra: {name: version(name) for name in names} for extra, names in PARTS.items()}
    return {
        "vantage": version("vantage"),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "device": device(),
        **parts,
    }


def version(package: str) -> str | None:
    """The installed version of a package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def device() -> str:
    """What JAX would compute on."""
    if util.find_spec("jax") is None:
        return "none: JAX is not installed"
    import jax

    found = jax.devices()
    return f"{len(found)} × {found[0].device_kind}"


def run(path: Path) -> dict[str, Any]:
    """Settings, last metrics and findings of a run."""
    from vantage.lab.doctor import sentences, verdict
    from vantage.runs.folder import RunFolder
    from vantage.runs.log import read

    folder = RunFolder(path)
    config, rows = folder.read_config(), read(folder.metrics)
    way_on = f"Evaluate it with vantage eval {path}."
    return {
        "run": str(path),
        **{name: value for name, value in config.items() if value is not None},
        "last": rows[-1] if rows else {},
        "verdict": list(sentences(rows, goal=config.get("until"), next_step=way_on)) if rows else [],
        "findings": [str(found) for found in verdict(rows)],
    }


def _lines(facts: dict[str, Any], indent: str = "") -> list[str]:
    lines, width = [], max((len(name) for name in facts), default=0)
    for name, value in facts.items():
        if isinstance(value, dict) and "type" in value:
            value = _choice(value)
        if isinstance(value, dict) and value:
            lines += [f"{indent}{name}", *_lines(value, indent + "  ")]
        elif isinstance(value, list) and any(isinstance(item, str) for item in value):
            lines += [f"{indent}{name}", *(f"{indent}  {item}" for item in value)]
        else:
            lines.append(f"{indent}{name:<{width}}  {_word(value)}")
    return lines


def _choice(value: dict[str, Any]) -> Any:
    """A tagged record: one line if it is small, its fields if it is large."""
    inner = {name: item for name, item in value.items() if name != "type" and item is not None}
    if any(isinstance(item, dict) for item in inner.values()):
        return inner
    text = ", ".join(f"{name} {_word(item)}" for name, item in inner.items())
    return value["type"] + (f"({text})" if text else "")


def _word(value: Any) -> str:
    if value is None or value in ({}, []):
        return "none" if value in ({}, []) else "—"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
