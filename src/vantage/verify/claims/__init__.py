"""The claims themselves, in the order of the theory; importing this package registers all of them."""

from vantage.verify.claims import (  # noqa: I001 - the order of the theory
    returns,
    gradient,
    weighing,
    baselines,
    values,
    action_values,
    actor_critic,
    importance,
    advantage,
    trust_region,
    clip,
    kl,
    critic,
)

__all__ = [
    "action_values",
    "actor_critic",
    "advantage",
    "baselines",
    "clip",
    "critic",
    "gradient",
    "importance",
    "kl",
    "returns",
    "trust_region",
    "values",
    "weighing",
]
