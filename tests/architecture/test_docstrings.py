"""What the documentation must say where: generated pages show docstrings, so a gap here is a gap there."""

import ast
import re

import pytest

from tests.architecture.source import Definition, Module, modules, public

DOCUMENTED = {"theory", "mdp", "recipe", "rollout", "world", "loop", "verify", "lab", "control", "explain", "runs"}
FORMULA = re.compile(r"^ {4,}\S|[=<>≤≥≈∝∼→‖Σ∇√²·^]", re.MULTILINE)
EXTENT = re.compile(r"\b(Shapes?|Units?|scalar)\b|`\[")
SOURCE = re.compile(r"\btheory \d|\bSource:|\b(19|20)\d\d\b")


def documented() -> list[tuple[Module, str, Definition]]:
    return [
        (module, name, node)
        for module in modules()
        if module.part in DOCUMENTED and not module.path.name.startswith("_")
        if not module.name.startswith("verify.claims")  # there the claim itself is the text
        for name, node in public(module)
    ]


def is_method(name: str) -> bool:
    return "." in name


def gaps(module: Module, name: str, node: Definition) -> list[str]:
    """What the docstring of one public definition lacks."""
    text = ast.get_docstring(node)
    if text is None:
        return [] if is_method(name) else ["a docstring"]
    lacking = []
    if not re.match(r".+?[.:](\s|$)", text, re.DOTALL):
        lacking.append("a first sentence")
    if module.part == "theory" and isinstance(node, ast.FunctionDef) and not is_method(name):
        if not FORMULA.search(text):
            lacking.append("its formula")
        if not EXTENT.search(text):
            lacking.append("its shapes or units")
    return lacking


def test_every_module_says_what_it_is_for():
    assert not [module for module in modules() if not ast.get_docstring(module.tree)]


@pytest.mark.parametrize(
    ("module", "name", "node"), [pytest.param(*case, id=f"{case[0]}.{case[1]}") for case in documented()]
)
def test_docstring(module, name, node):
    assert not gaps(module, name, node)


SOURCED = [
    module
    for module in modules()
    if module.name.startswith("theory.") and not module.path.name.startswith("_")
    # a recursion and the textbook families need no authority
    if module.name not in {"theory.scan", "theory.distributions"}
]


@pytest.mark.parametrize("module", SOURCED, ids=repr)
def test_mathematics_names_its_sources(module):
    assert SOURCE.search(module.text), "say which equation of a paper or section of the theory this is"


def test_a_gap_is_seen():
    source = '''
def bare(x): ...
def vague(x):
    """Does the usual thing."""
'''
    theory = next(module for module in modules() if module.part == "theory")
    bare, vague = ast.parse(source).body
    assert isinstance(bare, ast.FunctionDef)
    assert isinstance(vague, ast.FunctionDef)
    assert gaps(theory, "bare", bare) == ["a docstring"]
    assert len(gaps(theory, "vague", vague)) == 2
