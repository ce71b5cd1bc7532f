"""Every trajectory of an MDP, or a sample of them, as one `Rollout`."""

from typing import Any

from vantage.mdp.exact import Policy
from vantage.mdp.model import MDP
from vantage.rollout import Rollout


def trajectories(mdp: MDP, policy: Policy, horizon: int, **options: Any) -> Rollout:
    """Every trajectory of at most `horizon` steps, weighted by its probability."""
    raise NotImplementedError


def sample(mdp: MDP, policy: Policy, steps: int, columns: int, seed: int, **options: Any) -> Rollout:
    """A sampled rollout."""
    raise NotImplementedError
