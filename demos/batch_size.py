"""Small, large and accumulated batches for the same time: what a larger batch buys, and what it costs.

    .venv/bin/python demos/batch_size.py

Five settings of one WGAN-GP, each on networks of its own and for the same time, in turns; the steps of 8 x 64 examples add
up the gradients of eight batches of 64 (``tinygan train --accumulate 8``). Introductions to GANs say that large batches
train better, or faster. Measured on one BLAS thread (about 4 min each, other work on the machine), seeds 0 and 1; the
distance is the sliced Wasserstein distance of 2,500 samples, 0.014 for real images:

    batch              steps     ms a step   examples/s     MiB    distance
    16              1814, 1886     22, 21    3600, 3800      25    0.031, 0.027
    64                865, 905     46, 44    6900, 7200      27    0.022, 0.022
    512               150, 154   268, 261    9600, 9800      60    0.041, 0.042
    512, lr x 2.8     151, 153   267, 262    9600, 9800      60    0.050, 0.045
    8 x 64 = 512      129, 132   311, 304    8200, 8400      32    0.047, 0.047

For the same time neither the small nor the large batch wins: 16 is ahead for the first 8 s and hardly gets better after
12 s; 512 is the best step for step (after 150 steps 0.04, where 64 is between 0.05 and 0.06), but takes too few of
them, and a higher learning rate does not make up for it. Accumulating makes the same steps as 512 in about the memory
of 64, and 16 % slower.
"""

import argparse
import time
import tracemalloc
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import tinygan as tg
from tinygan.layers import Dense, ReLU, Sequential, Tanh

WIDTH, LATENT, N_CRITIC, PENALTY, LR = 256, 64, 5, 10.0, 1e-3
SETTINGS = {  # name: (examples in memory at a time, such parts in a step, learning rate, color)
    "16": (16, 1, LR, "#b35806"), "64": (64, 1, LR, "#e08214"), "512": (512, 1, LR, "#762a83"),
    "512, lr x 2.8": (512, 1, LR * 8 ** 0.5, "#9970ab"),  # the square root of 512 / 64, a usual rule for Adam
    "8 x 64 = 512": (64, 8, LR, "#1b7837")}
ROUNDS = 20  # of all settings in turn, so that other work on the machine slows all of them alike; fewer in little time


def network(d_in, d_out, rng, *last):
    return Sequential(Dense(d_in, WIDTH, rng=rng), ReLU(), Dense(WIDTH, WIDTH, rng=rng), ReLU(),
                      Dense(WIDTH, WIDTH, rng=rng), ReLU(), Dense(WIDTH, d_out, rng=rng, init=tg.init.glorot_uniform), *last)


def wgan_gp(data, batch, parts, lr, seed, device):
    """(an iteration of WGAN-GP with steps of ``parts`` times ``batch`` examples, the generator's average)."""
    rng, total = tg.backend.rng(seed, device), batch * parts
    generator, critic = network(LATENT, data.dim, rng, Tanh()), network(data.dim, 1, rng)
    average = tg.optim.ExponentialMovingAverage(generator)
    generator_optimizer, critic_optimizer = (
        tg.optim.Adam(network.parameters(), lr, betas=(0.5, 0.9)) for network in (generator, critic))

    def critic_gradients(real, fake):
        loss = tg.losses.wasserstein_critic(critic(real), critic(fake))
        loss = loss + PENALTY * tg.losses.gradient_penalty(critic, real, fake, rng=rng)
        return tg.grad(loss, critic.parameters())

    def generator_gradients(z):
        return tg.grad(tg.losses.wasserstein_generator(critic(generator(z))), generator.parameters())

    if device == "cpu":  # traced twice, then replayed: the same bits without the engine
        critic_gradients = tg.program.Program(critic_gradients, [critic, rng])
        generator_gradients = tg.program.Program(generator_gradients, [critic, generator])

    def accumulated(gradients, *arrays):
        """The gradient of the large batch's loss: losses are means over examples, so it is the mean of the parts'."""
        mean = [0.0] * len(generator.parameters())  # as many as the critic's
        for start in range(0, total, batch):
            part = gradients(*(a[start:start + batch] for a in arrays))
            mean = [m + g / parts for m, g in zip(mean, part)]
        return mean

    def iteration():
        for _ in range(N_CRITIC):
            real = tg.backend.to_device(data.draw(tg.backend.host_rng(rng), total), device)
            fake = np.concatenate([generator(tg.backend.normal(rng, (batch, LATENT))).data for _ in range(parts)])
            critic_optimizer.step(accumulated(critic_gradients, real, fake))
        generator_optimizer.step(accumulated(generator_gradients, tg.backend.normal(rng, (total, LATENT))))
        average.update()

    return iteration, average


def memory(data, setting, device):
    """The most bytes that Python and NumPy held at a time in two iterations, networks and optimizers included."""
    tracemalloc.start()
    iteration, _ = wgan_gp(data, *setting[:3], 0, device)
    for _ in range(2):
        iteration()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def distance(data, average, device):
    """Sliced Wasserstein distance of 2,500 samples to 2,500 real images; of other real ones if there is no generator."""
    rng = np.random.default_rng(0)
    real = data.draw(rng, 2500)
    if average is None:
        return tg.metrics.sliced_wasserstein(real, data.draw(rng, 2500), rng, projections=64)
    z = tg.backend.to_device(rng.standard_normal((2500, LATENT), np.float32), device)
    return tg.metrics.sliced_wasserstein(real, average.network(z).data, rng, projections=64)


def race(data, seconds, seed, device):
    """All settings for the same time each: name -> rows (seconds, steps, distance)."""
    runs = {name: wgan_gp(data, *setting[:3], seed, device) for name, setting in SETTINGS.items()}
    rows = {name: [(0.0, 0, distance(data, average, device))] for name, (_, average) in runs.items()}
    rounds = min(ROUNDS, max(2, round(seconds)))
    for number in range(1, rounds + 1):
        for name, (iteration, average) in runs.items():
            spent, steps, _ = rows[name][-1]
            begun = time.perf_counter()
            while (now := spent + time.perf_counter() - begun) < seconds * number / rounds:
                iteration()
                steps += 1
            if steps > rows[name][-1][1]:
                rows[name].append((now, steps, distance(data, average, device)))
        print(f"round {number}/{rounds}: " + "  ".join(f"[{name}] {r[-1][2]:.3f}" for name, r in rows.items()), flush=True)
    return {name: np.array(r).T for name, r in rows.items()}


def picture(rows, best, peaks, title):
    figure = Figure(figsize=(15, 5.4), dpi=80, layout="constrained")
    figure.suptitle(title, fontsize=14, weight="bold")
    for axes, x, text in zip(figure.subplots(1, 2), (0, 1), ("1. For the same time [s]", "2. For the same number of steps")):
        for name, curve in rows.items():
            axes.plot(curve[x][1:], curve[2][1:], "o-", markersize=3, color=SETTINGS[name][3],
                      label=f"batch {name}: {curve[1][-1]:,.0f} steps, {peaks[name] / 2**20:.0f} MiB")
        axes.axhline(best, color="#666666", linestyle="--", label="real and real")
        axes.set(xlabel=("seconds", "generator steps")[x], ylabel="sliced Wasserstein distance", yscale="log",
                 xscale=("linear", "log")[x])
        axes.set_title(text, fontsize=11, loc="left")
        axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=9)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=40.0, help="for each of the five settings (default: 40)")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--device", help="cpu, cuda, cuda:N or auto (the default)")
    parser.add_argument("--out", type=Path, default=Path("runs/batch_size.png"), help="the picture (default: %(default)s)")
    options = parser.parse_args()
    try:
        device = tg.backend.resolve_device(options.device)
    except (ValueError, tg.backend.DeviceError) as fault:
        parser.error(str(fault))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    title, out, number = f"Batch size, WGAN-GP on glyphs, seed {options.seed}, {options.seconds:g} s each", options.out, 1
    while out.exists():  # no picture is overwritten: name.png, name-2.png, ...
        out, number = options.out.with_stem(f"{options.out.stem}-{number + 1}"), number + 1

    data = tg.data.load("glyphs")
    print(f"{title}, device {device}, {tg.app.process.tune_process(WIDTH)}")
    peaks = {name: memory(data, setting, device) for name, setting in SETTINGS.items()}
    rows, best = race(data, options.seconds, options.seed, device), distance(data, None, device)
    print(f"{'batch':16s}{'steps':>8s}{'ms a step':>11s}{'examples/s':>12s}{'host MiB':>10s}{'sliced Wasserstein':>20s}")
    for name, (seconds, steps, distances) in rows.items():
        size, each = SETTINGS[name][0] * SETTINGS[name][1], seconds[-1] / max(1, steps[-1])
        print(f"{name:16s}{steps[-1]:8.0f}{1e3 * each:11.0f}{size * N_CRITIC / each:12.0f}{peaks[name] / 2**20:10.1f}"
              f"{distances[-1]:20.4f}")
    print(f"{'real and real':57s}{best:20.4f}")
    picture(rows, best, peaks, title).savefig(out)
    print(f"picture  {out}")


if __name__ == "__main__":
    main()
