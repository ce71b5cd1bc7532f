"""The parameters as one flat vector, and the functions of it: π(·|s) and V(s).

One vector, because the update clips, moves and donates the parameters as a whole: a dozen small arrays cost a dozen
times the overhead.
"""

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from vantage.control.networks import Divisible, Inputs, Network, forward, host_forward
from vantage.control.spaces import Actions, FlatObservations, Observations

Array = Any


class Networks(eqx.Module):
    """What is learned. The order is that of the vector: what actor and critic share, then `actor` and `log_std`, then
    `critic`.
    """

    trunk: Any
    actor: Any
    log_std: Any
    critic: Any


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

    @property
    def has_critic(self) -> bool:
        """Whether part of the vector is a critic."""
        return self.n_trunk + self.n_actor < self.size

    @property
    def size(self) -> int:
        """How many parameters there are."""
        return sum(int(np.prod(shape)) for shape in self.shapes)

    def networks(self, vector: Float[Array, " P"]) -> Networks:
        """The vector as modules; with a NumPy vector the leaves are views of it."""
        leaves, at = [], 0
        for shape in self.shapes:
            n = int(np.prod(shape))
            leaves.append(vector[at : at + n].reshape(shape))
            at += n
        dynamic, static = self.structure
        arrays = jax.tree.unflatten(dynamic, leaves)
        return eqx.combine(arrays, jax.tree.unflatten(*static)) if static[1] else arrays

    def both(self, vector: Float[Array, " P"], observation: Array) -> tuple[Any, Float[Array, "*S"] | None]:
        """π(·|s), a distribution with parameters `[…, A]`, and V(s), None without a critic, of recorded observations
        `[…]`: what the two networks share is computed once.
        """
        networks = self.networks(vector)
        read = self._read(networks, observation)
        outputs = self.allowed(forward(networks.actor, read), observation)
        policy = self.actions.distribution(outputs, networks.log_std)
        return policy, forward(networks.critic, read)[..., 0] if self.has_critic else None

    def _read(self, networks: Networks, observation: Array) -> Array:
        """What actor and critic read of recorded observations."""
        features = self.observations.features(jnp, observation)
        return features if networks.trunk is None else forward(networks.trunk, features)

    def policy(self, vector: Float[Array, " P"], observation: Array) -> Any:
        """π(·|s) alone."""
        networks = self.networks(vector)
        outputs = forward(networks.actor, self._read(networks, observation))
        return self.actions.distribution(self.allowed(outputs, observation), networks.log_std)

    def allowed(self, outputs: Array, observation: Array) -> Array:
        """The outputs with −inf for what the recorded mask, if there is one, rules out."""
        if isinstance(self.observations, FlatObservations) and self.observations.mask:
            return self.actions.rule_out(outputs, self.observations.allowed(observation))
        return outputs

    def value(self, vector: Float[Array, " P"], observation: Array) -> Float[Array, "*S"]:
        """V(s) alone."""
        networks = self.networks(vector)
        return forward(networks.critic, self._read(networks, observation))[..., 0]

    def named(self, vector: Float[Array, " P"]) -> dict[str, Array]:
        """The parameters by name, for files."""
        leaves = jax.tree.leaves(eqx.filter(self.networks(np.array(vector)), eqx.is_array))
        return dict(zip(self.names, leaves, strict=True))

    def vector(self, named: dict[str, Array]) -> Float[Array, " P"]:
        """The inverse of `named`. Raises ValueError where the names or shapes are other ones."""
        for name, shape in zip(self.names, self.shapes, strict=True):
            if name not in named or named[name].shape != shape:
                got = named[name].shape if name in named else "none"
                raise ValueError(
                    f"parameter {name} has shape {shape} in this agent, {got} in the file: use the same network"
                )
        return np.concatenate([np.ravel(named[name]) for name in self.names]).astype(np.float32)


def build(
    observations: Observations,
    actions: Actions,
    network: Network,
    critic: bool,
    rng: np.random.Generator,
    std: float = 1.0,
) -> tuple[Model, Float[Array, " P"]]:
    """A fresh model and its parameters: actor head with gain 0.01, so that π begins near uniform; critic head with
    gain 1; σ = `std`.

    Raises ValueError for a σ that the actions do not have.
    """
    if std != 1.0 and not actions.stds:
        raise ValueError(f"std_init = {std}: only Box actions have a σ; leave it out")
    networks = _networks(observations.inputs, actions, network, critic, rng, std)
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
    )
    return model, np.concatenate([leaf.ravel() for leaf in leaves])


def _networks(
    inputs: Inputs, actions: Actions, network: Network, critic: bool, rng: np.random.Generator, std: float
) -> Networks:
    log_std = np.full(actions.stds, np.log(std), np.float32) if actions.stds else None
    if critic and isinstance(network, Divisible) and network.shared:
        trunk, n = network.build_trunk(rng, inputs)
        actor, value = network.build_head(rng, n, actions.outputs, 0.01), network.build_head(rng, n, 1, 1.0)
        return Networks(trunk=trunk, actor=actor, log_std=log_std, critic=value)
    actor = network.build(rng, inputs, actions.outputs, 0.01)
    value = network.build(rng, inputs, 1, 1.0) if critic else None
    return Networks(trunk=None, actor=actor, log_std=log_std, critic=value)


def _count(paths: list[Any], *parts: str) -> int:
    return sum(np.size(leaf) for path, leaf in paths if path[0].name in parts)


class Actor:
    """The policy as the host runs it: NumPy parameters, fixed from one update to the next."""

    def __init__(self, model: Model, vector: Float[Array, " P"]) -> None:
        networks = model.networks(vector)
        self._model, self._forward = model, host_forward(networks.actor)
        self._trunk = None if networks.trunk is None else host_forward(networks.trunk)
        self._masked = model.observations.mask is not None
        self.log_std = networks.log_std
        self.std = None if networks.log_std is None else np.exp(networks.log_std)

    def outputs(self, observation: Array) -> Array:
        """What the actor network says of recorded observations `[B, …]`."""
        features = self._model.observations.features(np, observation)
        says = self._forward(features if self._trunk is None else self._trunk(features))
        return self._model.allowed(says, observation) if self._masked else says

    def sample(self, outputs: Array, noise: Array) -> Array:
        """Actions for the given noise, as the record keeps them."""
        return self._model.actions.sample(outputs, self.std, noise)

    def log_prob(self, outputs: Array, action: Array) -> Array:
        """log π(a|s) as the one who acted sees it."""
        return self._model.actions.distribution(outputs, self.log_std).log_prob(action)
