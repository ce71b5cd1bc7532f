"""The pairs of choices that are refused, each with its reason, as data: the checks, the documentation and the tests
read this one table. Every pair that is not in it trains.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vantage.recipe.objective import TrustRegion
from vantage.recipe.psi import GroupMean, GroupRelative, StateMean


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What of a world decides whether a recipe fits it."""

    finite_actions: bool
    """Whether the actions are one choice among finitely many."""
    state_numbers: bool
    """Whether an observation is the number of a state."""
    groups: bool
    """Whether columns come in groups that answer the same prompt."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """One row: what is refused, why, and what to choose instead."""

    what: str
    """The pair, for a reader."""
    field: str
    """The field of the recipe that the error names."""
    why: str
    instead: str
    """The remedy; `{r}` is the recipe."""
    applies: Callable[[Any, Facts | None], bool]
    """Whether a recipe is refused; what depends on the world is refused only where its facts are given."""

    def text(self, recipe: Any) -> str:
        """Reason and remedy as the error says them."""
        return f"{self.why}: {self.instead.format(r=recipe)}"


def reads_action_values(psi: Any) -> bool:
    """Whether a Ψ reads Q(s, a)."""
    return getattr(psi, "needs_action_value", False)


def gives_action_values(critic: Any) -> bool:
    """Whether a critic says Q(s, a) of every action."""
    return getattr(critic, "of_actions", False)


def _baseline(psi: Any) -> Any:
    return getattr(psi, "baseline", None)


REFUSED: tuple[Refusal, ...] = (
    Refusal(
        what="a Ψ that reads V(s), without a critic",
        field="psi",
        why="it reads V(s), so it needs a critic",
        instead="give critic=Squared()",
        applies=lambda r, _: r.critic is None and r.psi.needs_value and not reads_action_values(r.psi),
    ),
    Refusal(
        what="`ActionValue`, `Advantage` with a critic that says V(s) only, or with none",
        field="psi",
        why="it reads Q(s, a), which only a critic of actions says",
        instead="give critic=QCritic()",
        applies=lambda r, _: reads_action_values(r.psi) and not gives_action_values(r.critic),
    ),
    Refusal(
        what="`Likelihood` with more than one step per rollout",
        field="objective",
        why="Ψ log π is right only for data of the policy being updated",
        instead="with n_epochs = {r.n_epochs} and n_minibatches = {r.n_minibatches} use Ratio, Clip or Penalty",
        applies=lambda r, _: not r.objective.reuses and r.n_epochs * r.n_minibatches > 1,
    ),
    Refusal(
        what="`TrustRegion` with `target_kl`",
        field="target_kl",
        why="a trust region bounds the KL itself",
        instead="leave it None and set TrustRegion(delta=…)",
        applies=lambda r, _: r.target_kl is not None and isinstance(r.objective, TrustRegion),
    ),
    Refusal(
        what="`QCritic` where actions are not one choice among finitely many",
        field="critic",
        why="it says Q(s, a) of every action, and here they cannot be listed",
        instead="choose a critic of states, such as Squared()",
        applies=lambda r, world: world is not None and gives_action_values(r.critic) and not world.finite_actions,
    ),
    Refusal(
        what="`StateMean` where observations are not numbers of states",
        field="psi",
        why="its baseline counts visits of a state, and here an observation is no state number",
        instead="choose BatchMean() or LearnedBaseline()",
        applies=lambda r, world: (
            world is not None and isinstance(_baseline(r.psi), StateMean) and not world.state_numbers
        ),
    ),
    Refusal(
        what="`GroupMean`, `GroupRelative` where columns have no groups",
        field="psi",
        why="it compares columns that answer one prompt, and here there are none",
        instead="choose RewardToGo(baseline=BatchMean(leave_one_out=True))",
        applies=lambda r, world: (
            world is not None
            and (isinstance(_baseline(r.psi), GroupMean) or isinstance(r.psi, GroupRelative))
            and not world.groups
        ),
    ),
)
"""Every refused pair."""


def refusal(recipe: Any, world: Facts | None = None) -> Refusal | None:
    """The first row that refuses a recipe, in a world if its facts are given; None if it may train."""
    return next((row for row in REFUSED if row.applies(recipe, world)), None)


def must_fit(recipe: Any, world: Facts | None = None) -> None:
    """Raise ValueError with reason and remedy where a recipe is refused."""
    row = refusal(recipe, world)
    if row is not None:
        raise ValueError(f"Recipe.{row.field} = {getattr(recipe, row.field)!r}: {row.text(recipe)}")


def table() -> str:
    """The rows as the table of the documentation."""
    lines = ["| refused | because | instead |", "| --- | --- | --- |"]
    for row in REFUSED:
        instead = row.instead.replace("{r.n_epochs}", "k").replace("{r.n_minibatches}", "m")
        lines.append(f"| {row.what} | {row.why} | {instead} |")
    return "\n".join(lines)
