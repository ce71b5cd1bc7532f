"""A recipe or a metric written out, generated from the objects that are run and from their docstrings."""

import sys
from dataclasses import fields, replace
from types import ModuleType
from typing import Any, get_type_hints

from vantage.explain.choices import convert, nearest
from vantage.explain.metrics import METRICS, MetricExplanation, explain_metric
from vantage.explain.recipe import Explanation, explain_recipe
from vantage.recipe import RECIPES, Recipe

__all__ = ["Explanation", "MetricExplanation", "explain"]


def explain(what: str | Recipe = "ppo", **choices: Any) -> Explanation | MetricExplanation:
    """What a recipe maximises, minimises and does, or what a metric is; print the result.

    `what` is a Recipe, the name of one ("ppo"), or of a metric ("train/approx_kl"). `choices` are fields of the
    recipe, as values or as text: `explain("ppo", psi="td", objective="penalty")`.
    Raises ValueError for an unknown name, suggesting the nearest one.
    """
    if isinstance(what, str) and what not in RECIPES:
        if what in METRICS:
            if choices:
                raise ValueError(f"{what} is a metric, so it has no {next(iter(choices))!r}: leave it out")
            return explain_metric(what)
        raise ValueError(f"nothing is called {what!r}: {nearest(what, [*RECIPES, *METRICS])}")
    recipe = RECIPES[what]() if isinstance(what, str) else what
    return explain_recipe(replace(recipe, **{name: _choice(name, x) for name, x in choices.items()}))


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
