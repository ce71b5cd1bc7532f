"""The formula of a choice, obtained by running the choice on symbols.

A Ψ, an objective or a critic loss is a record whose `__call__` unpacks its input into functions of `theory`. Here the
same code runs with those functions replaced by stand-ins: each returns the left-hand side of the formula in its own
docstring and notes that formula down. So what is shown is what is computed, for a user's own types too.
"""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass, replace
from types import FunctionType, ModuleType
from typing import Any

from vantage.explain.choices import summary
from vantage.theory import critics, importance, kl_control, objectives, psi, reduce, returns

MODULES = {module.__name__: module for module in (critics, importance, kl_control, objectives, psi, reduce, returns)}

REWRITE = {
    objectives.__name__: (r"\br_t(?!\()", "r_t(θ)"),  # r_t is the ratio there and the reward elsewhere
    critics.__name__: (r"ε", "ε_v"),  # a width in units of the value is not the policy's clip range
}


@dataclass(frozen=True)
class Definition:
    """One formula: `sign` = `text`, `when`, computed by `by`."""

    sign: str
    text: str
    when: str = ""
    by: Callable[..., Any] | None = None

    def __str__(self) -> str:
        return (f"{self.sign} = " if self.sign else "") + self.text


def block(function: Callable[..., Any]) -> list[str]:
    """The lines of the formula block of a docstring: the indented ones of its first such paragraph."""
    paragraphs = (inspect.getdoc(function) or "").split("\n\n")[1:]
    for paragraph in paragraphs:
        lines = paragraph.split("\n")
        if lines[0].startswith("    "):
            return [line.strip() for line in lines if line.startswith("    ")]
    return []


def read(function: Callable[..., Any], given: dict[str, Any] | None = None) -> list[Definition]:
    """The formulas in a function's docstring, those left out that belong to an argument which is None or False.

    A line may say that it holds only `if `name` is given`, or `without it`, or begin with the name of the argument.
    """
    given = given or {}
    absent = {name for name, value in given.items() if value is None or value is False}
    lines, named = [], None
    for line in block(function):
        condition = re.search(r"if `(\w+)` is given", line)
        named = condition[1] if condition else named
        if (
            (condition and named in absent)
            or ("without it" in line and named not in absent)
            or line.split()[0] in absent
        ):
            continue
        lines.append(_plain(line, function.__module__, absent))
    return [_define(line, function) for line in lines]


def _plain(line: str, module: str, absent: set[str]) -> str:
    aside = re.search(r"\s*\((?:and )?((\w+?)(?:_[a-z])?\b[^()]*), if given\)", line)
    if aside:
        line = line.replace(aside[0], "" if aside[2] in absent else f", {aside[1]}")
    if "high" in absent:  # `high=None` means ε_high = ε_low, written ε
        line = re.sub(r"ε_(low|high)", "ε", line)
    sign, instead = REWRITE.get(module, ("", ""))
    line = re.sub(sign, instead, line) if sign else line
    return re.sub(r",?\s*(if|where)? ?`\w+` is given|,?\s*without it", "", line)


def _define(line: str, function: Callable[..., Any]) -> Definition:
    body, _, aside = re.sub(r",\s{2,}.*∼.*$", "", line).partition("    ")
    found = re.match(r"([^=(\[]+(?:\([^()]*\)|\^\{\(k\)\})?)\s=\s(.*)", body.strip())
    sign, text = (found[1].strip(), found[2].strip()) if found else ("", body.strip().rstrip(","))
    return Definition(sign, text, " ".join(aside.replace("`", "").split()), function)


class Symbol(str):
    """Text that adds, subtracts and multiplies to longer text; anything else done to it gives it back unchanged."""

    def __add__(self, other: Any) -> "Symbol":
        return self if other == 0.0 else Symbol(f"{self} + {other}")

    def __sub__(self, other: Any) -> "Symbol":
        return Symbol(f"{self} − {other}")

    def __mul__(self, other: Any) -> "Symbol":
        return Symbol(f"{other} {self}")

    def __rmul__(self, other: Any) -> Any:
        return 0.0 if other == 0.0 else Symbol(f"{other} {self}")

    def __getitem__(self, _: Any) -> "Symbol":
        return self

    def __getattr__(self, name: str) -> "Symbol":
        """Symbols have no shape, dtype or transpose; asking is allowed."""
        if name.startswith("_"):
            raise AttributeError(name)
        return self

    def __array_namespace__(self, api_version: str | None = None) -> "_Namespace":
        return NAMESPACE


class _Namespace:
    """An array library for symbols: `where` keeps its second argument, everything else its first."""

    __name__ = "symbols"

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return (lambda _, x, other: x) if name == "where" else (lambda x, *_, **__: x)


NAMESPACE = _Namespace()


class Record:
    """A rollout, batch or terms of symbols, named by field; fields that are not there read as None."""

    def __init__(self, **names: str | None) -> None:
        self._names = names

    def __getattr__(self, name: str) -> Symbol | None:
        sign = self._names.get(name, name)
        return None if sign is None else Symbol(sign)


class _Module:
    """Stands for a module of `theory`: calling its functions gives signs and notes their formulas."""

    def __init__(self, module: ModuleType, notes: list[Definition]) -> None:
        self._module, self._notes = module, notes

    def __getattr__(self, name: str) -> Callable[..., Symbol]:
        function = inspect.unwrap(getattr(self._module, name))

        def note(*args: Any, **kwargs: Any) -> Symbol:
            given = dict(inspect.signature(function).bind(*args, **kwargs).arguments)
            defaults = {
                key: p.default
                for key, p in inspect.signature(function).parameters.items()
                if p.default is None or p.default is False
            }
            found = read(function, defaults | given)
            bare = [one for one in found if not one.sign]
            self._notes.extend([*(one for one in found if one.sign), *bare[1:]])
            return Symbol(bare[0].text if bare else found[0].sign if found else name)

        return note


class _Self:
    """Stands for the choice itself: its knobs are real, the choices inside it run on symbols too."""

    def __init__(self, choice: Any, notes: list[Definition]) -> None:
        self._choice, self._notes = choice, notes

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._choice, name)
        if not (is_dataclass(value) and callable(value)):
            return value

        def inner(*args: Any) -> Any:
            mine: list[Definition] = []
            result = run(value, *args, notes=mine)
            self._notes.extend(replace(one, when=summary(type(value))) for one in mine)
            return result

        return inner


def run(choice: Any, *records: Any, notes: list[Definition], method: str = "__call__") -> Any:
    """What a choice's method returns on records of symbols; the formulas it used are appended to `notes`."""
    call = inspect.unwrap(getattr(type(choice), method))
    world = dict(call.__globals__)
    for name, value in call.__globals__.items():
        if isinstance(value, ModuleType) and value.__name__ in MODULES:
            world[name] = _Module(value, notes)
    return FunctionType(call.__code__, world, call.__name__, call.__defaults__, call.__closure__)(
        _Self(choice, notes), *records
    )
