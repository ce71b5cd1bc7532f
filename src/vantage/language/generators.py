"""Who completes prompts: the actor itself, a vLLM engine that follows it, either of them with a tool that replies."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float

from vantage.language import sharding
from vantage.language.generate import generate
from vantage.language.parallel import Processes
from vantage.language.records import Completions, Prompts, pad_left
from vantage.language.settings import Settings
from vantage.language.update import Pass
from vantage.recipe.schedule import swap

Tensor = torch.Tensor


@runtime_checkable
class Generator(Protocol):
    """Completes prompts as the actor would."""

    def ready(self) -> AbstractContextManager[None]:
        """Within it prompts can be completed, any number of times; all processes enter and leave it together."""
        ...

    def complete(
        self, prompts: Prompts, noise: Float[Tensor, "R B"] | None = None, copies: int = 1
    ) -> Completions:  # fmt: skip
        """`copies` completions of each prompt, side by side, of at most R tokens; randomness is `noise` alone, and
        without it the likeliest token is taken.
        """
        ...

    def moved(self) -> None:
        """The actor's parameters are others than before."""
        ...


@dataclass(frozen=True, kw_only=True)
class Local:
    """The actor itself, in this process."""

    actor: Any
    settings: Settings
    stop: tuple[int, ...]
    pad: int
    how: Pass

    @contextmanager
    def ready(self) -> Iterator[None]:
        """The whole actor in every process."""
        with self.how.precision(), sharding.gathered(self.actor):
            yield

    def complete(
        self, prompts: Prompts, noise: Float[Tensor, "R B"] | None = None, copies: int = 1
    ) -> Completions:  # fmt: skip
        """What the actor writes, by the decode loop of `generate`."""
        sampling = self.settings.sampling
        sampling = sampling if noise is None else swap(sampling, max_new_tokens=len(noise))
        ids, mask = (x.to(self.how.device) for x in pad_left(prompts.ids, self.pad))
        return generate(
            self.actor, ids, mask, sampling, stop=self.stop, pad=self.pad, noise=noise, copies=copies
        )  # fmt: skip

    def moved(self) -> None:
        """Nothing to do: it is the actor."""


def build(
    settings: Settings, actor: Any, stop: tuple[int, ...], pad: int, how: Pass, processes: Processes,
    reply: Callable[..., Any] | None = None, tokenizer: Any = None,
) -> Generator:  # fmt: skip
    """The generator of a run. Raises ConnectionError, or ModuleNotFoundError, where an engine cannot be reached."""
    made: Generator
    if settings.generator is None:
        made = Local(actor=actor, settings=settings, stop=stop, pad=pad, how=how)
    else:
        from vantage.language.vllm import Following

        made = Following(settings.generator, settings.sampling, actor, stop, pad, processes)
    if reply is None:
        return made
    from vantage.language.turns import Turns

    return Turns(made, reply, tokenizer, settings.sampling.max_new_tokens, pad)
