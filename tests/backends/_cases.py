"""One row for every public function of `vantage.theory`: named inputs, as NumPy arrays in float64."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from vantage.recipe import (
    A2C,
    PPO,
    ClippedValue,
    ImportanceWeighted,
    KLInLoss,
    PPOPenalty,
    Recipe,
    ResidualTD,
    RewardToGo,
)
from vantage.theory import (
    critics,
    distributions,
    divergences,
    importance,
    kl_control,
    objectives,
    psi,
    reduce,
    returns,
    signal,
)
from vantage.theory import scan as scans
from vantage.theory.loss import Batch, Outputs, loss

Arrays = dict[str, Any]


def record(
    rng: np.random.Generator,
    steps: int = 7,
    columns: int = 3,
    *,
    p_end: float = 0.25,
    p_masked: float = 0.25,
    gamma: float = 0.9,
) -> Arrays:
    """A random layout that keeps the contract of `Rollout`: termination, truncation, rollout ends and gaps.

    `next_value` is V at the next real decision of the column, and a number of its own where the column ends.
    """
    shape = (steps, columns)
    mask = rng.random(shape) >= p_masked
    mask[rng.integers(steps), rng.integers(columns)] = True
    last = rng.random(shape) < p_end
    for b in range(columns):
        real = np.flatnonzero(mask[:, b])
        last[real[-1:], b] = True
    terminated = last & (rng.random(shape) < 0.5)
    value = rng.normal(size=shape)
    next_value = rng.normal(size=shape)
    time = np.zeros(shape, dtype=np.int32)
    for b in range(columns):
        real = np.flatnonzero(mask[:, b])
        for i, j in pairwise(real):
            if not last[i, b]:
                next_value[i, b], time[j, b] = value[j, b], time[i, b] + 1
    return {
        "reward": rng.normal(size=shape),
        "value": value,
        "next_value": next_value,
        "discount": np.where(terminated, 0.0, gamma),
        "last": last,
        "mask": mask,
        "time": time,
    }


@dataclass(frozen=True)
class Case:
    """A function and named inputs for it: arrays are converted to each library, everything else stays as it is."""

    name: str
    f: Callable[..., Any]
    inputs: Arrays
    host: bool = False
    """Works on Python numbers: called with numbers read from the library's arrays, and never traced."""

    @property
    def floats(self) -> list[str]:
        """The inputs that a gradient may flow to."""
        return [name for name, x in self.inputs.items() if isinstance(x, np.ndarray) and x.dtype == np.float64]

    def __repr__(self) -> str:
        return self.name


def _pick(source: Arrays, *names: str) -> Arrays:
    return {name: source[name] for name in names}


def _time_cases(rng: np.random.Generator) -> list[Case]:
    x = record(rng)
    step = _pick(x, "reward", "value", "next_value", "discount")
    segment = step | _pick(x, "last", "mask")
    ratio = np.exp(0.5 * rng.normal(size=x["reward"].shape))
    two = {"log_prob": rng.normal(size=ratio.shape), "log_prob_old": rng.normal(size=ratio.shape)}
    lam = np.asarray(0.8)
    return [
        Case("scan.reverse_scan", scans.reverse_scan, {"x": x["reward"], "decay": x["discount"], "mask": x["mask"]}),
        Case("scan.shift_back", scans.shift_back, {"x": x["reward"], "end": 0.5}),
        Case("returns.reward_to_go", returns.reward_to_go, _pick(segment, "reward", "discount", "last", "mask")),
        Case("returns.reward_to_go(next)", returns.reward_to_go, {k: v for k, v in segment.items() if k != "value"}),
        Case(
            "returns.total_return",
            returns.total_return,
            _pick(x, "reward", "discount", "last", "time", "mask"),
        ),
        Case("returns.discount_weight", returns.discount_weight, {"time": x["time"], "gamma": np.asarray(0.9)}),
        Case("psi.td_error", psi.td_error, step),
        Case("psi.gae", psi.gae, segment | {"lam": lam}),
        Case("psi.lambda_return", psi.lambda_return, segment | {"lam": lam}),
        Case("psi.k_step", psi.k_step, segment | {"k": 3}),
        Case("psi.vtrace", psi.vtrace, segment | {"lam": lam, "ratio": ratio, "rho_bar": 1.2, "c_bar": 1.1}),
        Case("importance.ratio", importance.ratio, two),
        Case("importance.step_weight", importance.step_weight, two | _pick(x, "last", "mask")),
        Case("importance.trajectory_weight", importance.trajectory_weight, two | _pick(x, "last", "mask")),
    ]


def _psi_cases(rng: np.random.Generator) -> list[Case]:
    q, action = rng.normal(size=(4, 3, 5)), rng.integers(0, 5, size=(4, 3))
    p = rng.dirichlet(np.ones(5), size=(4, 3))
    x, key = rng.normal(size=(6, 4)), rng.integers(0, 4, size=(6, 4))
    mean = {"x": x, "key": key, "mask": rng.random(x.shape) < 0.8, "weight": rng.uniform(0.5, 2.0, size=x.shape)}
    grouped = {"gain": x, "group": np.asarray([7, 3, 7, 7]), "mask": mean["mask"]}
    return [
        Case("psi.action_value", psi.action_value, {"q": q, "action": action}),
        Case("psi.advantage", psi.advantage, {"q": q, "action": action, "probabilities": p}),
        Case(
            "psi.expected_sarsa",
            psi.expected_sarsa,
            {"reward": x, "next_value": 2.0 * x, "discount": rng.uniform(size=x.shape)},
        ),
        Case("psi.expected_value", psi.expected_value, {"q": q, "probabilities": p}),
        Case("psi.mean_baseline", psi.mean_baseline, mean),
        Case("psi.group_relative", psi.group_relative, grouped | {"leave_one_out": True}),
        Case("psi.group_relative(scale)", psi.group_relative, grouped | {"scale": True}),
        Case(
            "psi.mean_baseline(leave_out)",
            psi.mean_baseline,
            mean | {"leave_out": np.broadcast_to(np.arange(4), x.shape).copy()},
        ),
    ]


def _step_cases(rng: np.random.Generator) -> list[Case]:
    shape = (6, 4)
    x, y = rng.normal(size=shape), rng.normal(size=shape)
    kl, ratio = rng.random(shape), np.exp(0.5 * rng.normal(size=shape))
    mask, weight = rng.random(shape) < 0.8, rng.uniform(0.5, 2.0, size=shape)
    gain = {"ratio": ratio, "psi": x}
    masked = {"x": x, "mask": mask, "weight": weight}
    other = {"log_prob": y, "log_prob_actor": y + 0.3 * x}
    priced = {"reward": x, "log_prob": y, "reference_log_prob": kl}
    td = {"reward": x, "value": y, "next_value": kl, "discount": weight}
    return [
        Case("importance.truncated_ratio", importance.truncated_ratio, other | {"cap": 1.2}),
        Case("importance.banded_ratio", importance.banded_ratio, other | {"low": 0.8, "high": 1.3}),
        Case("signal.kl_signal", signal.kl_signal, priced | {"beta": np.asarray(0.1), "mask": mask}),
        Case("reduce.clip_factor", reduce.clip_factor, {"norm": np.abs(x) + 0.1, "bound": 0.5}),
        Case("reduce.column_share", reduce.column_share, {"x": x, "mask": mask}),
        Case("objectives.likelihood", objectives.likelihood, {"log_prob": y, "psi": x}),
        Case("objectives.importance_weighted", objectives.importance_weighted, gain),
        Case("objectives.clipped", objectives.clipped, gain | {"low": 0.2}),
        Case("objectives.clipped(dual)", objectives.clipped, gain | {"low": 0.2, "high": 0.3, "dual": 2.0}),
        Case("objectives.clipped(array)", objectives.clipped, gain | {"low": np.asarray(0.2), "high": np.asarray(0.3)}),
        Case("objectives.clip_fraction", objectives.clip_fraction, {"ratio": ratio, "low": 0.2, "high": 0.3}),
        Case("objectives.penalised", objectives.penalised, gain | {"kl": kl, "beta": np.asarray(0.7)}),
        Case("objectives.with_entropy", objectives.with_entropy, {"gain": x, "entropy": kl, "coefficient": 0.01}),
        Case("critics.squared", critics.squared, {"value": x, "target": y}),
        Case("critics.squared_td_error", critics.squared_td_error, td),
        Case("critics.squared_td_error(residual)", critics.squared_td_error, td | {"residual": True}),
        Case(
            "critics.clipped_value",
            critics.clipped_value,
            {"value": x, "value_old": x + 0.3 * y, "target": kl, "width": 0.2},
        ),
        Case(
            "critics.explained_variance",
            critics.explained_variance,
            {"value": x, "target": x + y, "mask": mask, "weight": weight},
        ),
        Case("divergences.k1", divergences.k1, {"log_p": x, "log_q": y}),
        Case("divergences.k2", divergences.k2, {"log_p": x, "log_q": y}),
        Case("divergences.k3", divergences.k3, {"log_p": x, "log_q": y}),
        Case(
            "importance.effective_sample_size",
            importance.effective_sample_size,
            {"ratio": ratio, "mask": mask, "weight": weight},
        ),
        Case("reduce.total_steps", reduce.total_steps, masked),
        Case("reduce.total_columns", reduce.total_columns, masked | {"weight": weight[0]}),
        Case(
            "reduce.total_trajectories",
            reduce.total_trajectories,
            masked | {"last": rng.random(shape) < 0.5, "weight": weight[0]},
        ),
        Case("reduce.reduce", reduce.reduce, masked | {"total": np.asarray(7.0)}),
        Case("reduce.mean", reduce.mean, masked),
        Case("reduce.variance", reduce.variance, masked | {"ddof": 1}),
        Case("reduce.whiten", reduce.whiten, masked),
        Case("reduce.whiten(shift)", reduce.whiten, masked | {"shift": False, "ddof": 1}),
    ]


def _families(rng: np.random.Generator) -> dict[str, tuple[Callable[..., Any], tuple[Any, ...], Any, Any]]:
    """Name → (make from parameters, parameters, an action, noise)."""
    logits = rng.normal(size=(4, 3, 5))
    logits[0, 0, 1] = logits[1, 2, 4] = -np.inf
    action = rng.integers(0, 5, size=(4, 3))
    action[0, 0], action[1, 2] = 0, 2
    mean, log_std = rng.normal(size=(4, 3, 2)), 0.3 * rng.normal(size=(4, 3, 2))
    switch = rng.normal(size=(4, 3, 2))
    uniform, normal = rng.random(size=(4, 3)), rng.normal(size=(4, 3, 2))

    def pair(logits, mean, log_std):
        return distributions.Product((distributions.Categorical(logits), distributions.DiagonalGaussian(mean, log_std)))

    return {
        "Categorical": (distributions.Categorical, (logits,), action, uniform),
        "DiagonalGaussian": (distributions.DiagonalGaussian, (mean, log_std), normal, normal),
        "SquashedGaussian": (distributions.SquashedGaussian, (mean, log_std), normal, normal),
        "Bernoulli": (
            distributions.Bernoulli,
            (switch,),
            rng.integers(0, 2, size=(4, 3, 2)),
            rng.random(size=(4, 3, 2)),
        ),
        "Product": (pair, (logits, mean, log_std), (action, normal), (uniform, normal)),
    }


def _named(prefix: str, x: Any) -> Arrays:
    return {f"{prefix}{i}": v for i, v in enumerate(x)} if isinstance(x, tuple) else {prefix: x}


def _collect(prefix: str, inputs: Arrays) -> tuple[Any, ...]:
    return tuple(inputs[k] for k in sorted(inputs) if k.startswith(prefix))


def _distribution_cases(rng: np.random.Generator) -> list[Case]:
    matrix = {"features": rng.normal(size=(4, 3, 5)), "log_std": 0.3 * rng.normal(size=(5, 2))}
    cases = [Case("distributions.state_dependent_log_std", distributions.state_dependent_log_std, matrix)]
    for family, (make, parameters, action, noise) in _families(rng).items():
        parts = _named("p", parameters)
        other = {f"q{i}": x + 0.1 * rng.normal(size=x.shape) for i, x in enumerate(parameters)}

        def call(method, make=make, extra=None):
            def f(**inputs):
                given = () if extra is None else _collect(extra, inputs)
                given = given if len(given) < 2 else (given,)
                return getattr(make(*_collect("p", inputs)), method)(*given)

            return f

        def kl(make=make, **inputs):
            return make(*_collect("p", inputs)).kl(make(*_collect("q", inputs)))

        def parameters_of(make=make, **inputs):
            return make(*_collect("p", inputs)).parameters

        name = f"distributions.{family}"
        cases += [
            Case(f"{name}.log_prob", call("log_prob", extra="a"), parts | _named("a", action)),
            Case(f"{name}.sample", call("sample", extra="n"), parts | _named("n", noise)),
            Case(f"{name}.mode", call("mode"), parts),
            Case(f"{name}.kl", kl, parts | other),
            Case(f"{name}.parameters", parameters_of, parts),
        ]
        if family != "SquashedGaussian":
            cases.append(Case(f"{name}.entropy", call("entropy"), parts))
    squash = distributions.SquashedGaussian.squash
    return [*cases, Case("distributions.SquashedGaussian.squash", squash, {"action": rng.normal(size=(3, 2))})]


def _divergence_cases(rng: np.random.Generator) -> list[Case]:
    z, w = rng.normal(size=(4, 3, 5)), rng.normal(size=(4, 3, 5))
    z[0, 0, 1] = w[0, 0, 1] = z[2, 1, 3] = -np.inf
    m = {name: 0.5 * rng.normal(size=(4, 2)) for name in ("mean_p", "log_std_p", "mean_q", "log_std_q")}
    return [
        Case("divergences.log_softmax", divergences.log_softmax, {"logits": w - np.where(w == -np.inf, 0, 0.5)}),
        Case("divergences.categorical_entropy", divergences.categorical_entropy, {"logits": z}),
        Case("divergences.categorical_kl", divergences.categorical_kl, {"p": z, "q": w}),
        Case("divergences.gaussian_kl", divergences.gaussian_kl, m),
        Case("divergences.bernoulli_kl", divergences.bernoulli_kl, {"p": m["mean_p"], "q": m["mean_q"]}),
        Case("divergences.two_logits", divergences.two_logits, {"z": m["mean_p"]}),
    ]


def _beta_cases() -> list[Case]:
    beta, kl = np.asarray(0.8), np.asarray(0.031)
    return [
        Case(
            "kl_control.threshold_beta",
            kl_control.threshold_beta,
            {"beta": beta, "kl": kl, "kl_min": 0.01, "kl_max": 0.03},
            host=True,
        ),
        Case("kl_control.paper_beta", kl_control.paper_beta, {"beta": beta, "kl": kl, "target": 0.01}, host=True),
        Case(
            "kl_control.proportional_beta",
            kl_control.proportional_beta,
            {"beta": beta, "kl": kl, "target": 0.05, "n": 256, "horizon": 1e4},
            host=True,
        ),
        Case("kl_control.adaptive_lr", kl_control.adaptive_lr, {"lr": beta / 100, "kl": kl, "target": 0.01}, host=True),
    ]


RECIPES: dict[str, Recipe] = {
    "clip": PPO(ent_coef=0.01),
    "dual, clipped critic": PPO(dual_clip=2.0, clip_range_high=0.3, critic=ClippedValue(width=0.3), whiten=None),
    "penalty": PPOPenalty(beta=0.5, ent_coef=0.02, whiten="batch"),
    "ratio, residual": ImportanceWeighted(critic=ResidualTD()),
    "likelihood": A2C(),
    "no critic": PPO(critic=None, psi=RewardToGo(), whiten=None),
}
"""The shapes that `loss` can take: each objective, each critic loss, with and without entropy and whitening."""


def loss_inputs(rng: np.random.Generator, shape: tuple[int, ...] = (6, 4)) -> Arrays:
    """All fields of Batch (b_…) and Outputs (o_…), with ratios in and out of the clip range and some rows masked."""
    old = -rng.random(shape)
    x = {
        "b_log_prob": old,
        "b_psi": rng.normal(size=shape),
        "b_target": rng.normal(size=shape),
        "b_value": rng.normal(size=shape),
        "b_reward": rng.normal(size=shape),
        "b_discount": np.full(shape, 0.9),
        "b_mask": rng.random(shape) < 0.8,
        "b_weight": rng.uniform(0.5, 2.0, size=shape),
        "o_log_prob": old + 0.3 * rng.normal(size=shape),
        "o_entropy": rng.random(shape),
        "o_kl": rng.random(shape),
        "o_next_value": rng.normal(size=shape),
    }
    return x | {"o_value": x["b_value"] + 0.4 * rng.normal(size=shape)}


def call_loss(recipe: Recipe, inputs: Arrays, **options: Any) -> tuple[Any, dict[str, Any]]:
    """`loss` of the records made from `loss_inputs`."""
    fields = {side: {k[2:]: v for k, v in inputs.items() if k.startswith(side)} for side in ("b_", "o_")}
    return loss(recipe, Batch(**fields["b_"]), Outputs(**fields["o_"]), **options)


def _loss_cases(rng: np.random.Generator) -> list[Case]:
    def flat(recipe, **options):
        def f(**inputs):
            value, metrics = call_loss(recipe, inputs, vf_coef=0.5, **options)
            return value, *(metrics[name] for name in sorted(metrics))

        return f

    inputs = loss_inputs(rng)
    sampled = {k: v for k, v in inputs.items() if k not in ("o_entropy", "o_kl", "b_weight")}
    cases = [Case(f"loss.loss({name})", flat(recipe), inputs) for name, recipe in RECIPES.items()]
    homes = {name: KLInLoss(beta=0.3, estimator=name) for name in ("k2", "k3", "exact")}
    homes["through"] = KLInLoss(beta=0.3, estimator="k3", through_ratio=True)
    shape = inputs["b_psi"].shape
    referred = inputs | {
        "b_reference_log_prob": inputs["b_log_prob"] + 0.2 * rng.normal(size=shape),
        "b_correction": rng.uniform(0.5, 2.0, size=shape),
        "o_reference_kl": rng.random(shape),
    }
    cases += [Case(f"loss.loss({name})", flat(RECIPES["clip"], reference=h), referred) for name, h in homes.items()]
    return [*cases, Case("loss.loss(sampled)", flat(RECIPES["penalty"]), sampled)]


def cases(seed: int = 0) -> list[Case]:
    """Every row."""
    rng = np.random.default_rng(seed)
    made = [make(rng) for make in (_time_cases, _psi_cases, _step_cases, _distribution_cases, _divergence_cases)]
    return [case for group in [*made, _beta_cases(), _loss_cases(rng)] for case in group]
