"""What models say about given completions: log-probabilities and values at the completion's positions alone.

The same functions score the experience and are differentiated by the update.
"""

import inspect
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from jaxtyping import Float, Int

from vantage.language import blocks
from vantage.language.records import Sequences
from vantage.language.roles import CRITIC, AdapterCritic, adapter

Tensor = torch.Tensor
CHUNK = 1 << 22
"""Logits brought to float32 at a time, so that a large vocabulary does not need twice the memory."""


def forward(model: Any, sequences: Sequences, **options: Any) -> Any:
    """One pass over prompt and completion, with positions that padding does not move."""
    return model(
        input_ids=sequences.ids, attention_mask=sequences.mask.long(), position_ids=sequences.positions, **options
    )


def packed(model: Any, sequences: Sequences, packing: bool, *, last: bool = False) -> tuple[Any, blocks.Packed] | None:
    """Our own way through the model and the sequences without padding; None where only the model's own forward goes."""
    if not packing or sequences.prompt < 1 or not bool(sequences.mask[:, sequences.prompt - 1].all()):
        return None
    body = blocks.body(model)
    return None if body is None else (body, blocks.Packed.of(sequences, last=last))


def response_logits(
    model: Any, sequences: Sequences, temperature: float, packing: bool = False
) -> Float[Tensor, "B R V"]:
    """The logits, divided by the temperature, from which each completion token was drawn: those one position earlier.

    Only the positions that are needed go through the model's head, where the model can do that.
    """
    width = sequences.ids.shape[1] - sequences.prompt
    if (found := packed(model, sequences, packing)) is not None:
        logits = _packed_logits(model, *found, temperature)
        return found[1].spread(logits, width)
    options: dict[str, Any] = {"use_cache": False} if _takes(model, "use_cache") else {}
    if _takes(model, "logits_to_keep"):
        options["logits_to_keep"] = width + 1
    logits = forward(model, sequences, **options).logits[:, -width - 1 : -1]
    return logits if temperature == 1.0 else logits / temperature


def token_log_prob(logits: Float[Tensor, "B R V"], tokens: Int[Tensor, "B R"]) -> Float[Tensor, "B R"]:
    """log π(y_t|…) = z_{y_t} − log Σ_v exp z_v, in float32 at least, by one log-sum-exp.

    Shapes `[B, R, V]`, `[B, R]` → `[B, R]`. Units: nats.
    """
    flat, chosen = logits.flatten(0, 1), tokens.flatten()
    rows = max(1, CHUNK // logits.shape[-1])
    parts = [blocks.log_prob(flat[i : i + rows], chosen[i : i + rows])[0] for i in range(0, len(flat), rows)]
    return torch.cat(parts).view_as(tokens)


def _packed_logits(model: Any, body: Any, row: blocks.Packed, temperature: float) -> Float[Tensor, "K V"]:
    logits = model.get_output_embeddings()(row.hidden(body))
    return logits if temperature == 1.0 else logits / temperature


def log_probs(model: Any, sequences: Sequences, temperature: float, packing: bool = False) -> Float[Tensor, "B R"]:
    """log π(y_t|prompt, y_{<t}) of each completion token, float32, at the sampling temperature; 0 at padding."""
    if (found := packed(model, sequences, packing)) is not None:
        logits, tokens = _packed_logits(model, *found, temperature), sequences.completion[sequences.real]
        return found[1].spread(blocks.LogProb.apply(logits, tokens), sequences.real.shape[1])
    scored = token_log_prob(response_logits(model, sequences, temperature), sequences.completion)
    return torch.where(sequences.real, scored, torch.zeros_like(scored))


def values(critic: Any, sequences: Sequences, packing: bool = False) -> Float[Tensor, "B R1"]:
    """V before each completion token, and after the last position: entry t is V(prompt, y_{<t}), float32."""
    width = sequences.ids.shape[1] - sequences.prompt + 1
    shared = critic._shared[0] if isinstance(critic, AdapterCritic) else None
    network = getattr(critic, "backbone", None) if shared is None else shared
    if network is not None and (found := packed(network, sequences, packing, last=True)) is not None:
        on: AbstractContextManager[Any] = nullcontext() if shared is None else adapter(shared, CRITIC)
        with on:
            hidden = found[1].hidden(found[0])
        says = found[1].spread(critic.head(hidden.to(next(critic.head.parameters()).dtype)), width)[..., 0]
    else:
        says = critic(
            input_ids=sequences.ids, attention_mask=sequences.mask.long(), position_ids=sequences.positions, keep=width
        )
    return says if says.dtype == torch.float64 else says.float()


def _takes(model: Any, name: str) -> bool:
    """Whether a model's forward has this option; adapters pass on what their base model has."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return name in inspect.signature(base.forward).parameters
