"""All methods on the toy distributions for the same time: the table of docs/methods.md.

    python tests/benchmarks/methods.py    # 60 s each, seeds 0 to 2, two at a time
    python tests/benchmarks/methods.py --methods gan,r3gan --data grid --seconds 20 --seeds 0

Each run is ``tinygan train DATA --method M --seconds T --seed S`` in a process of its own, on one
BLAS thread. A cell holds a score of 2,500 samples of the averaged generator after the last step:
the median over the seeds, with the lowest and the highest.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tinygan.training import METHODS  # noqa: E402


def run(out: Path, source: str, method: str, seed: int, seconds: float, net: str = "mlp") -> dict:
    """The number of steps and the last scores of one run, whose files go to the folder ``out``."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tinygan", "train", source, "--method", method, "--net", net,
               "--seed", str(seed), "--seconds", str(seconds), "--device", "cpu", "--out", str(out)]
    subprocess.run(command, check=True, env=environment, capture_output=True)
    about = json.loads((out / "run.json").read_text())
    print(source, method, seed, about["steps_done"], about["last"], file=sys.stderr, flush=True)
    return about["last"] | {"steps": about["steps_done"]}


def cell(runs: list[dict], name: str, form: str) -> str:
    """Median (lowest to highest) of a score."""
    values = [r[name] for r in runs]
    low, middle, high = (format(score(values), form) for score in (min, statistics.median, max))
    return middle if low == high else f"{middle} ({low} to {high})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--data", default="ring,grid")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    options = parser.parse_args()
    methods, sources = options.methods.split(","), options.data.split(",")
    seeds = [int(seed) for seed in options.seeds.split(",")]
    cases = list(product(sources, methods, seeds))
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(options.jobs) as pool:
        jobs = [pool.submit(run, Path(place, "-".join(map(str, case))), *case, options.seconds)
                for case in cases]
        found = {case: job.result() for case, job in zip(cases, jobs)}
    for source in sources:
        print(f"\n| {source} | steps | modes | high quality | reverse KL |\n|---|---|---|---|---|")
        for method in methods:
            runs = [found[source, method, seed] for seed in seeds]
            steps = statistics.median(r["steps"] for r in runs)
            print(f"| `{method}` | {steps:,.0f} | {cell(runs, 'modes', '.0f')} | "
                  f"{cell(runs, 'high_quality', '.1%')} | {cell(runs, 'reverse_kl', '.3f')} |")


if __name__ == "__main__":
    main()
