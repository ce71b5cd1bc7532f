"""A recipe written out: its objective, its critic loss, its update, and every symbol in them."""

import inspect
import re
from dataclasses import dataclass, is_dataclass, replace
from typing import Any

from vantage.explain.choices import field_docs, summary
from vantage.explain.formula import Definition, Record, Symbol, block, read, run
from vantage.explain.symbols import SYMBOLS, occurring
from vantage.explain.symbols import Symbol as Entry
from vantage.recipe import Piecewise, Recipe, Schedule, TrustRegion
from vantage.recipe.refused import gives_action_values
from vantage.theory import kl_control, objectives, psi, reduce

EXPECTATIONS = {
    "total_steps": "E_{{s_t, a_t ∼ {π}}}[ {x} ]",
    "total_columns": "E_{{τ ∼ {π}}}[ Σ_t {x} ]",
    "total_trajectories": "E_{{τ ∼ {π}}}[ Σ_t {x} ]",
}
"""The expectation that dividing by each total of `theory.reduce` estimates."""

EXACT = (
    Definition("KL(π_old‖π_θ)", "E_{a ∼ π_old(·|s_t)}[ log π_old(a|s_t) − log π_θ(a|s_t) ]"),
    Definition("H(π_θ)", "− E_{a ∼ π_θ(·|s_t)}[ log π_θ(a|s_t) ]"),
)


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What a recipe does, as text: `str()` of it is the page that `vantage explain` prints."""

    title: str
    objective: str
    """What the actor maximises, with the expectation's subscript."""
    subject: str | None
    """The constraint under which it does so, if there is one."""
    critic: str | None
    """What the critic minimises."""
    where: tuple[Definition, ...]
    """The quantities in the two formulas, and those in theirs."""
    update: tuple[str, ...]
    """What happens between two rollouts, in order."""
    symbols: tuple[Entry, ...]
    """Every symbol that occurs above."""
    values: dict[str, str]
    """The value of each parameter that the recipe sets, by sign."""
    policy: str
    """The sign of the policy that acted."""

    @property
    def formulas(self) -> list[str]:
        """Every formula shown."""
        return [text for text in (self.objective, self.subject, self.critic, *map(str, self.where)) if text]

    def rows(self) -> list[dict[str, str]]:
        """The table of symbols, one dict a row."""
        return [
            {
                "symbol": entry.sign,
                "what": entry.meaning + (f"; here {self.values[entry.sign]}" if entry.sign in self.values else ""),
                "kind": entry.kind,
                "from": entry.source.replace("{π}", self.policy),
                "shape": entry.shape,
                "unit": entry.unit,
                "by": entry.by,
            }
            for entry in self.symbols
        ]

    def to_dict(self) -> dict[str, Any]:
        """The explanation as JSON-able data."""
        return {
            "title": self.title,
            "objective": self.objective,
            "subject": self.subject,
            "critic": self.critic,
            "where": [{"formula": str(one), "when": one.when} for one in self.where],
            "update": list(self.update),
            "symbols": self.rows(),
        }

    def __str__(self) -> str:
        from vantage.explain.text import page

        return page(self)


def explain_recipe(recipe: Recipe) -> Explanation:
    """The recipe written out, by running its choices on symbols."""
    policy = "π_old" if recipe.objective.reuses else "π_θ"
    notes: list[Definition] = []
    gain = run(recipe.objective, Record(), notes=notes)
    if recipe.ent_coef != 0.0:
        gain = read(objectives.with_entropy)[0].text.replace("gain_t", gain).replace(" c ", " c_ent ")
    weight, target = _psi(recipe, notes)
    critic = None
    if recipe.critic is not None:
        critic = run(recipe.critic, Record(), Symbol("V_φ"), Symbol("V_φ"), notes=notes)
    if critic is not None and gives_action_values(recipe.critic):
        critic = critic.replace("V_φ(s_t)", "Q_φ(s_t, a_t)")
        notes += [replace(one, text=one.text.replace("π(", f"{policy}(")) for one in read(psi.expected_value)]
    frame = _frame(recipe, notes)
    objective, critic = frame(gain, policy), critic and frame(critic, policy)
    subject = constraint(recipe.objective)
    where = _closure([objective, subject or "", critic or ""], [weight, *target, *notes])
    update = tuple(_update(recipe))
    return Explanation(
        title=" × ".join(type(part).__name__ for part in (recipe.psi, recipe.objective, recipe.critic) if part),
        objective=objective,
        subject=subject,
        critic=critic,
        where=where,
        update=update,
        symbols=tuple(occurring(objective, subject or "", critic or "", *map(str, where), *_rule(recipe))),
        values=dict(_values(recipe)),
        policy=policy,
    )


def constraint(objective: Any) -> str | None:
    """What the objective's docstring says it is subject to, with the expectation's subscript written out."""
    found = re.search(r"subject to (.+? ≤ \S+?)[,.;]?\s", (inspect.getdoc(objective) or "") + " ")
    if found is None:
        return None
    return found[1].replace("E[KL(π_old‖π)]", "E_{s_t ∼ π_old}[ KL(π_old(·|s_t) ‖ π_θ(·|s_t)) ]")


def _psi(recipe: Recipe, notes: list[Definition]) -> tuple[Definition, list[Definition]]:
    """The definitions of Ψ_t and of the critic's target R_t."""
    critic = recipe.critic is not None
    names: dict[str, str | None] = {"value": None, "next_value": None, "action_value": None}
    if critic:
        names = {"value": "V(s_t)", "next_value": "V(s_{t+1})", "action_value": "Q(s_t, a_t)"}
    weight, target = run(recipe.psi, Record(**names), notes=notes)
    if recipe.time_weighting == "discounted" and not recipe.psi.counts_from_start:
        weight = f"γ^t ({weight})" if " " in weight else f"γ^t {weight}"
    when = ""
    if recipe.whiten:
        weight = read(reduce.whiten)[0].text.replace("x", weight)
        when = f"mean and variance over each {recipe.whiten}"
    return Definition("Ψ_t", weight, when), [Definition("R_t", target)] if critic else []


def _frame(recipe: Recipe, notes: list[Definition]) -> Any:
    """How one decision's number becomes the expectation that the batch estimates."""
    share = ""
    if hasattr(recipe.reduction, "weight"):
        share = str(run(recipe.reduction, Record(), notes=notes, method="weight")).replace("row_weight", "")
    total = run(recipe.reduction, Record(), notes=[], method="total")
    divisor = str(total).replace(" total_columns", " B")
    shape = EXPECTATIONS.get(str(total), f"Σ_{{{{t, b}}}} {{x}} / ({divisor}),   s_t, a_t ∼ {{π}}")
    return lambda x, policy: shape.format(x=f"{share}({x})" if "Σ" in shape else x, π=policy)


def _closure(formulas: list[str], known: list[Definition]) -> tuple[Definition, ...]:
    """The definitions that the formulas need, and those that these need: given ones first, then from the docstrings."""
    exact = [one for one in EXACT if any(one.sign.split("(")[0] + "(" in text for text in formulas)]
    loose = [one for one in known if not one.sign]
    named, shown = [one for one in known if one.sign], []
    waiting = list(formulas)
    while waiting:
        for entry in occurring(waiting.pop(0)):
            if any(entry.sign == _entry(one.sign) for one in shown):
                continue
            found = [one for one in named if _entry(one.sign) == entry.sign] or _by_docstring(entry)
            shown += found
            waiting += [one.text for one in found]
    return (*dict.fromkeys([*loose, *shown, *exact]),)


def _entry(sign: str) -> str:
    """The table's spelling of a left-hand side."""
    found = occurring(sign)
    return next((entry.sign for entry in found if entry.sign == sign), found[0].sign if found else sign)


def _by_docstring(entry: Entry) -> list[Definition]:
    """The definition in the docstring of the function that computes a symbol, if it defines that very symbol."""
    function = entry.function()
    return [one for one in read(function) if one.sign == entry.sign] if function else []


def _update(recipe: Recipe) -> list[str]:
    docs, policy = field_docs(Recipe), "π_old" if recipe.objective.reuses else "π_θ"
    steps, natural = recipe.n_epochs * recipe.n_minibatches, isinstance(recipe.objective, TrustRegion)
    whose = "critic's " if natural else ""
    fixed = "Ψ_t and R_t" if recipe.critic else "Ψ_t"
    again = "anew before each epoch, with the critic of that moment" if recipe.recompute_advantages else "once"
    lines = [
        f"collect [T, B] steps with {policy}" + (" = π_θ as it stands" if recipe.objective.reuses else ""),
        f"compute {fixed} {again}; between two computations they are data",
        f"{recipe.n_epochs} epoch{'s' * (recipe.n_epochs > 1)} × {recipe.n_minibatches} "
        f"minibatch{'es' * (recipe.n_minibatches > 1)} = {steps} step{'s' * (steps > 1)} of the "
        f"{whose}optimiser; "
        f"reduction: {_lower(summary(type(recipe.reduction)))}",
    ]
    place = 2 if natural else len(lines)
    lines[place:place] = [_lower(text) for text in _remarks(recipe.objective)]
    if recipe.target_kl is not None:
        lines.append(f"target_kl = {_number(recipe.target_kl)}: {_lower(docs['target_kl'].split(';')[0])}")
    if _rule(recipe):
        lines.append("move β once, by the KL over the whole batch: " + "; ".join(_rule(recipe)))
    for name, value in knobs(recipe):
        if isinstance(value, Schedule):
            lines.append(f"{name} goes {_course(value)} over the run")
    return lines


def _remarks(objective: Any) -> list[str]:
    """What the objective's docstring says beyond its first paragraph about the update, its sources left out."""
    later = [" ".join(part.split()) for part in (inspect.getdoc(objective) or "").split("\n\n")[1:]]
    texts = [re.split(r"\s*(?:Source|Theory)\b", part)[0] for part in later]
    return [text for text in texts if text]


def _lower(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:].rstrip(".")


def _rule(recipe: Recipe) -> list[str]:
    """The lines of the formula by which β moves, if it does."""
    rule = getattr(recipe.objective, "rule", None)
    if rule is None:
        return []
    used = inspect.unwrap(type(rule).__call__).__code__.co_names
    lines = [line for name in used if hasattr(kl_control, name) for line in block(getattr(kl_control, name))]
    return [part for line in lines for part in re.split(r",?\s{4,}", line)]


def knobs(recipe: Recipe) -> list[tuple[str, Any]]:
    """Every setting of the recipe and of the choices in it, as (Type.field, value)."""
    found: list[tuple[str, Any]] = []
    waiting: list[Any] = [recipe]
    while waiting:
        choice = waiting.pop(0)
        for name in field_names(choice):
            value = getattr(choice, name)
            found.append((f"{type(choice).__name__}.{name}", value))
            if is_dataclass(value) and not isinstance(value, Schedule):
                waiting.append(value)
    return found


def field_names(choice: Any) -> list[str]:
    """The names of a choice's fields."""
    return list(choice.__dataclass_fields__)


def _values(recipe: Recipe) -> list[tuple[str, str]]:
    chosen = {f"recipe.{name}": value for name, value in knobs(recipe)}
    return [(entry.sign, _number(chosen[entry.by])) for entry in SYMBOLS if chosen.get(entry.by) is not None]


def _course(schedule: Schedule) -> str:
    """How a coefficient moves: linearly from 0.2 to 0."""
    if isinstance(schedule, Piecewise):
        return "linearly through " + ", ".join(f"{c:g} at {x:.0%}" for x, c in schedule.points)
    kind = {"Linear": "linearly", "Cosine": "along half a cosine", "Exponential": "exponentially"}
    return f"{kind[type(schedule).__name__]} from {schedule.start:g} to {schedule.end:g}"


def _number(value: Any) -> str:
    if isinstance(value, Schedule):
        return f"{value.start:g} → {value.end:g}, {_course(value).split(' from ')[0].split(' through ')[0]}"
    return f"{value:g}"
