"""Section 8.7: the critic's target and losses, what stays fixed over the epochs, and the KL-regularised optimum."""

import math
from dataclasses import fields, replace

import numpy as np

from vantage.recipe import GAE, PPO, ClippedValue
from vantage.theory import Batch, critics, divergences, loss, objectives, psi, returns
from vantage.verify.claim import at_least, claim, differs, equal, zero
from vantage.verify.claims.actor_critic import ELSEWHERE, STOCHASTIC
from vantage.verify.estimates import objective, outputs
from vantage.verify.worlds import GAMMA, THETA, THETA_NEW, V, every_trajectory

WIDTH = 0.5
VALUES, TARGETS = [-3.0, -1.2, -0.7, -0.4, -0.1, 0.2, 0.45, 0.8, 1.6, 3.3], [-1.0, -0.3, 0.1, 0.3, 1.0]
VALUE, TARGET = (x.reshape(-1) for x in np.meshgrid(VALUES, TARGETS))
"""V_φ and R_t around V_old = 0 and the band ±½, none on an edge."""


@claim("8.7.target", "R_t = Â_t^{GAE} + V_old(s_t):  λ = 0: r_t + γV_old(s_{t+1});  λ = 1: G_t")
def target(on):
    """The λ-return; with the true V its mean in each state is V, and the recipe hands the critic exactly this."""
    plain = every_trajectory("wrong-v")
    r = on.rollout(plain)
    record = (r.signal, r.value, r.next_value, r.discount, r.last)
    got = [on.numpy(psi.lambda_return(*record, lam)) for lam in (0.0, 0.5, 1.0)]
    yield equal(plain.signal + plain.discount * plain.next_value, got[0], "λ = 0")
    yield equal(on.numpy(returns.reward_to_go(r.signal, r.discount, r.last)), got[2], "λ = 1")
    yield equal(got[1], on.numpy(PPO(psi=GAE(lam=0.5)).prepare(r).target), "the recipe's")
    true = every_trajectory()
    t = on.rollout(true)
    right = on.numpy(psi.lambda_return(t.signal, t.value, t.next_value, t.discount, t.last, 0.5))
    for s in (0, 1):
        here = true.weight * (true.observation == s)
        yield equal(V[:-1, s], (here * right).sum(1) / here.sum(1), f"E[R_t|s_t = {s}] = V_π")


@claim("8.7.critic-loss", "(V_φ(s_t) − R_t)², R_t frozen, without a ½")
def critic_loss(on):
    """Its slope is 2(V − R); with λ = 0 and V_old = V_φ that is the semi-gradient of the TD error."""
    got = on.numpy(critics.squared(on.array(VALUE), on.array(TARGET)))
    yield equal((VALUE - TARGET) ** 2, got, "value")
    goal = on.array(TARGET)
    slope = on.gradient(lambda v: critics.squared(v, goal).sum(), VALUE)
    yield equal(2 * (VALUE - TARGET), slope, "slope")
    s, p = on.array(STOCHASTIC.s), on.array(STOCHASTIC.p)
    frozen = on.array(STOCHASTIC.r + GAMMA * ELSEWHERE[STOCHASTIC.t])
    semi = on.gradient(lambda v: (p * critics.squared(v[s], frozen)).sum(), ELSEWHERE)
    yield equal(STOCHASTIC.gradient(ELSEWHERE, False), semi, "λ = 0")


@claim("8.7.critic-target-frozen", "∂/∂R_t (V_φ − R_t)² is not taken", autodiff=True)
def target_is_data(on):
    """No gradient flows into a target, or into V_old."""
    value = on.array(VALUE)
    yield zero(on.gradient(lambda x: critics.squared(value, x).sum(), TARGET), "squared")
    yield zero(on.gradient(lambda x: critics.clipped_value(value, 0.0 * x, x, WIDTH).sum(), TARGET), "clipped")


def clipped_sum(on):
    """V_φ ↦ Σ of the clipped critic losses on the grid, V_old = 0."""
    old, goal = on.array(np.zeros_like(VALUE)), on.array(TARGET)
    return lambda v: critics.clipped_value(v, old, goal, WIDTH)


@claim("8.7.clipped-value", "max((V_φ − R)², (clip(V_φ, V_old ± ε) − R)²)")
def clipped_value(on):
    """Never below the plain loss, which it becomes for a wide band."""
    clipped = np.clip(VALUE, -WIDTH, WIDTH)
    got = on.numpy(clipped_sum(on)(on.array(VALUE)))
    yield equal(np.maximum((VALUE - TARGET) ** 2, (clipped - TARGET) ** 2), got, "grid")
    yield at_least((VALUE - TARGET) ** 2, got, "≥ squared")
    wide = critics.clipped_value(on.array(VALUE), on.array(0 * VALUE), on.array(TARGET), 1e9)
    yield equal((VALUE - TARGET) ** 2, on.numpy(wide), "ε → ∞")
    zeros = on.array(0 * VALUE)
    batch = Batch(log_prob=zeros, psi=zeros, target=on.array(TARGET), value=zeros)
    yield equal(got, on.numpy(ClippedValue(width=WIDTH)(batch, on.array(VALUE), None)), "the recipe's")


@claim("8.7.clipped-value-region", "slope 0 exactly where V_φ left the band towards R and is nearer to R than the edge")
def clipped_value_region(on):
    """u = V_old + ε < R_t: V_φ ∈ (u, 2R_t − u); l = V_old − ε > R_t: V_φ ∈ (2R_t − l, l); else 2(V_φ − R_t)."""
    above = (TARGET > WIDTH) & (VALUE > WIDTH) & (VALUE < 2 * TARGET - WIDTH)
    below = (TARGET < -WIDTH) & (VALUE < -WIDTH) & (VALUE > 2 * TARGET + WIDTH)
    slope = on.gradient(lambda v: clipped_sum(on)(v).sum(), VALUE)
    yield equal(np.where(above | below, 0.0, 2 * (VALUE - TARGET)), slope)
    yield at_least(2, (above | below).sum(), "points in the flat region")


@claim("8.7.frozen-experience", "r_t, V_old, Â_t, R_t, log π_old are the same bits after k epochs")
def frozen_experience(on):
    """Four steps on the same batch: it does not change, and the ratio is 1 on the first pass only."""
    plan, r = PPO(reduction=PPO().reduction), on.rollout(every_trajectory("wrong-v"))
    batch = plan.prepare(r)
    before = {f.name: np.array(on.numpy(x)) for f in fields(batch) if (x := getattr(batch, f.name)) is not None}
    theta, deviations = THETA, []
    for _ in range(4):
        metrics = loss(plan, batch, outputs(on.array(theta), r))[1]
        deviations.append(float(metrics["train/ratio_deviation"]))
        theta = theta + 0.5 * on.gradient(objective(plan, r, batch), theta)
    changed = sum(before[name].tobytes() != on.numpy(getattr(batch, name)).tobytes() for name in before)
    yield equal(0, changed, "fields that changed", tol=0.0)
    yield zero(deviations[0], "|r − 1| on the first pass", tol=1e-12)
    yield at_least(1e-3, deviations[1:], "|r − 1| afterwards")


@claim("8.7.joint-loss", "loss = −mean(objective + c_ent H) + c_v mean(critic loss)")
def joint_loss(on):
    """One scalar with one minus sign, from parts computed by hand."""
    plan = replace(PPO(clip_range=0.2, ent_coef=0.01, whiten=None), psi=GAE(lam=0.95))
    rollout = every_trajectory("wrong-v")
    r = on.rollout(rollout)
    batch, moved = plan.prepare(r), on.array(THETA_NEW)
    out = outputs(moved, r)
    value = on.array(np.asarray(rollout.value) + 0.3)
    got = float(loss(plan, batch, replace(out, value=value), vf_coef=0.5)[0])
    ratio = np.exp(on.numpy(out.log_prob) - rollout.log_prob)
    gain = on.numpy(objectives.clipped(on.array(ratio), batch.psi, 0.2))
    error = (on.numpy(value) - on.numpy(batch.target)) ** 2
    p = rollout.row_weight / rollout.row_weight.sum()
    by_hand = -(p * gain).sum() - 0.01 * (p * on.numpy(out.entropy)).sum() + 0.5 * (p * error).sum()
    yield equal(by_hand, got)


@claim("8.7.explained-variance", "EV = 1 − Var(R_t − V)/Var(R_t)")
def explained_variance(on):
    """1 for a perfect critic, 0 for a constant, below 0 for one worse than that."""
    ev = lambda v: float(critics.explained_variance(on.array(v), on.array(TARGET)))  # noqa: E731
    yield equal([1.0, 0.0, -3.0], [ev(TARGET), ev(0 * TARGET + 4.0), ev(-TARGET)], "V = R, constant, −R")


@claim("8.7.kl-regularised-optimum", "max_π E_{y∼π}[R(y)] − β KL(π‖π_ref):  π* ∝ π_ref e^{R/β}, value β log Z")
def kl_regularised_optimum(on):
    """Where the gradient of RLHF's objective vanishes: one of eight tokens is rewarded, β = ½, three positions."""
    reward, beta = np.eye(8)[2], 0.5
    best = np.exp(reward / beta) / np.exp(reward / beta).sum()
    R, reference = on.array(reward), on.array(np.zeros(8))

    def value(logits):
        p = math.e ** divergences.log_softmax(logits)
        return (p * R).sum() - beta * divergences.categorical_kl(logits, reference)

    yield equal([0.513519166798, 0.880539574247 / 3], [best[2], float(value(on.array(np.log(best))))], "p*, value")
    yield zero(on.gradient(value, np.log(best)), "gradient at π*")
    yield differs(np.zeros(8), on.gradient(value, np.zeros(8)), "gradient at π_ref", by=1e-2)
