"""Hyperparameters in the keys of RL Baselines3 Zoo and Stable-Baselines3's PPO, as settings of ours.

Every key either maps to a field, or is refused with the reason; none is ignored silently. Source: rl-baselines3-zoo,
hyperparams/ppo.yml, and Stable-Baselines3's `PPO.__init__`.
"""

import ast
import difflib
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from vantage.control.networks import MLP
from vantage.recipe import PPO, Joint, Linear


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
}
"""What each key sets."""
REFUSED = {
    "clip_range_vf": "its value clipping drops the unclipped error; critic = ClippedValue() takes the maximum of both",
    "env_wrapper": "wrap the environment in a callable, Agent(lambda: Wrapper(gymnasium.make(…)))",
    "frame_stack": "wrap the environment in gymnasium.wrappers.FrameStackObservation",
    "callback": "see vantage.callbacks",
    "rollout_buffer_class": "there is one kind of rollout",
    "rollout_buffer_kwargs": "there is one kind of rollout",
}
"""Keys without a counterpart, and what to do instead."""
STANDARD: dict[str, Any] = dict(
    n_envs=1, n_steps=2048, batch_size=64, n_epochs=10, gamma=0.99, gae_lambda=0.95, learning_rate=3e-4, clip_range=0.2,
    ent_coef=0.0, vf_coef=0.5, max_grad_norm=0.5, target_kl=None, normalize_advantage=True, n_timesteps=1_000_000,
)  # fmt: skip
"""Stable-Baselines3's defaults, for keys that are not given."""


def from_zoo(options: Mapping[str, Any], *, leave_out: Collection[str] = ()) -> Tuned:
    """The settings that one entry of the zoo's ppo.yml stands for; `leave_out` names keys to do without.

    The coefficients are Stable-Baselines3's: vf_coef weighs a squared error without ½ there as here. Its advantages are
    divided by the sample standard deviation, ours by the population's: a factor √(n/(n − 1)) in a minibatch of n.
    Raises ValueError for an unknown key, with the nearest one and the field it sets, and for what has no counterpart.
    """
    given = {name: value for name, value in options.items() if name not in leave_out}
    for name in given:
        if name in REFUSED and given[name] not in (None, False):
            raise ValueError(f"{name} = {given[name]!r} has no counterpart: {REFUSED[name]}; or leave it out")
        if name not in FIELDS and name not in REFUSED:
            near = difflib.get_close_matches(name, FIELDS, n=1)
            hint = f"did you mean {near[0]!r}, which sets {FIELDS[near[0]]}?" if near else f"known are {_known()}"
            raise ValueError(f"unknown key {name!r}: {hint}")
    known = {**STANDARD, **{name: _value(name, value) for name, value in given.items()}}
    rows = known["n_envs"] * known["n_steps"]
    recipe = PPO(
        clip_range=known["clip_range"],
        gae_lambda=float(known["gae_lambda"]),
        n_epochs=known["n_epochs"],
        n_minibatches=max(1, -(-rows // known["batch_size"])),
        ent_coef=float(known["ent_coef"]),
        target_kl=known["target_kl"],
        whiten="minibatch" if known["normalize_advantage"] else None,
    )
    optim = Joint(
        lr=known["learning_rate"], vf_coef=float(known["vf_coef"]), max_grad_norm=float(known["max_grad_norm"])
    )
    settings: dict[str, Any] = {name: known[name] for name in ("n_envs", "n_steps", "gamma", "seed") if name in known}
    settings |= {"recipe": recipe, "optim": optim, **_normalise(given.get("normalize", False))}
    if given.get("use_sde"):
        settings |= {"use_sde": True, "sde_sample_freq": int(given.get("sde_sample_freq", -1))}
    if "policy_kwargs" in given or given.get("policy", "MlpPolicy") != "MlpPolicy":
        settings |= _policy(given.get("policy", "MlpPolicy"), given.get("policy_kwargs", {}))
    return Tuned(total_steps=known["n_timesteps"], settings=settings)


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


def _policy(policy: str, value: Any) -> dict[str, Any]:
    """The perceptron, and σ at the start, that `policy_kwargs`, a dict or the text of one, describes."""
    if policy != "MlpPolicy":
        raise ValueError(f"policy = {policy!r} has no counterpart: only 'MlpPolicy' is mapped")
    options = _literal("policy_kwargs", value) if isinstance(value, str) else dict(value)
    found: dict[str, Any] = {}
    start = {"std_init": math.exp(options.pop("log_std_init"))} if "log_std_init" in options else {}
    for name, x in options.items():
        if name == "net_arch":
            x = x[0] if isinstance(x, list) and len(x) == 1 and isinstance(x[0], dict) else x  # as before zoo 1.8
            sides = (x.get("pi", []), x.get("vf", [])) if isinstance(x, dict) else (x, x)
            if list(sides[0]) != list(sides[1]):
                raise ValueError(f"policy_kwargs: net_arch {x}: actor and critic have one shape here; give equal ones")
            found["hidden"] = tuple(sides[0])
        elif name == "activation_fn":
            found["activation"] = str(getattr(x, "__name__", x)).rsplit(".", 1)[-1].lower()
        elif name == "ortho_init":
            found["orthogonal"] = bool(x)
        else:
            raise ValueError(f"policy_kwargs: {name} = {x!r} has no counterpart: leave policy_kwargs out")
    return {"network": MLP(**found), **start}


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
            case ast.Attribute():
                return ast.unparse(node)
        return ast.literal_eval(node)

    try:
        return read(ast.parse(text.strip(), mode="eval").body)
    except (ValueError, SyntaxError) as error:
        raise ValueError(f"{name} = {text!r} is not understood: write a dict of plain values") from error
