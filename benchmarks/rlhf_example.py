"""The RLHF example over three seeds: what PPO gains on held-out prompts, against best-of-8, and where the KL ends."""

import argparse
import logging
import os
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._cells import IMAGES, RESULTS, interval, kept, markdown

SEEDS = range(3)


def measure(seed: int) -> dict[str, Any]:
    """One run of the example, from the corpus to the verdict."""
    from datasets import disable_progress_bars

    from examples import rlhf

    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    disable_progress_bars()
    began, cpu = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        _, result = rlhf.run(seed, rlhf.EPISODES, Path(folder))
        rlhf.draw(result, IMAGES / "rlhf_example.png") if seed == 0 else None
    gain, error = (
        result.after.mean - result.before.mean,
        np.hypot(result.after.standard_error, result.before.standard_error),
    )
    return {
        "before": result.before.mean,
        "after": result.after.mean,
        "gain": gain,
        "standard_errors": gain / float(error),
        "best_of_8": result.best_of_8,
        "share_of_best_of_8": gain / (result.best_of_8 - result.before.mean),
        "liking": [
            float(np.mean([rlhf.liking(s.completion) for s in e.samples])) for e in (result.before, result.after)
        ],
        "kl_last_third": rlhf.kl_of_last_third(result),
        "target_kl": rlhf.TARGET_KL,
        "seconds": {**result.seconds, "in all": time.perf_counter() - began},
        "cpu_seconds": time.process_time() - cpu,
        "load": os.getloadavg()[0],
        "curve": [[s, e.mean] for s, e in result.evaluations],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="*", default=list(SEEDS))
    cells = [RESULTS / "rlhf_example" / f"{seed}.json" for seed in parser.parse_args().seeds]
    found = [kept(cell, lambda seed=int(cell.stem): measure(seed)) for cell in cells]
    rows = [
        (
            cell.stem, f"{x['before']:.2f}", f"{x['after']:.2f}",
            f"{x['standard_errors']:.1f}", f"{x['best_of_8']:.2f}",
            f"{x['share_of_best_of_8']:.0%}", f"{x['liking'][0]:+.2f} → {x['liking'][1]:+.2f}",
            f"{x['kl_last_third']:.2f} of {x['target_kl']:g}", f"{x['cpu_seconds']:.0f}",
        )
        for cell, x in zip(cells, found, strict=True)
    ]  # fmt: skip
    header = ("seed", "before", "after", "gain / standard error", "best of 8", "share of its gain", "reader's liking",
              "KL, last third", "CPU seconds")  # fmt: skip
    print(markdown(header, rows))
    for name in ("gain", "share_of_best_of_8", "kl_last_third"):
        half, mean = interval(np.array([x[name] for x in found]))
        print(f"{name}: {mean:.3f} ± {half:.3f} (95 % over {len(found)} seeds)")


if __name__ == "__main__":
    main()
