"""The four roles: the actor, the critic, the reference, and the adapters that let one backbone play three of them.

The reward is in `rewards`.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import nn

from vantage.recipe.schedule import check, check_whole
from vantage.runs.config import known

Tensor = torch.Tensor
ACTOR, CRITIC = "actor", "critic"
"""Names of the adapters."""


@known
@dataclass(frozen=True, kw_only=True)
class LoRA:
    """Low-rank adapters in the place of full training; their dropout is 0, as everywhere in scoring and update."""

    rank: int = 8
    """r, the rank of each adapter."""
    alpha: float = 16.0
    """α: adapters are scaled by α/r."""
    targets: str | tuple[str, ...] = "all-linear"
    """Which modules get one, by name."""

    def __post_init__(self) -> None:
        check_whole(self, "rank")
        check(self.rank >= 1, self, "rank", "at least 1; 8 to 64 are usual")
        check(self.alpha > 0, self, "alpha", "a positive scale, such as 16")

    def config(self, task: str | None) -> Any:
        """PEFT's configuration. Raises ModuleNotFoundError, saying what to install, without the package."""
        from peft import LoraConfig

        targets = self.targets if isinstance(self.targets, str) else list(self.targets)
        scale: Any = self.alpha
        return LoraConfig(
            r=self.rank, lora_alpha=scale, target_modules=targets, lora_dropout=0.0, task_type=task
        )  # fmt: skip


@known
@dataclass(frozen=True, kw_only=True)
class FromActor:
    """A critic with a backbone of its own, a copy of the actor's, and a head that begins at 0."""


@known
@dataclass(frozen=True, kw_only=True)
class FromReward:
    """A critic that begins as the reward model, head included."""


@known
@dataclass(frozen=True, kw_only=True)
class OnActor:
    """A critic on the actor's backbone, with an adapter and a head of its own; needs `lora`."""


CriticFrom = FromActor | FromReward | OnActor


class Critic(nn.Module):
    """V(prompt, y_{<t}): a causal backbone without its language head, and one number a position.

    Called with `keep`, it gives the last so many positions, `[B, keep]`, float32.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, keep: int) -> Tensor:
        """The values at the last `keep` positions."""
        hidden = self.hidden(input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids)
        weight = next(self.head.parameters()).dtype
        return self.head(hidden[:, -keep:].to(weight))[..., 0]

    def hidden(self, **inputs: Any) -> Float[Tensor, "B L D"]:
        """The backbone's last hidden state."""
        return self.backbone(**inputs, use_cache=False).last_hidden_state


class AdapterCritic(Critic):
    """The critic on the actor's backbone: the shared model with the critic's adapter on."""

    def __init__(self, shared: Any, head: nn.Module) -> None:
        nn.Module.__init__(self)
        self.head = head
        self._shared = [shared]
        """In a list, so that the actor's parameters are not the critic's."""

    def hidden(self, **inputs: Any) -> Float[Tensor, "B L D"]:
        """The shared backbone's last hidden state under the critic's adapter."""
        with adapter(self._shared[0], CRITIC):
            return self._shared[0].get_base_model().base_model(**inputs, use_cache=False).last_hidden_state

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """The head's, and those of the critic's adapter."""
        yield from self.head.parameters(recurse)
        for name, parameter in self._shared[0].named_parameters():
            if f".{CRITIC}." in name:
                yield parameter


@contextmanager
def adapter(shared: Any, name: str) -> Iterator[None]:
    """The shared model with one adapter on; all adapters can be trained before, within and after."""
    before = shared.active_adapter
    _switch(shared, name)
    try:
        yield
    finally:
        _switch(shared, before)


def _switch(shared: Any, name: str) -> None:
    shared.set_adapter(name)
    for key, parameter in shared.named_parameters():
        if f".{ACTOR}." in key or f".{CRITIC}." in key:
            parameter.requires_grad_(True)


@dataclass(frozen=True, kw_only=True)
class Roles:
    """The models of a run, on one device."""

    actor: Any
    """Called as a causal language model: `.logits`."""
    critic: Any = None
    """Called with `keep`: values at the last positions; None without one."""
    frozen: Any = None
    """The reference as a model of its own; None: the actor with its adapter off, or no reference."""
    has_reference: bool = False

    @contextmanager
    def reference(self) -> Iterator[Any]:
        """The reference model, without gradients."""
        with torch.no_grad():
            if self.frozen is not None:
                yield self.frozen
            else:
                with self.actor.disable_adapter():
                    yield self.actor

    @contextmanager
    def valuing(self) -> Iterator[None]:
        """While the critic is run and differentiated: its adapter stays on, for activations that are recomputed."""
        if isinstance(self.critic, AdapterCritic):
            with adapter(self.actor, CRITIC):
                yield
        else:
            yield

    @property
    def actor_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """What the actor's optimiser moves, by name."""
        return [(n, p) for n, p in self.actor.named_parameters() if p.requires_grad and f".{CRITIC}." not in n]

    @property
    def critic_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """What the critic's optimiser moves, by name."""
        if self.critic is None:
            return []
        if not isinstance(self.critic, AdapterCritic):
            return [(n, p) for n, p in self.critic.named_parameters() if p.requires_grad]
        own = [(n, p) for n, p in self.actor.named_parameters() if f".{CRITIC}." in n]
        return [*own, *((f"head.{n}", p) for n, p in self.critic.head.named_parameters())]


def build(
    actor: Any,
    *,
    critic: Any = None,
    reference: Any = None,
    reward_model: Any = None,
    lora: LoRA | None = None,
    needs_critic: bool = True,
    needs_reference: bool = True,
    device: Any = "cpu",
) -> Roles:
    """Models for all roles from paths or modules.

    `critic` and `reference` are paths or modules; None: a copy of the actor, or with `lora` its adapters. Raises
    ValueError where a choice cannot be made, ModuleNotFoundError for adapters without PEFT.
    """
    base = causal_model(actor).to(device)
    frozen = _reference(base, reference, lora, device) if needs_reference else None
    own = None
    if needs_critic and not isinstance(_critic_choice(critic, lora), OnActor):
        own = _critic(base, _critic_choice(critic, lora), reward_model).to(device)
    shared = base if lora is None else _with_adapters(base, lora)
    if needs_critic and own is None:
        own = _on_actor(shared, lora, device)
    if own is not None and lora is not None and not isinstance(own, AdapterCritic):
        own.backbone = _adapted(own.backbone, lora)
    return Roles(actor=shared, critic=own, frozen=frozen, has_reference=needs_reference)


def causal_model(source: Any) -> Any:
    """A causal language model from a path, in float32, or the module as it is."""
    if isinstance(source, nn.Module):
        return source
    if not isinstance(source, str | Path):
        raise TypeError(f"actor = {source!r}: give a path, a model's name, or a module")
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)


def _reference(base: Any, reference: Any, lora: LoRA | None, device: Any) -> Any:
    if reference is None and lora is not None:
        return None
    model = _copy(base) if reference is None else causal_model(reference).to(device)
    if model is base:
        raise ValueError("reference is the actor itself: leave it out for a frozen copy")
    return model.eval().requires_grad_(False)


def _copy(model: nn.Module) -> Any:
    """A model of its own. Trainers leave a `forward` on their models that is bound to them: a copy of it would answer
    with the original's parameters.
    """
    copied = copy.deepcopy(model)
    for module in copied.modules():
        vars(module).pop("forward", None)
    return copied


def _critic_choice(critic: Any, lora: LoRA | None) -> Any:
    if critic is None:
        return FromActor() if lora is None else OnActor()
    return critic


def _critic(base: Any, choice: Any, reward_model: Any) -> nn.Module:
    """A critic with a backbone of its own."""
    if isinstance(choice, FromActor):
        return Critic(_copy(_backbone(base)), zero_head(base))
    if isinstance(choice, FromReward):
        if reward_model is None:
            raise ValueError("critic = FromReward(): the reward is no model; give a path, or FromActor()")
        return _from_scorer(_copy(reward_model))
    if isinstance(choice, nn.Module):
        return _from_scorer(choice) if hasattr(choice, "score") else choice
    if isinstance(choice, str | Path):
        return _load_critic(choice)
    raise TypeError(f"critic = {choice!r}: give a path, a module, FromActor(), FromReward() or OnActor()")


def _load_critic(path: str | Path) -> nn.Module:
    from transformers import AutoConfig, AutoModelForSequenceClassification

    names = getattr(AutoConfig.from_pretrained(path), "architectures", None) or [""]
    if "SequenceClassification" in names[0]:
        return _from_scorer(AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.float32))
    model = causal_model(path)
    return Critic(_backbone(model), zero_head(model))


def _from_scorer(model: Any) -> Critic:
    """A critic out of a sequence-classification model with one label, whose head it keeps."""
    head = getattr(model, "score", None)
    if head is None or getattr(head, "out_features", 1) != 1:
        raise ValueError(f"{type(model).__name__} has no `score` head with one label: it cannot be a critic")
    return Critic(_backbone(model), head).float().requires_grad_(True)


def _backbone(model: Any) -> nn.Module:
    """The model without its head."""
    found = getattr(model, "base_model", model)
    if found is model:
        raise ValueError(f"{type(model).__name__} has no backbone (`base_model`) to build a critic on: give critic=")
    return found


def zero_head(model: Any) -> nn.Linear:
    """One number a position, 0 at the beginning."""
    head = nn.Linear(model.config.get_text_config().hidden_size, 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def _with_adapters(base: Any, lora: LoRA) -> Any:
    from peft import get_peft_model

    return get_peft_model(base, lora.config("CAUSAL_LM"), adapter_name=ACTOR)


def _adapted(backbone: Any, lora: LoRA) -> Any:
    from peft import get_peft_model

    return get_peft_model(backbone, lora.config(None), adapter_name=CRITIC)


def _on_actor(shared: Any, lora: LoRA | None, device: Any) -> AdapterCritic:
    if lora is None:
        raise ValueError("critic = OnActor(): one backbone for two roles needs adapters; set lora=LoRA()")
    shared.add_adapter(CRITIC, lora.config("CAUSAL_LM"))
    _switch(shared, ACTOR)
    return AdapterCritic(shared, zero_head(shared.get_base_model()).to(device))


def scoring_mode(*models: Any) -> None:
    """No dropout, in scoring and update alike."""
    for model in models:
        if isinstance(model, nn.Module):
            model.eval()


def checkpoint_layers(model: Any) -> None:
    """Recompute each layer's activations in the backward pass, without switching dropout on: of each layer only its own
    flag is set, and a dropout rate of its own to 0.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    backbone = getattr(model, "backbone", model)
    inner = backbone.get_base_model() if hasattr(backbone, "get_base_model") else backbone
    if not hasattr(inner, "activation_checkpointing_enable"):
        return
    if not inner.is_activation_checkpointing:
        inner.activation_checkpointing_enable({"use_reentrant": False})
    for layer in inner.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            layer.training = True
            for name in ("dropout", "activation_dropout", "hidden_dropout"):
                if isinstance(getattr(layer, name, None), float):
                    setattr(layer, name, 0.0)
