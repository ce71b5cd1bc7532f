"""Hyperparameters in the keys of RL Baselines3 Zoo, Stable-Baselines3 and sb3-contrib, as settings of ours.

Every key either maps to a field, or is refused with the reason; none is ignored silently. Source: rl-baselines3-zoo,
hyperparams/{ppo,a2c,trpo,ppo_lstm}.yml, and the `__init__` of PPO, A2C, TRPO and RecurrentPPO.
"""

import ast
import difflib
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from vantage.control import zoo_wrappers
from vantage.control.networks import MLP
from vantage.control.recurrent import LSTM
from vantage.recipe import A2C, GAE, PPO, TRPO, Adam, Joint, Linear, Recipe, RMSProp, RMSPropTF


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """`total_steps` to train for, and fields of `Settings`."""

    total_steps: int
    settings: dict[str, Any]


FIELDS = {
    "n_timesteps": "total_steps",
    "n_envs": "n_envs",
    "n_steps": "n_steps",
    "batch_size": "recipe.n_minibatches = n_envs · n_steps / batch_size",
    "n_epochs": "recipe.n_epochs",
    "gamma": "gamma",
    "gae_lambda": "recipe.psi = GAE(lam)",
    "learning_rate": "optim.lr",
    "clip_range": "recipe.objective = Clip(low)",
    "ent_coef": "recipe.ent_coef",
    "vf_coef": "optim.vf_coef",
    "max_grad_norm": "optim.max_grad_norm",
    "target_kl": "recipe.target_kl",
    "normalize_advantage": "recipe.whiten",
    "normalize": "normalise_observation, normalise_reward",
    "policy_kwargs": "network, std_init",
    "policy": "network",
    "seed": "seed",
    "use_sde": "use_sde",
    "sde_sample_freq": "sde_sample_freq, with use_sde",
    "env_wrapper": "wrappers, or atari",
    "frame_stack": "frame_stack, or atari = Atari(frames)",
    "use_rms_prop": "optim.optimiser = RMSProp()",
    "rms_prop_eps": "optim.eps",
    "cg_max_steps": "recipe.objective = TrustRegion(cg_steps)",
    "cg_damping": "recipe.objective = TrustRegion(damping)",
    "line_search_max_iter": "recipe.objective = TrustRegion(backtracks)",
    "line_search_shrinking_factor": "recipe.objective = TrustRegion(shrink)",
    "n_critic_updates": "recipe.n_epochs",
}
"""What each key sets."""
REFUSED = {
    "clip_range_vf": "its value clipping drops the unclipped error; critic = ClippedValue() takes the maximum of both",
    "sub_sampling_factor": "the natural step is taken over the whole rollout",
    "callback": "see vantage.callbacks",
    "rollout_buffer_class": "there is one kind of rollout",
    "rollout_buffer_kwargs": "there is one kind of rollout",
}
"""Keys without a counterpart, and what to do instead."""
NEUTRAL = {"sub_sampling_factor": 1}
"""Values of them that say nothing."""
_ROLLOUT = dict(
    n_envs=1, gamma=0.99, gae_lambda=0.95, ent_coef=0.0, vf_coef=0.5, max_grad_norm=0.5, normalize_advantage=True,
    n_timesteps=1_000_000,
)  # fmt: skip
_REUSE = dict(n_epochs=10, clip_range=0.2, target_kl=None, learning_rate=3e-4)
_REGION = dict(
    target_kl=0.01, n_critic_updates=10, cg_max_steps=15, cg_damping=0.1, line_search_max_iter=10,
    line_search_shrinking_factor=0.8, learning_rate=1e-3,
)  # fmt: skip
_ONCE = dict(learning_rate=7e-4, n_steps=5, gae_lambda=1.0, normalize_advantage=False, use_rms_prop=True,
             rms_prop_eps=1e-5)  # fmt: skip
STANDARD: dict[str, dict[str, Any]] = {
    "ppo": _ROLLOUT | _REUSE | dict(n_steps=2048, batch_size=64),
    "ppo_lstm": _ROLLOUT | _REUSE | dict(n_steps=128, batch_size=128),
    "a2c": _ROLLOUT | _ONCE,
    "trpo": _ROLLOUT | _REGION | dict(n_steps=2048, batch_size=128),
}
"""By algorithm, the defaults of Stable-Baselines3 and sb3-contrib, for keys that are not given."""
ANYWHERE = FIELDS.keys() - {name for known in STANDARD.values() for name in known}
"""Keys that every algorithm has."""


def from_zoo(options: Mapping[str, Any], *, algorithm: str = "ppo", leave_out: Collection[str] = ()) -> Tuned:
    """The settings that one entry of the zoo's file for an algorithm (ppo, a2c, trpo, ppo_lstm) stands for;
    `leave_out` names keys to do without.

    The coefficients are Stable-Baselines3's: vf_coef weighs a squared error without ½ there as here. Its advantages are
    divided by the sample standard deviation, ours by the population's: a factor √(n/(n − 1)) in a minibatch of n.
    Raises ValueError for an unknown key, with the nearest one and the field it sets, and for what has no counterpart.
    """
    if algorithm not in STANDARD:
        raise ValueError(f"algorithm = {algorithm!r}: the entries of {', '.join(STANDARD)} are understood")
    given = {name: value for name, value in options.items() if name not in leave_out}
    _check_keys(given, algorithm)
    known = STANDARD[algorithm] | {name: _value(name, value) for name, value in given.items()}
    settings: dict[str, Any] = {name: known[name] for name in ("n_envs", "n_steps", "gamma", "seed") if name in known}
    settings |= {"recipe": _recipe(algorithm, known), "optim": _optim(algorithm, known)}
    settings |= _normalise(given.get("normalize", False))
    settings |= zoo_wrappers.shown(given.get("env_wrapper"), int(given.get("frame_stack") or 1))
    if given.get("use_sde"):
        settings |= {"use_sde": True, "sde_sample_freq": int(given.get("sde_sample_freq", -1))}
    kwargs = _kwargs(given)
    settings |= {"optim": _named_optimiser(kwargs, settings["optim"])} if "optimizer_class" in kwargs else {}
    settings |= _policy(algorithm, given.get("policy"), kwargs, known)
    return Tuned(total_steps=known["n_timesteps"], settings=settings)


def _check_keys(given: Mapping[str, Any], algorithm: str) -> None:
    for name in given:
        if name in REFUSED and given[name] not in (None, False, NEUTRAL.get(name)):
            raise ValueError(f"{name} = {given[name]!r} has no counterpart: {REFUSED[name]}; or leave it out")
        if name not in FIELDS and name not in REFUSED:
            near = difflib.get_close_matches(name, FIELDS, n=1)
            hint = f"did you mean {near[0]!r}, which sets {FIELDS[near[0]]}?" if near else f"known are {_known()}"
            raise ValueError(f"unknown key {name!r}: {hint}")
        if name in FIELDS and name not in ANYWHERE | STANDARD[algorithm].keys():
            raise ValueError(f"{name} is no key of {algorithm}: leave it out, or name the algorithm that has it")


def _recipe(algorithm: str, known: dict[str, Any]) -> Recipe:
    """Ψ, objective and reuse."""
    lam, ent_coef = float(known["gae_lambda"]), float(known["ent_coef"])
    whole = {"psi": GAE(lam=lam), "ent_coef": ent_coef}
    if algorithm == "a2c":
        return A2C(whiten="batch" if known["normalize_advantage"] else None, **whole)
    whole["n_minibatches"] = max(1, -(-known["n_envs"] * known["n_steps"] // known["batch_size"]))
    if algorithm == "trpo":
        return TRPO(
            delta=float(known["target_kl"]), cg_steps=int(known["cg_max_steps"]), damping=float(known["cg_damping"]),
            backtracks=int(known["line_search_max_iter"]), shrink=float(known["line_search_shrinking_factor"]),
            n_epochs=int(known["n_critic_updates"]), whiten="batch" if known["normalize_advantage"] else None, **whole,
        )  # fmt: skip
    whiten = "minibatch" if known["normalize_advantage"] else None
    return PPO(
        clip_range=known["clip_range"], n_epochs=known["n_epochs"], target_kl=known["target_kl"], whiten=whiten, **whole
    )


def _optim(algorithm: str, known: dict[str, Any]) -> Joint:
    """Learning rate and bound; A2C has PyTorch's RMSProp unless told otherwise, TRPO's critic no bound."""
    if algorithm == "trpo":
        return Joint(lr=known["learning_rate"], vf_coef=1.0, max_grad_norm=None)
    optim: dict[str, Any] = {"lr": known["learning_rate"], "vf_coef": float(known["vf_coef"])}
    if known.get("use_rms_prop"):
        optim |= {"optimiser": RMSProp(), "eps": float(known["rms_prop_eps"])}
    return Joint(**optim, max_grad_norm=float(known["max_grad_norm"]))


def _named_optimiser(kwargs: dict[str, Any], optim: Joint) -> Joint:
    """The optimiser that `optimizer_class` and `optimizer_kwargs`, taken out of the policy's, describe."""
    name, more = str(kwargs.pop("optimizer_class")).rsplit(".", 1)[-1], dict(kwargs.pop("optimizer_kwargs", {}))
    eps = float(more.pop("eps", 1e-8))
    if name == "Adam":
        b1, b2 = more.pop("betas", (0.9, 0.999))
        chosen: Any = Adam(b1=float(b1), b2=float(b2))
    elif name in ("RMSprop", "RMSpropTFLike"):
        kind = RMSProp if name == "RMSprop" else RMSPropTF
        chosen = kind(decay=float(more.pop("alpha", 0.99)))
    else:
        raise ValueError(f"policy_kwargs: optimizer_class = {name} has no counterpart: Adam, RMSprop, RMSpropTFLike")
    if any(more.values()):
        raise ValueError(f"policy_kwargs: optimizer_kwargs {sorted(more)} have no counterpart: leave them out")
    return Joint(lr=optim.lr, vf_coef=optim.vf_coef, max_grad_norm=optim.max_grad_norm, eps=eps, optimiser=chosen)


def _known() -> str:
    return ", ".join(sorted(FIELDS))


def _value(name: str, value: Any) -> Any:
    """A number, or Linear for lin_x; whole numbers where they are counted, also when written 1e6."""
    if name in ("learning_rate", "clip_range"):
        if isinstance(value, str) and value.startswith("lin_"):
            return Linear(float(value.removeprefix("lin_")))
        return float(value)
    if name in ("n_timesteps", "n_envs", "n_steps", "batch_size", "n_epochs"):
        return int(float(value))
    return float(value) if name == "gamma" else value


def _normalise(value: Any) -> dict[str, bool]:
    """`True`, or the text of a dict with norm_obs and norm_reward."""
    known = _literal("normalize", value) if isinstance(value, str) else value
    chosen = {"norm_obs": known, "norm_reward": known} if isinstance(known, bool) else dict(known)
    strange = sorted(chosen.keys() - {"norm_obs", "norm_reward"})
    if strange:
        raise ValueError(f"normalize: {strange[0]!r} has no counterpart; known are norm_obs and norm_reward")
    return {
        "normalise_observation": bool(chosen.get("norm_obs", True)),
        "normalise_reward": bool(chosen.get("norm_reward", True)),
    }


def _kwargs(given: Mapping[str, Any]) -> dict[str, Any]:
    """`policy_kwargs`, a dict or the text of one."""
    value = given.get("policy_kwargs") or {}
    return _literal("policy_kwargs", value) if isinstance(value, str) else dict(value)


RECURRENT = {"lstm_hidden_size": "hidden", "n_lstm_layers": "layers", "enable_critic_lstm": "critic_remembers"}
"""What `policy_kwargs` of RecurrentPPO set of `LSTM`."""


def _policy(algorithm: str, policy: str | None, options: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """The network, and σ at the start, that `policy` and `policy_kwargs` describe."""
    kinds = {"ppo_lstm": ("MlpLstmPolicy",)}.get(algorithm, ("MlpPolicy", "CnnPolicy", "MultiInputPolicy"))
    if policy not in (None, *kinds):
        raise ValueError(f"policy = {policy!r} has no counterpart in {algorithm}: give {' or '.join(kinds)}")
    start = {"std_init": math.exp(options.pop("log_std_init"))} if "log_std_init" in options else {}
    if policy in ("CnnPolicy", "MultiInputPolicy"):  # which network suits the pictures the observation says
        if options:
            raise ValueError(f"policy_kwargs: {next(iter(options))} with {policy}: give network=NatureCNN(…) instead")
        return start
    remembered = {ours: options.pop(name) for name, ours in RECURRENT.items() if name in options}
    if options.pop("shared_lstm", False):
        remembered = {**remembered, "shared": True, "detached": True, "critic_remembers": True}
    found = _perceptron(options)
    if algorithm == "ppo_lstm":
        rows = min(known["batch_size"], known["n_steps"])
        return {"network": LSTM(after=MLP(**found), sequence_length=rows, **remembered), **start}
    if remembered:
        raise ValueError("policy_kwargs: an LSTM belongs to the entries of ppo_lstm, not of " + algorithm)
    return {**({"network": MLP(**found)} if found else {}), **start}


def _perceptron(options: dict[str, Any]) -> dict[str, Any]:
    """The fields of `MLP` that `policy_kwargs` set."""
    found: dict[str, Any] = {}
    for name, x in options.items():
        if name == "net_arch":
            x = x[0] if isinstance(x, list) and len(x) == 1 and isinstance(x[0], dict) else x  # as before zoo 1.8
            actor, critic = (
                (tuple(x.get(side, ())) for side in ("pi", "vf")) if isinstance(x, dict) else (tuple(x),) * 2
            )
            found |= {"hidden": actor} | ({} if critic == actor else {"critic_hidden": critic})
        elif name == "activation_fn":
            found["activation"] = str(getattr(x, "__name__", x)).rsplit(".", 1)[-1].lower()
        elif name == "ortho_init":
            found["orthogonal"] = bool(x)
        else:
            raise ValueError(f"policy_kwargs: {name} = {x!r} has no counterpart: leave policy_kwargs out")
    return found


def _literal(name: str, text: str) -> Any:
    """The zoo writes Python expressions: `dict(a=1)`, `{'a': 1}`, `nn.ReLU`. They are read, never run."""

    def read(node: ast.expr) -> Any:
        match node:
            case ast.Call(func=ast.Name(id="dict"), args=[], keywords=pairs):
                return {str(pair.arg): read(pair.value) for pair in pairs}
            case ast.Dict(keys=keys, values=values):
                return {read(key): read(x) for key, x in zip(keys, values, strict=True) if key is not None}
            case ast.List(elts=items) | ast.Tuple(elts=items):
                return [read(item) for item in items]
            case ast.Attribute() | ast.Name():
                return ast.unparse(node)
        return ast.literal_eval(node)

    try:
        found = read(ast.parse(text.strip(), mode="eval").body)
    except (ValueError, SyntaxError) as error:
        raise ValueError(f"{name} = {text!r} is not understood: write a dict of plain values") from error
    if not isinstance(found, dict | bool):
        raise ValueError(f"{name} = {text!r} is not understood: write a dict of plain values")
    return found
