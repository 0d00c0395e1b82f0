"""DCGAN draws letters and digits: convolutions and batch normalization, trained by the original GAN's loss.

    .venv/bin/python demos/dcgan_glyphs.py

The choices of Radford et al. 2016 in 28 x 28 and at half the default width. Measured on one BLAS thread (220 s each, other
work on the machine), seeds 0 and 1: the sliced Wasserstein distance of 1,000 samples falls from 0.58 at step 60 to 0.05 at
step 1000 and ends at 0.035 and 0.045 (0.023 for real images). Strokes are smooth and connected where those of an MLP are
ragged (compare demos/glyphs_wgan_gp.py); by eye about half of the samples can be read, and many lie between two letters.
On the way from one latent to another shapes change gradually. The losses swing to the end and do not tell any of this.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import tinygan as tg
from tinygan.init import dcgan  # N(0, 0.02^2)
from tinygan.layers import (BatchNorm, Conv2d, ConvTranspose2d, Dense, Flatten, LeakyReLU, ReLU, Reshape, Sequential,
                            Tanh)
from tinygan.app.plots import tiles

BATCH, WIDTH, LATENT = 64, 32, 100
LR = 2e-4  # with Adam's first moment at 0.5, see below: the paper's settings


def networks(rng, device):
    """Radford et al. 2016, section 3: strided convolutions, no pooling, batch norm but at the image and at the score."""
    generator = Sequential(
        Dense(LATENT, 2 * WIDTH * 7 * 7, rng=rng, init=dcgan), Reshape((2 * WIDTH, 7, 7)),
        BatchNorm(2 * WIDTH, device=device), ReLU(),
        ConvTranspose2d(2 * WIDTH, WIDTH, 4, stride=2, padding=1, rng=rng, init=dcgan),  # to 14 x 14
        BatchNorm(WIDTH, device=device), ReLU(),
        ConvTranspose2d(WIDTH, 1, 4, stride=2, padding=1, rng=rng, init=dcgan), Tanh(), Flatten())  # to 28 x 28
    discriminator = Sequential(
        Reshape((1, 28, 28)), Conv2d(1, WIDTH, 4, stride=2, padding=1, rng=rng, init=dcgan), LeakyReLU(0.2),
        Conv2d(WIDTH, 2 * WIDTH, 4, stride=2, padding=1, rng=rng, init=dcgan),
        BatchNorm(2 * WIDTH, device=device), LeakyReLU(0.2),
        Flatten(), Dense(2 * WIDTH * 7 * 7, 1, rng=rng, init=dcgan))
    return generator, discriminator


def latents(n, seed, device):
    return tg.backend.to_device(np.random.default_rng(seed).standard_normal((n, LATENT), np.float32), device)


def distance(data, samples, seed):
    """Sliced Wasserstein distance to as many real images."""
    rng = np.random.default_rng(seed)
    return tg.metrics.sliced_wasserstein(data.draw(rng, len(samples)), samples, rng, projections=64)


def train(data, steps, seed, device):
    """Goodfellow et al. 2014, algorithm 1, one step of each player in turn: the average, the log, 8 images over time."""
    rng = tg.backend.rng(seed, device)
    generator, discriminator = networks(rng, device)
    average = tg.optim.ExponentialMovingAverage(generator)  # of weights and running statistics, in evaluation mode
    generator_optimizer, discriminator_optimizer = (
        tg.optim.Adam(network.parameters(), LR, betas=(0.5, 0.999)) for network in (generator, discriminator))

    def batch(host):
        return tg.backend.to_device(data.draw(host, BATCH), device)

    def iteration():
        real = tg.backend.fresh(batch, tg.backend.host_rng(rng))  # drawn anew in every replay
        fake = generator(tg.backend.normal(rng, (BATCH, LATENT))).data  # an array: a constant for the discriminator
        # Each in a batch of its own: batch norm in a mixed one would tell fakes by their company.
        loss = tg.losses.nonsaturating_discriminator(discriminator(real), discriminator(fake))
        discriminator_optimizer.step(tg.grad(loss, discriminator.parameters()))

        fake = generator(tg.backend.normal(rng, (BATCH, LATENT)))  # a Tensor: how it was computed is recorded
        generator_loss = tg.losses.nonsaturating_generator(discriminator(fake))
        generator_optimizer.step(tg.grad(generator_loss, generator.parameters()))
        average.update()
        return loss.data, generator_loss.data

    # Traced twice, then replayed: the same bits without the engine. A GPU runs the function as it stands.
    state = [generator, discriminator, average, generator_optimizer, discriminator_optimizer, rng]
    compute = tg.program.Program(iteration, state) if device == "cpu" else iteration
    few, many = latents(8, 0, device), latents(1000, 1, device)
    log, moments = {"step": [], "discriminator": [], "generator": [], "distance": []}, []
    for step in range(1, steps + 1):
        losses = compute()
        if step % max(1, steps // 50) == 0 or step == steps:
            samples = tg.backend.to_numpy(average.network(many).data)
            for column, value in zip(log.values(), (step, *map(float, losses), distance(data, samples, step))):
                column.append(value)
        if step in {max(1, steps // part) for part in (32, 16, 8, 4, 2, 1)}:
            moments.append((step, tg.backend.to_numpy(average.network(few).data)))
            print(f"step {step:5d}  discriminator {float(losses[0]):.3f}  generator {float(losses[1]):.3f}", flush=True)
    return average, log, moments


def interpolations(average, device):
    """Rows of images along great circles: latents are nearly as long as each other, their mean is much shorter."""
    a, b = latents(8, 2, "cpu"), latents(8, 3, "cpu")
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    w = np.arccos((a * b).sum(axis=1) / lengths)[:, None, None]
    t = np.linspace(0, 1, 8)[:, None]
    path = (np.sin((1 - t) * w) * a[:, None] + np.sin(t * w) * b[:, None]) / np.sin(w)
    rows = tg.backend.to_device(path.reshape(-1, LATENT).astype(np.float32), device)
    return tg.backend.to_numpy(average.network(rows).data)


def grid(axes, data, rows, title):
    """Images side by side, 8 in a row."""
    axes.imshow(tiles(data.to_images(rows), 8), cmap="gray", vmin=0, vmax=255)
    axes.set_axis_off()
    axes.set_title(title, fontsize=11, loc="left")


def picture(data, average, log, moments, best, title, device):
    figure = Figure(figsize=(15, 10), dpi=110, layout="constrained")
    figure.suptitle(title, fontsize=14, weight="bold")
    (real, samples, path), (early, losses, scores) = figure.subplots(2, 3)
    grid(real, data, data.draw(np.random.default_rng(0), 64), "1. Real glyphs")
    generated = tg.backend.to_numpy(average.network(latents(64, 4, device)).data)
    grid(samples, data, generated, "2. Generated: no choice, the first 64")
    grid(path, data, interpolations(average, device), "3. Each row from one latent to another")
    grid(early, data, np.concatenate([images for _, images in moments]),
         "4. The same latents in rows, steps " + ", ".join(str(step) for step, _ in moments))
    losses.plot(log["step"], log["discriminator"], color="#1b7837", label="discriminator")
    losses.plot(log["step"], log["generator"], color="#762a83", label="generator")
    losses.axhline(np.log(4), color="#666666", linestyle=":", label="log 4: a discriminator that cannot tell")
    losses.set_title("5. The losses say nothing about the pictures", fontsize=11, loc="left")
    scores.plot(log["step"], log["distance"], color="#762a83", label="generated and real")
    scores.axhline(best, color="#1b7837", linestyle="--", label="real and real")
    scores.set_title("6. Sliced Wasserstein distance of 1,000 samples", fontsize=11, loc="left")
    for axes in (losses, scores):
        axes.set(xlabel="step", ylim=(0, None))
        axes.legend(fontsize=9)
        axes.grid(alpha=0.3)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3000, help="steps of each player (default: 3000)")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--device", help="cpu, cuda, cuda:N or auto (the default)")
    parser.add_argument("--out", type=Path, default=Path("runs/dcgan_glyphs.png"), help="the picture (default: %(default)s)")
    options = parser.parse_args()
    try:
        device = tg.backend.resolve_device(options.device)
    except (ValueError, tg.backend.DeviceError) as fault:
        parser.error(str(fault))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    title, out, number = f"DCGAN, glyphs, seed {options.seed}, step {options.steps:,}", options.out, 1
    while out.exists():  # no picture is overwritten: name.png, name-2.png, ...
        out, number = options.out.with_stem(f"{options.out.stem}-{number + 1}"), number + 1

    data = tg.data.load("glyphs")
    print(f"{title}, device {device}, {tg.app.process.tune_process(16 * WIDTH)}")
    started = time.perf_counter()
    average, log, moments = train(data, options.steps, options.seed, device)
    seconds, best = time.perf_counter() - started, distance(data, data.draw(np.random.default_rng(1), 1000), 0)
    print(f"{options.steps} steps in {seconds:.0f} s: sliced Wasserstein {log['distance'][-1]:.3f} "
          f"(real and real: {best:.3f})")
    picture(data, average, log, moments, best, title, device).savefig(out)
    print(f"picture  {out}")


if __name__ == "__main__":
    main()
