"""`vantage compare` and `vantage plot`: resumable cells, the table, and how runs are grouped."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from vantage.cli import UsageError, live, main
from vantage.cli.compare import Compare, markdown, show, summarise, variant
from vantage.lab.curves import RETURN, draw, find, group
from vantage.lab.statistics import band, iqm, probability_of_improvement
from vantage.recipe import TDError
from vantage.runs.folder import claimed
from vantage.runs.log import write

SMALL = ["--n-envs", "2", "--n-steps", "16", "--hidden", "8", "--steps", "64", "--episodes", "2", "--json"]


def compare(folder: Path, *more: str) -> list[str]:
    return ["compare", "CartPole-v1", "a2c", "ppo:clip-range=0.1,n-epochs=2", *SMALL, "--out", str(folder), *more]


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """Two recipes, two seeds."""
    folder = tmp_path_factory.mktemp("compare")
    assert main(compare(folder, "--seeds", "2")) == 0
    return folder


def agents(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("agent.safetensors")}


def test_what_a_comparison_leaves(done):
    found = json.loads((done / "comparison.json").read_text())
    assert [row["recipe"] for row in found["recipes"]] == ["a2c", "ppo:clip-range=0.1,n-epochs=2"]
    assert [len(runs) for runs in found["cells"].values()] == [2, 2]
    for row in found["recipes"]:
        assert row["mean"]["low"] <= row["mean"]["value"] <= row["mean"]["high"]
        assert row["worst"] <= row["iqm"]["value"]
    assert (done / "table.md").read_text().count("\n") == 4
    assert (done / "curves.png").read_bytes()[:4] == b"\x89PNG"
    config = json.loads((done / "ppo-clip-range=0.1,n-epochs=2" / "seed-1" / "config.json").read_text())
    assert config["settings"]["recipe"]["objective"]["low"] == 0.1
    assert config["settings"]["recipe"]["n_epochs"] == 2
    assert config["settings"]["seed"] == 1


def test_only_missing_cells_are_run(done, capsys):
    before = agents(done)
    assert main(compare(done, "--seeds", "3")) == 0
    after = agents(done)
    assert len(after) == 6
    assert all(after[name] == time for name, time in before.items())
    assert [row["seeds"] for row in json.loads(capsys.readouterr().out)["recipes"]] == [3, 3]


@pytest.mark.parametrize(
    "lost",
    [
        ["evaluation.json"],  # killed while it was evaluated
        ["evaluation.json", "agent.safetensors"],  # after the last checkpoint
        ["evaluation.json", "agent.safetensors", "checkpoint.safetensors"],  # before the first one
        ["evaluation.json", "agent.safetensors", "checkpoint.safetensors", "metrics.csv", "config.json", ""],
    ],
    ids=len,
)
def test_a_cell_goes_on_wherever_it_was_killed(lost, done):
    cell = done / "a2c" / "seed-0"
    score = (cell / "evaluation.json").read_text()
    for path in cell.iterdir():
        if path.name in lost or "" in lost:
            path.unlink()
    assert main(compare(done, "--seeds", "1")) == 0
    assert (cell / "evaluation.json").read_text() == score


def test_an_interrupted_cell_stops_the_comparison(done, tmp_path, monkeypatch, capsys):
    from vantage.cli import train

    monkeypatch.setattr(train, "start", lambda given, out: {"stopped": "interrupt"})
    assert main(compare(tmp_path, "--seeds", "1")) == 130
    assert not list(tmp_path.rglob("evaluation.json"))


def test_several_processes_give_the_same_bits(done, tmp_path, capsys):
    assert main(compare(tmp_path, "--seeds", "1", "--jobs", "2")) == 0
    cells = json.loads(capsys.readouterr().out)["cells"]
    known = json.loads((done / "comparison.json").read_text())["cells"]
    assert {name: runs[0]["returns"] for name, runs in cells.items()} == {
        name: runs[0]["returns"] for name, runs in known.items()
    }


@pytest.mark.slow
def test_an_error_in_a_process_is_said_once(tmp_path, capsys):
    taken = tmp_path / "a2c" / "seed-0"
    taken.mkdir(parents=True)
    (taken / "file").write_text("")
    argv = ["compare", "CartPole-v1", "a2c", "ppo", *SMALL[:-1], "--seeds", "1", "--jobs", "2", "--out", str(tmp_path)]
    assert main(argv) == 1
    assert f"{taken} exists already" in capsys.readouterr().err


@pytest.mark.slow
def test_a_signal_ends_all_processes_and_the_same_command_goes_on(tmp_path):
    argv = ["compare", "CartPole-v1", "ppo", "a2c", "--steps", "400000", "--hidden", "8", "--seeds", "1", "--jobs", "2"]
    program = "import sys; from vantage.cli import main; sys.exit(main(sys.argv[1:]))"
    run = subprocess.Popen(
        [sys.executable, "-c", program, *argv, "--out", str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and len(list(tmp_path.rglob("metrics.csv"))) < 2:
        time.sleep(0.1)
    run.send_signal(signal.SIGINT)
    told, _ = run.communicate(timeout=240)
    assert run.returncode == 130
    assert "the same command goes on" in told
    for folder in (tmp_path / "ppo" / "seed-0", tmp_path / "a2c" / "seed-0"):
        with claimed(folder):  # nobody is left who works there
            assert not (folder / "evaluation.json").exists()


def test_train_with_several_seeds(tmp_path, capsys):
    argv = ["train", "CartPole-v1", "--recipe", "a2c", *SMALL[:-3], "--seeds", "2", "--out", str(tmp_path)]
    assert main(argv) == 0
    told = capsys.readouterr().out
    assert "Two seeds make no interval" in told
    assert "P(better" not in told
    assert (tmp_path / "seed-1" / "agent.safetensors").is_file()
    assert (tmp_path / "curves.png").is_file()
    for wrong in (["--seed", "1"], ["--until", "5"], ["--dry-run"]):
        assert main([*argv, *wrong]) == 2
        assert wrong[0] in capsys.readouterr().err
    assert main(["train", "CartPole-v1", "--jobs", "2"]) == 2
    assert "--seeds" in capsys.readouterr().err


@pytest.mark.parametrize(("seeds", "said"), [(1, "One seed"), (2, "Two seeds"), (4, "4 seeds"), (5, None)])
def test_few_seeds_are_said_to_be_few(seeds, said, capsys, tmp_path):
    cells = {"a": [{"mean": float(n), "run": "nowhere", "seed": n} for n in range(seeds)]}
    rows = [{"time/total_timesteps": 1.0, "rollout/ep_rew_mean": 2.0}]
    for cell in cells["a"]:
        cell["run"] = str(tmp_path / str(cell["seed"]))
        (tmp_path / str(cell["seed"])).mkdir()
        write(tmp_path / str(cell["seed"]) / "metrics.csv", rows)
    show("X", cells, tmp_path, Compare(seeds=seeds), live.console())
    told = capsys.readouterr().out
    assert (said is None and "seeds or more" not in told) or said in told
    assert "--seeds 5 or more" in told or seeds >= 5


def test_statistics_are_those_of_rliable(rng):
    """Interquartile mean and probability of improvement, by the library of Agarwal et al."""
    pytest.importorskip("rliable")
    from rliable import metrics  # pyright: ignore[reportMissingImports]

    x, y = rng.normal(size=(8, 1)), rng.normal(0.5, size=(7, 1))
    assert np.isclose(iqm(x[:, 0]), metrics.aggregate_iqm(x))
    assert np.isclose(probability_of_improvement([x[:, 0]], [y[:, 0]]), metrics.probability_of_improvement(x, y))


def test_other_settings_are_refused(done, capsys):
    assert main([*compare(done, "--seeds", "2"), "--gamma", "0.5"]) == 2
    assert "other settings" in capsys.readouterr().err
    assert main(compare(done, "--seeds", "0")) == 2


def test_another_number_of_episodes_only_evaluates_again(done, capsys):
    before = agents(done)
    argv = compare(done, "--seeds", "1")
    argv[argv.index("--episodes") + 1] = "3"
    assert main(argv) == 0
    assert agents(done) == before
    cells = json.loads(capsys.readouterr().out)["cells"]
    assert all(len(cell["returns"]) == 3 for runs in cells.values() for cell in runs)


def test_variants():
    assert variant("ppo:clip-range=0.1,psi=td") == {"recipe": "ppo", "clip_range": 0.1, "psi": TDError()}
    for text, part in (
        ("ppoo", "did you mean ppo"),
        ("ppo:clip-rnge=1", "did you mean clip_range"),
        ("ppo:clip-range=x", "give number"),
        ("ppo:clip-range", "no option"),
    ):
        with pytest.raises(UsageError, match=part):
            variant(text)


def test_the_table_says_what_failed():
    cells = {"a": [{"mean": 1.0}, {"mean": 3.0}], "b": [{"mean": 2.0}, {"error": "NaN"}], "c": [{"error": "NaN"}]}
    rows = summarise(cells)
    assert [(row["seeds"], row["failed"]) for row in rows] == [(2, 0), (1, 1), (0, 1)]
    assert rows[1]["p_better_than_first"] == 0.5
    assert rows[1]["mean"] == {"value": 2.0, "low": None, "high": None}
    text = markdown(rows).splitlines()
    assert "2.0 [1.0, 3.0]" in text[2]
    assert "1 (1 failed)" in text[3]
    assert "0 (1 failed)" in text[4]
    assert len({len(line) for line in text}) == 1


def test_runs_that_differ_in_their_seed_are_one_group(done, tmp_path):
    runs, seeds = find([done]), len(list((done / "a2c").glob("seed-*")))
    groups = group(runs)
    assert seeds >= 2
    assert [len(known.rows) for known in groups] == [seeds, seeds]
    assert {"Likelihood" in known.label for known in groups} == {True, False}
    draw(groups, [RETURN, "train/kl"], tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


def test_a_band_stays_where_returns_can_be():
    """Student's interval of 500, 500, 100 reaches 1000: where nobody has been, no band is drawn."""
    curves = [np.array([[0.0, 20.0], [1.0, top]]) for top in (500.0, 500.0, 100.0)]
    free = band(curves, points=5)
    assert free.high[-1] > 900
    assert free.low[-1] < 0
    kept = band(curves, points=5, within=(20.0, 500.0))
    assert (kept.low[-1], kept.high[-1]) == (20.0, 500.0)
    assert np.array_equal(kept.mean, free.mean)


def test_plot(done, tmp_path, capsys):
    target = tmp_path / "b.png"
    assert main(["plot", str(done / "a2c"), "--out", str(target), "--metrics", "train/kl,train/loss"]) == 0
    assert target.exists()
    assert "runs with the same settings" in capsys.readouterr().out
    assert main(["plot", str(done), "--metrics", "train/kll"]) == 1
    assert "did you mean train/kl" in capsys.readouterr().err
    assert main(["plot", str(tmp_path)]) == 1
    assert "no run" in capsys.readouterr().err
