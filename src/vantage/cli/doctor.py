"""Say what is wrong with a run: each fault with its evidence and its remedy."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from vantage.cli.options import Option, Parser


def main(argv: Sequence[str]) -> int:
    """`vantage doctor RUN`; 1 if something was found."""
    as_json = Option(name="json", annotation=bool, help="Print the findings as one JSON list.", default=False)
    given = Parser("doctor", [as_json], {"RUN": "a run folder, also of a run that still goes on"}).read(argv)
    import vantage.control  # noqa: F401 (names the types of the settings)
    from vantage.lab.doctor import RULES, sentences, verdict
    from vantage.runs.config import from_json
    from vantage.runs.folder import RunFolder
    from vantage.runs.log import read

    folder = RunFolder(Path(given["RUN"]))
    config, rows = folder.read_config(), read(folder.metrics)
    recipe = from_json(config["settings"]).recipe
    found = verdict(rows, recipe=recipe)
    if given.get("json"):
        print(json.dumps([asdict(finding) for finding in found], ensure_ascii=False))
    elif not rows:
        print(f"{folder.path} has no update yet.")
    else:
        outcome, health, _ = sentences(rows, recipe=recipe, goal=config.get("until"))
        print(outcome)
        for one in found:
            print(f"\n{one.problem} ({one.rule})\n  seen:   {one.evidence}\n  remedy: {one.remedy}")
        if not found:
            print(f"{health} {len(RULES)} rules have found nothing.")
    return int(bool(found))
