"""State-dependent exploration: what is drawn has the density that is scored, holds as long as told, and learns."""

import jax
import numpy as np
import pytest

import vantage as vt
from tests.worlds.control_envs import Probe
from tests.worlds.jax_envs import JaxCounter
from vantage.control import LSTM, MLP
from vantage.control.actions import BoxActions
from vantage.control.exploration import StateDependentActions
from vantage.control.model import Actor, build
from vantage.control.spaces import VectorObservations
from vantage.control.streams import Stream, generator
from vantage.theory.distributions import state_dependent_log_std

pytestmark = pytest.mark.usefixtures("compile_fast")

BOX = dict(low=(-1.0, -2.0), high=(1.0, 2.0))
SPACE = StateDependentActions(**BOX, features=3, hold=4)


def agent(env="Pendulum-v1", recipe=None, **options):
    given = {"n_envs": 2, "n_steps": 16, "network": MLP(hidden=(8,)), "use_sde": True, "sde_sample_freq": 4, **options}
    return vt.Agent(env, recipe or vt.PPO(n_epochs=1, n_minibatches=2), **given)


def test_what_is_drawn_has_the_density_that_is_scored(rng):
    """One state, a new E for each of n actions: mean and covariance are the Gaussian's to 5 standard errors."""
    n, outputs = 20_000, np.array([0.3, -0.2, 0.9, -0.4, 0.1], np.float32)
    log_std = rng.normal(-0.5, 0.5, 6).astype(np.float32)
    drawn = SPACE.sample(outputs, np.exp(log_std), SPACE.noise(rng, (n,)))
    policy = SPACE.distribution(np.tile(outputs, (n, 1)), log_std)
    mean, std = outputs[:2], np.exp(policy.log_std[0])
    by_hand = np.sqrt((np.exp(log_std).reshape(3, 2) ** 2 * outputs[2:, None] ** 2).sum(0) + 1e-6)
    np.testing.assert_allclose(std, by_hand, rtol=1e-5)
    z = (drawn - mean) / std
    assert np.abs(z.mean(0)).max() < 5 / np.sqrt(n)
    assert np.abs(z.var(0) - 1).max() < 5 * np.sqrt(2 / n)
    assert abs((z[:, 0] * z[:, 1]).mean()) < 5 / np.sqrt(n), "entries are independent"
    log_density = -(0.5 * z**2 + np.log(std) + 0.5 * np.log(2 * np.pi)).sum(-1)
    np.testing.assert_allclose(policy.log_prob(drawn), log_density, rtol=1e-3, atol=1e-3)


def test_where_all_features_are_zero_a_little_noise_is_left():
    np.testing.assert_allclose(state_dependent_log_std(np.zeros((1, 3)), np.zeros((3, 2))), np.log(1e-3))


@pytest.mark.parametrize(("hold", "draws"), [(1, 10), (4, 3), (10, 1), (-1, 1), (99, 1)])
def test_a_draw_holds_as_long_as_told(hold, draws):
    """Within a hold two equal states get one action; slots differ; all is a function of the generator alone."""
    space = StateDependentActions(**BOX, features=3, hold=hold)
    noise = space.noise(np.random.default_rng(5), (10, 2))
    assert noise.shape == (10, 2, 8)
    assert len(np.unique(noise[:, 0], axis=0)) == draws == len(np.unique(noise[:, 1], axis=0))
    assert (noise[:, 0] != noise[:, 1]).all()
    kept = np.arange(10) // (hold if 1 <= hold <= 10 else 10)
    np.testing.assert_array_equal(noise[:, 0], noise[kept * (hold if 1 <= hold <= 10 else 10), 0])
    np.testing.assert_array_equal(noise, space.noise(np.random.default_rng(5), (10, 2)))
    outputs = np.ones((10, 2, 5), np.float32)
    chosen = space.sample(outputs, np.ones(6, np.float32), noise)
    assert len(np.unique(chosen[:, 0], axis=0)) == draws


def test_the_noise_is_a_function_of_the_state():
    noise = np.repeat(SPACE.noise(np.random.default_rng(0), (1,)), 3, axis=0)
    features = np.array([[1, 0, 0], [2, 0, 0], [0, 1, 0]], np.float32)
    outputs = np.concatenate([np.zeros((3, 2), np.float32), features], axis=-1)
    chosen = SPACE.sample(outputs, np.ones(6, np.float32), noise) - 1e-3 * noise[:, -2:]
    np.testing.assert_allclose(chosen[1], 2 * chosen[0], rtol=1e-5)
    np.testing.assert_allclose(chosen[0], noise[0, :2], rtol=1e-5)
    np.testing.assert_allclose(chosen[2], noise[0, 2:4], rtol=1e-5)


def test_the_actor_says_mean_and_features_and_the_noise_does_not_move_them(rng):
    model, vector = build(VectorObservations(size=3), StateDependentActions(**BOX), MLP(hidden=(6, 5)), True, rng, 0.5)
    _, other = build(VectorObservations(size=3), BoxActions(**BOX), MLP(hidden=(6, 5)), True, rng, 0.5)
    assert isinstance(model.actions, StateDependentActions) and model.actions.features == 5
    assert vector.size - other.size == 5 * 2 - 2, "σ is a matrix"
    np.testing.assert_allclose(model.named(vector)["log_std"], np.log(0.5))
    x = rng.standard_normal((7, 3)).astype(np.float32)
    actor = Actor(model, vector)
    outputs = actor.outputs(x)
    assert outputs.shape == (7, 7) and np.abs(outputs[:, 2:]).max() < 1, "the features follow tanh"
    np.testing.assert_allclose(model.policy(vector, x).mean, actor.log_std[0] * 0 + outputs[:, :2], atol=1e-6)
    action = actor.sample(outputs, model.actions.noise(rng, (7,)))
    np.testing.assert_allclose(
        actor.log_prob(outputs, action), model.policy(vector, x).log_prob(action), rtol=1e-4, atol=1e-4
    )

    def spread(v):
        return model.policy(v, x).log_std.sum()

    gradient = model.named(np.array(jax.grad(spread)(vector)))
    assert np.abs(gradient["log_std"]).max() > 0
    assert all(np.abs(g).max() == 0 for name, g in gradient.items() if name != "log_std"), "features are data there"


@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        (None, {}),
        (None, {"squash_actions": True, "sde_sample_freq": -1, "normalise_observation": True}),
        (vt.PPOPenalty(n_epochs=1, n_minibatches=2), {"network": MLP(hidden=(8,), shared=True)}),
        (vt.TRPO(n_epochs=1, n_minibatches=1, cg_steps=3), {"std_init": 0.1}),
    ],
    ids=["clip", "squashed", "shared", "trpo"],
)
def test_two_updates(recipe, options, tmp_path):
    made = agent(recipe=recipe, **options)
    before = made.world.vector
    report = made.learn(64)
    assert [row["train/first_ratio_deviation"] <= 1e-4 for row in report.rows] == [True, True]
    assert max(report.column("train/act_mismatch")) < 1e-4
    assert (made.world.vector != before).any() and np.isfinite(made.world.vector).all()
    seen = np.array([0.1, 0.2, 0.3], np.float32)
    assert (made.act(seen) != made.act(seen)).any()
    made.save(tmp_path / "agent")
    back = vt.load(tmp_path / "agent")
    best = made.act(seen, deterministic=True)
    np.testing.assert_array_equal(back.act(seen, deterministic=True), best)
    np.testing.assert_array_equal(best, made.act(seen, deterministic=True))


def test_the_noise_depends_on_seed_update_row_and_slot_alone():
    """The same run twice is the same run; another seed is another."""
    first, again, other = (agent(seed=seed).world.collect(vt.PPO()) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.action, again.action)
    assert (np.asarray(first.action) != np.asarray(other.action)).any()


@pytest.mark.parametrize("recipe", [None, vt.TRPO(n_epochs=1, n_minibatches=1, cg_steps=3)], ids=["clip", "trpo"])
def test_inside_a_compiled_program_it_is_the_same_noise(recipe):
    """Between two draws the action is one function of the state; acting and scoring agree, and the parameters move."""
    made = agent(JaxCounter(discrete=False), recipe, sde_sample_freq=4, n_steps=8)
    rollout = made.world.collect(made.settings.recipe.at(0.0))
    given = made._model.actions.noise(generator(made.settings.seed, Stream.NOISE, 0), (8, made.settings.n_envs))
    actor = Actor(made._model, made._initial)
    drawn = actor.sample(actor.outputs(np.asarray(rollout.observation)), given)
    np.testing.assert_allclose(np.asarray(rollout.action), drawn, atol=1e-5)
    report = made.learn(64)
    assert max(report.column("train/act_mismatch")) < 1e-4
    assert report.final["train/kl"] > 0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: agent("CartPole-v1"), "use_sde = True: that noise is for one Box of actions"),
        (lambda: agent(network=LSTM()), "the noise reads the actor's last features, which LSTM does not show"),
        (lambda: agent(sde_sample_freq=0), "Settings.sde_sample_freq = 0: a number of steps, or -1"),
        (lambda: agent(use_sde=False), "Settings.sde_sample_freq = 4: no such noise is drawn: set use_sde=True"),
        (lambda: vt.Agent(lambda: Probe(3), use_sde=True), "use_sde = True"),
    ],
)
def test_where_it_cannot_be_is_said(make, words):
    with pytest.raises(ValueError) as error:
        make()
    assert words in str(error.value)
