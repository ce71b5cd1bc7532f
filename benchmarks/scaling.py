"""How speed and memory grow with what is asked for: `python -m benchmarks.scaling [STUDY …]`.

Steps/s of whole training against the number of environments, the width of the networks and the minibatch; peak memory
against the size of the rollout. Each cell trains for some seconds in a process of its own under a profile, is kept as a
JSON file under `benchmarks/results/scaling/` and not run again; `--new 5` runs five more and stops, `--report` none. It
ends with the table of fitted exponents and a log-log figure.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._cells import IMAGES, RESULTS, kept, markdown, read

FOLDER = RESULTS / "scaling"
SECONDS = 3.0
"""How long a cell is measured, once it has compiled."""
Result = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Setup:
    """One training, 4 epochs."""

    env: str = "CartPole-v1"
    n_envs: int = 64
    n_steps: int = 32
    batch_size: int = 512
    width: int = 64


@dataclass(frozen=True, kw_only=True)
class Study:
    """One quantity varied while the others stay."""

    of: str
    """What is varied, in words."""
    setups: dict[int, Setup]
    figure: str = "steps/s"


def over_environments(env: str) -> dict[int, Setup]:
    """32 steps of each environment a rollout, always 4 minibatches."""
    return {n: Setup(env=env, n_envs=n, batch_size=8 * n) for n in (1, 4, 16, 64, 256, 1024, 4096)}


STUDIES = {
    "environments": Study(of="environments, Gymnasium", setups=over_environments("CartPole-v1")),
    "environments-jax": Study(of="environments, gymnax", setups=over_environments("gymnax:CartPole-v1")),
    "width": Study(of="width of both layers", setups={n: Setup(width=n) for n in (64, 128, 256, 512, 1024)}),
    "minibatch": Study(
        of="minibatch", setups={n: Setup(n_steps=64, batch_size=n) for n in (32, 64, 128, 256, 512, 1024, 2048, 4096)}
    ),
    "memory": Study(
        of="rows of the rollout", figure="MB",
        setups={64 * t: Setup(n_steps=t, batch_size=1024) for t in (16, 64, 256, 1024, 4096)},
    ),
}  # fmt: skip


# ---- running ----


def cell(setup: Setup) -> Result:
    """Train for some seconds in this process: steps/s, microseconds a step by part, and peak memory in MB."""
    import vantage as vt
    from vantage.callbacks import Profile
    from vantage.control import MLP

    profile, began = Profile(), 0.0

    def going(update: Any) -> bool:
        nonlocal began
        began = began or time.perf_counter()
        return profile.updates < 2 or time.perf_counter() - began < SECONDS

    minibatches = setup.n_envs * setup.n_steps // setup.batch_size
    agent = vt.Agent(
        setup.env, vt.PPO(n_epochs=4, n_minibatches=minibatches), n_envs=setup.n_envs, n_steps=setup.n_steps,
        network=MLP(hidden=(setup.width, setup.width)), seed=0,
    )  # fmt: skip
    agent.learn(10**12, [profile, going])
    parts = {row["part"]: round(row["us_per_step"], 4) for row in profile.rows()}
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"steps/s": 1e6 / sum(parts.values()), "us a step": parts, "updates": profile.updates, "MB": memory}


def apart(setup: Setup) -> Result:
    """The second of two runs, each in a process of its own: memory is then not that of the compiler."""
    words = [sys.executable, "-m", "benchmarks.scaling", "--cell", json.dumps(asdict(setup))]
    with tempfile.TemporaryDirectory() as cache:
        for _ in range(2):
            surroundings = os.environ | {"VANTAGE_CACHE": cache}
            done = subprocess.run(words, env=surroundings, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(done.stderr[-600:])
    return json.loads(done.stdout.splitlines()[-1])


def path(study: str, n: int) -> Path:
    """Where a cell is kept."""
    return FOLDER / f"{study}__{n}.json"


def measure(study: str, new: int) -> int:
    """Run the missing cells, at most `new`; how many were run."""
    missing = [n for n in STUDIES[study].setups if not path(study, n).exists()][:new]
    for n in missing:
        found = kept(path(study, n), partial(apart, STUDIES[study].setups[n]))
        print(
            f"{study} {n}: {found['steps/s']:,.0f} steps/s, {found['MB']:.0f} MB, mostly {dominant(found)}", flush=True
        )
    return len(missing)


# ---- telling ----


def dominant(found: Result) -> str:
    """The part of the run with the largest share, and its share."""
    parts = found["us a step"]
    name = max(parts, key=parts.get)
    return f"{name} {parts[name] / sum(parts.values()):.0%}"


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """k of y ∝ xᵏ by least squares in logarithms; NaN with fewer than two points."""
    if len(x) < 2:
        return float("nan")
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def cells(study: str) -> dict[int, Result]:
    """Those that exist."""
    return {n: found for n in STUDIES[study].setups if (found := read(path(study, n))) is not None}


def values(study: str) -> tuple[list[int], list[float]]:
    """x and y of the figure; memory is what comes on top of the smallest rollout's."""
    found = cells(study)
    if STUDIES[study].figure != "MB":
        return list(found), [each["steps/s"] for each in found.values()]
    least = min((each["MB"] for each in found.values()), default=0.0)
    kept_ = {n: each["MB"] - least for n, each in found.items() if each["MB"] > least}
    return list(kept_), list(kept_.values())


def table() -> str:
    """Each study's cells, the fitted exponents (all points, last three), and what takes the time at either end."""
    rows = []
    for study, made in STUDIES.items():
        found, (x, y) = cells(study), values(study)
        if not found:
            rows.append([made.of, "unfinished", "", "", "", ""])
            continue
        missing = len(made.setups) - len(found)
        shown = ", ".join(f"{n:,}: {each[made.figure]:,.0f}" for n, each in found.items())
        ends = [dominant(found[min(found)]), dominant(found[max(found)])]
        fits = [f"{exponent(x, y):.2f}", f"{exponent(x[-3:], y[-3:]):.2f}"]
        rows.append([made.of, shown + (f"; {missing} unfinished" if missing else ""), *fits, *ends])
    return markdown(
        ["against", "steps/s, or peak MB", "exponent", "last three", "most time, least", "… and most"], rows
    )


def figure() -> None:
    """Four panels, logarithmic in both directions."""
    import matplotlib.pyplot as plt

    panels = (("environments", "environments-jax"), ("width",), ("minibatch",), ("memory",))
    fig, axes = plt.subplots(1, 4, figsize=(15.0, 3.4))
    for ax, studies in zip(axes, panels, strict=True):
        for color, study in zip(("#1f77b4", "#d62728"), studies, strict=False):
            x, y = values(study)
            if len(x) > 1:
                ax.loglog(x, y, "o-", color=color, label=f"{STUDIES[study].of}: {exponent(x[-3:], y[-3:]):+.2f}")
        memory = STUDIES[studies[0]].figure == "MB"
        ax.set(xlabel=STUDIES[studies[0]].of.partition(",")[0], ylabel="MB more" if memory else "steps/s")
        ax.spines[["top", "right"]].set_visible(False)
        if ax.lines:
            ax.legend(frameon=False, fontsize=8, title="exponent of the last three", title_fontsize=8)
    fig.tight_layout()
    fig.savefig(IMAGES / "scaling.png", dpi=110, metadata={"Software": None})


def main() -> None:
    """Run the missing cells, then write table and figure of those that exist."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="*", metavar="STUDY", help=", ".join(STUDIES))
    parser.add_argument("--new", type=int, default=10**6, help="cells to run at most, now")
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.cell:
        print("\n" + json.dumps(cell(replace(Setup(), **json.loads(given.cell)))))
        return
    left = 0 if given.report else given.new
    for study in given.studies or STUDIES:
        left -= measure(study, left)
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "table.md").write_text(table() + "\n")
    print("\n" + table())
    figure()


if __name__ == "__main__":
    main()
