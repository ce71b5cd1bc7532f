"""RLHF on language models whose every completion is listed: gradients and optima without sampling noise."""

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from tests.exact.lookup import LookupCritic, LookupLM, Task, exactly, occurrences  # noqa: E402
from vantage.language import update as learning  # noqa: E402
from vantage.language.records import Sampling  # noqa: E402
from vantage.recipe import (  # noqa: E402
    GAE,
    PPO,
    REINFORCE,
    RLOO,
    Columns,
    GroupRelative,
    ImportanceWeighted,
    KLInLoss,
    KLInReward,
    LearnedBaseline,
    Linear,
    PPOPenalty,
    RewardToGo,
    Separate,
)

ONE = dict(n_epochs=1, n_minibatches=1, whiten=None, reduction=Columns())
COUNT = Task(8, 3, occurrences(3), beta=0.5)
ONE_ANSWER = Task(8, 3, exactly((5, 0, 7)), beta=0.1)
SKEWED = Task(3, 3, occurrences(2), beta=0.3, seed=7)
"""A reference that is not uniform."""


@pytest.mark.parametrize("task", [COUNT, ONE_ANSWER, SKEWED], ids=["count", "one answer", "skewed"])
@pytest.mark.parametrize(
    ("recipe", "critic"),
    [
        (REINFORCE(**ONE), None),
        (REINFORCE(psi=RewardToGo(baseline=LearnedBaseline()), **ONE), 3),
        (ImportanceWeighted(psi=GAE(lam=1.0), **ONE), 4),
        (PPO(psi=GAE(lam=1.0), **ONE), 5),
        (PPOPenalty(psi=GAE(lam=1.0), **ONE), 6),
    ],
    ids=["reinforce", "baseline", "ratio", "clip", "penalty"],
)
def test_the_pipeline_follows_the_exact_gradient(task, recipe, critic):
    model = LookupLM(task.v, task.length, seed=1)
    value = None if critic is None else LookupCritic(task.v, task.length, seed=critic)  # wrong on purpose
    found, _ = task.pipeline(recipe, model, value, KLInReward(beta=task.beta))
    torch.testing.assert_close(found, task.gradient(model), rtol=0, atol=1e-12)


@pytest.mark.parametrize("leave_one_out", [True, False])
def test_a_group_baseline_keeps_the_direction(leave_one_out):
    """Over all pairs of answers: leaving one's own out is exact, leaving it in shortens the step by (n − 1)/n."""
    model, n = LookupLM(3, 3, seed=2), len(SKEWED.said)
    rows = torch.cartesian_prod(torch.arange(n), torch.arange(n)).flatten()
    group = torch.arange(n * n).repeat_interleave(2)
    psi = GroupRelative(size=2, leave_one_out=leave_one_out, scale=False)
    recipe = RLOO(psi=psi, whiten=None)
    found, _ = SKEWED.pipeline(recipe, model, None, KLInReward(beta=SKEWED.beta), group, rows)
    torch.testing.assert_close(found, SKEWED.gradient(model) * (1.0 if leave_one_out else 0.5), rtol=0, atol=1e-12)


@pytest.mark.parametrize("task", [COUNT, ONE_ANSWER, SKEWED], ids=["count", "one answer", "skewed"])
def test_the_gradient_vanishes_at_the_tilted_reference(task):
    best, value = task.optimum
    model = at(task, best)
    torch.testing.assert_close(task.objective(model), value, rtol=0, atol=1e-12)
    found, _ = task.pipeline(REINFORCE(**ONE), model, None, KLInReward(beta=task.beta))
    assert found.abs().max() < 1e-12


def test_the_published_optima():
    best, value = COUNT.optimum
    reward = (best * COUNT.score).sum()
    assert value.item() == pytest.approx(0.880539574247, abs=1e-12)
    assert reward.item() == pytest.approx(1.540557500394, abs=1e-12)
    assert (reward - value).item() / 0.5 == pytest.approx(1.320035852294, abs=1e-12)
    best, value = ONE_ANSWER.optimum
    assert best.max().item() == pytest.approx(0.977326643348, abs=1e-12)
    assert value.item() == pytest.approx(0.378460972477, abs=1e-12)


@pytest.mark.parametrize("task", [SKEWED, Task(3, 3, exactly((1, 0, 2)), beta=0.2)], ids=["skewed", "one answer"])
def test_training_ends_at_the_tilted_reference(task):
    """`ppo_epochs` itself, over all completions, until nothing moves."""
    model, critic, kl = LookupLM(3, 3, seed=None), LookupCritic(3, 3, seed=None), KLInReward(beta=task.beta)
    plan = task.plan(PPO(psi=GAE(lam=1.0), **ONE), model, critic, kl)
    moving = learning.Moving.of(plan.roles, Separate())
    for i in range(200):
        optim = Separate(actor_lr=0.12 * (1 - i / 200), critic_lr=0.1, max_grad_norm=None)
        order = torch.arange(len(task.said)).numpy()[None]
        learning.ppo_epochs(replace(plan, optim=optim), task.experience(plan.roles, kl), moving, order)
    best, value = task.optimum
    assert task.objective(model).item() == pytest.approx(value.item(), abs=1e-3)
    torch.testing.assert_close(task.token_log_prob(model).sum(1).exp(), best, rtol=0, atol=5e-3)


# ---- the KL in the loss ----


@pytest.mark.parametrize("estimator", ["k2", "k3", "k3 through the ratio", "exact"])
def test_each_estimator_in_the_loss_has_the_gradient_of_its_own_divergence(estimator):
    """Of each decision's KL alone, with the prefixes as they come: KL(π‖π_ref), or KL(π_ref‖π) for k3 as data."""
    model, through = LookupLM(3, 3, seed=5), "through" in estimator
    nothing = Task(3, 3, lambda y: 0.0, beta=0.3, seed=7)
    kl = KLInLoss(beta=0.3, estimator=estimator.split()[0], through_ratio=through)
    found, _ = nothing.pipeline(REINFORCE(**ONE), model, None, kl)
    other = torch.log_softmax(nothing.reference.table, -1)
    reach = reached(nothing, model)
    now = torch.log_softmax(model.table, -1)
    kls = backward_kl(now, other) if estimator == "k3" else forward_kl(now, other)
    own = -0.3 * torch.autograd.grad((reach * kls).sum(), model.table)[0]
    torch.testing.assert_close(found, own, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("task", "estimator", "objective"),
    [
        (COUNT, "k2", 0.880539574247),
        (COUNT, "k3", 0.855988919698),
        (ONE_ANSWER, "k2", 0.376462053723),
        (ONE_ANSWER, "k3", 0.313967605959),
    ],
)
def test_the_optimum_of_a_kl_in_the_loss_is_its_own(task, estimator, objective):
    """It solves each prefix for the reward alone, blind to the KL to come: J* only where no token changes that KL."""
    model = LookupLM(8, 3, seed=None)
    kl = KLInLoss(beta=task.beta, estimator=estimator)
    with torch.no_grad():
        model.table.copy_(torch.log(closed_form(task, estimator)))
    found, _ = task.pipeline(REINFORCE(**ONE), model, None, kl)
    assert found.abs().max() < 1e-10
    assert task.objective(model).item() == pytest.approx(objective, abs=1e-11)


class Tokens:
    """A tokenizer of numbers."""

    pad_token_id, eos_token_id, pad_token, chat_template = 0, None, "0", None
    padding_side, name_or_path = "left", "numbers"

    def __call__(self, text, **options):
        return {"input_ids": [int(x) for x in text.split()]}

    def decode(self, ids, **options):
        return " ".join(str(int(i)) for i in ids)

    def batch_decode(self, rows, **options):
        return [self.decode(row) for row in rows]


def test_sampled_training_reaches_the_optimum():
    """`vt.RLHF` as users run it, on samples: J within 0.02 of β log Z."""
    import vantage as vt

    model, critic = LookupLM(8, 3, seed=None), LookupCritic(8, 3, seed=None)

    def count(prompts, completions, **columns):
        return [float(text.split().count("3")) for text in completions]

    rlhf = vt.RLHF(
        model, count, vt.PPO(n_epochs=2, n_minibatches=1), critic=critic, reference=COUNT.reference,
        tokenizer=Tokens(), kl=vt.KLInReward(beta=0.5), batch_size=256, micro_batch=256,
        optim=Separate(actor_lr=Linear(0.05), critic_lr=0.05), sampling=Sampling(max_new_tokens=3),
    )  # fmt: skip
    rlhf.learn(["0"], total_episodes=256 * 60)
    assert COUNT.objective(model).item() == pytest.approx(COUNT.optimum[1].item(), abs=0.02)


# ---- by hand ----


def at(task, probabilities):
    """The model that says each completion with this probability."""
    model = LookupLM(task.v, task.length, seed=None)
    states = model.states(task.sequences.ids)
    mass = torch.zeros(len(model.table), task.v, dtype=torch.float64)
    for t in range(task.length):
        mass.index_put_((states[:, t], task.said[:, t]), probabilities, accumulate=True)
    used = mass.sum(1) > 0
    with torch.no_grad():
        model.table[used] = torch.log(mass[used] / mass[used].sum(1, keepdim=True))
    return model


def reached(task, model):
    """The probability of each prefix at which a token is chosen."""
    states, probability = model.states(task.sequences.ids), task.token_log_prob(model).sum(1).exp().detach()
    reach = torch.zeros(len(model.table), dtype=torch.float64)
    for t in range(task.length):
        reach.index_add_(0, states[:, t], probability)
    return reach


def forward_kl(now, other):
    return (now.exp() * (now - other)).sum(-1)


def backward_kl(now, other):
    return (other.exp() * (other - now)).sum(-1)


def closed_form(task, estimator):
    """π of each prefix, from the last backwards: π ∝ π_ref exp(Q/β), or β π_ref/(c − Q) for KL(π_ref‖π)."""
    model = LookupLM(task.v, task.length, seed=None)
    policy = torch.full_like(model.table, 1 / task.v)
    value = torch.zeros(len(model.table), dtype=torch.float64)
    value[model.states(task.sequences.ids)[:, -1]] = task.score
    for length in reversed(range(task.length)):
        first = (task.v**length - 1) // (task.v - 1)
        for state in range(first, first + task.v**length):
            q = value[state * task.v + 1 : state * task.v + 1 + task.v]
            if estimator == "k2":
                policy[state] = torch.softmax(q / task.beta, 0)  # the reference is uniform
            else:
                low, high = q.max(), q.max() + task.beta
                for _ in range(200):
                    middle = (low + high) / 2
                    mass = (task.beta / task.v / (middle - q)).sum()
                    low, high = (middle, high) if mass > 1 else (low, middle)
                policy[state] = task.beta / task.v / (high - q)
            value[state] = (policy[state] * q).sum()
    return policy.detach()
