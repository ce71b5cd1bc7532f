"""Options of a command, generated from fields: name, type and help of each are the field's own."""

import argparse
import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, NoReturn, get_type_hints

from vantage.cli import UsageError, summary
from vantage.explain.choices import convert, expected, field_docs, members, nearest, write


@dataclass(frozen=True, kw_only=True)
class Option:
    """One `--name` of a command."""

    name: str
    annotation: Any
    help: str
    default: Any = MISSING
    group: str = "options"

    @property
    def flag(self) -> str:
        """As typed: --clip-range."""
        return "--" + self.name.replace("_", "-")

    @property
    def is_switch(self) -> bool:
        """Whether the option alone means true."""
        return bool in members(self.annotation)


def of_fields(cls: type, group: str, *, skip: Iterable[str] = ()) -> list[Option]:
    """An option for each field of a dataclass, its help the docstring below the field."""
    hints, docs = get_type_hints(cls), field_docs(cls)
    return [
        Option(
            name=f.name,
            annotation=hints[f.name],
            help=docs.get(f.name, ""),
            default=f.default if f.default_factory is MISSING else MISSING,
            group=group,
        )
        for f in fields(cls)
        if f.name not in set(skip)
    ]


ELSEWHERE = {
    "--learning-rate": "--lr", "--total-timesteps": "--steps", "--n-timesteps": "--steps", "--num-envs": "--n-envs",
    "--num-steps": "--n-steps", "--update-epochs": "--n-epochs", "--num-minibatches": "--n-minibatches",
    "--batch-size": "--n-minibatches, n_envs · n_steps divided by the batch size", "--clip-coef": "--clip-range",
    "--anneal-lr": "--lr lin_3e-4", "--algo": "--recipe", "--env": "the environment without an option",
    "--env-id": "the environment without an option", "--conf-file": "--config",
    "--track": "--wandb PROJECT", "--eval-freq": "--eval-every", "--save-freq": "--keep-every",
    "--vec-env": "--backend", "--capture-video": "--video-every", "--policy": "--network",
    "--normalize-advantage": "--whiten", "--norm-adv": "--whiten", "--n-trials": "--trials", "--n-jobs": "--jobs",
    "--optimize-hyperparameters": "vantage tune", "--trained-agent": "--init, or --resume",
    "--device": "JAX's own choice, JAX_PLATFORMS=cpu", "--progress": "nothing: progress is shown",
}  # fmt: skip
"""What options of Stable-Baselines3, its zoo and CleanRL are called here."""


class Parser(argparse.ArgumentParser):
    """Parses what the options say into a dict of what was given; every error is one sentence with a remedy."""

    def __init__(
        self, command: str, options: Sequence[Option], positional: dict[str, str] | None = None,
        elsewhere: dict[str, str] = ELSEWHERE,
    ) -> None:  # fmt: skip
        super().__init__(
            prog=f"vantage {command}", description=summary(command) + ".", allow_abbrev=False,
            formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=34, width=_width()),
            usage=f"vantage {command} " + "".join(f"{name.strip('?*+')} " for name in positional or {}) + "[OPTIONS]",
        )  # fmt: skip
        self._options, self._elsewhere = {option.name: option for option in options}, elsewhere
        for name, text in (positional or {}).items():
            self.add_argument(
                name.strip("?*+"),
                help=text,
                nargs=name[-1] if name[-1] in "?*+" else None,
                default=argparse.SUPPRESS,
            )
        groups: dict[str, Any] = {}
        for option in options:
            group = groups.setdefault(option.group, self.add_argument_group(option.group))
            group.add_argument(
                option.flag, dest=option.name, default=argparse.SUPPRESS, help=_help(option),
                metavar=_metavar(option),
                **({"nargs": "?", "const": "true"} if option.is_switch else {}),
            )  # fmt: skip

    def read(self, argv: Sequence[str]) -> dict[str, Any]:
        """What was given, by name, converted to the fields' types."""
        found, extra = self.parse_known_intermixed_args(list(argv))
        if extra:
            self.error(self._unknown(extra[0]))
        return {name: self._value(name, text) for name, text in vars(found).items()}

    def error(self, message: str) -> NoReturn:
        """argparse's own errors, as ours."""
        raise UsageError(
            message.replace("the following arguments are required:", "missing") + f"; see {self.prog} --help"
        )

    def _unknown(self, word: str) -> str:
        if not word.startswith("-"):
            return f"{word!r} is one argument too many"
        flag = word.split("=")[0].replace("_", "-")
        if flag in self._elsewhere:
            return f"there is no option {flag}: here it is {self._elsewhere[flag]}"
        return f"there is no option {flag}: {_nearest_flag(flag, [o.flag for o in self._options.values()])}"

    def _value(self, name: str, text: Any) -> Any:
        option = self._options.get(name)
        if option is None or not isinstance(text, str):
            return text
        try:
            return convert(text, option.annotation)
        except ValueError as error:
            raise UsageError(f"{option.flag} {text}: {error}") from error


def _nearest_flag(flag: str, known: list[str]) -> str:
    close = difflib.get_close_matches(flag, known, n=1)
    return f"did you mean {close[0]}?" if close else "the options are listed"


def _metavar(option: Option) -> str:
    words = ["true", "false"] if option.is_switch else expected(option.annotation).split(" | ")
    return " | ".join(word for word in words if word != "none" or option.default is not None)


def _help(option: Option) -> str:
    shown = "" if option.default is MISSING or option.default is None else f" [{write(option.default)}]"
    return (option.help + shown).replace("%", "%%")


def _width() -> int:
    import shutil

    return min(110, shutil.get_terminal_size((100, 24)).columns)


def lands(build: Callable[..., Any], name: str) -> list[str]:
    """The path of fields at which a preset's keyword ends up: `clip_range` of PPO is objective.low; [] if unknown."""
    from vantage.recipe import PaperTarget

    for probe in (0.123, 1.123, 123, PaperTarget(target=0.123)):
        try:
            found = _find(build(**{name: probe}), probe)
        except (ValueError, TypeError, AttributeError):
            continue
        if found:
            return found
    return []


def _find(record: Any, value: Any) -> list[str] | None:
    for field_name in getattr(record, "__dataclass_fields__", {}):
        inner = getattr(record, field_name)
        if inner == value and type(inner) is type(value):
            return [field_name]
        deeper = _find(inner, value)
        if deeper:
            return [field_name, *deeper]
    return None


def fail_unless_known(kind: str, word: str, known: Iterable[str]) -> None:
    """Raise UsageError with the nearest known word."""
    known = list(known)
    if word not in known:
        raise UsageError(f"there is no {kind} {word!r}: {nearest(word, known)}")
