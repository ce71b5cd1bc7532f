"""Write out a recipe or a metric: formulas, and a table of their symbols."""

import json
from collections.abc import Sequence

from vantage.cli import UsageError, plan
from vantage.cli.options import Option, Parser
from vantage.explain import explain, known
from vantage.recipe import RECIPES


def main(argv: Sequence[str]) -> None:
    """`vantage explain WHAT`."""
    as_json = Option(name="json", annotation=bool, help="Print it as one JSON object.", default=False)
    parser = Parser(
        "explain", [as_json, *plan.recipe_options()],
        {"WHAT?": f"a recipe ({', '.join(RECIPES)}) or a metric such as train/approx_kl [ppo]"},
    )  # fmt: skip
    given = parser.read(argv)
    what, machine = given.pop("WHAT", "ppo"), given.pop("json", False)
    try:
        what = known(what)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if what in RECIPES:
        found = explain(plan.make_recipe({"recipe": what, **given}))
    else:
        found = explain(what, **given)
    print(json.dumps(found.to_dict(), ensure_ascii=False, indent=2) if machine else found)
