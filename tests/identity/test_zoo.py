"""Hyperparameters of RL Baselines3 Zoo: what each key sets; the loss is Stable-Baselines3's to the gradient."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vantage as vt
from vantage.control import LSTM, MLP, Atari
from vantage.control.defaults import TUNED
from vantage.control.settings import settings
from vantage.control.zoo import ANYWHERE, FIELDS, STANDARD, from_zoo
from vantage.theory.distributions import Categorical
from vantage.theory.loss import Batch, Outputs, loss

N, D, A = 48, 3, 4


def sb3_loss(x, data, *, clip_range, ent_coef, vf_coef, normalize_advantage):
    """`PPO.train` of Stable-Baselines3 on one minibatch, written out: policy, value and entropy loss."""
    logits, values = data["s"] @ x["pi"], data["s"] @ x["v"]
    log_all = logits - jax.scipy.special.logsumexp(logits, axis=1, keepdims=True)
    log_prob = jnp.take_along_axis(log_all, data["a"][:, None], axis=1)[:, 0]
    entropy = -jnp.sum(jnp.exp(log_all) * log_all, axis=1)
    advantages = data["psi"]
    if normalize_advantage:
        advantages = (advantages - advantages.mean()) / (advantages.std(ddof=1) + 1e-8)
    r = jnp.exp(log_prob - data["old"])
    policy_loss = -jnp.minimum(advantages * r, advantages * jnp.clip(r, 1 - clip_range, 1 + clip_range)).mean()
    value_loss = ((data["returns"] - values) ** 2).mean()
    return policy_loss + ent_coef * -entropy.mean() + vf_coef * value_loss


def ours(x, data, tuned):
    recipe, optim = tuned.settings["recipe"], tuned.settings["optim"]
    pi = Categorical(data["s"] @ x["pi"])
    batch = Batch(log_prob=data["old"], psi=data["psi"], target=data["returns"], value=data["returns"],
                  reward=data["psi"], discount=data["psi"], mask=jnp.ones(N, bool), weight=None)  # fmt: skip
    outputs = Outputs(log_prob=pi.log_prob(data["a"]), entropy=pi.entropy(), value=data["s"] @ x["v"])
    return loss(recipe.at(0.0), batch, outputs, vf_coef=optim.vf_coef)[0]


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    data = {
        "s": rng.standard_normal((N, D)), "a": rng.integers(0, A, N), "psi": 3 + rng.standard_normal(N),
        "returns": rng.standard_normal(N), "old": np.log(rng.uniform(0.1, 0.6, N)),
    }  # fmt: skip
    x = {"pi": rng.standard_normal((D, A)), "v": rng.standard_normal(D)}
    return jax.tree.map(jnp.asarray, x), jax.tree.map(jnp.asarray, data)


@pytest.mark.parametrize(
    "options",
    [{"clip_range": 0.3, "ent_coef": 0.02, "vf_coef": 0.9}, {"clip_range": "lin_0.1", "ent_coef": 0.0, "vf_coef": 0.5}],
)
def test_one_minibatch_has_the_gradient_of_stable_baselines3(case, options):
    """vf_coef needs no factor of 2, the entropy enters with the same sign, and lin_x starts at x."""
    x, data = case
    tuned = from_zoo({**options, "normalize_advantage": False})
    numbers = {name: float(str(value).removeprefix("lin_")) for name, value in options.items()}
    wanted = jax.grad(sb3_loss)(x, data, **numbers, normalize_advantage=False)
    found = jax.grad(ours)(x, data, tuned)
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], rtol=2e-5, atol=1e-6)


def test_normalised_advantages_differ_by_the_stated_factor(case):
    x, data = case
    tuned = from_zoo({"vf_coef": 0.0})
    wanted = jax.grad(sb3_loss)(x, data, clip_range=0.2, ent_coef=0.0, vf_coef=0.0, normalize_advantage=True)
    found = jax.grad(ours)(x, data, tuned)["pi"]
    np.testing.assert_allclose(found, np.sqrt(N / (N - 1)) * wanted["pi"], rtol=2e-5, atol=1e-6)


def test_the_tuned_settings_of_cartpole():
    """The entry in our own words, and all others make an agent's settings."""
    known = TUNED["CartPole-v1"]
    recipe = vt.PPO(clip_range=vt.Linear(0.2), gae_lambda=0.8, n_epochs=20, n_minibatches=1, target_kl=0.03)
    assert settings(**known.settings) == settings(
        recipe=recipe, gamma=0.98, n_envs=8, n_steps=32, optim=vt.Joint(lr=vt.Linear(1e-3))
    )
    assert known.total_steps == 100_000
    assert all(settings(**tuned.settings).batch_size >= 32 for tuned in TUNED.values())


def test_every_key_has_an_effect():
    """Changed alone, each key changes what comes out; those of gSDE do so together."""
    other = dict(
        n_timesteps=5, n_envs=3, n_steps=99, batch_size=7, n_epochs=3, gamma=0.5, gae_lambda=0.5, learning_rate=1e-2,
        clip_range=0.7, ent_coef=0.5, vf_coef=0.7, max_grad_norm=3, target_kl=0.1, normalize_advantage=False,
        normalize=True, policy_kwargs="dict(net_arch=[32])", seed=4,
    )  # fmt: skip
    plain = from_zoo({})
    of_others = {name for name in FIELDS if name not in ANYWHERE | STANDARD["ppo"].keys()}
    other |= {"frame_stack": 2, "env_wrapper": "gymnasium.wrappers.FlattenObservation"}
    assert other.keys() | {"policy", "use_sde", "sde_sample_freq"} | of_others == FIELDS.keys()
    assert all(from_zoo({name: value}) != plain for name, value in other.items())
    assert from_zoo({"use_sde": False, "sde_sample_freq": 4, "policy": "MlpPolicy"}) == plain
    assert from_zoo({"use_sde": True}).settings == plain.settings | {"use_sde": True, "sde_sample_freq": -1}
    held = from_zoo({"use_sde": True, "sde_sample_freq": 4.0})
    assert held.settings == plain.settings | {"use_sde": True, "sde_sample_freq": 4}


def test_defaults_are_those_of_stable_baselines3():
    found = from_zoo({})
    assert found.settings["optim"] == vt.Joint(lr=3e-4, vf_coef=0.5, max_grad_norm=0.5, eps=1e-5)
    assert found.settings["recipe"] == vt.PPO(n_epochs=10, n_minibatches=32)
    assert (found.settings["n_envs"], found.settings["n_steps"]) == (1, 2048)


def test_networks_and_normalisation():
    written = "dict(activation_fn=nn.ReLU, net_arch=dict(pi=[256, 256], vf=[256, 256]))"
    assert from_zoo({"policy_kwargs": written}).settings["network"] == MLP(hidden=(256, 256), activation="relu")
    older = written.replace("dict(pi", "[dict(pi").replace("256]))", "256])])")
    assert from_zoo({"policy_kwargs": older}).settings["network"] == MLP(hidden=(256, 256), activation="relu")
    began = from_zoo({"policy_kwargs": "dict(log_std_init=-2, ortho_init=False)"}).settings
    assert began["network"] == MLP(orthogonal=False)
    assert began["std_init"] == pytest.approx(np.exp(-2))
    found = from_zoo({"normalize": "{'norm_obs': True, 'norm_reward': False}"}).settings
    assert (found["normalise_observation"], found["normalise_reward"]) == (True, False)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"learning_rte": 1}, "did you mean 'learning_rate', which sets optim.lr"),
        ({"clip_range_vf": 0.2}, "ClippedValue"),
        ({"env_wrapper": "x.Y"}, "callable"),
        ({"env_wrapper": "os.system"}, "not imported"),
        ({"env_wrapper": "rl_zoo3.wrappers.MaskVelocityWrapper"}, "callable"),
        ({"env_wrapper": "gymnasium.wrappers.RecordVideo"}, "callback RecordVideo"),
        ({"env_wrapper": {"stable_baselines3.common.atari_wrappers.AtariWrapper": {"skip": 2}}}, "'skip'"),
        ({"policy": "MlpLstmPolicy"}, "MlpPolicy"),
        ({"cg_damping": 0.1}, "no key of ppo"),
        ({"policy_kwargs": "dict(lstm_hidden_size=8)"}, "ppo_lstm"),
        ({"policy_kwargs": "dict(optimizer_class=th.optim.SGD)"}, "SGD"),
        ({"policy_kwargs": "dict(full_std=True)"}, "full_std"),
        ({"policy_kwargs": "__import__('os').getcwd()"}, "not understood"),
        ({"normalize": "{'gamma': 1}"}, "gamma"),
    ],
)
def test_what_has_no_counterpart_is_refused(options, part):
    with pytest.raises(ValueError, match=part):
        from_zoo(options)
    name = next(iter(options))
    assert from_zoo(options, leave_out=[name]) == from_zoo({})


def test_the_comparison_of_gradients_can_fail(case):
    x, data = case
    tuned = from_zoo({"vf_coef": 0.5, "normalize_advantage": False})
    half = replace(tuned, settings={**tuned.settings, "optim": vt.Joint(vf_coef=0.25)})
    assert not np.allclose(jax.grad(ours)(x, data, tuned)["v"], jax.grad(ours)(x, data, half)["v"], rtol=1e-3)


# ---- algorithms, networks and wrappers besides PPO's ----


def test_the_defaults_of_the_other_algorithms():
    """A2C of Stable-Baselines3 has PyTorch's RMSprop; TRPO and RecurrentPPO are sb3-contrib's."""
    a2c = from_zoo({}, algorithm="a2c").settings
    rms = vt.recipe.RMSProp(decay=0.99)
    assert a2c["optim"] == vt.Joint(lr=7e-4, vf_coef=0.5, max_grad_norm=0.5, eps=1e-5, optimiser=rms)
    assert (a2c["recipe"], a2c["n_steps"]) == (vt.A2C(psi=vt.GAE(lam=1.0)), 5)
    trpo = from_zoo({}, algorithm="trpo").settings
    assert trpo["recipe"] == vt.TRPO(n_minibatches=16)
    assert trpo["optim"] == vt.Joint(lr=1e-3, vf_coef=1.0, max_grad_norm=None)
    lstm = from_zoo({}, algorithm="ppo_lstm").settings
    assert (lstm["network"], lstm["n_steps"]) == (LSTM(sequence_length=128), 128)
    with pytest.raises(ValueError, match="ppo, ppo_lstm, a2c, trpo"):
        from_zoo({}, algorithm="sac")


def test_each_key_of_the_other_algorithms_has_an_effect():
    other = {
        "a2c": dict(use_rms_prop=False, rms_prop_eps=1e-3, normalize_advantage=True),
        "trpo": dict(
            cg_max_steps=3, cg_damping=0.5, line_search_max_iter=4, line_search_shrinking_factor=0.5,
            n_critic_updates=3, target_kl=0.1,
        ),
    }  # fmt: skip
    for algorithm, keys in other.items():
        plain = from_zoo({}, algorithm=algorithm)
        assert all(from_zoo({name: x}, algorithm=algorithm) != plain for name, x in keys.items())


def test_optimisers_by_name():
    def optim(written):
        return from_zoo({"policy_kwargs": written, "use_rms_prop": True}, algorithm="a2c").settings["optim"]

    games = optim("dict(optimizer_class=RMSpropTFLike, optimizer_kwargs=dict(eps=1e-5))")
    assert (games.optimiser, games.eps, games.lr) == (vt.recipe.RMSPropTF(decay=0.99), 1e-5, 7e-4)
    adam = optim("dict(optimizer_class=th.optim.Adam, optimizer_kwargs=dict(betas=(0.5, 0.9)))")
    assert (adam.optimiser, adam.eps) == (vt.recipe.Adam(b1=0.5, b2=0.9), 1e-8)


def test_networks_of_unlike_widths_and_recurrent_ones():
    unlike = from_zoo({"policy_kwargs": "dict(net_arch=dict(pi=[8], vf=[16, 4]))"}).settings["network"]
    assert unlike == MLP(hidden=(8,), critic_hidden=(16, 4))
    written = "dict(enable_critic_lstm=False, lstm_hidden_size=64, n_lstm_layers=2, net_arch=dict(pi=[8], vf=[16]))"
    keys = {"policy": "MlpLstmPolicy", "policy_kwargs": written, "n_steps": 32, "batch_size": 256, "n_envs": 8}
    found = from_zoo(keys, algorithm="ppo_lstm").settings
    after = MLP(hidden=(8,), critic_hidden=(16,))
    assert found["network"] == LSTM(hidden=64, layers=2, after=after, critic_remembers=False, sequence_length=32)
    assert settings(**found).items == 8
    shared = from_zoo({"policy_kwargs": "dict(shared_lstm=True, enable_critic_lstm=False)"}, algorithm="ppo_lstm")
    assert shared.settings["network"] == LSTM(shared=True, detached=True, sequence_length=128)


def test_wrappers_are_those_of_gymnasium_by_name():
    racing = [
        {"rl_zoo3.wrappers.FrameSkip": {"skip": 2}},
        {"gym.wrappers.resize_observation.ResizeObservation": {"shape": 64}},
        {"gymnasium.wrappers.transform_observation.GrayscaleObservation": {"keep_dim": True}},
    ]
    found = from_zoo({"env_wrapper": racing, "frame_stack": 2, "policy": "CnnPolicy"}).settings
    assert found["wrappers"] == {
        "RepeatAction": {"num_repeats": 2}, "ResizeObservation": {"shape": (64, 64)},
        "GrayscaleObservation": {"keep_dim": True},
    }  # fmt: skip
    assert list(found["wrappers"]) == ["RepeatAction", "ResizeObservation", "GrayscaleObservation"]
    assert found["frame_stack"] == 2
    assert "network" not in found


def test_the_wrapper_of_games_is_a_setting():
    name = "stable_baselines3.common.atari_wrappers.AtariWrapper"
    assert from_zoo({"env_wrapper": [name], "frame_stack": 4}).settings["atari"] == Atari()
    given = {"env_wrapper": [{name: {"terminal_on_life_loss": False, "screen_size": 42}}], "frame_stack": 2}
    assert from_zoo(given).settings["atari"] == Atari(life_ends=False, size=42, frames=2)
