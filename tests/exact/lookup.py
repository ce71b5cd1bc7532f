"""Language models small enough to list all they can say: a table of logits, one row for each prefix."""

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from vantage.language import experience
from vantage.language import update as learning
from vantage.language.records import Experience, Sequences
from vantage.language.roles import Roles
from vantage.recipe import KLInLoss, Recipe, Separate
from vantage.theory.loss import Outputs

Tensor = torch.Tensor
Reward = Callable[[tuple[int, ...]], float]


class Said:
    """What a causal language model answers."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


class Table(nn.Module):
    """One row of numbers for each prefix of at most `length` tokens, float64; called as a language model or critic."""

    def __init__(self, vocabulary: int, length: int, columns: int, seed: int | None) -> None:
        super().__init__()
        self.v, self.length = vocabulary, length
        states = (vocabulary ** (length + 1) - 1) // (vocabulary - 1)
        draw = torch.Generator().manual_seed(seed or 0)
        table = torch.randn(states, columns, generator=draw, dtype=torch.float64)
        self.table = nn.Parameter(table if seed is not None else torch.zeros_like(table))

    def states(self, ids: Tensor) -> Tensor:
        """The number of the prefix up to each position; the prompt is the first token alone."""
        at = [torch.zeros_like(ids[:, 0])]
        for token in ids[:, 1:].T:
            at.append(at[-1] * self.v + token + 1)
        return torch.stack(at, 1)


class LookupLM(Table):
    """π(y_t|y_{<t}) by softmax of a row."""

    def __init__(self, vocabulary: int, length: int, seed: int | None) -> None:
        super().__init__(vocabulary, length, vocabulary, seed)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, use_cache: bool = False) -> Said:
        return Said(self.table[self.states(input_ids)])


class LookupCritic(Table):
    """V(y_{<t}), any numbers."""

    def __init__(self, vocabulary: int, length: int, seed: int | None) -> None:
        super().__init__(vocabulary, length, 1, seed)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, keep: int) -> Tensor:
        return self.table[self.states(input_ids), 0][:, -keep:]


class Task:
    """Completions of `length` tokens out of `vocabulary`, a reward of each, and a price for leaving the reference."""

    def __init__(self, vocabulary: int, length: int, reward: Reward, beta: float, seed: int | None = None) -> None:
        self.v, self.length, self.beta = vocabulary, length, beta
        said = list(itertools.product(range(vocabulary), repeat=length))
        self.said = torch.tensor(said)
        self.score = torch.tensor([reward(y) for y in said], dtype=torch.float64)
        self.reference = LookupLM(vocabulary, length, seed)
        for p in self.reference.parameters():
            p.requires_grad_(False)

    @property
    def sequences(self) -> Sequences:
        """Every completion behind a prompt of one token."""
        ids = torch.cat([torch.zeros(len(self.said), 1, dtype=torch.long), self.said], 1)
        return Sequences(ids=ids, mask=torch.ones_like(ids, dtype=torch.bool), prompt=1)

    def token_log_prob(self, model: LookupLM) -> Tensor:
        """log π(y_t|y_{<t}), `[Y, L]`, without anything of the library."""
        rows = model.states(self.sequences.ids)[:, :-1]
        return torch.log_softmax(model.table, -1)[rows].gather(-1, self.said[..., None])[..., 0]

    def objective(self, model: LookupLM) -> Tensor:
        """E_π[R] − β KL(π‖π_ref), summed over all completions."""
        log_p, log_ref = self.token_log_prob(model).sum(1), self.token_log_prob(self.reference).sum(1)
        return (log_p.exp() * (self.score - self.beta * (log_p - log_ref))).sum()

    @property
    def optimum(self) -> tuple[Tensor, Tensor]:
        """(π*, J*): π* ∝ π_ref exp(R/β) over completions, J* = β log Z."""
        tilted = self.token_log_prob(self.reference).sum(1) + self.score / self.beta
        return torch.softmax(tilted, 0), self.beta * torch.logsumexp(tilted, 0)

    def gradient(self, model: LookupLM) -> Tensor:
        """∇J by differentiating the sum itself."""
        return torch.autograd.grad(self.objective(model), model.table)[0]

    # ---- the library's pipeline over all completions, each with its probability ----

    def experience(self, roles: Roles, kl: Any, group: Tensor | None = None, rows: Tensor | None = None) -> Experience:
        """What `generate_experience` would see, if every completion came exactly as often as it should."""
        how, everything = learning.Pass(micro_batch=64), self.sequences
        chosen = torch.arange(len(everything)) if rows is None else rows
        sequences = everything.take(chosen)
        log_prob = learning.score_log_probs(roles.actor, how, sequences)
        weight = log_prob.sum(1).exp()
        if group is not None:  # n-tuples: a column stands for its tuple
            weight = (
                torch.zeros(int(group.max()) + 1, dtype=weight.dtype).index_add(0, group, weight.log()).exp()[group]
            )
        ended = torch.ones(len(chosen), dtype=torch.bool)
        record = experience.rollout(
            sequences, log_prob, self.score[chosen], ended, weight=weight, group=group,
            values=None if roles.critic is None else learning.score_values(roles, how, sequences),
        )  # fmt: skip
        with roles.reference() as model:
            reference = learning.score_log_probs(model, how, sequences).T
        seen = Experience(
            rollout=record, sequences=sequences, score=self.score[chosen], ended=ended, reference_log_prob=reference
        )
        return experience.with_signal(seen, kl, self.beta)

    def plan(self, recipe: Recipe, model: LookupLM, critic: LookupCritic | None, kl: Any) -> learning.Plan:
        """How the library learns here."""
        roles = Roles(actor=model, critic=critic, frozen=self.reference, has_reference=True)
        return learning.Plan(
            recipe=recipe, roles=roles, how=learning.Pass(micro_batch=100), optim=Separate(),
            reference=kl if isinstance(kl, KLInLoss) else None,
        )  # fmt: skip

    def pipeline(
        self, recipe: Recipe, model: LookupLM, critic: LookupCritic | None, kl: Any, group: Tensor | None = None,
        rows: Tensor | None = None,
    ) -> tuple[Tensor, Outputs]:  # fmt: skip
        """The step's direction, −∇loss, by the library: experience → Ψ → loss → gradient."""
        plan = self.plan(recipe, model, critic, kl)
        seen = self.experience(plan.roles, kl, group, rows)
        columns = torch.arange(len(seen.sequences)).numpy()
        batch, total = learning.prepare(plan, seen), learning.denominator(recipe, seen.rollout, columns)
        model.zero_grad()
        says = learning.gradients(plan, batch, seen.sequences, total)
        assert model.table.grad is not None
        return -model.table.grad, says


def occurrences(token: int) -> Reward:
    """How often a token occurs."""
    return lambda y: float(sum(t == token for t in y))


def exactly(answer: tuple[int, ...]) -> Reward:
    """1 for one answer."""
    return lambda y: float(y == answer)
