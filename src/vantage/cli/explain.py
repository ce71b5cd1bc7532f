"""Write out a recipe or a metric: formulas, and a table of their symbols."""

import json
import sys
from collections.abc import Sequence

from vantage.cli import UsageError, plan
from vantage.cli.options import Option, Parser
from vantage.explain import diff, explain, known
from vantage.recipe import RECIPES


def main(argv: Sequence[str]) -> None:
    """`vantage explain WHAT`."""
    as_json = Option(name="json", annotation=bool, help="Print it as one JSON object.", default=False)
    against = Option(
        name="against",
        annotation=str,
        help="Show only what differs from this recipe, with its own defaults.",
        default=None,
    )
    parser = Parser(
        "explain", [as_json, against, *plan.recipe_options()],
        {"WHAT?": f"a recipe ({', '.join(RECIPES)}) or a metric such as train/approx_kl [ppo]"},
    )  # fmt: skip
    given = parser.read(argv)
    what, machine, other = given.pop("WHAT", "ppo"), given.pop("json", False), given.pop("against", None)
    try:
        what, other = known(what), other and known(other)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if other is not None and not {what, other} <= RECIPES.keys():
        raise UsageError(f"--against compares recipes: give two of {', '.join(RECIPES)}")
    if what not in RECIPES:
        found = explain(what, **given)
    else:
        recipe = plan.make_recipe({"recipe": what, **given})
        found = explain(recipe) if other is None else diff(recipe, RECIPES[other]())
    if machine:
        print(json.dumps(found.to_dict(), ensure_ascii=False, indent=2))
    elif other is None or not sys.stdout.isatty():
        print(found)
    else:
        from rich.console import Console

        Console().print(found)
