"""Train an agent in a Gymnasium environment, or go on with a run."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha1
from pathlib import Path
from typing import Any

from vantage.callbacks import (
    Checkpoints,
    Evaluate,
    Profile,
    Progress,
    RecordVideo,
    StopAfterEpisodes,
    StopAtReward,
    StopWithoutImprovement,
    WandB,
    ended,
)
from vantage.cli import UsageError, config_file, live, plan
from vantage.cli.options import Option, Parser, fail_unless_known, of_fields
from vantage.loop import Callback, Report, Update
from vantage.recipe import RECIPES
from vantage.runs.folder import RunFolder, claimed, create, free_name, probe
from vantage.runs.log import FolderLog

CHECKPOINTS = 20
"""How many checkpoints a run writes, each in place of the one before."""
EVALUATIONS = 20
"""How often a run is evaluated that may stop by evaluations, but was not told how often."""
EPISODES = 100
"""Episodes that `--until` averages over."""
LISTENING = ("init", "max_episodes", "video_every", "keep_every", "wandb")
"""Options that stand in the configuration of a run, so that it goes on with them."""
COUNTS = ("eval_every", "patience", "max_episodes", "video_every", "keep_every")
"""Options that count something, at least 1."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """The options of `vantage train` that are about the run, not about the agent."""

    steps: int | None = None
    """Environment steps in all; by default what is tuned for the environment, or 100,000."""
    recipe: str | None = None
    """The algorithm."""
    out: str | None = None
    """Folder of the run; by default a new one under runs/."""
    resume: str | None = None
    """Go on with the run in this folder, bit for bit as if it had never stopped."""
    init: str | None = None
    """Begin with the parameters and statistics of the agent in this run or file; all other settings are new."""
    until: float | None = None
    """Stop as soon as the mean return of the last 100 episodes is this high."""
    eval_every: int | None = None
    """Evaluate the agent every so many steps, 10 episodes with deterministic actions, and keep the best one."""
    stop_at: float | None = None
    """Stop as soon as an evaluation's mean return is this high."""
    patience: int | None = None
    """Stop after this many evaluations in a row without a new best."""
    max_episodes: int | None = None
    """Stop as soon as this many episodes have ended."""
    seeds: int | None = None
    """Train with the seeds 0, 1, …, this many, each in a folder of its own, and sum up with intervals."""
    jobs: int = 1
    """With --seeds: how many runs to train at the same time, each in a process of its own."""
    video_every: int | None = None
    """Film an episode every so many steps, into the folder videos/ of the run."""
    keep_every: int | None = None
    """Keep a copy of the agent every so many steps, in the folder copies/ of the run."""
    wandb: str | None = None
    """Log to this project of Weights & Biases, too; offline, in the run's folder, until wandb sync."""
    profile: bool = False
    """Time the parts of the run: act, step, score, estimate, update, log."""
    config: str | None = None
    """File with settings: TOML as --save-config writes it, or YAML of RL Baselines3 Zoo; options typed come first."""
    save_config: str | None = None
    """Write all settings to this TOML file."""
    dry_run: bool = False
    """Check and show all settings, and do nothing else."""
    json: bool = False
    """Print the result as one JSON object, and nothing else."""


class Until(Callback):
    """Ends a run when the mean return of its last 100 episodes reaches a goal."""

    def __init__(self, goal: float | None) -> None:
        self._goal, self._ended = goal, 0

    def on_update(self, update: Update) -> bool | None:
        """False when the goal is reached; at least 100 episodes must have ended."""
        self._ended += ended(update.rollout)
        reached = self._goal is not None and update.metrics.get("rollout/ep_rew_mean", -float("inf")) >= self._goal
        return False if reached and self._ended >= EPISODES else None


def main(argv: Sequence[str]) -> int:
    """`vantage train ENV`."""
    parser = Parser(
        "train", [*map(_naming_recipes, of_fields(Run, "run")), *plan.recipe_options(), *plan.agent_options()],
        {"ENV?": "a Gymnasium environment, such as CartPole-v1"},
    )  # fmt: skip
    given = config_file.merge(parser.read(argv))
    if given.get("steps") is not None and given["steps"] < 1:
        raise UsageError(f"--steps {given['steps']}: train for at least one step")
    if given.get("recipe"):
        fail_unless_known("recipe", given["recipe"], RECIPES)
    out = live.console(quiet=given.get("json", False))
    if "seeds" in given:
        return several(given)
    if "jobs" in given:
        raise UsageError("--jobs is for several runs: give --seeds as well")
    if "resume" in given:
        result = resume(given, out)
    elif "ENV" in given:
        result = start(given, out)
    else:
        raise UsageError("name an environment, such as CartPole-v1, or a run to go on with: --resume RUN")
    if given.get("json"):
        print(json.dumps(result))
    return 130 if result.get("stopped") == "interrupt" else 0


def _naming_recipes(option: Option) -> Option:
    known = f"The algorithm: {', '.join(RECIPES)}; by default ppo, or what is tuned for the environment."
    return replace(option, help=known) if option.name == "recipe" else option


def several(given: dict[str, Any]) -> int:
    """The same run with several seeds, one table and one figure."""
    from vantage.cli.compare import Compare, check_counts, over_seeds

    for name in ("seed", "resume", "until", "dry_run", "profile", "save_config"):
        if name in given:
            raise UsageError(f"--seeds trains several runs: leave out --{name.replace('_', '-')}")
    if "ENV" not in given:
        raise UsageError("name an environment, such as CartPole-v1")
    env, rest = (
        given["ENV"],
        {name: x for name, x in given.items() if name not in ("ENV", "seeds", "jobs", "json", "out")},
    )
    chosen = Compare(seeds=given["seeds"], jobs=given.get("jobs", 1), json=given.get("json", False))
    check_counts(chosen)
    label = given.get("recipe") or "ppo"
    root = Path(given.get("out") or f"runs/{plain(env)}-{label}-seeds")
    return over_seeds(env, {label: rest}, {label: root}, root, chosen)


def plain(env: str) -> str:
    """An environment's name as that of a folder."""
    return env.replace("/", "-").replace(":", "-")


def start(given: dict[str, Any], out: Any) -> dict[str, Any]:
    """A new run."""
    from vantage.runs.config import to_json

    env = given["ENV"]
    chosen = plan.make(env, given)
    settings = chosen.settings
    agent = _begun(env, settings, given.get("init"))
    if "save_config" in given:
        config_file.save(Path(given["save_config"]), chosen)
    path = Path(given["out"]) if "out" in given else free_name(Path("runs"), f"{plain(env)}-{settings.seed}")
    updates = -(-chosen.total_steps // settings.batch_size)
    config = {
        "env": env,
        "total_steps": chosen.total_steps,
        "until": given.get("until"),
        **_evaluation(given, chosen.total_steps),
        **{name: given.get(name) for name in LISTENING},
        "checkpoint_every": max(1, updates // CHECKPOINTS),
        "settings": to_json(settings),
        "versions": _versions(),
    }
    if given.get("dry_run"):
        _announce(chosen, path, out)
        live.say(out, "Nothing was trained: --dry-run.", style="dim")
        return config
    if given.get("wandb"):
        WandB()  # says what is missing before there is a folder
    folder = create(path)
    with claimed(path):
        folder.write_config(config)
        _announce(chosen, path, out)
        return train(agent, folder, config, out, given.get("profile", False))


def _begun(env: str, settings: Any, init: str | None) -> Any:
    """A new agent, with what an old one has learned if there is one to begin with."""
    from vantage.control import Agent

    agent = Agent(env, **{name: getattr(settings, name) for name in settings.__dataclass_fields__})
    if init is None:
        return agent
    folder = RunFolder(Path(init))
    found = next((path for path in (folder.agent, folder.checkpoint) if path.exists()), Path(init))
    return agent.warm_start(found)


def resume(given: dict[str, Any], out: Any) -> dict[str, Any]:
    """An old run, from its last checkpoint; with the settings it began with."""
    other = sorted(given.keys() - {"resume", "json", "steps", "until", "dry_run", "profile"})
    if other:
        raise UsageError(f"--resume keeps the settings that the run began with: leave out {other[0].replace('_', '-')}")
    folder = RunFolder(Path(given["resume"]))
    config = folder.read_config()
    probe(folder.path)
    with claimed(folder.path):
        return _go_on(folder, config, given, out)


def _go_on(folder: RunFolder, config: dict[str, Any], given: dict[str, Any], out: Any) -> dict[str, Any]:
    from vantage.control import Agent
    from vantage.runs.config import from_json

    if folder.checkpoint.exists():
        agent = Agent.resume(folder.checkpoint)
    else:
        settings = from_json(config["settings"])
        agent = _begun(config["env"], settings, config.get("init"))
    config |= {"total_steps": given.get("steps") or config["total_steps"], "until": given.get("until", config["until"])}
    if agent.steps >= config["total_steps"]:
        done, more = f"{agent.steps:,}", f"{2 * agent.steps}"
        raise UsageError(f"{folder.path} has taken all its steps ({done}): give a larger total, such as --steps {more}")
    out.print()
    live.say(out, f"[bold]{config['env']}[/bold], from step {agent.steps:,} of {config['total_steps']:,}")
    live.say(out, f"{folder.path}\n", style="dim")
    if given.get("dry_run"):
        return config
    folder.write_config(config)
    return train(agent, folder, config, out, given.get("profile", False))


def train(agent: Any, folder: RunFolder, config: dict[str, Any], out: Any, timed: bool = False) -> dict[str, Any]:
    """Learn, keep the folder up to date, and say what came out."""
    live.say(out, f"{agent.backend}: {agent.backend_reason}\n", style="dim")
    log = FolderLog(folder, start=agent.steps)
    listeners = [
        *_evaluating(agent, folder, config, log.rows), log, *_listening(agent, folder, config),
        Until(config["until"]), Progress(out),
    ]  # fmt: skip
    profile = Profile() if timed else None
    listeners += [profile] if profile else []
    try:
        report = agent.learn(
            config["total_steps"], listeners, checkpoint=folder.checkpoint, checkpoint_every=config["checkpoint_every"]
        )
    except (OSError, ArithmeticError, RuntimeError) as error:
        if folder.checkpoint.exists():
            raise RuntimeError(
                f"{_text(error)}; the last good checkpoint is intact: vantage train --resume {folder.path}"
            ) from error
        raise
    agent.save(folder.agent)
    result = finish(agent, folder, config, log, report, out)
    if profile is not None:
        out.print(f"{profile}\n", soft_wrap=True, markup=False)
        folder.profile.write_text(json.dumps(profile.to_dict(), indent=1) + "\n", encoding="utf-8")
        result["profile"] = profile.to_dict()
    return result


def _evaluation(given: dict[str, Any], total: int) -> dict[str, Any]:
    """What was said of evaluations; a reason to stop needs some, so 20 of them are made."""
    wanted = {name: given.get(name) for name in ("eval_every", "stop_at", "patience")}
    for name in COUNTS:
        number = given.get(name)
        if number is not None and number < 1:
            raise UsageError(f"--{name.replace('_', '-')} {number}: give a whole number, at least 1")
    if wanted["eval_every"] is None and (wanted["stop_at"], wanted["patience"]) != (None, None):
        wanted["eval_every"] = max(1, total // EVALUATIONS)
    return wanted


def _evaluating(agent: Any, folder: RunFolder, config: dict[str, Any], rows: list[dict[str, float]]) -> list[Callback]:
    """The callbacks that evaluate, and stop by what they find; they stand before the log."""
    found: list[Callback] = []
    if config.get("max_episodes") is not None:
        found.append(StopAfterEpisodes(config["max_episodes"], rows=rows))
    if config.get("eval_every") is None:
        return found
    found.append(Evaluate(agent, config["eval_every"], best=folder.best, rows=rows))
    if config["stop_at"] is not None:
        found.append(StopAtReward(config["stop_at"]))
    if config["patience"] is not None:
        found.append(StopWithoutImprovement(config["patience"], rows=rows))
    return found


def _listening(agent: Any, folder: RunFolder, config: dict[str, Any]) -> list[Callback]:
    """What films, copies and logs elsewhere."""
    found: list[Callback] = []
    if config.get("video_every") is not None:
        found.append(RecordVideo(agent, folder.videos, config["video_every"]))
    if config.get("keep_every") is not None:
        found.append(Checkpoints(agent, folder.copies, config["keep_every"]))
    if config.get("wandb") is not None:
        os.environ.setdefault("WANDB_SILENT", "true")
        found.append(
            WandB(
                project=config["wandb"], name=folder.path.name, dir=str(folder.path), config=config,
                id=sha1(str(folder.path.resolve()).encode()).hexdigest()[:12], resume="allow",
            )  # a resumed run is the same one
        )  # fmt: skip
    return found


def finish(
    agent: Any, folder: RunFolder, config: dict[str, Any], log: FolderLog, report: Report, out: Any
) -> dict[str, Any]:
    """Picture, verdict and the way on."""
    from vantage.control.environments import prefix
    from vantage.lab.doctor import sentences, verdict
    from vantage.runs.picture import learning_curve

    recipe, goal = agent.settings.recipe, config["until"]
    title = (
        f"{config['env']}: {type(recipe.psi).__name__} × {type(recipe.objective).__name__}, seed {agent.settings.seed}"
    )
    if report.stopped != "interrupt":  # who has pressed Ctrl-C does not wait for a picture
        learning_curve(log.rows, folder.curve, title=title, goal=goal)
    watch = "" if prefix(config["env"]) else f", or watch it with vantage play {folder.path}"
    way_on = f"Evaluate it with vantage eval {folder.path}{watch}."
    told = [*_ended(config, log.rows, report), *sentences(log.rows, recipe=recipe, goal=goal, next_step=way_on)]
    out.print()
    if report.stopped == "interrupt":
        live.say(out, f"Stopped at step {agent.steps:,}; go on with vantage train --resume {folder.path}")
    else:
        for line in told:
            live.say(out, line)
    if config.get("wandb") is not None:
        live.say(out, f"Weights & Biases: wandb sync {folder.path / 'wandb' / 'latest-run'}")
    out.print()
    return {
        "run": str(folder.path),
        "env": config["env"],
        "steps": agent.steps,
        "stopped": report.stopped,
        "final": {name: value for name, value in (log.rows[-1] if log.rows else {}).items() if value == value},
        "verdict": list(told),
        "findings": [found.rule for found in verdict(log.rows, recipe=recipe)],
    }


def _ended(config: dict[str, Any], rows: list[dict[str, float]], report: Report) -> list[str]:
    """What ended the run early, where that was asked for by an option other than `--until`."""
    last = {name: value for row in rows for name, value in row.items() if value == value}
    why = {
        StopAtReward: "an evaluation's mean return is {eval/mean_reward:.4g}, and --stop-at is {stop_at:g}",
        StopWithoutImprovement: "no new best in as many evaluations in a row as --patience {patience} allows",
        StopAfterEpisodes: "{rollout/episodes:.0f} episodes have ended, and --max-episodes is {max_episodes}",
    }
    found = [text.format_map(config | last) for kind, text in why.items() if kind.__name__ == report.stopped_by]
    return [f"The run ended early: {text}." for text in found]


def _announce(chosen: plan.Plan, path: Path, out: Any) -> None:
    out.print()
    live.say(out, f"[bold]{chosen.env}[/bold], {chosen.total_steps:,} steps")
    live.say(out, f"{path}\n", style="dim")
    live.settings_table(plan.rows(chosen), out)


def _text(error: BaseException) -> str:
    from vantage.cli import sentence

    return sentence(error).rstrip(".")


def _versions() -> dict[str, str]:
    from importlib import metadata

    return {name: metadata.version(name) for name in ("vantage", "jax", "numpy", "gymnasium")}
