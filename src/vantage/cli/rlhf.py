"""Train a language model from a reward: PPO and its relatives for Hugging Face models, or go on with a run."""

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from vantage.cli import UsageError, live, rlhf_options
from vantage.cli.options import Parser, of_fields
from vantage.loop import Callback, Report
from vantage.runs.folder import RunFolder, claimed, create, free_name, probe
from vantage.runs.log import FolderLog
from vantage.runs.progress import Progress

CHECKPOINTS = 10
"""How many checkpoints a run writes, each in place of the one before: they hold whole models."""
PICTURE = (
    "objective/scores", "objective/kl", "objective/kl_coef", "completions/mean_length", "objective/entropy",
    "train/explained_variance", "train/clip_fraction", "eval/score", "eval/kl",
)  # fmt: skip
"""What the picture of a run shows."""

MODELS = ("actor", "reward", "critic_model", "reference")
"""The options that may name a model."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """The options of `vantage rlhf` that are about the run, not about the algorithm."""

    actor: str | None = None
    """The model to train: a folder, or a name on the Hugging Face hub."""
    reward: str | None = None
    """What scores: a sequence-classification model, or file.py:function; several by commas, each with =weight."""
    prompts: str | None = None
    """What is completed: a .jsonl or .parquet file or a data set (a folder, or owner/name:split) with a column
    `prompt`."""
    critic_model: str | None = None
    """What the critic begins as: a model, or `reward`; by default the actor."""
    reference: str | None = None
    """The model that the KL is measured to; by default the actor as it begins."""
    recipe: str = "ppo"
    """The algorithm: ppo, ppo-penalty, grpo, rloo, reinforce, a2c, actor-critic or importance-weighted."""
    episodes: int | None = None
    """Completions in all, rounded up to whole updates; by default one pass over the prompts."""
    max_prompt_tokens: int | None = None
    """The longest prompt allowed, in tokens."""
    held_out: str | None = None
    """A file of prompts that are not trained on: completed and scored before, during and after."""
    eval_every: int | None = None
    """Evaluate on them every so many completions; by default 10 times in the run."""
    samples_every: int | None = None
    """Show some completions with their scores every so many; by default 5 times in the run."""
    out: str | None = None
    """Folder of the run; by default a new one under runs/."""
    resume: str | None = None
    """Go on with the run in this folder, bit for bit as if it had never stopped."""
    dry_run: bool = False
    """Show the first prompts' tokens, all settings and the memory needed, and do nothing else."""
    json: bool = False
    """Print the result as one JSON object, and nothing else."""


def main(argv: Sequence[str]) -> int:
    """`vantage rlhf`."""
    options = [*of_fields(Run, "run"), *rlhf_options.options()]
    given = Parser("rlhf", options, elsewhere=rlhf_options.ELSEWHERE).read(argv)
    first = rlhf_options.is_first()
    out = live.console(quiet=given.get("json", False) or not first)
    rlhf_options.quiet()
    result = resume(given, out) if "resume" in given else start(given, out)
    if given.get("json") and first:
        print(json.dumps(result))
    return 130 if result.get("stopped") == "interrupt" else 0


def start(given: dict[str, Any], out: Any) -> dict[str, Any]:
    """A new run."""
    from vantage.runs.config import to_json

    for name in ("actor", "reward", "prompts"):
        if name not in given:
            raise UsageError(f"name --actor, --reward and --prompts, or a run by --resume RUN: there is no --{name}")
    _check(given)
    try:
        chosen = rlhf_options.settings(given)
    except ValueError as error:
        raise UsageError(rlhf_options.in_flags(str(error))) from error
    if given.get("episodes", chosen.batch_size) < chosen.batch_size:
        made = f"an update makes {chosen.batch_size} completions"
        raise UsageError(f"--episodes {given['episodes']}: {made}; ask for that many, or give a smaller --batch-size")
    path = Path(given["out"]) if "out" in given else free_name(Path("runs"), f"rlhf-{chosen.seed}")
    about = {f.name: given.get(f.name, f.default) for f in fields(Run) if f.name not in ("resume", "dry_run", "json")}
    config = {**about, "out": str(path), "command": "rlhf", "settings": to_json(chosen), "versions": _versions()}
    rlhf = _make(config, chosen)
    prompts = _load(rlhf, config["prompts"], config)
    if config["held_out"]:
        _load(rlhf, config["held_out"], config)  # what is wrong with it is said before any work
    config["episodes"] = _whole(given.get("episodes") or len(prompts) * chosen.group_size, chosen.batch_size)
    made = f"{config['episodes']:,} completions of {len(prompts):,} prompts, {chosen.batch_size:,} an update"
    out.print()
    live.say(out, f"[bold]{config['actor']}[/bold], {made}")
    live.say(out, f"{path}\n", style="dim")
    live.settings_table([(*line.split(" = ", 1), "") for line in rlhf.describe().splitlines()], out)  # pyright: ignore[reportArgumentType]
    if given.get("dry_run"):
        return rlhf_options.dry_run(rlhf, prompts, config, out)
    if not rlhf_options.is_first():
        return train(rlhf, prompts, RunFolder(path), config, out)
    folder = create(path)
    with claimed(path):
        folder.write_config(config)
        return train(rlhf, prompts, folder, config, out)


def resume(given: dict[str, Any], out: Any) -> dict[str, Any]:
    """An old run, from its last checkpoint; with the settings it began with."""
    from vantage.runs.config import from_json

    other = sorted(given.keys() - {"resume", "json", "episodes"})
    if other:
        raise UsageError(f"--resume keeps the settings that the run began with: leave out {other[0].replace('_', '-')}")
    folder = RunFolder(Path(given["resume"]))
    config = read_config(folder)
    asked, size = given.get("episodes") or config["episodes"], from_json(config["settings"]).batch_size
    config["episodes"] = _whole(asked, size)
    first = rlhf_options.is_first()
    if first:
        probe(folder.path)
    with claimed(folder.path) if first else nullcontext():
        begun = (folder.path / "state.safetensors").exists()
        rlhf = _again(folder, config) if begun else _make(config, from_json(config["settings"]))
        prompts = _load(rlhf, config["prompts"], config)
        if rlhf.world.steps >= config["episodes"]:
            done = rlhf.world.steps
            raise UsageError(f"{folder.path} has made all its completions ({done:,}): give more by --episodes")
        live.say(out, f"[bold]{config['actor']}[/bold], from completion {rlhf.world.steps:,} of {config['episodes']:,}")
        if first:
            folder.write_config(config)
        return train(rlhf, prompts, folder, config, out)


def read_config(folder: RunFolder) -> dict[str, Any]:
    """The configuration of a run of `vantage rlhf`. Raises FileNotFoundError, or UsageError for another's."""
    config = folder.read_config()
    if config.get("command") != "rlhf":
        raise UsageError(f"{folder.path} is no run of vantage rlhf: use vantage train --resume {folder.path}")
    return config


def train(rlhf: Any, prompts: Any, folder: RunFolder, config: dict[str, Any], out: Any) -> dict[str, Any]:
    """Learn, keep the folder up to date, and say what came out."""
    from vantage.language.callbacks import Evaluate, Samples
    from vantage.language.rewards import RewardError

    episodes, log = config["episodes"], FolderLog(folder, start=rlhf.world.steps)
    updates = -(-episodes // rlhf.settings.batch_size)
    shown = config["samples_every"] or max(1, episodes // 5)
    listeners: list[Callback] = [
        log,
        Samples(shown, path=folder.path / "samples.jsonl", tensorboard=folder.path, table=not out.quiet),
        Progress(out),
    ]
    watch = None
    if config["held_out"]:
        held = _load(rlhf, config["held_out"], config)
        watch = Evaluate(rlhf, held, config["eval_every"] or max(1, episodes // 10))
        listeners.insert(0, watch)
    every = max(1, updates // CHECKPOINTS)
    try:
        report = rlhf.learn(prompts, episodes, listeners, checkpoint=folder.path, checkpoint_every=every)
    except RewardError as error:
        way_on = f"; vantage rlhf --resume {folder.path} goes on from the last checkpoint"
        raise RuntimeError(f"{error}; the completions are in {folder.path / 'experience.jsonl'}{way_on}") from error
    rlhf.save(folder.path)
    if not rlhf.world.first:
        return {"stopped": report.stopped}
    return finish(rlhf, folder, config, log, report, watch, out)


def finish(
    rlhf: Any, folder: RunFolder, config: dict[str, Any], log: FolderLog, report: Report, watch: Any, out: Any
) -> dict[str, Any]:
    """Picture, what was reached, and the way on."""
    from vantage.runs.picture import panels

    panels(log.rows, PICTURE, folder.curve)
    final = {name: value for name, value in (log.rows[-1] if log.rows else {}).items() if value == value}
    told = [f"Mean score {log.rows[0]['objective/scores']:.3g} → {final['objective/scores']:.3g}"] if log.rows else []
    if log.rows and "objective/kl" in final:
        told[0] += f" at a KL of {final['objective/kl']:.3g} nats per completion to the reference"
    if watch is not None and watch.evaluations:
        first, last = watch.evaluations[0][1], watch.evaluations[-1][1]
        told.append(f"On held-out prompts {first} → {last}")
    out.print()
    for line in told:
        live.say(out, f"{line}.")
    if report.stopped == "interrupt":
        live.say(out, f"Stopped early; go on with vantage rlhf --resume {folder.path}")
    else:
        live.say(
            out, f"Compare it with what it was by vantage chat {folder.path}; the model is {folder.path / 'actor'}."
        )
    out.print()
    ended = {"run": str(folder.path), "episodes": rlhf.world.steps, "stopped": report.stopped}
    return {**ended, "final": final, "verdict": told}


def _check(given: dict[str, Any]) -> None:
    """Raise UsageError for a number of completions that is none, or one that nothing would read."""
    for name in ("episodes", "eval_every", "samples_every", "max_prompt_tokens"):
        if given.get(name, 1) < 1:
            raise UsageError(f"--{name.replace('_', '-')} {given[name]}: give at least 1, or leave it out")
    if "eval_every" in given and "held_out" not in given:
        raise UsageError(f"--eval-every {given['eval_every']} has nothing to evaluate on: add --held-out FILE")


def _whole(episodes: int, batch_size: int) -> int:
    """So many completions, or the next number that whole updates make."""
    return -(-episodes // batch_size) * batch_size


def _make(config: dict[str, Any], chosen: Any) -> Any:
    from vantage.language import RLHF

    reward = rlhf_options.reward(config["reward"])
    try:
        return RLHF(
            config["actor"], reward, **_models(config), **{f.name: getattr(chosen, f.name) for f in fields(chosen)}
        )
    except OSError as error:  # of Transformers, which does not say which of the models it is
        named = [f"--{name.replace('_', '-')} {config[name]}" for name in MODELS if config[name]]
        lacking = " or ".join(named)
        reason = str(error).splitlines()[0]
        raise UsageError(f"{lacking} is neither a folder with a model nor one on the hub: {reason}") from error


def _again(folder: RunFolder, config: dict[str, Any]) -> Any:
    from vantage.language import RLHF

    return RLHF.resume(folder.path, rlhf_options.reward(config["reward"]), **_models(config))


def _models(config: dict[str, Any]) -> dict[str, Any]:
    from vantage.language import FromReward

    critic = FromReward() if config["critic_model"] == "reward" else config["critic_model"]
    return {"critic": critic, "reference": config["reference"]}


def _load(rlhf: Any, path: str, config: dict[str, Any]) -> Any:
    from vantage.language import data

    source = Path(path) if data.is_path(path) else data.named(path)
    return data.load(source, rlhf.tokenizer, max_prompt_tokens=config["max_prompt_tokens"])


def _versions() -> dict[str, str]:
    from importlib import metadata

    return {name: metadata.version(name) for name in ("vantage", "torch", "transformers")}
