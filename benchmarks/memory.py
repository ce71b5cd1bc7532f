"""What remembering is worth: `python -m benchmarks.memory [--delays 8] [--seeds 3]`.

A cue is shown at the first step only and has to be named at the last, `delay` steps later. LSTM, GRU and the perceptron
learn with equal settings; a policy without memory is right half of the time, whatever it does. Each cell (network,
delay, seed) is kept as a JSON file under `benchmarks/results/memory/`; one that exists is not run again. It ends with a
table and a figure.
"""

import argparse
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete

import vantage as vt
from benchmarks._cells import IMAGES, RESULTS, band, curve, interval, kept, markdown, read
from vantage.control import GRU, LSTM, MLP

FOLDER = RESULTS / "memory"
STEPS = 30_000
NETWORKS = {
    "LSTM": LSTM(hidden=32, after=MLP(hidden=())),
    "GRU": GRU(hidden=32, after=MLP(hidden=())),
    "MLP": MLP(hidden=(64, 64)),
}


class Recall(gym.Env):
    """Shows a cue of ±1 once, then nothing but whether it is time to answer; 1 for the right answer, else 0.

    Observes (cue or 0, 1 at the last step); episodes of `delay` + 1 steps.
    """

    def __init__(self, delay: int) -> None:
        self.observation_space, self.action_space, self.delay = Box(-1.0, 1.0, (2,), np.float32), Discrete(2), delay

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.t, self.cue = 0, int(self.np_random.integers(2))
        return self._see(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        over = self.t == self.delay
        self.t += 1
        return self._see(), float(over and action == self.cue), over, False, {}

    def _see(self) -> np.ndarray:
        return np.array([2.0 * self.cue - 1.0 if self.t == 0 else 0.0, self.t == self.delay], np.float32)


def build(network: str, delay: int, seed: int) -> vt.Agent:
    """The same for every network, delay and seed."""
    recipe = vt.PPO(n_epochs=4, n_minibatches=4, ent_coef=0.01)
    return vt.Agent(
        partial(Recall, delay), recipe, network=NETWORKS[network], n_envs=32, n_steps=32, optim=vt.Joint(lr=3e-3),
        seed=seed,
    )  # fmt: skip


def run(network: str, delay: int, seed: int) -> dict[str, Any]:
    """One cell: train, then play 200 episodes, the most probable action in each step."""
    agent, began = build(network, delay, seed), time.perf_counter()
    report = agent.learn(STEPS)
    if report.stopped is not None:
        raise KeyboardInterrupt  # half a run is no result
    seconds = round(time.perf_counter() - began, 2)
    played = agent.evaluate(200, seed=10_000 + seed)
    told = {"network": network, "delay": delay, "seed": seed, "steps": agent.steps, "seconds": seconds}
    return {**told, "right": played.mean, "curve": curve(report.rows, "rollout/ep_rew_mean")}


def path(network: str, delay: int, seed: int) -> Path:
    """Where a cell is kept."""
    return FOLDER / f"{network}__{delay}__{seed}.json"


def table(delays: Sequence[int], seeds: int) -> str:
    """Markdown of the cells that exist."""
    rows = []
    for network in NETWORKS:
        for delay in delays:
            cells = [cell for seed in range(seeds) if (cell := read(path(network, delay, seed))) is not None]
            count = f"{len(cells)}" if len(cells) == seeds else f"{len(cells)} of {seeds}, unfinished"
            if not cells:
                rows.append([network, f"{delay}", count, "—", "—"])
                continue
            half, mean = interval(np.array([cell["right"] for cell in cells]))
            spent = np.mean([cell["seconds"] for cell in cells])
            rows.append([network, f"{delay}", count, f"{100 * mean:.1f} ± {100 * half:.1f} %", f"{spent:.0f} s"])
    return markdown(["network", "steps between cue and answer", "runs", "right answers, mean ± 95 %", "time"], rows)


def figure(delays: Sequence[int], seeds: int) -> None:
    """The share of right answers while training, a panel for each delay."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, len(delays), figsize=(5.0 * len(delays), 3.2), sharey=True, squeeze=False)
    for ax, delay in zip(axes[0], delays, strict=True):
        for color, network in zip(("#1f77b4", "#2ca02c", "#d62728"), NETWORKS, strict=True):
            cells = [cell for seed in range(seeds) if (cell := read(path(network, delay, seed))) is not None]
            if cells:
                band(ax, [cell["curve"] for cell in cells], color=color, label=network)
        ax.axhline(0.5, color="0.6", lw=0.8, ls=":")
        ax.set(title=f"cue {delay} steps before the answer", xlabel="environment steps", ylim=(0.4, 1.02))
    axes[0, 0].set_ylabel("share of right answers")
    axes[0, 0].legend(frameon=False)
    fig.tight_layout()
    fig.savefig(IMAGES / "memory.png", dpi=130)


def main() -> None:
    """Run the missing cells, then write table and figure of those that exist."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--delays", nargs="+", type=int, default=[8])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--show", action="store_true", help="run nothing, only print the table")
    given = parser.parse_args()
    cells = [(network, delay, seed) for delay in given.delays for network in NETWORKS for seed in range(given.seeds)]
    for network, delay, seed in () if given.show else cells:
        done = kept(path(network, delay, seed), partial(run, network, delay, seed))
        print(f"{network}, delay {delay}, seed {seed}: {done['right']:.2f} in {done['seconds']:.0f} s", flush=True)
    print("\n" + table(given.delays, given.seeds))
    (FOLDER / "table.md").write_text(table(given.delays, given.seeds) + "\n")
    figure(given.delays, given.seeds)


if __name__ == "__main__":
    main()
