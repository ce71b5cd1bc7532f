"""What each algorithm learns where the answer is known: `python -m benchmarks.exact_worlds [RECIPE …] [--seeds 5]`.

The agents are trained as anywhere else; then the actor, asked for every state, gives the learned policy as a table
whose J is solved for, not sampled. Each cell (world, recipe, seed) is kept as a JSON file under
`benchmarks/results/exact_worlds/`; one that exists is not run again. It ends with a table.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Discrete
from gymnasium.wrappers import vector

import vantage as vt
from benchmarks._cells import RESULTS, interval, kept, markdown
from vantage.control import MLP
from vantage.mdp import MDP, classics, exact, solve
from vantage.mdp.env import MDPEnv, MDPVectorEnv
from vantage.mdp.model import uniform

FOLDER = RESULTS / "exact_worlds"
VISITED = 0.01
"""V is compared in the states where at least this share of all decisions is made; elsewhere nothing is learned."""


@dataclass(frozen=True, kw_only=True)
class World:
    """An MDP as an agent sees it, and what counts as solved. An instance is a source of environments."""

    name: str
    mdp: MDP
    seen: np.ndarray
    """What the agent observes in each state: its number, `[S]`; the network reads it one-hot."""
    max_steps: int
    total_steps: int
    bar: float
    """Least score."""
    gae_lambda: float = 0.95
    ent_coef: float = 0.1
    """Of the entropy bonus at the start of the run; at its end there is none."""
    relative: bool = False
    """Whether the score is the share of the way from the uniform policy's J to J*, in %, rather than J."""

    def __call__(self) -> gym.Env:
        return gym.wrappers.TransformObservation(MDPEnv(self.mdp, self.max_steps), self._see, self._space)

    def make_vector(self, slots: int) -> gym.vector.VectorEnv:
        """All slots in one environment."""
        env = MDPVectorEnv(self.mdp, slots, self.max_steps)
        return vector.TransformObservation(env, self._see, single_observation_space=self._space)

    def _see(self, state: Any) -> Any:
        return self.seen[state]

    @property
    def _space(self) -> Discrete:
        return Discrete(int(self.seen.max()) + 1)

    @cached_property
    def ends(self) -> tuple[float, float]:
        """J of the uniform policy, and J*."""
        best = solve.value_iteration(self.mdp)
        return exact.expected_return(self.mdp, uniform(self.mdp)), float(self.mdp.rho @ best.values)

    def score(self, J: float) -> float:
        """J itself, or the share of the way to J* in %."""
        worst, best = self.ends
        return 100.0 * (J - worst) / (best - worst) if self.relative else J

    def policy(self, agent: vt.Agent) -> np.ndarray:
        """π(a|s) of the agent in every state, `[S, A]`, float64."""
        p = agent.action_probabilities(self.seen).astype(np.float64)
        return p / p.sum(axis=1, keepdims=True)

    def value_error(self, agent: vt.Agent) -> float:
        """max |V_φ − V_π| over the visited states, in units of V_π's range over them.

        Where states look the same, V_π is its mean over them, weighted by visits: the best that such a critic can say.
        """
        pi = self.policy(agent)
        V, visits = exact.state_values(self.mdp, pi), exact.occupancy(self.mdp, pi)
        same = self.seen[:, None] == self.seen
        here = visits >= VISITED * visits.sum()
        target = (same @ (visits * V))[here] / (same @ visits)[here]
        return float(np.abs(agent.state_values(self.seen)[here] - target).max() / np.ptp(V[here]))


def corridor() -> World:
    """The short corridor, whose states look the same: the best policy is stochastic, J* = −(6+4√2) = −11.657.

    A critic that cannot tell states apart would only mislead Ψ, hence λ = 1.
    """
    mdp, seen = classics.corridor(), np.zeros(4, int)
    return World(name="corridor", mdp=mdp, seen=seen, max_steps=1000, total_steps=200_000, bar=-11.75, gae_lambda=1.0)


def cliff() -> World:
    """The cliff, cut after 200 steps: J* = −13. One row further from the edge a greedy policy returns −15, and a
    policy that is certain of this too early stays there; hence the larger entropy bonus.
    """
    mdp = classics.cliff()
    return World(name="cliff", mdp=mdp, seen=np.arange(48), max_steps=200, total_steps=400_000, bar=-15.0, ent_coef=0.6)


def random_world(seed: int) -> World:
    """12 states, 2 of them terminal, 4 actions, 3 successors, γ = 0.95, cut after 100 steps."""
    mdp = classics.random_mdp(12, 4, 0.95, seed=seed, branching=3, n_terminal=2)
    return World(
        name=f"random {seed}", mdp=mdp, seen=np.arange(12), max_steps=100, total_steps=400_000, bar=98.0, relative=True
    )


def reinforce(world: World, **options: Any) -> vt.Recipe:
    """Whole episodes, no critic; the baseline is the mean return from the same observation."""
    return vt.REINFORCE(psi=vt.RewardToGo(baseline=vt.StateMean()), whiten="batch", **options)


def a2c(world: World, **options: Any) -> vt.Recipe:
    """Ψ from the critic, each rollout used once."""
    return vt.A2C(psi=vt.GAE(lam=world.gae_lambda), whiten="batch", **options)


def trpo(world: World, **options: Any) -> vt.Recipe:
    """A natural step has no learning rate to anneal: δ takes its place."""
    return vt.TRPO(delta=vt.Linear(0.05), n_epochs=4, n_minibatches=4, gae_lambda=world.gae_lambda, **options)


def ppo(world: World, **options: Any) -> vt.Recipe:
    """The defaults."""
    return vt.PPO(gae_lambda=world.gae_lambda, **options)


def ppo_penalty(world: World, **options: Any) -> vt.Recipe:
    """The defaults."""
    return vt.PPOPenalty(gae_lambda=world.gae_lambda, **options)


RECIPES: dict[str, tuple[Callable[..., vt.Recipe], int, int, float, int]] = {
    "reinforce": (reinforce, 32, 8, 0.2, 3),
    "a2c": (a2c, 64, 8, 0.1, 1),
    "trpo": (trpo, 64, 32, 0.05, 1),
    "ppo": (ppo, 64, 32, 0.05, 1),
    "ppo-penalty": (ppo_penalty, 64, 32, 0.05, 1),
}
"""Recipe, B, T, the actor's learning rate, and how many times the world's steps: the same for every world and seed."""
WORLDS = (corridor(), cliff(), *map(random_world, range(5)))


def build(world: World, recipe: str, seed: int, **options: Any) -> vt.Agent:
    """A tabular agent: linear networks on one-hot states, two optimisers, everything annealed, entropy bonus too."""
    make, n_envs, n_steps, lr, _ = RECIPES[recipe]
    optim = vt.Separate(actor_lr=vt.Linear(lr, lr / 100), critic_lr=vt.Linear(0.3, 0.003), max_grad_norm=None)
    given = {"n_envs": n_envs, "n_steps": n_steps, "optim": optim, "network": MLP(hidden=()), **options}
    return vt.Agent(world, make(world, ent_coef=vt.Linear(world.ent_coef)), gamma=world.mdp.gamma, seed=seed, **given)


def measure(world: World, agent: vt.Agent) -> dict[str, Any]:
    """J of the learned policy, solved for; of its greedy version, within the time limit; and the critic's error."""
    pi = world.policy(agent)
    greedy = np.eye(world.mdp.n_actions)[pi.argmax(axis=1)]
    J = exact.expected_return(world.mdp, pi)
    return {
        "J": J,
        "score": world.score(J),
        "greedy_J": exact.expected_return(world.mdp, greedy, horizon=world.max_steps),
        "value_error": world.value_error(agent) if agent.settings.recipe.critic is not None else None,
    }


def run(world: World, recipe: str, seed: int) -> dict[str, Any]:
    """One cell: train, then measure."""
    agent, began = build(world, recipe, seed), time.perf_counter()
    report = agent.learn(RECIPES[recipe][-1] * world.total_steps)
    if report.stopped is not None:
        raise KeyboardInterrupt  # half a run is no result
    told = {"world": world.name, "recipe": recipe, "seed": seed, "steps": agent.steps}
    return {**told, "seconds": round(time.perf_counter() - began, 2), **measure(world, agent)}


def path(world: World, recipe: str, seed: int) -> Path:
    """Where a cell is kept."""
    return FOLDER / f"{world.name.replace(' ', '-')}__{recipe}__{seed}.json"


def table(recipes: Sequence[str], seeds: int) -> str:
    """Markdown of the cells that exist: a row for each kind of world and recipe, over its MDPs and seeds."""
    header = "world|recipe|runs|score, mean ± 95 %|worst|greedy, worst|V_φ error, median|bar|reached"
    kinds = [WORLDS[:1], WORLDS[1:2], WORLDS[2:]]
    return markdown(header.split("|"), [_row(worlds, recipe, seeds) for worlds in kinds for recipe in recipes])


def _row(worlds: Sequence[World], recipe: str, seeds: int) -> list[str]:
    world, unit = worlds[0], " %" if worlds[0].relative else ""
    name = f"{len(worlds)} random MDPs" if world.relative else world.name
    cells = [(w, path(w, recipe, seed)) for w in worlds for seed in range(seeds)]
    runs = [(w, json.loads(file.read_text())) for w, file in cells if file.exists()]
    count = f"{len(runs)}" if len(runs) == len(cells) else f"{len(runs)} of {len(cells)}, unfinished"
    if not runs:
        return [name, recipe, count, *["—"] * 4, f"≥ {world.bar:g}{unit}", "—"]
    scores = np.array([result["score"] for _, result in runs])
    greedy = min(w.score(result["greedy_J"]) for w, result in runs)
    errors = [result["value_error"] for _, result in runs if result["value_error"] is not None]
    half, mean = interval(scores)
    return [
        name,
        recipe,
        count,
        f"{mean:.2f} ± {half:.2f}{unit}",
        f"{scores.min():.2f}{unit}",
        f"{greedy:.2f}{unit}",
        f"{100 * np.median(errors):.1f} %" if errors else "no critic",
        f"≥ {world.bar:g}{unit}",
        f"{(scores >= world.bar).sum()} of {len(runs)}",
    ]


def main() -> None:
    """Run the missing cells, then print the table of those that exist."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=list(RECIPES), metavar="RECIPE", help=f"of {', '.join(RECIPES)}")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--show", action="store_true", help="run nothing, only print the table")
    given = parser.parse_args()
    for world in () if given.show else WORLDS:
        for recipe in given.recipes:
            for seed in range(given.seeds):
                done = kept(path(world, recipe, seed), partial(run, world, recipe, seed))
                print(f"{world.name} {recipe} seed {seed}: {done['score']:.3f} in {done['seconds']:.0f} s", flush=True)
    print("\n" + table(given.recipes, given.seeds))
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "table.md").write_text(table(list(RECIPES), given.seeds) + "\n")


if __name__ == "__main__":
    main()
