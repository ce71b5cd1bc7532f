"""From what was typed to complete settings: tuned values for the environment, overridden by what was given."""

import re
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from inspect import Parameter, signature
from typing import Any, Union, get_args, get_type_hints

from vantage.cli import UsageError
from vantage.cli.options import Option, lands, of_fields
from vantage.explain.choices import convert, field_docs, spelling, summary
from vantage.recipe import PPO, RECIPES, Joint, Optim, Recipe, Schedule, Separate

DEFAULT_STEPS = 100_000


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One training run, wholly determined."""

    env: str
    settings: Any
    total_steps: int
    given: frozenset[str]
    """What was typed; the rest is tuned for the environment, or a default."""


@cache
def preset_options() -> dict[str, tuple[Option, list[str]]]:
    """The keywords of the named recipes that are no fields of `Recipe`, each with the path of fields it sets."""
    found: dict[str, tuple[Option, list[str]]] = {}
    own = {f.name for f in fields(Recipe)}
    for build in sorted(RECIPES.values(), key=lambda build: build is not PPO):
        hints = get_type_hints(build)
        for parameter in signature(build).parameters.values():
            if parameter.kind is Parameter.KEYWORD_ONLY and parameter.name not in own | found.keys():
                path = lands(build, parameter.name)
                if not path:
                    continue
                owner = _at(build(), path[:-1])
                option = Option(
                    name=parameter.name,
                    annotation=hints[parameter.name],
                    help=field_docs(type(owner)).get(path[-1]) or summary(type(owner)),
                    default=parameter.default,
                    group="recipe",
                )
                found[parameter.name] = option, path
    return found


def recipe_options() -> list[Option]:
    """Everything that can be set about a recipe; what only some recipes have comes last, that of PPO first."""
    return [*of_fields(Recipe, "recipe"), *(option for option, _ in preset_options().values())]


@cache
def agent_options() -> list[Option]:
    """Everything that can be set about optimiser, network and agent."""
    from vantage.control import MLP, Settings

    joint, separate = of_fields(Joint, "optimiser"), of_fields(Separate, "optimiser")
    known = {option.name for option in joint}
    choice = Option(name="optim", annotation=Optim, help=_options(Joint, Separate), default=Joint(), group="optimiser")
    return [
        choice,
        *joint,
        *(option for option in separate if option.name not in known),
        Option(
            name="network", annotation=networks() | None, default=None, group="network",
            help=_options(*get_args(networks())),
        ),
        *of_fields(MLP, "network"),
        *of_fields(Settings, "agent", skip=("recipe", "optim", "network", "env_kwargs", "wrappers")),
        Option(
            name="env_kwargs", annotation=str, default=None, group="agent",
            help="Arguments for the environment, separated by commas: continuous=true,gravity=-9.8.",
        ),
        Option(
            name="wrappers", annotation=str, default=None, group="agent",
            help="Gymnasium's wrappers, innermost first: FlattenObservation,RepeatAction:num_repeats=2/….",
        ),
    ]  # fmt: skip


@cache
def networks() -> Any:
    """The kinds of network that a file may name, as one union; MLP comes first."""
    from vantage.control import MLP
    from vantage.runs.config import KNOWN

    kinds = [kind for kind in KNOWN.values() if kind is not MLP and callable(getattr(kind, "build", None))]
    return Union[(MLP, *(kind for kind in kinds if kind.__module__.startswith("vantage.")))]


def _options(*kinds: type) -> str:
    return " ".join(f"{spelling(kind)}: {summary(kind)}" for kind in kinds)


def make(env: str, given: dict[str, Any]) -> Plan:
    """The plan for an environment. Raises UsageError for a setting that what was chosen does not have."""
    from vantage.control import Settings
    from vantage.control.defaults import TUNED

    tuned = TUNED.get(env)
    known = dict(tuned.settings) if tuned else {}
    recipe = make_recipe(given, known.pop("recipe", None))
    optim = make_optim(given, known.pop("optim", Joint()))
    agent = {f.name: given[f.name] for f in fields(Settings) if f.name in given and f.name != "recipe"} | {
        "optim": optim
    }
    agent["network"] = make_network(given, known.pop("network", None))
    agent |= {"env_kwargs": arguments(given["env_kwargs"])} if "env_kwargs" in given else {}
    agent |= {"wrappers": wrappers(given["wrappers"])} if "wrappers" in given else {}
    return Plan(
        env=env,
        settings=Settings(recipe=recipe, **{**known, **agent}),
        total_steps=given.get("steps") or (tuned.total_steps if tuned else DEFAULT_STEPS),
        given=frozenset(given),
    )


def make_network(given: dict[str, Any], tuned: Any) -> Any:
    """The network that was chosen, with every given field of `MLP` set; None: what is standard for the environment."""
    from vantage.control import MLP

    base, own = given.get("network", tuned), {f.name for f in fields(MLP)} & given.keys()
    if not own:
        return base
    if base is not None and type(base) is not MLP:
        option = next(option for option in agent_options() if option.name in own)
        raise UsageError(
            f"{option.flag} is a setting of --network mlp: write {spelling(type(base))}'s own behind a colon, "
            f"--network {spelling(type(base))}:{fields(base)[0].name}=…"
        )
    return replace(base or MLP(), **{name: given[name] for name in own})


def arguments(text: str | dict[str, Any]) -> dict[str, Any]:
    """`continuous=true,gravity=-9.8` as a dict of numbers, truth values and words. Raises UsageError without a `=`."""
    if isinstance(text, dict):
        return text
    found: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        if not equals:
            raise UsageError(f"--env-kwargs {part}: write name=value")
        found[name.strip()] = convert(value, int | float | bool | None | str)
    return found


def wrappers(text: str | dict[str, Any]) -> dict[str, dict[str, Any]]:
    """`FlattenObservation,RepeatAction:num_repeats=2` as names with their arguments, several of them behind slashes."""
    if isinstance(text, dict):
        return {name: {key: tuple(x) if isinstance(x, list) else x for key, x in y.items()} for name, y in text.items()}
    pairs = (part.partition(":") for part in filter(None, text.split(",")))
    return {name.strip(): arguments(rest.replace("/", ",")) for name, _, rest in pairs}


def make_recipe(given: dict[str, Any], tuned: Recipe | None = None) -> Recipe:
    """The recipe: the named one, or the tuned one if it is of that kind, with every given field set."""
    name = given.get("recipe")
    build: Callable[..., Recipe] = RECIPES[name or "ppo"]
    chosen = {f.name: given[f.name] for f in fields(Recipe) if f.name in given}
    objective = chosen.pop("objective", None)
    if tuned is not None and (name is None or type(build().objective) is type(tuned.objective)):
        recipe = replace(tuned, **chosen, **({} if objective is None else {"objective": objective}))
    else:
        recipe = build(**chosen)
        recipe = recipe if objective is None else replace(recipe, objective=objective)
    for keyword, (option, path) in preset_options().items():
        if keyword in given:
            recipe = _set(recipe, path, given[keyword], option)
    return recipe


def make_optim(given: dict[str, Any], base: Any) -> Any:
    """The optimiser: `Joint`, or `Separate` where it or one of its own fields was given."""
    only = {f.name for f in fields(Separate)} - {f.name for f in fields(Joint)}
    if "optim" in given:
        base = given["optim"]
    elif only & given.keys() and isinstance(base, Joint):
        base = Separate(max_grad_norm=base.max_grad_norm, eps=base.eps)
    for option in agent_options():
        if option.group == "optimiser" and option.name in given and option.name != "optim":
            base = _set(base, [option.name], given[option.name], option)
    return base


def _at(record: Any, path: list[str]) -> Any:
    for name in path:
        record = getattr(record, name)
    return record


def _set(record: Any, path: list[str], value: Any, option: Option) -> Any:
    """The record with the field at the end of the path replaced; UsageError if what stands there has no such field."""
    head, *rest = path
    if head not in getattr(record, "__dataclass_fields__", {}):
        raise UsageError(f"{option.flag} sets {head!r}, which {type(record).__name__} does not have: {_remedy(option)}")
    return replace(record, **{head: _set(getattr(record, head), rest, value, option) if rest else value})


def _remedy(option: Option) -> str:
    if preset_options().get(option.name, (option, [""]))[1][0] == "psi":
        return "leave it out, or choose --psi gae"
    for name, build in RECIPES.items():
        if option.name in signature(build).parameters:
            return f"leave it out, or choose a recipe that has it, such as --recipe {name}"
    return "leave it out, or choose the other --optim"


def in_flags(message: str) -> str:
    """An error about a field, `Clip.low = -1.0: …`, as one about the option that sets it, `--clip-range -1.0: …`."""
    found = re.match(r"(\w+)\.(\w+) = (.+?): (.+)", message, re.DOTALL)
    if found is None:
        return message
    kind, name, value, rest = found.groups()
    for option, path in preset_options().values():
        owners = [_at(build(), path[:-1]) for build in RECIPES.values() if lands(build, option.name) == path]
        if path[-1] == name and kind in {type(owner).__name__ for owner in owners}:
            return f"{option.flag} {value}: {rest}"
    own = {"Recipe": "recipe", "Joint": "optimiser", "Separate": "optimiser", "MLP": "network", "Settings": "agent"}
    for option in (*recipe_options(), *agent_options()):
        if option.name == name and option.group == own.get(kind):
            return f"{option.flag} {value}: {rest}"
    return message


def rows(plan: Plan) -> list[tuple[str, str, str]]:
    """Every setting as (name, value, where from), in the order of the fields; defaults come from nowhere."""
    settings, standard = plan.settings, dict(_flat(type(plan.settings)()))
    touched = {path[0] for name, (_, path) in preset_options().items() if name in plan.given}
    shape = {option.name for option in agent_options() if option.group == "network"}
    touched |= {"network"} if shape & plan.given else set()
    return [
        (
            name,
            show(value),
            "you" if name in plan.given | touched else "tuned" if value != standard.get(name, value) else "",
        )
        for name, value in _flat(settings)
    ]


def _flat(settings: Any) -> list[tuple[str, Any]]:
    parts = [(settings.recipe, ()), (settings.optim, ()), (settings, ("recipe", "optim"))]
    return [(f.name, getattr(part, f.name)) for part, skip in parts for f in fields(part) if f.name not in skip]


def show(value: Any) -> str:
    """A value for people: Clip(low 0.2 → 0)."""
    if isinstance(value, Schedule):
        return f"{value.start:g} → {value.end:g}"
    if is_dataclass(value) and not isinstance(value, type):
        known = {f.name: getattr(value, f.name) for f in fields(value)}
        inner = ", ".join(f"{name} {show(x)}" for name, x in known.items() if x is not None)
        return type(value).__name__ + (f"({inner})" if inner else "")
    if isinstance(value, tuple):
        return " × ".join(map(show, value))
    if value is None or value == {}:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
