"""TRPO in environments: the trainer keeps to the region, moves the two networks as told, learns, and resumes."""

import numpy as np
import pytest

import vantage as vt
from tests.worlds.control_envs import Counter, Probe
from tests.worlds.test_resume import StopAt, assert_same
from vantage.control import MLP

pytestmark = pytest.mark.usefixtures("compile_fast")

SMALL = vt.TRPO(n_epochs=2, n_minibatches=2)


def nothing():
    return Probe(4, reward=lambda t, x, a: 0.0)


def agent(env, recipe=SMALL, **options):
    return vt.Agent(env, recipe, **{"n_envs": 2, "n_steps": 32, "network": MLP(hidden=(8,)), **options})


def parts(made) -> tuple[np.ndarray, np.ndarray]:
    """The actor's and the critic's parameters."""
    n = made._model.n_actor
    return made.world.vector[:n], made.world.vector[n:]


def test_every_update_keeps_to_the_region_and_tells_of_it():
    report = agent("Pendulum-v1", vt.TRPO(delta=0.003, n_epochs=1)).learn(640)
    assert len(report.rows) == 10
    for row in report.rows:
        accepted = row["train/is_line_search_success"]
        assert 0 <= row["train/kl"] <= 0.003
        assert (row["train/kl"] > 0) == (row["train/surrogate_gain"] > 0) == bool(accepted)
        assert 1 <= row["train/line_search_steps"] <= 10
        assert row["train/first_ratio_deviation"] < 1e-5
        assert row["train/minibatches"] == 8
    assert sum(report.column("train/is_line_search_success")) >= 8


def test_a_schedule_narrows_the_region():
    report = agent("CartPole-v1", vt.TRPO(delta=vt.Linear(0.02), n_epochs=1)).learn(640)
    bounds = 0.02 * (1 - (np.array(report.column("time/total_timesteps")) - 64) / 640)
    assert (np.array(report.column("train/kl")) <= bounds).all()


def test_without_advantages_only_the_critic_moves():
    made = agent(nothing, vt.TRPO(psi=vt.RewardToGo(), n_epochs=2))
    actor, critic = parts(made)
    report = made.learn(64)
    assert parts(made)[0].tobytes() == actor.tobytes()
    assert (parts(made)[1] != critic).any()
    assert report.final["train/is_line_search_success"] == report.final["train/line_search_steps"] == 0


@pytest.mark.parametrize("optim", [vt.Joint(lr=1e-3), vt.Separate(actor_lr=1.0, critic_lr=1e-3)])
def test_the_optimiser_moves_the_critic_alone(optim):
    """The natural step has no learning rate, so the actor is where it would be whatever the optimiser is."""
    made, other = agent("CartPole-v1", optim=optim), agent("CartPole-v1", optim=vt.Joint(lr=1e-30))
    start = parts(made)[0]
    made.learn(64)
    other.learn(64)
    np.testing.assert_array_equal(parts(made)[0], parts(other)[0])
    assert (parts(made)[0] != start).any()
    assert np.abs(parts(made)[1] - parts(other)[1]).max() > 1e-4


def test_the_critic_follows_the_same_loss_as_with_ppo():
    """One minibatch at the first update: the critic's step does not know which objective the actor has."""
    trpo, ppo = (agent("CartPole-v1", build(n_epochs=1, n_minibatches=1)) for build in (vt.TRPO, vt.PPO))
    for made in (trpo, ppo):
        made.learn(64)
    np.testing.assert_allclose(parts(trpo)[1], parts(ppo)[1], atol=2e-6)


@pytest.mark.parametrize(
    "recipe",
    [
        vt.TRPO(psi=vt.RewardToGo(), critic=None, n_epochs=1, n_minibatches=1),
        vt.TRPO(psi=vt.TotalReturn(), reduction=vt.Trajectories(), ent_coef=0.01),
        vt.TRPO(psi=vt.KStep(k=3), critic=vt.ClippedValue(), whiten="minibatch", recompute_advantages=True),
        vt.TRPO(psi=vt.TDError(), critic=vt.ResidualTD(), reduction=vt.Columns(), time_weighting="discounted"),
    ],
    ids=lambda r: f"{type(r.psi).__name__}-{type(r.critic).__name__}",
)
def test_any_weight_goes_with_any_critic(recipe):
    report = agent("CartPole-v1", recipe).learn(130)
    assert all(np.isfinite(row["train/kl"]) and 0 <= row["train/kl"] <= 0.01 for row in report.rows)


@pytest.mark.parametrize("env", [Counter, "Pendulum-v1"])
def test_stopped_and_resumed_is_the_undisturbed_run(env, tmp_path):
    whole, stopped = agent(env), agent(env)
    whole.learn(640, checkpoint=tmp_path / "whole", checkpoint_every=3)
    stopped.learn(640, [StopAt(4)], checkpoint=tmp_path / "part", checkpoint_every=3)
    resumed = vt.Agent.resume(tmp_path / "part", None if isinstance(env, str) else env)
    assert resumed.world.updates == 4
    assert resumed.settings.recipe == SMALL
    resumed.learn(640)
    assert_same(whole, resumed)


def test_it_learns():
    made = agent("CartPole-v1", vt.TRPO(n_epochs=10, n_minibatches=4, gae_lambda=0.98), n_envs=4, n_steps=128,
                 network=MLP(hidden=(32,)), optim=vt.Joint(lr=3e-3))  # fmt: skip
    report = made.learn(12_000)
    assert report.column("rollout/ep_rew_mean")[0] < 40
    assert made.evaluate(10).mean > 120
