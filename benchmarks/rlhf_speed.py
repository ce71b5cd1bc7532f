"""How fast an iteration of RLHF is beside TRL's last PPO trainer: `python -m benchmarks.rlhf_speed ROW [--pairs 5]`.

An iteration is: sample completions, score them with policy, reference, critic and reward model, then all epochs of PPO.
Both sides train models with the same configuration and random weights on the same prompts with the same settings, in
turn, each run in a process of its own that prints JSON. The first iteration of a run is not counted. The peer is
`trl==1.9.2` (its `trl.experimental.ppo`), from an environment of its own, named by --peer-python.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "rlhf_speed"
SKIPPED = 1
"""Iterations before those that count."""
Result = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison: the size of a Llama, and PPO's settings, the same for both sides."""

    layers: int
    width: int
    vocabulary: int
    heads: int
    batch: int = 32
    minibatches: int = 1
    epochs: int = 4
    new_tokens: int = 64
    iterations: int = 4
    bf16: bool = False
    lora: bool = False
    """Whether actor, critic and reference are adapters on one backbone (ours) or a policy adapter (the peer's)."""


TINY = Row(layers=2, width=128, vocabulary=1024, heads=4, iterations=8)
SMALL = Row(layers=6, width=384, vocabulary=8192, heads=6, iterations=3)
BASE = Row(layers=12, width=768, vocabulary=32000, heads=12, batch=8, iterations=2)
ROWS = {
    f"{name}-{minibatches}": replace(row, minibatches=minibatches)
    for name, row in {"tiny": TINY, "small": SMALL, "base": BASE}.items()
    for minibatches in (1, 4)
} | {"small-bf16": replace(SMALL, bf16=True), "base-lora": replace(BASE, lora=True)}


# ---- what both sides share ----


def models(row: Row) -> tuple[Any, Any, Any]:
    """Policy, critic and reward model with random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=row.vocabulary, hidden_size=row.width, intermediate_size=4 * row.width,
        num_hidden_layers=row.layers, num_attention_heads=row.heads, num_key_value_heads=row.heads,
        max_position_embeddings=256, tie_word_embeddings=True, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        attention_dropout=0.0,
    )  # fmt: skip
    config.num_labels = 1
    return LlamaForCausalLM(config), LlamaForSequenceClassification(config), LlamaForSequenceClassification(config)


def tokenizer(row: Row) -> Any:
    """One word a token."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<s>", "</s>", "<unk>", *(f"w{i}" for i in range(4, row.vocabulary))]
    raw = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = WhitespaceSplit()  # pyright: ignore[reportAttributeAccessIssue]
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        padding_side="left",
    )  # fmt: skip


def prompts(row: Row) -> list[list[int]]:
    """Prompts of 16 to 32 tokens."""
    import numpy as np

    rng = np.random.default_rng(0)
    each = rng.integers(16, 33, row.batch * row.iterations)
    return [rng.integers(4, row.vocabulary, n).tolist() for n in each]


def now() -> tuple[float, float]:
    """Seconds by the clock, and of the processor."""
    return time.time(), time.process_time()


def finished(row: Row, ended: list[tuple[float, float]]) -> Result:
    """Median seconds of an iteration, and the peak memory."""
    each, cpu = ([b[i] - a[i] for a, b in pairwise(ended)][SKIPPED - 1 :] for i in range(2))
    return {
        "s": median(each),
        "cpu": median(cpu),
        "n": len(each),
        "tokens/s": row.batch * row.new_tokens / median(each),
        "MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


# ---- the two sides, each in a process of its own ----


def peer(row: Row) -> Result:
    """TRL's PPO. No stop token: every completion is `new_tokens` long."""
    from datasets import Dataset  # pyright: ignore[reportAttributeAccessIssue]
    from transformers import TrainerCallback
    from trl.experimental.ppo import PPOConfig, PPOTrainer  # pyright: ignore[reportMissingImports]

    ended: list[tuple[float, float]] = []

    class Watch(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            ended.append(now())

    policy, critic, reward = models(row)
    data = Dataset.from_list([{"input_ids": ids} for ids in prompts(row)])
    adapter = {}
    if row.lora:
        from peft import LoraConfig

        adapter = {"peft_config": LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM")}
    with tempfile.TemporaryDirectory() as folder:
        args = PPOConfig(
            output_dir=folder, per_device_train_batch_size=row.batch, num_mini_batches=row.minibatches,
            num_ppo_epochs=row.epochs, vf_coef=0.1, cliprange_value=0.2,
            total_episodes=row.batch * row.iterations, response_length=row.new_tokens, temperature=1.0, kl_coef=0.05,
            gamma=1.0, lam=0.95, learning_rate=1e-5, num_sample_generations=0, gradient_checkpointing=False,
            lr_scheduler_type="constant",
            bf16=row.bf16, report_to="none", logging_steps=1, save_strategy="no", use_cpu=True, disable_tqdm=True,
        )  # fmt: skip
        trainer = PPOTrainer(
            args=args, processing_class=tokenizer(row), model=policy, ref_model=None if row.lora else _copy(policy),
            reward_model=reward, value_model=critic, train_dataset=data, eval_dataset=data.select(range(1)),
            callbacks=[Watch()], **adapter,
        )  # fmt: skip
        trainer.train()
    return finished(row, ended)


def _copy(model: Any) -> Any:
    import copy

    return copy.deepcopy(model)


def ours(row: Row) -> Result:
    """Vantage, with the peer's settings: its ½ in the critic's loss is in our vf_coef."""
    from vantage import PPO, RLHF, ClippedValue, Joint, KLInReward
    from vantage.language import LoRA, Sampling
    from vantage.language.records import Prompts

    ended: list[tuple[float, float]] = []
    policy, critic, reward = models(row)
    ids = tuple(map(tuple, prompts(row)))
    texts = tuple(" ".join(f"w{i}" for i in each) for each in ids)
    words = tokenizer(row)
    words.eos_token = None  # no stop token: every completion is `new_tokens` long
    policy.generation_config.eos_token_id = None
    recipe = PPO(
        n_epochs=row.epochs, n_minibatches=row.minibatches, whiten="batch", critic=ClippedValue(width=0.2),
    )  # fmt: skip
    rlhf = RLHF(
        policy, reward, recipe, critic=None if row.lora else critic, tokenizer=words, kl=KLInReward(beta=0.05),
        optim=Joint(lr=1e-5, vf_coef=0.05, max_grad_norm=None), batch_size=row.batch,
        micro_batch=row.batch // row.minibatches, sampling=Sampling(max_new_tokens=row.new_tokens), bf16=row.bf16,
        lora=LoRA(rank=16) if row.lora else None,
    )  # fmt: skip
    rlhf.learn(
        Prompts(ids=ids, prompts=texts), total_episodes=row.batch * row.iterations,
        callbacks=lambda update: ended.append(now()),
    )  # fmt: skip
    return finished(row, ended)


BARS = {"tiny": 2.0, "small": 1.25, "base": 1.25, "base-lora": 2.0}
"""How many times TRL's time was asked for; `small-bf16` is asked for 1.6 × our own float32 instead."""


def report() -> str:
    """All rows, measured or not, as Markdown: medians of the runs that were kept. With one thread, seconds are the
    processor's, which others on the machine change little.
    """
    lines = [
        "| row | threads | Vantage s | TRL s | × | bar | MB, TRL's MB | pairs |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in ROWS:
        bar = BARS.get(row, BARS.get(row.split("-")[0])) if not ROWS[row].bf16 else None
        asked = "" if bar is None else f"≥ {bar} ×"
        file = RESULTS / f"{row}.json"
        said = json.loads(file.read_text()) if file.exists() else None
        if said is None:
            lines.append(f"| {row} | | not measured | | | {asked} | | |")
            continue
        clock = "cpu" if said["threads"] == "1" else "s"
        ours, peer = ({k: median(r[k] for r in said["runs"][side]) for k in (clock, "MB")} for side in SIDES)
        lines.append(
            f"| {row} | {said['threads']} | {ours[clock]:.2f} | {peer[clock]:.2f} | {peer[clock] / ours[clock]:.2f} "
            f"| {asked} | {ours['MB']:.0f}, {peer['MB']:.0f} | {len(said['runs']['peer'])} |"
        )
    return "\n".join(lines) + "\n"


SIDES = {"ours": ours, "peer": peer}


def run(side: str, python: str, row: str, threads: str) -> Result:
    """One run in a process of its own. Raises RuntimeError with the end of what it said if it fails."""
    surroundings = os.environ | {"PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "0"}
    call = [python, __file__, row, "--worker", side]
    done = subprocess.run(call, cwd=ROOT, env=surroundings, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{side} failed: {done.stderr[-900:]}")
    return json.loads(done.stdout.splitlines()[-1])


def save(row: str, threads: str, results: dict[str, list[Result]]) -> None:
    """Keep what was measured; called after each pair, so that an interrupted row keeps its pairs."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    said = {"row": row, "settings": asdict(ROWS[row]), "cores": os.cpu_count(), "threads": threads, "runs": results}
    (RESULTS / f"{row}.json").write_text(json.dumps(said, indent=1) + "\n")


def table(row: str, results: dict[str, list[Result]]) -> str:
    """Markdown: medians, and how many times longer the peer took, or how much more memory."""
    lines = ["| | s an iteration | runs | times | tokens/s | peak MB |", "|---|---|---|---|---|---|"]
    first = median(each["s"] for each in results["ours"])
    for side, runs in results.items():
        middle = {name: median(each[name] for each in runs) for name in ("s", "tokens/s", "MB")}
        each = ", ".join(f"{run['s']:.2f}" for run in runs)
        name = {"ours": "Vantage", "peer": "TRL 1.9.2"}[side]
        lines.append(
            f"| {name} | {middle['s']:.2f} | {each} | {middle['s'] / first:.2f} "
            f"| {middle['tokens/s']:.0f} | {middle['MB']:.0f} |"
        )
    return f"{row}: {asdict(ROWS[row])}\n\n" + "\n".join(lines)


def main() -> int:
    """Run the pairs and print the table; or, as a worker, one run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", choices=ROWS, nargs="?", help="without one: write the table of what was measured")
    parser.add_argument("--pairs", type=int, default=5, help="runs of each side, in turn")
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter that has trl==1.9.2")
    parser.add_argument("--threads", default=str(os.cpu_count()), help="PyTorch's threads, the same for both sides")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        sys.path.insert(0, str(ROOT))
        print("\n" + json.dumps(SIDES[given.worker](ROWS[given.row])))
        return 0
    if given.row is None:
        (RESULTS / "table.md").write_text(report())
        print(report())
        return 0
    results: dict[str, list[Result]] = {"ours": [], "peer": []}
    for pair in range(given.pairs):
        for side, python in (("ours", sys.executable), ("peer", given.peer_python)):
            results[side].append(run(side, python, given.row, given.threads))
            last = results[side][-1]
            said = f"{last['s']:.2f} s, {last['cpu']:.2f} of the processor (load {os.getloadavg()[0]:.1f})"
            print(f"{pair + 1}/{given.pairs} {side}: {said}", flush=True)
        save(given.row, given.threads, results)
    print(f"\n{os.cpu_count()} cores\n\n{table(given.row, results)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
