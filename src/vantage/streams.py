"""All randomness of a run: counter-based streams that depend on (seed, purpose, update) and on nothing that happened
before.
"""

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What a stream is for; the numbers are part of every result, so they never change."""

    INIT = 0
    NOISE = 1
    MINIBATCHES = 2
    RESET = 3
    ACT = 4
    EVALUATE = 5


def generator(seed: int, stream: Stream, update: int = 0) -> np.random.Generator:
    """The generator of one purpose at one update: Philox with key (seed) and the rest in the high words of its
    counter.
    """
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, int(stream), update]))
