"""The streams of the language world: what sampling reads, and in which order completions are learned from."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from vantage.streams import Stream, generator

__all__ = ["Stream", "generator", "noise", "orders"]


def noise(
    settings: Any, update: int, columns: int, stream: Stream = Stream.NOISE
) -> Float[torch.Tensor, "R {columns}"]:
    """Uniform numbers in [0, 1), one a token: what sampling depends on besides the actor."""
    rng = generator(settings.seed, stream, update)
    return torch.from_numpy(rng.random((settings.sampling.max_new_tokens, columns), dtype=np.float32))


def orders(seed: int, update: int, epochs: int, columns: int, parts: int) -> Int[np.ndarray, "E B"]:
    """In which order each epoch takes the columns; as they stand where there is but one minibatch."""
    rng = generator(seed, Stream.MINIBATCHES, update)
    return np.stack([rng.permutation(columns) if parts > 1 else np.arange(columns) for _ in range(epochs)])
