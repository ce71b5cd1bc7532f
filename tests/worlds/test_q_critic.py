"""A critic of actions in the trainer: it learns the exact Q of a finite MDP, says V by it, and its actor improves."""

import numpy as np
import pytest

import vantage as vt
from vantage.control import MLP
from vantage.mdp.env import MDPEnv

pytestmark = pytest.mark.usefixtures("compile_fast")

WORLD = vt.mdp.random_mdp(3, 2, gamma=0.8, seed=1)
STATES = np.arange(3)


def env():
    return MDPEnv(WORLD, max_steps=50)


def trained(psi, updates: int, seed: int = 0, n_steps: int = 32, **optim) -> vt.Agent:
    recipe = vt.PPO(psi=psi, critic=vt.QCritic(), n_epochs=4, n_minibatches=2)
    agent = vt.Agent(
        env, recipe, seed=seed, n_envs=8, n_steps=n_steps, gamma=0.8, network=MLP(hidden=(16,)),
        optim=vt.Separate(**{"max_grad_norm": None, **optim}),
    )  # fmt: skip
    agent.learn(8 * n_steps * updates)
    return agent


def policy(agent: vt.Agent) -> np.ndarray:
    """π(a|s) `[S, A]` in float64."""
    p = agent.action_probabilities(STATES).astype(np.float64)
    return p / p.sum(-1, keepdims=True)


@pytest.mark.parametrize(
    ("psi", "seeds", "n_steps"),
    [(vt.Advantage(), 1, 32), pytest.param(vt.GAE(lam=0.9), 8, 128, marks=pytest.mark.slow)],
    ids=["one-step", "lambda-return"],
)
def test_the_critic_learns_the_exact_q(psi, seeds, n_steps):
    """With the policy held still both targets have Q_π as their fixed point: to 5 % of its spread.

    The λ-return is noisier (3 to 5 % of the spread a run), so that its mean over seeds is asked.
    """
    errors = []
    for seed in range(seeds):
        agent = trained(psi, 80, seed, n_steps, actor_lr=1e-30, critic_lr=vt.Linear(2e-2, 5e-4))
        pi = policy(agent)
        exact, found = vt.mdp.action_values(WORLD, pi), agent.action_values(STATES)
        np.testing.assert_allclose(agent.state_values(STATES), (pi * found).sum(-1), rtol=1e-4, atol=1e-4)
        errors.append((found - exact) / np.ptp(exact))
    assert np.abs(np.mean(errors, axis=0)).max() < 0.05


def test_an_actor_that_follows_it_comes_near_the_optimum():
    agent = trained(vt.Advantage(), 60, actor_lr=2e-2, critic_lr=1e-2)
    *_, best = vt.mdp.policy_iteration(WORLD)
    reached, uniform, optimal = (
        vt.mdp.expected_return(WORLD, pi) for pi in (policy(agent), np.full((3, 2), 0.5), best.policy)
    )
    assert reached > uniform + 0.95 * (optimal - uniform)


def test_a_critic_of_states_says_no_values_of_actions():
    agent = vt.Agent(env, vt.PPO(n_minibatches=1), n_envs=2, n_steps=4, network=MLP(hidden=(4,)))
    with pytest.raises(ValueError, match="choose a recipe with critic=QCritic"):
        agent.action_values(STATES)
