"""Talk with the model of an RLHF run, before and after training side by side."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vantage.cli import UsageError, live
from vantage.cli.options import Parser, of_fields
from vantage.runs.folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Chat:
    """The options of `vantage chat`."""

    prompt: str | None = None
    """Answer this one prompt and end; without it prompts are read from the terminal, one a line."""
    max_new_tokens: int | None = None
    """The longest answer, in tokens; by default as in training."""
    temperature: float | None = None
    """What logits are divided by; by default as in training."""
    top_p: float = 1.0
    """Only the fewest tokens that together have this probability."""
    greedy: bool = False
    """Always the most likely token."""
    seed: int = 0
    """Seed of the answers; the same numbers for both models."""


def main(argv: Sequence[str]) -> None:
    """`vantage chat RUN`."""
    from vantage.cli.rlhf import read_config
    from vantage.cli.rlhf_options import fail_unless_installed, quiet

    given = Parser("chat", of_fields(Chat, "answers"), {"RUN": "a run folder of vantage rlhf"}).read(argv)
    chosen = Chat(**{name: value for name, value in given.items() if name != "RUN"})
    if chosen.temperature == 0:
        raise UsageError("--temperature 0: for the most likely token always, give --greedy")
    fail_unless_installed()
    quiet()
    folder = RunFolder(Path(given["RUN"]))
    config = read_config(folder)
    if not (folder.path / "actor").is_dir():
        raise FileNotFoundError(f"{folder.path} has no model yet: go on with it by vantage rlhf --resume {folder.path}")
    out = live.console()
    models = {"before": config["actor"], "after": folder.path / "actor"}
    speakers = {name: Speaker(path, config, chosen) for name, path in models.items()}
    for number, prompt in enumerate(_prompts(chosen.prompt, out)):
        show({name: speaker(prompt, number) for name, speaker in speakers.items()}, out)


class Speaker:
    """A model that answers prompts."""

    def __init__(self, path: Any, config: dict[str, Any], chosen: Chat) -> None:
        from vantage.language import Sampling
        from vantage.language.generate import Limits
        from vantage.language.rlhf import stop_tokens, tokenizer_of
        from vantage.language.roles import causal_model
        from vantage.runs.config import from_json

        trained = from_json(config["settings"]).sampling
        self.model, self.tokenizer = causal_model(path), tokenizer_of(path)
        self.stop, self.chosen = stop_tokens(self.model, self.tokenizer), chosen
        self.limits = Limits(top_p=chosen.top_p)
        self.sampling = Sampling(
            max_new_tokens=trained.max_new_tokens if chosen.max_new_tokens is None else chosen.max_new_tokens,
            temperature=trained.temperature if chosen.temperature is None else chosen.temperature,
        )

    def __call__(self, prompt: str, number: int) -> str:
        """The answer to the prompt of this number."""
        import torch

        from vantage.language import data
        from vantage.language.generate import generate

        asked: Any = [{"role": "user", "content": prompt}] if self.tokenizer.chat_template else prompt
        ids = torch.tensor([data.prompt_ids(asked, self.tokenizer)])
        rng = torch.Generator().manual_seed(self.chosen.seed + number)
        noise = None if self.chosen.greedy else torch.rand(self.sampling.max_new_tokens, 1, generator=rng)
        says = generate(
            self.model, ids, torch.ones_like(ids, dtype=torch.bool), self.sampling, stop=self.stop,
            pad=data.pad_id(self.tokenizer), noise=noise, limits=self.limits,
        )  # fmt: skip
        return self.tokenizer.decode(says.ids[0][says.mask[0]], skip_special_tokens=True)


def show(answers: dict[str, str], out: Any) -> None:
    """The answers side by side."""
    from rich.table import Table
    from rich.text import Text

    table = Table(*answers, expand=True)
    table.add_row(*(Text(answer) for answer in answers.values()))
    out.print(table)


def _prompts(one: str | None, out: Any) -> Iterator[str]:
    if one is not None:
        yield one
        return
    if sys.stdin.isatty():
        live.say(out, "Write a prompt and press Enter; an empty line ends.", style="dim")
    for line in sys.stdin:
        if not line.strip():
            return
        yield line.rstrip("\n")
