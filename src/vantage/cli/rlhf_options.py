"""From what was typed after `vantage rlhf` to settings and rewards; what a dry run shows."""

import importlib
import importlib.util
import re
from collections.abc import Callable
from dataclasses import fields, replace
from functools import cache, reduce
from importlib.util import find_spec
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, get_type_hints

from vantage.cli import UsageError, live
from vantage.cli.options import Option, fail_unless_known, lands, of_fields
from vantage.explain.choices import field_docs, summary
from vantage.recipe import LANGUAGE_RECIPES, KLInLoss, KLInReward, Proportional, Recipe, Separate

KL_TARGET = Option(
    name="kl_target", annotation=float | None, default=None, group="KL to the reference",
    help="Steer β so that the KL, in nats per completion, stays near this.",
)  # fmt: skip
KL_HORIZON = Option(
    name="kl_horizon", annotation=float, default=Proportional().horizon, group="KL to the reference",
    help="Completions over which β then moves by at most 20 %.",
)  # fmt: skip

ELSEWHERE = {
    "--learning-rate": "--actor-lr and --critic-lr", "--lr": "--actor-lr and --critic-lr",
    "--kl-coef": "--kl kl-in-reward:beta=0.05", "--init-kl-coef": "--kl kl-in-reward:beta=0.05",
    "--total-episodes": "--episodes", "--steps": "--episodes", "--algo": "--recipe", "--output-dir": "--out",
    "--num-ppo-epochs": "--n-epochs", "--num-mini-batches": "--n-minibatches", "--response-length": "--max-new-tokens",
    "--max-completion-length": "--max-new-tokens", "--num-generations": "--group-size", "--cliprange": "--clip-range",
    "--lam": "--gae-lambda", "--model-name-or-path": "--actor", "--sft-model-path": "--actor",
    "--reward-model-path": "--reward", "--value-model": "--critic-model", "--dataset-name": "--prompts",
    "--resume-from-checkpoint": "--resume", "--missing-eos-penalty": "--missing-eos subtract:amount=1",
    "--per-device-train-batch-size": "--batch-size and --micro-batch", "--use-peft": "--lora",
    "--use-vllm": "--generator vllm",
}  # fmt: skip
"""What options of TRL are called here."""


def fail_unless_installed() -> None:
    """Raise ModuleNotFoundError, saying what to install, without the packages of the language world."""
    for needed in ("torch", "transformers", "datasets"):
        if find_spec(needed) is None:
            raise ModuleNotFoundError(f"vantage rlhf needs {needed}: pip install 'vantage[language]'", name=needed)


def quiet() -> None:
    """Without Transformers' bars for each model that is read or written."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def is_first() -> bool:
    """Whether this process speaks and writes: alone, or the first of those that a launcher started."""
    from vantage.language import parallel

    return parallel.is_first()


@cache
def recipe_options() -> list[Option]:
    """What can be set about a recipe: the fields of `Recipe`, and what only some presets have."""
    own = of_fields(Recipe, "recipe", skip=("objective",))
    known = {option.name for option in own}
    found: dict[str, Option] = {}
    for build in LANGUAGE_RECIPES.values():
        hints = get_type_hints(build)
        for parameter in signature(build).parameters.values():
            if parameter.kind is not Parameter.KEYWORD_ONLY or parameter.name in known | found.keys():
                continue
            found[parameter.name] = Option(
                name=parameter.name, annotation=hints[parameter.name], default=parameter.default, group="recipe",
                help=_help(build, parameter.name),
            )  # fmt: skip
    return [*own, *found.values()]


def _help(build: Callable[..., Recipe], name: str) -> str:
    """The docstring of the field that a preset's keyword sets."""
    owner: Any = build()
    path = lands(build, name) or ["psi", "scale"]
    for part in path[:-1]:
        owner = getattr(owner, part)
    return field_docs(type(owner)).get(path[-1]) or summary(type(owner))


@cache
def options() -> list[Option]:
    """Everything that can be set about an RLHF run besides the run itself."""
    fail_unless_installed()
    from vantage.language import Sampling, Settings, Shaping
    from vantage.language.settings import OPTIM

    parts = ("recipe", "optim", "sampling", "shaping", "correction")
    return [
        *_as_in(Settings().recipe, recipe_options()),
        *of_fields(Settings, "settings", skip=parts),
        KL_TARGET,
        KL_HORIZON,
        *of_fields(Sampling, "completions"),
        *of_fields(Shaping, "scores"),
        *_as_in(OPTIM, of_fields(Separate, "optimiser")),
    ]


def _as_in(chosen: Any, options: list[Option]) -> list[Option]:
    """The options, with the defaults that hold for language models."""
    return [replace(option, default=getattr(chosen, option.name, option.default)) for option in options]


def settings(given: dict[str, Any]) -> Any:
    """The settings that were asked for. Raises UsageError for an option that what was chosen does not have."""
    from vantage.language import Sampling, Settings, Shaping
    from vantage.language.settings import OPTIM

    optim = {f.name: given.get(f.name, getattr(OPTIM, f.name)) for f in fields(Separate)}
    return Settings(
        recipe=_recipe(given),
        kl=_kl(given),
        optim=Separate(**optim),
        sampling=Sampling(**_of(Sampling, given)),
        shaping=Shaping(**_of(Shaping, given)),
        **{name: x for name, x in _of(Settings, given).items() if name not in ("recipe", "kl")},
    )


@cache
def flags() -> dict[str, str]:
    """The option that sets a field, by `Class.field`."""
    from vantage.language import Sampling, Settings, Shaping

    found = {"Proportional.target": KL_TARGET.flag, "Proportional.horizon": KL_HORIZON.flag}
    for build in LANGUAGE_RECIPES.values():
        for option in recipe_options():
            *way, last = lands(build, option.name) or [""]
            found.setdefault(f"{type(reduce(getattr, way, build())).__name__}.{last}", option.flag)
    own = {option.name: option.flag for option in options()}
    for kind in (Recipe, Settings, Sampling, Shaping, Separate):
        found |= {f"{kind.__name__}.{f.name}": own[f.name] for f in fields(kind) if f.name in own}
    return found


def in_flags(message: str) -> str:
    """An error about a field, `Sampling.temperature = 0.0: …`, as one about its option, `--temperature 0.0: …`."""
    found = re.match(r"(\w+\.\w+) = (.+?): (.+)", message, re.DOTALL)
    flag = None if found is None else flags().get(found[1])
    return message if found is None or flag is None else f"{flag} {found[2]}: {found[3]}"


def _of(kind: Any, given: dict[str, Any]) -> dict[str, Any]:
    return {f.name: given[f.name] for f in fields(kind) if f.name in given}


def _recipe(given: dict[str, Any]) -> Recipe:
    name = given.get("recipe", "ppo")
    if name == "trpo":
        raise UsageError(
            "--recipe trpo: each of its conjugate-gradient steps would be a pass over the whole batch with second "
            "derivatives; choose ppo or ppo-penalty"
        )
    fail_unless_known("recipe", name, LANGUAGE_RECIPES)
    return make_recipe(name, {option.name: given[option.name] for option in recipe_options() if option.name in given})


def make_recipe(name: str, chosen: dict[str, Any]) -> Recipe:
    """The named recipe for language models with these options. Raises UsageError for one that it does not have."""
    try:
        return LANGUAGE_RECIPES[name](**chosen)
    except TypeError as error:
        raise UsageError(str(error)) from error


def _kl(given: dict[str, Any]) -> Any:
    from dataclasses import replace

    kl = given.get("kl", KLInReward())
    if "kl_target" not in given:
        if "kl_horizon" in given:
            raise UsageError(f"--kl-horizon {given['kl_horizon']:g} is how slowly β follows --kl-target: give that too")
        return kl
    if not isinstance(kl, KLInReward | KLInLoss):
        raise UsageError("--kl-target steers the price of the KL: choose --kl kl-in-reward or kl-in-loss")
    rule = Proportional(target=given["kl_target"], horizon=given.get("kl_horizon", KL_HORIZON.default))
    return replace(kl, controller=rule)


def reward(text: str) -> Any:
    """What `--reward` names: models and functions by commas, each with =weight where it is not 1."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    pairs = [_weighted(part) for part in parts]
    return pairs[0][0] if len(pairs) == 1 and pairs[0][1] == 1.0 else pairs


def _weighted(part: str) -> tuple[Any, float]:
    name, equals, weight = part.rpartition("=")
    if not equals:
        return _source(part), 1.0
    try:
        return _source(name), float(weight)
    except ValueError:
        raise UsageError(f"--reward {part}: {weight!r} is no weight; write SOURCE=0.5") from None


def _source(name: str) -> Any:
    """A function of a file or module, or the name of a model as it is."""
    place, _, function = name.rpartition(":")
    if not re.fullmatch(r"[A-Za-z_]\w*", function) or not place:
        return name
    if place.endswith(".py"):
        path = Path(place)
        spec = importlib.util.spec_from_file_location(path.stem, path) if path.is_file() else None
        if spec is None or spec.loader is None:
            raise UsageError(f"--reward {name}: there is no file {place}")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    else:
        try:
            module = importlib.import_module(place)
        except ModuleNotFoundError as error:
            raise UsageError(f"--reward {name}: {error}; write file.py:function") from error
    if not callable(getattr(module, function, None)):
        raise UsageError(f"--reward {name}: {place} has no function {function!r}")
    return getattr(module, function)


def dry_run(rlhf: Any, prompts: Any, config: dict[str, Any], out: Any) -> dict[str, Any]:
    """Show the first prompts as the model will see them, and the memory a run needs; check the reward's columns."""
    from vantage.language.records import pad_left

    rlhf.reward.check(list(prompts.columns))
    first = prompts.take(range(min(3, len(prompts))))
    ids, mask = pad_left(first.ids, 0)
    live.say(out, "The first prompts as the model sees them; · is padding, which the mask hides:")
    for row, real in zip(ids.tolist(), mask.tolist(), strict=True):
        tokens = rlhf.tokenizer.convert_ids_to_tokens(row)
        cells = [f"{token} ({number})" if seen else "·" for token, number, seen in zip(tokens, row, real, strict=True)]
        live.say(out, "  " + " ".join(cells))
    needed = memory(rlhf, max(map(len, prompts.ids)))
    out.print()
    live.say(out, "Memory, at least: " + ", ".join(f"{name} {_size(n)}" for name, n in needed.items()))
    live.say(out, "Nothing was trained: --dry-run.", style="dim")
    return {**config, "memory_bytes": needed, "first_prompts": [list(row) for row in first.ids]}


def memory(rlhf: Any, prompt_tokens: int) -> dict[str, int]:
    """Bytes of each role, of gradients and optimiser, and of one micro-batch's logits, forward and backward."""
    roles, chosen = rlhf.roles, rlhf.settings
    trained = [p for _, p in (*roles.actor_parameters, *roles.critic_parameters)]
    vocabulary = rlhf.actor.get_input_embeddings().weight.shape[0]
    tokens = prompt_tokens + chosen.sampling.max_new_tokens
    found = {
        "actor": _weight(rlhf.actor.parameters()),
        "critic": 0 if roles.critic is None else _weight(roles.critic.parameters()),
        "reference": 0 if roles.frozen is None else _weight(roles.frozen.parameters()),
        "reward": 0 if rlhf.reward.model is None else _weight(rlhf.reward.model.parameters()),
        "gradients": _weight(trained),
        "optimiser": 2 * _weight(trained),
        "logits": 3 * 4 * chosen.micro_batch * tokens * vocabulary,
    }
    return found | {"in all": sum(found.values())}


def _weight(parameters: Any) -> int:
    return sum(p.numel() * p.element_size() for p in parameters)


def _size(n: int) -> str:
    return f"{n / 2**30:.1f} GiB" if n >= 2**30 else f"{n / 2**20:.1f} MiB"
