"""What models say about given completions: log-probabilities and values at the completion's positions alone.

The same functions score the experience and are differentiated by the update.
"""

import inspect
from typing import Any

import torch
from jaxtyping import Float, Int

from vantage.language.records import Sequences

Tensor = torch.Tensor
CHUNK = 1 << 22
"""Logits brought to float32 at a time, so that a large vocabulary does not need twice the memory."""


def forward(model: Any, sequences: Sequences, **options: Any) -> Any:
    """One pass over prompt and completion, with positions that padding does not move."""
    return model(
        input_ids=sequences.ids, attention_mask=sequences.mask.long(), position_ids=sequences.positions, **options
    )


def response_logits(model: Any, sequences: Sequences, temperature: float) -> Float[Tensor, "B R V"]:
    """The logits, divided by the temperature, from which each completion token was drawn: those one position earlier.

    Only the positions that are needed go through the model's head, where the model can do that.
    """
    width = sequences.ids.shape[1] - sequences.prompt
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
    parts = [_log_prob(flat[i : i + rows], chosen[i : i + rows]) for i in range(0, len(flat), rows)]
    return torch.cat(parts).view_as(tokens)


def _log_prob(logits: Tensor, tokens: Tensor) -> Tensor:
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return logits.gather(-1, tokens[:, None])[:, 0] - logits.logsumexp(-1)


def log_probs(model: Any, sequences: Sequences, temperature: float) -> Float[Tensor, "B R"]:
    """log π(y_t|prompt, y_{<t}) of each completion token, float32, at the sampling temperature; 0 at padding."""
    scored = token_log_prob(response_logits(model, sequences, temperature), sequences.completion)
    return torch.where(sequences.real, scored, torch.zeros_like(scored))


def values(critic: Any, sequences: Sequences) -> Float[Tensor, "B R1"]:
    """V before each completion token, and after the last position: entry t is V(prompt, y_{<t}), float32."""
    says = critic(
        input_ids=sequences.ids, attention_mask=sequences.mask.long(), position_ids=sequences.positions,
        keep=sequences.ids.shape[1] - sequences.prompt + 1,
    )  # fmt: skip
    return says if says.dtype == torch.float64 else says.float()


def _takes(model: Any, name: str) -> bool:
    """Whether a model's forward has this option; adapters pass on what their base model has."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return name in inspect.signature(base.forward).parameters
