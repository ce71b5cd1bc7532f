"""A recipe or a metric written out, generated from the objects that are run and from their docstrings."""

import re
import sys
from dataclasses import fields, replace
from types import ModuleType
from typing import Any, get_type_hints

from vantage.explain.choices import choices as parts
from vantage.explain.choices import convert, nearest
from vantage.explain.difference import Difference, diff
from vantage.explain.metrics import METRICS, MetricExplanation, explain_metric
from vantage.explain.recipe import Explanation, explain_recipe
from vantage.recipe import Recipe
from vantage.recipe.presets import EVERY_RECIPE

__all__ = ["Difference", "Explanation", "MetricExplanation", "diff", "explain"]


def explain(what: str | Recipe = "ppo", **choices: Any) -> Explanation | MetricExplanation:
    """What a recipe maximises, minimises and does, or what a metric is; print the result.

    `what` is a Recipe, the name of one ("ppo"), or of a metric ("train/approx_kl"). `choices` are fields of the
    recipe, as values or as text: `explain("ppo", psi="td", objective="penalty")`.
    Raises ValueError for an unknown name, suggesting the nearest one.
    """
    what = known(what) if isinstance(what, str) else what
    if isinstance(what, str) and what not in EVERY_RECIPE:
        if choices:
            raise ValueError(f"{what} is a metric, so it has no {next(iter(choices))!r}: leave it out")
        return explain_metric(what)
    recipe = EVERY_RECIPE[what]() if isinstance(what, str) else what
    return explain_recipe(replace(recipe, **{name: _choice(name, x) for name, x in choices.items()}))


def known(what: str) -> str:
    """The name of a recipe or a metric, however it is capitalised.

    Raises ValueError, suggesting the nearest name, or how to choose what is only a part of a recipe.
    """
    what = re.sub(r"^rewards/.+/(mean|std)$", r"rewards/NAME/\1", what)
    names = {name.lower(): name for name in (*EVERY_RECIPE, *METRICS)}
    if what.lower() in names:
        return names[what.lower()]
    for part in ("psi", "objective", "critic"):
        kinds = parts(get_type_hints(Recipe)[part])
        if any(name == what.lower() or name.startswith(what.lower() + "-") for name in kinds):
            raise ValueError(f"{what!r} is a choice of {part}: explain a recipe with it, ppo --{part} {what.lower()}")
    raise ValueError(f"there is no recipe or metric {what!r}: {nearest(what.lower(), names)}")


def _choice(name: str, value: Any) -> Any:
    hints, known = get_type_hints(Recipe), [f.name for f in fields(Recipe)]
    if name not in known:
        raise ValueError(f"a recipe has no {name!r}: {nearest(name, known)}")
    return convert(value, hints[name]) if isinstance(value, str) else value


class _Callable(ModuleType):
    """Once this module is imported, `vantage.explain` is the module; calling it must still explain."""

    def __call__(self, what: str | Recipe = "ppo", **choices: Any) -> Explanation | MetricExplanation:
        return explain(what, **choices)


sys.modules[__name__].__class__ = _Callable
