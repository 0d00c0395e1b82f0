"""WGAN-GP draws letters and digits: the loop of the ring demo on images, replayed as a program.

    .venv/bin/python demos/glyphs_wgan_gp.py

An image is a point of 784 numbers here; nothing tells the networks which pixels are neighbours. Measured on one BLAS
thread (130 s each, other work on the machine), seeds 0 and 1: the sliced Wasserstein distance of 2,500 samples falls to
0.030 and 0.032 at step 300 and to 0.018 and 0.018 at the end (0.014 for real images). By eye more than half of the
samples can be read as a letter or a digit; their outlines are ragged, with stray pixels beside them (compare
demos/dcgan_glyphs.py). The critic's estimate W is at about 2 by step 1200 and ends at 3.0 and 2.4, while the samples get
no worse: it measures both players.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import tinygan as tg
from tinygan.layers import Dense, ReLU, Sequential, Tanh
from tinygan.app.plots import tiles

BATCH, WIDTH, LATENT = 64, 256, 64
N_CRITIC = 5  # critic steps for each generator step
PENALTY = 10.0  # weight of the gradient penalty, the paper's; toy data in the plane want less
LR = 1e-3  # at the start; falls to 0 in a straight line. The paper's 1e-4 is for 200,000 steps
PICTURES = 8 * 8  # of each kind


def network(d_in, d_out, rng, *last):
    return Sequential(Dense(d_in, WIDTH, rng=rng), ReLU(), Dense(WIDTH, WIDTH, rng=rng), ReLU(),
                      Dense(WIDTH, WIDTH, rng=rng), ReLU(), Dense(WIDTH, d_out, rng=rng, init=tg.init.glorot_uniform), *last)


def distance(data, average, seed):
    """Sliced Wasserstein distance of 2,500 samples to 2,500 real images; of real ones if there is no generator."""
    rng, real_rng = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    fake = data.draw(rng, 2500) if average is None else sample(average, 2500, rng)
    return tg.metrics.sliced_wasserstein(data.draw(real_rng, 2500), fake, rng, projections=64)


def sample(average, n, rng):
    device = tg.backend.device_of(average.network.parameters()[0].data)
    z = tg.backend.to_device(rng.standard_normal((n, LATENT), np.float32), device)
    return tg.backend.to_numpy(average.network(z).data)


def train(data, steps, seed, device):
    """Gulrajani et al. 2017, algorithm 1, with a falling learning rate: the generator's average and the log as columns."""
    rng = tg.backend.rng(seed, device)
    generator, critic = network(LATENT, data.dim, rng, Tanh()), network(data.dim, 1, rng)  # pixels lie in [-1, 1]
    average = tg.optim.ExponentialMovingAverage(generator)
    generator_optimizer = tg.optim.Adam(generator.parameters(), tg.optim.linear(LR, steps), betas=(0.5, 0.9))
    critic_optimizer = tg.optim.Adam(critic.parameters(), tg.optim.linear(LR, steps * N_CRITIC), betas=(0.5, 0.9))

    def batch(host):
        return tg.backend.to_device(data.draw(host, BATCH), device)

    def iteration():
        for _ in range(N_CRITIC):
            real = tg.backend.fresh(batch, tg.backend.host_rng(rng))  # drawn anew in every replay
            fake = generator(tg.backend.normal(rng, (BATCH, LATENT))).data  # an array: a constant for the critic
            minus_w = tg.losses.wasserstein_critic(critic(real), critic(fake))
            penalty = tg.losses.gradient_penalty(critic, real, fake, rng=rng)
            critic_optimizer.step(tg.grad(minus_w + PENALTY * penalty, critic.parameters()))

        fake = generator(tg.backend.normal(rng, (BATCH, LATENT)))  # a Tensor: how it was computed is recorded
        loss = tg.losses.wasserstein_generator(critic(fake))
        generator_optimizer.step(tg.grad(loss, generator.parameters()))
        average.update()
        return minus_w.data, penalty.data

    # Traced twice, then replayed: the same bits without the engine. A GPU runs the function as it stands.
    state = [generator, critic, average, generator_optimizer, critic_optimizer, rng]
    compute = tg.program.Program(iteration, state) if device == "cpu" else iteration
    log = {"step": [], "w_estimate": [], "sliced_wasserstein": []}
    for step in range(1, steps + 1):
        minus_w, penalty = compute()
        if step % max(1, steps // 50) == 0 or step == steps:
            for column, value in zip(log.values(), (step, -float(minus_w), distance(data, average, step))):
                column.append(value)
        if step % max(1, steps // 10) == 0:
            print(f"step {step:5d}  W {-float(minus_w):7.3f}  penalty {float(penalty):6.3f}  "
                  f"sliced Wasserstein {log['sliced_wasserstein'][-1]:.3f}", flush=True)
    return average, log


def grid(axes, data, rows, title):
    """Images side by side, 8 in a row."""
    axes.imshow(tiles(data.to_images(rows), 8), cmap="gray", vmin=0, vmax=255)
    axes.set_axis_off()
    axes.set_title(title, fontsize=11, loc="left")


def picture(data, average, log, best, title):
    rng = np.random.default_rng(0)
    figure = Figure(figsize=(15, 5.4), dpi=110, layout="constrained")
    figure.suptitle(title, fontsize=14, weight="bold")
    left, middle, right = figure.subplots(1, 3)
    grid(left, data, data.draw(rng, PICTURES), "1. Real glyphs")
    grid(middle, data, sample(average, PICTURES, rng), "2. Generated: no choice, the first 64")
    right.plot(log["step"], log["sliced_wasserstein"], "o-", color="#762a83", markersize=3,
               label="sliced Wasserstein, generated and real")
    right.axhline(best, color="#1b7837", linestyle="--", label="the same, real and real")
    right.plot(log["step"], np.array(log["w_estimate"]) / 100, color="#b35806", label="the critic's W estimate / 100")
    right.set(xlabel="step", ylim=(0, None))
    right.set_title("3. Two distances over time", fontsize=11, loc="left")
    right.legend(fontsize=9)
    right.grid(alpha=0.3)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3000, help="generator steps (default: 3000)")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--device", help="cpu, cuda, cuda:N or auto (the default)")
    parser.add_argument("--out", type=Path, default=Path("runs/glyphs_wgan_gp.png"),
                        help="the picture (default: %(default)s)")
    options = parser.parse_args()
    try:
        device = tg.backend.resolve_device(options.device)
    except (ValueError, tg.backend.DeviceError) as fault:
        parser.error(str(fault))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    title, out, number = f"WGAN-GP, glyphs, seed {options.seed}, step {options.steps:,}", options.out, 1
    while out.exists():  # no picture is overwritten: name.png, name-2.png, ...
        out, number = options.out.with_stem(f"{options.out.stem}-{number + 1}"), number + 1

    data = tg.data.load("glyphs")
    print(f"{title}, device {device}, {tg.app.process.tune_process(WIDTH)}")
    started = time.perf_counter()
    average, log = train(data, options.steps, options.seed, device)
    seconds, best = time.perf_counter() - started, distance(data, None, 0)
    print(f"{options.steps} steps in {seconds:.0f} s: sliced Wasserstein {distance(data, average, 0):.3f} "
          f"(real and real: {best:.3f})")
    picture(data, average, log, best, title).savefig(out)
    print(f"picture  {out}")


if __name__ == "__main__":
    main()
