"""Our decode loop against Transformers' `generate`, under left padding; its randomness is the numbers it is given."""

from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from vantage.language import blocks  # noqa: E402
from vantage.language.generate import Limits, generate  # noqa: E402
from vantage.language.records import Sampling  # noqa: E402

V, PAD, EOS = 23, 0, 1
SIZE = dict(
    vocab_size=V, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4, pad_token_id=PAD,
    bos_token_id=None, eos_token_id=EOS, max_position_embeddings=64,
)  # fmt: skip
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**SIZE, num_key_value_heads=2),
    "qwen2": lambda: transformers.Qwen2Config(**SIZE, num_key_value_heads=2),
    "qwen3": lambda: transformers.Qwen3Config(**SIZE, num_key_value_heads=2, head_dim=8),
    "mistral, sliding window": lambda: transformers.MistralConfig(**SIZE, num_key_value_heads=2, sliding_window=4),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=V, n_embd=16, n_layer=2, n_head=4, n_positions=64, pad_token_id=PAD, bos_token_id=None,
        eos_token_id=EOS, resid_pdrop=0.3,
    ),
}  # fmt: skip
FAMILIES = [*CONFIGS, "llama, eager attention"]


def model_of(family):
    torch.manual_seed(3)
    name, _, attention = family.partition(", eager")
    config = CONFIGS[name]()
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager" if attention else "sdpa")
    with torch.no_grad():  # far from uniform, so that the most likely token is no matter of rounding
        for parameter in model.parameters():
            parameter.mul_(4.0 if parameter.ndim == 2 else 1.0)
    return model.eval()


def prompts(rows=6, width=7):
    rng = np.random.default_rng(5)
    ids, mask = np.zeros((rows, width), np.int64), np.zeros((rows, width), bool)
    for row in range(rows):
        length = 1 + row % width
        ids[row, -length:], mask[row, -length:] = rng.integers(2, V, length), True
    return torch.from_numpy(ids), torch.from_numpy(mask)


def theirs(model, ids, mask, new, **options):
    with torch.no_grad():
        found = model.generate(
            input_ids=ids, attention_mask=mask.long(), max_new_tokens=new, do_sample=False, pad_token_id=PAD, **options
        )
    return found[:, ids.shape[1] :]


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_is_that_of_transformers_under_left_padding(family):
    model, (ids, mask) = model_of(family), prompts()
    ours = generate(model, ids, mask, Sampling(max_new_tokens=12), stop=(EOS,), pad=PAD)
    expected = theirs(model, ids, mask, 12)
    assert torch.equal(ours.ids, expected[:, : ours.ids.shape[1]])
    assert (expected[:, ours.ids.shape[1] :] == PAD).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_recorded_log_probs_are_those_of_a_whole_forward(family):
    model, (ids, mask) = model_of(family), prompts()
    noise = torch.rand(12, len(ids), generator=torch.Generator().manual_seed(0))
    says = generate(model, ids, mask, Sampling(max_new_tokens=12, temperature=0.7), stop=(EOS,), pad=PAD, noise=noise)
    whole, seen = torch.cat([ids, says.ids], 1), torch.cat([mask, says.mask], 1)
    position = (seen.long().cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        logits = model(input_ids=whole, attention_mask=seen.long(), position_ids=position).logits
    log_prob = (logits[:, ids.shape[1] - 1 : -1] / 0.7).log_softmax(-1).gather(-1, says.ids[..., None])[..., 0]
    assert (log_prob - says.log_prob)[says.mask].abs().max() < 1e-4
    assert (says.log_prob[~says.mask] == 0).all()
    assert (says.ids[~says.mask] == PAD).all()


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gpt2"])
def test_our_own_way_and_the_models_forward_write_the_same(family, monkeypatch):
    model, (ids, mask) = model_of(family), prompts()
    noise = torch.rand(20, 2 * len(ids), generator=torch.Generator().manual_seed(4))
    given = dict(stop=(EOS, 5), pad=PAD, noise=noise, copies=2)
    assert blocks.body(model) is not None
    own = generate(model, ids, mask, Sampling(max_new_tokens=20), **given)
    monkeypatch.setattr(blocks, "body", lambda model: None)
    other = generate(model, ids, mask, Sampling(max_new_tokens=20), **given)
    assert torch.equal(own.ids, other.ids) and torch.equal(own.mask, other.mask)
    assert int(own.mask.sum(0)[-1]) < 2 * len(ids), "rows have left the batch"
    torch.testing.assert_close(own.log_prob, other.log_prob, rtol=1e-5, atol=2e-5)


def test_a_row_ends_with_its_first_stop_token_and_leaves_the_batch():
    model, (ids, mask) = model_of("llama"), prompts(rows=12)
    noise = torch.rand(30, len(ids), generator=torch.Generator().manual_seed(1))
    stop = (EOS, 5, 9, 13)
    says = generate(model, ids, mask, Sampling(max_new_tokens=30), stop=stop, pad=PAD, noise=noise)
    stops = torch.isin(says.ids, torch.tensor(stop)) & says.mask
    assert torch.equal(stops.any(1), says.ended)
    assert says.ended.any()
    for row in range(len(ids)):
        length = int(says.mask[row].sum())
        assert says.mask[row, :length].all()
        assert stops[row].sum() == int(says.ended[row])
        assert not says.ended[row] or stops[row, length - 1]
    alone = generate(model, ids[3:4], mask[3:4], Sampling(max_new_tokens=30), stop=stop, pad=PAD, noise=noise[:, 3:4])
    assert torch.equal(says.ids[3][says.mask[3]], alone.ids[0][alone.mask[0]]), "others' ends do not matter"
    assert says.ids.shape[1] == says.mask.any(0).sum(), "cut to the longest"


def test_copies_read_the_prompt_once_and_are_the_same_as_repeated_prompts():
    model, (ids, mask) = model_of("llama"), prompts(rows=3)
    noise = torch.rand(10, 12, generator=torch.Generator().manual_seed(2))
    read = []
    handle = model.get_input_embeddings().register_forward_pre_hook(lambda m, given: read.append(given[0].numel()))
    once = generate(model, ids, mask, Sampling(max_new_tokens=10), stop=(EOS,), pad=PAD, noise=noise, copies=4)
    handle.remove()
    assert read[-9:] == [12] * 9
    assert read[-10] == int(mask.sum()), "each real token of the prompts once, before any step"
    ids, mask = ids.repeat_interleave(4, 0), mask.repeat_interleave(4, 0)
    many = generate(model, ids, mask, Sampling(max_new_tokens=10), stop=(EOS,), pad=PAD, noise=noise)
    assert torch.equal(once.ids, many.ids)
    torch.testing.assert_close(once.log_prob, many.log_prob)


class Lookup(torch.nn.Module):
    """Logits of the next token by the present one, without a cache."""

    def __init__(self, table):
        super().__init__()
        self.table = torch.nn.Parameter(table)

    def forward(self, input_ids, attention_mask=None, position_ids=None, use_cache=None):
        return SimpleNamespace(logits=self.table[input_ids])


def test_sampled_frequencies_are_the_models_probabilities():
    table = torch.randn(5, 5, generator=torch.Generator().manual_seed(4))
    n, temperature = 20_000, 0.6
    ids, mask = torch.tensor([[0, 2], [3, 4]]), torch.tensor([[False, True], [True, True]])
    noise = torch.rand(2, 2 * n, generator=torch.Generator().manual_seed(5))
    how = Sampling(max_new_tokens=2, temperature=temperature)
    says = generate(Lookup(table), ids, mask, how, stop=(), pad=0, noise=noise, copies=n)
    p = (table.detach() / temperature).softmax(-1)
    for prompt, last in enumerate((2, 4)):
        pairs = says.ids[prompt * n : (prompt + 1) * n]
        expected = p[last][:, None] * p
        counts = torch.zeros(5, 5).index_put_((pairs[:, 0], pairs[:, 1]), torch.ones(n), accumulate=True)
        chi2 = float(((counts - n * expected) ** 2 / (n * expected)).sum())
        assert chi2 < 24 + 4 * np.sqrt(2 * 24), "24 degrees of freedom"


def test_the_only_randomness_is_the_noise():
    model, (ids, mask) = model_of("llama"), prompts()
    noise = torch.rand(8, len(ids), generator=torch.Generator().manual_seed(6))
    how = Sampling(max_new_tokens=8)
    torch.manual_seed(0)
    first = generate(model, ids, mask, how, stop=(), pad=PAD, noise=noise)
    torch.manual_seed(1)
    again = generate(model, ids, mask, how, stop=(), pad=PAD, noise=noise)
    assert torch.equal(first.ids, again.ids)
    noise[4, 2] = (noise[4, 2] + 0.5) % 1.0
    other = generate(model, ids, mask, how, stop=(), pad=PAD, noise=noise)
    changed = first.ids != other.ids
    assert changed.any(0).nonzero()[0] >= 4
    assert changed.any(1).nonzero().ravel().tolist() == [2]


def test_dropout_is_off_and_the_mode_comes_back():
    model, (ids, mask) = model_of("gpt2"), prompts()
    expected = generate(model, ids, mask, Sampling(max_new_tokens=6), stop=(EOS,), pad=PAD)
    model.train()
    assert torch.equal(generate(model, ids, mask, Sampling(max_new_tokens=6), stop=(EOS,), pad=PAD).ids, expected.ids)
    assert model.training


@pytest.mark.parametrize("options", [dict(top_k=3), dict(top_p=0.6), dict(top_k=5, top_p=0.8)])
def test_limits_are_those_of_transformers(options):
    from transformers.generation import logits_process

    logits = torch.randn(4, V, generator=torch.Generator().manual_seed(7))
    expected = logits
    if "top_k" in options:
        expected = logits_process.TopKLogitsWarper(options["top_k"])(torch.zeros(4, 1), expected)
    if "top_p" in options:
        expected = logits_process.TopPLogitsWarper(options["top_p"])(torch.zeros(4, 1), expected)
    assert torch.equal(Limits(**options)(logits, 0, ()), expected)


def test_no_stop_before_its_time():
    model, (ids, mask) = model_of("llama"), prompts()
    expected = theirs(model, ids, mask, 9, min_new_tokens=5)
    limits = Limits(min_new_tokens=5)
    ours = generate(model, ids, mask, Sampling(max_new_tokens=9), stop=(EOS,), pad=PAD, limits=limits)
    assert torch.equal(ours.ids, expected[:, : ours.ids.shape[1]])
    assert (ours.mask.sum(1) >= 6).all() or not ours.ended.any()


@pytest.mark.parametrize("options", [dict(top_k=0), dict(top_p=0.0), dict(min_new_tokens=-1)])
def test_bad_limits_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Limits(**options)


def test_adapters_are_read():
    peft = pytest.importorskip("peft")
    model, (ids, mask) = model_of("llama"), prompts()
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    ours = generate(wrapped, ids, mask, Sampling(max_new_tokens=8), stop=(EOS,), pad=PAD)
    assert torch.equal(ours.ids, theirs(wrapped, ids, mask, 8)[:, : ours.ids.shape[1]])
    with wrapped.disable_adapter():
        bare = generate(wrapped, ids, mask, Sampling(max_new_tokens=8), stop=(EOS,), pad=PAD)
    assert bare.ids.shape != ours.ids.shape or not torch.equal(bare.ids, ours.ids)
