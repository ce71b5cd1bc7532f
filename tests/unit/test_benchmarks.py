"""What the benchmarks' tables are computed with."""

import json

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from benchmarks import learning, paper
from benchmarks._cells import curve, kept, read
from benchmarks._sb3 import understood
from vantage.recipe.schedule import at


def runs(scores):
    """Finished runs of one task, by variant."""
    return {("task", variant): [{"score": x, "broke": None} for x in found] for variant, found in scores.items()}


def test_a_finished_cell_is_not_run_again(tmp_path):
    calls = []

    def work():
        calls.append(1)
        return {"score": 7.0}

    path = tmp_path / "cell.json"
    assert read(path) is None
    assert kept(path, work) == kept(path, work) == read(path) == {"score": 7.0}
    assert len(calls) == 1


def test_an_interrupted_cell_leaves_no_file(tmp_path):
    def work():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept(tmp_path / "cell.json", work)
    assert read(tmp_path / "cell.json") is None


def test_a_thinned_curve_keeps_its_last_point_and_drops_what_is_not_finite():
    rows = [{"time/total_timesteps": float(t), "x": float(t) if t else np.nan} for t in range(1000)]
    points = curve(rows, "x", 100)
    assert points[0] == [1, 1.0]
    assert points[-1] == [999, 999.0]
    assert len(points) <= 112


def test_the_random_policy_scores_0_and_the_best_run_1():
    scores = paper.normalised(runs({"none": [-90.0, 10.0], "clip 0.2": [110.0, 60.0]}), ["task"], {"task": 10.0})
    np.testing.assert_allclose(scores["task", "none"], [-1.0, 0.0])
    np.testing.assert_allclose(scores["task", "clip 0.2"], [1.0, 0.5])


def test_the_pooled_error_is_that_of_seeds_within_tasks():
    """s² = 2 and 8 with 2 runs each: SE² = (2/2 + 8/2)/4 = 1.25, 5²/(1 + 16) = 1.47 degrees of freedom."""
    mean, error, half = paper.pooled([np.array([0.0, 2.0]), np.array([10.0, 14.0])])
    assert mean == 6.5
    assert error == pytest.approx(np.sqrt(1.25))
    assert half == pytest.approx(paper.stats.t.ppf(0.975, 25 / 17) * np.sqrt(1.25))


def test_the_verdict_names_the_first_and_the_least():
    found = runs({"none": [0.0, 0.0], "clip 0.2": [80.0, 82.0], "fixed 1": [90.0, 100.0], "clip 0.1": [70.0, 74.0]})
    text = paper.verdict(found, ["task"], ["none", "clip 0.2", "fixed 1", "clip 0.1"], {"task": 0.0})
    assert "First: fixed 1, 0.14 before clip 0.2" in text
    assert "(standard error 0.05)" in text
    assert "Least of the constrained: clip 0.1, 0.72 above none." in text


def test_unfinished_cells_are_said_to_be_so():
    found = runs({"clip 0.2": [80.0]})
    text = paper.table(found, ["task"], ["clip 0.2", "fixed 1"], {"task": 0.0}, 3)
    assert "| clip 0.2 | **1.00** unfinished |" in text
    assert "1 of 3" in text
    assert "| fixed 1 |  unfinished |" in text
    assert "0 of 3" in text


def test_the_papers_treatment_hands_actions_over_as_drawn():
    """Swimmer's price of control is −0.0001‖a‖², beyond the bounds too."""
    pytest.importorskip("mujoco")
    wide = np.full(2, 10.0, np.float32)
    env = paper.Setup().env("Swimmer-v5")
    env.reset(seed=0)
    assert env.action_space.contains(wide)
    assert env.step(wide)[4]["reward_ctrl"] == pytest.approx(-0.02)
    assert not paper.Setup(clipped=True).env("Swimmer-v5").action_space.contains(wide)


def test_variants_differ_in_the_objective_alone():
    recipes = [variant.recipe for variant in paper.VARIANTS.values()]
    assert len({recipe.objective for recipe in recipes}) == len(recipes) == 11
    for name in ("psi", "critic", "n_epochs", "n_minibatches", "whiten", "ent_coef", "target_kl", "reduction"):
        assert len({getattr(recipe, name) for recipe in recipes}) == 1


def test_both_sides_read_one_entry():
    """Settings in the zoo's keys, as our converter and as Stable-Baselines3's worker understand them."""
    for name, run in learning.RUNS.items():
        entry = json.loads(json.dumps(run.entry))
        mine, theirs = learning.from_zoo(entry), understood(learning.without(entry, "policy_kwargs"))
        rate = theirs.get("learning_rate", 3e-4)
        a_quarter_in = at(mine.settings["optim"].lr, 0.25)
        assert a_quarter_in == pytest.approx(rate(0.75) if callable(rate) else rate), name
        assert mine.settings["gamma"] == theirs.get("gamma", 0.99), name
        assert mine.settings["recipe"].n_epochs == theirs.get("n_epochs", 10), name


def test_the_difference_of_two_sides_is_welchs():
    """s² = 4 and 1, 3 runs each: SE² = 5/3, (5/3)²/(16/18 + 1/18) = 2.94 degrees of freedom, t = 3.22."""
    text = learning.difference(np.array([10.0, 12.0, 14.0]), np.array([7.0, 8.0, 9.0]))
    assert text == "4.0 (-0.2 to 8.2)"
    assert learning.difference(np.array([500.0, 500.0]), np.array([490.0, 490.0])) == "10.0"
    assert learning.difference(np.array([1.0]), np.array([2.0, 3.0])) == ""
