"""Pictures: how they are recorded, what convolutions make of them, Atari games, and a task learned from pixels."""

from dataclasses import replace

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, Tuple
from gymnasium.vector import AutoresetMode
from jax import lax

import vantage as vt
from tests.worlds.control_envs import Counter, Vectorised
from vantage.control import MLP, Atari, NatureCNN, SmallCNN, spaces
from vantage.control.convolution import CHUNK, convolve, fitting
from vantage.control.images import ImageObservations, PackedObservations, to_bytes, to_numbers
from vantage.control.networks import Image, Inputs, forward, host_forward
from vantage.control.settings import Settings

# ---- the convolution ----


def by_xla(x, weight, stride):
    return lax.conv_general_dilated(x, weight, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))


@pytest.mark.parametrize(
    ("size", "kernel", "stride"),
    [((84, 84), (8, 8), 4), ((20, 20), (4, 4), 2), ((9, 9), (3, 3), 1), ((11, 13), (3, 3), 2), ((5, 9), (2, 3), 3),
     ((7, 7), (3, 3), 4), ((1, 1), (1, 1), 4)],
)  # fmt: skip
def test_convolve_is_the_convolution(size, kernel, stride, rng):
    x = jnp.asarray(rng.standard_normal((2, *size, 3)), jnp.float32)
    weight = jnp.asarray(rng.standard_normal((*kernel, 3, 5)), jnp.float32)

    def both(convolution):
        value = lambda x, w: jnp.mean(jnp.sin(convolution(x, w, stride)))  # noqa: E731
        return convolution(x, weight, stride), *jax.jit(jax.grad(value, (0, 1)))(x, weight)

    for ours, theirs in zip(both(convolve), both(by_xla), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * float(jnp.abs(theirs).max()))


@pytest.mark.parametrize("side", [1, 2, 3, 7, 12, 35, 36])
def test_a_picture_of_any_size_has_a_network(side, rng):
    inputs = Inputs(size=side * side, images=(Image(start=0, height=side, width=side, channels=1),))
    network = fitting(inputs)
    assert type(network) is (SmallCNN if side < 36 else NatureCNN)
    module = replace(network, features=4).build(rng, inputs, 3, 1.0)
    assert forward(module, jnp.zeros((2, 5, side * side))).shape == (2, 5, 3)


def test_nature_has_the_shape_of_its_paper(rng):
    inputs = Inputs(size=84 * 84 * 4, images=(Image(start=0, height=84, width=84, channels=4),))
    trunk, n = NatureCNN().build_trunk(rng, inputs)
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(trunk)]
    assert n == 512
    assert set(shapes) >= {(8, 8, 4, 32), (4, 4, 32, 64), (3, 3, 64, 64), (3136, 512)}
    assert sum(int(np.prod(shape)) for shape in shapes) == 1_684_128


def test_many_pictures_are_read_as_each_alone(rng):
    inputs = Inputs(size=6 * 6 + 2, images=(Image(start=0, height=6, width=6, channels=1),))
    network = SmallCNN(features=3, channels=(2,), kernels=(3,), strides=(2,), beside=()).build(rng, inputs, 2, 1.0)
    x = rng.random((2 * CHUNK + 3, inputs.size), np.float32)
    alone = np.concatenate([forward(network, row[None]) for row in x[::50]])
    np.testing.assert_allclose(np.asarray(forward(network, x))[::50], alone, atol=1e-6)
    np.testing.assert_allclose(host_forward(network)(x[:4]), forward(network, x[:4]), atol=1e-6)
    gradient = jax.grad(lambda z: forward(network, z)[3, 1])(x)
    assert np.abs(gradient[3, 36:]).min() > 0  # the numbers beside are read too
    assert not gradient[2].any()


def test_what_does_not_fit_is_named(rng):
    with pytest.raises(ValueError, match=r"NatureCNN.kernels = \(3,\).*one number for each of the 3"):
        NatureCNN(kernels=(3,))
    with pytest.raises(ValueError, match="holds no picture"):
        NatureCNN().build(rng, Inputs(size=3), 2, 1.0)


# ---- the record ----

LAYOUTS = {
    "last": (Box(0, 255, (5, 6, 3), np.uint8), None, lambda x: x),
    "first": (Box(0, 255, (3, 5, 6), np.uint8), None, lambda x: x.transpose(1, 2, 0)),
    "grey": (Box(0, 255, (5, 6), np.uint8), None, lambda x: x[..., None]),
    "told": (Box(0, 255, (3, 5, 6), np.uint8), "last", lambda x: x),
    "stacked": (Box(0, 255, (4, 5, 6), np.uint8), None, lambda x: x.transpose(1, 2, 0)),
    "stacked colours": (
        Box(0, 255, (2, 5, 6, 3), np.uint8), None, lambda x: np.concatenate([x[0], x[1]], axis=-1),
    ),
    "floats": (Box(-1.0, 1.0, (5, 6, 3), np.float32), None, lambda x: x),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_picture_is_recorded_channel_last(name):
    space, channels, last = LAYOUTS[name]
    seen = spaces.observations(space, channels=channels)
    assert isinstance(seen, ImageObservations)
    samples = [space.sample() for _ in range(3)]
    expected = np.stack([last(x) for x in samples])
    recorded = seen.record(np.stack(samples))
    assert recorded.dtype == space.dtype
    np.testing.assert_array_equal(recorded, expected)
    low, high = (-1, 1) if name == "floats" else (0, 255)
    scaled = (expected.reshape(3, -1).astype(np.float64) - low) / (high - low)
    np.testing.assert_allclose(seen.features(np, recorded), scaled, atol=1e-6)
    np.testing.assert_allclose(
        jax.jit(lambda x: seen.features(jnp, seen.record(x)))(np.stack(samples)), scaled, atol=1e-6
    )


@pytest.mark.parametrize("space", [Box(-np.inf, np.inf, (4, 4, 3)), Box(0, 255, (4, 4), np.float32),
                                   Box(np.array([[[0.0]], [[1.0]]]), np.array([[[1.0]], [[2.0]]]))])  # fmt: skip
def test_what_is_no_picture_is_read_as_numbers(space):
    assert not spaces.observations(space).inputs.images


MIXED = Dict(
    colour=Box(0, 255, (3, 5, 6), np.uint8),
    deep=Tuple([Box(0, 255, (4, 4), np.uint8), Discrete(3, start=1)]),
    planes=Box(0.0, 2.0, (4, 5, 2), np.float32),
    x=Box(-50.0, 50.0, (2,), np.float32),
)


def test_pictures_numbers_and_masks_share_one_row_of_bytes(rng):
    seen = spaces.observations(MIXED, "method", (3,))
    assert isinstance(seen, PackedObservations)
    samples = [MIXED.sample() for _ in range(3)]
    batch = gym.vector.utils.concatenate(MIXED, samples, gym.vector.utils.create_empty_array(MIXED, 3))
    mask = np.array([[1, 0, 1], [0, 1, 0], [0, 0, 0]])
    recorded = seen.record(batch, mask)
    assert (recorded.dtype, recorded.shape) == (np.uint8, (3, 90 + 16 + 4 * (3 + 40 + 2) + 3))
    np.testing.assert_array_equal(seen.record(samples[1], mask[1]), recorded[1])
    np.testing.assert_array_equal(jax.jit(seen.record)(jax.tree.map(jnp.asarray, batch), mask), recorded)
    np.testing.assert_array_equal(seen.allowed(recorded), mask == 1)
    assert seen.stuck(recorded).tolist() == [False, False, True]

    features = seen.features(np, recorded)
    np.testing.assert_allclose(jax.jit(lambda r: seen.features(jnp, r))(recorded), features, atol=1e-6)
    pictures = [batch["colour"].transpose(0, 2, 3, 1) / 255, batch["deep"][0][..., None] / 255, batch["planes"] / 2]
    for image, expected in zip(seen.inputs.images, pictures, strict=True):
        cut = features[:, image.start : image.start + image.size].reshape(expected.shape)
        np.testing.assert_allclose(cut, expected, atol=1e-6)
    np.testing.assert_array_equal(features[:, 106:109], batch["deep"][1][:, None] == [1, 2, 3])
    np.testing.assert_array_equal(features[:, -2:], batch["x"])

    numbers = seen.numbers(recorded)
    assert numbers.shape[1:] == seen.statistics
    assert np.flatnonzero(seen.numeric).tolist() == [43, 44]
    moved = seen.with_numbers(recorded, numbers + 1)
    np.testing.assert_array_equal(seen.numbers(moved), numbers + 1)
    np.testing.assert_array_equal(np.delete(moved, np.s_[106:286], axis=1), np.delete(recorded, np.s_[106:286], axis=1))


def test_bytes_hold_numbers_exactly(rng):
    x = rng.standard_normal((2, 3, 4)).astype(np.float32)
    np.testing.assert_array_equal(to_numbers(to_bytes(x)), x)
    np.testing.assert_array_equal(jax.jit(to_bytes)(x), to_bytes(x))
    np.testing.assert_array_equal(jax.jit(to_numbers)(to_bytes(x)), x)


# ---- frames ----


class Dot(gym.Env):
    """Five steps with pictures that say how many steps were taken."""

    observation_space, action_space = Box(0, 255, (8, 8), np.uint8), Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.full((8, 8), 10, np.uint8), {}

    def step(self, action):
        self.t += 1
        return np.full((8, 8), 10 + self.t, np.uint8), 1.0, self.t == 5, False, {}


def test_observations_are_stacked_the_latest_last():
    made = vt.Agent(Dot, frame_stack=3, n_envs=2, n_steps=7)
    columns = made.world._collector.rollout(made.world.actor, None, 7, 0, False)
    assert columns.raw.shape == (7, 2, 8, 8, 3)
    assert columns.raw[:, 0, 0, 0].tolist() == [[10, 10, 10], [10, 10, 11], [10, 11, 12], [11, 12, 13], [12, 13, 14],
                                                [10, 10, 10], [10, 10, 11]]  # fmt: skip
    assert columns.reached[4, 0, 0, 0].tolist() == [13, 14, 15]
    vectors = vt.Agent(Counter, vt.A2C(), frame_stack=2, n_envs=1, n_steps=2)
    columns = vectors.world._collector.rollout(vectors.world.actor, None, 2, 0, False)
    assert columns.raw[:, 0].tolist() == [[0, 0, 0, 0], [0, 0, 0, 1]]
    with pytest.raises(ValueError, match="only Gymnasium's environments are stacked"):
        vt.Agent("gymnax:CartPole-v1", frame_stack=2)


def test_pixels_can_be_read_by_a_perceptron():
    made = vt.Agent(Dot, network=MLP(hidden=(4,)), n_envs=1, n_steps=5)
    assert made._model.size > 64 * 4
    assert made.state_values(np.zeros((3, 8, 8), np.uint8)).shape == (3,)


# ---- Atari games ----


class Lives(Dot):
    """Rewards of 3; a life is lost at the second and at the fourth of five steps."""

    def _info(self):
        return {"lives": 3 - (self.t >= 2) - (self.t >= 4)}

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0], self._info()

    def step(self, action):
        return super().step(action)[0], 3.0, self.t == 5, False, self._info()


@pytest.mark.parametrize("mode", AutoresetMode)
def test_a_lost_life_ends_the_return_and_not_the_game(mode):
    made = vt.Agent(Vectorised(Lives, mode), n_envs=4, n_steps=11, gamma=0.9)
    world = made.world
    world._settings = replace(world._settings, atari=Atari())
    world._collector.life_ends = True
    rollout = world.collect(made.settings.recipe)
    discount, last, mask = (np.asarray(x)[:, 0] for x in (rollout.discount, rollout.last, rollout.mask))
    if mode is AutoresetMode.NEXT_STEP:
        assert mask.tolist() == [True] * 5 + [False] + [True] * 5
        discount, last = discount[mask], last[mask]
    np.testing.assert_allclose(discount[:10], [0.9, 0, 0.9, 0, 0] * 2)
    assert np.flatnonzero(last[:10]).tolist() == [4, 9]
    assert world._collector.episodes[0] == (15.0, 5)
    assert set(np.unique(rollout.signal[rollout.mask])) == {1.0}
    assert set(np.unique(rollout.reward[rollout.mask])) == {3.0}


def test_the_return_of_a_whole_game_is_refused_where_a_life_ends_it():
    """Behind the first lost life each step would be weighed by the return of the life before."""
    whole = vt.REINFORCE(psi=vt.TotalReturn())
    with pytest.raises(ValueError, match=r"psi.*set atari=Atari\(life_ends=False\)"):
        Settings(recipe=whole, atari=Atari())
    Settings(recipe=whole, atari=Atari(life_ends=False))
    Settings(recipe=vt.REINFORCE(psi=vt.RewardToGo()), atari=Atari())


def test_what_is_no_game_has_no_atari():
    with pytest.raises(ValueError, match="atari: CartPole-v1 is no Atari game"):
        vt.Agent("CartPole-v1", atari=Atari())
    with pytest.raises(ValueError, match=r"Atari\.size = 0"):
        Atari(size=0)


def game(env, slots, **given):
    pytest.importorskip("ale_py")
    pytest.importorskip("cv2")
    tiny = NatureCNN(channels=(2,), kernels=(8,), strides=(8,), features=4)
    return vt.Agent(env, **{"n_envs": slots, "n_steps": 8, "network": tiny, **given})


@pytest.mark.parametrize("slots", [2, 4])
def test_a_game_is_shown_as_is_usual(slots):
    """By Gymnasium's wrappers and by ale-py's vector implementation alike."""
    made = game("ALE/Breakout-v5", slots, atari=Atari(noop_max=0))
    assert made._model.observations.shape == (84, 84, 4)
    assert ("AtariVectorEnv" in made.backend) == (slots == 4)
    assert "4 grey pictures of 84 × 84" in made.backend
    first = made.world._collector.observation
    assert first.dtype == np.uint8
    assert first[..., 3].max() > 100
    columns = made.world._collector.rollout(made.world.actor, None, 8, 0, False)
    np.testing.assert_array_equal(columns.raw[1:, ..., :3], columns.raw[:-1, ..., 1:])


def test_both_ways_of_stepping_a_game_show_the_same_pictures():
    pytest.importorskip("ale_py")
    pytest.importorskip("cv2")
    chosen = Atari(noop_max=0)
    one = chosen.one("ALE/Breakout-v5", None, repeat_action_probability=0.0)
    several = chosen.several("ALE/Breakout-v5", 1, None, repeat_action_probability=0.0)
    seen, (all_seen, _) = one.reset(seed=0)[0], several.reset(seed=0)
    for t in range(40):
        np.testing.assert_array_equal(seen[-1], all_seen[0][-1], err_msg=f"at step {t}")
        seen, reward, *_, info = one.step(2 + t % 2)
        all_seen, rewards, *_, infos = several.step(np.array([2 + t % 2]))
        assert (reward, info["lives"]) == (rewards[0], infos["lives"][0])


def test_options_of_a_game_have_one_home():
    with pytest.raises(ValueError, match=r"frameskip is set by atari"):
        game("ALE/Breakout-v5", 2, env_kwargs={"frameskip": 2})
    with pytest.raises(ValueError, match=r"games are stacked by atari=Atari\(frames=2\)"):
        game("ALE/Breakout-v5", 2, frame_stack=2)


def test_a_game_of_old_name_is_one():
    assert game("BreakoutNoFrameskip-v4", 1).settings.atari == Atari()
    assert game("ALE/Breakout-v5", 1, env_kwargs={"obs_type": "ram"}, network=MLP()).settings.atari is None


# ---- a task learned from pixels ----


class Catch(gym.Env):
    """A ball falls through a picture of 10 × 10; the paddle at the bottom must be under it: +1, else −1."""

    observation_space, action_space, side = Box(0, 255, (10, 10, 1), np.uint8), Discrete(3), 10

    def _see(self):
        picture = np.zeros((self.side, self.side, 1), np.uint8)
        picture[self.t, self.ball] = picture[-1, self.paddle] = 255
        return picture

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, (self.ball, self.paddle) = 0, self.np_random.integers(self.side, size=2)
        return self._see(), {}

    def step(self, action):
        self.t, self.paddle = self.t + 1, int(np.clip(self.paddle + action - 1, 0, self.side - 1))
        over = self.t == self.side - 1
        return self._see(), (2.0 * (self.ball == self.paddle) - 1.0) * over, over, False, {}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_ball_is_caught(seed):
    """A random paddle catches 1 in 10: mean return −0.8."""
    optim, recipe = vt.Joint(lr=1e-3), vt.PPO(n_minibatches=4, n_epochs=4, ent_coef=0.01)
    made = vt.Agent(Catch, recipe, n_envs=16, n_steps=64, optim=optim, seed=seed)
    assert type(made.settings.network) is SmallCNN
    made.learn(60_000)
    assert made.evaluate(episodes=100).mean > 0.8
