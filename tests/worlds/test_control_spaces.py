"""Every kind of action with every kind of observation and network, masked or not, normalised or not."""

import itertools

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from gymnasium.vector import AutoresetMode

import vantage as vt
from tests.worlds.control_envs import Vectorised
from vantage.control import GRU, LSTM, MLP, SmallCNN, spaces
from vantage.control.normalise import observe

ACTIONS = {
    "discrete": Discrete(3, start=2),
    "box": Box(-1.0, 2.0, (2,), np.float32),
    "matrix": Box(-1.0, 2.0, (2, 2), np.float32),
    "multidiscrete": MultiDiscrete([2, 3], start=[1, 0]),
    "multibinary": MultiBinary((2, 2)),
    "dict": Dict(b=Box(-1.0, 1.0, (2,), np.float32), a=Discrete(3, start=1), s=MultiBinary(2), m=MultiDiscrete([2, 2])),
    "tuple": Tuple([Discrete(2), Tuple([Box(-1.0, 1.0, (1,), np.float32), Discrete(3)])]),
}
OBSERVATIONS = {
    "vector": Box(-50.0, 50.0, (3,), np.float32),
    "state": Discrete(5, start=3),
    "multibinary": MultiBinary((2, 2)),
    "multidiscrete": MultiDiscrete([[2, 3], [4, 2]]),
    "matrix": Box(-50.0, 50.0, (2, 3), np.float64),
    "dict": Dict(
        x=Box(-50.0, 50.0, (2,), np.float32), n=Discrete(3), t=Tuple([MultiBinary(2), Box(0, 9, (1,), np.int64)])
    ),
    "tuple": Tuple([Discrete(2, start=-1), Dict(y=Box(-50.0, 50.0, (2, 2), np.float32))]),
}  # fmt: skip
PICTURES = {
    "image": Box(0, 255, (5, 4, 3), np.uint8),
    "pictures": Dict(
        grey=Box(0, 255, (4, 4), np.uint8), x=Box(-50.0, 50.0, (2,), np.float32), c=Box(0.0, 1.0, (2, 4, 5), np.float32)
    ),
}  # fmt: skip
CNN = SmallCNN(features=4, channels=(2,), kernels=(2,), strides=(1,), beside=(3,))
NETWORKS = {
    "mlp": lambda seen: MLP(hidden=(4,)),
    "cnn": lambda seen: CNN,
    "lstm": lambda seen: LSTM(hidden=3, before=CNN if seen in PICTURES else None, after=MLP(hidden=())),
    "gru": lambda seen: GRU(hidden=3, before=MLP(hidden=(4,)), after=MLP(hidden=()), sequence_length=4, shared=True),
}
pytestmark = pytest.mark.usefixtures("compile_fast")
SOURCES = ("observation", "method", "info")


class Anything(gym.Env):
    """Random observations of a space; complains about actions outside its space or its mask; episodes of 3 to 6 steps.

    The mask allows all options of each choice but one, chosen anew each step; at the end of an episode none.
    """

    def __init__(self, observation_space: gym.Space, action_space: gym.Space, source: str | None = None) -> None:
        self.plain, self.action_space, self.source = observation_space, action_space, source
        self.choices = spaces.actions(action_space).choices
        self.observation_space = observation_space
        if source == "observation":
            self.observation_space = Dict(seen=observation_space, action_mask=MultiBinary(sum(self.choices)))
        if source == "method":
            self.action_masks = lambda: self.mask

    def _see(self, over: bool = False):
        rng = self.np_random
        masks = [np.arange(n) != rng.integers(n) for n in self.choices]
        self.mask = np.concatenate([*masks, []]).astype(np.int8) * (not over)
        self.plain.seed(int(rng.integers(2**31)))
        seen = self.plain.sample()
        observation = {"seen": seen, "action_mask": self.mask.copy()} if self.source == "observation" else seen
        return observation, {"action_mask": self.mask.copy()} if self.source == "info" else {}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.limit = 0, int(self.np_random.integers(3, 7))
        return self._see()

    def step(self, action):
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        if self.source:
            assert self._allows(action), f"{action!r} is ruled out by {self.mask}"
        self.t += 1
        over = self.t == self.limit
        observation, info = self._see(over)
        return observation, float(self.t), over and self.limit % 2 == 0, over and self.limit % 2 == 1, info

    def _allows(self, action) -> bool:
        ends = np.cumsum(self.choices)
        chosen = options(self.action_space, action)
        return all(self.mask[end - n + a] for n, end, a in zip(self.choices, ends, chosen, strict=True))


def options(space: gym.Space, action) -> list[int]:
    """The options taken by the Discrete and MultiDiscrete parts, in order, counted from 0."""
    if isinstance(space, Discrete | MultiDiscrete):
        return np.ravel(action - space.start).tolist()
    if isinstance(space, Dict):
        return [a for name, part in space.spaces.items() for a in options(part, action[name])]
    if isinstance(space, Tuple):
        return [a for part, x in zip(space.spaces, action, strict=True) for a in options(part, x)]
    return []


def agent(observation, action, source=None, mode=None, recipe=None, **given) -> vt.Agent:
    one = lambda: Anything((OBSERVATIONS | PICTURES)[observation], ACTIONS[action], source)  # noqa: E731
    chosen = {"n_envs": 2, "n_steps": 8, "network": MLP(hidden=(4,)), "check_actor_every": 1, **given}
    recipe = recipe or vt.PPO(n_epochs=2, n_minibatches=2, ent_coef=0.01)
    return vt.Agent(one if mode is None else Vectorised(one, mode), recipe, optim=vt.Joint(lr=0.03), **chosen)


def must_be_sound(report) -> None:
    assert len(report.column("train/kl")) == 2
    assert max(report.column("train/act_mismatch")) < 2e-5
    assert max(report.column("train/first_ratio_deviation")) < 1e-4
    assert report.final["train/kl"] > 0
    assert all(np.isfinite(list(report.final.values())))


def cells():
    """The whole cross product; each way of giving a mask meets every kind of action, observation and network."""
    every = itertools.product(ACTIONS, [*OBSERVATIONS, *PICTURES], NETWORKS, (False, True))
    for i, (action, observation, network, masked) in enumerate(every):
        if network == "cnn" and observation not in PICTURES:
            continue
        if masked and not spaces.actions(ACTIONS[action]).choices:
            continue
        yield action, observation, network, SOURCES[(i // 2 + i // 72) % 3] if masked else None


def test_each_source_of_masks_meets_everything():
    masked = {(source, x) for *chosen, source in cells() for x in chosen if source}
    maskable = [name for name, space in ACTIONS.items() if spaces.actions(space).choices]
    assert masked == set(itertools.product(SOURCES, [*maskable, *OBSERVATIONS, *PICTURES, *NETWORKS]))


@pytest.mark.parametrize(("action", "observation", "network", "source"), list(cells()))
def test_two_updates(action, observation, network, source):
    """Observations as they are, then normalised, by the same compiled programs."""
    given = NETWORKS[network](observation)
    for normalised in (False, True):
        made = agent(observation, action, source, normalise_observation=normalised, network=given)
        assert made.mask_source == source
        must_be_sound(made.learn(32))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [vt.TRPO(), vt.PPOPenalty(n_minibatches=2), vt.REINFORCE(), vt.A2C()], ids=repr)
def test_other_recipes_take_masks(recipe):
    made = agent("dict", "dict", "info", recipe=recipe, n_steps=16)
    report = made.learn(64)
    assert all(np.isfinite(list(report.final.values())))
    assert max(report.column("train/act_mismatch")) < 2e-5


# ---- acting ----


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("action", ["discrete", "multidiscrete", "dict"])
def test_what_is_masked_is_never_done(action, source, mode):
    """The environments complain about it. The record holds the mask under which each action was taken."""
    made = agent("dict", action, source, mode)
    columns = made.world._collector.rollout(made.world.actor, None, 40, 0, False)
    space, seen = made._model.actions, made._model.observations
    assert columns.done.sum() > 5
    assert not (seen.stuck(columns.raw) & columns.mask).any()
    allowed = seen.allowed(columns.raw)[columns.mask]
    ends = np.cumsum(space.choices)
    kept = [allowed[:, end - n : end].sum(axis=1) for n, end in zip(space.choices, ends, strict=True)]
    assert all((x == n - 1).all() for x, n in zip(kept, space.choices, strict=True))
    policy = space.distribution(made.world.actor.outputs(columns.raw), made.world.actor.log_std)
    assert np.isfinite(policy.log_prob(columns.action)[columns.mask]).all()
    assert np.isfinite(policy.entropy()).all()
    np.testing.assert_allclose(policy.kl(policy)[columns.mask], 0, atol=1e-6)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("deterministic", [False, True])
def test_act_gives_what_the_environment_accepts(action, deterministic):
    made, space = agent("dict", action), ACTIONS[action]
    seen = OBSERVATIONS["dict"]
    for i in range(5):
        seen.seed(i)
        assert space.contains(made.act(seen.sample(), deterministic=deterministic))


def test_act_wants_the_masks_it_was_trained_with():
    made, seen = agent("vector", "multidiscrete", "method"), np.zeros(3, np.float32)
    for _ in range(20):
        np.testing.assert_array_equal(made.act(seen, action_masks=[0, 1, 0, 0, 1]), [2, 2])
    np.testing.assert_array_equal(made.act(seen, action_masks=(np.array([1, 0]), np.array([0, 1, 0]))), [1, 1])
    with pytest.raises(ValueError, match="give action_masks"):
        made.act(seen)
    with pytest.raises(ValueError, match="leaves no action"):
        made.act(seen, action_masks=[0, 1, 0, 0, 0])
    with pytest.raises(ValueError, match="leave the argument out"):
        agent("vector", "discrete").act(seen, action_masks=[1, 1, 1])
    assert made.evaluate(episodes=3).lengths != ()


def test_an_agent_of_nested_spaces_comes_back_from_its_file(tmp_path):
    made = agent("dict", "dict", "observation", normalise_observation=True)
    made.save(tmp_path / "a")
    loaded = vt.load(tmp_path / "a")
    assert loaded._model == made._model
    OBSERVATIONS["dict"].seed(0)
    observation = {"seen": OBSERVATIONS["dict"].sample(), "action_mask": np.array([0, 1, 0, 1, 0, 1, 0])}
    a, b = made.act(observation), loaded.act(observation)
    assert options(ACTIONS["dict"], a) == options(ACTIONS["dict"], b) == [1, 0, 0]


# ---- what is wrong is named ----


def test_a_mask_of_the_wrong_size_is_named():
    class Wrong(Anything):
        def reset(self, **given):
            return super().reset(**given)[0], {"action_mask": np.ones(4)}

    with pytest.raises(ValueError, match=r"action mask \(info\) has shape \(4,\): give \(3,\)"):
        vt.Agent(lambda: Wrong(OBSERVATIONS["vector"], ACTIONS["discrete"]))


def test_a_state_without_any_action_is_named():
    class Stuck(Anything):
        def step(self, action):
            *rest, info = super().step(self.action_space.start + int(np.argmax(self.mask)))
            return (*rest, {"action_mask": 0 * self.mask} if self.t == 2 else info)

    made = vt.Agent(lambda: Stuck(OBSERVATIONS["vector"], ACTIONS["discrete"], "info"), n_envs=2, n_steps=8)
    with pytest.raises(ValueError, match="slot 0 allows no action at step 2 of rollout 0"):
        made.world._collector.rollout(made.world.actor, None, 8, 0, False)


# ---- the encoding ----


@pytest.mark.parametrize("name", OBSERVATIONS)
def test_observations_are_flattened_as_gymnasium_does(name):
    space, seen = OBSERVATIONS[name], spaces.observations(OBSERVATIONS[name])
    space.seed(0)
    samples = [space.sample() for _ in range(4)]
    expected = np.stack([gym.spaces.utils.flatten(space, x) for x in samples])
    one = np.stack([seen.features(np, seen.record(x)) for x in samples])
    np.testing.assert_allclose(one, expected, rtol=1e-6)
    batch = gym.vector.utils.concatenate(space, samples, gym.vector.utils.create_empty_array(space, 4))
    np.testing.assert_array_equal(seen.features(np, seen.record(batch)), one)


def test_only_quantities_are_normalised():
    made = agent("dict", "discrete", "info", normalise_observation=True)
    numeric = made._model.observations.numeric
    assert numeric.tolist() == [True, True, *[False] * 3, *[False] * 2, True, *[False] * 3]
    x = np.random.default_rng(0).normal(5.0, 3.0, (100, len(numeric)))
    moments = made.world.moments.moved(x).only(numeric)
    seen = observe(moments, x.astype(np.float32))
    np.testing.assert_allclose(seen[:, numeric].std(axis=0), 1, atol=1e-3)
    np.testing.assert_allclose(seen[:, ~numeric], np.clip(x[:, ~numeric], -10, 10), rtol=1e-5)


def test_a_joint_policy_is_the_product_of_its_parts(rng):
    space = spaces.actions(ACTIONS["dict"])
    outputs = rng.standard_normal((6, space.outputs)).astype(np.float32)
    log_std = rng.standard_normal(space.stds).astype(np.float32)
    action = space.sample(outputs, np.exp(log_std), space.noise(rng, (6,)))
    policy, each = space.distribution(outputs, log_std), space.split(action)
    alone = [part.log_prob(a) for part, a in zip(policy.parts, each, strict=True)]
    np.testing.assert_allclose(policy.log_prob(action), sum(alone), rtol=1e-6)
    again = space.rebuild(policy.parameters)
    np.testing.assert_array_equal(again.log_prob(action), policy.log_prob(action))
    np.testing.assert_array_equal(space.join(each), action)
    np.testing.assert_array_equal(policy.mode(), space.mode(outputs))


def test_switches_are_drawn_with_the_probability_they_score(rng):
    space = spaces.actions(MultiBinary(2))
    logits = np.tile(np.array([0.5, -1.5], np.float32), (20_000, 1))
    share = space.sample(logits, None, space.noise(rng, (20_000,))).mean(axis=0)
    np.testing.assert_allclose(share, 1 / (1 + np.exp([-0.5, 1.5])), atol=0.015)
