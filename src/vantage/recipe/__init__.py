"""An algorithm is a value: Ψ × objective × critic loss × reuse × reduction × whitening.

Every choice is a frozen type whose fields are exactly the knobs it has; each is also callable, unpacking a record
into the pure function of `theory` that it stands for. REINFORCE and PPO differ in nothing but the `Recipe` their
names return.
"""

from vantage.recipe.core import Recipe
from vantage.recipe.critic import ClippedValue, CriticLoss, ResidualTD, Squared
from vantage.recipe.objective import (
    BetaRule,
    Clip,
    Likelihood,
    Objective,
    PaperTarget,
    Penalty,
    Proportional,
    Ratio,
    Thresholds,
    TrustRegion,
)
from vantage.recipe.optim import Joint, Optim, Separate
from vantage.recipe.presets import A2C, PPO, RECIPES, REINFORCE, TRPO, ActorCritic, ImportanceWeighted, PPOPenalty
from vantage.recipe.psi import (
    GAE,
    Baseline,
    BatchMean,
    GroupMean,
    KStep,
    LearnedBaseline,
    Psi,
    RewardToGo,
    StateMean,
    TDError,
    TotalReturn,
)
from vantage.recipe.reduction import Columns, Constant, Reduction, Steps, Trajectories
from vantage.recipe.schedule import Coefficient, Linear, at, check, ends, positive

__all__ = [
    "A2C",
    "ActorCritic",
    "Baseline",
    "BatchMean",
    "BetaRule",
    "Clip",
    "ClippedValue",
    "Coefficient",
    "Columns",
    "Constant",
    "CriticLoss",
    "GAE",
    "GroupMean",
    "ImportanceWeighted",
    "Joint",
    "KStep",
    "LearnedBaseline",
    "Likelihood",
    "Linear",
    "Objective",
    "Optim",
    "PPO",
    "PPOPenalty",
    "PaperTarget",
    "Penalty",
    "Proportional",
    "Psi",
    "RECIPES",
    "REINFORCE",
    "Ratio",
    "Recipe",
    "Reduction",
    "ResidualTD",
    "RewardToGo",
    "Separate",
    "Squared",
    "StateMean",
    "Steps",
    "TDError",
    "TRPO",
    "Thresholds",
    "TotalReturn",
    "Trajectories",
    "TrustRegion",
    "at",
    "check",
    "ends",
    "positive",
]
