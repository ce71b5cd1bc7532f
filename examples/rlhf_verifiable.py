"""A reward that can be checked: PPO, GRPO and RLOO teach a small model to add, on the same seeds.

    python examples/rlhf_verifiable.py

A Llama of 0.1 million parameters first learns the *form* of answers to "3 + 9 =" from a teacher who is right in half of
the cases; then each recipe trains it with the reward 1 for a right answer and 0 for a wrong one.
"""

import argparse
import copy
import time
from typing import Any

import numpy as np
import torch
from scipy import stats

import vantage as vt
from vantage.language import Sampling

VOCABULARY = ["<pad>", "<eos>", "<unk>", "+", "=", *map(str, range(10))]


def digits(number: int) -> str:
    """Two digits apart: 7 is "0 7"."""
    return f"{number // 10} {number % 10}"


PROMPTS = [{"prompt": f"{a} + {b} =", "answer": digits(a + b)} for a in range(10) for b in range(10)]
RECIPES = {
    "PPO": lambda: vt.PPO(n_epochs=4),
    "GRPO": lambda: vt.GRPO(group_size=8, n_epochs=4),
    "RLOO": lambda: vt.RLOO(group_size=8),
}
COMPLETIONS = 128
"""Completions of an update, the same for every recipe."""


def right(completions: list[str], answer: list[str], **columns: Any) -> list[float]:
    """The reward: 1 for the right answer, 0 for any other."""
    return [float(completion == expected) for completion, expected in zip(completions, answer, strict=True)]


def make_tokenizer() -> Any:
    """Words apart by spaces."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # pyright: ignore[reportAttributeAccessIssue]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<eos>", pad_token="<pad>"
    )  # fmt: skip


def taught(tokenizer: Any, steps: int = 600, share_right: float = 0.5) -> Any:
    """A model that has learned from a teacher who is often wrong."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(VOCABULARY), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
            num_attention_heads=4, tie_word_embeddings=True, pad_token_id=0, eos_token_id=1, bos_token_id=None,
        )
    )  # fmt: skip
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        rows = [PROMPTS[i] for i in rng.integers(len(PROMPTS), size=128)]
        says = [row["answer"] if rng.random() < share_right else digits(int(rng.integers(19))) for row in rows]
        ids = torch.tensor(
            [tokenizer(f"{row['prompt']} {said} <eos>")["input_ids"] for row, said in zip(rows, says, strict=True)]
        )
        labels = ids.masked_fill(torch.arange(ids.shape[1]) < 4, -100)  # a prompt has four tokens
        loss = model(input_ids=ids, labels=labels).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval()


def curve(model: Any, tokenizer: Any, name: str, seed: int, updates: int) -> list[float]:
    """Share of right answers to all hundred prompts, four each, at five moments of a run."""
    rlhf = vt.RLHF(
        copy.deepcopy(model), right, RECIPES[name](), tokenizer=tokenizer, kl=vt.KLInReward(beta=0.01),
        optim=vt.Separate(actor_lr=1e-3, critic_lr=3e-3, max_grad_norm=1.0), sampling=Sampling(max_new_tokens=3),
        batch_size=COMPLETIONS, micro_batch=COMPLETIONS, seed=seed,
    )  # fmt: skip
    found = []
    for part in range(5):
        if part and rlhf.learn(PROMPTS, updates * COMPLETIONS * part // 4).stopped:
            raise SystemExit("stopped before its end: no result")
        found.append(rlhf.evaluate(PROMPTS * 4, seed=1).mean)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=40, help="a multiple of 4")
    chosen = parser.parse_args()
    tokenizer = make_tokenizer()
    model = taught(tokenizer)
    marks = [chosen.updates * COMPLETIONS * part // 4 for part in range(5)]
    print(f"share of right answers after so many completions, mean ± 95 % interval over {chosen.seeds} seeds")
    print(f"{'':6}" + "".join(f"{mark:>15,}" for mark in marks) + f"{'s a seed':>12}")
    for name in RECIPES:
        began = time.perf_counter()
        curves = np.array([curve(model, tokenizer, name, seed, chosen.updates) for seed in range(chosen.seeds)])
        half = stats.t.ppf(0.975, len(curves) - 1) * stats.sem(curves) if len(curves) > 1 else np.zeros(5)
        cells = [f"{m:.3f} ± {h:.3f}" for m, h in zip(curves.mean(0), half, strict=True)]
        seconds = (time.perf_counter() - began) / len(curves)
        print(f"{name:6}" + "".join(f"{cell:>15}" for cell in cells) + f"{seconds:>12.1f}", flush=True)


if __name__ == "__main__":
    main()
