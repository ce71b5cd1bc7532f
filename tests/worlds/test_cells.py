"""Every Ψ × every objective × every critic loss trains two updates, or is refused with the reason of the table."""

from itertools import product
from types import SimpleNamespace
from typing import get_args

import jax
import numpy as np
import pytest

import vantage as vt
from vantage.control import MLP
from vantage.mdp.env import MDPEnv
from vantage.recipe import REFUSED, CriticLoss, GroupRelative, Objective, Psi, refusal

WORLD = vt.mdp.random_mdp(3, 2, gamma=0.9, seed=1)
PSIS = (
    vt.TotalReturn(), vt.RewardToGo(), vt.RewardToGo(baseline=vt.LearnedBaseline()),
    vt.RewardToGo(baseline=vt.StateMean()), vt.RewardToGo(baseline=vt.BatchMean(leave_one_out=True)),
    vt.RewardToGo(baseline=vt.GroupMean()), vt.ActionValue(), vt.Advantage(), vt.TDError(), vt.KStep(k=3), vt.GAE(),
    GroupRelative(),
)  # fmt: skip
OBJECTIVES = (vt.Likelihood(), vt.Ratio(), vt.Clip(), vt.Penalty(), vt.TrustRegion(cg_steps=3, backtracks=4))
CRITICS = (None, vt.Squared(), vt.ClippedValue(), vt.ResidualTD(), vt.QCritic())
CELLS = tuple(product(PSIS, OBJECTIVES, CRITICS))
QUICK = frozenset(
    (i, i % len(OBJECTIVES), j) for i, j in enumerate((0, 1, 2, 3, 4, 1, 4, 4, 3, 2, 4, 0))
)  # one of each Ψ, two or more of each objective and of each critic


def where(cell) -> tuple[int, int, int]:
    psi, objective, critic = cell
    return PSIS.index(psi), OBJECTIVES.index(objective), CRITICS.index(critic)


def name(cell) -> str:
    psi, *others = cell
    inside = getattr(psi, "baseline", None)
    kinds = [type(psi).__name__ + (f"-{type(inside).__name__}" if inside else "")]
    return "-".join([*kinds, *(type(x).__name__ for x in others)])


def choices(cell) -> dict:
    psi, objective, critic = cell
    return dict(
        psi=psi, objective=objective, critic=critic, n_epochs=1, n_minibatches=2 if objective.reuses else 1,
        target_kl=None,
    )  # fmt: skip


def env():
    """Three states, five decisions an episode."""
    return MDPEnv(WORLD, max_steps=5)


def agent(recipe, source=env, **options):
    return vt.Agent(source, recipe, **{"n_envs": 2, "n_steps": 8, "network": MLP(hidden=(4,)), **options})


def test_every_alternative_is_in_the_table():
    assert {type(x) for x in PSIS} == set(get_args(Psi))
    assert {type(x) for x in OBJECTIVES} == set(get_args(Objective))
    assert {type(x) for x in CRITICS} == {*get_args(CriticLoss), type(None)}
    for axis, options in enumerate((PSIS, OBJECTIVES, CRITICS)):
        assert {cell[axis] for cell in QUICK} == set(range(len(options)))


def test_what_is_refused_is_what_cannot_be_computed():
    """The pairs that the table refuses by themselves, said a second time."""
    for cell in CELLS:
        psi, _, critic = cell
        acts = isinstance(psi, vt.ActionValue | vt.Advantage)
        impossible = (critic is None and psi.needs_value) or (acts and not isinstance(critic, vt.QCritic))
        assert (refusal(SimpleNamespace(**choices(cell))) is not None) == impossible, name(cell)


@pytest.mark.parametrize(
    "cell", [pytest.param(c, id=name(c), marks=() if where(c) in QUICK else pytest.mark.slow) for c in CELLS]
)
def test_every_cell_trains_or_is_refused(cell):
    """Without compiling: a cell then costs its arithmetic, not a program of its own."""
    row = refusal(SimpleNamespace(**choices(cell)))
    if row is not None:
        with pytest.raises(ValueError) as error:
            vt.Recipe(**choices(cell))
        assert row.why in str(error.value) and f"Recipe.{row.field} = " in str(error.value)
        return
    recipe = vt.Recipe(**choices(cell))
    if isinstance(recipe.psi, GroupRelative) or isinstance(getattr(recipe.psi, "baseline", None), vt.GroupMean):
        with pytest.raises(ValueError, match="it compares columns that answer one prompt, and here there are none"):
            agent(recipe)
        return
    with jax.disable_jit():
        made = agent(recipe)
        before = made.world.vector
        report = made.learn(10**6, callbacks=lambda update: update.updates < 2)
    assert len(report.rows) == 2
    n = made._model.n_actor
    moved = made.world.vector != before
    assert moved[:n].any() or report.final["train/is_line_search_success"] == 0
    assert recipe.critic is None or moved[n:].any()
    assert all(row["train/first_ratio_deviation"] <= 1e-4 for row in report.rows)
    assert np.isfinite([x for row in report.rows for key, x in row.items() if "explained" not in key]).all()


WORLDLY = [
    (vt.PPO(critic=vt.QCritic()), "Pendulum-v1", "it says Q(s, a) of every action, and here they cannot be listed"),
    (vt.REINFORCE(psi=vt.RewardToGo(baseline=vt.StateMean())), "CartPole-v1", "an observation is no state number"),
    (vt.REINFORCE(psi=vt.RewardToGo(baseline=vt.GroupMean())), env, "it compares columns that answer one prompt"),
    (vt.GRPO(), env, "it compares columns that answer one prompt"),
]


@pytest.mark.parametrize(("recipe", "source", "words"), WORLDLY, ids=[words[:20] for *_, words in WORLDLY])
def test_what_a_world_cannot_give_is_said_before_any_work(recipe, source, words):
    with pytest.raises(ValueError, match="Recipe") as error:
        agent(recipe, source)
    assert words in str(error.value)


def test_every_refusal_happens():
    """No row of the table is dead: each is the reason of an error in this file or the next two lines."""
    more = [
        SimpleNamespace(**choices(CELLS[0]) | {"n_epochs": 2}),
        SimpleNamespace(**choices(CELLS[-1]) | {"target_kl": 0.01}),
    ]
    found = {refusal(x) for x in [*(SimpleNamespace(**choices(cell)) for cell in CELLS), *more]}
    texts = [words for *_, words in WORLDLY]
    rows = {row for row in REFUSED if row in found or any(words in row.why for words in texts)}
    assert rows == set(REFUSED)
