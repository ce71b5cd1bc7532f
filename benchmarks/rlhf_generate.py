"""Generation for RLHF: our decode loop beside `generate` as TRL's PPO trainer calls it, in interleaved pairs."""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks._cells import markdown
from vantage.language.generate import generate
from vantage.language.records import Sampling

SIZES = {"tiny": (2, 128, 1024, 4), "small": (6, 384, 8192, 6), "base": (12, 768, 32_000, 12)}
"""Layers, width, vocabulary, heads."""
BATCH, PROMPT, NEW = 32, 32, 64


def model(size: str) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    layers, width, vocabulary, heads = SIZES[size]
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
            num_attention_heads=heads, num_key_value_heads=heads, tie_word_embeddings=True,
            max_position_embeddings=512, pad_token_id=0, bos_token_id=1, eos_token_id=None,
        )
    ).eval()  # fmt: skip


def batch(vocabulary: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts of 16 to 32 tokens, left-padded."""
    ids = torch.randint(3, vocabulary, (BATCH, PROMPT), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(PROMPT)[None] >= (torch.arange(BATCH) % 17)[:, None]
    return ids.masked_fill(~mask, 0), mask


def contenders(size: str) -> dict[str, Callable[[], Any]]:
    """Both ways to sample 64 tokens for each of 32 prompts; ours also records log-probabilities, as TRL does later."""
    from transformers import GenerationConfig

    actor, (ids, mask) = model(size), batch(SIZES[size][2])
    config = GenerationConfig(
        max_new_tokens=NEW, min_new_tokens=NEW, temperature=1.0 + 1e-7, top_k=0, top_p=1.0, do_sample=True,
        pad_token_id=0, eos_token_id=None,
    )  # fmt: skip
    noise, sampling = torch.rand(NEW, BATCH), Sampling(max_new_tokens=NEW)

    def trl() -> None:
        with torch.no_grad():
            said: Any = actor.generate(
                input_ids=ids, attention_mask=mask.long(), generation_config=config, return_dict_in_generate=True,
                output_scores=True,
            )  # fmt: skip
            torch.stack(said.scores, 1)

    def ours() -> None:
        generate(actor, ids, mask, sampling, stop=(), pad=0, noise=noise)

    def groups() -> None:
        generate(actor, ids[:4], mask[:4], sampling, stop=(), pad=0, noise=noise, copies=8)

    return {"TRL's call": trl, "ours": ours, "ours, 4 prompts × 8": groups}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", default=["tiny", "small"])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--cpu-time", action="store_true", help="one thread's CPU time, for a machine that is shared")
    chosen = parser.parse_args()
    torch.set_num_threads(1 if chosen.cpu_time else 2)
    clock = time.process_time if chosen.cpu_time else time.perf_counter
    rows = []
    for size in chosen.sizes:
        run = contenders(size)
        seconds: dict[str, list[float]] = {name: [] for name in run}
        for pair in range(chosen.pairs + 1):
            for name, call in run.items():
                began = clock()
                call()
                if pair:  # the first warms up
                    seconds[name].append(clock() - began)
        base = statistics.median(seconds["TRL's call"])
        for name, each in seconds.items():
            middle = statistics.median(each)
            rows.append((size, name, f"{middle:.3f}", f"{BATCH * NEW / middle:,.0f}", f"{base / middle:.2f} ×"))
    print(markdown(("size", "", "seconds", "tokens/s", "TRL's call / this"), rows))
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
