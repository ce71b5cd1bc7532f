"""Search for good settings by Optuna, with pruning; go on by the same command."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vantage.cli import UsageError, config_file, live, plan
from vantage.cli.cells import Stopped, together
from vantage.cli.options import Parser, fail_unless_known, lands, of_fields
from vantage.recipe import RECIPES, Recipe

EVALUATIONS = 10
"""How often a trial is evaluated, and may be pruned: when it is below the median of the others at that moment."""
NUMBERS = {"lr": (1e-5, 1e-2), "ent_coef": (1e-8, 0.1), "critic_lr": (1e-5, 1e-2)}
"""What is searched on a logarithmic scale; `critic_lr` only where --optim separate is given."""
CHOICES: dict[str, tuple[Any, ...]] = {
    "gamma": (0.9, 0.95, 0.98, 0.99, 0.995, 0.999),
    "gae_lambda": (0.8, 0.9, 0.95, 0.98, 1.0),
    "clip_range": (0.1, 0.2, 0.3, 0.4),
    "n_epochs": (1, 4, 10, 20),
    "n_minibatches": (1, 4, 16, 64),
    "n_envs": (1, 4, 8, 16),
    "n_steps": (16, 32, 128, 512, 2048),
    "vf_coef": (0.2, 0.5, 0.9),
    "max_grad_norm": (0.3, 0.5, 1.0, 5.0),
    "normalise_observation": (False, True),
    "normalise_reward": (False, True),
}
"""What is searched among these values."""


@dataclass(frozen=True, kw_only=True)
class Tune:
    """The options of `vantage tune` that are about the search; any setting that is given is kept fixed."""

    trials: int = 50
    """How many settings to try in all, earlier ones of the same study included."""
    steps: int | None = None
    """Environment steps of each trial; by default what is tuned for the environment, or 100,000."""
    recipe: str = "ppo"
    """The algorithm."""
    jobs: int = 1
    """How many trials to run at the same time, each in a process of its own."""
    episodes: int = 10
    """Whole episodes, with deterministic actions, of an evaluation."""
    out: str | None = None
    """Folder of the study and of best.toml; by default runs/tune-ENV-RECIPE."""


def main(argv: Sequence[str]) -> int:
    """`vantage tune ENV`."""
    settings = [*plan.recipe_options(), *plan.agent_options()]
    parser = Parser("tune", [*of_fields(Tune, "search"), *settings], {"ENV": "a Gymnasium environment"})
    given = parser.read(argv)
    chosen = Tune(**{name: given.pop(name) for name in Tune.__dataclass_fields__ if name in given})
    fail_unless_known("recipe", chosen.recipe, RECIPES)
    if min(chosen.trials, chosen.episodes, chosen.jobs, chosen.steps or 1) < 1:
        raise UsageError("--trials, --steps, --jobs and --episodes must be at least 1")
    env, fixed = given.pop("ENV"), given | {"recipe": chosen.recipe}
    fixed |= {} if chosen.steps is None else {"steps": chosen.steps}
    plan.make(env, fixed)
    return search(env, fixed, chosen)


def search(env: str, fixed: dict[str, Any], chosen: Tune) -> int:
    """Run the trials that are missing, then write the best settings; 130 if interrupted."""
    optuna = _optuna()
    folder = Path(chosen.out or f"runs/tune-{env.replace('/', '-')}-{chosen.recipe}")
    folder.mkdir(parents=True, exist_ok=True)
    storage = f"sqlite:///{(folder / 'study.db').resolve()}"
    study = optuna.create_study(storage=storage, study_name=env, direction="maximize", load_if_exists=True)
    told = study.user_attrs.get("fixed")
    if told is not None and told != _facts(fixed, chosen):
        raise UsageError(f"{folder} holds a study with other settings: give the old ones, or another folder with --out")
    study.set_user_attr("fixed", _facts(fixed, chosen))
    out, begun = live.console(), len(study.trials)
    workers = [
        Worker(env=env, fixed=fixed, chosen=chosen, storage=storage, begun=begun, number=n) for n in range(chosen.jobs)
    ]
    try:
        if chosen.jobs == 1:
            try_settings(workers[0])
        else:
            together(workers, chosen.jobs, try_settings, lambda worker, found: None)
    except Stopped:
        live.say(out, f"Stopped after {len(study.trials)} trials; the same command goes on.")
        return 130
    return _finish(study, env, fixed, folder, out, optuna.trial.TrialState)


@dataclass(frozen=True, kw_only=True)
class Worker:
    """One of the processes that share a study."""

    env: str
    fixed: dict[str, Any]
    chosen: Tune
    storage: str
    begun: int
    """How many trials the study had when the command began; a later one that is running is another worker's."""
    number: int


def try_settings(worker: Worker) -> None:
    """Run trials until the study has as many as are wanted. Raises `Stopped` if interrupted."""
    optuna, out = _optuna(), live.console()
    states = optuna.trial.TrialState
    study = optuna.load_study(study_name=worker.env, storage=worker.storage)
    # A sampler that began with the same seed each time would propose the same settings again.
    study.sampler = optuna.samplers.TPESampler(seed=worker.begun + 1000 * worker.number)
    study.pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2)
    while _missing(study, worker, states) > 0:
        trial = study.ask()
        try:
            value, state = run(trial, worker.env, worker.fixed, worker.chosen, optuna)
        except KeyboardInterrupt as error:
            study.tell(trial, state=states.FAIL)
            raise Stopped from error
        study.tell(trial, value, state=state)
        shown = f"{value:.1f}" if value is not None else "pruned"
        live.say(out, f"trial {trial.number}: {shown}   {_written(trial.params)}")


def _missing(study: Any, worker: Worker, states: Any) -> int:
    """How many trials are still to be begun."""
    trials = study.get_trials(deepcopy=False, states=(states.COMPLETE, states.PRUNED, states.RUNNING))
    busy = [trial for trial in trials if trial.state != states.RUNNING or trial.number >= worker.begun]
    return worker.chosen.trials - len(busy)


def run(trial: Any, env: str, fixed: dict[str, Any], chosen: Tune, optuna: Any) -> tuple[float | None, Any]:
    """One trial: (mean return of the last evaluation, complete), or (None, pruned). KeyboardInterrupt if stopped."""
    from vantage.callbacks import Evaluate
    from vantage.control import Agent

    states = optuna.trial.TrialState
    try:
        made = plan.make(env, fixed | suggest(trial, fixed))
        agent = Agent(env, **{name: getattr(made.settings, name) for name in made.settings.__dataclass_fields__})

        def report(update: Any) -> bool | None:
            trial.report(update.metrics["eval/mean_reward"], EVALUATIONS * update.steps // made.total_steps)
            return False if trial.should_prune() else None

        every = max(1, made.total_steps // EVALUATIONS)
        learned = agent.learn(
            made.total_steps, [Evaluate(agent, every=every, episodes=chosen.episodes, on_evaluation=report)]
        )
        if learned.stopped == "interrupt":
            raise KeyboardInterrupt
        if learned.stopped is not None:
            return None, states.PRUNED
        return agent.evaluate(chosen.episodes, seed=1).mean, states.COMPLETE
    except (ValueError, ArithmeticError):  # settings that do not go together, or that diverge
        return None, states.PRUNED


def suggest(trial: Any, fixed: dict[str, Any]) -> dict[str, Any]:
    """Values for what the recipe has and what is not fixed."""
    build = RECIPES[fixed["recipe"]]
    own = set(Recipe.__dataclass_fields__) if build().objective.reuses else {"ent_coef"}
    separate = "critic_lr" in fixed or type(fixed.get("optim")).__name__ == "Separate"
    skip = {"lr", "vf_coef"} if separate else {"critic_lr"}
    found = {}
    for name in (*NUMBERS, *CHOICES):
        preset = name in ("gae_lambda", "clip_range")
        foreign = (preset and not lands(build, name)) or (name in Recipe.__dataclass_fields__ and name not in own)
        if name in fixed or name in skip or foreign:
            continue
        if name in NUMBERS:
            found[name] = trial.suggest_float(name, *NUMBERS[name], log=True)
        else:
            found[name] = trial.suggest_categorical(name, CHOICES[name])
    return found


def _facts(fixed: dict[str, Any], chosen: Tune) -> str:
    return repr(sorted(fixed.items())) + repr(chosen.episodes)


def _written(params: dict[str, Any]) -> str:
    return "  ".join(f"{name} {x:.3g}" if isinstance(x, float) else f"{name} {x}" for name, x in params.items())


def _finish(study: Any, env: str, fixed: dict[str, Any], folder: Path, out: Any, states: Any) -> int:
    done = study.get_trials(deepcopy=False, states=(states.COMPLETE,))
    if not done:
        live.say(out, "No trial was completed: give more --trials, or more --steps.")
        return 1
    best, target = study.best_trial, folder / "best.toml"
    config_file.save(target, plan.make(env, fixed | best.params))
    live.say(out, f"Best of {len(study.trials)} trials ({len(done)} complete): {best.value:.1f}, trial {best.number}.")
    live.say(out, f"It had one seed; see whether it holds: vantage train --config {target} --seed 1")
    return 0


def _optuna() -> Any:
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("tuning needs Optuna: pip install 'vantage[tune]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
