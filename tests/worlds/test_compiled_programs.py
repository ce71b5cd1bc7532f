"""The programs that JAX keeps: many agents in one process must not run into the system's limit of memory maps."""

from pathlib import Path

import pytest

import vantage as vt
from vantage.control import MLP, _compile

pytestmark = [
    pytest.mark.usefixtures("compile_fast"),
    pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux limits memory maps"),
]


def agent(n_envs: int) -> vt.Agent:
    """One with programs of its own, by its number of environments."""
    made = vt.Agent(
        "CartPole-v1", vt.PPO(n_epochs=1, n_minibatches=1), n_envs=n_envs, n_steps=4, network=MLP(hidden=(4,))
    )
    made.learn(4 * n_envs)
    return made


def test_a_new_agent_makes_room_once_the_limit_is_near(monkeypatch):
    trained = agent(2)
    many = _compile.maps()
    vt.Agent("CartPole-v1", n_envs=2)
    assert _compile.maps() >= many, "far from the limit everything is kept"
    monkeypatch.setattr(_compile, "maps", lambda: 10**9)
    vt.Agent("CartPole-v1", n_envs=2)
    monkeypatch.undo()
    assert _compile.maps() < many - 100
    trained.learn(16)  # what is still needed is compiled again
    assert trained.steps == 16


@pytest.mark.slow
def test_three_hundred_agents_in_one_process():
    """Without room made, the process dies at about the 190th."""
    most = 0
    for n_envs in range(1, 301):
        agent(n_envs)
        most = max(most, _compile.maps())
    assert most < 0.6 * int(Path("/proc/sys/vm/max_map_count").read_text())
