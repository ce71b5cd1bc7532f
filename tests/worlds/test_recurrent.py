"""Policies that remember: what is carried from row to row, where it begins anew, and what learning reads of it."""

from dataclasses import replace
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode

import vantage as vt
from tests.worlds.control_envs import Counter, Vectorised
from vantage.control import GRU, LSTM, MLP, Settings
from vantage.control import update as learning
from vantage.control.coefficients import numbers, structure
from vantage.control.collect import Collector
from vantage.control.export import export_onnx
from vantage.control.model import Actor, Model, build
from vantage.control.networks import Inputs
from vantage.control.recurrent import Memory
from vantage.control.spaces import DiscreteActions, VectorObservations

pytestmark = pytest.mark.usefixtures("compile_fast")
MODES = list(AutoresetMode)
NETWORKS = {
    "lstm": LSTM(hidden=6, after=MLP(hidden=(5,))),
    "gru": GRU(hidden=6, layers=2, after=MLP(hidden=()), sequence_length=7),
    "one core": LSTM(hidden=6, shared=True, before=MLP(hidden=(4,)), sequence_length=10),
    "one encoder": GRU(hidden=6, before=MLP(hidden=(4,), shared=True)),
    "plain critic": LSTM(hidden=6, before=MLP(hidden=(4,)), after=MLP(critic_hidden=(3,)), critic_remembers=False),
}
each_network = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
each_cell = pytest.mark.parametrize("cell", [LSTM, GRU])


def agent(env: Any = Counter, recipe: Any = None, network: Any = NETWORKS["lstm"], **options: Any) -> vt.Agent:
    given = {"n_envs": 4, "n_steps": 26, "check_actor_every": 1, "optim": vt.Joint(lr=1e-2), **options}
    return vt.Agent(env, recipe or vt.PPO(n_epochs=2, n_minibatches=2), network=network, **given)


def collect(made: vt.Agent) -> Any:
    return made.world.collect(made.settings.recipe.at(0.0, made.world.beta))


def update(made: vt.Agent, rollout: Any) -> dict[str, float]:
    return made.world.update(made.settings.recipe.at(0.0, made.world.beta), rollout, 0.0)


# ---- cells ----


@each_cell
def test_layers_are_those_of_pytorch(cell, rng):
    torch = pytest.importorskip("torch")
    T, B, D, H, layers = 5, 3, 4, 6, 2
    module, _ = cell(hidden=H, layers=layers, shared=True).build_trunk(rng, Inputs(size=D))
    theirs = {"LSTM": torch.nn.LSTM, "GRU": torch.nn.GRU}[cell.__name__](D, H, layers)
    module = jax.tree.map(lambda x: rng.standard_normal(x.shape).astype(np.float32), module)
    with torch.no_grad():
        for i, layer in enumerate(module.layers):
            getattr(theirs, f"weight_ih_l{i}").copy_(torch.tensor(layer.inward.T))
            getattr(theirs, f"weight_hh_l{i}").copy_(torch.tensor(layer.onward.T))
            getattr(theirs, f"bias_ih_l{i}").copy_(torch.tensor(layer.inward_bias))
            own = np.zeros(layer.inward_bias.shape, np.float32)
            if layer.onward_bias is not None:
                own[2 * H :] = layer.onward_bias
            getattr(theirs, f"bias_hh_l{i}").copy_(torch.tensor(own))
    x = rng.standard_normal((T, B, D)).astype(np.float32)
    carry = rng.standard_normal((B, module.state_size)).astype(np.float32)
    parts = np.split(carry, module.state_size // H, axis=1)
    if cell is LSTM:
        start = tuple(torch.tensor(np.stack(parts[k::2])) for k in (0, 1))
    else:
        start = torch.tensor(np.stack(parts))
    out, _ = module.scan(jnp.array(x), Memory(jnp.array(carry), jnp.zeros((T, B), bool), jnp.ones((T, B), bool)))
    with torch.no_grad():
        np.testing.assert_allclose(out, theirs(torch.tensor(x), start)[0].numpy(), atol=2e-6)


@each_cell
def test_weights_begin_orthogonal_and_biases_zero(cell, rng):
    layer = cell(hidden=8).build(rng, Inputs(size=3), 2, 0.01).layers[0]
    for weight in (layer.inward, layer.onward):
        np.testing.assert_allclose(weight @ weight.T, np.eye(len(weight)), atol=1e-5)
    assert not layer.inward_bias.any()
    assert layer.onward_bias is None or not layer.onward_bias.any()


@each_network
def test_numpy_step_by_step_is_the_scan(network, rng):
    """Acting and learning agree row by row, where episodes begin and where nobody decides."""
    T, B, D = 9, 4, 3
    model, vector = build(VectorObservations(size=D), DiscreteActions(n=3), network, True, rng)
    vector = vector + 0.3 * rng.standard_normal(vector.shape).astype(np.float32)
    x = rng.standard_normal((T, B, D)).astype(np.float32)
    begins, mask = rng.random((T, B)) < 0.3, rng.random((T, B)) < 0.7
    state = rng.standard_normal((B, model.carry)).astype(np.float32)
    says = model.run(vector, x, Memory(jnp.array(state), jnp.array(begins), jnp.array(mask)))
    actor, state = Actor(model, vector), state[:, : model.acting_carry]
    for t in range(T):
        state = np.where(begins[t][:, None], np.float32(0), state)
        outputs, after = actor.advance(x[t], state)
        policy, in_jit = model.advance(vector, x[t], jnp.array(state))
        np.testing.assert_allclose(after, in_jit, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(outputs, policy.parameters[0], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(outputs[mask[t]], says.policy.parameters[0][t][mask[t]], atol=1e-5)
        state = np.where(mask[t][:, None], after, state)
        np.testing.assert_allclose(state, says.states[t, :, : model.acting_carry], atol=1e-5)
    assert state.dtype == np.float32


# ---- the rollout ----


@each_network
@pytest.mark.parametrize("mode", MODES)
def test_acting_scoring_and_learning_agree(mode, network):
    made = agent(Vectorised(Counter, mode), network=network, normalise_observation=True)
    for _ in range(3):
        rollout = collect(made)
        value, reached = np.asarray(rollout.value), np.asarray(rollout.next_value)
        goes_on = ~rollout.last[:-1] & rollout.mask[:-1]
        np.testing.assert_allclose(reached[:-1][goes_on], value[1:][goes_on], atol=1e-5)
        metrics = update(made, rollout)
        assert metrics["train/act_mismatch"] <= 1e-5
        assert metrics["train/first_ratio_deviation"] <= 1e-4
        assert metrics["train/kl"] > 0


def test_the_value_reached_follows_upon_the_state_of_its_own_episode():
    """V of a final observation, computed alone in NumPy: from 0 through one episode, then upon what was reached."""
    made = agent(Vectorised(Counter, AutoresetMode.SAME_STEP))
    rollout = collect(made)
    critic, reached = made._model.networks(made.world.vector).critic, made.world._reached
    step = critic.on_host()
    ends = np.argwhere(rollout.last[:-1])
    assert len(ends) > 20
    for t, slot in ends:
        state = np.zeros((1, critic.state_size), np.float32)
        for row in range(t - rollout.time[t, slot], t + 1):
            _, state = step(rollout.observation[row, slot][None], state)
        wanted, _ = step(reached[t, slot][None], state)
        np.testing.assert_allclose(rollout.next_value[t, slot], wanted[0, 0], atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("network", [NETWORKS["lstm"], NETWORKS["one core"]], ids=["lstm", "one core"])
def test_two_rollouts_are_one_of_twice_the_length(mode, network):
    long = collect(agent(Vectorised(Counter, mode), network=network))
    made = agent(Vectorised(Counter, mode), network=network, n_steps=13)
    first, second = collect(made), collect(made)
    assert not first.carry.any()
    assert second.carry.any(axis=0).all()
    for name in ("observation", "mask", "value"):
        both = np.concatenate([getattr(first, name), getattr(second, name)])
        real = both == both if name == "mask" else long.mask
        np.testing.assert_allclose(both[real], getattr(long, name)[real], atol=1e-5, err_msg=name)


# ---- sequences ----


def test_sequences_are_the_columns_cut_into_pieces():
    model = build(
        VectorObservations(size=1), DiscreteActions(n=2), LSTM(hidden=2, sequence_length=4), True,
        np.random.default_rng(0),
    )[0]  # fmt: skip
    x = np.arange(1, 21).reshape(10, 2)
    found = np.asarray(learning.items(model, jnp.array(x)))
    assert found.T.tolist() == [
        [1, 3, 5, 7], [2, 4, 6, 8], [9, 11, 13, 15], [10, 12, 14, 16], [17, 19, 0, 0], [18, 20, 0, 0],
    ]  # fmt: skip
    mask = np.ones((10, 2), bool)
    mask[8:, 0] = False
    assert learning.real_items(model, mask).tolist() == [True, True, True, True, False, True]


def first_gradient(made: vt.Agent, rollout: Any, rows: np.ndarray) -> np.ndarray:
    """Of one minibatch, from Adam's first moment."""
    recipe = made.settings.recipe
    moving, _ = learning.learn(
        made._model, structure(recipe), False, learning.start(made.world.vector), numbers(recipe),
        learning.rates(vt.Joint(lr=1e-30, max_grad_norm=None)), vars(rollout), made.world._reached, rows,
    )  # fmt: skip
    return np.array(moving.optimiser.mu) / 0.1


@pytest.mark.slow
def test_the_gradient_does_not_depend_on_how_columns_are_dealt_out():
    """Whole columns in one minibatch, or in four whose mean is taken."""
    made = agent(Vectorised(Counter, AutoresetMode.NEXT_STEP), vt.A2C())
    rollout = collect(made)
    whole = first_gradient(made, rollout, np.arange(4, dtype=np.int32)[None, None])
    real = np.asarray(rollout.mask).sum(axis=0)
    parts = [first_gradient(made, rollout, np.array([[[i]]], np.int32)) for i in range(4)]
    np.testing.assert_allclose(np.sum([n * g for n, g in zip(real, parts, strict=True)], axis=0) / real.sum(), whole,
                               rtol=1e-5, atol=1e-5)  # fmt: skip


@pytest.mark.slow
def test_the_gradient_flows_through_the_whole_sequence_and_no_further():
    """With a probe of one column: cut into pieces, each piece begins from a state that is held fixed."""
    gradients = {}
    for length in (None, 26, 5):
        made = agent(Vectorised(Counter, AutoresetMode.SAME_STEP), vt.A2C(),
                     network=LSTM(hidden=6, after=MLP(hidden=(5,)), sequence_length=length))  # fmt: skip
        rollout = collect(made)
        n = 4 * -(-26 // (length or 26))
        gradients[length] = first_gradient(made, rollout, np.arange(n, dtype=np.int32)[None, None])
    np.testing.assert_array_equal(gradients[None], gradients[26])
    assert np.isfinite(gradients[5]).all()
    assert (np.abs(gradients[5] - gradients[26]) > 1e-6).any()


# ---- with everything else ----


class Masked(Counter):
    """Allows one more action with each step of the episode."""

    def __init__(self) -> None:
        super().__init__(Discrete(3))

    def action_masks(self) -> np.ndarray:
        return np.arange(3) <= self.t


SEPARATE = NETWORKS["lstm"]
TWICE = {"n_epochs": 2, "n_minibatches": 2}
CASES: dict[str, Any] = {
    "penalty": (replace(vt.PPOPenalty(**TWICE), critic=vt.ResidualTD()), NETWORKS["gru"], {"normalise_reward": True}),
    "whole episodes": (vt.REINFORCE(), SEPARATE, {}),
}
MORE: dict[str, Any] = {
    "natural": (vt.TRPO(n_minibatches=1), SEPARATE, {}),
    "KL stop": (vt.PPO(n_epochs=4, n_minibatches=2, target_kl=1e-3), NETWORKS["gru"], {}),
    "recompute": (vt.PPO(recompute_advantages=True, **TWICE), NETWORKS["gru"], {}),
    "natural, cut": (vt.TRPO(), NETWORKS["gru"], {}),
    "separate": (vt.PPO(**TWICE), SEPARATE, {"optim": vt.Separate()}),
    "entropy": (vt.PPO(ent_coef=0.01, **TWICE), NETWORKS["one core"], {}),
}
ALL = [*CASES.values(), *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE.values())]


@pytest.mark.parametrize(("recipe", "network", "options"), ALL, ids=[*CASES, *MORE])
def test_every_way_of_learning_takes_two_updates(recipe, network, options):
    """On an environment with masks, observations normalised."""
    made = agent(Vectorised(Masked, AutoresetMode.NEXT_STEP), recipe, network, normalise_observation=True, **options)
    for _ in range(2):
        rollout, before = collect(made), made.world.vector
        metrics = update(made, rollout)
        assert metrics["train/act_mismatch"] <= 1e-5
        assert metrics["train/first_ratio_deviation"] <= 1e-4 or isinstance(recipe.objective, vt.TrustRegion)
        assert np.isfinite(made.world.vector).all()
        assert (made.world.vector != before).any()
        if isinstance(recipe.objective, vt.TrustRegion):
            assert metrics["train/is_line_search_success"]
            assert 0 < metrics["train/kl"] <= float(recipe.objective.delta) * (1 + 1e-4)


def test_what_is_no_decision_changes_nothing():
    """What the networks are asked in filler rows, and what stands in their other fields, leaves the update as it is."""
    made = agent(Vectorised(Counter, AutoresetMode.NEXT_STEP))
    rollout = collect(made)
    filler = ~np.asarray(rollout.mask)
    assert filler.any()

    def spoil(x: Any) -> np.ndarray:
        x = np.array(x)
        x[filler] = 1 if x.dtype == np.int32 else -77.0
        return x

    rows = np.array([[[0, 1], [2, 3]]], np.int32)
    spoilt = rollout.map(spoil, "observation", "action", "reward", "signal", "log_prob", "value", "next_value")
    np.testing.assert_array_equal(first_gradient(made, rollout, rows), first_gradient(made, spoilt, rows))


# ---- acting for the user ----


def test_predict_carries_its_state():
    """Step by step with the state handed on is the scan; begun anew where an episode starts."""
    made = agent(Counter)
    rollout = collect(made)
    x, starts, state = np.asarray(rollout.observation), np.asarray(rollout.time) == 0, None
    for t in range(len(x)):
        action, state = made.predict(x[t], state, starts[t], deterministic=True)
        np.testing.assert_array_equal(action, np.asarray(rollout.policy[0])[t].argmax(axis=-1))
    assert state.shape == (4, made._model.acting_carry)


def test_predict_takes_one_observation_or_many():
    made, x = agent(Counter), np.array([[0.0, 1.0], [3.0, 2.0]], np.float32)
    _, many = made.predict(x, deterministic=True)
    for i in range(2):
        action, one = made.predict(x[i], deterministic=True)
        assert np.ndim(action) == 0
        np.testing.assert_allclose(one[0], many[i], atol=1e-6)
    with pytest.raises(ValueError, match=r"state has shape \(1, 12\), not \(2, 12\)"):
        made.predict(x, one)
    _, again = made.predict(x, many, np.array([True, False]), deterministic=True)
    np.testing.assert_allclose(again[0], many[0], atol=1e-6)
    assert (np.abs(again[1] - many[1]) > 1e-4).any()


def test_what_remembers_says_nothing_about_observations_alone():
    made, x = agent(Counter), np.zeros(2, np.float32)
    for ask in (made.act, made.action_probabilities, made.state_values):
        with pytest.raises(ValueError, match=r"predict\(observation, state|recurrent"):
            ask(x)


def test_evaluation_carries_the_state_too():
    """Played by hand, with predict, one episode gives what `evaluate` gives."""
    made = agent(lambda: gym.wrappers.TimeLimit(Recall(steps=3), 50))
    collect(made)
    played = made.evaluate(episodes=4)
    assert played.lengths == (4, 4, 4, 4)
    assert made.evaluate(episodes=4) == played


def test_a_recurrent_policy_is_not_exported(tmp_path):
    pytest.importorskip("onnxruntime")
    with pytest.raises(ValueError, match="the network is a Recurrent"):
        export_onnx(agent(Counter), tmp_path / "policy.onnx")
    assert not list(tmp_path.iterdir())


# ---- files ----


class Recall(gym.Env):
    """A cue of ±1 at first, then nothing; the last action must name it."""

    def __init__(self, steps: int) -> None:
        self.observation_space, self.action_space, self.steps = Box(-1.0, 1.0, (2,), np.float32), Discrete(2), steps

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.cue = 0, int(self.np_random.integers(2))
        return np.array([2.0 * self.cue - 1.0, 0.0], np.float32), {}

    def step(self, action):
        over, self.t = self.t == self.steps, self.t + 1
        reward = float(over and action == self.cue)
        return np.array([0.0, self.t == self.steps], np.float32), reward, over, False, {}


def test_a_run_stopped_in_the_middle_of_episodes_goes_on_bit_for_bit(tmp_path):
    options = {"network": NETWORKS["gru"], "n_steps": 7}
    whole, half = agent("CartPole-v1", **options), agent("CartPole-v1", **options)
    whole.learn(8 * 28)
    half.learn(4 * 28)
    assert half.world._collector.carry.any(axis=0).all()
    half.save(tmp_path / "half")
    resumed = vt.Agent.resume(tmp_path / "half")
    resumed.learn(8 * 28)
    state, other = whole.world.state(), resumed.world.state()
    jax.tree.map(np.testing.assert_array_equal, state.arrays["parameters"], other.arrays["parameters"])
    jax.tree.map(np.testing.assert_array_equal, state.arrays["collector"], other.arrays["collector"])
    assert resumed.settings == whole.settings


# ---- mistakes ----


def carry_of_the_end(monkeypatch: Any) -> None:
    """The rollout keeps the state after its last row in place of the one before its first."""
    right = Collector.rollout
    monkeypatch.setattr(Collector, "rollout", lambda self, *args: replace(right(self, *args), carry=self.carry.copy()))


def stale_carry(monkeypatch: Any) -> None:
    """Each rollout is scored from where the one before began."""
    right, before = Collector.rollout, {}

    def rollout(self: Any, *args: Any) -> Any:
        columns = right(self, *args)
        stale, before["carry"] = before.get("carry", columns.carry), columns.carry
        return replace(columns, carry=stale)

    monkeypatch.setattr(Collector, "rollout", rollout)


def missed_reset(monkeypatch: Any) -> None:
    """Scoring lets the state run on from one episode into the next."""
    right = learning.score
    monkeypatch.setattr(learning, "score", lambda *args: right(*args[:-1], args[-1]._replace(begins=0 * args[-1].mask)))


def missed_reset_in_acting(monkeypatch: Any) -> None:
    """Acting lets it."""
    right = Collector._begin_anew

    def begin_anew(self: Any, *args: Any) -> Any:
        self.carry[:] = 0.5
        return right(self, *args)

    monkeypatch.setattr(Collector, "_begin_anew", begin_anew)


def forgetful_actor(monkeypatch: Any) -> None:
    """Acting begins from 0 in each row."""
    right = Actor.advance
    monkeypatch.setattr(Actor, "advance", lambda self, x, state: right(self, x, 0 * state))


@pytest.mark.parametrize("mistake", [carry_of_the_end, stale_carry, missed_reset, missed_reset_in_acting,
                                     forgetful_actor])  # fmt: skip
def test_a_state_that_is_not_the_one_that_acted_is_caught(monkeypatch, mistake):
    made = agent(Vectorised(Counter, AutoresetMode.SAME_STEP), n_steps=13)
    vector = made.world.vector + np.random.default_rng(0).standard_normal(made._model.size).astype(np.float32)
    made.world._moving, made.world._actor = learning.start(vector), None
    collect(made)
    mistake(monkeypatch)
    with pytest.raises(RuntimeError, match="policy that acted is not the one that learns"):  # noqa: PT012
        for _ in range(3):
            collect(made)


def test_more_minibatches_than_sequences_are_refused():
    with pytest.raises(ValueError, match=r"n_minibatches.*sequences"):
        Settings(recipe=vt.PPO(n_minibatches=4), n_envs=2, n_steps=30, network=LSTM())
    Settings(recipe=vt.PPO(n_minibatches=4), n_envs=2, n_steps=30, network=LSTM(sequence_length=15))


@pytest.mark.parametrize(
    ("field", "value"),
    [("hidden", 0), ("layers", 0), ("sequence_length", 0), ("before", LSTM()), ("after", GRU()), ("hidden", 2.5)],
)
def test_settings_that_cannot_be_are_named(field, value):
    with pytest.raises((ValueError, TypeError), match=field):
        LSTM(**{field: value})


def test_what_nothing_is_shared_with_is_refused():
    with pytest.raises(ValueError, match=r"detached.*nothing is shared"):
        LSTM(detached=True)
    with pytest.raises(ValueError, match=r"critic_remembers.*are shared"):
        LSTM(shared=True, critic_remembers=False)


@pytest.mark.parametrize("detached", [True, False])
def test_a_detached_critic_leaves_what_is_shared_alone(detached, rng):
    """The gradient of V(s_t) by the shared layers is 0, and by its own head is not."""
    network = LSTM(hidden=4, shared=True, detached=detached)
    model, vector = build(VectorObservations(size=2), DiscreteActions(n=2), network, True, rng)
    x, memory = jnp.ones((3, 2, 2)), Memory(jnp.zeros((2, 8)), jnp.zeros((3, 2), bool), jnp.ones((3, 2), bool))
    gradient = jax.grad(lambda v: model.run(v, x, memory).value.sum())(jnp.array(vector))
    assert bool((gradient[: model.n_trunk] == 0).all()) is detached
    assert (gradient[model.n_trunk + model.n_actor :] != 0).any()


def test_a_critic_that_does_not_remember_keeps_no_state(rng):
    """As enable_critic_lstm=False of sb3-contrib: the state is the actor's alone, and V that of one observation."""
    network = LSTM(hidden=4, after=MLP(hidden=(5,), critic_hidden=(7,)), critic_remembers=False)
    model, _ = build(VectorObservations(size=2), DiscreteActions(n=2), network, True, rng)
    assert model.carries == (0, 8, 0)
    shapes = dict(zip(model.names, model.shapes, strict=True))
    assert {shape for name, shape in shapes.items() if name.startswith("critic")} == {(2, 7), (7,), (7, 1), (1,)}
    assert (4, 5) in [shape for name, shape in shapes.items() if name.startswith("actor")]


@pytest.mark.parametrize("network", [NETWORKS["one core"], NETWORKS["one encoder"]], ids=["core", "encoder"])
def test_a_trust_region_refuses_what_is_shared(network):
    with pytest.raises(ValueError, match="natural step would move the critic"):
        Settings(recipe=vt.TRPO(), network=network)


def test_noise_that_reads_features_is_refused():
    """State-dependent exploration has no features of the actor to read, not even where an encoder is shared."""
    for network in (NETWORKS["lstm"], NETWORKS["one encoder"]):
        with pytest.raises(ValueError, match="use_sde = True"):
            vt.Agent("Pendulum-v1", network=network, use_sde=True)


def test_equal_models_share_one_compiled_update():
    models = [agent(Counter)._model for _ in range(2)]
    assert isinstance(models[0], Model)
    assert hash(models[0]) == hash(models[1])
    assert models[0] == models[1]
