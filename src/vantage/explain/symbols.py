"""The symbols of the formulas: what each is, whether it is sampled, fixed, expected or chosen, and who computes it."""

# ruff: noqa: E501  (a table: one row a line)

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, Literal

Kind = Literal["sampled", "fixed", "expected", "learned", "parameter", "index"]

KINDS: dict[str, str] = {
    "sampled": "drawn by the policy or the world while the data is collected",
    "fixed": "computed from the samples before the first step, then data: no gradient, the same bits in every epoch",
    "expected": "an expectation over all actions, computed exactly at each sampled state",
    "learned": "what a network says now: the gradient flows through it",
    "parameter": "a number that you choose",
    "index": "counts",
}
"""What each kind of symbol means."""


@dataclass(frozen=True, kw_only=True)
class Symbol:
    """One sign of the formulas."""

    sign: str
    meaning: str
    kind: Kind
    source: str
    """From where it comes; `{π}` is the policy that acted."""
    shape: str
    unit: str
    by: str
    """The function or field of the package that holds or computes it, dotted below `vantage`."""
    pattern: str = ""
    """A regular expression for its occurrences; by default the sign itself, with any time index."""

    @property
    def regex(self) -> str:
        """The pattern that finds it in a formula."""
        if self.pattern:
            return self.pattern
        stem, _, index = self.sign.partition("_t")
        return re.escape(self.sign) if index or stem == self.sign else rf"{re.escape(stem)}_(?:t|\{{t\+\w+−?\d?\}})"

    def function(self) -> Callable[..., Any] | None:
        """The theory function that computes it, if one does."""
        module, _, name = self.by.rpartition(".")
        if not re.fullmatch(r"theory\.[a-z_]+", module):
            return None
        found = getattr(import_module(f"vantage.{module}"), name)
        return None if isinstance(found, type) else found


# fmt: off
def _s(sign: str, meaning: str, kind: Kind, source: str, shape: str, unit: str, by: str, pattern: str = "") -> Symbol:
    return Symbol(sign=sign, meaning=meaning, kind=kind, source=source, shape=shape, unit=unit, by=by, pattern=pattern)



SYMBOLS: tuple[Symbol, ...] = (
    # what the world and the policy drew
    _s("s_t", "state (observation)", "sampled", "s_0 ∼ ρ₀, s_{t+1} ∼ P(·|s_t, a_t)", "[T, B, …]", "—", "rollout.Rollout.observation"),
    _s("a_t", "action", "sampled", "a_t ∼ {π}(·|s_t)", "[T, B, …]", "—", "rollout.Rollout.action"),
    _s("a", "any action, not the sampled one", "index", "all of the action space", "—", "—", "rollout.Rollout.policy", r"(?<![A-Za-z])a(?![A-Za-z])"),
    _s("r_t(θ)", "importance weight of one decision", "learned", "π_θ now, at a_t ∼ {π}(·|s_t)", "[T, B]", "no unit", "theory.importance.ratio", r"r_t\(θ\)"),
    _s("r_t", "reward, as Ψ reads it", "sampled", "R(s_t, a_t, s_{t+1})", "[T, B]", "reward", "rollout.Rollout.signal"),
    _s("τ", "trajectory s_0, a_0, r_0, s_1, …", "sampled", "τ ∼ {π}", "a column of [T, B]", "—", "rollout.Rollout"),
    _s("γ_t", "γ, and 0 where the world ended", "sampled", "γ·(1 − terminated)", "[T, B]", "no unit", "rollout.Rollout.discount"),
    _s("last_t", "1 where the column does not continue: terminated, truncated, end of rollout", "sampled", "the world", "[T, B]", "no unit", "rollout.Rollout.last"),
    # policies and their exact expectations
    _s("π_θ", "the policy being updated", "learned", "the actor, now", "—", "probability", "theory.loss.Outputs.log_prob"),
    _s("π_old", "the policy that collected the data", "fixed", "the actor, before the update", "—", "probability", "rollout.Rollout.log_prob"),
    _s("KL_max", "KL above which β grows", "parameter", "the recipe", "scalar", "nats", "recipe.Thresholds.kl_max"),
    _s("KL_min", "KL below which β falls", "parameter", "the recipe", "scalar", "nats", "recipe.Thresholds.kl_min"),
    _s("KL(π_old‖π_θ)", "how far the new policy is from the old one, in one state", "expected", "a ∼ π_old(·|s_t), s_t sampled", "[T, B]", "nats", "theory.distributions.Categorical.kl", r"KL(?=\()"),
    _s("H(π_θ)", "entropy of the policy, in one state", "expected", "a ∼ π_θ(·|s_t), s_t sampled", "[T, B]", "nats", "theory.distributions.Categorical.entropy", r"H(?=\()"),
    # values
    _s("V_φ", "the critic being updated", "learned", "the critic, now", "[T, B]", "reward", "theory.loss.Outputs.value"),
    _s("V_old", "the critic's value when the data was scored", "fixed", "the critic, before the update", "[T, B]", "reward", "rollout.Rollout.value"),
    _s("V^CLIP", "the new value, held within ε_v of the old one", "learned", "the critic, now", "[T, B]", "reward", "theory.critics.clipped_value", r"V\^CLIP"),
    _s("V", "the critic's value; V(s_{t+1}) is that of the state actually reached", "fixed", "the critic, before the update", "[T, B]", "reward", "rollout.Rollout.value", r"V(?=\()"),
    _s("Q_φ", "the critic of actions being updated", "learned", "the critic, now", "[T, B]", "reward", "theory.loss.Outputs.value"),
    _s("Q", "the value of an action, by the critic", "fixed", "the critic, before the update", "[T, B]", "reward", "rollout.Rollout.action_value", r"Q(?=\()"),
    _s("R_t", "the critic's target", "fixed", "samples, and V where Ψ uses it", "[T, B]", "reward", "recipe.Recipe.prepare"),
    # ways of weighing a step
    _s("Ψ_t", "the weight of step t", "fixed", "one sample of τ ∼ {π}", "[T, B]", "reward; no unit if whitened", "recipe.Recipe.prepare"),
    _s("Â_t^{(k)}", "k-step estimate of the advantage A_π(s_t, a_t)", "fixed", "one sample of τ ∼ {π}", "[T, B]", "reward", "theory.psi.k_step", r"Â_t\^\{\(k\)\}"),
    _s("Â_t", "estimate of the advantage A_π(s_t, a_t)", "fixed", "one sample of τ ∼ {π}", "[T, B]", "reward", "theory.psi.gae"),
    _s("δ_t", "TD error; its mean over s_{t+1} is A_π if V = V_π", "fixed", "s_{t+1} ∼ P(·|s_t, a_t)", "[T, B]", "reward", "theory.psi.td_error"),
    _s("G_t", "return from step t on", "fixed", "one sample of τ ∼ {π}", "[T, B]", "reward", "theory.returns.reward_to_go"),
    _s("R(τ)", "return of the whole episode", "fixed", "one sample of τ ∼ {π}", "[T, B]", "reward", "theory.returns.total_return", r"R\((?=τ)"),
    _s("b_i", "baseline of entry i", "fixed", "the same batch", "[T, B]", "reward", "theory.psi.mean_baseline"),
    _s("K_i", "the entries that share i's key", "fixed", "the same batch", "set", "—", "theory.psi.mean_baseline"),
    _s("key_i", "what entries share: a state, a group, nothing", "fixed", "the same batch", "[T, B]", "—", "theory.psi.mean_baseline", r"key_[ij]"),
    _s("leave_out_i", "the column or episode that i belongs to", "fixed", "the same batch", "[T, B]", "—", "theory.psi.mean_baseline", r"leave_out_[ij]"),
    _s("x_i", "the return of entry i", "fixed", "one sample of τ ∼ {π}", "[T, B]", "reward", "theory.returns.reward_to_go", r"x_[ij]"),
    _s("G_b", "return of column b", "fixed", "one sample of τ ∼ {π}", "[B]", "reward", "theory.returns.reward_to_go", r"G_[bj]"),
    _s("K_b", "the columns of b's group", "fixed", "the same batch", "set", "—", "theory.psi.group_relative"),
    _s("group_b", "the prompt or seed that column b answers", "fixed", "the rollout", "[B]", "—", "rollout.Rollout.group", r"group_[bj]"),
    _s("std", "standard deviation of the returns of a group", "fixed", "the same batch", "[B]", "reward", "theory.psi.group_relative", r"std(?=_)"),
    _s("w_i", "weight of entry i: 1 if sampled", "fixed", "the rollout", "[T, B]", "no unit", "rollout.Rollout.weight", r"w_[ij]"),
    _s("w_{tb}", "what step t of column b counts", "fixed", "the rollout's mask", "[T, B]", "no unit", "theory.reduce.column_share"),
    _s("m_{tb}", "1 at a real decision, 0 at padding", "sampled", "the world", "[T, B]", "no unit", "rollout.Rollout.mask"),
    _s("mean", "mean of the weights in the same part of the batch", "fixed", "the same batch", "scalar", "reward", "theory.reduce.mean", r"\bmean(?:\b|(?=_\{))"),
    _s("Var", "variance of the weights in the same part of the batch", "fixed", "the same batch", "scalar", "reward²", "theory.reduce.variance", r"Var\b"),
    # parameters
    _s("eps", "keeps the division finite", "parameter", "the library", "scalar", "reward", "theory.reduce.whiten", r"\beps\b"),
    _s("ε_low", "clip range below 1", "parameter", "the recipe", "scalar", "no unit", "recipe.Clip.low"),
    _s("ε_high", "clip range above 1", "parameter", "the recipe", "scalar", "no unit", "recipe.Clip.high"),
    _s("ε_v", "how far the value may move", "parameter", "the recipe", "scalar", "reward", "recipe.ClippedValue.width"),
    _s("ε", "clip range", "parameter", "the recipe", "scalar", "no unit", "recipe.Clip.low"),
    _s("c_ent", "weight of the entropy bonus", "parameter", "the recipe", "scalar", "Ψ per nat", "recipe.Recipe.ent_coef"),
    _s("c", "bound of the dual clip", "parameter", "the recipe", "scalar", "no unit", "recipe.Clip.dual", r"(?<![A-Za-z])c(?![A-Za-z])"),
    _s("β", "price of KL", "parameter", "the recipe, then moved once per update", "scalar", "Ψ per nat", "recipe.Penalty.beta"),
    _s("δ", "how far the policy may move in one update", "parameter", "the recipe", "scalar", "nats", "recipe.TrustRegion.delta", r"δ(?!_)"),
    _s("factor", "by how much β moves", "parameter", "the recipe", "scalar", "no unit", "recipe.Thresholds.factor", r"\bfactor\b"),
    _s("d_targ", "KL that β aims at", "parameter", "the recipe", "scalar", "nats", "recipe.PaperTarget.target"),
    _s("target", "KL that β aims at", "parameter", "the recipe", "scalar", "nats", "recipe.Proportional.target", r"\btarget\b"),
    _s("horizon", "over how many episodes β moves", "parameter", "the recipe", "scalar", "episodes", "recipe.Proportional.horizon", r"\bhorizon\b"),
    _s("d", "measured KL(π_old‖π_θ)", "fixed", "mean over the whole batch, after the last epoch", "scalar", "nats", "theory.reduce.mean", r"(?<![A-Za-z])d(?![A-Za-z])"),
    _s("KL", "measured KL(π_old‖π_θ)", "fixed", "mean over the whole batch, after the last epoch", "scalar", "nats", "theory.reduce.mean", r"\bKL\b"),
    _s("e", "relative error of the KL", "fixed", "KL and target", "scalar", "no unit", "theory.kl_control.proportional_beta", r"(?<![A-Za-z])e(?![A-Za-z])"),
    _s("n", "episodes in the batch", "fixed", "the same batch", "scalar", "episodes", "theory.kl_control.proportional_beta", r"(?<![A-Za-z])n(?![A-Za-z])"),
    _s("λ", "0 trusts the critic, 1 the samples", "parameter", "the recipe", "scalar", "no unit", "recipe.GAE.lam"),
    _s("γ", "discount of the problem", "parameter", "the problem (the agent's gamma)", "scalar", "no unit", "rollout.Rollout.gamma", r"γ(?!_)"),
    _s("k", "steps sampled before the critic is trusted", "parameter", "the recipe", "scalar", "steps", "recipe.KStep.k", r"(?<![A-Za-z])k(?![A-Za-z])"),
    _s("θ", "parameters of the actor", "learned", "moved by the update", "—", "—", "theory.loss.Outputs", r"θ"),
    _s("φ", "parameters of the critic", "learned", "moved by the update", "—", "—", "theory.loss.Outputs", r"φ"),
    # indices
    _s("T", "steps of the rollout (rows)", "index", "the agent's n_steps", "—", "steps", "rollout.Rollout.shape", r"(?<![A-Za-z])T(?![A-Za-z])"),
    _s("s", "any state", "index", "all of the state space", "—", "—", "rollout.Rollout.observation", r"(?<![A-Za-z])s(?![A-Za-z_])"),
    _s("t", "decision, counted in time", "index", "the episode", "—", "steps", "rollout.Rollout.time", r"(?<![A-Za-z])t'?(?![A-Za-z])"),
    _s("B", "columns of the rollout", "index", "the agent's n_envs", "—", "columns", "rollout.Rollout.shape", r"(?<![A-Za-z])B(?![A-Za-z])"),
    _s("b", "column", "index", "the agent's n_envs", "—", "columns", "rollout.Rollout.shape", r"(?<![A-Za-z])b(?![A-Za-z_])"),
    _s("l", "steps ahead of t", "index", "—", "—", "steps", "theory.psi.gae", r"(?<![A-Za-z])l(?![A-Za-z])"),
    _s("i, j", "entries of the batch", "index", "—", "—", "—", "theory.psi.mean_baseline", r"(?<![A-Za-z])[ij](?![A-Za-z])"),
)
# fmt: on

WORDS = {"min", "max", "clip", "log", "where", "the", "above", "dual", "else", "stays", "over", "falls", "and"}
"""What else a formula may contain: operators, and these words."""


@cache
def _finder() -> re.Pattern[str]:
    words = [r"E(?=_\{)", *(rf"\b{word}\b" for word in sorted(WORDS))]
    signs = sorted(enumerate(SYMBOLS), key=lambda pair: -len(pair[1].sign))
    return re.compile("|".join([*(f"(?P<sign{i}>{symbol.regex})" for i, symbol in signs), *words]))


def occurring(*formulas: str) -> list[Symbol]:
    """The symbols that occur in the formulas, in the table's order."""
    found = {match.lastgroup for text in formulas for match in _finder().finditer(text)}
    return [symbol for i, symbol in enumerate(SYMBOLS) if f"sign{i}" in found]


def unknown(formula: str) -> str:
    """The letters of a formula that neither the table nor `WORDS` explains; empty if all are known."""
    return "".join(letter for letter in _finder().sub(" ", formula) if letter.isalpha() and letter not in "ΣΠ")
