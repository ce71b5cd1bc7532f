"""The command line at work: train, stop, resume, evaluate, play."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
from rich.console import Console

from vantage.cli import main
from vantage.runs import load
from vantage.runs.folder import RunFolder

SHORT = ["CartPole-v1", "--n-envs", "2", "--n-steps", "32", "--n-epochs", "2", "--hidden", "8"]
STEPS = 640


def rows(folder: Path) -> list[dict[str, str]]:
    """The metrics of a run without those that depend on the clock."""
    with open(folder / "metrics.csv", newline="") as file:
        return [
            {name: x for name, x in row.items() if name not in ("time/fps", "time/time_elapsed")}
            for row in csv.DictReader(file)
        ]


def parameters(folder: Path) -> dict[str, np.ndarray]:
    arrays, _ = load(RunFolder(folder).agent)
    flat: dict[str, np.ndarray] = {}

    def walk(tree, prefix):
        for name, x in tree.items():
            walk(x, f"{prefix}{name}/") if isinstance(x, dict) else flat.update({prefix + name: x})

    walk(arrays, "")
    return flat


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run that was never interrupted."""
    path = tmp_path_factory.mktemp("runs") / "whole"
    assert main(["train", *SHORT, "--steps", str(STEPS), "--out", str(path)]) == 0
    return path


def test_what_a_run_leaves(finished):
    names = {path.name.split(".")[0] for path in finished.iterdir()}
    assert {"config", "metrics", "checkpoint", "agent", "learning_curve", "events"} <= names
    assert (finished / "learning_curve.png").read_bytes()[:4] == b"\x89PNG"
    config = json.loads((finished / "config.json").read_text())
    assert config["env"] == "CartPole-v1"
    assert config["settings"]["n_steps"] == 32
    steps = [float(row["time/total_timesteps"]) for row in rows(finished)]
    assert steps == sorted(steps)
    assert steps[-1] >= STEPS


def test_tensorboard_reads_stable_baselines_names(finished):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(finished)).Reload()
    names = set(events.Tags()["scalars"])
    assert {
        "rollout/ep_rew_mean", "rollout/ep_len_mean", "time/fps", "time/total_timesteps", "train/approx_kl",
        "train/clip_fraction", "train/clip_range", "train/entropy_loss", "train/explained_variance",
        "train/learning_rate", "train/loss", "train/n_updates", "train/policy_gradient_loss", "train/value_loss",
    } <= names  # fmt: skip
    logged = [event.value for event in events.Scalars("train/loss")]
    assert np.allclose(logged, [float(row["train/loss"]) for row in rows(finished)])


def test_an_existing_run_is_not_overwritten(finished, capsys):
    before = {path.name: path.stat().st_mtime_ns for path in finished.iterdir()}
    assert main(["train", *SHORT, "--steps", "64", "--out", str(finished)]) == 1
    assert "--resume" in capsys.readouterr().err
    assert {path.name: path.stat().st_mtime_ns for path in finished.iterdir()} == before


def test_a_finished_run_says_so(finished, capsys):
    assert main(["train", "--resume", str(finished)]) == 2
    assert "--steps" in capsys.readouterr().err


def test_evaluate_play_and_info(finished, tmp_path, capsys):
    assert main(["eval", str(finished), "--episodes", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["returns"]) == 3
    assert np.isclose(found["mean"], np.mean(found["returns"]))
    gif = tmp_path / "a.gif"
    assert main(["play", str(finished), "--gif", str(gif), "--max-frames", "5"]) == 0
    assert gif.read_bytes()[:4] == b"GIF8"
    capsys.readouterr()
    assert main(["info", str(finished)]) == 0
    assert "CartPole-v1" in capsys.readouterr().out


def test_json_is_all_that_stands_on_stdout(tmp_path, capsys):
    argv = ["train", *SHORT, "--steps", "128", "--out", str(tmp_path / "run"), "--json"]
    assert main(argv) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["steps"] >= 128
    assert len(found["verdict"]) == 3
    assert found["stopped"] is None


def test_plain_lines_without_a_terminal(tmp_path, capsys):
    assert main(["train", *SHORT, "--steps", "128", "--out", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "explained variance" in out
    assert "n_minibatches" in out
    assert "vantage eval" in out
    assert re.search(r"CartPole-v1: .* slots?\): faster (from|below) 6 slots", out), "which implementation, and why"


def test_until_ends_a_run(tmp_path, capsys):
    argv = ["train", *SHORT, "--steps", "20000", "--until", "5", "--out", str(tmp_path / "run"), "--json"]
    assert main(argv) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["stopped"] == "callback"
    assert 100 * 8 < found["steps"] < 20000  # a hundred episodes must have ended


def test_evaluation_during_a_run_and_the_best_agent(tmp_path, capsys):
    run = tmp_path / "run"
    argv = ["train", *SHORT, "--steps", "640", "--eval-every", "200", "--out", str(run), "--json"]
    assert main(argv) == 0
    logged = [float(row["eval/mean_reward"]) for row in rows(run) if row["eval/mean_reward"]]
    assert len(logged) == 3
    capsys.readouterr()
    assert main(["eval", str(run / "best.safetensors"), "--episodes", "10", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mean"] == max(logged)


def test_evaluations_end_a_run(tmp_path, capsys):
    argv = ["train", *SHORT, "--steps", "2000", "--json"]
    assert main([*argv, "--stop-at", "5", "--out", str(tmp_path / "a")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["stopped"] == "callback"
    assert found["steps"] < 200  # the first of 20 evaluations
    frozen = [*argv, "--lr", "1e-12", "--patience", "2", "--eval-every", "64", "--out", str(tmp_path / "b")]
    assert main(frozen) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 192  # one evaluation, and two that are no better
    assert main([*argv, "--max-episodes", "3", "--out", str(tmp_path / "e")]) == 0
    assert "have ended, and --max-episodes is 3" in capsys.readouterr().out
    assert main([*argv, "--patience", "0", "--out", str(tmp_path / "c")]) == 2
    assert "--patience 0" in capsys.readouterr().err


def test_settings_from_a_file(tmp_path, capsys):
    """Saved without training; the run it describes has the settings that were typed."""
    path = tmp_path / "a.toml"
    assert main(["train", *SHORT, "--steps", "128", "--seed", "4", "--save-config", str(path), "--dry-run"]) == 0
    assert main(["train", "--config", str(path), "--gamma", "0.5", "--out", str(tmp_path / "run"), "--json"]) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    settings = config["settings"]
    assert (config["env"], config["total_steps"], settings["seed"]) == ("CartPole-v1", 128, 4)
    assert (settings["n_envs"], settings["gamma"], settings["network"]["hidden"]) == (2, 0.5, [8])


def test_interrupted_then_resumed_equals_uninterrupted(tmp_path, capsys):
    """Ctrl-C in the middle: a checkpoint that loads, and a resumed run that ends with the same bits."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    argv = ["train", *SHORT, "--steps", "6400"]
    program = [sys.executable, "-c", "import sys; from vantage.cli import main; sys.exit(main(sys.argv[1:]))"]
    run = subprocess.Popen(
        [*program, *argv, "--out", str(cut)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and run.poll() is None:
        if (cut / "metrics.csv").exists() and len(rows(cut)) >= 3:
            break
        time.sleep(0.002)
    run.send_signal(signal.SIGINT)
    told, _ = run.communicate(timeout=60)
    assert run.returncode == 130, told
    assert f"vantage train --resume {cut}" in told
    seen = len(rows(cut))
    assert 3 <= seen < 100
    assert load(RunFolder(cut).checkpoint)[1]["counters"]["steps"] > 0

    assert main(["train", "--resume", str(cut)]) == 0
    assert main([*argv, "--out", str(whole)]) == 0
    assert rows(cut) == rows(whole)
    resumed, uninterrupted = parameters(cut), parameters(whole)
    assert resumed.keys() == uninterrupted.keys()
    assert all(np.array_equal(x, uninterrupted[name]) for name, x in resumed.items())


@pytest.mark.parametrize("moment", [0.2, 0.7, 1.2, 1.8, 2.5])
def test_interrupted_while_it_starts(tmp_path, moment):
    """Ctrl-C at any moment: status 130 and no traceback, and never a run that goes on to its end."""
    out = tmp_path / "run"
    program = "import sys; from vantage.cli import main; print('in', flush=True); sys.exit(main(sys.argv[1:]))"
    run = subprocess.Popen(
        [sys.executable, "-c", program, "train", "CartPole-v1", "--steps", "2000000", "--out", str(out)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert run.stdout is not None
    assert run.stdout.readline() == "in\n"
    time.sleep(moment)
    run.send_signal(signal.SIGINT)
    told, error = run.communicate(timeout=60)
    assert run.returncode == 130, error
    assert "Traceback" not in error
    assert "interrupted" in error or f"vantage train --resume {out}" in told


def test_rows_behind_the_checkpoint_are_dropped(finished, tmp_path):
    """A kill between a checkpoint and the next leaves rows that the resumed run makes again."""
    from vantage.runs.log import read

    kept = read(finished / "metrics.csv", until=200)
    assert 0 < len(kept) < len(rows(finished))
    assert all(row["time/total_timesteps"] <= 200 for row in kept)
    torn = tmp_path / "metrics.csv"
    torn.write_text((finished / "metrics.csv").read_text()[:-40])
    assert len(read(torn)) == len(rows(finished)) - 1


def test_a_full_disk_during_the_run_is_one_sentence(tmp_path, capsys, monkeypatch):
    from vantage.runs import log

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log, "_cells", full)
    assert main(["train", *SHORT, "--steps", "128", "--out", str(tmp_path / "run")]) == 1
    assert "full disk" in capsys.readouterr().err


class Broken(gym.Env):
    """Rewards stop being finite after a while."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (2,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self):
        self.total = self.time = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.total, self.time = self.total + 1, self.time + 1
        return np.zeros(2, np.float32), float("nan") if self.total > 200 else 1.0, self.time >= 10, False, {}


def test_a_reward_that_is_not_finite_ends_the_run_with_its_last_checkpoint(tmp_path, capsys):
    gym.register("Broken-v0", Broken)
    try:
        argv = ["train", "Broken-v0", *SHORT[1:], "--steps", "6400", "--out", str(tmp_path / "run")]
        assert main(argv) == 1
        told = capsys.readouterr().err
        assert "not finite" in told.splitlines()[-1]
        assert f"--resume {tmp_path / 'run'}" in told
        assert load(RunFolder(tmp_path / "run").checkpoint)[1]["counters"]["steps"] > 0
    finally:
        del gym.registry["Broken-v0"]


def test_a_missing_logger_leaves_no_folder_behind(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)
    argv = ["train", "CartPole-v1", *SHORT[1:], "--wandb", "project", "--out", str(tmp_path / "run")]
    assert main(argv) == 1
    assert "pip install 'vantage[wandb]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_nobody_is_sent_to_watch_what_is_not_drawn(tmp_path, capsys):
    argv = ["train", "mdp:cliff", *SHORT[1:], "--steps", "64", "--max-episode-steps", "20"]
    assert main([*argv, "--out", str(tmp_path / "run")]) == 0
    told = capsys.readouterr().out
    assert "vantage eval" in told
    assert "vantage play" not in told


def test_on_a_terminal_there_is_a_bar():
    from vantage.loop import Report, Update
    from vantage.runs.progress import Bar, Progress

    file = io.StringIO()
    out = Console(file=file, force_terminal=True, width=100)
    bar = Progress(out)
    metrics = {"rollout/ep_rew_mean": 123.4, "train/kl": 0.01, "train/explained_variance": 0.5}
    bar.on_start(SimpleNamespace(steps=0), None, 1000)
    assert isinstance(bar._shown, Bar)
    update = object.__new__(Update)  # of an update the bar reads these two
    vars(update).update(steps=500, metrics=metrics)
    bar.on_update(update)
    bar.on_end(Report(rows=[metrics]))
    shown = file.getvalue()
    assert "500 of 1,000 steps" in shown
    assert "123.4" in shown
