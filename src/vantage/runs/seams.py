"""Calls inside a world that a profile or a listener may take hold of for the length of a run."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

Seam = tuple[Any, str]
"""Where a call hangs: an object, and the attribute of it."""
_MISSING = object()


def seams(world: Any) -> dict[str, list[Seam]]:
    """A world's calls by part: "step" of the environments, "act", "score"; empty where it has no `seams()`."""
    return world.seams() if hasattr(world, "seams") else {}


@contextmanager
def wrapped(places: Iterable[Seam], wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """Put a wrapper around each of the calls, and take it away at the end."""
    old = [(owner, name, vars(owner).get(name, _MISSING), getattr(owner, name)) for owner, name in places]
    for owner, name, _, call in old:
        setattr(owner, name, wrap(call))
    try:
        yield
    finally:
        for owner, name, own, _ in reversed(old):
            if own is _MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, own)
