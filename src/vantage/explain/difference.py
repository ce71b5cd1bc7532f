"""Two recipes side by side: what one maximises, minimises and does that the other does not."""

from dataclasses import dataclass, is_dataclass
from typing import Any

from vantage.explain.choices import write
from vantage.explain.recipe import Explanation, explain_recipe, knobs
from vantage.recipe import Recipe, Schedule

SAME, LEFT, RIGHT = " ", "−", "+"


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of two recipes: its lines in the first and in the second, and the lines that both have."""

    title: str
    left: tuple[str, ...]
    right: tuple[str, ...]
    both: tuple[str, ...] = ()

    @property
    def lines(self) -> list[tuple[str, str]]:
        """(mark, text): what both have, what only the first has (−), what only the second has (+)."""
        marked = ((SAME, self.both), (LEFT, self.left), (RIGHT, self.right))
        return [(mark, text) for mark, texts in marked for text in texts]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How two recipes differ, in formulas: `str()` of it, or printing it with Rich, shows − the first, + the second."""

    left: Explanation
    right: Explanation
    parts: tuple[Part, ...]

    @property
    def same(self) -> bool:
        """Whether the two are the same algorithm, with the same numbers."""
        return not any(part.left or part.right for part in self.parts)

    def to_dict(self) -> dict[str, Any]:
        """The difference as JSON-able data."""
        return {
            "left": self.left.title,
            "right": self.right.title,
            "parts": {
                p.title: {"left": list(p.left), "right": list(p.right), "both": list(p.both)} for p in self.parts
            },
        }

    def _marked(self) -> list[tuple[str, str]]:
        rows = [(LEFT, self.left.title), (RIGHT, self.right.title)]
        if self.same:
            return [*rows, ("", ""), ("", "They are the same.")]
        for part in self.parts:
            rows += [("", ""), ("", part.title), *((mark, f"    {text}") for mark, text in part.lines)]
        return rows

    def __str__(self) -> str:
        return "\n".join(f"{mark}{' ' if mark and text else ''}{text}".rstrip() for mark, text in self._marked())

    def __rich__(self) -> Any:
        """The same in colour: red for the first, green for the second."""
        from rich.text import Text

        styles = {LEFT: "red", RIGHT: "green", SAME: "dim", "": "bold"}
        lines = zip(str(self).split("\n"), self._marked(), strict=True)
        return Text("\n").join(Text(line, style=styles[mark]) for line, (mark, _) in lines)


def diff(left: Recipe, right: Recipe) -> Difference:
    """What two recipes maximise, minimise and do differently, in formulas; print the result.

    Both are run on symbols as by `explain`, so the difference is one of what is computed, not of names.
    """
    a, b = explain_recipe(left), explain_recipe(right)
    parts = [
        _part("The actor maximises over θ", a.objective, b.objective),
        _part("subject to", a.subject, b.subject),
        _part("The critic minimises over φ", a.critic, b.critic),
        _part("where", *_definitions(a, b)),
        _part("One update", a.update, b.update),
        _part("with", *_numbers(left, right)),
    ]
    return Difference(left=a, right=b, parts=tuple(part for part in parts if part.left or part.right))


def _part(title: str, left: Any, right: Any) -> Part:
    """One part; a part of several lines shows only those that one of the two has alone."""
    if isinstance(left, str) or isinstance(right, str) or left is None:
        a, b = (tuple(filter(None, (x,))) for x in (left, right))
        return Part(title=title, left=a, right=b) if a != b else Part(title=title, left=(), right=(), both=a)
    return Part(
        title=title,
        left=tuple(line for line in left if line not in right),
        right=tuple(line for line in right if line not in left),
    )


def _definitions(a: Explanation, b: Explanation) -> tuple[list[str], list[str]]:
    """The definitions in each, with their conditions."""
    left, right = ([f"{one}   {one.when}".rstrip() for one in found.where] for found in (a, b))
    return left, right


def _numbers(a: Recipe, b: Recipe) -> tuple[list[str], list[str]]:
    """The numbers and switches of each, such as Clip.low = 0.2; the choices themselves stand in the titles."""
    known = [
        {name: x for name, x in knobs(recipe) if not is_dataclass(x) or isinstance(x, Schedule)} for recipe in (a, b)
    ]
    left, right = (
        [f"{name} = {write(x)}" for name, x in mine.items() if x is not None or other.get(name) is not None]
        for mine, other in (known, reversed(known))
    )
    return left, right
