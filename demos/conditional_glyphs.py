"""Ask a GAN for a letter: labels for the generator, a projection for the critic.

    .venv/bin/python demos/conditional_glyphs.py

The generator takes the label beside its latent, one-hot (Mirza & Osindero 2014). The critic's score
is f(x, y) = a^T h(x) + b + y^T V h(x): a direction of its features for all, and one more for each
class (Miyato & Koyama 2018). Nothing else of the loop knows of labels but that real and generated
examples are paired with the same one, by which the penalties hold it fixed (R3GAN, Huang et al.
2024).

Measured (95 s of a busy core, seeds 0 and 1): of 2,000 samples 82 and 80 % are nearest to a
training image of the character that was asked for. Of the test part, real images, it is 79 %: sizes
and faces differ by more than o and O, or l and I. By eye nearly every one of 31 rows reads as its
character, most with frayed strokes.
"""

import numpy as np
from matplotlib.figure import Figure

import tinygan as tg
from tinygan.app import demo
from tinygan.layers import Dense, Module, ReLU, Sequential, Tanh

BATCH, WIDTH, LATENT = 64, 256, 64
LR, BETAS, WEIGHT = 1e-3, (0.5, 0.99), 1.0  # the weight is that of R1 + R2


class Generator(Module):
    """G(z, y): images, from latents and one-hot labels of their length side by side."""

    def __init__(self, classes, pixels, rng):
        self.body = Sequential(Dense(LATENT + classes, WIDTH, rng=rng), ReLU(),
                               Dense(WIDTH, WIDTH, rng=rng), ReLU(),
                               Dense(WIDTH, pixels, rng=rng, init=tg.init.glorot_uniform), Tanh())

    def forward(self, z, y):
        return self.body(tg.ops.concatenate([z, y * LATENT ** 0.5], axis=1))


class Critic(Module):
    """f(x, y), with V the embedding of the labels."""

    def __init__(self, classes, pixels, rng):
        self.features = Sequential(Dense(pixels, WIDTH, rng=rng), ReLU(),
                                   Dense(WIDTH, WIDTH, rng=rng), ReLU())
        self.score = Dense(WIDTH, 1, rng=rng, init=tg.init.glorot_uniform)
        self.embedding = Dense(classes, WIDTH, rng=rng, bias=False, init=tg.init.glorot_uniform)

    def forward(self, x, y):
        h = self.features(x)
        return self.score(h) + tg.ops.sum(h * self.embedding(y), axis=1, keepdims=True)


def train(data, steps, seed, device):
    """The generator's moving average after so many steps of each player."""
    rng = tg.backend.rng(seed, device)
    classes = len(data.classes)
    generator, critic = Generator(classes, data.dim, rng), Critic(classes, data.dim, rng)
    average = tg.optim.ExponentialMovingAverage(generator)
    schedule = tg.optim.linear(LR, steps)
    optimizers = [tg.optim.Adam(network.parameters(), schedule, BETAS)
                  for network in (generator, critic)]

    def labels(host_rng):
        return tg.backend.to_device(data.one_hot(data.draw_labels(host_rng, BATCH)), device)

    def batch(host_rng, y):
        """A training image of each label."""
        x = data.draw(host_rng, BATCH, tg.backend.to_numpy(y).argmax(axis=1))
        return tg.backend.to_device(x, device)

    def drawn():
        """Labels, images that have them, and latents."""
        y = tg.backend.fresh(labels, tg.backend.host_rng(rng))
        real = tg.backend.fresh(batch, tg.backend.host_rng(rng), y)
        return y, real, tg.backend.normal(rng, (BATCH, LATENT))

    def iteration():
        y, real, z = drawn()
        fake = generator(z, y).data  # an array: a constant
        loss = tg.losses.relativistic_discriminator(critic(real, y), critic(fake, y))
        penalty = (tg.losses.r1_penalty(lambda x: critic(x, y), real)  # y is held fixed
                   + tg.losses.r2_penalty(lambda x: critic(x, y), fake))
        optimizers[1].step(tg.grad(loss + WEIGHT * penalty, critic.parameters()))

        y, real, z = drawn()
        generator_loss = tg.losses.relativistic_generator(critic(generator(z, y), y),
                                                          critic(real, y))
        optimizers[0].step(tg.grad(generator_loss, generator.parameters()))
        average.update()
        return loss.data, generator_loss.data

    state = [generator, critic, average, *optimizers, rng]
    compute = tg.program.Program(iteration, state) if device == "cpu" else iteration
    for step in range(1, steps + 1):
        losses = compute()
        if step % max(1, steps // 10) == 0:
            print(f"step {step:5d}  critic {float(losses[0]):.3f}  "
                  f"generator {float(losses[1]):.3f}", flush=True)
    return average.network


def generated(generator, data, labels, seed, device):
    """G(z, y) for classes (n,), on the host."""
    z = np.random.default_rng(seed).standard_normal((len(labels), LATENT), np.float32)
    inputs = (tg.backend.to_device(a, device) for a in (z, data.one_hot(labels)))
    return tg.backend.to_numpy(generator(*inputs).data)


def accuracy(data, x, labels):
    """The share of points whose nearest training example has their label."""
    rows = data.split["train"]
    nearest, _ = tg.metrics.nearest(x, data.at(rows))
    return np.mean(data.labels[rows][nearest[:, 0]] == labels)


def picture(data, generator, device, title):
    """Real characters beside generated ones, a row of eight for each of 31 classes."""
    figure = Figure(figsize=(9, 16), dpi=110, layout="constrained")
    figure.suptitle(title, fontsize=13, weight="bold")
    left, right = figure.subplots(1, 2)
    shown = np.arange(0, len(data.classes), 2).repeat(8)
    real = data.draw(np.random.default_rng(0), len(shown), shown)
    demo.show_images(left, data.to_images(real), "1. Real: every second character")
    fake = generated(generator, data, shown, 1, device)
    demo.show_images(right, data.to_images(fake), "2. Asked for: not selected")
    return figure


def main():
    options = demo.options(__doc__, "Conditional R3GAN, glyphs", WIDTH,
                           "runs/conditional_glyphs.png", steps=(4000, "of each player"))
    data = tg.data.load("glyphs", conditional=True)
    generator = train(data, options.steps, options.seed, options.device)
    asked = data.draw_labels(np.random.default_rng(2), 2000)
    made = generated(generator, data, asked, 3, options.device)
    test = data.split["test"]
    print(f"nearest training image of the same class: {accuracy(data, made, asked):.3f} of samples,"
          f" {accuracy(data, data.at(test), data.labels[test]):.3f} of the test part")
    options.save(picture(data, generator, options.device, options.title))


if __name__ == "__main__":
    main()
