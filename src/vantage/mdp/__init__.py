"""Finite MDPs solved exactly, in float64 NumPy: the ground truth of the library."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vantage.mdp.exact import (
    action_values,
    action_values_to_values,
    advantages,
    expected_return,
    expected_td_error,
    fisher,
    occupancy,
    policy_gradient,
    policy_kl,
    state_values,
    surrogate,
    trajectory_log_prob,
    values_to_action_values,
)
from vantage.mdp.model import MDP, as_policy, softmax, transition_matrix, uniform
from vantage.mdp.sparse import random_sparse
from vantage.mdp.trajectories import sample, trajectories

if TYPE_CHECKING:
    from vantage.mdp.classics import (
        car_rental,
        chain,
        cliff,
        corridor,
        corridor_policy,
        gambler,
        gridworld_3_5,
        gridworld_4_1,
        random_mdp,
        random_walk,
        two_state,
        two_state_policy,
        windy,
    )
    from vantage.mdp.env import MDPEnv, MDPVectorEnv
    from vantage.mdp.episodes import monte_carlo, restart_values
    from vantage.mdp.learn import q_learning, sarsa, td0
    from vantage.mdp.solve import improve, policy_iteration, sweeps, value_iteration

# Imported when first used: Gymnasium belongs to `env` alone.
_HOME = {
    "MDPEnv": "env",
    "MDPVectorEnv": "env",
    "car_rental": "classics",
    "chain": "classics",
    "cliff": "classics",
    "corridor": "classics",
    "corridor_policy": "classics",
    "gambler": "classics",
    "gridworld_3_5": "classics",
    "gridworld_4_1": "classics",
    "improve": "solve",
    "monte_carlo": "episodes",
    "policy_iteration": "solve",
    "q_learning": "learn",
    "random_mdp": "classics",
    "random_walk": "classics",
    "restart_values": "episodes",
    "sarsa": "learn",
    "sweeps": "solve",
    "td0": "learn",
    "two_state": "classics",
    "two_state_policy": "classics",
    "value_iteration": "solve",
    "windy": "classics",
}

__all__ = [
    "MDP",
    "MDPEnv",
    "MDPVectorEnv",
    "action_values",
    "action_values_to_values",
    "advantages",
    "as_policy",
    "car_rental",
    "chain",
    "cliff",
    "corridor",
    "corridor_policy",
    "expected_return",
    "expected_td_error",
    "fisher",
    "gambler",
    "gridworld_3_5",
    "gridworld_4_1",
    "improve",
    "monte_carlo",
    "occupancy",
    "policy_gradient",
    "policy_iteration",
    "policy_kl",
    "q_learning",
    "random_mdp",
    "random_sparse",
    "random_walk",
    "restart_values",
    "sample",
    "sarsa",
    "softmax",
    "state_values",
    "surrogate",
    "sweeps",
    "td0",
    "trajectories",
    "trajectory_log_prob",
    "transition_matrix",
    "two_state",
    "two_state_policy",
    "uniform",
    "value_iteration",
    "values_to_action_values",
    "windy",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
