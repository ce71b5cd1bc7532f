"""Vantage: policy optimisation that can be checked."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vantage.control.agent import Agent, load
    from vantage.explain import diff, explain
    from vantage.lab import Lab
    from vantage.language import RLHF
    from vantage.recipe import (
        A2C,
        GAE,
        GRPO,
        PPO,
        REINFORCE,
        RLOO,
        TRPO,
        ActionValue,
        ActorCritic,
        Advantage,
        Banded,
        BatchMean,
        Clip,
        ClippedValue,
        Columns,
        Constant,
        ConstantLength,
        Cosine,
        Exponential,
        GroupMean,
        GroupRelative,
        ImportanceWeighted,
        Joint,
        KLAdaptive,
        KLInLoss,
        KLInReward,
        KStep,
        LearnedBaseline,
        Likelihood,
        Linear,
        PaperTarget,
        Penalty,
        Piecewise,
        PPOPenalty,
        Proportional,
        QCritic,
        Ratio,
        Recipe,
        ResidualTD,
        RewardToGo,
        Separate,
        SequenceMean,
        Squared,
        StateMean,
        Steps,
        TDError,
        Thresholds,
        TotalReturn,
        Trajectories,
        Truncated,
        TrustRegion,
    )
    from vantage.rollout import Rollout

__version__ = "0.1.0"

_ELSEWHERE = {
    "Agent": "vantage.control.agent",
    "load": "vantage.control.agent",
    "Lab": "vantage.lab",
    "RLHF": "vantage.language",
    "Rollout": "vantage.rollout",
    "diff": "vantage.explain",
    "explain": "vantage.explain",
}
"""Names that are not in `vantage.recipe`; every name's module is imported when the name is first asked for."""

_MODULES = ("callbacks", "control", "lab", "language", "loop", "mdp", "recipe", "rollout", "theory", "verify", "world")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"vantage.{name}")
    if name not in __all__:
        raise AttributeError(f"module 'vantage' has no attribute {name!r}")
    found = getattr(import_module(_ELSEWHERE.get(name, "vantage.recipe")), name)
    return globals().setdefault(name, found)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})


__all__ = [
    "A2C",
    "ActionValue",
    "ActorCritic",
    "Advantage",
    "Agent",
    "Banded",
    "BatchMean",
    "Clip",
    "ClippedValue",
    "Columns",
    "Constant",
    "ConstantLength",
    "Cosine",
    "Exponential",
    "GAE",
    "GRPO",
    "GroupMean",
    "GroupRelative",
    "ImportanceWeighted",
    "Joint",
    "KLAdaptive",
    "KLInLoss",
    "KLInReward",
    "KStep",
    "Lab",
    "LearnedBaseline",
    "Likelihood",
    "Linear",
    "PPO",
    "PPOPenalty",
    "PaperTarget",
    "Penalty",
    "Piecewise",
    "Proportional",
    "QCritic",
    "REINFORCE",
    "RLHF",
    "RLOO",
    "Ratio",
    "Recipe",
    "ResidualTD",
    "RewardToGo",
    "Rollout",
    "Separate",
    "SequenceMean",
    "Squared",
    "StateMean",
    "Steps",
    "TDError",
    "TRPO",
    "Thresholds",
    "TotalReturn",
    "Trajectories",
    "Truncated",
    "TrustRegion",
    "diff",
    "explain",
    "load",
]
