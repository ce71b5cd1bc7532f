"""A sequence-classification model as a reward: its score at the last real token."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import nn

from vantage.language import data
from vantage.language.rewards import Batch

Tensor = torch.Tensor


class Classifier:
    """A model with one label, such as TRL's RewardTrainer makes, that scores prompt and completion together.

    Where it shares the actor's tokenizer it reads the very tokens that were sampled; else the text, tokenised anew.
    Conversations go through its own chat template. Raises ValueError for a model that gives more than one number.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        *,
        actor_tokenizer: Any = None,
        batch_size: int = 32,
        name: str | None = None,
    ) -> None:
        if tokenizer is None:
            raise ValueError("a reward model needs a tokenizer: give its path, or Classifier(model, tokenizer)")
        config: Any = model.config
        if getattr(config, "num_labels", 1) != 1:
            raise ValueError(
                f"the reward model has num_labels = {config.num_labels}: load one that gives a single number"
            )
        self.model, self.tokenizer, self.batch_size = model.eval(), tokenizer, batch_size
        self.name = name or (getattr(config, "_name_or_path", "") or type(model).__name__).rstrip("/").split("/")[-1]
        self._actor = actor_tokenizer
        self._same = actor_tokenizer is None or _same(tokenizer, actor_tokenizer)

    @classmethod
    def load(cls, path: str | Path, *, actor_tokenizer: Any = None, batch_size: int = 32) -> "Classifier":
        """The model in a folder, or of that name, with the tokenizer beside it."""
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        model = AutoModelForSequenceClassification.from_pretrained(str(path), num_labels=1)
        return cls(
            model, AutoTokenizer.from_pretrained(str(path)), actor_tokenizer=actor_tokenizer, batch_size=batch_size
        )

    def check(self, columns: Sequence[str]) -> None:
        """A model needs no columns."""

    def score(self, batch: Batch) -> list[float]:
        """One number a row."""
        rows = [self.tokens(batch, row) for row in range(len(batch))]
        limit = getattr(self.model.config, "max_position_embeddings", None)
        for row, ids in enumerate(rows):
            if limit is not None and len(ids) > limit:
                raise ValueError(f"row {row} has {len(ids)} tokens and the reward model reads {limit}: shorten prompts")
        found: list[float] = []
        for start in range(0, len(rows), self.batch_size):
            ids, mask = right_padded(rows[start : start + self.batch_size], data.pad_id(self.tokenizer))
            device = next(self.model.parameters()).device
            found += last_token_scores(self.model, ids.to(device), mask.to(device)).tolist()
        return found

    def tokens(self, batch: Batch, row: int) -> list[int]:
        """What the model reads for one row."""
        prompt, completion = batch.prompts[row], batch.completions[row]
        if not isinstance(prompt, str):
            return list(
                self.tokenizer.apply_chat_template([*prompt, *completion], tokenize=True, return_dict=True)["input_ids"]
            )
        sampled = batch.completion_ids[row] if batch.completion_ids else []
        if self._same and sampled:
            return data.prompt_ids(prompt, self.tokenizer) + sampled
        ids = data.prompt_ids(prompt + completion, self.tokenizer)
        eos = self.tokenizer.eos_token_id
        ended = self._actor is not None and sampled[-1:] == [self._actor.eos_token_id]
        return [*ids, eos] if ended and eos is not None else ids


def last_token_scores(model: nn.Module, ids: Int[Tensor, "B L"], mask: Bool[Tensor, "B L"]) -> Float[Tensor, " B"]:
    """The model's number for each row of right-padded tokens, `[B]`, float32.

    A causal model is read at the last token of the mask: by itself it would take the last id that is not the padding
    id, which loses an end-of-sequence token that serves as padding.
    """
    inner: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # pyright: ignore[reportCallIssue]
    model.eval()
    with torch.no_grad():
        head, backbone = getattr(inner, "score", None), getattr(inner, "base_model", inner)
        if head is None or backbone is inner:
            return model(input_ids=ids, attention_mask=mask.long()).logits[:, 0].float()
        hidden = backbone(input_ids=ids, attention_mask=mask.long(), use_cache=False)[0]
        last = mask.sum(1) - 1
        return head(hidden[torch.arange(len(ids), device=ids.device), last])[:, 0].float()


def right_padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[Int[Tensor, "B L"], Bool[Tensor, "B L"]]:
    """(ids, mask) of token lists of mixed length, aligned at their starts."""
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows], dtype=torch.int64)
    return ids, torch.arange(width)[None] < torch.tensor([len(row) for row in rows])[:, None]


def _same(one: Any, other: Any) -> bool:
    return one is other or (type(one) is type(other) and one.get_vocab() == other.get_vocab())
