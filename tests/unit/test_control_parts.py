"""The pieces of the control world, one by one."""

import dataclasses

import equinox as eqx
import gymnasium as gym
import jax
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, Sequence, Text
from hypothesis import given
from hypothesis import strategies as st

import vantage as vt
from tests.worlds.control_envs import Counter, Probe
from vantage.control import MLP, Settings, networks, spaces
from vantage.control.model import Actor, build
from vantage.control.networks import Inputs, forward, host_forward, orthogonal
from vantage.control.normalise import Moments, observe, running_returns
from vantage.control.streams import Stream, generator

BOX = spaces.BoxActions(low=(-1.0,), high=(1.0,))

# ---- networks ----


@pytest.mark.parametrize("activation", networks.ACTIVATIONS)
def test_numpy_and_jax_run_the_same_network(rng, activation):
    tower = MLP(hidden=(16, 8), activation=activation).build(rng, Inputs(size=5), 3, 1.0)
    x = rng.standard_normal((2, 7, 5)).astype(np.float32)
    host = host_forward(tower)(x)
    assert host.dtype == np.float32
    np.testing.assert_allclose(host, forward(tower, x), atol=1e-5)


def test_a_module_for_single_vectors_is_mapped_and_said_once(rng, recwarn):
    networks._said.clear()
    module = eqx.nn.MLP(5, 3, 8, 1, key=jax.random.key(0))
    x = rng.standard_normal((4, 5)).astype(np.float32)
    acts = [host_forward(module)(x), host_forward(module)(x)]
    assert sum("is no vantage.control.networks.Batched" in str(w.message) for w in recwarn) == 1
    np.testing.assert_allclose(acts[0], np.stack([module(row) for row in x]), atol=1e-5)


@dataclasses.dataclass(frozen=True)
class Foreign:
    """A network of Equinox's own."""

    def build(self, rng, inputs, outputs, gain):
        return eqx.nn.MLP(inputs.size, outputs, 8, 1, key=jax.random.key(int(rng.integers(2**31))))


def test_an_agent_learns_with_a_foreign_network():
    probe = lambda: Probe(steps=1, reward=lambda t, x, a: float(a))  # noqa: E731
    options = {"network": Foreign(), "n_envs": 2, "n_steps": 32, "optim": vt.Joint(lr=1e-2)}
    agent = vt.Agent(probe, vt.PPO(n_minibatches=1), **options)
    report = agent.learn(1000)
    assert report.final["rollout/ep_rew_mean"] > 0.8
    assert max(report.column("train/act_mismatch")) < 1e-5


def test_uniform_weights_and_biases_lie_within_one_over_the_root_of_the_inputs(rng):
    built = MLP(hidden=(400,), orthogonal=False).build(rng, Inputs(size=25), 3, 0.01)
    for (weight, bias), k in zip(built.layers, (1 / 5, 1 / 20), strict=True):
        for x in (weight, bias):
            assert 0.5 * k < np.abs(x).max() <= k
        assert weight.std() == pytest.approx(k / np.sqrt(3), rel=0.1)


def test_orthogonal_matrices_are(rng):
    for shape in ((6, 3), (3, 6), (4, 4)):
        w = orthogonal(rng, *shape, 2.0).astype(float)
        small = w.T @ w if shape[0] >= shape[1] else w @ w.T
        np.testing.assert_allclose(small, 4.0 * np.eye(min(shape)), atol=1e-5)


def test_gumbel_max_samples_the_distribution_it_scores(rng):
    space = spaces.DiscreteActions(n=3)
    logits = np.array([0.5, -1.0, 2.0], np.float32)
    n = 40_000
    drawn = space.sample(np.tile(logits, (n, 1)), None, space.noise(rng, (n,)))
    p = np.exp(space.distribution(np.tile(logits, (3, 1)), None).log_prob(np.arange(3)))
    share = np.bincount(drawn, minlength=3) / n
    np.testing.assert_allclose(share, p, atol=4 * 0.5 / np.sqrt(n))


def test_gaussian_samples_have_the_density_they_score(rng):
    model, vector = build(spaces.VectorObservations(size=2), BOX, MLP(), True, rng)
    actor = Actor(model, vector)
    n = 40_000
    outputs = actor.outputs(np.zeros((n, 2), np.float32))
    log_prob = actor.log_prob(outputs, actor.sample(outputs, model.actions.noise(rng, (n,))))
    entropy = model.actions.distribution(outputs, actor.log_std).entropy()[0]
    assert -log_prob.mean() == pytest.approx(entropy, abs=5 * log_prob.std() / np.sqrt(n))


def test_parameters_by_name_come_back(rng):
    model, vector = build(spaces.VectorObservations(size=2), BOX, MLP(), True, rng)
    named = model.named(vector)
    assert {"actor.weights.0", "log_std", "critic.biases.2"} <= set(named)
    np.testing.assert_array_equal(model.vector(named), vector)
    assert model.n_actor == sum(x.size for name, x in named.items() if not name.startswith("critic"))


def test_shared_layers_are_stored_once_and_give_both_answers(rng):
    model, vector = build(spaces.VectorObservations(size=3), BOX, MLP(hidden=(5, 4), shared=True), True, rng)
    assert (model.n_trunk, model.n_actor) == (3 * 5 + 5 + 5 * 4 + 4, 4 + 1 + 1)
    assert model.size == model.n_trunk + model.n_actor + 4 + 1
    x = rng.standard_normal((6, 3)).astype(np.float32)
    policy, value = model.both(vector, x)
    np.testing.assert_allclose(value, model.value(vector, x), atol=1e-6)
    np.testing.assert_allclose(policy.parameters[0], Actor(model, vector).outputs(x), atol=1e-6)
    h = x
    for w, b in model.networks(vector).trunk.layers:
        h = np.tanh(h @ w + b)
    np.testing.assert_allclose(value, (h @ model.networks(vector).critic.weights[0])[:, 0], atol=1e-6)


@pytest.mark.parametrize("space", [BOX, spaces.DiscreteActions(n=3)])
def test_actor_and_critic_of_unlike_widths(space, rng):
    """As net_arch = dict(pi=[5], vf=[7, 6]) of Stable-Baselines3; without it both are as wide, and begin as ever."""
    network = MLP(hidden=(5,), critic_hidden=(7, 6), activation="relu")
    model, vector = build(spaces.VectorObservations(size=3), space, network, True, rng)
    networks, x = model.networks(vector), rng.standard_normal((4, 3)).astype(np.float32)
    assert [w.shape for w in networks.actor.weights] == [(3, 5), (5, space.outputs)]
    assert [w.shape for w in networks.critic.weights] == [(3, 7), (7, 6), (6, 1)]
    h = np.maximum(x @ networks.critic.weights[0], 0)
    h = np.maximum(h @ networks.critic.weights[1], 0) @ networks.critic.weights[2]
    np.testing.assert_allclose(model.value(vector, x), h[:, 0], atol=1e-6)
    same = [build(spaces.VectorObservations(size=3), space, network, True, np.random.default_rng(0))[1]
            for network in (MLP(hidden=(5,)), MLP(hidden=(5,), critic_hidden=(5,)))]  # fmt: skip
    np.testing.assert_array_equal(*same)


def test_what_is_shared_has_one_width():
    with pytest.raises(ValueError, match=r"critic_hidden.*set shared=False"):
        MLP(critic_hidden=(7,), shared=True)


def test_sharing_is_refused_where_one_step_would_move_both():
    for recipe, optim in ((vt.TRPO(), vt.Joint()), (vt.PPO(), vt.Separate())):
        with pytest.raises(ValueError, match=r"MLP.*shared = True"):
            Settings(recipe=recipe, optim=optim, network=MLP(shared=True))


def test_sigma_begins_where_it_is_told(rng):
    model, vector = build(spaces.VectorObservations(size=2), BOX, MLP(), True, rng, std=0.5)
    np.testing.assert_allclose(Actor(model, vector).std, [0.5], rtol=1e-6)
    with pytest.raises(ValueError, match="std_init"):
        vt.Agent("CartPole-v1", std_init=0.5)


# ---- spaces ----


@pytest.mark.parametrize("space", [Text(3), Dict({"a": Sequence(Discrete(2))})])
def test_unsupported_spaces_are_named_with_the_remedy(space):
    with pytest.raises(TypeError, match=r"observation space .*wrappers.FlattenObservation"):
        spaces.observations(space)
    with pytest.raises(TypeError, match=r"action space .*wrappers.TransformAction"):
        spaces.actions(space)


def test_squashed_actions_fill_the_box(rng):
    space = spaces.actions(Box(np.array([-1.0, 2.0]), np.array([3.0, 4.0]), dtype=np.float64), squash=True)
    action = space.to_env(50 * rng.standard_normal((1000, 2)).astype(np.float32))
    np.testing.assert_allclose([action.min(axis=0), action.max(axis=0)], [[-1, 2], [3, 4]], atol=1e-5)
    for bad in (Discrete(2), Box(-np.inf, np.inf, (1,))):
        with pytest.raises(ValueError, match="squash_actions"):
            spaces.actions(bad, squash=True)


def test_states_are_counted_from_zero_and_read_one_hot():
    space = spaces.observations(Discrete(4, start=2))
    recorded = space.record(np.array([2, 5]))
    np.testing.assert_array_equal(space.features(np, recorded), [[1, 0, 0, 0], [0, 0, 0, 1]])


# ---- normalisation ----


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(0, 2**31))
def test_moments_in_parts_are_moments_of_all(sizes, seed):
    rng = np.random.default_rng(seed)
    parts = [rng.standard_normal((n, 3)) * 5 + 2 for n in sizes]
    moments = Moments.fresh((3,))
    for part in parts:
        moments = moments.moved(part)
    together = np.concatenate(parts)
    if len(together):
        np.testing.assert_allclose(moments.mean, together.mean(axis=0), atol=1e-9)
        np.testing.assert_allclose(moments.var, together.var(axis=0), atol=1e-9)


def test_observations_are_clipped_at_ten():
    moments = Moments.fresh((1,)).moved(np.array([[0.0], [2.0]]))
    np.testing.assert_allclose(
        observe(moments, np.array([[1.0], [2.0], [1e9]], np.float32)), [[0], [1], [10]], atol=1e-6
    )


def test_running_returns_by_hand():
    reward = np.array([[1.0], [2.0], [7.0], [4.0]])
    done = np.array([[False], [True], [False], [False]])
    mask = np.array([[True], [True], [False], [True]])
    returns, carry = running_returns(reward, done, mask, 0.5, np.array([8.0]))
    np.testing.assert_allclose(returns[:, 0], [5.0, 4.5, 0.0, 4.0])
    np.testing.assert_allclose(carry, [4.0])


# ---- randomness ----


def test_streams_differ_by_seed_purpose_and_update_and_by_nothing_else():
    draw = lambda *key: generator(*key).random(4).tolist()  # noqa: E731
    keys = [(0, Stream.NOISE, 0), (1, Stream.NOISE, 0), (0, Stream.MINIBATCHES, 0), (0, Stream.NOISE, 1)]
    assert len({tuple(draw(*key)) for key in keys}) == 4
    assert draw(*keys[0]) == draw(*keys[0])


# ---- the agent ----


def test_unknown_names_get_the_nearest_known_one():
    with pytest.raises(ValueError, match=r"'CartPol-v1'.*did you mean 'CartPole-v1'"):
        vt.Agent("CartPol-v1")
    with pytest.raises(TypeError, match="did you mean 'n_steps'"):
        vt.Agent("CartPole-v1", n_step=3)
    with pytest.raises(ValueError, match="no tuned settings"):
        vt.Agent.tuned("Taxi-v3")


@pytest.mark.parametrize(
    "bad",
    [{"gamma": 1.5}, {"n_envs": 0}, {"n_steps": 0}, {"seed": -1}, {"max_episode_steps": 0}, {"check_actor_every": 0}],
)  # fmt: skip
def test_settings_that_cannot_be_are_named(bad):
    with pytest.raises(ValueError, match=rf"Settings\.{list(bad)[-1]} = "):
        Settings(**bad)
    with pytest.raises(ValueError, match=r"Recipe\.n_minibatches = 4: .* 3 minibatches at most"):
        Settings(n_envs=1, n_steps=3)


def test_what_is_no_environment_is_named():
    with pytest.raises(TypeError, match="returned int"):
        vt.Agent(lambda: 3)  # type: ignore[arg-type, return-value]


def test_predict_takes_one_observation_or_many():
    agent = vt.Agent("CartPole-v1", n_envs=2)
    action, state = agent.predict(np.zeros(4), state="kept", deterministic=True)
    assert action in (0, 1)
    assert state == "kept"
    batch, _ = agent.predict(np.zeros((5, 4)))
    assert batch.shape == (5,)
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        agent.predict(np.zeros(3))


def test_actions_are_what_the_environment_accepts():
    for env in ("Pendulum-v1", "CartPole-v1"):
        agent, space = vt.Agent(env, n_envs=2), gym.make(env).action_space
        first, _ = gym.make(env).reset(seed=0)
        assert all(space.contains(agent.act(first)) for _ in range(20))


def test_evaluation_counts_one_episode_a_slot():
    result = vt.Agent(Counter, n_envs=2).evaluate(episodes=3)
    assert result.lengths == (2, 2, 2)
    assert result.returns == (1.0, 1.0, 1.0)
    assert str(result) == "1.00 ± 0.00 over 3 episodes"


def test_evaluation_is_a_function_of_its_seed():
    agent = vt.Agent("CartPole-v1", n_envs=2)
    one, two, other = (agent.evaluate(episodes=5, deterministic=False, seed=s) for s in (3, 3, 4))
    assert one == two != other


def test_a_time_limit_can_be_set():
    agent = vt.Agent("Pendulum-v1", n_envs=2, max_episode_steps=7)
    assert agent.evaluate(episodes=2).lengths == (7, 7)
    assert vt.Agent(lambda: Probe(steps=99), max_episode_steps=5, n_envs=2).evaluate(episodes=1).lengths == (5,)
