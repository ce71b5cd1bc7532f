"""A forward pass of our own over texts without padding, through the parameters of Llama-like and GPT-2 models.

What is not attention sees the real tokens of all texts as one row. The last layer goes no further than the positions
that are asked for. Each model must first give Transformers' own numbers; a model of another family keeps its forward.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import gelu, scaled_dot_product_attention, silu

Tensor = torch.Tensor
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, q, k, v), each `[N, H, D]` → what each token has read, `[N, H · D]`."""


class LlamaBody:
    """Llama, Mistral, Qwen2, Qwen3: RMS norms, rotary positions, a gated unit."""

    def __init__(self, model: Any) -> None:
        self.model, self.layers = model, model.layers

    def begin(self, ids: Tensor, positions: Tensor) -> tuple[Tensor, Any]:
        """What the first layer reads, `[N, D]`, and what attention needs to know of positions."""
        x = self.model.embed_tokens(ids)
        cos, sin = self.model.rotary_emb(x, positions[None])
        half = cos.shape[-1] // 2
        return x, (cos[0, :, None, :half], sin[0, :, None, :half])

    def qkv(self, layer: Any, x: Tensor, places: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, `[N, H, D]`."""
        attention, x = layer.self_attn, _rms(layer.input_layernorm, x)
        heads = (len(x), -1, attention.head_dim)
        q, k, v = (f(x).view(heads) for f in (attention.q_proj, attention.k_proj, attention.v_proj))
        if hasattr(attention, "q_norm"):
            q, k = _rms(attention.q_norm, q), _rms(attention.k_norm, k)
        places = [x.to(v.dtype) for x in places]
        return Rotate.apply(q.to(v.dtype), *places), Rotate.apply(k.to(v.dtype), *places), v

    def rest(self, layer: Any, x: Tensor, read: Tensor) -> Tensor:
        """The layer after its attention."""
        x = x + layer.self_attn.o_proj(read)
        y, unit = _rms(layer.post_attention_layernorm, x), layer.mlp
        return x + unit.down_proj(Gated.apply(unit.gate_proj(y), unit.up_proj(y)))

    def scale(self, layer: Any) -> float:
        """What q·k is multiplied by."""
        return layer.self_attn.scaling

    def end(self, x: Tensor) -> Tensor:
        """The last norm."""
        return _rms(self.model.norm, x)


class GPT2Body:
    """GPT-2: layer norms, learned positions."""

    def __init__(self, model: Any) -> None:
        self.model, self.layers = model, model.h

    def begin(self, ids: Tensor, positions: Tensor) -> tuple[Tensor, Any]:
        """What the first layer reads, `[N, D]`, and what attention needs to know of positions."""
        return self.model.wte(ids) + self.model.wpe(positions), None

    def qkv(self, layer: Any, x: Tensor, places: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, `[N, H, D]`."""
        said = layer.attn.c_attn(layer.ln_1(x)).view(len(x), 3, -1, layer.attn.head_dim)
        q, k, v = said.unbind(1)
        return q, k, v

    def rest(self, layer: Any, x: Tensor, read: Tensor) -> Tensor:
        """The layer after its attention."""
        x = x + layer.attn.c_proj(read)
        return x + layer.mlp.c_proj(gelu(layer.mlp.c_fc(layer.ln_2(x)), approximate="tanh"))

    def scale(self, layer: Any) -> float:
        """What q·k is multiplied by."""
        return layer.attn.scaling

    def end(self, x: Tensor) -> Tensor:
        """The last norm."""
        return self.model.ln_f(x)


Body = LlamaBody | GPT2Body
"""A model between its tokens and its head."""


def run(
    body: Body, ids: Int[Tensor, " N"], positions: Int[Tensor, " N"], attend: Attend, keep: Tensor | None = None
) -> Float[Tensor, "K D"]:
    """The last hidden state of the tokens `keep`, or of all."""
    x, places = body.begin(ids, positions)
    for i, layer in enumerate(body.layers):
        read = attend(i, *body.qkv(layer, x, places))
        if keep is not None and i + 1 == len(body.layers):
            x, read = Gather.apply(x, keep), Gather.apply(read, keep)
        x = body.rest(layer, x, read)
    return body.end(x)


# ---- texts without padding ----


@dataclass(frozen=True, kw_only=True)
class Packed:
    """Tokens of several texts as one row, and where each stands."""

    ids: Int[Tensor, " N"]
    positions: Int[Tensor, " N"]
    """Place of each token in its own text."""
    slots: Int[Tensor, " N"]
    """Place of each token in a grid `[B, L]` where every text begins at column 0."""
    shape: tuple[int, int]
    keep: Int[Tensor, " K"]
    """The tokens whose hidden state is asked for."""
    cells: Int[Tensor, " K"]
    """Place of those in the grid `[B, R]` of the answer."""

    @staticmethod
    def of(sequences: Any, *, last: bool) -> "Packed":
        """Sequences without their padding; asked for is what stands before each real completion token, and, with
        `last`, the last token too.
        """
        mask, positions, before = sequences.mask, sequences.positions, sequences.prompt - 1
        asked = torch.zeros_like(mask)
        asked[:, before:-1] = mask[:, before + 1 :]
        if last:
            asked[:, before:] |= mask[:, before:]
        place = mask.flatten().nonzero()[:, 0]
        keep = asked.flatten()[place].nonzero()[:, 0]
        length, width = int(positions.max()) + 1, mask.shape[1] - before - (not last)
        rows, columns = place // mask.shape[1], place % mask.shape[1]
        flat = positions.flatten()[place]
        return Packed(
            ids=sequences.ids.flatten()[place], positions=flat, slots=rows * length + flat,
            shape=(len(mask), length), keep=keep, cells=rows[keep] * width + columns[keep] - before,
        )  # fmt: skip

    @staticmethod
    def of_prompts(ids: Int[Tensor, "B L"], mask: Tensor) -> "Packed":
        """Left-padded prompts without their padding; asked for is the last token of each."""
        place, positions = mask.flatten().nonzero()[:, 0], (mask.long().cumsum(1) - 1).flatten()
        length, ends = ids.shape[1], mask.sum(1).cumsum(0) - 1
        return Packed(
            ids=ids.flatten()[place], positions=positions[place], slots=place // length * length + positions[place],
            shape=(len(ids), length), keep=ends, cells=torch.arange(len(ids), device=ids.device),
        )  # fmt: skip

    def hidden(self, body: Body, remember: Callable[[Tensor, Tensor], None] | None = None) -> Float[Tensor, "K D"]:
        """The last hidden state of what is asked for; `remember` is shown keys and values, layer by layer."""

        def attend(i: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            if remember is not None:
                remember(k, v)
            # Padding stands behind each text, where a causal mask lets nobody look.
            grid = [Scatter.apply(x, self.slots, self.shape[0] * self.shape[1]) for x in (q, k, v)]
            grid = [x.view(*self.shape, *x.shape[1:]).transpose(1, 2) for x in grid]
            read = scaled_dot_product_attention(
                *grid, is_causal=True, scale=body.scale(body.layers[i]), enable_gqa=q.shape[1] != k.shape[1]
            )
            return Gather.apply(read.transpose(1, 2).reshape(len(grid[0]) * self.shape[1], -1), self.slots)

        return run(body, self.ids, self.positions, attend, self.keep)

    def spread(self, x: Float[Tensor, " K ..."], width: int) -> Float[Tensor, "B R ..."]:
        """What was asked for, at its place in `[B, R]`; 0 elsewhere."""
        return Scatter.apply(x, self.cells, self.shape[0] * width).view(self.shape[0], width, *x.shape[1:])


# ---- which models ----

_FAMILIES: dict[str, type[Body]] = {
    "LlamaModel": LlamaBody, "MistralModel": LlamaBody, "Qwen2Model": LlamaBody, "Qwen3Model": LlamaBody,
    "GPT2Model": GPT2Body,
}  # fmt: skip
_known: WeakKeyDictionary[nn.Module, Body | None] = WeakKeyDictionary()


def base(model: Any) -> Any:
    """A model without adapters around it and without its head."""
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    return getattr(model, "base_model", model)


def hooked(model: nn.Module) -> bool:
    """Whether somebody watches or changes a module that our way does not call: all but embeddings and linear layers."""
    called = (nn.Embedding, nn.Linear)
    return any(
        m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks
        for m in model.modules() if not isinstance(m, called)
    )  # fmt: skip


def body(model: Any) -> Body | None:
    """Our way through this model, where it was seen to give the model's own numbers; else None."""
    inner = base(model)
    if hooked(model):
        return None
    if inner not in _known:
        _known[inner] = _checked(inner)
    return _known[inner]


def sees_all(config: Any) -> bool:
    """Whether every layer attends to everything before."""
    kinds = getattr(config, "layer_types", None) or ["full_attention"]
    sliding = getattr(config, "sliding_window", None) if not hasattr(config, "layer_types") else None
    return set(kinds) == {"full_attention"} and sliding is None


@torch.no_grad()
def _checked(inner: Any) -> Body | None:
    family = _FAMILIES.get(type(inner).__name__)
    sharded = any(type(module).__name__.startswith("FSDP") for module in inner.modules())
    if family is None or sharded or not sees_all(inner.config):
        return None
    parameters = list(inner.parameters())
    kinds = {(p.dtype, p.device) for p in parameters}
    if len(kinds) != 1 or not {torch.float32, torch.float64} & {parameters[0].dtype}:
        return None
    n = min(8, inner.config.vocab_size)
    device, own = parameters[0].device, family(inner)
    ids, positions = torch.arange(n, device=device), torch.arange(n, device=device)
    training = inner.training
    inner.eval()
    with torch.autocast(device.type, enabled=False):
        expected = inner(input_ids=ids[None], use_cache=False).last_hidden_state[0]
        packed = Packed(ids=ids, positions=positions, slots=ids, shape=(1, n), keep=ids, cells=ids)
        found = packed.hidden(own)
    inner.train(training)
    return own if torch.allclose(found, expected, rtol=1e-3, atol=1e-4) else None


# ---- steps with a backward pass of their own: fewer passes over memory than autograd's ----


class Gather(torch.autograd.Function):
    """Rows of x; none twice."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor) -> Tensor:
        ctx.rows, ctx.n = rows, len(x)
        return x.index_select(0, rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return grads[0].new_zeros((ctx.n, *grads[0].shape[1:])).index_copy_(0, ctx.rows, grads[0]), None


class Scatter(torch.autograd.Function):
    """x at these rows of n, none twice; 0 at the others."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor, n: int) -> Tensor:
        ctx.rows = rows
        return x.new_zeros((n, *x.shape[1:])).index_copy_(0, rows, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return grads[0].index_select(0, ctx.rows), None, None


class RMSNorm(torch.autograd.Function):
    """w · x / √(mean x² + ε), over the last axis."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        inverse = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        return (x * inverse).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (x, weight, inverse), g = ctx.saved_tensors, grads[0]
        unit = x * inverse
        along = g * unit
        mean = (along @ weight)[..., None] / x.shape[-1]
        own = along.flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        return (g * weight).addcmul_(unit, mean, value=-1).mul_(inverse), own, None


class Gated(torch.autograd.Function):
    """silu(a) · b."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return silu(a).mul_(b)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (a, b), g = ctx.saved_tensors, grads[0]
        along = g * b
        return torch.ops.aten.silu_backward.grad_input(along, a, grad_input=along), silu(a).mul_(g)


def log_prob(logits: Float[Tensor, "N V"], tokens: Int[Tensor, " N"]) -> tuple[Tensor, Tensor]:
    """z_y − log Σ_v exp z_v of each row, in float32 at least, and that logarithm."""
    logits = _wide(logits)
    total = logits.logsumexp(-1)
    return logits.gather(-1, tokens[:, None])[:, 0] - total, total


class LogProb(torch.autograd.Function):
    """`log_prob` whose backward pass overwrites the logits."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, tokens: Tensor) -> Tensor:
        n = _rows(logits)
        said = [log_prob(part, some) for part, some in zip(logits.split(n), tokens.split(n), strict=True)]
        found, total = (torch.cat(parts) for parts in zip(*said, strict=True))
        ctx.save_for_backward(logits, tokens, total)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (logits, tokens, total), g, n = ctx.saved_tensors, grads[0], _rows(ctx.saved_tensors[0])
        for part, own, weight in zip(logits.split(n), total.split(n), g.split(n), strict=True):
            part.copy_(_wide(part).sub(own[:, None]).exp_().mul_(-weight[:, None]))
        return logits.scatter_add_(-1, tokens[:, None], g[:, None].to(logits.dtype)), None


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _rows(logits: Tensor) -> int:
    """Rows whose logits stay in the processor's cache."""
    return max(1, (1 << 18) // logits.shape[-1])


class Rotate(torch.autograd.Function):
    """Each pair (x_i, x_{i+D/2}) turned by its angle; cosines and sines `[N, 1, D/2]`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        cos, sin = ctx.saved_tensors
        return _turned(grads[0], cos, sin, -1), None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor, sign: int) -> Tensor:
    turned = torch.empty_like(x, memory_format=torch.contiguous_format)
    (a, b), (c, d) = x.chunk(2, -1), turned.chunk(2, -1)
    torch.mul(a, cos, out=c).addcmul_(b, sin, value=-sign)
    torch.mul(b, cos, out=d).addcmul_(a, sin, value=sign)
    return turned


def _rms(norm: Any, x: Tensor) -> Tensor:
    return RMSNorm.apply(x.to(norm.weight.dtype), norm.weight, norm.variance_epsilon)
