"""A run that is stopped anywhere and resumed ends where the undisturbed run ends, bit for bit."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import vantage as vt
from tests.worlds.control_envs import Counter, Secretive
from vantage.control import MLP
from vantage.loop import Callback

DRIVER = Path(__file__).with_name("resume_driver.py")


@pytest.mark.parametrize("env", ["CartPole-v1", "vantage.mdp.env:mdp/corridor-v0"])
def test_kill_minus_nine_at_five_random_moments(env, tmp_path, request):
    seed = str(request.config.getoption("--seed"))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(DRIVER), env, str(tmp_path), seed], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    undisturbed, killed = done.stdout.split()[-2:]
    assert undisturbed == killed


class StopAt(Callback):
    def __init__(self, updates: int) -> None:
        self.updates = updates

    def on_update(self, update):
        return update.updates < self.updates


class Interrupt(Callback):
    """Ctrl-C during an update."""

    def on_update(self, update):
        if update.updates == 7:
            signal.raise_signal(signal.SIGINT)


def agent(env, **options):
    recipe = vt.PPO(n_epochs=2, n_minibatches=2, clip_range=vt.Linear(0.3))
    return vt.Agent(env, recipe, **{"n_envs": 2, "n_steps": 20, "network": MLP(hidden=(8,)), **options})


def everything(a) -> dict[str, np.ndarray]:
    state = a.world.state()
    return {**state.arrays["parameters"], **state.arrays["optimiser"], **state.arrays["collector"]}


def assert_same(a, b):
    for (name, x), y in zip(everything(a).items(), everything(b).values(), strict=True):
        np.testing.assert_array_equal(x, y, err_msg=name)


@pytest.mark.parametrize(("env", "exact"), [(Counter, True), (Secretive, False), ("Pendulum-v1", True)])
def test_stopped_and_resumed_is_the_undisturbed_run(env, exact, tmp_path):
    whole, stopped = agent(env), agent(env)
    assert whole.world.exact() is exact
    whole.learn(800, checkpoint=tmp_path / "whole", checkpoint_every=5)
    stopped.learn(800, [StopAt(13)], checkpoint=tmp_path / "part", checkpoint_every=5)
    resumed = vt.Agent.resume(tmp_path / "part", None if isinstance(env, str) else env)
    assert resumed.world.updates == (13 if exact else 10)
    resumed.learn(800, checkpoint=tmp_path / "part", checkpoint_every=5)
    assert_same(whole, resumed)


def test_normalisers_are_part_of_what_is_resumed(tmp_path):
    options = {"normalise_observation": True, "normalise_reward": True}
    whole, stopped = agent("Pendulum-v1", **options), agent("Pendulum-v1", **options)
    whole.learn(600)
    stopped.learn(300)
    stopped.save(tmp_path / "agent")
    resumed = vt.load(tmp_path / "agent")
    resumed.learn(600)
    # Schedules look at the whole run, so this one differs from `whole` in its clip range alone: compare with its like.
    like = agent("Pendulum-v1", **options)
    like.learn(300)
    like.learn(600)
    assert_same(like, resumed)


def test_ctrl_c_finishes_the_update_and_leaves_a_checkpoint(tmp_path):
    whole, interrupted = agent(Counter), agent(Counter)
    whole.learn(800)
    report = interrupted.learn(800, [Interrupt()], checkpoint=tmp_path / "c", checkpoint_every=1000)
    assert report.stopped == "interrupt"
    resumed = vt.Agent.resume(tmp_path / "c", Counter)
    assert resumed.world.updates == 7
    resumed.learn(800)
    assert_same(whole, resumed)


def test_a_second_interrupt_stops_at_once(tmp_path):
    class Twice(Callback):
        def on_update(self, update):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        agent(Counter).learn(800, [Twice()])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_cut_is_made_in_the_undisturbed_run_too(tmp_path):
    """Where the state cannot be exported, the frequency of checkpoints is part of the run."""
    every, never = agent(Secretive), agent(Secretive)
    every.learn(400, checkpoint=tmp_path / "c", checkpoint_every=3)
    never.learn(400)
    assert any((x != y).any() for x, y in zip(everything(every).values(), everything(never).values(), strict=True))
