"""Section 8.4: how far the surrogate can be trusted. All exact, on finite MDPs."""

import numpy as np

from vantage import mdp
from vantage.mdp.classics import two_state, two_state_policy
from vantage.verify.backend import Backend
from vantage.verify.claim import at_least, at_most, claim, equal, zero
from vantage.verify.worlds import PI, PI_NEW, THETA, TWO

SLOPE = Backend().gradient
DIRECTION = np.array([[1.0, -0.5], [0.3, 0.8]])


def random_policies(n, seed=0):
    """n tables for `TWO`, from nearly uniform to nearly deterministic."""
    rng = np.random.default_rng(seed)
    return [mdp.softmax(rng.normal(size=(2, 2)) * scale) for scale in np.linspace(0.1, 3.0, n)]


def bound(world, old, new):
    """L_π(π') − C max_s KL(π‖π'), C = 4γ max|A|/(1−γ)²."""
    C = 4 * world.gamma * np.abs(mdp.advantages(world, old)).max() / (1 - world.gamma) ** 2
    return mdp.surrogate(world, old, new) - C * mdp.policy_kl(old, new).max()


@claim("8.4.performance-difference", "J(π') − J(π) = Σ_s d_{π'}(s) Σ_a π'(a|s) A_π(s,a)")
def performance_difference():
    """What a new policy gains is the old advantage, met along the new policy's way."""
    for new in random_policies(6):
        gain = np.einsum("s,sa,sa->", mdp.occupancy(TWO, new), new, mdp.advantages(TWO, PI))
        yield equal(mdp.expected_return(TWO, new) - mdp.expected_return(TWO, PI), gain)


@claim("8.4.surrogate", "L_π(π') = J(π) + Σ_s d_π(s) Σ_a π'(a|s) A_π(s,a):  L_π(π) = J(π), ∇L = ∇J at π' = π")
def surrogate():
    """With the old states in place of the new ones: right in value and slope where the policies meet."""
    yield equal(mdp.expected_return(TWO, PI), mdp.surrogate(TWO, PI, PI), "value")
    got = SLOPE(lambda x: mdp.surrogate(TWO, PI, mdp.softmax(x)), THETA)
    yield equal(mdp.policy_gradient(TWO, THETA), got, "slope")


@claim("8.4.second-order", "J(π_{θ+hv}) − L_{π_θ}(π_{θ+hv}) = O(h²)")
def second_order():
    """Halving the step divides the error by four, in the limit."""
    hs = 0.1 * 0.5 ** np.arange(7)
    moved = [mdp.softmax(THETA + h * DIRECTION) for h in hs]
    errors = np.array([mdp.expected_return(TWO, new) - mdp.surrogate(TWO, PI, new) for new in moved])
    ratios = errors[:-1] / errors[1:]
    yield equal(4.0, ratios[-1], "last ratio", tol=0.01)
    yield at_most(np.abs(ratios[:-1] - 4), np.abs(ratios[1:] - 4), "ever nearer to 4")


@claim("8.4.lower-bound", "J(π') ≥ L_π(π') − C max_s KL(π(·|s)‖π'(·|s)),  C = 4γ max|A_π|/(1−γ)²")
def lower_bound():
    """The bound behind TRPO: its published case, and random pairs."""
    world, old = two_state(0.9), two_state_policy(0.7, 0.2)
    table = {
        (0.71, 0.199): (6.960026140943, 6.960355029586, 0.000241221008, 6.891647),
        (0.72, 0.19): (7.051142546246, 7.052409129332, 0.000978247569, 6.773770),
        (0.5, 0.6): (4.128440366972, 3.575655114117, 0.334795286714, -91.785816),
    }
    for (p, q), expected in table.items():
        new = two_state_policy(p, q)
        got = [mdp.expected_return(world, new), mdp.surrogate(world, old, new), mdp.policy_kl(old, new).max()]
        yield equal(expected, [*got, bound(world, old, new)], f"J', L, KL, bound for π' = {p}, {q}", tol=1e-6)
    for new in random_policies(8, seed=1):
        yield at_least(bound(TWO, PI, new), mdp.expected_return(TWO, new), "random pair")


@claim("8.4.fisher", "E_s[KL(π_θ‖π_{θ+h})] = ½ hᵀFh + O(h³),  F = E[∇log π ∇log πᵀ]")
def fisher():
    """The KL near a policy is a quadratic form, and the Fisher matrix is its matrix."""
    d = mdp.occupancy(TWO, PI)
    d = d / d.sum()
    scores = np.zeros((4, 4))
    for s, a in np.ndindex(2, 2):
        score = np.zeros((2, 2))
        score[s] = np.eye(2)[a] - PI[s]
        scores += d[s] * PI[s, a] * np.outer(score, score)
    F = mdp.fisher(TWO, THETA)
    yield equal(scores, F, "E[∇log π ∇log πᵀ]")
    hs = 0.1 * 0.5 ** np.arange(5)
    v = DIRECTION.reshape(-1)
    kl = np.array([d @ mdp.policy_kl(PI, mdp.softmax(THETA + h * DIRECTION)) for h in hs])
    remainder = kl - 0.5 * hs**2 * (v @ F @ v)
    yield equal(8.0, remainder[-2] / remainder[-1], "remainder per halving", tol=0.02)


@claim("8.4.natural-step", "h = √(2δ/(gᵀF⁺g)) F⁺g;  for a softmax bandit F⁺g is the centred advantage")
def natural_step():
    """One natural step on a bandit with logits (0.2, −0.1, 0.4) and A = (1, −½, 2), at δ = 0.01."""
    pi, A = mdp.softmax(np.array([[0.2, -0.1, 0.4]]))[0], np.array([1.0, -0.5, 2.0])
    F = np.diag(pi) - np.outer(pi, pi)
    g = F @ A
    direction = np.linalg.pinv(F) @ g
    yield zero(np.ptp(direction - (A - pi @ A)), "F⁺g − (A − E A) is constant")
    yield equal(0.973643075, g @ direction, "gᵀF⁺g = Var_π(A)")
    size = np.sqrt(2 * 0.01 / (g @ direction))
    new = mdp.softmax((np.log(pi) + size * direction)[None])[0]
    yield equal([0.332542578072, 0.198697544832, 0.468759877095], new, "new policy")
    kl = float(mdp.policy_kl(pi[None], new[None])[0])
    yield equal([0.143322741948, 0.009717377701, 0.133520039199], [size, kl, (new - pi) @ A], "step, KL, gain")
    yield at_most(0.01, kl, "KL ≤ δ")


@claim("8.4.order", "KL(π‖π') = 0 ⇔ π' = π;  L − J vanishes with it")
def nothing_moved():
    """No step, no error."""
    yield zero(mdp.policy_kl(PI, PI), "KL")
    yield at_least(1e-3, mdp.policy_kl(PI, PI_NEW), "KL to another policy")
