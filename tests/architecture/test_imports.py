"""The import law: who may import whom, and which heavy library may be imported where."""

import subprocess
import sys

import pytest

from tests.architecture.source import Import, Module, imports, modules, parse

LAYERS = (
    {"theory"},
    {"rollout", "recipe", "world", "loop", "runs", "callbacks", "schedules", "streams"},
    {"mdp", "control", "language"},
    {"verify", "lab", "explain"},
    {"cli", "__main__", ""},
)
LEVEL = {part: level for level, layer in enumerate(LAYERS) for part in layer}
WORLDS = LAYERS[2]

HEAVY = {"jax", "jaxlib", "equinox", "optax", "torch", "transformers", "gymnasium", "matplotlib", "tensorboardX"}
AT_HOME = {
    "jax": ("control", "mdp.jax_env"),
    "jaxlib": ("control", "mdp.jax_env"),
    "equinox": ("control",),
    "optax": ("control",),
    "gymnasium": ("control", "mdp.env", "mdp.jax_env"),
    "matplotlib": ("lab.figures",),
    "torch": ("language",),
    "transformers": ("language",),
}
"""Where a library may be imported at the top of a module. Elsewhere it is imported by the function that needs it."""
FORBIDDEN = {"pickle": "a file from a stranger must not be able to run code", "dill": "the same", "joblib": "the same"}


def inner(found: Import) -> str | None:
    """The part of our own package that is imported, or None for another library."""
    root, *rest = found.target.split(".")
    if root != "vantage":
        return None
    return rest[0] if rest and rest[0] in LEVEL else ""


def breaches(module: Module) -> list[str]:
    """The import statements of one module that break the law, each as `line: why`."""
    wrong = []
    for found in imports(module):
        part, library = inner(found), found.target.split(".")[0]
        if part is not None:
            if LEVEL[part] > LEVEL[module.part]:
                wrong.append(f"{found.line}: {module.part!r} may not import {part or 'vantage'!r}, which lies above it")
            elif {part, module.part} <= WORLDS and part != module.part:
                wrong.append(f"{found.line}: the worlds {module.part!r} and {part!r} may not know each other")
        elif library in FORBIDDEN:
            wrong.append(f"{found.line}: {library}: {FORBIDDEN[library]}")
        elif found.at_import and library in HEAVY:
            homes = AT_HOME.get(library, ())
            if not any(module.name == home or module.name.startswith(home + ".") for home in homes):
                wrong.append(f"{found.line}: {library} is imported when {module} is; import it where it is used")
    return wrong


def test_every_part_has_a_layer():
    unknown = {module.part for module in modules()} - LEVEL.keys()
    assert not unknown, f"give {sorted(unknown)} a place in LAYERS"


@pytest.mark.parametrize("module", modules(), ids=repr)
def test_import_law(module):
    assert not breaches(module)


@pytest.mark.parametrize(
    ("home", "statement"),
    [
        ("theory/x.py", "from vantage.recipe import Recipe"),
        ("theory/x.py", "from vantage import PPO"),
        ("theory/x.py", "def f():\n    from ..mdp import exact"),
        ("mdp/x.py", "import vantage.control.agent"),
        ("control/x.py", "from vantage.language import roles"),
        ("recipe.py", "import jax.numpy as jnp"),
        ("verify/x.py", "from torch import nn"),
        ("runs/x.py", "import pickle"),
    ],
)
def test_a_breach_is_seen(home, statement, tmp_path, monkeypatch):
    monkeypatch.setattr("tests.architecture.source.PACKAGE", tmp_path)
    path = tmp_path / home
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(statement)
    assert breaches(parse(path))


def loaded_by(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after running `code`."""
    program = f"{code}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    )


def test_tensorboard_events_are_written_without_pytorch(tmp_path):
    """Its library imports PyTorch where it can: three seconds of a run's start."""
    program = """
import sys
from pathlib import Path
from vantage.runs.log import event_writer
events = event_writer(Path("."))
events.add_scalar("x", 1.0, 1)
events.add_text("y", "said", 1)
events.close()
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    (file,) = tmp_path.glob("events.*")
    assert b"said" in file.read_bytes()


@pytest.mark.parametrize("code", ["import vantage", "import vantage.theory", "import vantage.recipe, vantage.rollout"])
def test_import_is_light(code):
    assert not loaded_by(code) & (HEAVY | {"scipy"})


def test_every_public_name_resolves():
    program = "import vantage\nfor name in vantage.__all__: getattr(vantage, name)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
