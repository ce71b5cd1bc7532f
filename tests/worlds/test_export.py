"""An exported graph does what the agent does; one that does not is not written."""

import gymnasium as gym
import numpy as np
import pytest

import vantage as vt
from tests.worlds.test_control_spaces import Anything
from vantage.cli import main
from vantage.control import MLP, export

onnxruntime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")


class Numbered(gym.Env):
    """States and actions that do not count from 0."""

    observation_space = gym.spaces.Discrete(5, start=3)
    action_space = gym.spaces.Discrete(3, start=-1)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.int64(self.np_random.integers(3, 8)), {}

    def step(self, action):
        return np.int64(self.np_random.integers(3, 8)), float(action), bool(self.np_random.random() < 0.2), False, {}


PAIR = gym.spaces.MultiDiscrete([2, 3])
CASES = [
    ("CartPole-v1", {}),
    ("CartPole-v1", {"normalise_observation": True, "network": MLP(hidden=(7,), activation="silu")}),
    ("Pendulum-v1", {"normalise_observation": True, "network": MLP(hidden=(8, 8, 8), activation="relu")}),
    ("Pendulum-v1", {"squash_actions": True}),
    ("Pendulum-v1", {"network": MLP(hidden=())}),
    (Numbered, {}),
    ("CartPole-v1", {"network": MLP(hidden=(6, 5), shared=True)}),
]


def trained(env, **options):
    agent = vt.Agent(env, vt.PPO(n_minibatches=1, n_epochs=2), **{"n_envs": 2, "n_steps": 16, **options})
    agent.learn(64)
    return agent


def test_spaces_without_a_graph_are_refused(tmp_path):
    for seen, done in (
        (gym.spaces.Box(0.0, 1.0, (2, 2)), gym.spaces.Discrete(2)),
        (gym.spaces.Box(0.0, 1.0, (2,)), PAIR),
    ):
        agent = vt.Agent(lambda seen=seen, done=done: Anything(seen, done), n_envs=2)
        with pytest.raises(ValueError, match="are exported to ONNX"):
            export.export_onnx(agent, tmp_path / "a.onnx")


@pytest.mark.parametrize(("env", "options"), CASES)
def test_the_graph_acts_as_the_agent(env, options, tmp_path):
    """On the observations of real episodes, which the command's own check does not use."""
    agent = trained(env, **options)
    assert export.export_onnx(agent, tmp_path / "a.onnx") <= 1e-5
    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"))
    one = gym.make(env) if isinstance(env, str) else env()
    seen = [one.reset(seed=0)[0]]
    for _ in range(30):
        observation, _, terminated, truncated, _ = one.step(agent.act(seen[-1], deterministic=True))
        seen.append(one.reset()[0] if terminated or truncated else observation)
    batch = np.array(seen)
    found = session.run(["action"], {"observation": batch})[0]
    np.testing.assert_allclose(found, agent.act(batch, deterministic=True), atol=1e-5)


def test_the_check_sees_a_wrong_graph(tmp_path, monkeypatch):
    agent = trained("CartPole-v1", normalise_observation=True)
    monkeypatch.setattr(export, "_vectors", lambda graph, moments: "observation")  # forgets the normalisation
    with pytest.raises(ArithmeticError, match="deviates"):
        export.export_onnx(agent, tmp_path / "a.onnx")
    assert not (tmp_path / "a.onnx").exists()


def test_the_check_sees_a_wrong_action(tmp_path, monkeypatch):
    agent = trained("CartPole-v1")

    def worst(graph, actions, x):
        graph.add("ArgMin", x, axis=1, keepdims=0, name="action")

    monkeypatch.setattr(export, "_act", worst)
    with pytest.raises(ArithmeticError, match="inf"):
        export.export_onnx(agent, tmp_path / "a.onnx")


def test_the_command(tmp_path, capsys, monkeypatch):
    trained("CartPole-v1").save(tmp_path / "agent")
    assert main(["export", str(tmp_path / "agent"), "--onnx", str(tmp_path / "b.onnx")]) == 0
    assert "CartPole-v1 after 64 steps" in capsys.readouterr().out
    assert main(["export", str(tmp_path / "agent"), "--onnx", str(tmp_path / "no" / "b.onnx")]) == 1
    assert "--onnx" in capsys.readouterr().err
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    assert main(["export", str(tmp_path / "agent")]) == 1
    assert "pip install 'vantage[onnx]'" in capsys.readouterr().err
