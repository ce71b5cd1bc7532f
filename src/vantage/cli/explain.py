"""Write out a recipe or a metric: formulas, and a table of their symbols."""

import json
from collections.abc import Sequence

from vantage.cli import plan
from vantage.cli.options import Option, Parser, fail_unless_known
from vantage.explain import METRICS, explain
from vantage.recipe import RECIPES


def main(argv: Sequence[str]) -> None:
    """`vantage explain WHAT`."""
    as_json = Option(name="json", annotation=bool, help="Print it as one JSON object.", default=False)
    known = ", ".join(RECIPES)
    parser = Parser(
        "explain", [as_json, *plan.recipe_options()],
        {"WHAT?": f"a recipe ({known}) or a metric such as train/approx_kl [ppo]"},
    )  # fmt: skip
    given = parser.read(argv)
    what, machine = given.pop("WHAT", "ppo"), given.pop("json", False)
    if what in RECIPES:
        found = explain(plan.make_recipe({"recipe": what, **given}))
    else:
        fail_unless_known("recipe or metric", what, [*RECIPES, *METRICS])
        found = explain(what, **given)
    print(json.dumps(found.to_dict(), ensure_ascii=False, indent=2) if machine else found)
