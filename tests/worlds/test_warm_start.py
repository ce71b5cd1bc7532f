"""Beginning with what another agent has learned: parameters and statistics come along, everything else is new."""

import json
import re

import gymnasium as gym
import numpy as np
import pytest

import vantage as vt
from tests.worlds.jax_envs import JaxCounter
from vantage.cli import main
from vantage.control import MLP

pytestmark = pytest.mark.usefixtures("compile_fast")
SEEN = np.array([[0.1, -0.2, 0.05, 0.3]], np.float32)


def agent(env="CartPole-v1", **options) -> vt.Agent:
    given = {"n_envs": 2, "n_steps": 32, "network": MLP(hidden=(8,)), "normalise_observation": True, **options}
    return vt.Agent(env, given.pop("recipe", None) or vt.PPO(n_epochs=2, n_minibatches=2), **given)


@pytest.fixture
def learned(tmp_path):
    made = agent(normalise_reward=True)
    made.learn(256)
    made.save(tmp_path / "a")
    return made


def test_the_policy_comes_along_and_the_counters_do_not(learned, tmp_path):
    began = agent(normalise_reward=True, seed=5, gamma=0.9, optim=vt.Joint(lr=1e-2), n_envs=3)
    assert began.warm_start(tmp_path / "a") is began
    np.testing.assert_array_equal(began.action_probabilities(SEEN), learned.action_probabilities(SEEN))
    assert began.steps == 0
    np.testing.assert_array_equal(began.world.vector, learned.world.vector)
    np.testing.assert_array_equal(began.action_probabilities(SEEN), learned.action_probabilities(SEEN))
    np.testing.assert_array_equal(began.world._returned.arrays()["var"], learned.world._returned.arrays()["var"])
    assert began.learn(192).final["train/n_updates"] == 4


def test_an_agent_that_has_acted_forgets_what_it_was(learned, tmp_path):
    began = agent(normalise_reward=True, seed=5)
    before = began.action_probabilities(SEEN)
    after = began.warm_start(tmp_path / "a").action_probabilities(SEEN)
    assert (before != after).any()
    np.testing.assert_array_equal(after, learned.action_probabilities(SEEN))


def test_every_mismatch_is_named(learned, tmp_path):
    with pytest.raises(ValueError, match="same network") as error:
        agent(normalise_reward=True, network=MLP(hidden=(9,))).warm_start(tmp_path / "a")
    for name in ("actor.weights.0", "actor.biases.0", "actor.weights.1", "critic.weights.0", "critic.weights.1"):
        assert name in str(error.value)
    assert "(4, 9) in this agent, (4, 8) in the file" in str(error.value)
    with pytest.raises(ValueError, match=r"critic\.weights\.0 has shape none in this agent"):
        agent(normalise_reward=True, recipe=vt.REINFORCE()).warm_start(tmp_path / "a")


@pytest.mark.parametrize(("options", "field"), [
    ({"normalise_observation": False, "normalise_reward": True}, "normalise_observation = False here, True in"),
    ({}, "normalise_reward = False here, True in"),
])  # fmt: skip
def test_statistics_are_needed_where_networks_rely_on_them(learned, tmp_path, options, field):
    with pytest.raises(ValueError, match=field):
        agent(**options).warm_start(tmp_path / "a")


def test_it_comes_first(learned, tmp_path):
    with pytest.raises(ValueError, match="warm_start comes first"):
        learned.warm_start(tmp_path / "a")
    with pytest.raises(ValueError, match="warm_start comes first"):
        vt.load(tmp_path / "a").warm_start(tmp_path / "a")


def test_inside_a_compiled_program_too(tmp_path):
    first = agent(JaxCounter())
    first.learn(128)
    first.save(tmp_path / "a")
    began = agent(JaxCounter(), seed=3).warm_start(tmp_path / "a")
    np.testing.assert_array_equal(began.world._observed.arrays()["mean"], first.world._observed.arrays()["mean"])
    began.learn(64)
    assert (began.world.vector != first.world.vector).any()


def test_the_command(tmp_path, capsys):
    short = ["CartPole-v1", "--n-envs", "2", "--n-steps", "32", "--hidden", "8", "--json"]
    assert main(["train", *short, "--steps", "128", "--out", str(tmp_path / "one")]) == 0
    more = ["--init", str(tmp_path / "one"), "--gamma", "0.9", "--seed", "4", "--lr", "1e-30", "--steps", "64"]
    assert main(["train", *short, *more, "--out", str(tmp_path / "two")]) == 0
    capsys.readouterr()
    one, two = (vt.load(tmp_path / name / "agent.safetensors") for name in ("one", "two"))
    np.testing.assert_array_equal(one.action_probabilities(SEEN), two.action_probabilities(SEEN))
    assert (two.steps, two.settings.gamma) == (64, 0.9)
    assert json.loads((tmp_path / "two" / "config.json").read_text())["init"] == str(tmp_path / "one")
    wide = ["train", *short, *more, "--out", str(tmp_path / "three")]
    wide[wide.index("8")] = "16"
    assert main(wide) == 1
    assert re.search("use the same network", capsys.readouterr().err)
    assert not (tmp_path / "three").exists()


# ---- wrappers that settings name ----


def test_wrappers_stand_around_each_environment_in_their_order():
    wrappers = {"RepeatAction": {"num_repeats": 2}, "TimeAwareObservation": {}}
    made = agent(wrappers=wrappers, frame_stack=2)
    one = made.world._env.envs[0]
    kinds = []
    while isinstance(one, gym.Wrapper):
        kinds.append(type(one).__name__)
        one = one.env
    assert kinds[:3] == ["FrameStackObservation", "TimeAwareObservation", "RepeatAction"]
    assert made._model.observations.size == 10
    assert made.learn(64).final["rollout/ep_len_mean"] > 0


def test_wrappers_are_kept_in_files_and_looked_up_in_a_list(tmp_path):
    made = agent(wrappers={"TimeAwareObservation": {}})
    made.save(tmp_path / "a")
    assert vt.load(tmp_path / "a").evaluate(1).mean > 0
    for name, words in (("os.system", "none of"), ("RecordVideo", "callback"), ("TimeLimit", "max_episode_steps")):
        with pytest.raises(ValueError, match=words):
            agent(wrappers={name: {}})
    with pytest.raises(ValueError, match=r"wrappers: RescaleAction\(\{\}\) does not fit"):
        agent(wrappers={"RescaleAction": {}})
    with pytest.raises(ValueError, match="only Gymnasium's environments are wrapped"):
        agent(JaxCounter(), wrappers={"TimeAwareObservation": {}})
