"""Known mistakes, most of them found in well-known libraries, to be planted one at a time: what they do to the claims
measures the claims.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from importlib import import_module
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Bug:
    """A mistake: what it does, who made it, the function it replaces, and what has to catch it."""

    name: str
    story: str
    seen_in: str
    target: str
    """`module:attribute`; callers read the attribute at each call, so replacing it reaches them all."""
    wrong: Callable[[Any], Any]
    """The right function ↦ the wrong one."""
    guards: tuple[str, ...]
    """Ids of claims that fail, or for mistakes in the training loop the name of a test in tests/planted."""

    @property
    def touches_claims(self) -> bool:
        """Whether `vantage verify` must see it; the others live in the training loop, where tests look."""
        return self.target.startswith(("vantage.theory", "vantage.recipe"))

    @contextmanager
    def planted(self) -> Iterator[None]:
        """While inside, the mistake is made everywhere in this process."""
        module, path = self.target.split(":")
        *owners, name = path.split(".")
        owner = reduce(getattr, owners, import_module(module))
        right = vars(owner)[name]
        setattr(owner, name, self.wrong(right))
        try:
            yield
        finally:
            setattr(owner, name, right)


BUGS: dict[str, Bug] = {}
"""Every known mistake by name."""


def bug(name: str, target: str, *guards: str, seen_in: str = "a common slip") -> Callable[[Callable], Callable]:
    """Register the decorated function, right ↦ wrong, as a mistake; its docstring is the story."""

    def register(wrong: Callable) -> Callable:
        story = " ".join((wrong.__doc__ or "").split())
        BUGS[name] = Bug(name=name, story=story, seen_in=seen_in, target=target, wrong=wrong, guards=guards)
        return wrong

    return register


# Importing the lists registers them.
from vantage.verify import mistakes as _mistakes  # noqa: E402, F401
from vantage.verify import mistakes_in_control as _mistakes_in_control  # noqa: E402, F401
from vantage.verify import mistakes_in_recurrent as _mistakes_in_recurrent  # noqa: E402, F401
from vantage.verify import mistakes_in_trust_region as _mistakes_in_trust_region  # noqa: E402, F401
