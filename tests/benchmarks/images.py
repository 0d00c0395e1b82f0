"""Images by the default method in the same time of one core: the tables of docs/images.md.

    python tests/benchmarks/images.py    # five minutes each, seeds 0 to 2, one after the other
    python tests/benchmarks/images.py --data digits --nets mlp --seconds 60 --seeds 0

Each run is ``tinygan train DATA --net NET --seconds T --seed S`` in a process of its own, on one
BLAS thread. The scores are those of ``tinygan evaluate``, of best.npz against the test part, as
many samples as it has images. A sample is *legible* if at least four of the five training images
nearest to it show the same character, where upper and lower case are the same and so are 0 and O,
and 1, I and l. In the rows of real data training images take the place of samples; to be legible
are the test images. Pixels are the features.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from itertools import product
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

from methods import run  # noqa: E402

import tinygan as tg  # noqa: E402
from tinygan import metrics  # noqa: E402
from tinygan.training import samples  # noqa: E402

ALIKE = str.maketrans("01i", "oll")


def legible(images: np.ndarray, source: str) -> float:
    """The share of images (n, d) that the labels of the training part tell."""
    data = tg.data.load(source, conditional=True)
    train = data.split["train"]
    names = np.array([str(name).lower().translate(ALIKE) for name in data.classes])
    near = names[data.labels[train]][metrics.nearest(images, data.at(train), 5)[0]]
    votes = (near[:, :, None] == near[:, None, :]).sum(axis=2).max(axis=1)
    return float(np.mean(votes >= 4))


def row(name: str, steps: str, fake: np.ndarray, test: np.ndarray, shown: np.ndarray,
        source: str) -> None:
    """Print a row of the table; ``shown`` are the images that are to be legible."""
    scores = [*metrics.prdc(test, fake, 5), legible(shown, source)]
    print(f"| {name} | {steps} | " + " | ".join(f"{value:.2f}" for value in scores) + " |",
          flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="glyphs,digits")
    parser.add_argument("--nets", default="mlp,conv")
    parser.add_argument("--method", default="wgan-gp")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seeds", default="0,1,2")
    options = parser.parse_args()
    print("| run | steps | precision | recall | density | coverage | legible |")
    print("|---" * 7 + "|")
    for source in options.data.split(","):
        data = tg.data.load(source)
        test, train = (data.at(data.split[part]) for part in ("test", "train"))
        row(f"{source}, real", "", train[:len(test)], test, test, source)
        for net, seed in product(options.nets.split(","), options.seeds.split(",")):
            with tempfile.TemporaryDirectory() as place:
                out = Path(place, "run")
                last = run(out, source, options.method, int(seed), options.seconds, net)["steps"]
                best = tg.GAN.load(out / "best.npz", X=source).run_
            fake = samples.sample(best.game, samples.SCORED)
            row(f"{source}, {net}, seed {seed}", f"{best.step:,} of {last:,}",
                fake[:len(test)], test, fake, source)


if __name__ == "__main__":
    main()
