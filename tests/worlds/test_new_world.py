"""The example of a world of one's own: its page is the code under test."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

import vantage as vt
from vantage.loop import learn
from vantage.world import World

PAGE = Path(__file__).resolve().parents[2] / "docs" / "new_world.md"


@pytest.fixture(scope="module")
def page() -> dict:
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL).group(1)
    assert len(code.splitlines()) <= 90
    names: dict = {"__name__": "page"}
    exec(code, names)
    return names


def test_it_is_a_world_and_learns(page):
    bandit = page["bandit"]
    assert isinstance(bandit, World)
    p = np.asarray(jax.nn.softmax(bandit.parameters["logits"]))
    assert p[2] > 0.9
    assert float(bandit.parameters["value"]) == pytest.approx(float(p @ np.array([0.0, 0.5, 1.0])), abs=0.15)


def test_it_resumes_bit_for_bit(page):
    recipe, make = vt.PPO(n_epochs=2, n_minibatches=1), lambda: page["Bandit"]([0.0, 1.0], seed=3)
    whole, half, resumed = make(), make(), make()
    learn(whole, recipe, 256 * 6)
    learn(half, recipe, 256 * 3)
    resumed.restore(half.state())
    learn(resumed, recipe, 256 * 6)
    np.testing.assert_array_equal(resumed.parameters["logits"], whole.parameters["logits"])
    assert resumed.steps == whole.steps == 256 * 6


@pytest.mark.parametrize(
    "recipe", [vt.REINFORCE(), vt.A2C(n_minibatches=1), vt.PPOPenalty(n_epochs=2, n_minibatches=1)]
)
def test_other_recipes_go_in_the_same_place(page, recipe):
    bandit = page["Bandit"]([0.0, 2.0])
    report = learn(bandit, recipe, 256 * 20)
    assert jax.nn.softmax(bandit.parameters["logits"])[1] > 0.8
    assert report.final["time/iterations"] == 20


def test_the_first_ratio_is_one(page):
    report = learn(page["Bandit"]([0.0, 2.0]), vt.PPO(n_epochs=1, n_minibatches=1), 256)
    assert report.final["train/ratio_deviation"] < 1e-6
