"""Explanations: generated from the recipe that is run, complete, and different where the recipe is."""

import importlib
import io
import json
import re
from dataclasses import dataclass
from typing import Any

import pytest

import vantage as vt
from tests.architecture.source import PACKAGE
from vantage.cli import main
from vantage.explain import METRICS
from vantage.explain.choices import choices, convert, field_docs, write
from vantage.explain.recipe import explain_recipe
from vantage.explain.symbols import SYMBOLS, unknown
from vantage.recipe import (
    Coefficient,
    ConstantLength,
    CriticLoss,
    GroupMean,
    GroupRelative,
    Objective,
    Psi,
    Rate,
    Reduction,
    SequenceMean,
)
from vantage.recipe.presets import EVERY_RECIPE
from vantage.recipe.refused import reads_action_values
from vantage.runs.familiar import FAMILIAR
from vantage.theory import psi as weights

PSIS = (
    [kind() for kind in choices(Psi).values()]
    + [
        vt.RewardToGo(baseline=baseline)
        for baseline in (vt.LearnedBaseline(), vt.StateMean(leave_one_out=True), vt.BatchMean(), GroupMean())
    ]
    + [GroupRelative(scale=False, leave_one_out=True)]
)
OBJECTIVES = [
    vt.Ratio(), vt.Clip(), vt.Clip(high=0.3), vt.Clip(dual=3.0), vt.Clip(low=vt.Linear(0.2)), vt.Penalty(),
    vt.TrustRegion(),
    vt.Penalty(rule=vt.PaperTarget()), vt.Penalty(rule=vt.Proportional()), vt.Penalty(rule=None),
]  # fmt: skip
REDUCTIONS = [
    vt.Steps(), vt.Columns(), vt.Trajectories(), vt.Constant(n=5.0), ConstantLength(length=5.0), SequenceMean(),
]  # fmt: skip


def every_recipe() -> list[vt.Recipe]:
    return [
        *(build() for build in EVERY_RECIPE.values()),
        *(vt.Recipe(psi=psi, critic=vt.QCritic() if reads_action_values(psi) else vt.Squared()) for psi in PSIS),
        *(vt.Recipe(objective=objective) for objective in OBJECTIVES),
        *(vt.Recipe(critic=kind()) for kind in choices(CriticLoss).values()),
        *(vt.Recipe(reduction=reduction) for reduction in REDUCTIONS),
        vt.Recipe(ent_coef=0.01, target_kl=0.02, whiten=None, time_weighting="discounted", recompute_advantages=True),
        vt.Recipe(psi=vt.RewardToGo(), critic=None),
    ]


@pytest.mark.parametrize("recipe", every_recipe(), ids=lambda recipe: explain_recipe(recipe).title)
def test_every_symbol_of_every_formula_is_in_the_table(recipe):
    found = explain_recipe(recipe)
    assert not [text for text in found.formulas if unknown(text)]
    listed = {row["symbol"] for row in found.rows()}
    assert len(listed) > 4
    assert all(row["kind"] and row["by"] for row in found.rows())
    assert "E_{" in found.objective or "Σ" in found.objective
    assert str(found)


def test_all_alternatives_are_covered():
    assert {type(psi) for psi in PSIS} == set(choices(Psi).values())
    assert {type(x) for x in OBJECTIVES} | {vt.Likelihood} == set(choices(Objective).values())
    assert {type(x) for x in REDUCTIONS} == set(choices(Reduction).values())


@pytest.mark.parametrize("symbol", SYMBOLS, ids=lambda symbol: symbol.sign)
def test_each_symbol_names_something_that_exists(symbol):
    parts = symbol.by.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module("vantage." + ".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        rest = parts[cut:]
        break
    for name in rest:
        assert hasattr(found, name) or name in getattr(found, "__dataclass_fields__", {})
        found = getattr(found, name, None)


def test_choices_change_formula_and_symbols():
    plain, other = vt.explain("ppo"), vt.explain("ppo", psi="td", objective="penalty")
    assert "min(" in plain.objective
    assert "KL(π_old(·|s_t) ‖ π_θ(·|s_t))" in other.objective
    before, after = ({row["symbol"] for row in found.rows()} for found in (plain, other))
    assert {"λ", "ε", "Â_t"} <= before - after
    assert {"β", "KL(π_old‖π_θ)", "KL_max"} <= after - before
    assert any(str(one).startswith("Ψ_t = (δ_t − mean)") for one in other.where)
    assert any("β ← β · factor" in line for line in other.update)


def test_the_sampling_policy_stands_under_the_expectation():
    assert vt.explain("a2c").objective.startswith("E_{s_t, a_t ∼ π_θ}[")
    assert vt.explain("ppo").objective.startswith("E_{s_t, a_t ∼ π_old}[")
    assert vt.explain("reinforce").objective.startswith("E_{τ ∼ π_θ}[ Σ_t")


def test_critics_have_their_own_width():
    found = vt.explain("ppo", critic="clipped:width=3")
    assert found.critic is not None
    assert "max((V_φ − R_t)², (V^CLIP − R_t)²)" in found.critic
    assert next(row for row in found.rows() if row["symbol"] == "ε_v")["what"].endswith("3")
    assert next(row for row in found.rows() if row["symbol"] == "ε")["what"].endswith("0.2")


def test_whitening_entropy_and_discount_are_seen():
    found = vt.explain("ppo", whiten="none", ent_coef="lin_0.01", time_weighting="discounted")
    assert "c_ent H(π_θ(·|s_t))" in found.objective
    assert any(str(one) == "Ψ_t = γ^t Â_t" for one in found.where)
    assert any("from 0.01 to 0" in line for line in found.update)


@dataclass(frozen=True, kw_only=True)
class Doubled:
    """A Ψ of a user's own."""

    needs_value = True
    counts_from_start = False

    def __call__(self, r: Any) -> tuple[Any, Any]:
        delta = weights.td_error(r.signal, r.value, r.next_value, r.discount)
        return 2.0 * delta, delta + r.value


def test_a_type_of_ones_own_is_read_from_its_code():
    recipe = vt.Recipe(whiten=None)
    object.__setattr__(recipe, "psi", Doubled())  # the tests' type checker admits only the library's own
    found = explain_recipe(recipe)
    assert any(str(one) == "Ψ_t = 2.0 δ_t" for one in found.where)


def test_unknown_words_suggest_the_nearest():
    with pytest.raises(ValueError, match="did you mean ppo"):
        vt.explain("ppoo")
    with pytest.raises(ValueError, match="did you mean psi"):
        vt.explain("ppo", psy="td")
    with pytest.raises(ValueError, match="train/approx_kl"):
        vt.explain("train/aprox_kl")


@pytest.mark.parametrize("name", METRICS)
def test_each_metric_has_formula_and_unit(name):
    found = vt.explain(name)
    assert found.formula
    assert found.unit
    assert str(found).startswith(name)


def test_metric_formulas_come_from_docstrings():
    found = vt.explain("train/approx_kl")
    assert found.formula == "k3 = q(x)/p(x) − 1 − log(q(x)/p(x))"
    assert found.unit == "nats"
    assert found.by == "theory.divergences.k3"


def test_every_metric_that_is_logged_is_explained():
    sources = [*(PACKAGE / "control").glob("*.py"), PACKAGE / "theory" / "loss.py", PACKAGE / "loop.py"]
    logged = {name for path in sources for name in re.findall(r'"((?:train|rollout|time)/\w+)"', path.read_text())}
    assert "train/approx_kl" in logged
    assert logged <= METRICS.keys()


def test_every_metric_of_language_models_is_explained():
    """Those that the code names, those of a reward, and the names of other libraries."""
    texts = [path.read_text() for path in (PACKAGE / "language").glob("*.py")]
    known = r'"((?:objective|policy|completions|val|train|eval)/\w+|frac_reward_zero_std|episode|time/tokens)": '
    keys = {name for text in texts for name in re.findall(known, text)}
    assert {"objective/kl", "val/num_eos_tokens", "frac_reward_zero_std"} <= keys
    assert keys <= METRICS.keys()
    assert set(FAMILIAR.values()) <= METRICS.keys()
    assert vt.explain("objective/kl").by == "theory.divergences.k1"
    assert vt.explain("rewards/late_words/mean").what.startswith("what the reward function NAME gave")
    assert vt.explain("policy/approxkl_avg").by == vt.explain("train/approx_kl").by


def test_the_module_is_the_function():
    importlib.import_module("vantage.explain")
    assert "Clip" in vt.explain("ppo").title


@pytest.mark.parametrize(
    ("text", "annotation", "value"),
    [
        ("0.2", Coefficient, 0.2),
        ("lin_0.2", Coefficient, vt.Linear(0.2)),
        ("lin_0.2:0.05", Coefficient, vt.Linear(0.2, 0.05)),
        ("cos_0.2", Coefficient, vt.Cosine(0.2)),
        ("exp_1e-3:1e-05", Coefficient, vt.Exponential(1e-3, 1e-5)),
        ("pts_0=0.2/0.5=0.1/1=0", Coefficient, vt.Piecewise(((0.0, 0.2), (0.5, 0.1), (1.0, 0.0)))),
        ("gae:lam=pts_0=1/1=0.9", Psi, vt.GAE(lam=vt.Piecewise(((0.0, 1.0), (1.0, 0.9))))),
        ("kl-adaptive:start=0.002,target=lin_0.02:0.01", Rate, vt.KLAdaptive(start=2e-3, target=vt.Linear(0.02, 0.01))),
        ("none", Coefficient | None, None),
        ("1e5", int, 100_000),
        ("64,32", tuple[int, ...], (64, 32)),
        ("td", Psi, vt.TDError()),
        ("gae:0.9", Psi, vt.GAE(lam=0.9)),
        ("k-step:k=3", Psi, vt.KStep(k=3)),
        ("reward-to-go:baseline=state-mean", Psi, vt.RewardToGo(baseline=vt.StateMean())),
        ("true", bool, True),
    ],
)
def test_text_becomes_a_value_and_back(text, annotation, value):
    assert convert(text, annotation) == value
    assert convert(write(value), annotation) == value


@pytest.mark.parametrize(
    ("text", "annotation", "part"),
    [
        ("abc", Coefficient, "lin_0.2"),
        ("lin_abc", Coefficient, "'abc'"),
        ("1.5", int, "int"),
        ("maybe", bool, "true"),
        ("gaee", Psi, "did you mean gae"),
        ("gae:lamb=1", Psi, "did you mean lam"),
        ("gae:2", Psi, "λ lies between"),
    ],
)
def test_text_that_means_nothing(text, annotation, part):
    with pytest.raises(ValueError, match=part):
        convert(text, annotation)


def test_field_docs_are_the_fields_own():
    assert field_docs(vt.Recipe)["n_epochs"].startswith("k: how often")
    assert field_docs(vt.Recipe).keys() == vt.Recipe.__dataclass_fields__.keys()


def test_the_natural_step_stands_before_the_epochs_of_the_critic():
    steps = vt.explain("TRPO").update
    natural = next(i for i, line in enumerate(steps) if line.startswith("before the epochs"))
    epochs = next(i for i, line in enumerate(steps) if "10 epochs" in line)
    assert natural < epochs
    assert "steps of the critic's optimiser" in steps[epochs]


def test_two_recipes_differ_in_formulas():
    found = vt.diff(vt.PPO(), vt.TRPO())
    parts = {part.title: part for part in found.parts}
    assert parts["The actor maximises over θ"].left == (vt.explain("ppo").objective,)
    assert parts["The actor maximises over θ"].right == (vt.explain("trpo").objective,)
    assert parts["subject to"].left == () and "KL(π_old(·|s_t) ‖ π_θ(·|s_t))" in parts["subject to"].right[0]
    assert "The critic minimises over φ" not in parts, "both minimise the same"
    assert "Clip.low = 0.2" in parts["with"].left and "TrustRegion.delta = 0.01" in parts["with"].right
    assert not any("GAE.lam" in line for line in parts["with"].left), "both have it"
    assert "−     " + vt.explain("ppo").objective in str(found).split("\n")
    assert "+     " + vt.explain("trpo").objective in str(found).split("\n")


def test_recipes_with_groups_say_who_is_in_the_group_and_what_a_step_counts():
    grpo, rloo = vt.explain("grpo"), vt.explain("rloo")
    assert grpo.objective == "E_{τ ∼ π_old}[ Σ_t w_{tb} (min(r_t(θ) Ψ_t, clip(r_t(θ), 1 − ε, 1 + ε) Ψ_t)) ]"
    assert {"w_{tb} = m_{tb} / Σ_t m_{tb}", "K_b = {j: group_j = group_b}"} <= set(map(str, grpo.where))
    assert rloo.objective == "E_{τ ∼ π_θ}[ Σ_t (Ψ_t log π_θ(a_t|s_t)) ]"
    assert {"Ψ_t = G_b − mean_{j∈K_b} G_j", "K_b = {j ≠ b: group_j = group_b}"} <= set(map(str, rloo.where))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("rloo --clip-range 0.1", "RLOO has no option 'clip_range'"),
        ("rloo --objective penalty", "RLOO has no option 'objective'"),
        ("ppo --group-size 4", "--group-size is of the recipes with groups"),
        ("grpo --group-size 1", "a group has at least two columns"),
    ],
)
def test_what_a_recipe_does_not_have_is_said(words, says, capsys):
    assert main(["explain", *words.split()]) in (1, 2)
    assert says in capsys.readouterr().err


def test_options_of_recipes_with_groups_on_the_command_line(capsys):
    assert main(["explain", "grpo", "--scale", "false", "--against", "rloo"]) == 0
    told = capsys.readouterr().out
    assert "−     K_b = {j: group_j = group_b}" in told and "+     K_b = {j ≠ b: group_j = group_b}" in told
    assert "Ψ_t = (" not in told, "both centre and neither divides"


@pytest.mark.parametrize("name", EVERY_RECIPE)
def test_a_recipe_differs_from_every_other_and_not_from_itself(name):
    assert vt.diff(EVERY_RECIPE[name](), EVERY_RECIPE[name]()).same
    for other in EVERY_RECIPE.keys() - {name}:
        found = vt.diff(EVERY_RECIPE[name](), EVERY_RECIPE[other]())
        assert not found.same
        assert found.to_dict()["parts"]


def test_a_number_alone_is_a_difference():
    found = vt.diff(vt.PPO(), vt.PPO(clip_range=vt.Cosine(0.2)))
    assert [part.title for part in found.parts] == ["One update", "with"]
    assert found.parts[1].lines == [("−", "Clip.low = 0.2"), ("+", "Clip.low = cos_0.2")]


def test_rich_shows_the_same_text_in_two_colours():
    from rich.console import Console

    found = vt.diff(vt.PPO(), vt.PPOPenalty())
    console = Console(record=True, width=200, file=io.StringIO(), force_terminal=True, color_system="standard")
    console.print(found)
    plain, coloured = console.export_text(clear=False), console.export_text(styles=True)
    assert [line.rstrip() for line in plain.splitlines()] == [line.rstrip() for line in str(found).splitlines()]
    assert "\x1b[31m− " in coloured and "\x1b[32m+ " in coloured


def test_the_command_compares(capsys):
    assert main(["explain", "ppo", "--against", "trpo", "--clip-range", "0.1"]) == 0
    out = capsys.readouterr().out
    assert "−     Clip.low = 0.1" in out and "+     TrustRegion.delta = 0.01" in out
    assert main(["explain", "ppo", "--against", "ppo", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parts"] == {}
    assert main(["explain", "train/kl", "--against", "ppo"]) == 2
    assert main(["explain", "ppo", "--against", "tpro"]) == 2
    assert "did you mean trpo" in capsys.readouterr().err
