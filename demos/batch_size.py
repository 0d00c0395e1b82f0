"""Small, large and accumulated batches for the same time: what a larger batch buys, and its price.

    .venv/bin/python demos/batch_size.py

Five settings of one WGAN-GP, each on networks of its own and for the same time, in turns; a step of
8 x 64 examples adds up the gradients of eight batches of 64 (``tinygan train --accumulate 8``).
Introductions to GANs say that large batches train better, or faster.

Measured on one BLAS thread (about 4 min each, other work on the machine), seeds 0 and 1; the
distance is the sliced Wasserstein distance of 2,500 samples, 0.014 for real images:

    batch              steps    ms per step   examples/s     MiB    distance
    16              1814, 1886       22, 21   3600, 3800      25    0.031, 0.027
    64                865, 905       46, 44   6900, 7200      27    0.022, 0.022
    512               150, 154     268, 261   9600, 9800      60    0.041, 0.042
    512, lr x 2.8     151, 153     267, 262   9600, 9800      60    0.050, 0.045
    8 x 64 = 512      129, 132     311, 304   8200, 8400      32    0.047, 0.047

For the same time neither the small nor the large batch wins: 16 leads for the first 8 s and hardly
improves after 12 s; 512 is the best step for step (0.04 after 150 steps, where 64 is between 0.05
and 0.06), but takes too few of them, and a higher learning rate does not make up for it.
Accumulating takes the same steps as 512 in about the memory of 64, 16 % slower.
"""

import time
import tracemalloc
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

import tinygan as tg
from tinygan.app import demo
from tinygan.layers import Dense, ReLU, Sequential, Tanh

WIDTH, LATENT, N_CRITIC, PENALTY, LR = 256, 64, 5, 10.0, 1e-3
ROUNDS = 20  # all settings take turns, so that other work on the machine slows all of them alike


class Setting(NamedTuple):
    """A step takes ``parts`` batches of ``batch`` examples."""

    batch: int
    parts: int
    color: str
    lr: float = LR


SETTINGS = {
    "16": Setting(16, 1, "#b35806"),
    "64": Setting(64, 1, "#e08214"),
    "512": Setting(512, 1, "#762a83"),
    "512, lr x 2.8": Setting(512, 1, "#9970ab", LR * 8 ** 0.5),  # sqrt(512 / 64), a common rule
    "8 x 64 = 512": Setting(64, 8, "#1b7837")}


def network(d_in, d_out, rng, *last):
    hidden = []
    for width in (d_in, WIDTH, WIDTH):
        hidden += [Dense(width, WIDTH, rng=rng), ReLU()]
    return Sequential(*hidden, Dense(WIDTH, d_out, rng=rng, init=tg.init.glorot_uniform), *last)


def wgan_gp(data, setting, seed, device):
    """(a function that runs one iteration of WGAN-GP, the generator's average)."""
    batch, parts, _, lr = setting
    rng, total = tg.backend.rng(seed, device), batch * parts
    generator, critic = network(LATENT, data.dim, rng, Tanh()), network(data.dim, 1, rng)
    average = tg.optim.ExponentialMovingAverage(generator)
    generator_optimizer = tg.optim.Adam(generator.parameters(), lr, betas=(0.5, 0.9))
    critic_optimizer = tg.optim.Adam(critic.parameters(), lr, betas=(0.5, 0.9))

    def latents(n):
        return tg.backend.normal(rng, (n, LATENT))

    def critic_gradients(real, fake):
        loss = tg.losses.wasserstein_critic(critic(real), critic(fake))
        loss = loss + PENALTY * tg.losses.gradient_penalty(critic, real, fake, rng=rng)
        return tg.grad(loss, critic.parameters())

    def generator_gradients(z):
        loss = tg.losses.wasserstein_generator(critic(generator(z)))
        return tg.grad(loss, generator.parameters())

    if device == "cpu":  # traced twice, then replayed: the same bits without the engine
        critic_gradients = tg.program.Program(critic_gradients, [critic, rng])
        generator_gradients = tg.program.Program(generator_gradients, [critic, generator])

    def accumulated(gradients, *arrays):
        """The gradient of the large batch's loss, a mean over examples: the mean of the parts'."""
        mean = [0.0] * len(generator.parameters())  # as many as the critic's
        for start in range(0, total, batch):
            part = gradients(*(a[start:start + batch] for a in arrays))
            mean = [m + g / parts for m, g in zip(mean, part)]
        return mean

    def iteration():
        for _ in range(N_CRITIC):
            real = tg.backend.to_device(data.draw(tg.backend.host_rng(rng), total), device)
            fake = np.concatenate([generator(latents(batch)).data for _ in range(parts)])
            critic_optimizer.step(accumulated(critic_gradients, real, fake))
        generator_optimizer.step(accumulated(generator_gradients, latents(total)))
        average.update()

    return iteration, average


def memory(data, setting, device):
    """The peak memory in bytes of Python and NumPy over two iterations, networks included."""
    tracemalloc.start()
    iteration, _ = wgan_gp(data, setting, 0, device)
    for _ in range(2):
        iteration()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def distance(data, average, device):
    """Sliced Wasserstein distance of 2,500 samples, or real images for None, to real images."""
    rng = np.random.default_rng(0)
    real = data.draw(rng, 2500)
    if average is None:
        return tg.metrics.sliced_wasserstein(real, data.draw(rng, 2500), rng, projections=64)
    z = tg.backend.to_device(rng.standard_normal((2500, LATENT), np.float32), device)
    return tg.metrics.sliced_wasserstein(real, average.network(z).data, rng, projections=64)


def race(data, seconds, seed, device):
    """All settings for the same time each: name -> columns (seconds, steps, distance)."""
    runs = {name: wgan_gp(data, setting, seed, device) for name, setting in SETTINGS.items()}
    rows = {name: [(0.0, 0, distance(data, run[1], device))] for name, run in runs.items()}
    rounds = min(ROUNDS, max(2, round(seconds)))
    for number in range(1, rounds + 1):
        for name, (iteration, average) in runs.items():
            before, steps, _ = rows[name][-1]
            begun, spent = time.perf_counter(), before
            while spent < seconds * number / rounds:
                iteration()
                steps += 1
                spent = before + time.perf_counter() - begun
            if steps > rows[name][-1][1]:
                rows[name].append((spent, steps, distance(data, average, device)))
        print(f"round {number}/{rounds}: "
              + "  ".join(f"[{name}] {row[-1][2]:.3f}" for name, row in rows.items()), flush=True)
    return {name: np.array(row).T for name, row in rows.items()}


def table(rows, best, peaks):
    print(f"{'batch':16s}{'steps':>8s}{'ms per step':>13s}{'examples/s':>12s}{'host MiB':>10s}"
          f"{'sliced Wasserstein':>20s}")
    for name, (seconds, steps, distances) in rows.items():
        examples = SETTINGS[name].batch * SETTINGS[name].parts * N_CRITIC
        each = seconds[-1] / max(1, steps[-1])
        print(f"{name:16s}{steps[-1]:8.0f}{1e3 * each:13.0f}{examples / each:12.0f}"
              f"{peaks[name] / 2**20:10.1f}{distances[-1]:20.4f}")
    print(f"{'real and real':59s}{best:20.4f}")


def picture(rows, best, peaks, title):
    figure = Figure(figsize=(15, 5.4), dpi=80, layout="constrained")
    figure.suptitle(title, fontsize=14, weight="bold")
    times, counts = figure.subplots(1, 2)
    for name, (seconds, steps, distances) in rows.items():
        label = f"batch {name}: {steps[-1]:,.0f} steps, {peaks[name] / 2**20:.0f} MiB"
        for axes, x in ((times, seconds), (counts, steps)):
            axes.plot(x[1:], distances[1:], "o-", markersize=3, color=SETTINGS[name].color,
                      label=label)
    times.set(xlabel="seconds")
    times.set_title("1. For the same time", fontsize=11, loc="left")
    counts.set(xlabel="generator steps", xscale="log")
    counts.set_title("2. For the same number of steps", fontsize=11, loc="left")
    for axes in (times, counts):
        axes.axhline(best, color="#666666", linestyle="--", label="real and real")
        axes.set(ylabel="sliced Wasserstein distance", yscale="log")
        axes.grid(alpha=0.3, which="both")
    counts.legend(fontsize=9)
    return figure


def main():
    options = demo.options(__doc__, "Batch size, WGAN-GP on glyphs", WIDTH, "runs/batch_size.png",
                           seconds=(40.0, "for each of the five settings"))
    data, device = tg.data.load("glyphs"), options.device
    peaks = {name: memory(data, setting, device) for name, setting in SETTINGS.items()}
    rows = race(data, options.seconds, options.seed, device)
    best = distance(data, None, device)
    table(rows, best, peaks)
    options.save(picture(rows, best, peaks, options.title))


if __name__ == "__main__":
    main()
