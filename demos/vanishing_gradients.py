"""The generator's gradient while D approaches its optimum: minimax, non-saturating, Wasserstein (Arjovsky & Bottou 2017).

    .venv/bin/python demos/vanishing_gradients.py

The experiment of the paper's figures 2 and 3 on glyphs: a generator, after no, little and more training (0, 20 and 100 steps
of WGAN-GP), is held fixed; a discriminator, and beside it a WGAN-GP critic, is trained against it from the start, and the
gradient that each loss would give the generator is measured on the way. At the optimal discriminator of distributions
that are apart, the minimax gradient is 0 (theorem 2.4); the gradient of a critic of slope 1 is not.

Measured (about 30 s of one core), seeds 0, 1 and 2: the gradient's norm after 1000 steps, divided by that after the first,
and the two estimates of how far generated images are from real ones.

    generator steps    minimax                   non-saturating    Wasserstein      Jensen-Shannon     distance
    0                  6e-6, 1e-5, 1e-5          12, 15, 8         3.0, 2.8, 2.5    0.693 = log 2      66, 64, 67
    20                 8e-4, 4e-4, 2e-3          16, 10, 7         1.0, 1.1, 1.1    0.693              11, 11, 11
    100                0.11, 0.018, 0.014        12, 17, 24        1.4, 1.7, 1.1    0.688 to 0.693     7.2, 7.5, 7.3

The better the generator, the longer it takes: only a discriminator that has won takes the minimax gradient away. Of the two
estimates only the Wasserstein distance tells that the third generator is better than the first.
"""

import argparse
import copy
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import tinygan as tg
from tinygan.layers import Dense, ReLU, Sequential, Tanh

BATCH, WIDTH, LATENT, PENALTY = 64, 128, 32, 10.0
LR, LR_DISCRIMINATOR = 1e-3, 3e-4  # of generator and critic; of the discriminator, slower so that it settles
COLORS = {"minimax": "#b35806", "non-saturating": "#762a83", "Wasserstein": "#1b7837"}


def network(d_in, d_out, rng, *last):
    return Sequential(Dense(d_in, WIDTH, rng=rng), ReLU(), Dense(WIDTH, WIDTH, rng=rng), ReLU(),
                      Dense(WIDTH, WIDTH, rng=rng), ReLU(), Dense(WIDTH, d_out, rng=rng, init=tg.init.glorot_uniform), *last)


class Player:
    """A network of scores and its step: a discriminator, or with ``critic`` a WGAN-GP critic."""

    def __init__(self, critic, data, rng, device):
        self.network, self.critic, self.data, self.rng, self.device = network(data.dim, 1, rng), critic, data, rng, device
        self.optimizer = tg.optim.Adam(self.network.parameters(), LR if critic else LR_DISCRIMINATOR,
                                       betas=(0.5, 0.9 if critic else 0.999))

    def loss(self, real, fake):
        """Without the penalty."""
        loss = tg.losses.wasserstein_critic if self.critic else tg.losses.minimax_discriminator
        return loss(self.network(real), self.network(fake))

    def step(self, generator):
        real = tg.backend.to_device(self.data.draw(tg.backend.host_rng(self.rng), BATCH), self.device)
        fake = generator(tg.backend.normal(self.rng, (BATCH, LATENT))).data  # an array: a constant
        loss = self.loss(real, fake)
        if self.critic:
            loss = loss + PENALTY * tg.losses.gradient_penalty(self.network, real, fake, rng=self.rng)
        self.optimizer.step(tg.grad(loss, self.network.parameters()))


def generators(data, stages, rng, device):
    """One WGAN-GP generator after each number of steps of its training."""
    generator, critic, kept = network(LATENT, data.dim, rng, Tanh()), Player(True, data, rng, device), []
    optimizer = tg.optim.Adam(generator.parameters(), LR, betas=(0.5, 0.9))
    for step in range(max(stages) + 1):
        if step in stages:
            kept.append(copy.deepcopy(generator))
        for _ in range(5):
            critic.step(generator)
        scores = critic.network(generator(tg.backend.normal(rng, (BATCH, LATENT))))
        optimizer.step(tg.grad(tg.losses.wasserstein_generator(scores), generator.parameters()))
    return kept


def probe(generator, data, steps, rng, device):
    """Train a discriminator and a critic against the fixed generator; columns by step, all from 500 images of each kind.

    step; the norms of the generator's gradient by ``COLORS``; mean D(G(z)); the estimates of the divergence and distance.
    """
    discriminator, critic = (Player(kind, data, rng, device) for kind in (False, True))
    z = tg.backend.normal(rng, (500, LATENT))
    real = tg.backend.to_device(data.draw(tg.backend.host_rng(rng), 500), device)
    rows, shown = [], set(np.geomspace(1, steps, 30).astype(int))
    for step in range(1, steps + 1):
        discriminator.step(generator)
        critic.step(generator)
        if step not in shown:
            continue
        fake = generator(z)
        scores = discriminator.network(fake)
        losses = (tg.losses.minimax_generator(scores), tg.losses.nonsaturating_generator(scores),
                  tg.losses.wasserstein_generator(critic.network(fake)))
        norms = [sum(float((g * g).sum()) for g in tg.grad(loss, generator.parameters())) ** 0.5 for loss in losses]
        rows.append([step, *norms, float(tg.ops.sigmoid(scores.data).mean()),
                     np.log(2) - float(discriminator.loss(real, fake.data)) / 2, -float(critic.loss(real, fake.data))])
    return np.array(rows).T


def fall(rows):
    """For each loss: the norm at the last step by that at the first."""
    return rows[1:4, -1] / rows[1:4, 0]


def picture(stages, samples, columns, shape, title):
    figure = Figure(figsize=(16, 8.6), dpi=80, layout="constrained")
    figure.suptitle(title, fontsize=14, weight="bold")
    upper, lower = figure.subplots(2, len(stages), height_ratios=(3, 1), squeeze=False)
    for number, (axes, stage, rows) in enumerate(zip(upper, stages, columns), 1):
        for norms, (name, color), times in zip(rows[1:], COLORS.items(), fall(rows)):
            axes.loglog(rows[0], norms, color=color, linewidth=2, label=f"{name}: x {times:.2g}")
        axes.loglog(rows[0], rows[4], color="#666666", linestyle="--", linewidth=1, label="mean D(G(z)), a probability")
        axes.set(xlabel="steps of the discriminator (or critic), from its start",
                 ylabel="norm of the generator's gradient; probability", ylim=(min(r[4].min() for r in columns) / 2, 300))
        axes.set_title(f"{number}. Generator fixed after {stage:,} steps", fontsize=11, loc="left")
        axes.legend(fontsize=9, loc="lower left", title="from the first to the last step")
        axes.grid(alpha=0.3)
    for axes, images, rows in zip(lower, samples, columns):
        tiles = images[:16].reshape(2, 8, *shape[1:]).transpose(0, 2, 1, 3).reshape(2 * shape[1], 8 * shape[2])
        axes.imshow(tiles, cmap="gray", vmin=-1, vmax=1)
        axes.set_axis_off()
        axes.set_title(f"Its samples. In the end Jensen-Shannon is {rows[5][-1]:.3f}\n"
                       f"(at most log 2 = 0.693), Wasserstein distance {rows[6][-1]:.2g}", fontsize=11, loc="left")
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1000, help="of each discriminator and critic (default: 1000)")
    parser.add_argument("--stages", type=int, nargs="+", default=[0, 20, 100],
                        help="steps of the generators (default: 0 20 100)")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--device", help="cpu, cuda, cuda:N or auto (the default)")
    parser.add_argument("--out", type=Path, default=Path("runs/vanishing_gradients.png"),
                        help="the picture (default: %(default)s)")
    options = parser.parse_args()
    try:
        device = tg.backend.resolve_device(options.device)
    except (ValueError, tg.backend.DeviceError) as fault:
        parser.error(str(fault))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    out, number = options.out, 1
    while out.exists():  # no picture is overwritten: name.png, name-2.png, ...
        out, number = options.out.with_stem(f"{options.out.stem}-{number + 1}"), number + 1

    data, rng, started = tg.data.load("glyphs"), tg.backend.rng(options.seed, device), time.perf_counter()
    print(f"vanishing gradients, glyphs, seed {options.seed}, device {device}, {tg.app.process.tune_process(WIDTH)}")
    fixed = generators(data, options.stages, rng, device)
    print(f"{'generator steps':>16s}{'step of D':>11s}" + "".join(f"{name:>16s}" for name in COLORS)
          + f"{'mean D(G(z))':>15s}{'JSD':>8s}{'W':>8s}")
    columns, samples = [], []
    for stage, generator in zip(options.stages, fixed):
        columns.append(probe(generator, data, options.steps, rng, device))
        samples.append(tg.backend.to_numpy(generator(tg.backend.normal(rng, (16, LATENT))).data))
        for row in columns[-1].T[np.linspace(0, columns[-1].shape[1] - 1, 5).astype(int)]:
            step, *norms, probability, divergence, distance = row
            print(f"{stage:16,d}{step:11,.0f}" + "".join(f"{norm:16.2e}" for norm in norms)
                  + f"{probability:15.2e}{divergence:8.3f}{distance:8.3f}")
    title = f"The better D gets, the less gradient minimax leaves to the generator (glyphs, seed {options.seed})"
    tg.app.plots.save(picture(options.stages, samples, columns, data.shape, title), out)
    print(f"done in {time.perf_counter() - started:.0f} s\npicture  {out}")


if __name__ == "__main__":
    main()
