"""Recipes: every check and its words, frozen and keyword-only choices, schedules, time weighting, named algorithms."""

import inspect
import json
import re
from dataclasses import FrozenInstanceError, fields, is_dataclass, replace
from pathlib import Path
from typing import get_args, get_type_hints

import jaxtyping
import numpy as np
import pytest

import vantage as vt
from tests.backends._cases import record
from tests.conftest import BACKENDS
from vantage import recipe as recipes
from vantage.recipe import RECIPES, Schedule, at, optim_at, positive, refused
from vantage.runs.config import from_json, to_json
from vantage.theory import returns

BAD = [
    (lambda: vt.KStep(k=0), "KStep.k = 0: take at least one step; k = 1 is the TD error"),
    (lambda: vt.GAE(lam=1.5), "GAE.lam = 1.5: λ lies between 0"),
    (lambda: vt.GAE(lam=-0.1), "GAE.lam = -0.1"),
    (lambda: vt.GAE(lam=float("nan")), "GAE.lam = nan"),
    (lambda: vt.GAE(critic_lam=1.5), "GAE.critic_lam = 1.5: λ lies between 0"),
    (lambda: vt.GAE(lam=vt.Linear(1.0, 2.0)), "GAE.lam = Linear(start=1.0, end=2.0)"),
    (lambda: vt.GAE(lam=vt.Piecewise(((0.0, 0.9), (0.3, 1.1), (1.0, 0.9)))), "GAE.lam = Piecewise(points="),
    (lambda: vt.Exponential(0.0, 1.0), "Exponential.start = 0.0: only positive numbers are a factor apart"),
    (lambda: vt.Exponential(1.0, 0.0), "Exponential.end = 0.0"),
    (lambda: vt.Piecewise(()), "Piecewise.points = (): pairs (x, value), 0 ≤ x ≤ 1 rising"),
    (lambda: vt.Piecewise(((0.5, 1.0), (0.5, 2.0))), "Piecewise.points = ((0.5, 1.0), (0.5, 2.0))"),
    (lambda: vt.Piecewise(((0.5, 1.0), (1.5, 2.0))), "Piecewise.points"),
    (lambda: vt.KLAdaptive(start=0.1), "KLAdaptive.start = 0.1: it lies between lr_min = 1e-05 > 0 and lr_max = 0.01"),
    (lambda: vt.KLAdaptive(target=0.0), "KLAdaptive.target = 0.0"),
    (lambda: vt.KLAdaptive(factor=1.0), "KLAdaptive.factor = 1.0"),
    (lambda: vt.Clip(low=0.0), "Clip.low = 0.0: the clip range is a positive ratio, such as 0.2"),
    (lambda: vt.Clip(low=vt.Linear(0.2, -0.1)), "Clip.low = Linear(start=0.2, end=-0.1)"),
    (lambda: vt.Clip(high=-0.1), "Clip.high = -0.1"),
    (lambda: vt.Clip(dual=1.0), "Clip.dual = 1.0: the dual clip is a ratio above 1"),
    (lambda: vt.Thresholds(kl_min=0.02, kl_max=0.02), "Thresholds.kl_min = 0.02: it must lie below kl_max = 0.02"),
    (lambda: vt.Thresholds(kl_min=-1.0), "Thresholds.kl_min = -1.0"),
    (lambda: vt.Thresholds(kl_min=vt.Linear(0.01, 0.03)), "Thresholds.kl_min = Linear(start=0.01, end=0.03)"),
    (lambda: vt.Thresholds(factor=1.0), "Thresholds.factor = 1.0"),
    (lambda: vt.Thresholds(beta_min=2.0, beta_max=1.0), "Thresholds.beta_min = 2.0: it must be positive and not above"),
    (lambda: vt.PaperTarget(beta_min=0.0), "PaperTarget.beta_min = 0.0: it must be positive and not above beta_max"),
    (lambda: recipes.GroupRelative(size=1), "GroupRelative.size = 1: a group has at least two columns to compare"),
    (lambda: recipes.GroupRelative(leave_one_out=True), "GroupRelative.scale = True"),
    (lambda: recipes.ConstantLength(length=0.0), "ConstantLength.length = 0.0: a positive number of steps"),
    (lambda: recipes.KLInReward(beta=-1.0), "KLInReward.beta = -1.0: the price of KL is not negative"),
    (lambda: recipes.KLInLoss(beta=-1.0), "KLInLoss.beta = -1.0: the price of KL is not negative"),
    (lambda: recipes.KLInLoss(estimator="k1"), 'KLInLoss.estimator = \'k1\': choose "k2", "k3" or "exact"'),
    (lambda: recipes.KLInLoss(estimator="exact", through_ratio=True), "KLInLoss.through_ratio = True"),
    (lambda: recipes.Truncated(cap=0.0), "Truncated.cap = 0.0: a positive ratio, such as 2.0"),
    (lambda: recipes.Banded(low=1.5), "Banded.low = 1.5: a ratio between 0 and 1"),
    (lambda: recipes.Banded(high=0.5), "Banded.high = 0.5: a ratio above 1"),
    (lambda: vt.PaperTarget(target=0.0), "PaperTarget.target = 0.0"),
    (lambda: vt.Proportional(target=0.0), "Proportional.target = 0.0"),
    (lambda: vt.Proportional(horizon=0.0), "Proportional.horizon = 0.0"),
    (lambda: vt.TrustRegion(delta=0.0), "TrustRegion.delta = 0.0: a positive KL in nats per step, such as 0.01"),
    (lambda: vt.TrustRegion(cg_steps=0), "TrustRegion.cg_steps = 0"),
    (lambda: vt.TrustRegion(damping=-0.1), "TrustRegion.damping = -0.1"),
    (lambda: vt.TrustRegion(backtracks=0), "TrustRegion.backtracks = 0"),
    (lambda: vt.TrustRegion(shrink=1.0), "TrustRegion.shrink = 1.0: a share between 0 and 1, such as 0.8"),
    (lambda: vt.TRPO(target_kl=0.01), "Recipe.target_kl = 0.01: a trust region bounds the KL itself"),
    (lambda: vt.Penalty(beta=-1.0), "Penalty.beta = -1.0: the price of KL is not negative"),
    (lambda: vt.Penalty(beta=vt.Linear(1.0)), "or a schedule with rule=None"),
    (lambda: vt.ClippedValue(width=0.0), "ClippedValue.width = 0.0: a positive number in units of the value"),
    (lambda: vt.Constant(n=0), "Constant.n = 0: a positive denominator"),
    (lambda: vt.Joint(lr=0.0), "Joint.lr = 0.0"),
    (lambda: vt.Joint(max_grad_norm=0.0), "Joint.max_grad_norm = 0.0"),
    (lambda: vt.Joint(optimiser=vt.recipe.RMSProp), "Joint.optimiser ="),
    (lambda: vt.recipe.Adam(b1=1.0), "Adam.b1 = 1.0"),
    (lambda: vt.recipe.Adam(b2=-0.1), "Adam.b2 = -0.1"),
    (lambda: vt.recipe.RMSProp(decay=1.0), "RMSProp.decay = 1.0"),
    (lambda: vt.Separate(max_grad_norm=-1.0), "Separate.max_grad_norm = -1.0"),
    (lambda: vt.Separate(actor_lr=-1.0), "Separate.actor_lr = -1.0"),
    (lambda: vt.Separate(critic_lr=vt.Linear(0.0)), "Separate.critic_lr = Linear(start=0.0, end=0.0)"),
    (lambda: vt.PPO(n_epochs=0), "Recipe.n_epochs = 0: use each rollout at least once"),
    (lambda: vt.PPO(n_minibatches=0), "Recipe.n_minibatches = 0"),
    (lambda: vt.PPO(whiten="rollout"), 'Recipe.whiten = \'rollout\': choose "minibatch", "batch" or None'),
    (lambda: vt.PPO(time_weighting="both"), "Recipe.time_weighting = 'both'"),
    (lambda: vt.PPO(target_kl=0.0), "Recipe.target_kl = 0.0: a positive KL in nats per step"),
    (lambda: vt.REINFORCE(n_epochs=2), "with n_epochs = 2 and n_minibatches = 1 use Ratio, Clip or Penalty"),
    (lambda: vt.A2C(n_minibatches=4), "with n_epochs = 1 and n_minibatches = 4 use Ratio, Clip or Penalty"),
    (lambda: vt.PPO(critic=None), "it reads V(s), so it needs a critic: give critic=Squared()"),
    (
        lambda: vt.PPO(psi=vt.Advantage()),
        "Recipe.psi = Advantage(): it reads Q(s, a), which only a critic of actions says",
    ),
    (lambda: vt.A2C(psi=vt.ActionValue(), critic=None), "give critic=QCritic()"),
    (lambda: vt.PPO(psi=vt.RewardToGo(baseline=vt.LearnedBaseline()), critic=None), "so it needs a critic"),
]


@pytest.fixture
def unchecked_types(monkeypatch):
    """As a user runs it: without the type checks of the tests, which would speak first."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(("make", "words"), BAD)
def test_a_bad_value_is_named_with_its_remedy(make, words):
    with pytest.raises(ValueError) as error:
        make()
    assert words in str(error.value)


@pytest.mark.usefixtures("unchecked_types")
def test_every_check_of_the_source_has_a_bad_value():
    """A check added to a choice needs a line in BAD: compare the fields that are checked with the fields tried here."""
    checked = set()
    for name in recipes.__all__:
        choice = getattr(recipes, name)
        if is_dataclass(choice) and "__post_init__" in vars(choice):
            source = inspect.getsource(vars(choice)["__post_init__"])
            checked |= {f"{name}.{field}" for field in re.findall(r'self,\s*"(\w+)"', source)}
    checked |= {f"Recipe.{row.field}" for row in recipes.REFUSED if row.field != "critic"}
    tried = set()
    for make, _ in BAD:
        with pytest.raises(ValueError) as error:
            make()
        tried.add(str(error.value).split(" ")[0])
    assert checked == tried


CHOICES = [
    *(vt.TotalReturn(), vt.RewardToGo(), vt.TDError(), vt.KStep(), vt.GAE()),
    *(vt.StateMean(), vt.BatchMean(), vt.GroupMean(), vt.LearnedBaseline()),
    *(vt.Likelihood(), vt.Ratio(), vt.Clip(), vt.Penalty(), vt.TrustRegion()),
    *(vt.Thresholds(), vt.PaperTarget(), vt.Proportional()),
    *(vt.Squared(), vt.ClippedValue(), vt.ResidualTD(), vt.QCritic(), vt.ActionValue(), vt.Advantage()),
    *(vt.Steps(), vt.Columns(), vt.Trajectories(), vt.Constant(n=3.0)),
    *(vt.Joint(), vt.Separate(), vt.PPO(), vt.KLAdaptive()),
]


@pytest.mark.parametrize("choice", CHOICES, ids=lambda c: type(c).__name__)
def test_choices_are_frozen_keyword_only_comparable_and_hashable(choice):
    for field in fields(choice):
        with pytest.raises(FrozenInstanceError):
            setattr(choice, field.name, 1)
        with pytest.raises(TypeError, match="positional"):
            type(choice)(getattr(choice, field.name))
    assert replace(choice) == choice
    assert hash(replace(choice)) == hash(choice)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: vt.PPO(clip_rnage=0.1), "PPO has no option 'clip_rnage': did you mean 'clip_range'?"),
        (lambda: vt.PPO(n_epoch=3), "PPO has no option 'n_epoch': did you mean 'n_epochs'?"),
        (lambda: vt.PPOPenalty(betta=3), "PPOPenalty has no option 'betta': did you mean 'beta'?"),
        (lambda: vt.REINFORCE(whitten=None), "REINFORCE has no option 'whitten': did you mean 'whiten'?"),
        (lambda: vt.A2C(zzz=3), "A2C has no option 'zzz': known are psi, whiten, critic"),
        (lambda: vt.PPO(objective=vt.Ratio()), "PPO has no option 'objective': known are clip_range"),
    ],
)
def test_a_misspelt_option_suggests_the_nearest(make, words):
    with pytest.raises(TypeError) as error:
        make()
    assert words in str(error.value)


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: vt.PPO(gae_lambda=0.5, psi=vt.TDError()), "PPO was given gae_lambda = 0.5 and psi = TDError()"),
        (lambda: vt.TRPO(gae_lambda=0.5, psi=vt.GAE()), "psi=GAE(lam=…)"),
        (lambda: vt.PPOPenalty(gae_lambda=0.5, psi=vt.TDError()), "PPOPenalty was given gae_lambda = 0.5"),
        (lambda: vt.PPO(psi="td"), "Recipe.psi = 'td': give a Ψ such as GAE()"),
        (lambda: vt.REINFORCE(psi="td"), "Recipe.psi = 'td'"),
        (lambda: vt.PPO(psi=vt.GAE), "Recipe.psi = <class"),
        (lambda: vt.Recipe(objective="clip"), "Recipe.objective = 'clip': give an objective such as Clip()"),
        (lambda: vt.PPO(critic="squared"), "Recipe.critic = 'squared'"),
        (lambda: vt.PPO(reduction="steps"), "Recipe.reduction = 'steps'"),
        (lambda: vt.PPO(n_epochs=2.5), "Recipe.n_epochs = 2.5: give a whole number"),
        (lambda: vt.PPO(n_minibatches=True), "Recipe.n_minibatches = True: give a whole number"),
        (lambda: vt.PPO(ent_coef="0.1"), "Recipe.ent_coef = '0.1': give a number"),
        (lambda: vt.PPO(target_kl="0.1"), "Recipe.target_kl = '0.1': give a number"),
    ],
)
def test_what_is_no_such_thing_is_a_type_error(make, words):
    with pytest.raises(TypeError) as error:
        make()
    assert words in str(error.value)


def test_the_named_recipes_are_the_table_of_the_design():
    assert [build() for build in RECIPES.values()] == [
        vt.REINFORCE(), vt.ActorCritic(), vt.A2C(), vt.ImportanceWeighted(), vt.TRPO(), vt.PPO(), vt.PPOPenalty(),
    ]  # fmt: skip
    kinds = {name: (type(b().psi), type(b().objective), type(b().critic)) for name, b in RECIPES.items()}
    assert kinds == {
        "reinforce": (vt.RewardToGo, vt.Likelihood, type(None)),
        "actor-critic": (vt.TDError, vt.Likelihood, vt.Squared),
        "a2c": (vt.GAE, vt.Likelihood, vt.Squared),
        "importance-weighted": (vt.GAE, vt.Ratio, vt.Squared),
        "trpo": (vt.GAE, vt.TrustRegion, vt.Squared),
        "ppo": (vt.GAE, vt.Clip, vt.Squared),
        "ppo-penalty": (vt.GAE, vt.Penalty, vt.Squared),
    }
    assert vt.REINFORCE(psi=vt.RewardToGo(baseline=vt.LearnedBaseline())).critic == vt.Squared()
    assert vt.REINFORCE().reduction == vt.Trajectories()
    assert vt.PPO(psi=vt.KStep(k=3)).psi == vt.KStep(k=3)
    assert vt.PPO(clip_range=0.1, clip_range_high=0.3, dual_clip=3.0).objective == vt.Clip(low=0.1, high=0.3, dual=3.0)


def test_schedules():
    assert vt.Linear(0.2)(0.25) == pytest.approx(0.15)
    assert positive(vt.Linear(0.2)) and not positive(vt.Linear(0.0, 0.2)) and not positive(vt.Linear(0.2, -1e-9))
    recipe = vt.PPO(
        clip_range=vt.Linear(0.2), ent_coef=vt.Linear(0.01, 0.02), critic=vt.ClippedValue(width=vt.Linear(1.0))
    )
    half = recipe.at(0.5)
    assert half == vt.PPO(clip_range=0.1, ent_coef=0.015, critic=vt.ClippedValue(width=0.5))
    assert recipe.objective == vt.Clip(low=vt.Linear(0.2)), "a schedule is not used up"
    assert recipes.at(vt.Joint(lr=vt.Linear(3e-4)), 0.5) == vt.Joint(lr=1.5e-4)
    fixed = vt.PPO()
    assert recipes.at(fixed, 0.5) is fixed


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (vt.Linear(0.4, 0.2), (0.4, 0.35, 0.3, 0.2)),
        (vt.Cosine(0.4, 0.2), (0.4, 0.3 + 0.05 * 2**0.5, 0.3, 0.2)),
        (vt.Exponential(0.4, 0.1), (0.4, 0.4 * 0.25**0.25, 0.2, 0.1)),
        (vt.Piecewise(((0.25, 0.4), (0.75, 0.2))), (0.4, 0.4, 0.3, 0.2)),
        (vt.Piecewise(((0.0, 0.0), (0.5, 0.4), (1.0, 0.0))), (0.0, 0.2, 0.4, 0.0)),
        (vt.Piecewise(((0.5, 0.3),)), (0.3, 0.3, 0.3, 0.3)),
    ],
    ids=repr,
)
def test_the_course_of_a_schedule(schedule, values):
    assert [schedule(x) for x in (0.0, 0.25, 0.5, 1.0)] == pytest.approx(values)
    assert (schedule.start, schedule.end) == (values[0], values[-1])
    assert from_json(json.loads(json.dumps(to_json(vt.Joint(lr=1e-3, vf_coef=schedule))))).vf_coef == schedule


ANYWHERE = {"lam": 0.5, "kl_min": 0.001, "beta_min": 0.01, "shrink": 0.5, "dual": 3.0, "factor": 2.0, "high": 0.3}
"""A legal value where the default, or half of it, is none; for the rest the default will do."""


def coefficients() -> list[tuple[str, str]]:
    """(Type, field) of every coefficient in the library's choices."""
    kinds = {name: getattr(recipes, name) for name in recipes.__all__ if is_dataclass(getattr(recipes, name))}
    return [
        (name, field)
        for name, kind in kinds.items()
        for field, annotation in get_type_hints(kind).items()
        if all(kind in get_args(annotation) for kind in get_args(Schedule))
    ]


@pytest.mark.parametrize(
    "make", [vt.Linear, vt.Cosine, vt.Exponential, lambda a, b: vt.Piecewise(((0.0, a), (1.0, b)))]
)
@pytest.mark.parametrize(("kind", "field"), coefficients(), ids=str)
def test_every_coefficient_may_be_scheduled(kind, field, make):
    start = ANYWHERE.get(field) or getattr(getattr(recipes, kind)(), field) or 0.01
    given = {field: make(start, 0.9 * start)} | ({"rule": None} if kind == "Penalty" else {})
    choice = getattr(recipes, kind)(**given)
    assert getattr(at(choice, 0.0), field) == pytest.approx(start)
    assert getattr(at(choice, 1.0), field) == pytest.approx(0.9 * start)
    assert getattr(at(choice, 0.5), field) == pytest.approx(make(start, 0.9 * start)(0.5))


def test_every_number_that_shapes_an_update_is_a_coefficient():
    names = {f"{kind}.{field}" for kind, field in coefficients()}
    assert names >= {
        "Clip.low", "Clip.high", "Clip.dual", "ClippedValue.width", "GAE.lam", "Joint.lr", "Joint.max_grad_norm",
        "Joint.vf_coef", "KLAdaptive.target", "PaperTarget.beta_max", "PaperTarget.beta_min", "PaperTarget.target",
        "Penalty.beta", "Proportional.horizon", "Proportional.target", "Recipe.ent_coef", "Recipe.target_kl",
        "Separate.actor_lr", "Separate.critic_lr", "Separate.max_grad_norm", "Thresholds.beta_max",
        "Thresholds.beta_min", "Thresholds.factor", "Thresholds.kl_max", "Thresholds.kl_min", "TrustRegion.damping",
        "TrustRegion.delta", "TrustRegion.shrink",
    }  # fmt: skip


def test_a_schedule_deep_in_a_recipe_moves_it():
    rule = vt.Thresholds(beta_max=vt.Linear(9.0, 3.0))
    recipe = vt.PPOPenalty(rule=rule, gae_lambda=vt.Cosine(1.0, 0.8), target_kl=vt.Exponential(0.04, 0.01))
    now = recipe.at(0.5, beta=2.5)
    assert now == vt.PPOPenalty(beta=2.5, rule=vt.Thresholds(beta_max=6.0), gae_lambda=0.9, target_kl=0.02)
    assert now.objective.rule(5.0, 1.0, 8) == 6.0, "the bound of this moment"


def test_beta_on_a_schedule_is_not_overwritten_by_the_training_state():
    assert vt.PPOPenalty(beta=vt.Linear(2.0), rule=None).at(0.5, beta=7.0).objective.beta == 1.0


@pytest.mark.parametrize(("make", "field"), [(vt.Joint, "lr"), (vt.Separate, "actor_lr")])
def test_a_rate_that_follows_the_kl(make, field):
    optim = make(**{field: vt.KLAdaptive(start=2e-3, target=vt.Linear(0.015, 0.005))})
    assert getattr(optim_at(optim, 0.5), field) == 2e-3
    assert getattr(optim_at(optim, 0.5, 5e-4), field) == 5e-4
    rule = recipes.adaptive(recipes.at(optim, 0.5))
    assert rule is not None and rule.target == pytest.approx(0.01)
    lr, followed = 2e-3, []
    for kl in (0.021, 0.02, 0.005, 0.0049, 0.0, 1.0):
        lr = rule(lr, kl)
        followed.append(lr / 2e-3)
    assert followed == pytest.approx([1 / 1.5, 1 / 1.5, 1 / 1.5, 1.0, 1.0, 1 / 1.5])
    assert rule(1.2e-5, 1.0) == 1e-5 and rule(9e-3, 1e-9) == 1e-2
    assert recipes.adaptive(make()) is None and optim_at(make(), 0.5, 5e-4) == make()


def test_a_schedule_may_end_at_zero():
    end = vt.PPO(clip_range=vt.Linear(0.2)).at(1.0)
    assert isinstance(end.objective, vt.Clip)
    assert end.objective.low == 0.0
    assert recipes.at(vt.Separate(actor_lr=vt.Linear(1e-3)), 1.0).actor_lr == 0.0


def test_beta_comes_from_the_training_state():
    assert vt.PPOPenalty(beta=1.0).at(0.3, beta=4.0).objective == vt.Penalty(beta=4.0)
    assert vt.PPO().at(0.3, beta=4.0) == vt.PPO()
    assert vt.PPOPenalty(rule=None).at(0.1).objective == vt.Penalty(rule=None)


def test_beta_rules_call_the_theory():
    assert vt.Thresholds()(1.0, 0.02, 8) == 2.0
    assert vt.PaperTarget()(1.0, 0.02, 8) == 2.0
    assert vt.Proportional()(0.2, 9.0, 256) == pytest.approx(0.2 * (1 + 0.2 * 0.0256))


def rollout_of(x: dict, **others) -> vt.Rollout:
    shape = x["reward"].shape
    given = dict(observation=np.zeros(shape, dtype=np.int64), action=np.zeros(shape), log_prob=np.zeros(shape))
    return vt.Rollout(**(x | given | {"signal": x["reward"], "gamma": 0.9} | others))


ALL_PSI = [
    vt.TotalReturn(), vt.RewardToGo(), vt.TDError(), vt.KStep(k=2), vt.GAE(),
    *(vt.RewardToGo(baseline=b) for b in (vt.LearnedBaseline(), vt.StateMean(), vt.BatchMean(), vt.GroupMean())),
    *(vt.RewardToGo(baseline=b(leave_one_out=True)) for b in (vt.StateMean, vt.BatchMean)),
]  # fmt: skip


@pytest.mark.parametrize("psi", ALL_PSI, ids=repr)
def test_psi_and_target_are_blind_to_what_is_masked(psi, rng):
    x = record(rng, p_masked=0.4)
    group = np.asarray([0, 0, 1])
    dirty = {k: np.where(x["mask"], v, np.nan) if v.dtype.kind == "f" else v for k, v in x.items()}
    for clean, spoiled in zip(psi(rollout_of(x, group=group)), psi(rollout_of(dirty, group=group)), strict=True):
        np.testing.assert_array_equal(spoiled, clean)
        assert (clean[~x["mask"]] == 0.0).all()


def test_time_weighting_puts_gamma_to_the_t_before_psi(rng):
    x = record(rng, p_masked=0.0)
    plain = vt.PPO(whiten=None).prepare(rollout_of(x))
    weighted = vt.PPO(whiten=None, time_weighting="discounted").prepare(rollout_of(x))
    np.testing.assert_allclose(weighted.psi, plain.psi * 0.9 ** x["time"])
    np.testing.assert_array_equal(weighted.target, plain.target)
    total = vt.REINFORCE(psi=vt.TotalReturn(), time_weighting="discounted")
    np.testing.assert_array_equal(
        total.prepare(rollout_of(x)).psi, returns.total_return(x["reward"], x["discount"], x["last"], x["time"])
    )


@pytest.mark.parametrize("library", BACKENDS)
def test_a_float32_rollout_gives_a_float32_batch(library, rng):
    backend = BACKENDS[library]()
    x = record(rng)
    with backend.context():
        r = rollout_of({k: backend.asarray(v.astype(np.float32) if v.dtype.kind == "f" else v) for k, v in x.items()})
        batch = vt.PPO(whiten="batch", time_weighting="discounted").prepare(r)
        assert {backend.to_numpy(a).dtype for a in (batch.psi, batch.target, batch.value)} == {np.dtype(np.float32)}


def test_group_mean_reads_the_return_of_the_first_real_row():
    """Prompt rows are masked, so row 0 is no decision: the baseline is still the return of the others."""
    mask = np.asarray([[False, False, False, True], [True, True, True, True], [True, True, False, True]])
    reward = np.where(mask, 1.0, np.nan)
    reward[2, :2] = [4.0, 5.0]
    r = rollout_of(
        dict(
            reward=reward, discount=np.ones((3, 4)), mask=mask,
            last=np.asarray([[False] * 4, [False, False, True, False], [True, True, True, True]]),
        ),
        group=np.asarray([0, 0, 0, 1]),
    )  # fmt: skip
    gain = np.asarray([5.0, 6.0, 1.0, 3.0])
    baseline = vt.GroupMean()(r, vt.RewardToGo()(r)[0])
    np.testing.assert_allclose(baseline, np.tile([3.5, 3.0, 5.5, 0.0], (3, 1)))
    baseline = vt.GroupMean(leave_one_out=False)(r, vt.RewardToGo()(r)[0])
    np.testing.assert_allclose(baseline, np.tile([4.0, 4.0, 4.0, 3.0], (3, 1)))
    assert gain[:3].mean() == 4.0


def test_denominators():
    mask = np.asarray([[True, True], [True, False], [False, False]])
    last = np.asarray([[True, True], [True, True], [True, True]])
    r = rollout_of(dict(reward=np.ones((3, 2)), discount=np.ones((3, 2)), last=last, mask=mask))
    assert [float(d.total(r)) for d in (vt.Steps(), vt.Columns(), vt.Trajectories(), vt.Constant(n=7.0))] == [
        3,
        2,
        3,
        7,
    ]
    r = replace(r, weight=np.asarray([0.5, 0.25]))
    assert [float(d.total(r)) for d in (vt.Steps(), vt.Columns(), vt.Trajectories())] == [1.25, 0.75, 1.25]


def test_whitening_over_the_batch_is_done_once(rng):
    x = record(rng)
    psi = vt.PPO(whiten="batch").prepare(rollout_of(x)).psi[x["mask"]]
    assert abs(psi.mean()) < 1e-12 and abs(psi.std() - 1.0) < 1e-6
    assert vt.PPO(whiten="minibatch").prepare(rollout_of(x)).psi[x["mask"]].std() != pytest.approx(1.0)


def test_the_documented_table_of_refusals_is_the_one_that_is_checked():
    page = (Path(__file__).resolve().parents[2] / "docs" / "recipes.md").read_text()
    assert refused.table() in page
    assert len(refused.REFUSED) == refused.table().count("\n") - 1
