"""Settings in a file: TOML whose keys are the options of the command line, or an entry of RL Baselines3 Zoo in YAML."""

import tomllib
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from vantage.cli import UsageError, plan
from vantage.cli.options import Option
from vantage.explain.choices import choices, convert, members, nearest, spelling, write
from vantage.recipe import Schedule, Separate

ABOUT: dict[str, Any] = {"env": str, "steps": int, "recipe": str}
"""Keys about the run, and the algorithm's name; all others are about recipe, optimiser, network and agent."""
TABLES = ("env_kwargs", "wrappers")
"""Fields of `Settings` that are tables of names."""
ANY = Option(name="", annotation=None, help="", default=None)


def merge(given: dict[str, Any]) -> dict[str, Any]:
    """What was typed, over what the file behind `config` says; a typed recipe replaces the file's algorithm."""
    if "config" not in given:
        return given
    typed = {name: value for name, value in given.items() if name != "config"}
    path = Path(given["config"])
    zoo = path.suffix in (".yml", ".yaml")
    found, own = _zoo(path, typed.get("ENV"), typed.get("recipe")) if zoo else (read(path), None)
    if "network" in typed:
        found = {name: value for name, value in found.items() if _options().get(name, ANY).group != "network"}
    if typed.get("recipe", own) != own:
        algorithm = {option.name for option in plan.recipe_options()}
        found = {name: value for name, value in found.items() if name not in algorithm}
    if "env" in found:
        found["ENV"] = found.pop("env")
    return found | typed


def read(path: Path) -> dict[str, Any]:
    """The settings in a TOML file. Raises UsageError naming the file, the key and the remedy."""
    known = _options()
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"{path} does not exist: vantage train ENV --save-config {path} writes one") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from error
    found = {}
    for key, value in content.items():
        name = key.replace("-", "_")
        if name not in known and name not in ABOUT:
            raise UsageError(f"{path}: there is no setting {key!r}: {nearest(name, [*known, *ABOUT])}")
        annotation = ABOUT.get(name) or known[name].annotation
        try:
            found[name] = value if name in TABLES and isinstance(value, dict) else _value(value, annotation)
        except (ValueError, TypeError) as error:
            raise UsageError(f"{path}: {key} = {value!r}: {error}") from error
    return found


def save(path: Path, chosen: plan.Plan) -> None:
    """Write every setting of a plan, so that `read` gives the same plan whatever is tuned for the environment then."""
    settings = chosen.settings
    parts = {"recipe": settings.recipe, "optimiser": settings.optim, "network": settings.network, "agent": settings}
    lines = [f"env = {_toml(chosen.env)}", f"steps = {chosen.total_steps}"]
    for title, part in parts.items():
        lines += ["", f"# {title}"]
        if isinstance(part, Separate):
            lines.append('optim = "separate"')
        if title == "network" and not _is_mlp(part):
            lines.append(f"network = {_toml(part)}")
            continue
        skip = ("recipe", "optim", "network", *TABLES) if part is settings else ()
        lines += [f"{f.name} = {_toml(getattr(part, f.name))}" for f in fields(part) if f.name not in skip]
    lines += [f"{name} = {_toml(getattr(settings, name))}" for name in TABLES if getattr(settings, name)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _is_mlp(network: Any) -> bool:
    from vantage.control import MLP

    return type(network) is MLP


def _options() -> dict[str, Option]:
    return {option.name: option for option in [*plan.recipe_options(), *plan.agent_options()]}


def _value(value: Any, annotation: Any) -> Any:
    """A TOML value under a type annotation; text is read as on the command line, a table is a record with its type."""
    if isinstance(value, dict):
        known, rest = choices(_open(annotation)), {name: x for name, x in value.items() if name != "type"}
        if value.get("type") not in known:
            raise ValueError(f"give type = one of {', '.join(known) or 'nothing: no table may stand here'}")
        kind = known[value["type"]]
        hints = get_type_hints(kind)
        strange = sorted(rest.keys() - {f.name for f in fields(kind)})
        if strange:
            raise ValueError(f"{value['type']} has no field {strange[0]!r}: {nearest(strange[0], hints)}")
        return kind(**{name: _value(x, hints[name]) for name, x in rest.items()})
    if isinstance(value, list):
        return convert(",".join(map(str, value)), annotation)
    if isinstance(value, float) and float in members(annotation):
        return value  # not through text, which need not be exact
    return convert(str(value).lower() if isinstance(value, bool) else str(value), annotation)


def _open(annotation: Any) -> Any:
    """An annotation with the kinds of network in the place of their protocol."""
    from vantage.control.networks import Network

    return plan.networks() if Network in members(annotation) else annotation


def _toml(value: Any) -> str:
    """A value as TOML: numbers and lists as they are, choices as on the command line, deeper ones as inline tables."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if is_dataclass(value) and not isinstance(value, Schedule | type):
        inner = {f.name: getattr(value, f.name) for f in fields(value)}
        if any(is_dataclass(x) or isinstance(x, tuple) for x in inner.values()):
            pairs = [f"type = {_toml(spelling(type(value)))}", *(f"{name} = {_toml(x)}" for name, x in inner.items())]
            return "{ " + ", ".join(pairs) + " }"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_toml(str(name))} = {_toml(x)}" for name, x in value.items()) + " }"
    text = value if isinstance(value, str) else write(value)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _zoo(path: Path, env: str | None, named: str | None) -> tuple[dict[str, Any], str]:
    """The entry for an environment in a YAML file of RL Baselines3 Zoo, whole, so that nothing tuned stands beside it;
    and its recipe. The file's name, or else the recipe that is named, says of which algorithm it is.
    """
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise UsageError(f"{path}: reading YAML needs its package: pip install 'vantage[zoo]'") from error
    from vantage.control import Settings
    from vantage.control.zoo import STANDARD, from_zoo

    if not path.is_file():
        raise UsageError(f"{path} does not exist")
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    known, game = ", ".join(map(str, entries)), str(env).startswith("ALE/") or str(env).endswith("NoFrameskip-v4")
    entry = "atari" if env not in entries and game else env
    if entry not in entries:
        raise UsageError(f"{path} has no entry for {env}: it has {known}" if env else f"{path} has {known}: name one")
    algorithm = next((name for name in (path.stem, named) if name in STANDARD), "ppo")
    tuned = from_zoo(entries[entry], algorithm=algorithm)
    whole = Settings(**tuned.settings)
    found = {"steps": tuned.total_steps, **{f.name: getattr(whole, f.name) for f in fields(whole)}}
    parts = [found.pop("recipe"), found.pop("optim")]
    if _is_mlp(whole.network):
        parts, found["network"] = [*parts, whole.network], None
    for part in parts:
        found |= {f.name: getattr(part, f.name) for f in fields(part)}
    return found, algorithm.removesuffix("_lstm")
