"""The mathematics, each formula once, for NumPy, JAX and PyTorch arrays alike."""

from vantage.theory import (
    critics,
    distributions,
    divergences,
    importance,
    kl_control,
    objectives,
    psi,
    reduce,
    returns,
    scan,
    signal,
)
from vantage.theory.loss import Batch, Outputs, Terms, loss

__all__ = [
    "Batch",
    "Outputs",
    "Terms",
    "critics",
    "distributions",
    "divergences",
    "importance",
    "kl_control",
    "loss",
    "objectives",
    "psi",
    "reduce",
    "returns",
    "scan",
    "signal",
]
