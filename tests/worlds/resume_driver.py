"""Trains in a child process, kills it with SIGKILL at random moments, resumes, and compares with a run left alone.

python resume_driver.py ENV FOLDER SEED prints two hashes of everything learned: undisturbed, and killed five times.
"""

import hashlib
import os
import random
import signal
import sys
import time
from pathlib import Path

import vantage as vt
from vantage.control import MLP, Agent
from vantage.loop import Callback, Update

KILLS, UPDATES, ROWS = 5, 60, 16


class Tell(Callback):
    """Says through a pipe that an update is done."""

    def __init__(self, pipe: int) -> None:
        self.pipe = pipe

    def on_update(self, update: Update) -> None:
        os.write(self.pipe, b".")


def fresh(env: str) -> Agent:
    return Agent(env, vt.PPOPenalty(n_epochs=2, n_minibatches=2), n_envs=6, n_steps=ROWS, network=MLP(hidden=(8,)),
                 optim=vt.Joint(lr=vt.Linear(1e-2)), normalise_reward=True, seed=7)  # fmt: skip


def train(env: str, path: Path, pipe: int) -> None:
    """One process's life: go on where the file stands, or begin."""
    agent = Agent.resume(path) if path.exists() else fresh(env)
    agent.learn(UPDATES * ROWS * 5, [Tell(pipe)], checkpoint=path, checkpoint_every=1)


def child(env: str, path: Path, kill_after: int | None, pause: float) -> int:
    """Run `train` in a fork, killed `pause` seconds after update `kill_after`; returns the updates it told of."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        train(env, path, write)
        os._exit(0)
    os.close(write)
    told = 0
    while kill_after is None or told < kill_after:
        if not os.read(read, 1):
            break
        told += 1
    if kill_after is not None:
        time.sleep(pause)
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(read)
    return told


def digest(path: Path) -> str:
    state = vt.load(path)._restored
    assert state is not None
    parts = {**state.arrays["parameters"], **state.arrays["optimiser"], **state.arrays["return_moments"]}
    data = b"".join(name.encode() + x.tobytes() for name, x in sorted(parts.items()))
    return hashlib.sha256(data + repr(sorted(state.counters["episodes"])).encode()).hexdigest()


def main() -> None:
    env, folder, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    chance = random.Random(seed)
    child(env, folder / "undisturbed", None, 0.0)
    for _ in range(KILLS):
        child(env, folder / "killed", chance.randint(1, UPDATES // KILLS), chance.uniform(0.0, 0.02))
    child(env, folder / "killed", None, 0.0)
    sys.stdout.write(f"{digest(folder / 'undisturbed')} {digest(folder / 'killed')}\n")


if __name__ == "__main__":
    main()
