"""A variational autoencoder reads and writes glyphs: what it maximizes can be computed.

    .venv/bin/python demos/vae_glyphs.py

Kingma & Welling 2014. The encoder gives each image x a Gaussian q(z | x) = N(mean, diag
exp(log_var)) of codes, the decoder gives each code z a probability p(x | z) of every black and
white image. Both are trained to maximize one number,
    ELBO = E_q[log p(x | z)] - KL(q(z | x) || N(0, I)) <= log p(x),
a lower bound on the log-likelihood. It is measured on held-out images: no adversary, no moving
target, and overfitting shows. Codes of 2 numbers can be plotted, codes of 16 carry more. Grey
pixels are rounded to black and white, so that the bound is one on a probability; a random tenth of
the images is held out.

Measured (36 s of one core for both codes, seed 0), nats per image:
    codes of     ELBO at first   training   held-out     best      KL   the same by sampling
     2 numbers          -613.7      -94.9      -96.7    -96.5    5.15         5.157 +- 0.005
    16 numbers          -604.9      -51.2      -61.5    -61.2   22.25        22.266 +- 0.014
Through 2 numbers the 62 characters blur into about a dozen shapes that change into one another;
through 16 most held-out images come back readable. Random codes of 16 numbers are decoded to
strokes of which, by eye, about half can be read. From epoch 40 on the bound of the training images
rises while that of the held-out ones hardly does. The bound says nothing about how sharp samples
look.
"""

import time
from statistics import NormalDist

import numpy as np
from matplotlib.figure import Figure

import tinygan as tg
from tinygan.app import demo
from tinygan.layers import Dense, ReLU, Sequential

BATCH, WIDTH, LR, LATENTS = 64, 256, 1e-3, (2, 16)
COLORS = {2: "#b35806", 16: "#762a83"}


def split(data, seed):
    """(training, held-out) images, black 0 and white 1: (n, pixels) float32."""
    images = (data.pixels.reshape(-1, data.dim) > 127).astype(np.float32)
    order = np.random.default_rng(seed).permutation(len(images))
    return images[order[len(images) // 10:]], images[order[:len(images) // 10]]


def network(d_in, d_out, rng):
    return Sequential(Dense(d_in, WIDTH, rng=rng), ReLU(),
                      Dense(WIDTH, d_out, rng=rng, init=tg.init.glorot_uniform))


def posterior(encoder, x):
    """(mean, log_var) of q(z | x), each (n, latent): the halves of the encoder's output."""
    both = encoder(x)
    latent = both.shape[1] // 2
    return both[:, :latent], both[:, latent:]


def elbo(encoder, decoder, x, rng):
    """The bound in nats per image, with one code drawn for each; a Tensor."""
    mean, log_var = posterior(encoder, x)
    z = tg.losses.reparameterize(mean, log_var, rng=rng)
    return -tg.losses.bernoulli_nll(x, decoder(z)) - tg.losses.gaussian_kl(mean, log_var)


def kl_by_sampling(mean, log_var, draws, rng):
    """E_q[log q(z | x) - log p(z)] and its standard error, to check ``gaussian_kl``."""
    gaps = []
    for _ in range(draws):
        z = tg.losses.reparameterize(mean, log_var, rng=rng)
        log_q = -tg.losses.gaussian_nll(z, mean, log_var / 2)
        log_p = -tg.losses.gaussian_nll(z, 0.0, 0.0)
        gaps.append(float(log_q - log_p))
    return np.mean(gaps), np.std(gaps) / draws ** 0.5


def train(images, held_out, latent, epochs, seed, device):
    """(encoder, decoder, columns: epoch, seconds, ELBO of training and of held-out images)."""
    rng = tg.backend.rng(seed, device)
    scored = [tg.backend.to_device(x, device) for x in (images[:len(held_out)], held_out)]
    encoder = network(images.shape[1], 2 * latent, rng)
    decoder = network(latent, images.shape[1], rng)  # codes -> logits of pixels
    parameters = encoder.parameters() + decoder.parameters()
    optimizer = tg.optim.Adam(parameters, LR)

    def batch(host_rng):
        return tg.backend.to_device(images[host_rng.integers(len(images), size=BATCH)], device)

    def iteration():
        x = tg.backend.fresh(batch, tg.backend.host_rng(rng))  # drawn anew in every replay
        optimizer.step(tg.grad(-elbo(encoder, decoder, x, rng), parameters))

    # Traced twice, then replayed: the same bits without the engine. A GPU calls the function.
    state = [encoder, decoder, optimizer, rng]
    step = tg.program.Program(iteration, state) if device == "cpu" else iteration
    rows, spent = [], 0.0
    for epoch in range(epochs + 1):
        if epoch % max(1, epochs // 40) == 0 or epoch == epochs:
            rows.append([epoch, spent] + [
                float(elbo(encoder, decoder, x, tg.backend.rng(0, device)).data) for x in scored])
        begun = time.perf_counter()
        for _ in range(len(images) // BATCH if epoch < epochs else 0):
            step()
        spent += time.perf_counter() - begun
    return encoder, decoder, np.array(rows).T


def report(latent, encoder, log, held_out, device):
    """One line of the table."""
    epochs, seconds, training, bounds = log
    mean, log_var = (t.data for t in posterior(encoder, tg.backend.to_device(held_out, device)))
    kl = float(tg.losses.gaussian_kl(mean, log_var))
    sampled, error = kl_by_sampling(mean, log_var, 100, tg.backend.rng(0, device))
    print(f"{latent:<9d}{bounds[0]:13.1f}{training[-1]:10.1f}{bounds[-1]:10.1f}{bounds.max():8.1f}"
          f"{epochs[bounds.argmax()]:10.0f}{kl:8.3f}{sampled:13.3f}{error:7.3f}{seconds[-1]:9.0f}",
          flush=True)


def decoded(decoder, z, device):
    """The probability of white in every pixel, for codes (n, latent), as grey images."""
    logits = decoder(tg.backend.to_device(z, device)).data
    return grey(tg.backend.to_numpy(tg.ops.sigmoid(logits)))


def grey(x):
    """(n, pixels) in [0, 1] -> (n, 1, 28, 28) uint8."""
    return np.rint(255 * x).astype(np.uint8).reshape(-1, 1, 28, 28)


def code_grid(side):
    """Codes of 2 numbers at equal steps of probability under N(0, I): (side^2, 2)."""
    steps = [NormalDist().inv_cdf((i + 0.5) / side) for i in range(side)]
    return np.array([[x, -y] for y in steps for x in steps], np.float32)


def picture(runs, held_out, title, device):
    figure = Figure(figsize=(13, 12), dpi=80, layout="constrained")
    figure.suptitle(title, fontsize=14, weight="bold")
    (manifold, samples), (copies, curves) = figure.subplots(2, 2)
    small, large = (decoder for _, decoder, _ in runs.values())
    z = np.random.default_rng(0).standard_normal((12 * 16, LATENTS[1]), np.float32)
    demo.show_images(manifold, decoded(small, code_grid(16), device),
                     "1. All that two numbers can say: codes from -1.9 (left, bottom)\n"
                     "to 1.9 (right, top), at equal steps of probability", columns=16)
    demo.show_images(samples, decoded(large, z, device),
                     "2. Samples: 192 random codes of 16 numbers, decoded", columns=16)
    shown = held_out[:64]
    versions = [grey(shown)]
    for encoder, decoder, _ in runs.values():
        mean, _ = posterior(encoder, tg.backend.to_device(shown, device))
        versions.append(decoded(decoder, mean.data, device))
    stacked = np.stack([v.reshape(4, 16, 1, 28, 28) for v in versions], axis=1)
    demo.show_images(copies, stacked.reshape(-1, 1, 28, 28),
                     "3. In threes, top to bottom: a held-out image, and what comes back\n"
                     "through 2 numbers and through 16", columns=16)
    for latent, (_, _, (epochs, _, training, bounds)) in runs.items():
        for values, style, which in ((training, "--", "training"), (bounds, "-", "held-out")):
            curves.plot(epochs, values, style, color=COLORS[latent],
                        label=f"{latent} numbers, {which} images")
    top = max(training.max() for _, _, (_, _, training, _) in runs.values())
    curves.set(xlabel="epoch", ylabel="ELBO [nats per image]", ylim=(-160, top + 10))
    curves.set_title("4. The bound on log p(x): where the dashes leave the line,\n"
                     "the networks overfit the training images", fontsize=11, loc="left")
    curves.legend(fontsize=9, loc="lower right")
    curves.grid(alpha=0.3)
    return figure


def main():
    options = demo.options(__doc__, "VAE, glyphs", WIDTH, "runs/vae_glyphs.png",
                           epochs=(100, "passes over the training images"))
    images, held_out = split(tg.data.load("glyphs"), options.seed)
    print(f"{len(images)} training images, {len(held_out)} held out\n"
          f"{'latent':9s}{'ELBO at first':>13s}{'training':>10s}{'held-out':>10s}{'best':>8s}"
          f"{'at epoch':>10s}{'KL':>8s}{'by sampling':>13s}{'+-':>7s}{'seconds':>9s}")
    runs = {}
    for latent in LATENTS:
        encoder, decoder, log = runs[latent] = train(
            images, held_out, latent, options.epochs, options.seed, options.device)
        report(latent, encoder, log, held_out, options.device)
    options.save(picture(runs, held_out, options.title, options.device))


if __name__ == "__main__":
    main()
