"""Completions: a decode loop of our own, whose randomness is the numbers it is given."""

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import nn

from vantage.language import blocks
from vantage.language.records import Completions, Sampling
from vantage.recipe.schedule import check
from vantage.theory.distributions import Categorical

Tensor = torch.Tensor


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What may be sampled at all, where that is not everything; for use, not for training, whose π is never cut."""

    top_k: int | None = None
    """Only the k most likely tokens; None: all."""
    top_p: float = 1.0
    """Only the fewest tokens that together have this probability."""
    min_new_tokens: int = 0
    """No stop token before so many tokens."""

    def __post_init__(self) -> None:
        check(self.top_k is None or self.top_k >= 1, self, "top_k", "at least one token, or None for all")
        check(0.0 < self.top_p <= 1.0, self, "top_p", "a probability above 0; 1 cuts nothing")
        check(self.min_new_tokens >= 0, self, "min_new_tokens", "a number of tokens, at least 0")

    def __call__(self, logits: Float[Tensor, "B V"], t: int, stop: tuple[int, ...]) -> Float[Tensor, "B V"]:
        """Logits of completion token t with −inf where nothing may be sampled."""
        if t < self.min_new_tokens and stop:
            logits = logits.index_fill(-1, torch.tensor(stop, device=logits.device), -torch.inf)
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            least = logits.topk(self.top_k).values[:, -1:]
            logits = logits.masked_fill(logits < least, -torch.inf)
        if self.top_p < 1.0:
            ordered, order = logits.softmax(-1).sort(descending=True, stable=True)
            beyond = ordered.cumsum(-1) - ordered >= self.top_p  # the token that crosses the bound stays
            logits = logits.masked_fill(torch.zeros_like(beyond).scatter(-1, order, beyond), -torch.inf)
        return logits


def generate(
    model: nn.Module,
    ids: Int[Tensor, "P L"],
    mask: Bool[Tensor, "P L"],
    sampling: Sampling,
    *,
    stop: tuple[int, ...],
    pad: int,
    noise: Float[Tensor, "R B"] | None = None,
    copies: int = 1,
    limits: Limits = Limits(),
) -> Completions:
    """What the model writes after each left-padded prompt, `copies` times, the copies of a prompt side by side.

    Token t of column b is the inverse distribution function of π(·|…) at the uniform number noise[t, b], and nothing
    else is random; without noise it is the most likely token. A row ends with a token of `stop`. `log_prob` is that of
    the distribution that was sampled from, float32, at the temperature. A prompt is read once for all its copies, and
    rows that have ended leave the batch. Shapes: ids, mask `[P, L]`, completions `[B, R]` with B = P · copies.
    """
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            return _loop(
                _decoder(model, ids, mask, sampling.max_new_tokens, copies), sampling, stop, pad, noise, limits
            )
    finally:
        model.train(training)


def _loop(
    decoder: "Decoder", sampling: Sampling, stop: tuple[int, ...], pad: int, noise: Tensor | None, limits: Limits
) -> Completions:
    logits = decoder.begin()
    device, n, width = logits.device, len(logits), sampling.max_new_tokens
    noise = None if noise is None else noise.to(device)
    stops = torch.tensor(stop, dtype=torch.int64, device=device)
    ids = torch.full((n, width), pad, dtype=torch.int64, device=device)
    mask = torch.zeros((n, width), dtype=torch.bool, device=device)
    log_prob = torch.zeros((n, width), dtype=torch.float32, device=device)
    ended = torch.zeros(n, dtype=torch.bool, device=device)
    rows = torch.arange(n, device=device)  # the columns that the decoder still holds
    for t in range(width):
        policy = Categorical(limits(logits.float() / sampling.temperature, t, stop))
        token = policy.mode() if noise is None else policy.sample(noise[t, rows])
        alive = ~ended[rows]
        ids[rows, t] = torch.where(alive, token, ids[rows, t])
        mask[rows, t] = alive
        log_prob[rows, t] = torch.where(alive, policy.log_prob(token), log_prob[rows, t])
        ended[rows] |= torch.isin(token, stops)
        alive = ~ended[rows]
        left = int(alive.sum())
        if left == 0 or t + 1 == width:
            width = t + 1
            break
        if 2 * left <= len(rows):
            decoder.keep(alive)
            rows, token = rows[alive], token[alive]
        logits = decoder.step(token)
    return Completions(ids=ids[:, :width], mask=mask[:, :width], ended=ended, log_prob=log_prob[:, :width])


class Decoder:
    """Reads the prompts, then one token a row at a time, by reading everything again: for models without a cache."""

    def __init__(self, model: nn.Module, ids: Tensor, mask: Tensor, copies: int) -> None:
        self.model, self.copies = model, copies
        self.ids, self.mask = ids, mask

    def begin(self) -> Float[Tensor, "B V"]:
        """Logits of the first token of each completion."""
        self.ids, self.mask = (x.repeat_interleave(self.copies, 0) for x in (self.ids, self.mask))
        return self._logits()

    def step(self, token: Int[Tensor, " B"]) -> Float[Tensor, "B V"]:
        """Logits after one more token a row."""
        self.ids = torch.cat([self.ids, token[:, None]], 1)
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], 1)
        return self._logits()

    def keep(self, alive: Bool[Tensor, " B"]) -> None:
        """Go on with these rows only."""
        self.ids, self.mask = self.ids[alive], self.mask[alive]

    def _logits(self) -> Tensor:
        found = self.model(
            input_ids=self.ids, attention_mask=self.mask.long(), position_ids=_positions(self.mask), use_cache=False
        )
        return found.logits[:, -1]


class CachedDecoder(Decoder):
    """The same for Transformers models: keys and values are kept, so each step reads one token."""

    def __init__(self, model: nn.Module, ids: Tensor, mask: Tensor, copies: int, room: int) -> None:
        super().__init__(model, ids, mask, copies)
        self.own = _every_layer_sees_all(model)
        self.cache = _cache(model, ids.shape[1] + room if self.own else None)
        self.last = _positions(mask)[:, -1:]

    def begin(self) -> Float[Tensor, "B V"]:
        """Logits of the first token of each completion."""
        read = self.mask.long()
        if self.own:
            # A padding position sees itself, since attention to nothing at all is NaN.
            causal = torch.ones(2 * read.shape[1:], dtype=torch.bool, device=read.device).tril()
            itself = torch.eye(len(causal), dtype=torch.bool, device=read.device)
            read = (causal & self.mask[:, None, None, :]) | itself
        found = self.model(
            input_ids=self.ids, attention_mask=read, position_ids=_positions(self.mask), past_key_values=self.cache,
            use_cache=True, logits_to_keep=1,
        )  # fmt: skip
        if self.copies > 1:
            self.cache.batch_repeat_interleave(self.copies)
            self.mask, self.last = (x.repeat_interleave(self.copies, 0) for x in (self.mask, self.last))
        return found.logits[:, -1].repeat_interleave(self.copies, 0)

    def step(self, token: Int[Tensor, " B"]) -> Float[Tensor, "B V"]:
        """Logits after one more token a row."""
        self.last = self.last + 1
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], 1)
        found = self.model(
            input_ids=token[:, None], attention_mask=self.mask[:, None, None, :] if self.own else self.mask.long(),
            position_ids=self.last, past_key_values=self.cache, use_cache=True,
        )  # fmt: skip
        return found.logits[:, -1]

    def keep(self, alive: Bool[Tensor, " B"]) -> None:
        """Go on with these rows only."""
        self.cache.batch_select_indices(alive.nonzero()[:, 0])
        self.mask, self.last = self.mask[alive], self.last[alive]


class PackedDecoder(Decoder):
    """The same for models through which we know a way of our own: nothing but tensors is touched in a step."""

    def __init__(self, model: Any, body: blocks.Body, ids: Tensor, mask: Tensor, copies: int, room: int) -> None:
        super().__init__(model, ids, mask, copies)
        self.body, self.head = body, model.get_output_embeddings()
        self.cache: list[tuple[Tensor, Tensor]] = []
        self.used, self.length = ids.shape[1], ids.shape[1] + room
        self.mask = torch.nn.functional.pad(mask, (0, room), value=True)
        self.last = mask.sum(1) - 1

    def begin(self) -> Float[Tensor, "B V"]:
        """Logits of the first token of each completion."""
        before = self.mask[:, : self.used]
        row = blocks.Packed.of_prompts(self.ids, before)
        place = before.flatten().nonzero()[:, 0]
        slots = place // self.used * self.length + place % self.used
        hidden = row.hidden(self.body, lambda *found: self._remember(slots, *found))
        self.mask, self.last = (x.repeat_interleave(self.copies, 0) for x in (self.mask, self.last))
        return self.head(hidden).repeat_interleave(self.copies, 0)

    def _remember(self, slots: Tensor, *found: Tensor) -> None:
        """Keys and values of a layer's prompts, `[B, H, length, D]`, behind which the completions' will stand."""
        grid = [x.new_zeros((len(self.ids) * self.length, *x.shape[1:])).index_copy_(0, slots, x) for x in found]
        grid = [x.view(len(self.ids), self.length, *x.shape[1:]).transpose(1, 2) for x in grid]
        keys, values = (x.repeat_interleave(self.copies, 0).contiguous() for x in grid)
        self.cache.append((keys, values))

    def step(self, token: Int[Tensor, " B"]) -> Float[Tensor, "B V"]:
        """Logits after one more token a row."""
        self.last, here, self.used = self.last + 1, self.used, self.used + 1
        mask = self.mask[:, None, None, : self.used]

        def attend(i: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = self.cache[i]
            keys[:, :, here], values[:, :, here] = k, v
            read = torch.nn.functional.scaled_dot_product_attention(
                q[:, :, None], keys[:, :, : self.used], values[:, :, : self.used], attn_mask=mask,
                scale=self.body.scale(self.body.layers[i]), enable_gqa=q.shape[1] != k.shape[1],
            )  # fmt: skip
            return read.reshape(len(q), -1)

        return self.head(blocks.run(self.body, token, self.last, attend))

    def keep(self, alive: Bool[Tensor, " B"]) -> None:
        """Go on with these rows only."""
        self.cache = [(keys[alive], values[alive]) for keys, values in self.cache]
        self.mask, self.last = self.mask[alive], self.last[alive]


def _decoder(model: nn.Module, ids: Tensor, mask: Tensor, room: int, copies: int) -> Decoder:
    if bool(mask[:, -1].all()) and (body := blocks.body(model)) is not None:
        return PackedDecoder(model, body, ids, mask, copies, room)
    if "past_key_values" in inspect.signature(_inner(model).forward).parameters:
        return CachedDecoder(model, ids, mask, copies, room)
    return Decoder(model, ids, mask, copies)


def _inner(model: Any) -> Any:
    """The model itself, without adapters around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _positions(mask: Bool[Tensor, "B L"]) -> Int[Tensor, "B L"]:
    return (mask.long().cumsum(1) - 1).clamp(min=0)


def _every_layer_sees_all(model: Any) -> bool:
    """Whether one boolean mask serves every layer, so that it can be made here, once, instead of in each forward."""
    config = _inner(model).config.get_text_config()
    return config._attn_implementation == "sdpa" and blocks.sees_all(config)


def _cache(model: Any, length: int | None) -> Any:
    """Keys and values of every layer; of a known length where all layers keep everything."""
    from transformers.cache_utils import Cache, DynamicCache

    from vantage.language._cache import Reserved

    config = _inner(model).config.get_text_config()
    if length is None:
        return DynamicCache(config=config)
    return Cache(layers=[Reserved(length) for _ in range(config.num_hidden_layers)])
