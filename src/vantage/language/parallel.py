"""Several processes as one: each takes a share of the columns, and every sum is over all of them."""

import os
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from vantage.language import sharding

Tensor = torch.Tensor


@dataclass(frozen=True, kw_only=True)
class Processes:
    """This process among those that train together; alone, nothing is sent."""

    rank: int = 0
    size: int = 1

    @staticmethod
    def join(expected: int | None = None) -> "Processes":
        """The group that `torchrun` or `accelerate launch` made, or one process.

        Raises RuntimeError where `expected` processes were asked for and another number runs.
        """
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        asked = _asked_of_accelerate() if expected is None else expected
        if asked is not None and asked != size:
            raise RuntimeError(
                f"{asked} processes were asked for and {size} {'runs' if size == 1 else 'run'}: start them by "
                f"torchrun --nproc_per_node {asked} (accelerate launch without --multi_gpu or --cpu starts one)"
            )
        return Processes(rank=rank, size=size)

    @property
    def first(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def share(self, n: int) -> slice:
        """This process's part of n columns in order: blocks whose sizes are alike."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def add_gradients(self, parameters: list[Any]) -> None:
        """Replace each gradient by the sum over the processes; of sharded parameters it is the mean so far."""
        if self.size == 1:
            return
        for p in parameters:
            if isinstance(p, DTensor):
                if p.grad is not None:
                    p.grad.mul_(self.size)
                continue
            if p.grad is None:
                p.grad = torch.zeros_like(p)
            dist.all_reduce(p.grad)

    def norm(self, gradients: list[Tensor]) -> float:
        """√Σ‖g‖² of gradients that are the same in every process."""
        if not gradients:
            return 0.0
        norms = [torch.linalg.vector_norm(g) for g in gradients]
        return float(torch.linalg.vector_norm(torch.stack([sharding.whole(x) for x in norms])))

    def interleave(self, records: dict[str, Tensor], columns: int) -> dict[str, Tensor]:
        """`[T, N/size]` records of columns rank, rank + size, … put together to `[T, N]`."""
        if self.size == 1:
            return records
        joined = {}
        for name, x in records.items():
            parts: list[Any] = [None] * self.size
            dist.all_gather_object(parts, x.cpu())
            whole = x.new_zeros((x.shape[0], columns))
            for rank, part in enumerate(parts):
                whole[:, rank :: self.size] = part.to(x.device)
            joined[name] = whole
        return joined

    def gather(self, mine: Any) -> list[Any]:
        """What every process has, in the order of their ranks."""
        if self.size == 1:
            return [mine]
        parts: list[Any] = [None] * self.size
        dist.all_gather_object(parts, mine)
        return parts


def is_first() -> bool:
    """Whether this process is the first of those that a launcher started, known before they have met."""
    return os.environ.get("RANK", "0") == "0"


def own_device() -> torch.device:
    """The GPU that a launcher meant for this process, or the CPU."""
    gpu = torch.cuda.is_available()
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if gpu else torch.device("cpu")


def _asked_of_accelerate() -> int | None:
    """How many processes `accelerate launch` was asked for, where it may have started fewer without a word."""
    if "ACCELERATE_MIXED_PRECISION" not in os.environ:
        return None
    try:
        with open(f"/proc/{os.getppid()}/cmdline", "rb") as file:
            words = file.read().decode(errors="replace").split("\0")
    except OSError:
        return None
    for word, following in pairwise([*words, ""]):
        name, _, value = word.partition("=")
        if name in ("--num_processes", "--num-processes"):
            return int(value or following)
    return None
