"""A variational autoencoder reads and writes glyphs: what it promises can be computed, unlike what a GAN promises.

    .venv/bin/python demos/vae_glyphs.py

Kingma & Welling 2014. The encoder gives each image x a Gaussian q(z | x) = N(mean, diag exp(log_var)) of codes, the decoder
gives each code z a probability p(x | z) of every black and white image. Both are trained to raise one number,
    ELBO = E_q[log p(x | z)] - KL(q(z | x) || N(0, I)) <= log p(x),
a lower bound of the log-likelihood. It is measured on images that were held out: no adversary, no moving target, and
overfitting shows. Codes of 2 numbers can be looked at, codes of 16 carry more. Grey pixels are rounded to black and white,
so that the bound is one of a probability; one tenth of the images, picked at random, is held out.

Measured (36 s of one core for both codes, seed 0), nats per image:
    codes of     ELBO at first   training   held-out     best      KL   the same by sampling
     2 numbers          -613.7      -94.9      -96.7    -96.7    5.14         5.146 +- 0.005
    16 numbers          -604.9      -51.2      -61.5    -61.1   22.28        22.296 +- 0.014
Through 2 numbers the 62 characters blur into about a dozen shapes that change into one another; through 16 most held-out
images come back readable. Random codes of 16 numbers are decoded to strokes of which, by eye, about half can be read. From
epoch 40 on training images gain and held-out ones hardly do. The bound says nothing about how sharp samples look.
"""

import argparse
import time
from pathlib import Path
from statistics import NormalDist

import numpy as np
from matplotlib.figure import Figure

import tinygan as tg
from tinygan.layers import Dense, ReLU, Sequential

BATCH, WIDTH, LR, LATENTS = 64, 256, 1e-3, (2, 16)
COLORS = {2: "#b35806", 16: "#762a83"}


def split(data, seed):
    """(training, held-out) images, black 0 and white 1: (n, pixels) float32."""
    images = (data.pixels.reshape(-1, data.dim) > 127).astype(np.float32)
    order = np.random.default_rng(seed).permutation(len(images))
    return images[order[len(images) // 10:]], images[order[:len(images) // 10]]


def networks(pixels, latent, rng):
    """(encoder: images -> the means and log-variances of codes side by side, decoder: codes -> logits of pixels)."""
    def network(d_in, d_out):
        return Sequential(Dense(d_in, WIDTH, rng=rng), ReLU(), Dense(WIDTH, d_out, rng=rng, init=tg.init.glorot_uniform))
    return network(pixels, 2 * latent), network(latent, pixels)


def posterior(encoder, x):
    """(mean, log_var) of q(z | x), each (n, latent)."""
    both = encoder(x)
    latent = both.shape[1] // 2
    return both[:, :latent], both[:, latent:]


def elbo(encoder, decoder, x, rng):
    """The bound in nats per image, one code drawn for each: an array for arrays, a Tensor where weights are Tensors."""
    mean, log_var = posterior(encoder, x)
    z = tg.losses.reparameterize(mean, log_var, rng=rng)
    return -tg.losses.bernoulli_nll(x, decoder(z)) - tg.losses.gaussian_kl(mean, log_var)


def kl_by_sampling(mean, log_var, draws, rng):
    """E_q[log q(z | x) - log p(z)] from draws of z, and its standard error: what ``gaussian_kl`` has in closed form."""
    gaps = []
    for _ in range(draws):
        z = tg.losses.reparameterize(mean, log_var, rng=rng)
        gaps.append(float(tg.losses.gaussian_nll(z, 0.0, 0.0) - tg.losses.gaussian_nll(z, mean, log_var / 2)))
    return np.mean(gaps), np.std(gaps) / draws ** 0.5


def train(images, held_out, latent, epochs, seed, device):
    """(encoder, decoder, rows (epoch, seconds, ELBO of the training images, ELBO of the held-out images))."""
    rng = tg.backend.rng(seed, device)
    scored = [tg.backend.to_device(x, device) for x in (images[:len(held_out)], held_out)]
    encoder, decoder = networks(images.shape[1], latent, rng)
    parameters = encoder.parameters() + decoder.parameters()
    optimizer = tg.optim.Adam(parameters, LR)

    def batch(host):
        return tg.backend.to_device(images[host.integers(len(images), size=BATCH)], device)

    def iteration():
        x = tg.backend.fresh(batch, tg.backend.host_rng(rng))  # drawn anew in every replay
        optimizer.step(tg.grad(-elbo(encoder, decoder, x, rng), parameters))

    # Traced twice, then replayed: the same bits without the engine. A GPU runs the function as it stands.
    step = tg.program.Program(iteration, [encoder, decoder, optimizer, rng]) if device == "cpu" else iteration
    rows, spent = [], 0.0
    for epoch in range(epochs + 1):
        if epoch % max(1, epochs // 40) == 0 or epoch == epochs:
            rows.append([epoch, spent] + [float(elbo(encoder, decoder, x, tg.backend.rng(0, device)).data)
                                          for x in scored])
        begun = time.perf_counter()
        for _ in range(len(images) // BATCH if epoch < epochs else 0):
            step()
        spent += time.perf_counter() - begun
    return encoder, decoder, np.array(rows).T


def decoded(decoder, z, device):
    """The probability of white of every pixel, for codes (n, latent): an array on the host."""
    return tg.backend.to_numpy(tg.ops.sigmoid(decoder(tg.backend.to_device(z, device)).data))


def manifold(decoder, side, device):
    """Codes on a grid, at equal steps of probability under N(0, I) (the paper's figure 4): (side^2, pixels)."""
    steps = [NormalDist().inv_cdf((i + 0.5) / side) for i in range(side)]
    return decoded(decoder, np.array([[x, -y] for y in steps for x in steps], np.float32), device)


def tiles(axes, images, columns, title):
    rows = images.reshape(-1, columns, 28, 28).transpose(0, 2, 1, 3)
    axes.imshow(rows.reshape(rows.shape[0] * 28, columns * 28), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(title, fontsize=11, loc="left")
    axes.set(xticks=[], yticks=[])


def picture(runs, held_out, title, device):
    figure = Figure(figsize=(13, 11.5), dpi=80, layout="constrained")
    figure.suptitle(title, fontsize=14, weight="bold")
    (grid, samples), (copies, curves) = figure.subplots(2, 2)
    tiles(grid, manifold(runs[LATENTS[0]][1], 16, device), 16,
          "1. All that two numbers can say: codes from -1.9 (left,\nbottom) to 1.9 (right, top), equal steps of probability")
    z = np.random.default_rng(0).standard_normal((12 * 16, LATENTS[1]), np.float32)
    tiles(samples, decoded(runs[LATENTS[1]][1], z, device), 16, "2. Samples: 192 random codes of 16 numbers, decoded")
    shown = held_out[:64]
    lines = [shown] + [decoded(decoder, posterior(encoder, tg.backend.to_device(shown, device))[0].data, device)
                       for encoder, decoder, _ in runs.values()]
    tiles(copies, np.stack([line.reshape(4, 16, -1) for line in lines], axis=1), 16,
          "3. In threes, one above the other: a held-out image,\nread and written again through 2 numbers, and through 16")
    for latent, (_, _, rows) in runs.items():
        for values, style, which in ((rows[2], "--", "training"), (rows[3], "-", "held-out")):
            curves.plot(rows[0], values, style, color=COLORS[latent], label=f"{latent} numbers, {which} images")
    top = max(rows[2].max() for _, _, rows in runs.values())
    curves.set(xlabel="epoch", ylabel="ELBO [nats per image]", ylim=(-160, top + 10))
    curves.set_title("4. The bound of log p(x): where dashes leave the line,\ntraining images are being learnt by heart",
                     fontsize=11, loc="left")
    curves.legend(fontsize=9, loc="lower right")
    curves.grid(alpha=0.3)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=100, help="passes over the training images (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--device", help="cpu, cuda, cuda:N or auto (the default)")
    parser.add_argument("--out", type=Path, default=Path("runs/vae_glyphs.png"), help="the picture (default: %(default)s)")
    options = parser.parse_args()
    try:
        device = tg.backend.resolve_device(options.device)
    except (ValueError, tg.backend.DeviceError) as fault:
        parser.error(str(fault))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    title, out, number = f"VAE, glyphs, seed {options.seed}, {options.epochs} epochs", options.out, 1
    while out.exists():  # no picture is overwritten: name.png, name-2.png, ...
        out, number = options.out.with_stem(f"{options.out.stem}-{number + 1}"), number + 1

    images, held_out = split(tg.data.load("glyphs"), options.seed)
    print(f"{title}, device {device}, {tg.app.process.tune_process(WIDTH)}")
    print(f"{len(images)} training images, {len(held_out)} held out\n"
          f"{'latent':9s}{'ELBO at first':>13s}{'training':>10s}{'held-out':>10s}{'best':>8s}{'at epoch':>10s}"
          f"{'KL':>8s}{'by sampling':>13s}{'+-':>7s}{'seconds':>9s}")
    runs = {}
    for latent in LATENTS:
        encoder, decoder, rows = runs[latent] = train(images, held_out, latent, options.epochs, options.seed, device)
        mean, log_var = (t.data for t in posterior(encoder, tg.backend.to_device(held_out, device)))
        sampled, error = kl_by_sampling(mean, log_var, 100, tg.backend.rng(0, device))
        print(f"{latent:<9d}{rows[3, 0]:13.1f}{rows[2, -1]:10.1f}{rows[3, -1]:10.1f}{rows[3].max():8.1f}"
              f"{rows[0, rows[3].argmax()]:10.0f}{float(tg.losses.gaussian_kl(mean, log_var)):8.3f}"
              f"{sampled:13.3f}{error:7.3f}{rows[1, -1]:9.0f}", flush=True)
    picture(runs, held_out, title, device).savefig(out)
    print(f"picture  {out}")


if __name__ == "__main__":
    main()
