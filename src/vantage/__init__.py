"""Vantage: policy optimisation that can be checked."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vantage.recipe import (
    A2C,
    GAE,
    PPO,
    REINFORCE,
    TRPO,
    ActorCritic,
    BatchMean,
    Clip,
    ClippedValue,
    Columns,
    Constant,
    GroupMean,
    ImportanceWeighted,
    Joint,
    KStep,
    LearnedBaseline,
    Likelihood,
    Linear,
    PaperTarget,
    Penalty,
    PPOPenalty,
    Proportional,
    Ratio,
    Recipe,
    ResidualTD,
    RewardToGo,
    Separate,
    Squared,
    StateMean,
    Steps,
    TDError,
    Thresholds,
    TotalReturn,
    Trajectories,
    TrustRegion,
)
from vantage.rollout import Rollout

if TYPE_CHECKING:
    from vantage.control.agent import Agent, load
    from vantage.explain import explain
    from vantage.lab import Lab

__version__ = "0.1.0"

_LAZY = {
    "Agent": "vantage.control.agent",
    "load": "vantage.control.agent",
    "Lab": "vantage.lab",
    "explain": "vantage.explain",
}
"""Names whose modules need JAX or matplotlib, imported when first asked for."""

_MODULES = ("callbacks", "control", "lab", "mdp", "theory", "verify")


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    if name in _MODULES:
        return import_module(f"vantage.{name}")
    raise AttributeError(f"module 'vantage' has no attribute {name!r}")


__all__ = [
    "A2C",
    "GAE",
    "PPO",
    "REINFORCE",
    "TRPO",
    "ActorCritic",
    "Agent",
    "BatchMean",
    "Clip",
    "ClippedValue",
    "Columns",
    "Constant",
    "GroupMean",
    "ImportanceWeighted",
    "Joint",
    "KStep",
    "Lab",
    "LearnedBaseline",
    "Likelihood",
    "Linear",
    "PPOPenalty",
    "PaperTarget",
    "Penalty",
    "Proportional",
    "Ratio",
    "Recipe",
    "ResidualTD",
    "RewardToGo",
    "Rollout",
    "Separate",
    "Squared",
    "StateMean",
    "Steps",
    "TDError",
    "Thresholds",
    "TotalReturn",
    "Trajectories",
    "TrustRegion",
    "explain",
    "load",
]
