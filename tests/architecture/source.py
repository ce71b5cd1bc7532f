"""The package's source as data: what the architecture tests read."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "vantage"


@dataclass(frozen=True, kw_only=True)
class Module:
    """One file of the package."""

    path: Path
    name: str
    """Dotted, without the leading `vantage.`; the empty string is the package itself."""
    text: str
    tree: ast.Module

    @property
    def part(self) -> str:
        """The first component of the name: the part of the design it belongs to."""
        return self.name.split(".")[0]

    def __repr__(self) -> str:
        return self.name or "vantage"


def parse(path: Path) -> Module:
    relative = path.relative_to(PACKAGE).with_suffix("")
    name = ".".join(part for part in relative.parts if part != "__init__")
    text = path.read_text(encoding="utf-8")
    return Module(path=path, name=name, text=text, tree=ast.parse(text, filename=str(path)))


@cache
def modules() -> tuple[Module, ...]:
    """Every module of the package, by name."""
    return tuple(sorted((parse(path) for path in PACKAGE.rglob("*.py")), key=lambda module: module.name))


@dataclass(frozen=True, kw_only=True)
class Import:
    """One import statement's target, absolute, and whether it runs when the module is imported."""

    target: str
    line: int
    at_import: bool


def imports(module: Module) -> Iterator[Import]:
    """What a module imports; `if TYPE_CHECKING:` blocks do not count, bodies of functions are not run at import."""
    package = module.name.split(".") if module.path.stem == "__init__" else module.name.split(".")[:-1]

    def walk(node: ast.AST, at_import: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                for other in child.orelse:
                    yield from walk(other, at_import)
            elif isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(target=alias.name, line=child.lineno, at_import=at_import)
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ""
                if child.level:
                    above = [part for part in package if part][: len(package) - child.level + 1]
                    base = ".".join(["vantage", *above, *([base] if base else [])])
                for alias in child.names:
                    yield Import(target=f"{base}.{alias.name}", line=child.lineno, at_import=at_import)
            else:
                inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from walk(child, at_import and not inside)

    yield from walk(module.tree, True)


Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def public(module: Module) -> Iterator[tuple[str, Definition]]:
    """The public functions and classes of a module, and the public methods of those classes, by qualified name."""
    for node in module.tree.body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                for inner in node.body:
                    if isinstance(inner, Definition) and not inner.name.startswith("_"):
                        yield f"{node.name}.{inner.name}", inner


def functions(module: Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function of a module, methods and nested ones included."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
