"""RLHF from nothing, without a download: a small language model, a reward model and PPO, in minutes on a laptop.

    python examples/rlhf.py            # or: make rlhf

1. A corpus of reviews is generated, and a tokenizer and a Llama of 0.2 million parameters are made for it.
2. TRL's SFTTrainer teaches the model to write reviews, friendly and hostile ones alike.
3. TRL's RewardTrainer learns from pairs of its completions which of two a (simulated, noisy) reader prefers.
4. `vt.RLHF` trains the model by PPO with a critic against that reward model; β holds the KL to the SFT model.
"""

import argparse
import logging
import os
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import numpy as np
import torch
from datasets import disable_progress_bars
from transformers.utils import logging as transformers_logging

import vantage as vt
from vantage.callbacks import Progress
from vantage.language import Evaluate, Sampling

SUBJECTS = "film book soup hotel concert garden phone train museum lecture game salad".split()  # noqa: SIM905
PLACES = "here abroad downtown upstairs nearby".split()  # noqa: SIM905
DAYS = "monday tuesday wednesday thursday friday saturday sunday".split()  # noqa: SIM905
GOOD = "good lovely bright warm clever fresh calm".split()  # noqa: SIM905
BAD = "bad awful dull cold silly stale noisy".split()  # noqa: SIM905
HEAD = {"<pad>": 0, "<eos>": 1, "<unk>": 2}
TARGET_KL = 2.0
"""KL to the SFT model, in nats per completion, at which β is steered."""
NEW_TOKENS = 24
EPISODES = 3_840
"""Completions that PPO learns from."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a run came to."""

    before: Any
    after: Any
    best_of_8: float
    rows: list[dict[str, float]]
    evaluations: list[tuple[int, Any]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


def prompts() -> tuple[list[str], list[str]]:
    """Prompts to train on and held-out ones."""
    every = [f"review of the {s} {p} on {d} :" for s in SUBJECTS for p in PLACES for d in DAYS]
    order = np.random.default_rng(0).permutation(len(every))
    return [every[i] for i in order[128:]], [every[i] for i in order[:128]]


def review(prompt: str, rng: np.random.Generator) -> str:
    """One to three sentences about the prompt's subject, as friendly as their writer happens to be."""
    subject, kindness, sentences = prompt.split()[3], rng.choice([0.15, 0.5, 0.85]), []
    for _ in range(rng.integers(1, 4)):
        words = GOOD if rng.random() < kindness else BAD
        adjective = rng.choice(words)
        sentence = f"{rng.choice(['the', 'this'])} {subject} {rng.choice(['was', 'seemed', 'felt'])}"
        sentence += f" {rng.choice(['very', 'rather', 'quite'])} {adjective}" if rng.random() < 0.5 else f" {adjective}"
        sentences.append(f"{sentence} .")
    return " ".join(sentences)


def liking(text: str) -> float:
    """What the simulated reader feels: +1 for each good word, −1 for each bad one, twice as much after "very"."""
    words = text.split()
    sign = [(word in GOOD) - (word in BAD) for word in words]
    return float(sum(s * (2 if i and words[i - 1] == "very" else 1) for i, s in enumerate(sign)))


def make_tokenizer() -> Any:
    """Words apart by spaces."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    rng = np.random.default_rng(0)
    seen = sorted({word for prompt in prompts()[0] for word in f"{prompt} {review(prompt, rng)}".split()})
    vocabulary = HEAD | {word: i for i, word in enumerate(seen, start=len(HEAD))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # pyright: ignore[reportAttributeAccessIssue]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<eos>", pad_token="<pad>", padding_side="left"
    )


def trainer_options(out: Path, **options: Any) -> dict[str, Any]:
    """What keeps TRL's trainers on the CPU and quiet; by themselves they leave gradient checkpointing on for good."""
    return dict(
        output_dir=str(out), use_cpu=not torch.cuda.is_available(), bf16=False, gradient_checkpointing=False,
        report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True, dataloader_pin_memory=False,
        lr_scheduler_type="cosine", per_device_train_batch_size=64, **options,
    )  # fmt: skip


def sft(tokenizer: Any, out: Path, seed: int) -> Any:
    """A Llama that writes reviews, by TRL's SFTTrainer."""
    from datasets import Dataset
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl.trainer.sft_config import SFTConfig  # pyright: ignore[reportMissingImports]
    from trl.trainer.sft_trainer import SFTTrainer  # pyright: ignore[reportMissingImports]

    rng = np.random.default_rng(seed)
    rows = [{"prompt": p, "completion": f" {review(p, rng)}"} for p in prompts()[0] for _ in range(8)]
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=96, intermediate_size=256, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=128, tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
        )
    )  # fmt: skip
    config = SFTConfig(**trainer_options(out, learning_rate=3e-3, num_train_epochs=2, seed=seed))
    SFTTrainer(model, config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer).train()
    model.save_pretrained(out / "sft")
    tokenizer.save_pretrained(out / "sft")
    return LlamaForCausalLM.from_pretrained(out / "sft")  # without what the trainer hung on the module


def reward_model(tokenizer: Any, out: Path, seed: int) -> Any:
    """A Bradley-Terry reward model that begins as the SFT model, by TRL's RewardTrainer."""
    from datasets import Dataset
    from transformers import LlamaForSequenceClassification
    from trl.trainer.reward_config import RewardConfig  # pyright: ignore[reportMissingImports]
    from trl.trainer.reward_trainer import RewardTrainer  # pyright: ignore[reportMissingImports]

    rng = np.random.default_rng(seed + 1)
    rows = []
    for prompt in prompts()[0]:
        for _ in range(5):
            pair = [review(prompt, rng) for _ in range(2)]
            gap = liking(pair[0]) - liking(pair[1])
            swap = bool(rng.random() > 1.0 / (1.0 + np.exp(-gap)))
            rows.append({"prompt": f"{prompt} ", "chosen": pair[swap], "rejected": pair[not swap]})
    torch.manual_seed(seed + 1)
    model = LlamaForSequenceClassification.from_pretrained(out / "sft", num_labels=1)
    config = RewardConfig(**trainer_options(out, learning_rate=1e-3, num_train_epochs=2, seed=seed))
    RewardTrainer(model, config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer).train()
    model.save_pretrained(out / "reward")
    tokenizer.save_pretrained(out / "reward")
    return LlamaForSequenceClassification.from_pretrained(out / "reward", num_labels=1)


def ppo(actor: Any, reward: Any, tokenizer: Any, seed: int) -> vt.RLHF:
    """PPO with a critic; β is steered so that the KL to the SFT model stays near its target."""
    controller = vt.Proportional(target=TARGET_KL, horizon=500.0)
    return vt.RLHF(
        actor,
        reward,
        vt.PPO(n_epochs=4, n_minibatches=2),
        tokenizer=tokenizer,
        kl=vt.KLInReward(beta=0.2, controller=controller),
        optim=vt.Separate(actor_lr=3e-4, critic_lr=1e-3, max_grad_norm=1.0),
        sampling=Sampling(max_new_tokens=NEW_TOKENS),
        batch_size=128,
        micro_batch=128,
        seed=seed,
    )


def best_of(rlhf: vt.RLHF, held_out: list[str], n: int) -> float:
    """The mean over prompts of the best score among n completions by the actor as it is."""
    scores = np.array([rlhf.evaluate(held_out, seed=1_000 + i).scores for i in range(n)])
    return float(scores.max(0).mean())


def run(seed: int, episodes: int, out: Path) -> tuple[vt.RLHF, Result]:
    """All four steps."""
    out.mkdir(parents=True, exist_ok=True)
    tokenizer, clock, seconds = make_tokenizer(), time.perf_counter(), {}
    train, held_out = prompts()

    def lap(name: str) -> None:
        nonlocal clock
        seconds[name] = time.perf_counter() - clock
        clock = time.perf_counter()
        print(f"  {name}: {seconds[name]:.0f} s", flush=True)

    actor = sft(tokenizer, out, seed)
    lap("SFT")
    reward = reward_model(tokenizer, out, seed)
    lap("reward model")
    rlhf = ppo(actor, reward, tokenizer, seed)
    before, ceiling = rlhf.evaluate(held_out), best_of(rlhf, held_out, 8)
    watch = Evaluate(rlhf, held_out, every=640)
    lap("evaluation before")
    report = rlhf.learn(train, episodes, [watch, Progress()])
    if report.stopped:
        raise SystemExit("stopped before its end: no result")
    lap("PPO")
    after = rlhf.evaluate(held_out)
    result = Result(
        before=before, after=after, best_of_8=ceiling, rows=report.rows, evaluations=watch.evaluations, seconds=seconds
    )
    return rlhf, result


def verdict(result: Result) -> str:
    """What the run showed, in sentences."""
    gain = result.after.mean - result.before.mean
    error = float(np.hypot(result.after.standard_error, result.before.standard_error))
    kl = kl_of_last_third(result)
    share = gain / (result.best_of_8 - result.before.mean)
    feel = [float(np.mean([liking(s.completion) for s in e.samples])) for e in (result.before, result.after)]
    return "\n".join(
        [
            f"held-out reward {result.before.mean:.2f} → {result.after.mean:.2f}: {gain / error:.1f} standard errors,",
            f"  {share:.0%} of what picking the best of 8 samples gains ({result.best_of_8:.2f});",
            f"what the simulated reader feels {feel[0]:+.2f} → {feel[1]:+.2f};",
            f"KL in the last third {kl:.2f} nats per completion, target {TARGET_KL:g}",
        ]
    )


def kl_of_last_third(result: Result) -> float:
    """Mean KL to the reference in the last third of the updates, nats per completion."""
    values = [row["objective/kl"] for row in result.rows]
    return float(np.mean(values[-len(values) // 3 :]))


def show(result: Result, n: int = 5) -> None:
    """Completions before and after, side by side."""
    from rich.console import Console
    from rich.table import Table

    table = Table("prompt", "before", "", "after", "", title="held-out prompts", show_lines=True)
    for one, other in list(zip(result.before.samples, result.after.samples, strict=True))[:n]:
        table.add_row(one.prompt, one.completion, f"{one.score:+.1f}", other.completion, f"{other.score:+.1f}")
    Console().print(table)


def draw(result: Result, path: Path) -> None:
    """Held-out reward and KL over the run."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    steps = np.array([s for s, _ in result.evaluations])
    mean = np.array([e.mean for _, e in result.evaluations])
    half = 2 * np.array([e.standard_error for _, e in result.evaluations])
    left.fill_between(steps, mean - half, mean + half, alpha=0.25, lw=0)
    left.plot(steps, mean, label="PPO, ± 2 standard errors")
    left.axhline(result.best_of_8, ls="--", color="gray", label="best of 8 of the SFT model")
    left.set(xlabel="completions", ylabel="held-out reward")
    above = dict(loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False, fontsize="small")
    left.legend(ncols=2, **above)
    x = [row["time/total_timesteps"] for row in result.rows]
    right.plot(x, [row["objective/kl"] for row in result.rows], label="KL to the SFT model")
    right.axhline(TARGET_KL, ls="--", color="gray", label="target")
    right.set(xlabel="completions", ylabel="nats per completion")
    beta = right.twinx()
    beta.plot(x, [row["objective/kl_coef"] for row in result.rows], color="C1", lw=1, label="β (right)")
    beta.set_ylabel("β")
    lines = [*right.get_lines(), *beta.get_lines()]
    right.legend(lines, [str(line.get_label()) for line in lines], ncols=3, **above)
    fig.savefig(path, dpi=120)
    plt.close(fig)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--episodes", type=int, default=EPISODES, help="completions that PPO learns from")
    parser.add_argument("--out", type=Path, default=Path("runs/rlhf-example"))
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    disable_progress_bars()
    transformers_logging.disable_progress_bar()
    began = time.perf_counter()
    rlhf, result = run(chosen.seed, chosen.episodes, chosen.out)
    show(result)
    draw(result, chosen.out / "curves.png")
    rlhf.save(chosen.out / "ppo")
    print(verdict(result))
    print(f"{time.perf_counter() - began:.0f} s in all; the curves are {chosen.out / 'curves.png'}, ", end="")
    print(f"the model {chosen.out / 'ppo' / 'actor'}")


if __name__ == "__main__":
    main()
