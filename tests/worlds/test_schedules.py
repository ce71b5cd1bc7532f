"""Coefficients that move while the trainer runs, and a learning rate that follows the KL, also across a resume."""

import numpy as np
import pytest

import vantage as vt
from vantage.control import MLP
from vantage.mdp.env import MDPEnv
from vantage.recipe import optim_at

pytestmark = pytest.mark.usefixtures("compile_fast")

WORLD = vt.mdp.random_mdp(3, 2, gamma=0.8, seed=1)
RULE = vt.KLAdaptive(start=1e-3, target=vt.Linear(2e-5, 4e-4), lr_max=5e-3)


def env():
    return MDPEnv(WORLD, max_steps=20)


def agent(recipe, **options):
    return vt.Agent(env, recipe, n_envs=2, n_steps=16, network=MLP(hidden=(4,)), gamma=0.8, **options)


def test_the_learning_rate_follows_the_kl_and_is_resumed(tmp_path):
    """Each update's rate is the rule's answer to the last one's exact KL, with the target of that moment."""
    made = agent(vt.PPO(n_epochs=2, n_minibatches=2), optim=vt.Joint(lr=RULE))
    report = made.learn(320, checkpoint=tmp_path / "run", checkpoint_every=5)
    rates, kls = report.column("train/learning_rate"), report.column("train/kl")
    assert rates[0] == 1e-3
    for i, (lr, kl) in enumerate(zip(rates, kls, strict=True)):
        after = vt.KLAdaptive(start=1e-3, target=RULE.target(i / 10), lr_max=5e-3)(lr, kl)
        assert (rates[i + 1] if i < 9 else made.world.lr) == pytest.approx(after)
    assert len(set(rates)) > 3, "it moved"
    back = vt.Agent.resume(tmp_path / "run", env)
    assert back.world.lr == made.world.lr == back.world.state().counters["lr"]


def test_separate_rates_follow_it_too():
    optim = vt.Separate(actor_lr=vt.KLAdaptive(start=2e-3), critic_lr=vt.Linear(1e-2))
    assert (optim_at(optim, 0.5).actor_lr, optim_at(optim, 0.5).critic_lr) == (2e-3, 5e-3)
    assert (optim_at(optim, 1.0, 5e-4).actor_lr, optim_at(optim, 1.0, 5e-4).critic_lr) == (5e-4, 0.0)


def test_beta_may_follow_a_schedule():
    made = agent(vt.PPOPenalty(beta=vt.Linear(2.0, 1.0), rule=None, n_epochs=1, n_minibatches=1))
    report = made.learn(128)
    np.testing.assert_allclose(report.column("train/beta"), [2.0, 1.75, 1.5, 1.25])
