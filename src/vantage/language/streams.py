"""All randomness of a run: functions of (seed, purpose, update) and of nothing that happened before."""

from enum import IntEnum
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int


class Stream(IntEnum):
    """What a stream is for; the numbers are part of every result, so they never change."""

    NOISE = 1
    MINIBATCHES = 2
    EVALUATE = 5


def generator(seed: int, stream: Stream, update: int = 0) -> np.random.Generator:
    """The generator of one purpose at one update: Philox with the rest in the high words of its counter."""
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, int(stream), update]))


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
