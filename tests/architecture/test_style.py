"""One copy of each formula, one minus sign, and sizes a reader can hold."""

import ast
import re
from pathlib import Path

import pytest

from tests.architecture.source import Module, functions, modules

ONE_COPY = {
    "the clipped ratio": (r"clip\(\w*ratio\w*, 1\.?0? - ", "theory.objectives"),
    "the ratio π/π_old": (r"exp\(\w*log_?prob\w* - \w+\)", "theory.importance"),
    "the TD error": (r"(?:reward|signal) \+ (?:self\.)?(?:discount|gamma) \* next_value - value\b", "theory.psi"),
    "the k3 estimator": (r"expm1\(|exp\((\w+)\) - 1\.?0? - \1\b|exp\((\w+)\) - \2 - 1", "theory.divergences"),
    "KL thresholds of β": (r"\bbeta \* (?:2(?:\.0)?|factor)\b", "theory.kl_control"),
}
"""Each formula as it would be retyped (a pattern over normalised source), and the only module where it may stand.

`verify` is left out: a claim states the formula a second time on purpose, to compare."""

SOFT, HARD, FUNCTION, PARAMETERS = 300, 400, 60, 12
GAIN = re.compile(r"\b(gain|surrogate|objective)\b")


def normalised(module: Module) -> str:
    """The code without comments or docstrings, `self.` and attribute owners of fields removed, spacing made uniform."""

    class Strip(ast.NodeTransformer):
        def visit_Expr(self, node):
            return None if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str) else node

        def visit_Attribute(self, node):
            self.generic_visit(node)
            return (
                node if isinstance(node.value, ast.Name | ast.Attribute) and is_call(node) else ast.Name(id=node.attr)
            )

    calls = {id(node.func) for node in ast.walk(module.tree) if isinstance(node, ast.Call)}

    def is_call(node: ast.AST) -> bool:
        return id(node) in calls

    return "\n".join(ast.unparse(Strip().visit(ast.parse(ast.unparse(node)))) for node in module.tree.body)


@pytest.mark.parametrize("formula", ONE_COPY)
def test_one_copy(formula):
    pattern, home = ONE_COPY[formula]
    found = {module.name for module in modules() if module.part != "verify" and re.search(pattern, normalised(module))}
    assert found == {home}, f"{formula} belongs in {home} alone: call it there"


def negations(module: Module) -> list[int]:
    """The lines that negate something maximised (a gain, a surrogate, an objective) whose gradient is not cut."""
    return [
        node.lineno
        for node in ast.walk(module.tree)
        if isinstance(node, ast.UnaryOp)
        and isinstance(node.op, ast.USub)
        and GAIN.search(ast.unparse(node.operand))
        and "stop_gradient" not in ast.unparse(node.operand)
    ]


def test_one_minus_sign():
    found = {module.name: negations(module) for module in modules() if module.part != "verify" and negations(module)}
    assert list(found) == ["theory.loss"]
    assert len(found["theory.loss"]) == 1


@pytest.mark.parametrize("module", modules(), ids=repr)
def test_sizes(module):
    assert len(module.text.splitlines()) <= HARD, f"a module is at most {HARD} lines, better {SOFT}: split it"
    for function in functions(module):
        assert function.end_lineno is not None
        length = function.end_lineno - function.lineno + 1 - len((ast.get_docstring(function) or "").splitlines())
        arguments = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
        assert length <= FUNCTION, f"{function.name} has {length} lines, at most {FUNCTION}: split it"
        assert len(arguments) <= PARAMETERS, f"{function.name} has {len(arguments)} parameters, at most {PARAMETERS}"


def code_lines(module: Module) -> int:
    """Lines of code: neither blank, nor comment, nor docstring."""
    prose = {
        line
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and node.end_lineno is not None
        for line in range(node.lineno, node.end_lineno + 1)
    }
    lines = enumerate(map(str.strip, module.text.splitlines()), start=1)
    return sum(bool(line) and not line.startswith("#") and number not in prose for number, line in lines)


def test_the_package_stays_small():
    assert sum(code_lines(module) for module in modules()) <= 19_200


RETYPED = {
    "the clipped ratio": "low = xp.clip(ratio, 1 - eps, 1 + eps)",
    "the ratio π/π_old": "r = np.exp(terms.log_prob - old)",
    "the TD error": "d = batch.reward + batch.discount * batch.next_value - batch.value",
    "the k3 estimator": "k = xp.exp(d) - 1 - d",
    "KL thresholds of β": "beta = self.beta * 2.0",
}


def snippet(code: str) -> Module:
    return Module(path=Path("snippet.py"), name="snippet", text=code, tree=ast.parse(code))


@pytest.mark.parametrize("formula", ONE_COPY)
def test_a_second_copy_is_seen(formula):
    assert re.search(ONE_COPY[formula][0], normalised(snippet(RETYPED[formula])))


def test_a_second_minus_sign_is_seen():
    assert negations(snippet("loss = -(objective * weight).mean()")) == [1]
    assert not negations(snippet("metric = -mean(stop_gradient(gain))"))
