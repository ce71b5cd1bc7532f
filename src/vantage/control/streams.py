"""The streams of the control world: those of every world, and seeds for environments."""

from vantage.streams import Stream, generator

__all__ = ["Stream", "generator", "reset_seed"]


def reset_seed(seed: int, update: int, stream: Stream = Stream.RESET) -> int:
    """A seed for environments; slot b adds b to it."""
    return int(generator(seed, stream, update).integers(2**31 - 2**16))
