"""Write out a recipe or a metric: formulas, and a table of their symbols."""

import json
import sys
from collections.abc import Sequence
from typing import Any

from vantage.cli import UsageError, plan, rlhf_options
from vantage.cli.options import Option, Parser
from vantage.explain import diff, explain, known
from vantage.recipe import RECIPES, Recipe
from vantage.recipe.presets import EVERY_RECIPE


def main(argv: Sequence[str]) -> None:
    """`vantage explain WHAT`."""
    as_json = Option(name="json", annotation=bool, help="Print it as one JSON object.", default=False)
    against = Option(
        name="against",
        annotation=str,
        help="Show only what differs from this recipe, with its own defaults.",
        default=None,
    )
    own = {option.name: option for option in (*rlhf_options.recipe_options(), *plan.recipe_options())}
    parser = Parser(
        "explain", [as_json, against, *own.values()],
        {"WHAT?": f"a recipe ({', '.join(EVERY_RECIPE)}) or a metric such as train/approx_kl [ppo]"},
    )  # fmt: skip
    given = parser.read(argv)
    what, machine, other = given.pop("WHAT", "ppo"), given.pop("json", False), given.pop("against", None)
    try:
        what, other = known(what), other and known(other)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if other is not None and not {what, other} <= EVERY_RECIPE.keys():
        raise UsageError(f"--against compares recipes: give two of {', '.join(EVERY_RECIPE)}")
    if what not in EVERY_RECIPE:
        found = explain(what, **given)
    else:
        recipe = make_recipe(what, given)
        found = explain(recipe) if other is None else diff(recipe, EVERY_RECIPE[other]())
    if machine:
        print(json.dumps(found.to_dict(), ensure_ascii=False, indent=2))
    elif other is None or not sys.stdout.isatty():
        print(found)
    else:
        from rich.console import Console

        Console().print(found)


def make_recipe(name: str, given: dict[str, Any]) -> Recipe:
    """The named recipe with every given option. Raises UsageError for one that it does not have."""
    if name not in RECIPES:
        return rlhf_options.make_recipe(name, given)
    alien = sorted(given.keys() - {option.name for option in plan.recipe_options()})
    if alien:
        flag = "--" + alien[0].replace("_", "-")
        raise UsageError(f"{flag} is of the recipes with groups: leave it out, or explain grpo")
    return plan.make_recipe({"recipe": name, **given})
