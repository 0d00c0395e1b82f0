"""DCGAN draws letters and digits: convolutions and batch normalization, with the original GAN loss.

    .venv/bin/python demos/dcgan_glyphs.py

The architecture of Radford et al. 2016, for 28 x 28 pixels and at this package's default width.

Measured on one BLAS thread (220 s each, other work on the machine), seeds 0 and 1: the sliced
Wasserstein distance of 1,000 samples falls from 0.58 at step 60 to 0.05 at step 1000 and ends at
0.035 and 0.045 (0.023 for real images). Strokes are smooth and connected where those of an MLP are
ragged (compare demos/glyphs_wgan_gp.py); by eye about half of the samples can be read, and many lie
between two letters. On the way from one latent to another shapes change gradually. The losses
oscillate to the end and show none of this.
"""

import numpy as np
from matplotlib.figure import Figure

import tinygan as tg
from tinygan.app import demo
from tinygan.init import dcgan  # N(0, 0.02^2)
from tinygan.layers import (BatchNorm, Conv2d, ConvTranspose2d, Dense, Flatten, LeakyReLU, ReLU,
                            Reshape, Sequential, Tanh)

BATCH, WIDTH, LATENT = 64, 32, 100
LR, BETAS = 2e-4, (0.5, 0.999)  # the paper's


def networks(rng, device):
    """Section 3 of Radford et al. 2016: strided convolutions for pooling, batch normalization.

    There is none at the generator's output, the image, nor at the discriminator's input.
    """
    generator = Sequential(
        Dense(LATENT, 2 * WIDTH * 7 * 7, rng=rng, init=dcgan), Reshape((2 * WIDTH, 7, 7)),
        BatchNorm(2 * WIDTH, device=device), ReLU(),
        ConvTranspose2d(2 * WIDTH, WIDTH, 4, stride=2, padding=1, rng=rng, init=dcgan),  # 14 x 14
        BatchNorm(WIDTH, device=device), ReLU(),
        ConvTranspose2d(WIDTH, 1, 4, stride=2, padding=1, rng=rng, init=dcgan),  # 28 x 28
        Tanh(), Flatten())
    discriminator = Sequential(
        Reshape((1, 28, 28)),
        Conv2d(1, WIDTH, 4, stride=2, padding=1, rng=rng, init=dcgan), LeakyReLU(0.2),
        Conv2d(WIDTH, 2 * WIDTH, 4, stride=2, padding=1, rng=rng, init=dcgan),
        BatchNorm(2 * WIDTH, device=device), LeakyReLU(0.2),
        Flatten(), Dense(2 * WIDTH * 7 * 7, 1, rng=rng, init=dcgan))
    return generator, discriminator


def latents(n, seed):
    return np.random.default_rng(seed).standard_normal((n, LATENT), np.float32)


def generated(generator, z, device):
    """G(z) on the host."""
    return tg.backend.to_numpy(generator(tg.backend.to_device(z, device)).data)


def distance(data, samples, seed):
    """Sliced Wasserstein distance to as many real images."""
    rng = np.random.default_rng(seed)
    real = data.draw(rng, len(samples))
    return tg.metrics.sliced_wasserstein(real, samples, rng, projections=64)


def train(data, steps, seed, device):
    """Algorithm 1 of Goodfellow et al. 2014, k = 1: the averaged generator, log, images over time.
    """
    rng = tg.backend.rng(seed, device)
    generator, discriminator = networks(rng, device)
    average = tg.optim.ExponentialMovingAverage(generator)  # of weights and running statistics
    generator_optimizer = tg.optim.Adam(generator.parameters(), LR, BETAS)
    discriminator_optimizer = tg.optim.Adam(discriminator.parameters(), LR, BETAS)

    def batch(host_rng):
        return tg.backend.to_device(data.draw(host_rng, BATCH), device)

    def iteration():
        real = tg.backend.fresh(batch, tg.backend.host_rng(rng))  # drawn anew in every replay
        fake = generator(tg.backend.normal(rng, (BATCH, LATENT))).data  # an array: a constant
        # Two batches: in a mixed one batch normalization would give the fakes away.
        loss = tg.losses.nonsaturating_discriminator(discriminator(real), discriminator(fake))
        discriminator_optimizer.step(tg.grad(loss, discriminator.parameters()))

        fake = generator(tg.backend.normal(rng, (BATCH, LATENT)))  # a Tensor
        generator_loss = tg.losses.nonsaturating_generator(discriminator(fake))
        generator_optimizer.step(tg.grad(generator_loss, generator.parameters()))
        average.update()
        return loss.data, generator_loss.data

    # Traced twice, then replayed: the same bits without the engine. A GPU calls the function.
    state = [generator, discriminator, average, generator_optimizer, discriminator_optimizer, rng]
    compute = tg.program.Program(iteration, state) if device == "cpu" else iteration
    shown = {max(1, steps // part) for part in (32, 16, 8, 4, 2, 1)}
    log, snapshots = [], {}
    for step in range(1, steps + 1):
        d_loss, g_loss = map(float, compute())
        if step % max(1, steps // 50) == 0 or step == steps:
            samples = generated(average.network, latents(1000, 1), device)
            log.append((step, d_loss, g_loss, distance(data, samples, step)))
        if step in shown:
            snapshots[step] = generated(average.network, latents(8, 0), device)
            print(f"step {step:5d}  discriminator {d_loss:.3f}  generator {g_loss:.3f}", flush=True)
    return average.network, np.array(log).T, snapshots


def great_circles(a, b, n):
    """n latents on the way from each row of a to that of b (spherical interpolation, White 2016).

    Latents all have nearly the same norm; on the straight line the norm would dip.
    """
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    w = np.arccos((a * b).sum(axis=1) / lengths)[:, None, None]
    t = np.linspace(0, 1, n)[:, None]
    path = (np.sin((1 - t) * w) * a[:, None] + np.sin(t * w) * b[:, None]) / np.sin(w)
    return path.reshape(-1, LATENT).astype(np.float32)


def picture(data, generator, log, snapshots, best, device, title):
    steps, discriminator_losses, generator_losses, distances = log
    figure = Figure(figsize=(15, 10), dpi=110, layout="constrained")
    figure.suptitle(title, fontsize=14, weight="bold")
    (real, samples, paths), (early, losses, scores) = figure.subplots(2, 3)
    for axes, rows, text in (
            (real, data.draw(np.random.default_rng(0), 64), "1. Real glyphs"),
            (samples, generated(generator, latents(64, 4), device),
             "2. Generated: the first 64, not selected"),
            (paths, generated(generator, great_circles(latents(8, 2), latents(8, 3), 8), device),
             "3. Each row from one latent to another"),
            (early, np.concatenate(list(snapshots.values())),
             "4. The same latents in rows, steps " + ", ".join(map(str, snapshots)))):
        demo.show_images(axes, data.to_images(rows), text)
    losses.plot(steps, discriminator_losses, color="#1b7837", label="discriminator")
    losses.plot(steps, generator_losses, color="#762a83", label="generator")
    losses.axhline(np.log(4), color="#666666", linestyle=":",
                   label="log 4: a discriminator that cannot tell")
    losses.set_title("5. The losses say nothing about the images", fontsize=11, loc="left")
    scores.plot(steps, distances, color="#762a83", label="generated and real")
    scores.axhline(best, color="#1b7837", linestyle="--", label="real and real")
    scores.set_title("6. Sliced Wasserstein distance of 1,000 samples", fontsize=11, loc="left")
    for axes in (losses, scores):
        axes.set(xlabel="step", ylim=(0, None))
        axes.legend(fontsize=9)
        axes.grid(alpha=0.3)
    return figure


def main():
    options = demo.options(__doc__, "DCGAN, glyphs", 16 * WIDTH, "runs/dcgan_glyphs.png",
                           steps=(3000, "of each player"))
    data = tg.data.load("glyphs")
    generator, log, snapshots = train(data, options.steps, options.seed, options.device)
    best = distance(data, data.draw(np.random.default_rng(1), 1000), 0)
    print(f"sliced Wasserstein {log[3, -1]:.3f} (real and real: {best:.3f})")
    options.save(picture(data, generator, log, snapshots, best, options.device, options.title))


if __name__ == "__main__":
    main()
