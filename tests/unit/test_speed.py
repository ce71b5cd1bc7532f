"""What the tables of speed and of scaling are computed with."""

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import _sides, exact, scaling, speed
from benchmarks.speed import COMPARISONS, Bar, Comparison


def pairs(**figures):
    """Runs of sides, by side."""
    runs = {side: [{"steps/s": x, "MB": 100.0, "return": 10.0 * x} for x in found] for side, found in figures.items()}
    length = max(map(len, runs.values()))
    sides = [{side: found[i] for side, found in runs.items() if i < len(found)} for i in range(length)]
    return [{"date": "2026-01-01 00:00", "machine": "M, 2 cores", "load": 0.5, "sides": each} for each in sides]


@pytest.fixture
def row(monkeypatch, tmp_path):
    """A comparison of "a" with "b" and "b, 1 thread", whose pairs are kept in a folder of its own."""
    made = Comparison(
        row=speed.CLEANRL, sides=("a", "b", "b, 1 thread", "c"),
        bars=(Bar(over="b", times=3.0), Bar(over="c", times=2.0)),
    )  # fmt: skip
    monkeypatch.setitem(COMPARISONS, "row", made)
    monkeypatch.setattr(speed, "FOLDER", tmp_path)
    return made


def test_a_bar_is_met_against_the_better_of_a_peers_sides(row):
    found = pairs(a=[90.0, 100.0, 110.0], b=[20.0, 25.0, 30.0], **{"b, 1 thread": [40.0, 40.0, 41.0]})
    assert speed.verdicts("row", found) == [
        ["row", "b", "≥ 3 ×", "2.50 ×", "**missed**"],
        ["row", "c", "≥ 2 ×", "", "not run"],
    ]
    found = pairs(a=[90.0, 100.0, 110.0], b=[20.0, 25.0, 30.0], c=[50.0])
    assert speed.verdicts("row", found) == [
        ["row", "b", "≥ 3 ×", "4.00 ×", "met"],
        ["row", "c", "≥ 2 ×", "2.00 ×", "met"],
    ]


def test_a_run_that_never_got_there_took_for_ever():
    made = replace(COMPARISONS["solve"], sides=("a", "b"))
    found = [{"sides": {"a": {"solved": 4.0}, "b": {"solved": x}}} for x in (20.0, None, None)]
    assert speed.middle(found, "b", "solved") == np.inf
    assert speed.times(found[:1], made, "b") == 5.0


def test_limits_and_memory_are_judged():
    sides = {
        side: {"first update": x, "MB": 400.0} for side, x in zip(COMPARISONS["start-up"].sides, (5.1, 2.0, 0.2, 3.0))
    }
    sides["SB3"]["MB"] = 320.0
    told = speed.verdicts("start-up", [{"sides": sides}])
    assert [each[-1] for each in told] == ["**missed**", "met", "met", "met"]
    assert told[-1][1:4] == ["SB3, peak memory", "≤ 1.5 ×", "1.25 ×"]


def test_the_section_shows_median_range_and_the_interval_of_returns(row):
    for seed, found in enumerate(pairs(a=[90.0, 100.0, 110.0], b=[20.0, 25.0, 30.0])):
        speed.path("row", seed).write_text(json.dumps(found))
    text = speed.section("row", 5)
    assert "Pairs: 3 of 5, unfinished; M, 2 cores, 2026-01-01 00:00 UTC, load 0.5 to 0.5." in text
    assert "| a | 100 | 90.00 … 110 (3) |  | 100 | 1000 ± 248 |" in text  # t = 4.303, s = 100
    assert "| b | 25.00 | 20.00 … 30.00 (3) | 4.00 | 100 | 250 ± 124 |" in text
    assert "| c | not run |" in text
    assert "no pair has been run" in speed.section("cartpole-zoo", 5)
    assert "| row | b | ≥ 3 × | 4.00 × | met | 3 of 5, unfinished |" in speed.report(5)


def test_a_pair_that_is_there_is_not_run_again(row, monkeypatch):
    asked = []
    monkeypatch.setattr(speed, "run", lambda worker, side, job, python, told: asked.append((side, job.seed)) or {})
    speed.measure("row", pairs=3, new=1, pythons={})
    speed.measure("row", pairs=3, new=1, pythons={})
    assert asked == [(side, seed) for seed in (0, 1) for side in row.sides]


def test_a_side_runs_under_the_interpreter_of_its_library():
    pythons = {"SB3": "one", "SB3, its own Atari": "two"}
    assert [speed.python_of(side, pythons) for side in ("SB3, 1 thread", "SB3, its own Atari, 1 thread")] == [
        "one",
        "two",
    ]
    assert speed.python_of("Vantage", pythons) == speed.sys.executable


def test_all_ways_evaluate_the_same_policy():
    for method in ("certified", "SciPy bicgstab", "SciPy gmres", "SciPy sweeps"):
        assert exact.evaluated(method, 300)["error"] <= 2e-8, method


def test_the_exponent_of_a_power_law_is_its_own():
    x = [1.0, 10.0, 100.0]
    assert scaling.exponent(x, [5.0 * n**-0.75 for n in x]) == pytest.approx(-0.75)
    assert np.isnan(scaling.exponent([1.0], [1.0]))


def test_the_scaling_table_fits_what_was_measured(monkeypatch, tmp_path):
    monkeypatch.setattr(scaling, "FOLDER", tmp_path)
    for n in scaling.STUDIES["width"].setups:
        parts = {"step": 5.0, "update": 1e-3 * n**2}
        cell = {"steps/s": 1e6 / n**2, "us a step": parts, "MB": 300.0}
        scaling.path("width", n).write_text(json.dumps(cell))
    for n in list(scaling.STUDIES["memory"].setups)[:4]:
        cell = {"steps/s": 1.0, "us a step": {"act": 1.0}, "MB": 300.0 + (n - 1024)}
        scaling.path("memory", n).write_text(json.dumps(cell))
    text = scaling.table()
    assert "| -2.00 | -2.00 | step 55% | update 100% |" in text
    assert "1 unfinished" in text
    assert scaling.values("memory") == ([4096, 16384, 65536], [3072.0, 15360.0, 64512.0])


def test_a_cell_of_scaling_is_measured(monkeypatch):
    monkeypatch.setattr(scaling, "SECONDS", 0.0)
    found = scaling.cell(scaling.Setup(n_envs=2, n_steps=8, batch_size=8, width=8))
    assert found["steps/s"] > 0
    assert {"act", "step", "update"} <= set(found["us a step"])
    assert found["updates"] == 2


def test_every_side_has_a_worker_and_every_bar_a_side():
    for name, made in COMPARISONS.items():
        assert set(made.sides) <= set(_sides.SIDES), name
        for bar in (*made.bars, *([made.memory] if made.memory else [])):
            assert any(side.startswith(bar.over) for side in made.sides[1:]), (name, bar)
        assert {side for side, _ in made.limits} <= set(made.sides)
