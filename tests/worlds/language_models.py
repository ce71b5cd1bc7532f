"""Tiny models and a tokenizer of 32 words, built from configurations: nothing is downloaded."""

import socket
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

torch.set_num_threads(1)  # several processes share the machine, and these models are small

VOCABULARY = 32
END = 0


def free_port() -> str:
    """A port on which processes can meet."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def tokenizer() -> Any:
    """Words w2 … w31, one id each; the end token is the pad token too."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<eos>": END, "<unk>": 1, **{f"w{i}": i for i in range(2, VOCABULARY)}}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>", unk_token="<unk>", pad_token="<eos>")


def config(family: str) -> Any:
    import transformers as hf

    ends = dict(eos_token_id=END, bos_token_id=None, pad_token_id=END)
    if family == "gpt2":
        return hf.GPT2Config(vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=2, n_positions=64, **ends)
    made = {"llama": hf.LlamaConfig, "qwen2": hf.Qwen2Config, "qwen3": hf.Qwen3Config}[family]
    return made(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, max_position_embeddings=64, **ends,
    )  # fmt: skip


def actor(family: str = "llama", seed: int = 0) -> Any:
    """A causal language model whose words are unequally likely from the beginning."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config(family))
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(3.0 if p.ndim > 1 else 1.0)
    return model


def scorer(family: str = "llama", seed: int = 1) -> Any:
    """A sequence-classification model with one label."""
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(seed)
    made = config(family)
    made.num_labels = 1
    return AutoModelForSequenceClassification.from_config(made)


def prompts(n: int = 12, seed: int = 0) -> list[str]:
    """Texts of one to six words."""
    rng = np.random.default_rng(seed)
    return [" ".join(f"w{i}" for i in rng.integers(2, VOCABULARY, size=1 + j % 6)) for j in range(n)]


def late_words(completions: list[str], **others: Any) -> list[float]:
    """A reward: the mean number of a completion's words, over 31."""
    return [float(np.mean([int(word.strip("w")) / 31 for word in text.split()] or [0.0])) for text in completions]
