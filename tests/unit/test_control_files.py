"""Checkpoints and settings on disk: what goes in comes out, what is damaged is named, nothing carries code."""

import json
import os
from dataclasses import dataclass

import numpy as np
import pytest
from safetensors.numpy import save_file

import vantage as vt
from tests.worlds.control_envs import Counter
from vantage.control import MLP, Settings
from vantage.control.defaults import TUNED
from vantage.recipe import BatchMean, GroupMean
from vantage.runs import checkpoint, from_json, to_json
from vantage.runs import config as configuration


def test_arrays_of_every_layout_come_back(tmp_path):
    x = np.arange(12.0).reshape(3, 4)
    arrays = {"a": {"transposed": x.T, "strided": x[:, ::2], "fortran": np.asfortranarray(x)},
              "scalar": np.float64(3.0), "empty": np.zeros((0, 2)), "flags": np.array([True, False]),
              "big": np.array([2**63], np.uint64)}  # fmt: skip
    checkpoint.save(tmp_path / "c", arrays, {"huge": 2**127 + 1, "none": None})
    back, info = checkpoint.load(tmp_path / "c")
    assert info == {"huge": 2**127 + 1, "none": None}
    for name, value in arrays.pop("a").items():
        np.testing.assert_array_equal(back["a"][name], value)
    for name, value in arrays.items():
        np.testing.assert_array_equal(back[name], value)
        assert back[name].shape == np.shape(value)


def test_a_truncated_file_is_named_and_its_predecessor_lives(tmp_path):
    checkpoint.save(tmp_path / "good", {"x": np.arange(1000)}, {})
    whole = (tmp_path / "good").read_bytes()
    for size in (0, 7, 100, len(whole) - 1):
        (tmp_path / "bad").write_bytes(whole[:size])
        with pytest.raises(ValueError, match="bad is truncated or no checkpoint"):
            checkpoint.load(tmp_path / "bad")
    assert checkpoint.load(tmp_path / "good")[0]["x"].sum() == 499500


def test_foreign_and_missing_files_are_named(tmp_path):
    save_file({"x": np.zeros(3)}, tmp_path / "foreign")
    with pytest.raises(ValueError, match="not one that Vantage wrote"):
        checkpoint.load(tmp_path / "foreign")
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        vt.load(tmp_path / "missing")


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    checkpoint.save(tmp_path / "c", {"x": np.ones(3)}, {})

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="free the disk") as caught:
        checkpoint.save(tmp_path / "c", {"x": np.zeros(3)}, {})
    assert caught.value.errno == 28
    np.testing.assert_array_equal(checkpoint.load(tmp_path / "c")[0]["x"], 1.0)
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(OSError, match="no checkpoint could be written"):
        checkpoint.save(tmp_path / "nowhere" / "c", {}, {})


@pytest.mark.parametrize(
    "recipe",
    [
        vt.PPO(clip_range=vt.Linear(0.2, 0.1), clip_range_high=0.3, target_kl=0.01),
        vt.PPOPenalty(rule=vt.Proportional(target=0.1)),
        vt.REINFORCE(psi=vt.RewardToGo(baseline=BatchMean(leave_one_out=True))),
        vt.REINFORCE(psi=vt.RewardToGo(baseline=GroupMean())),
        vt.A2C(psi=vt.KStep(k=3), critic=vt.ClippedValue(width=0.5), reduction=vt.Constant(n=3.0)),
    ],
)
def test_settings_come_back_equal(recipe):
    settings = Settings(
        recipe=recipe, network=MLP(hidden=(3, 5)), optim=vt.Separate(actor_lr=vt.Linear(1e-3)), n_envs=7
    )
    assert from_json(json.loads(json.dumps(to_json(settings)))) == settings


@pytest.mark.parametrize("env", TUNED)
def test_tuned_settings_name_real_fields_and_come_back(env):
    settings = Settings(**TUNED[env].settings)
    assert from_json(json.loads(json.dumps(to_json(settings)))) == settings


def test_unknown_types_and_fields_are_refused():
    with pytest.raises(ValueError, match=r"'Clib' is unknown \(did you mean 'Clip'\?\).*runs.known"):
        from_json({"type": "Clib"})
    with pytest.raises(ValueError, match="Clip has no field 'lo'"):
        from_json({"type": "Clip", "lo": 0.1})
    with pytest.raises(TypeError, match="object cannot be written"):
        to_json(object())


def test_two_classes_cannot_have_one_name_in_files():
    import vantage.language.settings  # its Settings are not those of control

    assert configuration.tag(vantage.language.settings.Settings) == "language.Settings"
    assert configuration.KNOWN["Settings"] is Settings

    @dataclass(frozen=True)
    class Clip:
        pass

    with pytest.raises(ValueError, match=r"Clip is the name of vantage.recipe.objective.Clip in files"):
        configuration.known(Clip)


@dataclass(frozen=True)
class Mine:
    width: int = 3

    def build(self, rng, inputs, outputs, gain):
        return MLP(hidden=(self.width,)).build(rng, inputs, outputs, gain)


def test_a_network_of_ones_own_is_named_once_it_is_known_and_given_before(tmp_path, monkeypatch):
    agent = vt.Agent("CartPole-v1", network=Mine(), n_envs=2)
    agent.save(tmp_path / "a")
    with pytest.raises(ValueError, match=r"Mine is a class of the user's own.*or give it: vt.load\(path, network=…\)"):
        vt.load(tmp_path / "a")
    assert vt.load(tmp_path / "a", network=Mine()).settings == agent.settings
    monkeypatch.setitem(configuration.KNOWN, "Mine", Mine)
    agent.save(tmp_path / "a")
    assert vt.load(tmp_path / "a").settings == agent.settings
    monkeypatch.delitem(configuration.KNOWN, "Mine")
    with pytest.raises(ValueError, match="import the module that defines it"):
        vt.load(tmp_path / "a")


def test_a_loaded_agent_acts_the_same_without_its_environment(tmp_path):
    agent = vt.Agent(Counter, vt.PPO(n_epochs=1, n_minibatches=1), n_envs=2, n_steps=8, normalise_observation=True,
                     network=MLP(hidden=(4,)), optim=vt.Joint(lr=0.1))  # fmt: skip
    agent.learn(64)
    agent.save(tmp_path / "a")
    loaded = vt.load(tmp_path / "a")
    assert loaded.steps == 64
    observation = np.random.default_rng(0).standard_normal((50, 2)) * 9
    np.testing.assert_array_equal(
        agent.act(observation, deterministic=True), loaded.act(observation, deterministic=True)
    )
    for use in (lambda: loaded.learn(100), loaded.evaluate):
        with pytest.raises(ValueError, match="load it with env="):
            use()
    assert vt.load(tmp_path / "a", env=Counter).evaluate(episodes=2).lengths == (2, 2)


def test_a_file_does_not_choose_what_is_imported(tmp_path):
    agent = vt.Agent("vantage.mdp.env:mdp/corridor-v0", n_envs=2)
    state = agent.world.state()
    agent.env = "this_module_must_not_be_imported:Env-v0"
    agent._write(tmp_path / "a", state)
    assert vt.load(tmp_path / "a").env is None


def test_another_network_is_refused(tmp_path):
    vt.Agent("CartPole-v1", n_envs=2, network=MLP(hidden=(4,))).save(tmp_path / "a")
    loaded = vt.load(tmp_path / "a")
    del loaded._restored.arrays["parameters"]["actor.weights.0"]
    with pytest.raises(ValueError, match=r"actor.weights.0 has shape \(4, 4\) in this agent, none in the file"):
        loaded.act(np.zeros(4))
