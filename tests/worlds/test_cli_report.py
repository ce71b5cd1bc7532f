"""`vantage doctor`, `report`, `info` and `bench`: what they say of a run and of this machine."""

import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest

from vantage.cli import UsageError, bench, main
from vantage.cli.bench import table
from vantage.cli.bench_runs import ROWS, SIDES, Clock, Job, Row, told, work
from vantage.lab.report import duration, readable
from vantage.runs.folder import RunFolder

SMALL = ["CartPole-v1", "--n-envs", "2", "--n-steps", "16", "--n-epochs", "1", "--hidden", "8", "--steps", "192"]
TINY = Row(env="CartPole-v1", n_envs=2, n_steps=16, batch_size=16, n_epochs=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "run"
    assert main(["train", *SMALL, "--profile", "--video-every", "96", "--keep-every", "96", "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def ill(run, tmp_path) -> Path:
    """The same run with updates that went much too far, and a return that was lost."""
    folder = RunFolder(tmp_path / "ill")
    folder.path.mkdir()
    folder.config.write_text((run / "config.json").read_text())
    with open(run / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file)) * 3
    for number, row in enumerate(rows):
        row |= {"train/kl": "0.5", "rollout/ep_rew_mean": str(100 - 5 * abs(number - 8))}
    with open(folder.metrics, "w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    return folder.path


def test_what_the_options_leave(run):
    assert len(list((run / "videos").glob("*.gif"))) == 2
    assert len(list((run / "copies").glob("*.safetensors"))) == 2
    told = json.loads((run / "profile.json").read_text())
    assert {row["part"] for row in told["parts"]} >= {"act", "step", "update", "log"}
    assert told["updates"] == 5


def test_doctor_names_every_fault_with_its_remedy(ill, capsys):
    assert main(["doctor", str(ill)]) == 1
    told = capsys.readouterr().out
    assert "The policy moves too far in each update (policy_jumps)" in told
    assert "seen:   KL is 0.5 nats an update" in told
    assert "remedy: Lower --lr threefold" in told
    assert main(["doctor", str(ill), "--json"]) == 1
    assert "policy_jumps" in [finding["rule"] for finding in json.loads(capsys.readouterr().out)]


def test_doctor_of_a_run_without_fault_or_without_rows(run, tmp_path, capsys):
    assert main(["doctor", str(run), "--json"]) in (0, 1)
    capsys.readouterr()
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    (fresh / "config.json").write_text((run / "config.json").read_text())
    assert main(["doctor", str(fresh)]) == 0
    assert "no update yet" in capsys.readouterr().out
    assert main(["doctor", str(tmp_path / "nowhere")]) == 1
    assert "is no run" in capsys.readouterr().err


class Strict(HTMLParser):
    """Notes what is open, and everything that would be fetched."""

    def __init__(self):
        super().__init__()
        self.open, self.fetched = [], []

    def handle_starttag(self, tag, attrs):
        self.fetched += [value for name, value in attrs if name in ("src", "href") and not value.startswith("data:")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_report_is_one_page_that_needs_nothing_else(ill, capsys):
    assert main(["report", str(ill)]) == 0
    page = (ill / "report.html").read_text()
    reader = Strict()
    reader.feed(page)
    assert (reader.open, reader.fetched) == ([], [])
    assert "<script" not in page
    assert re.search(r'src="data:image/png;base64,iVBOR', page)
    for part in ("The policy moves too far", "min(r_t(θ) Ψ_t", "train/explained_variance", "recipe.n_epochs", "numpy"):
        assert part in page
    assert main(["report", str(ill), "--out", str(ill / "r.md")]) == 0
    text = (ill / "r.md").read_text()
    assert "| `recipe.n_epochs` | 1 |" in text
    assert "| `train/kl` | 0.5 nats |" in text
    capsys.readouterr()
    assert main(["report", str(ill), "--out", str(ill / "r.pdf")]) == 1
    assert ".html or as .md" in capsys.readouterr().err


def test_info_is_for_people_and_its_json_for_machines(run, capsys):
    assert main(["info", str(run)]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert re.search(r"train/clip_fraction [\d.]+ %", told)
    assert re.search(r"time/total_timesteps 19\d steps", told)
    assert main(["info", str(run), "--json"]) == 0
    assert isinstance(json.loads(capsys.readouterr().out)["last"]["train/clip_fraction"], float)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("train/clip_fraction", 0.1234, "12.3 %"),
        ("train/kl", 0.00681, "0.00681 nats"),
        ("time/total_timesteps", 20083.0, "20,083 steps"),
        ("time/time_elapsed", 72.4, "1 min 12 s"),
        ("time/fps", 14335.2, "14,335 steps/s"),
        ("rollout/ep_rew_mean", -0.0, "0"),
        ("rollout/ep_rew_mean", float("nan"), "—"),
        ("my/own", 1234.5678, "1235"),
    ],
)
def test_metrics_for_people(name, value, text):
    assert readable(name, value) == text


def test_durations():
    assert [duration(x) for x in (0.0123, 59.9, 60.0, 3725.0)] == ["0.0123 s", "59.9 s", "1 min 0 s", "1 h 2 min"]


def test_the_clock_leaves_out_the_first_updates(monkeypatch):
    times = iter([10.0, 11.0, 12.0, 13.5, 14.5])
    monkeypatch.setattr("vantage.cli.bench_runs.time", SimpleNamespace(time=lambda: next(times)))
    clock = Clock(Job(row=TINY, seconds=3.0, began=4.0))
    assert [clock.update(steps) for steps in (100, 200, 300, 400, 500)] == [True, True, True, True, False]
    assert clock.result["steps/s"] == 300 / 3.5
    assert clock.result["first update"] == 6.0


def test_the_clock_stops_at_the_goal_and_at_the_last_step():
    job = Job(row=replace(TINY, steps=200, goal=475.0))
    clock = Clock(job)
    assert clock.update(100, 480.0, episodes=99)
    assert not clock.update(150, 480.0, episodes=100)
    assert clock.result["solved"] > 0.0
    assert not Clock(job).update(200)


def test_our_side_and_the_environments_are_measured():
    speed = {side: SIDES[side](Job(row=TINY, seconds=0.05))["steps/s"] for side in ("Vantage", "environments alone")}
    assert 0 < speed["Vantage"] < speed["environments alone"]


def test_stable_baselines_is_measured():
    pytest.importorskip("stable_baselines3")
    assert work(told("SB3", Job(row=replace(TINY, steps=128, linear=True))))["steps"] == 128


def test_bench_tells_ratios(monkeypatch, capsys):
    speeds = {"Vantage": 3000.0, "SB3": 1000.0, "environments alone": 6000.0}
    monkeypatch.setattr(bench, "_sides", lambda python: list(speeds))
    monkeypatch.setattr(bench, "_run", lambda name, side, seed, chosen: speeds[side] + seed)
    assert main(["bench", "--rows", "cartpole-8", "--pairs", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"]["cartpole-8"]["SB3"] == [1000.0, 1001.0, 1002.0]
    assert main(["bench", "--rows", "cartpole-8"]) == 0
    told, planned = capsys.readouterr()
    assert planned.startswith("6 runs on ")
    assert "about 0.8 minutes" in planned
    assert "3.00 ×" in told
    assert "50% of it" in told
    for wrong in (["--rows", "cartpole"], ["--pairs", "0"]):
        assert main(["bench", *wrong]) == 2
        assert wrong[0] in capsys.readouterr().err
    assert set(ROWS) >= {"cartpole-8", "cartpole-256", "halfcheetah-1"}


def test_a_peer_that_does_not_run_is_said(tmp_path):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    with pytest.raises(UsageError, match="no Python interpreter that runs"):
        bench._sides(str(broken))
    assert bench._sides(None)[0] == "Vantage"
    assert "1.50 ×" in table({"a": [3.0], "b": [1.0, 2.0, 3.0]})
