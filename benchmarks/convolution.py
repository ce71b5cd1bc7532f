"""Forward and backward of NatureCNN on 84 × 84 × 4 pictures beside PyTorch's: `python -m benchmarks.convolution`.

Our gradient stands inside a loop, as it does in training. Processor time is compared as well as elapsed time, because
it is what other programs on the machine disturb less.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vantage.control import NatureCNN
from vantage.control.networks import Image, Inputs, forward

SHAPE = (84, 84, 4)


def ours(pictures: np.ndarray) -> Callable[[], object]:
    """The gradient of Σ out² in the parameters, one minibatch after another in one compiled loop."""
    image = Image(start=0, height=SHAPE[0], width=SHAPE[1], channels=SHAPE[2])
    network = NatureCNN().build(np.random.default_rng(0), Inputs(size=image.size, images=(image,)), 5, 1.0)

    def descend(network, batch):
        features = batch.reshape(len(batch), -1).astype(jnp.float32) / 255
        gradient = jax.grad(lambda net: jnp.sum(forward(net, features) ** 2))(network)
        return jax.tree.map(lambda x, g: x - 1e-9 * g, network, gradient), None

    run = jax.jit(lambda network: lax.scan(descend, network, pictures)[0])
    network = jax.tree.map(jnp.asarray, network)
    return lambda: jax.block_until_ready(jax.tree.leaves(run(network)))


def torchs(pictures: np.ndarray) -> Callable[[], object]:
    """The same in PyTorch."""
    from torch import nn, tensor

    sizes = ((4, 32, 8, 4), (32, 64, 4, 2), (64, 64, 3, 1))
    layers = [layer for i, o, k, s in sizes for layer in (nn.Conv2d(i, o, k, s), nn.ReLU())]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, 5))
    batches = tensor(pictures).permute(0, 1, 4, 2, 3).contiguous()

    def run() -> None:
        for batch in batches:
            network(batch.float() / 255).square().sum().backward()

    return run


def main(argv: Sequence[str] | None = None) -> None:
    """Print frames per second and the ratio of processor times, medians of interleaved runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch")
    parser.add_argument("--runs", type=int, default=7)
    given = parser.parse_args(argv)
    import torch

    torch.set_num_threads(given.threads)
    pictures = np.random.default_rng(0).integers(0, 256, (2, given.batch, *SHAPE), dtype=np.uint8)
    rows = {"vantage": ours(pictures), "torch": torchs(pictures)}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in rows}
    for repeat in range(given.runs + 1):
        for name, run in rows.items():
            elapsed, busy = time.perf_counter(), time.process_time()
            run()
            if repeat:  # the first compiles
                taken[name].append((time.perf_counter() - elapsed, time.process_time() - busy))
    wall, cpu = ({name: statistics.median(x[i] for x in runs) for name, runs in taken.items()} for i in (0, 1))
    for name in rows:
        frames = 2 * given.batch
        print(f"{name:8} {frames / wall[name]:7.0f} frames/s, {frames / cpu[name]:7.0f} a second of processor time")
    print(f"processor time: {cpu['vantage'] / cpu['torch']:.2f} × PyTorch's on {given.threads} thread(s)")


if __name__ == "__main__":
    main()
