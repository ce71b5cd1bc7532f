"""Callbacks: what they do, when, and that training does not notice them."""

import json
import sys
from types import SimpleNamespace

import jaxtyping
import numpy as np
import pytest

import vantage as vt
from tests.worlds.test_resume import agent, assert_same
from vantage import loop
from vantage.callbacks import (
    Checkpoints,
    Each,
    Evaluate,
    JsonLines,
    StopAtReward,
    StopWithoutImprovement,
    Update,
    WandB,
)
from vantage.loop import Report

HIGH = [3.0, 5.0, 4.0, 5.0, 1.0]
"""Mean rewards of the evaluations of a scripted agent: best at the 2nd."""


class Played:
    def __init__(self, mean):
        self.mean, self.lengths = mean, (2, 4)


class Scripted:
    """An agent whose evaluations are known beforehand; it notes what was asked of it."""

    def __init__(self, means=HIGH):
        self.means, self.saved, self.asked = iter(means), [], []

    def evaluate(self, **how):
        self.asked.append(how)
        return Played(next(self.means))

    def save(self, path):
        self.saved.append(path)


class World:
    """Only says how many steps were taken."""

    def __init__(self, steps=0):
        self.steps, self.updates, self.beta = steps, 0, None

    def collect(self, recipe): ...
    def update(self, recipe, rollout, progress): ...
    def exact(self): ...
    def cut(self): ...
    def state(self): ...
    def restore(self, state): ...
    def close(self): ...


def update(steps, **metrics):
    made = object.__new__(Update)
    vars(made).update(steps=steps, metrics={name.replace("_", "/", 1): x for name, x in metrics.items()})
    return made


def run(callback, all_steps, start=0):
    """The updates at which the callback acted, and whether it ended the run."""
    callback.on_start(World(start), vt.PPO(), 100)
    return [callback.on_update(update(steps)) for steps in all_steps]


def test_each_is_called_at_the_first_update_at_or_beyond_a_multiple():
    seen = []
    run(Each(lambda u: seen.append(u.steps), every=10), [4, 8, 12, 16, 20, 45, 49])
    assert seen == [12, 20, 45]
    seen.clear()
    run(Each(lambda u: seen.append(u.steps), every=10), [16, 20], start=12)  # resumed at 12: 12 is not called again
    assert seen == [20]
    seen.clear()
    run(Each(lambda u: seen.append(u.steps)), [4, 8])
    assert seen == [4, 8]
    assert run(Each(lambda u: u.steps < 8), [4, 8]) == [True, False]
    with pytest.raises(ValueError, match="every = 0"):
        Each(lambda u: None, every=0)


def test_evaluate_measures_and_keeps_the_best(tmp_path):
    trainee, heard, best = Scripted(), [], []
    callback = Evaluate(
        trainee, every=1, episodes=7, seed=3, best=tmp_path / "best",
        on_evaluation=lambda u: heard.append(u.metrics["eval/mean_reward"]), on_new_best=lambda u: best.append(u.steps),
    )  # fmt: skip
    callback.on_start(World(), vt.PPO(), 5)
    updates = [update(steps) for steps in range(1, 6)]
    assert [callback.on_update(u) for u in updates] == [None] * 5
    assert [u.metrics["eval/mean_reward"] for u in updates] == heard == HIGH
    assert updates[0].metrics["eval/mean_ep_length"] == 3.0
    assert best == [1, 2]
    assert trainee.saved == [tmp_path / "best"] * 2
    assert trainee.asked[0] == {"episodes": 7, "deterministic": True, "seed": 3}
    assert callback.highest == 5.0


def test_a_resumed_evaluation_knows_the_best_so_far():
    trainee = Scripted([4.0, 6.0])
    callback = Evaluate(trainee, every=1, best="x", rows=[{"eval/mean_reward": 5.0}, {}])
    run(callback, [1, 2])
    assert len(trainee.saved) == 1


def test_hooks_of_an_evaluation_can_end_the_run():
    assert run(Evaluate(Scripted(), every=1, on_new_best=lambda u: u.steps < 2), [1, 2, 3]) == [None, False, None]


def test_stop_at_reward():
    stop = StopAtReward(5.0)
    seen = [stop.on_update(update(1, eval_mean_reward=x)) for x in (4.9, 5.0)]
    assert [*seen, stop.on_update(update(1))] == [None, False, None]


def test_stop_without_improvement():
    def stops(patience, rows=()):
        stop = StopWithoutImprovement(patience, rows=rows)
        return [stop.on_update(update(1, eval_mean_reward=x)) is False for x in HIGH]

    assert stops(2) == [False, False, False, True, True]  # 4 and the equal 5 do not improve on 5
    assert stops(3) == [False, False, False, False, True]
    assert stops(3, rows=[{"eval/mean_reward": 9.0}])[2]
    assert StopWithoutImprovement(1).on_update(update(1)) is None  # an update without evaluation does not count
    with pytest.raises(ValueError, match="patience = 0"):
        StopWithoutImprovement(0)


def test_training_does_not_notice(tmp_path):
    """Evaluation has its own environments and seeds, saving changes nothing: the same bits with and without."""
    plain, watched = agent("CartPole-v1"), agent("CartPole-v1")
    plain.learn(400)
    listeners = [
        Evaluate(watched, every=80, episodes=2, best=tmp_path / "best", deterministic=False),
        Checkpoints(watched, tmp_path / "all", every=160),
    ]
    report = watched.learn(400, listeners)
    assert_same(plain, watched)
    assert len(report.column("eval/mean_reward")) == 5
    files = sorted(path.name for path in (tmp_path / "all").iterdir())
    assert files == ["step_160.safetensors", "step_320.safetensors"]
    assert vt.load(tmp_path / "all" / "step_160.safetensors").steps == 160
    best = vt.load(tmp_path / "best").evaluate(2, deterministic=False)
    assert np.isclose(best.mean, max(report.column("eval/mean_reward")))


def test_stopping_for_real():
    report = agent("CartPole-v1").learn(4000, [StopAtReward(5.0, "rollout/ep_rew_mean")])
    assert report.stopped == "callback"
    assert report.final["time/total_timesteps"] < 4000


def test_json_lines(tmp_path):
    path = tmp_path / "log.jsonl"
    log = JsonLines(path)
    log.on_start(World(), vt.PPO(), 3)
    for steps in (1, 2, 3):
        log.on_update(update(steps, time_total_timesteps=float(steps), train_x=float("nan") if steps == 1 else 0.5))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["train/x"] for line in lines] == [None, 0.5, 0.5]
    with open(path, "a") as file:
        file.write('{"time/total_timest')  # torn by a crash
    log.on_start(World(2), vt.PPO(), 3)  # resumed behind step 2
    assert [json.loads(line)["time/total_timesteps"] for line in path.read_text().splitlines()] == [1, 2]
    log.on_start(World(0), vt.PPO(), 3)  # a new run begins a new file
    assert path.read_text() == ""


def test_wandb_is_offline_and_closed(monkeypatch):
    calls = []
    run = SimpleNamespace(
        log=lambda row, step: calls.append((row, step)), finish=lambda: calls.append("finish")
    )  # fmt: skip
    fake = SimpleNamespace(init=lambda **options: calls.append(options) or run)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    log = WandB(project="x", config={"seed": 1})
    log.on_start(World(), vt.PPO(), 3)
    log.on_update(update(2, train_x=0.5))
    log.on_end(Report())
    assert calls[0]["mode"] == "offline"
    assert calls[0]["config"].items() >= {"seed": 1, "total_steps": 3}.items()
    assert calls[1:] == [({"train/x": 0.5}, 2), "finish"]


def test_wandb_that_is_not_installed_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ModuleNotFoundError, match="pip install wandb"):
        WandB()


def test_a_function_is_a_callback():
    for callbacks in (lambda seen: False, [lambda seen: False]):
        trained = vt.Agent("CartPole-v1", vt.PPO(n_minibatches=1), n_envs=2, n_steps=8)
        report = trained.learn(10_000, callbacks)
        assert report.stopped == "callback"
        assert len(report.rows) == 1


def test_what_cannot_be_called_is_no_callback(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the checks of the tests would speak first
    with pytest.raises(TypeError, match="callbacks has <class"):
        loop.learn(World(), vt.PPO(), 10, [Report])
    with pytest.raises(TypeError, match="give Callback objects, or functions"):
        vt.Agent("CartPole-v1", vt.PPO(n_minibatches=1), n_envs=2, n_steps=8).learn(64, [3])


def test_steps_already_taken_are_no_goal():
    trained = vt.Agent("CartPole-v1", vt.PPO(n_minibatches=1), n_envs=2, n_steps=8)
    trained.learn(1)
    with pytest.raises(ValueError, match=r"1 steps are fewer than the .* already taken: total_steps counts from"):
        trained.learn(1)
