"""The parameters as one flat vector, and the functions of it: π(·|s) and V(s).

One vector, because the update clips, moves and donates the parameters as a whole: a dozen small arrays cost a dozen
times the overhead.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from vantage.control.exploration import Exposed, StateDependentActions
from vantage.control.networks import Divisible, Inputs, Network, critic_of, host_forward, shares
from vantage.control.recurrent import Memory, Remembering, along, host_step, once, state_size
from vantage.control.spaces import Actions, DiscreteActions, FlatObservations, Observations, StateObservations
from vantage.recipe import Facts, Recipe, must_fit
from vantage.theory import psi
from vantage.theory.divergences import log_softmax

Array = Any


class Networks(eqx.Module):
    """What is learned. The order is that of the vector: what actor and critic share, then `actor` and `log_std`, then
    `critic`.
    """

    trunk: Any
    actor: Any
    log_std: Any
    critic: Any


class Says(NamedTuple):
    """What the networks say of rows."""

    policy: Any
    """π(·|s): a distribution with parameters `[…, A]`."""
    value: Float[Array, "*S"] | None
    """V(s); None without a critic."""
    action_values: Float[Array, "*S A"] | None
    """Q(s, a) of every action; None but with a critic of actions."""
    states: Float[Array, "T B C"] | None
    """What is remembered after each row; None of networks that do not."""


@dataclass(frozen=True)
class Model:
    """The static half of an agent: spaces, shapes and structure.

    Hashable, so that equal agents share one compiled update.
    """

    observations: Observations
    actions: Actions
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    structure: Any
    n_trunk: int
    """How many parameters actor and critic share; they come first."""
    n_actor: int
    """How many are the actor's alone: with nothing shared, the first ones."""
    carries: tuple[int, int, int] = (0, 0, 0)
    """How many numbers trunk, actor and critic keep from row to row."""
    sequence_length: int | None = None
    """Rows of a training sequence of networks that remember; None: the whole rollout."""
    of_actions: bool = False
    """Whether the critic says Q(s, a) of every action, and V(s) = Σ_a π(a|s) Q(s, a)."""

    @property
    def has_critic(self) -> bool:
        """Whether part of the vector is a critic."""
        return self.n_trunk + self.n_actor < self.size

    @property
    def size(self) -> int:
        """How many parameters there are."""
        return sum(int(np.prod(shape)) for shape in self.shapes)

    def networks(self, vector: Float[Array, " P"]) -> Networks:
        """The vector as modules; with a NumPy vector the leaves are views of it.

        Split at once and not sliced leaf by leaf: the gradient then is one concatenation, a quarter less work at
        minibatches of 64.
        """
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes])[:-1]
        parts = (np if isinstance(vector, np.ndarray) else jnp).split(vector, ends)
        leaves = [part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True)]
        dynamic, static = self.structure
        arrays = jax.tree.unflatten(dynamic, leaves)
        return eqx.combine(arrays, jax.tree.unflatten(*static)) if static[1] else arrays

    @property
    def carry(self) -> int:
        """C: how many numbers the networks keep from row to row; 0 for networks that do not remember."""
        return sum(self.carries)

    @property
    def acting_carry(self) -> int:
        """How many of them acting needs: the first ones."""
        return sum(self.carries[:2])

    def sequence(self, rows: int) -> int:
        """Rows of one item of a minibatch, out of a rollout of so many: L if the networks remember, else 1."""
        return min(self.sequence_length or rows, rows) if self.carry else 1

    def run(self, vector: Float[Array, " P"], observation: Array, memory: Memory | None = None) -> Says:
        """The networks over recorded observations: `[…]`, or `[T, B, …]` from `memory` on if they remember."""
        self._must_remember(memory)
        networks, (shared, acting, valuing) = self.networks(vector), self._memories(memory)
        x, *states = along(networks.trunk, self.observations.features(jnp, observation), shared)
        outputs, state = along(networks.actor, x, acting)
        states.append(state)
        outputs, says = self.allowed(outputs, observation), None
        if self.has_critic:
            says, state = along(networks.critic, x, valuing)
            states.append(state)
        return Says(
            policy=self.actions.distribution(outputs, networks.log_std),
            value=None if says is None else self._state_value(says, outputs),
            action_values=says if self.of_actions else None,
            states=None if memory is None else jnp.concatenate(states, axis=-1),
        )

    def _state_value(self, says: Float[Array, "*S W"], logits: Array) -> Float[Array, "*S"]:
        """V(s) from what the critic says, V(s) itself or Q(s, a) of every action."""
        if not self.of_actions:
            return says[..., 0]
        return psi.expected_value(says, jnp.exp(log_softmax(logits)))

    def both(
        self, vector: Float[Array, " P"], observation: Array, memory: Memory | None = None
    ) -> tuple[Any, Float[Array, "*S"] | None]:
        """π(·|s) and V(s), None without a critic; what the two share is computed once."""
        says = self.run(vector, observation, memory)
        return says.policy, says.value

    def policy(self, vector: Float[Array, " P"], observation: Array, memory: Memory | None = None) -> Any:
        """π(·|s): a distribution with parameters `[…, A]`."""
        return self.run(vector, observation, memory).policy

    def value(
        self, vector: Float[Array, " P"], observation: Array, states: Float[Array, "*S C"] | None = None
    ) -> Float[Array, "*S"]:
        """V(s) of recorded observations `[…]`: of ones that follow upon `states`, if the networks remember."""
        self._must_remember(states)
        networks, x = self.networks(vector), self.observations.features(jnp, observation)
        shared, acting, valuing = self._split(x[..., :0] if states is None else states)
        x = once(networks.trunk, x, shared)[0]
        logits = self.allowed(once(networks.actor, x, acting)[0], observation) if self.of_actions else None
        return self._state_value(once(networks.critic, x, valuing)[0], logits)

    def advance(
        self, vector: Float[Array, " P"], observation: Array, state: Float[Array, "B S"]
    ) -> tuple[Any, Float[Array, "B S"]]:
        """π(·|s) of one row of recorded observations `[B, …]`, and the state that acting goes on with, of width
        `acting_carry`; the caller sets it to 0 where an episode ends.
        """
        outputs, state = self.acting(vector, observation, state)
        return self.actions.distribution(outputs, self.networks(vector).log_std), state

    def acting(
        self, vector: Float[Array, " P"], observation: Array, state: Float[Array, "B S"]
    ) -> tuple[Float[Array, "B A"], Float[Array, "B S"]]:
        """What the actor says instead of π(·|s), and the same state."""
        networks, x = self.networks(vector), self.observations.features(jnp, observation)
        shared, acting, _ = self._split(state)
        x, shared = once(networks.trunk, x, shared)
        outputs, acting = once(networks.actor, x, acting)
        return self.allowed(outputs, observation), jnp.concatenate([shared, acting], axis=-1)

    def _must_remember(self, memory: Any) -> None:
        if self.carry and memory is None:
            raise ValueError("a recurrent network says nothing about observations alone: give what went before")

    def _split(self, state: Array) -> tuple[Array, Array, Array]:
        """The trunk's, the actor's and the critic's part of a state."""
        m, n = self.carries[0], self.acting_carry
        return state[..., :m], state[..., m:n], state[..., n:]

    def _memories(self, memory: Memory | None) -> tuple[Memory | None, ...]:
        return (None,) * 3 if memory is None else tuple(memory._replace(carry=x) for x in self._split(memory.carry))

    def allowed(self, outputs: Array, observation: Array) -> Array:
        """The outputs with −inf for what the recorded mask, if there is one, rules out."""
        if isinstance(self.observations, FlatObservations) and self.observations.mask:
            return self.actions.rule_out(outputs, self.observations.allowed(observation))
        return outputs

    def named(self, vector: Float[Array, " P"]) -> dict[str, Array]:
        """The parameters by name, for files."""
        leaves = jax.tree.leaves(eqx.filter(self.networks(np.array(vector)), eqx.is_array))
        return dict(zip(self.names, leaves, strict=True))

    def vector(self, named: dict[str, Array]) -> Float[Array, " P"]:
        """The inverse of `named`. Raises ValueError where the names or shapes are other ones, and says all of these."""
        wanted, found = dict(zip(self.names, self.shapes, strict=True)), {name: x.shape for name, x in named.items()}
        other = [name for name in wanted | found if wanted.get(name) != found.get(name)]
        if other:
            pairs = (
                f"{name} has shape {wanted.get(name, 'none')} in this agent, {found.get(name, 'none')} in the file"
                for name in other
            )
            raise ValueError(f"the file's parameters are another network's: {'; '.join(pairs)}: use the same network")
        return np.concatenate([np.ravel(named[name]) for name in self.names]).astype(np.float32)


def must_suit(recipe: Recipe, observations: Observations, actions: Actions) -> None:
    """Raise ValueError, with the reason, for a recipe that does not fit these spaces."""
    numbered, finite = isinstance(observations, StateObservations), isinstance(actions, DiscreteActions)
    must_fit(recipe, Facts(finite_actions=finite, state_numbers=numbered, groups=False))


def build(
    observations: Observations,
    actions: Actions,
    network: Network,
    critic: bool,
    rng: np.random.Generator,
    std: float = 1.0,
    of_actions: bool = False,
) -> tuple[Model, Float[Array, " P"]]:
    """A fresh model and its parameters: actor head with gain 0.01, so that π begins near uniform; critic head with
    gain 1, of one number, or `of_actions` of one an action; σ = `std`.

    Raises ValueError for a σ that the actions do not have.
    """
    if std != 1.0 and not (actions.stds or isinstance(actions, StateDependentActions)):
        raise ValueError(f"std_init = {std}: only Box actions have a σ; leave it out")
    width = 0 if not critic else actions.outputs if of_actions else 1
    actions, networks = _networks(observations.inputs, actions, network, width, rng, std)
    dynamic, static = eqx.partition(networks, eqx.is_inexact_array)
    paths, structure = jax.tree_util.tree_flatten_with_path(dynamic)
    fixed, fixed_structure = jax.tree.flatten(static)
    leaves = [np.asarray(leaf, np.float32) for _, leaf in paths]
    model = Model(
        observations=observations,
        actions=actions,
        names=tuple(jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths),
        shapes=tuple(leaf.shape for leaf in leaves),
        structure=(structure, (fixed_structure, tuple(fixed))),
        n_trunk=_count(paths, "trunk"),
        n_actor=_count(paths, "actor", "log_std"),
        carries=(state_size(networks.trunk), state_size(networks.actor), state_size(networks.critic)),
        sequence_length=getattr(network, "sequence_length", None),
        of_actions=of_actions,
    )
    return model, np.concatenate([leaf.ravel() for leaf in leaves])


def _networks(
    inputs: Inputs, actions: Actions, network: Network, width: int, rng: np.random.Generator, std: float
) -> tuple[Actions, Networks]:
    """The networks, and the actions as they are once the network is known."""
    exposed = actions if isinstance(actions, StateDependentActions) else None
    trunk, hidden, n = None, None, 0
    if exposed and (not isinstance(network, Divisible) or isinstance(network, Remembering)):
        raise ValueError(
            f"use_sde = True: the noise reads the actor's last features, which {type(network).__name__} does not show; "
            "use MLP(), or leave it False"
        )
    outputs, valuing = exposed.dimensions if exposed else actions.outputs, critic_of(network)
    if width and isinstance(network, Divisible) and shares(network):
        trunk, n = network.build_trunk(rng, inputs)
        actor, value = network.build_head(rng, n, outputs, 0.01), valuing.build_head(rng, n, width, 1.0)
    else:
        if exposed and isinstance(network, Divisible):
            hidden, n = network.build_trunk(rng, inputs)
            actor = network.build_head(rng, n, outputs, 0.01)
        else:
            actor = network.build(rng, inputs, outputs, 0.01)
        value = valuing.build(rng, inputs, width, 1.0) if width else None
    if exposed:
        actions, actor = replace(exposed, features=n), Exposed(trunk=hidden, head=actor)
    log_std = np.full(actions.stds, np.log(std), np.float32) if actions.stds else None
    return actions, Networks(trunk=trunk, actor=actor, log_std=log_std, critic=value)


def _count(paths: list[Any], *parts: str) -> int:
    return sum(np.size(leaf) for path, leaf in paths if path[0].name in parts)


class Actor:
    """The policy as the host runs it: NumPy parameters, fixed from one update to the next."""

    def __init__(self, model: Model, vector: Float[Array, " P"]) -> None:
        networks = model.networks(vector)
        self._model = model
        self._features = partial(model.observations.features, np)
        self._masked = model.observations.mask is not None
        self._forward = None if model.carry else _composed(networks.trunk, networks.actor)
        if model.carry:
            self._trunk, self._actor = host_step(networks.trunk), host_step(networks.actor)
        self.log_std = networks.log_std
        self.std = None if networks.log_std is None else np.exp(networks.log_std)

    @property
    def carry(self) -> int:
        """How many numbers it keeps from row to row."""
        return self._model.acting_carry

    def outputs(self, observation: Array) -> Array:
        """What the actor network says of recorded observations `[B, …]`. Raises ValueError for one that remembers."""
        if self._forward is None:
            raise ValueError("a recurrent policy says nothing about observations alone: use predict with its state")
        says = self._forward(self._features(observation))
        return self._model.allowed(says, observation) if self._masked else says

    def advance(self, observation: Array, state: Float[Array, "B S"]) -> tuple[Array, Float[Array, "B S"]]:
        """The same from the state before, and the state after."""
        m = self._model.carries[0]
        x, shared = self._trunk(self._features(observation), state[:, :m])
        says, acting = self._actor(x, state[:, m:])
        return self._model.allowed(says, observation), np.concatenate([shared, acting], axis=-1) if m else acting

    def sample(self, outputs: Array, noise: Array) -> Array:
        """Actions for the given noise, as the record keeps them."""
        return self._model.actions.sample(outputs, self.std, noise)

    def log_prob(self, outputs: Array, action: Array) -> Array:
        """log π(a|s) as the one who acted sees it."""
        return self._model.actions.distribution(outputs, self.log_std).log_prob(action)


def _composed(trunk: Any, actor: Any) -> Any:
    if trunk is None:
        return host_forward(actor)
    first, second = host_forward(trunk), host_forward(actor)
    return lambda x: second(first(x))
