"""The generator's gradient while D approaches its optimum: minimax, non-saturating, Wasserstein.

    .venv/bin/python demos/vanishing_gradients.py

The experiment of figures 2 and 3 in Arjovsky & Bottou 2017, on glyphs: a generator, after no,
little and more training (0, 20 and 100 steps of WGAN-GP), is held fixed; a discriminator, and
beside it a WGAN-GP critic, is trained against it from scratch, and the gradient that each loss
would give the generator is measured on the way. At the optimal discriminator of distributions that
do not overlap, the minimax gradient is 0 (theorem 2.4); that of a critic of slope 1 is not.

Measured (about 30 s of one core), seeds 0, 1 and 2: the gradient's norm after 1000 steps, divided
by that after the first, and two estimates of how far generated images are from real ones, the
Jensen-Shannon divergence (JSD) and the Wasserstein distance (W).

    steps of G   minimax             non-saturating   Wasserstein     JSD             W
    0            3e-5, 1e-5, 9e-6    10, 15, 8        3.0, 2.8, 2.5   0.693 = log 2   65, 65, 68
    20           2e-3, 1e-3, 2e-3    20, 14, 8        1.3, 0.9, 1.2   0.693           11, 11, 11
    100          0.008, 0.05, 0.11   11, 20, 19       1.9, 1.6, 1.4   0.688 to 0.693  9.0, 7.1, 6.9

The better the generator, the longer it takes: only a discriminator that has won takes the minimax
gradient away. Of the two estimates only the Wasserstein distance shows that the third generator is
better than the first.
"""

import copy

import numpy as np
from matplotlib.figure import Figure

import tinygan as tg
from tinygan.app import demo
from tinygan.layers import Dense, ReLU, Sequential, Tanh

BATCH, WIDTH, LATENT, N_CRITIC, PENALTY = 64, 128, 32, 5, 10.0
LR, D_LR = 1e-3, 3e-4  # of generator and critic; of the discriminator, slower so that it settles
COLORS = {"minimax": "#b35806", "non-saturating": "#762a83", "Wasserstein": "#1b7837"}


def network(d_in, d_out, rng, *last):
    hidden = []
    for width in (d_in, WIDTH, WIDTH):
        hidden += [Dense(width, WIDTH, rng=rng), ReLU()]
    return Sequential(*hidden, Dense(WIDTH, d_out, rng=rng, init=tg.init.glorot_uniform), *last)


class Discriminator:
    """A network of scores, its loss and its training."""

    lr, betas = D_LR, (0.5, 0.999)

    def __init__(self, data, rng, device):
        self.data, self.rng, self.device = data, rng, device
        self.network = network(data.dim, 1, rng)
        self.optimizer = tg.optim.Adam(self.network.parameters(), self.lr, self.betas)

    def loss(self, real, fake):
        return tg.losses.minimax_discriminator(self.network(real), self.network(fake))

    def penalty(self, real, fake):
        return 0.0

    def step(self, generator):
        host_rng = tg.backend.host_rng(self.rng)
        real = tg.backend.to_device(self.data.draw(host_rng, BATCH), self.device)
        fake = generator(tg.backend.normal(self.rng, (BATCH, LATENT))).data  # an array: a constant
        loss = self.loss(real, fake) + self.penalty(real, fake)
        self.optimizer.step(tg.grad(loss, self.network.parameters()))


class Critic(Discriminator):
    """The same for WGAN-GP."""

    lr, betas = LR, (0.5, 0.9)

    def loss(self, real, fake):
        return tg.losses.wasserstein_critic(self.network(real), self.network(fake))

    def penalty(self, real, fake):
        return PENALTY * tg.losses.gradient_penalty(self.network, real, fake, rng=self.rng)


def generators(data, stages, rng, device):
    """Copies of one WGAN-GP generator, after each number of steps in ``stages``."""
    generator, critic = network(LATENT, data.dim, rng, Tanh()), Critic(data, rng, device)
    optimizer = tg.optim.Adam(generator.parameters(), LR, betas=(0.5, 0.9))
    copies = []
    for step in range(max(stages) + 1):
        if step in stages:
            copies.append(copy.deepcopy(generator))
        for _ in range(N_CRITIC):
            critic.step(generator)
        scores = critic.network(generator(tg.backend.normal(rng, (BATCH, LATENT))))
        loss = tg.losses.wasserstein_generator(scores)
        optimizer.step(tg.grad(loss, generator.parameters()))
    return copies


def measure(generator, discriminator, critic, z, real):
    """[gradient norms by ``COLORS``, mean D(G(z)), Jensen-Shannon divergence, W distance]."""
    fake = generator(z)
    scores = discriminator.network(fake)
    losses = (tg.losses.minimax_generator(scores), tg.losses.nonsaturating_generator(scores),
              tg.losses.wasserstein_generator(critic.network(fake)))
    norms = []
    for loss in losses:
        gradients = tg.grad(loss, generator.parameters())
        norms.append(sum(float((g * g).sum()) for g in gradients) ** 0.5)
    probability = float(tg.ops.sigmoid(scores.data).mean())
    divergence = np.log(2) - float(discriminator.loss(real, fake.data)) / 2
    return [*norms, probability, divergence, -float(critic.loss(real, fake.data))]


def probe(generator, data, steps, rng, device):
    """Train D and a critic against the fixed generator: columns step, then those of ``measure``."""
    discriminator, critic = Discriminator(data, rng, device), Critic(data, rng, device)
    z = tg.backend.normal(rng, (500, LATENT))
    real = tg.backend.to_device(data.draw(tg.backend.host_rng(rng), 500), device)
    rows, shown = [], set(np.geomspace(1, steps, 30).astype(int))
    for step in range(1, steps + 1):
        discriminator.step(generator)
        critic.step(generator)
        if step in shown:
            rows.append([step, *measure(generator, discriminator, critic, z, real)])
    return np.array(rows).T


def compare(data, stages, steps, rng, device):
    """[(steps of the generator, columns of ``probe``, 16 samples), ...]."""
    results = []
    fixed = generators(data, stages, rng, device)
    print(f"{'generator steps':>16s}{'step of D':>11s}"
          + "".join(f"{name:>16s}" for name in COLORS)
          + f"{'mean D(G(z))':>15s}{'JSD':>8s}{'W':>8s}")
    line = "{:16,d}{:11,.0f}{:16.2e}{:16.2e}{:16.2e}{:15.2e}{:8.3f}{:8.3f}"
    for stage, generator in zip(stages, fixed):
        columns = probe(generator, data, steps, rng, device)
        samples = tg.backend.to_numpy(generator(tg.backend.normal(rng, (16, LATENT))).data)
        results.append((stage, columns, samples))
        for row in columns.T[np.linspace(0, columns.shape[1] - 1, 5).astype(int)]:
            print(line.format(stage, *row))
    return results


def ratio(rows):
    """For each loss: the gradient's norm at the last step divided by that at the first."""
    return rows[1:4, -1] / rows[1:4, 0]


def picture(data, results, title):
    figure = Figure(figsize=(16, 9), dpi=80, layout="constrained")
    figure.suptitle(f"{title}\nThe better D gets, the less gradient the minimax loss leaves to the "
                    "generator", fontsize=14, weight="bold")
    upper, lower = figure.subplots(2, len(results), height_ratios=(3, 1), squeeze=False)
    lowest = min(rows[4].min() for _, rows, _ in results) / 2
    for number, (axes, (stage, rows, _)) in enumerate(zip(upper, results), 1):
        for norms, (name, color), times in zip(rows[1:], COLORS.items(), ratio(rows)):
            axes.loglog(rows[0], norms, color=color, linewidth=2, label=f"{name}: x {times:.2g}")
        axes.loglog(rows[0], rows[4], color="#666666", linestyle="--", linewidth=1,
                    label="mean D(G(z)), a probability")
        axes.set(xlabel="steps of the discriminator (or critic), from scratch", ylim=(lowest, 300),
                 ylabel="norm of the generator's gradient; probability")
        axes.set_title(f"{number}. Generator fixed after {stage:,} steps", fontsize=11, loc="left")
        axes.legend(fontsize=9, loc="lower left", title="from the first to the last step")
        axes.grid(alpha=0.3)
    for axes, (_, rows, samples) in zip(lower, results):
        demo.show_images(axes, data.to_images(samples),
                         f"Its samples. In the end Jensen-Shannon is {rows[5, -1]:.3f}\n"
                         f"(at most log 2 = 0.693), Wasserstein distance {rows[6, -1]:.2g}")
    return figure


def main():
    options = demo.options(__doc__, "Vanishing gradients, glyphs", WIDTH,
                           "runs/vanishing_gradients.png",
                           steps=(1000, "of each discriminator and critic"),
                           stages=([0, 20, 100], "steps of the generators"))
    data, rng = tg.data.load("glyphs"), tg.backend.rng(options.seed, options.device)
    results = compare(data, options.stages, options.steps, rng, options.device)
    options.save(picture(data, results, options.title))


if __name__ == "__main__":
    main()
