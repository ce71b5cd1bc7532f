"""TRPO's move of the actor against closed forms and dense matrices, and its constraint on 200 random problems."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vantage as vt
from vantage import mdp
from vantage.control import MLP, trust_region
from vantage.control.model import Model, build
from vantage.control.networks import Inputs, host_forward
from vantage.control.spaces import BoxActions, DiscreteActions, StateObservations, VectorObservations
from vantage.rollout import Rollout

pytestmark = pytest.mark.usefixtures("compile_fast")

THETA, A = np.array([0.2, -0.1, 0.4]), np.array([1.0, -0.5, 2.0])
PI = mdp.softmax(THETA[None])[0]
BARE = partial(vt.TRPO, psi=vt.RewardToGo(), critic=None, whiten=None)


class Lookup(eqx.Module):
    """Logits by state: the softmax table θ, `[S, A]`."""

    table: Any

    def __call__(self, x):
        return x @ self.table


@dataclass(frozen=True, kw_only=True)
class Table:
    """The network whose parameters are θ itself."""

    def build(self, rng: np.random.Generator, inputs: Inputs, outputs: int, gain: float) -> Any:
        return Lookup(np.zeros((inputs.size, outputs), np.float32))


def tabular(states: int, actions: int) -> Model:
    rng = np.random.default_rng(0)
    return build(StateObservations(size=states), DiscreteActions(n=actions), Table(), False, rng)[0]


def one_step(model: Model, vector, observation, action, reward, **others) -> Rollout:
    """Rows that are episodes of one decision each, so that reward-to-go is the reward."""
    policy = model.policy(vector, jnp.asarray(observation))
    ends = np.ones(reward.shape, bool)
    reward = reward.astype(np.float32)
    fields: dict[str, Any] = dict(
        observation=observation, action=action, reward=reward, signal=reward, discount=0.0 * reward, last=ends,
        mask=ends, log_prob=policy.log_prob(jnp.asarray(action)), policy=policy.parameters, gamma=0.9,
        time=np.zeros(reward.shape, np.int32),
    )  # fmt: skip
    return Rollout(**fields | others)


def bandit(logits=THETA, reward=A) -> tuple[Model, np.ndarray, Rollout]:
    """Every action once, weighted with its probability: sums over the batch are expectations."""
    model, vector, actions = tabular(1, len(logits)), logits.astype(np.float32), np.arange(len(logits))[None]
    weight = mdp.softmax(logits[None])[0].astype(np.float32)
    return model, vector, one_step(model, vector, 0 * actions, actions, reward[None], weight=weight)


def moved(model, vector, rollout, recipe):
    vector, metrics = trust_region.move_actor(model, recipe, jnp.asarray(vector), rollout)
    return np.asarray(vector), {name: float(x) for name, x in metrics.items()}


@pytest.mark.parametrize(
    ("delta", "step", "kl"), [(0.01, 0.143322741948, 0.009717377701), (0.001, 0.045322630506, 0.000991427996)]
)
def test_the_natural_step_of_a_bandit(delta, step, kl):
    vector, metrics = moved(*bandit(), BARE(delta=delta, damping=0.0))
    assert metrics["train/kl"] == pytest.approx(kl, rel=1e-5)
    assert np.ptp(vector - THETA - step * A) < 1e-6
    if delta == 0.01:
        assert mdp.softmax(vector[None])[0] == pytest.approx([0.332542578072, 0.198697544832, 0.468759877095], abs=1e-6)
        assert metrics["train/surrogate_gain"] == pytest.approx(0.133520039199, rel=1e-5)
        assert metrics["train/policy_objective"] == pytest.approx(PI @ A, rel=1e-6)
    assert metrics["train/line_search_steps"] == 1
    assert metrics["train/is_line_search_success"] == 1


def test_the_constraint_is_on_the_kl_from_the_old_policy():
    """Of the same step KL(π_old‖π) = 0.009717 and KL(π‖π_old) = 0.009419."""
    model, vector, rollout = bandit()
    after, metrics = moved(model, vector, rollout, BARE(delta=0.01, damping=0.0))
    old, new = mdp.softmax(THETA[None]), mdp.softmax(after.astype(float)[None])
    assert metrics["train/kl"] == pytest.approx(mdp.policy_kl(old, new)[0], rel=1e-5)
    assert mdp.policy_kl(new, old)[0] == pytest.approx(0.009419080422, rel=1e-4)


def test_the_natural_gradient_of_a_bandit_is_the_centred_advantage():
    F = np.diag(PI) - np.outer(PI, PI)
    step = trust_region.natural_step(jnp.asarray(F @ A), lambda v: jnp.asarray(F) @ v, vt.TrustRegion(damping=0.0))
    direction = np.asarray(step) - np.mean(step)
    wanted = A - PI @ A
    wanted = wanted - wanted.mean()
    np.testing.assert_allclose(direction / np.linalg.norm(direction), wanted / np.linalg.norm(wanted), atol=1e-6)


def test_the_fisher_product_is_the_enumerated_matrix(rng):
    world = mdp.random_mdp(4, 3, gamma=0.9, seed=1)
    theta = rng.standard_normal((world.n_states, world.n_actions))
    d = mdp.occupancy(world, mdp.softmax(theta))
    model, states = tabular(world.n_states, world.n_actions), np.arange(world.n_states)
    with jax.enable_x64(True):
        flat = jnp.asarray(theta.ravel())
        old = model.policy(flat, states)
        product = trust_region.fisher_product(lambda x: (d / d.sum()) @ old.kl(model.policy(x, states)), flat)
        F = np.stack([np.asarray(product(e)) for e in jnp.eye(flat.size)])
    np.testing.assert_allclose(F, mdp.fisher(world, theta), atol=1e-12)


@pytest.mark.parametrize(("n", "damping"), [(3, 0.0), (10, 0.1), (40, 1e-3)])
def test_conjugate_gradients_solve_the_system(rng, n, damping):
    """The step is √(2δ/sᵀHs) s with H s = g, H = F + damping, by a dense solver in float64."""
    root = rng.standard_normal((n, n)) / np.sqrt(n)
    F, g = root @ root.T + 0.1 * np.eye(n), 1e4 * rng.standard_normal(n)
    region = vt.TrustRegion(delta=0.02, damping=damping, cg_steps=2 * n)
    step = trust_region.natural_step(jnp.asarray(g), lambda v: jnp.asarray(F, v.dtype) @ v, region)
    H = F + damping * np.eye(n)
    s = np.linalg.solve(H, g)
    np.testing.assert_allclose(step, np.sqrt(2 * 0.02 / (s @ H @ s)) * s, rtol=1e-3, atol=1e-5)
    assert step @ H @ step == pytest.approx(2 * 0.02, rel=1e-4)


def test_few_iterations_still_reach_the_length(rng):
    F = np.diag(np.logspace(-3, 1, 50))
    region = vt.TrustRegion(delta=0.02, damping=0.0, cg_steps=5)
    g = jnp.asarray(rng.standard_normal(50))
    step = trust_region.natural_step(g, lambda v: jnp.asarray(F, v.dtype) @ v, region)
    assert step @ F @ step == pytest.approx(2 * 0.02, rel=1e-4)


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-15, 1e15, 1e30])
def test_the_step_does_not_depend_on_the_gradient_s_size(size):
    F, g = jnp.diag(jnp.array([1.0, 2.0, 4.0])), jnp.array([1.0, -1.0, 0.5])
    product, region = lambda v: F @ v, vt.TrustRegion()
    got, wanted = (trust_region.natural_step(jnp.float32(c) * g, product, region) for c in (size, 1.0))
    np.testing.assert_allclose(got, (size > 0) * np.asarray(wanted), rtol=1e-4)


class Problem:
    """A random network with a random batch: rows masked, Ψ of any scale, policies from even to nearly certain."""

    KINDS = (DiscreteActions(n=4), BoxActions(low=(-1.0,) * 2, high=(1.0,) * 2),
             BoxActions(low=(-1.0,) * 2, high=(1.0,) * 2, squash=True))  # fmt: skip

    def __init__(self, seed: int, rows: int = 40, mask: bool = True):
        rng = np.random.default_rng([7, seed])
        kind = self.KINDS[seed % 3]
        self.model, vector = build(VectorObservations(size=3), kind, MLP(hidden=(8, 8)), True, rng)
        self.vector = (vector + rng.choice([0.01, 0.3, 1.0]) * rng.standard_normal(vector.size)).astype(np.float32)
        seen = rng.standard_normal((rows, 1, 3)).astype(np.float32)
        action = rng.integers(0, 4, (rows, 1)) if kind.outputs == 4 else rng.standard_normal((rows, 1, 2))
        reward = 10.0 ** rng.uniform(-3, 3) * rng.standard_normal((rows, 1)) * (seed % 20 != 0)
        real = rng.random((rows, 1)) < (0.7 if mask else 1.0)
        real[0] = True
        zero = np.zeros((rows, 1), np.float32)
        self.rollout = one_step(
            self.model, self.vector, seen, action.astype(kind.dtype), reward, mask=real, value=zero, next_value=zero
        )
        self.delta = float(10.0 ** rng.uniform(-5, 0))
        self.recipe = vt.TRPO(
            delta=self.delta, damping=float(10.0 ** rng.uniform(-6, -1)), psi=vt.RewardToGo(), whiten=None
        )

    @property
    def rewards(self):
        """Ψ_t of the real rows; their mean is the objective before the step."""
        return np.asarray(self.rollout.reward[self.rollout.mask], np.float64)

    def policy(self, vector):
        """π(·|s) of the real rows, by NumPy in float64."""
        networks = self.model.networks(vector.astype(np.float64))
        seen = np.asarray(self.rollout.observation, np.float64)[self.rollout.mask]
        return self.model.actions.distribution(host_forward(networks.actor)(seen), networks.log_std)

    def gain(self, vector):
        """Σ_t (r_t(θ) − 1) Ψ_t, by NumPy in float64."""
        action = np.asarray(self.rollout.action)[self.rollout.mask]
        new, old = (self.policy(v).log_prob(action) for v in (vector, self.vector))
        return float(np.expm1(new - old) @ self.rewards)


def test_200_random_problems_keep_to_their_region():
    outcomes = []
    for seed in range(200):
        case = Problem(seed)
        vector, metrics = moved(case.model, case.vector, case.rollout, case.recipe)
        mean, size = case.rewards.mean(), np.abs(case.rewards).mean()
        assert metrics["train/policy_objective"] == pytest.approx(mean, abs=1e-3 * size)
        n, accepted = case.model.n_actor, bool(metrics["train/is_line_search_success"])
        assert vector[n:].tobytes() == case.vector[n:].tobytes()
        far = float(np.mean(case.policy(case.vector).kl(case.policy(vector))))
        assert far <= case.delta * (1 + 1e-9)
        assert metrics["train/kl"] == pytest.approx(far, rel=1e-6, abs=1e-15)
        if accepted:
            assert case.gain(vector) > 0
        else:
            assert vector.tobytes() == case.vector.tobytes()
        if seed % 20 == 0:
            assert not accepted
            assert metrics["train/line_search_steps"] == 0
        outcomes.append((accepted, metrics["train/line_search_steps"]))
    accepted, tried = np.array(outcomes).T
    assert accepted.sum() > 150
    assert (tried > 1).sum() > 10
    assert (tried == 1).sum() > 30


def certain() -> tuple[Model, np.ndarray, Rollout]:
    """π = (0.99, 0.01) and the rare action is better: the quadratic model sees a sixth of the step's KL."""
    return bandit(np.log([0.99, 0.01]), np.array([0.0, 1.0]))


def test_a_step_past_the_region_is_shortened():
    _, metrics = moved(*certain(), BARE(delta=0.1, damping=0.0))
    assert 1 < metrics["train/line_search_steps"] <= 10
    assert 0.05 < metrics["train/kl"] <= 0.1


def test_a_failed_line_search_leaves_the_actor_bit_for_bit():
    model, vector, rollout = certain()
    after, metrics = moved(model, vector, rollout, BARE(delta=0.1, damping=0.0, backtracks=2))
    assert after.tobytes() == vector.tobytes()
    assert metrics["train/line_search_steps"] == 2
    assert metrics["train/is_line_search_success"] == metrics["train/kl"] == metrics["train/surrogate_gain"] == 0


def test_what_is_not_finite_moves_nothing():
    model, vector, rollout = bandit()
    after, metrics = moved(model, vector, replace(rollout, signal=rollout.signal + np.float32("nan")), BARE())
    assert after.tobytes() == vector.tobytes()
    assert metrics["train/is_line_search_success"] == 0


def test_masked_rows_count_nowhere():
    case = Problem(3)
    off = ~case.rollout.mask
    spoilt = {
        name: np.where(off[..., None] if x.ndim == 3 else off, np.float32("nan"), x)
        for name in ("observation", "reward", "signal", "value", "log_prob")
        if (x := np.asarray(getattr(case.rollout, name))) is not None
    }
    clean, one = moved(case.model, case.vector, case.rollout, case.recipe)
    dirty, two = moved(case.model, case.vector, replace(case.rollout, **spoilt), case.recipe)
    np.testing.assert_array_equal(clean, dirty)
    assert one == two
    assert one["train/is_line_search_success"] == 1


def test_a_weight_of_two_is_two_columns():
    """Weights count in the gradient, in the Fisher matrix and in the KL: the states differ in all three."""
    model, vector = tabular(3, 2), np.array([0.0, 0.0, 2.0, -1.0, 0.5, 1.0], np.float32)
    seen, action, reward = np.array([[0, 1, 2]]), np.array([[0, 1, 1]]), np.array([[1.0, 3.0, -2.0]])
    columns, weight = np.array([0, 1, 1, 2]), np.array([1.0, 2.0, 1.0], np.float32)
    weighted, one = moved(model, vector, one_step(model, vector, seen, action, reward, weight=weight), BARE())
    rows = one_step(model, vector, *(x[:, columns] for x in (seen, action, reward)))
    doubled, two = moved(model, vector, rows, BARE())
    np.testing.assert_allclose(weighted, doubled, atol=1e-5)
    assert one == pytest.approx(two, rel=1e-4, abs=1e-6)
    assert one["train/kl"] > 1e-3


def test_the_reduction_sets_no_step_length():
    case = Problem(4)
    by_steps, by_number = (
        moved(case.model, case.vector, case.rollout, BARE(reduction=reduction))[0]
        for reduction in (vt.Steps(), vt.Constant(n=1e6))
    )
    assert np.abs(by_steps - case.vector).max() > 1e-4
    np.testing.assert_allclose(by_steps - case.vector, by_number - case.vector, rtol=0.02, atol=1e-6)


def test_the_kl_is_its_quadratic_model_to_third_order(rng):
    """E[KL(π_θ‖π_{θ+hv})] − ½h²vᵀFv falls eightfold when h is halved."""
    case = Problem(3, mask=False)
    seen = case.rollout.observation
    with jax.enable_x64(True):
        theta = jnp.asarray(case.vector, jnp.float64)
        old = case.model.policy(theta, seen)
        kl = lambda x: jnp.mean(old.kl(case.model.policy(x, seen)))  # noqa: E731
        v = jnp.asarray(rng.standard_normal(theta.size) / np.sqrt(theta.size))
        half = 0.5 * v @ trust_region.fisher_product(kl, theta)(v)
        hs = 0.05 * 0.5 ** np.arange(6)
        left = np.array([float(kl(theta + h * v) - half * h**2) for h in hs])
    np.testing.assert_allclose(left[:-1] / left[1:], 8.0, rtol=0.15)
    assert left[-2] / left[-1] == pytest.approx(8.0, rel=0.02)
