"""A run as one page that needs nothing else: result, verdict, curves, settings, formulas."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from vantage.explain import explain
from vantage.explain.metrics import METRICS, explain_metric
from vantage.lab.doctor import Row, sentences, verdict
from vantage.runs.config import from_json
from vantage.runs.folder import RunFolder
from vantage.runs.log import GROUPS, STEPS, read
from vantage.runs.picture import panels

STYLE = """body{font:15px/1.5 system-ui,sans-serif;color:#1f2933;max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem;border-bottom:1px solid #e4e7eb}img{max-width:100%}
table{border-collapse:collapse}td,th{text-align:left;padding:.15rem .8rem .15rem 0;vertical-align:top}
td.n{text-align:right;font-variant-numeric:tabular-nums}pre{background:#f5f7fa;padding:1rem;overflow-x:auto;font-size:13px}
.dim{color:#66727f}"""
UNITS = {"nats": " nats", "reward": "", "reward²": "", "steps": " steps", "epochs": " epochs", "rollouts": " rollouts"}
"""How a unit is written behind a number; of other units nothing is."""
COUNTED = ("steps", "epochs", "rollouts", "tries", "episodes")


def readable(name: str, value: float) -> str:
    """A metric for people: 12.3 %, 20,083 steps, 1 min 12 s, 0.00681 nats; "—" for what is not a number."""
    if value != value:
        return "—"
    unit = explain_metric(name).unit if name in METRICS else ""
    if unit == "share":
        return f"{100 * value:.3g} %"
    if unit == "seconds":
        return duration(value)
    if unit == "1/s":
        return f"{value:,.0f} steps/s"
    number = f"{value:,.0f}" if unit in COUNTED and value == int(value) else f"{value:.4g}"
    return ("0" if number == "-0" else number) + UNITS.get(unit, "")


def duration(seconds: float) -> str:
    """1 h 2 min, 3 min 4 s, 5.6 s."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def ordered(row: Row) -> list[tuple[str, float]]:
    """The metrics of a row by group, in the order of the log."""
    place = {group: number for number, group in enumerate(GROUPS)}
    return sorted(row.items(), key=lambda item: (place.get(item[0].split("/")[0], 9), item[0]))


def write(folder: RunFolder, target: Path) -> None:
    """Write the report of a run as .html or .md, by the suffix. Raises ValueError for another one."""
    if target.suffix not in (".html", ".md"):
        raise ValueError(f"{target}: a report is written as .html or as .md")
    parts = content(folder)
    target.write_text(html(parts) if target.suffix == ".html" else markdown(parts), encoding="utf-8")


def content(folder: RunFolder) -> dict[str, Any]:
    """What a report says, before it is laid out. Raises FileNotFoundError if the folder is no run."""
    import vantage.control  # noqa: F401 (names the types of the settings)

    config, rows = folder.read_config(), read(folder.metrics)
    settings = from_json(config["settings"])
    recipe, goal = settings.recipe, config.get("until")
    way_on = f"Evaluate it with vantage eval {folder.path}."
    last = rows[-1] if rows else {}
    return {
        "title": f"{config['env']}, seed {settings.seed}",
        "path": str(folder.path),
        "steps": f"{int(last.get(STEPS, 0)):,} of {config['total_steps']:,} steps",
        "verdict": sentences(rows, recipe=recipe, goal=goal, next_step=way_on)
        if rows
        else ("Nothing was trained yet.",),
        "findings": verdict(rows, recipe=recipe),
        "curves": _picture(rows),
        "metrics": [(name, readable(name, x), _what(name)) for name, x in ordered(last)],
        "settings": [(name, _text(value)) for name, value in _flat(config["settings"])],
        "formulas": str(explain(recipe)),
        "versions": config.get("versions", {}),
    }


def _what(metric: str) -> str:
    return METRICS[metric].what if metric in METRICS else ""


def _picture(rows: Sequence[Row]) -> str:
    """The curves as a data URI; empty without rows."""
    names = [name for name, _ in ordered({name: 0.0 for row in rows for name in row}) if not name.startswith("time/")]
    if not names:
        return ""
    file = io.BytesIO()
    panels(rows, names, file)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Settings field by field; of recipe, optimiser and network the fields."""
    for name, value in settings.items():
        if name in ("recipe", "optim", "network") and isinstance(value, dict):
            yield name, value["type"]
            yield from ((f"{name}.{inner}", x) for inner, x in value.items() if inner != "type")
        elif name != "type":
            yield name, value


def _text(value: Any) -> str:
    if isinstance(value, dict):
        inner = ", ".join(f"{name} {_text(x)}" for name, x in value.items() if name != "type" and x is not None)
        return str(value.get("type", "")) + (f"({inner})" if inner else "")
    if isinstance(value, list):
        return " × ".join(map(_text, value))
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def html(parts: Mapping[str, Any]) -> str:
    """The report as one HTML file without scripts; its picture is inside."""
    findings = "".join(
        f"<li><b>{escape(x.problem)}</b>: {escape(x.evidence)}. {escape(x.remedy)}.</li>" for x in parts["findings"]
    )
    picture = (
        f'<img alt="curves of all metrics" src="{parts["curves"]}">' if parts["curves"] else "nothing was recorded"
    )
    versions = ", ".join(f"{name} {number}" for name, number in parts["versions"].items())
    metrics = "".join(
        f'<tr><td>{escape(name)}</td><td class="n">{escape(value)}</td><td class="dim">{escape(what)}</td></tr>'
        for name, value, what in parts["metrics"]
    )
    settings = "".join(f"<tr><td>{escape(name)}</td><td>{escape(x)}</td></tr>" for name, x in parts["settings"])
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{escape(parts["title"])}</title><style>{STYLE}</style>
<h1>{escape(parts["title"])}</h1><p class="dim">{escape(parts["path"])}: {parts["steps"]}</p>
{"".join(f"<p>{escape(line)}</p>" for line in parts["verdict"])}
{f"<h2>Findings</h2><ul>{findings}</ul>" if findings else ""}
<h2>Curves</h2>{picture}
<h2>Last update</h2><table>{metrics}</table>
<h2>What was maximised</h2><pre>{escape(parts["formulas"])}</pre>
<h2>Settings</h2><table>{settings}</table>
<p class="dim">{escape(versions)}</p></html>
"""


def markdown(parts: Mapping[str, Any]) -> str:
    """The report as one Markdown file; its picture is inside as a data URI."""
    findings = [f"- **{x.problem}**: {x.evidence}. {x.remedy}." for x in parts["findings"]]
    metrics = [f"| `{name}` | {value} | {what} |" for name, value, what in parts["metrics"]]
    settings = [f"| `{name}` | {value} |" for name, value in parts["settings"]]
    lines = [
        f"# {parts['title']}", "", f"{parts['path']}: {parts['steps']}", "", *parts["verdict"], "",
        *(["## Findings", "", *findings, ""] if findings else []),
        "## Curves", "", f"![curves]({parts['curves']})" if parts["curves"] else "nothing was recorded", "",
        "## Last update", "", "| metric | value | what |", "|---|---|---|", *metrics, "",
        "## What was maximised", "", "```text", parts["formulas"], "```", "",
        "## Settings", "", "| setting | value |", "|---|---|", *settings, "",
        ", ".join(f"{name} {number}" for name, number in parts["versions"].items()),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"
