"""WGAN-GP draws letters and digits: the loop of the ring demo on images, replayed as a program.

    .venv/bin/python demos/glyphs_wgan_gp.py

An image is a point of 784 numbers here; nothing tells the networks which pixels are neighbours.

Measured on one BLAS thread (210 s each, other work on the machine), seeds 0 and 1: the sliced
Wasserstein distance of 2,500 samples falls to 0.032 and 0.032 by step 300 and to 0.018 and 0.019 at
the end (0.016 for real images). By eye more than half of the samples can be read as a letter or a
digit; their outlines are ragged, with stray pixels beside them (compare demos/dcgan_glyphs.py). The
critic's estimate W is 2.7 and 2.6 at step 300 and still 2.9 and 2.6 at the end, although the
samples get better: it measures both players.
"""

import numpy as np
from matplotlib.figure import Figure

import tinygan as tg
from tinygan.app import demo
from tinygan.layers import Dense, ReLU, Sequential, Tanh

BATCH, WIDTH, LATENT = 64, 256, 64
N_CRITIC = 5  # critic steps per generator step
PENALTY = 10.0  # lambda, as in the paper; toy data in the plane want less
LR = 1e-3  # at the start; decays linearly to 0. The paper's 1e-4 is for 200,000 steps


def network(d_in, d_out, rng, *last):
    hidden = []
    for width in (d_in, WIDTH, WIDTH):
        hidden += [Dense(width, WIDTH, rng=rng), ReLU()]
    return Sequential(*hidden, Dense(WIDTH, d_out, rng=rng, init=tg.init.glorot_uniform), *last)


def adam(network, steps):
    return tg.optim.Adam(network.parameters(), tg.optim.linear(LR, steps), betas=(0.5, 0.9))


def sample(generator, n, rng, device):
    z = tg.backend.to_device(rng.standard_normal((n, LATENT), np.float32), device)
    return tg.backend.to_numpy(generator(z).data)


def distance(data, generator, seed, device):
    """The sliced Wasserstein distance of 2,500 samples, or real images for None, to real images."""
    rng = np.random.default_rng(seed)
    fake = data.draw(rng, 2500) if generator is None else sample(generator, 2500, rng, device)
    real = data.draw(np.random.default_rng(seed + 1), 2500)
    return tg.metrics.sliced_wasserstein(real, fake, rng, projections=64)


def train(data, steps, seed, device):
    """Algorithm 1 of Gulrajani et al. 2017, with a decaying learning rate."""
    rng = tg.backend.rng(seed, device)
    generator, critic = network(LATENT, data.dim, rng, Tanh()), network(data.dim, 1, rng)
    average = tg.optim.ExponentialMovingAverage(generator)
    generator_optimizer, critic_optimizer = adam(generator, steps), adam(critic, steps * N_CRITIC)

    def batch(host_rng):
        return tg.backend.to_device(data.draw(host_rng, BATCH), device)

    def iteration():
        for _ in range(N_CRITIC):
            real = tg.backend.fresh(batch, tg.backend.host_rng(rng))  # drawn anew in every replay
            fake = generator(tg.backend.normal(rng, (BATCH, LATENT))).data  # an array: a constant
            minus_w = tg.losses.wasserstein_critic(critic(real), critic(fake))
            penalty = tg.losses.gradient_penalty(critic, real, fake, rng=rng)
            critic_loss = minus_w + PENALTY * penalty
            critic_optimizer.step(tg.grad(critic_loss, critic.parameters()))

        fake = generator(tg.backend.normal(rng, (BATCH, LATENT)))  # a Tensor
        generator_loss = tg.losses.wasserstein_generator(critic(fake))
        generator_optimizer.step(tg.grad(generator_loss, generator.parameters()))
        average.update()
        return minus_w.data, penalty.data

    # Traced twice, then replayed: the same bits without the engine. A GPU calls the function.
    state = [generator, critic, average, generator_optimizer, critic_optimizer, rng]
    compute = tg.program.Program(iteration, state) if device == "cpu" else iteration
    log = []
    for step in range(1, steps + 1):
        minus_w, penalty = map(float, compute())
        if step % max(1, steps // 50) == 0 or step == steps:
            log.append((step, -minus_w, distance(data, average.network, step, device)))
        if step % max(1, steps // 10) == 0:
            print(f"step {step:5d}  W {-minus_w:7.3f}  penalty {penalty:6.3f}  "
                  f"sliced Wasserstein {log[-1][2]:.3f}", flush=True)
    return average.network, np.array(log).T


def picture(data, generator, log, best, device, title):
    rng, (steps, w_estimates, distances) = np.random.default_rng(0), log
    figure = Figure(figsize=(15, 5.4), dpi=110, layout="constrained")
    figure.suptitle(title, fontsize=14, weight="bold")
    left, middle, right = figure.subplots(1, 3)
    demo.show_images(left, data.to_images(data.draw(rng, 64)), "1. Real glyphs")
    demo.show_images(middle, data.to_images(sample(generator, 64, rng, device)),
                     "2. Generated: the first 64, not selected")
    right.plot(steps, distances, "o-", color="#762a83", markersize=3,
               label="sliced Wasserstein, generated and real")
    right.axhline(best, color="#1b7837", linestyle="--", label="the same, real and real")
    right.plot(steps, w_estimates / 100, color="#b35806", label="the critic's estimate W / 100")
    right.set(xlabel="step", ylabel="distance in the networks' units", ylim=(0, None))
    right.set_title("3. Two distances over time", fontsize=11, loc="left")
    right.legend(fontsize=9)
    right.grid(alpha=0.3)
    return figure


def main():
    options = demo.options(__doc__, "WGAN-GP, glyphs", WIDTH, "runs/glyphs_wgan_gp.png",
                           steps=(3000, "generator steps"))
    data, device = tg.data.load("glyphs"), options.device
    generator, log = train(data, options.steps, options.seed, device)
    final, best = distance(data, generator, 0, device), distance(data, None, 0, device)
    print(f"sliced Wasserstein {final:.3f} (real and real: {best:.3f})")
    options.save(picture(data, generator, log, best, device, options.title))


if __name__ == "__main__":
    main()
