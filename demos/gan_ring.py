"""The generator's gradient while the discriminator wins: minimax and non-saturating loss compared.

    .venv/bin/python demos/gan_ring.py

First the discriminator is trained alone against a fresh generator whose samples lie on none of the
modes. The better it tells the two apart, the less the minimax loss E[log(1 - D(G(z)))] has left to
learn from: each example's gradient is D(G(z)) times that of its score, and D(G(z)) goes to 0. In
the non-saturating loss -E[log D(G(z))] the factor is 1 - D(G(z)), which goes to 1. Then both
players train, from the same networks and on the same draws.

Measured on two cores (about 7 s each), seeds 0 to 4:
  After 1000 steps of the discriminator alone the norm of the minimax gradient was 6e-2, 3e-2, 8e-2,
  6e-4 and 2e-3, that of the non-saturating one 18, 37, 20, 29 and 44, at the very same networks (at
  step 0 both were between 1 and 5).
  After 2000 steps of both players the minimax generator covered 4, 3, 1, 1 and 5 of 8 modes, the
  non-saturating one 3, 3, 3, 2 and 6. Five seeds show no winner here: Adam divides a gradient by
  its own recent size, which makes up for a small one, and neither loss keeps a generator from
  dropping modes (compare demos/wgan_gp_ring.py).
"""

import copy

import numpy as np
from matplotlib.figure import Figure

import tinygan as tg
from tinygan.app import demo
from tinygan.layers import Dense, ReLU, Sequential

BATCH, WIDTH, LATENT, LR = 128, 64, 2, 1e-3
LOSSES = {"minimax": tg.losses.minimax_generator,  # E[log(1 - D(G(z)))]
          "non-saturating": tg.losses.nonsaturating_generator}  # -E[log D(G(z))]
COLORS = {"minimax": "#b35806", "non-saturating": "#762a83", "real": "#1b7837"}


def network(d_in, d_out, rng, last):
    return Sequential(
        Dense(d_in, WIDTH, rng=rng), ReLU(),
        Dense(WIDTH, WIDTH, rng=rng), ReLU(),
        Dense(WIDTH, WIDTH, rng=rng), ReLU(),
        Dense(WIDTH, d_out, rng=rng, init=last))


def adam(network):
    return tg.optim.Adam(network.parameters(), LR, betas=(0.5, 0.999))


def latents(n, rng):
    return tg.backend.normal(rng, (n, LATENT))


def discriminator_step(discriminator, optimizer, generator, data, rng, device):
    real = tg.backend.to_device(data.draw(tg.backend.host_rng(rng), BATCH), device)
    fake = generator(latents(BATCH, rng)).data  # an array: a constant for the discriminator
    loss = tg.losses.minimax_discriminator(discriminator(real), discriminator(fake))
    optimizer.step(tg.grad(loss, discriminator.parameters()))


def generator_gradients(generator, discriminator, z):
    """[mean D(G(z)), norm of each loss's gradient], both losses at the same two networks."""
    scores = discriminator(generator(z))
    row = [float(tg.ops.sigmoid(scores.data).mean())]
    for loss in LOSSES.values():
        gradients = tg.grad(loss(scores), generator.parameters())
        row.append(sum(float((g * g).sum()) for g in gradients) ** 0.5)
    return row


def head_start(generator, discriminator, optimizer, data, steps, rng, device):
    """Train the discriminator alone; columns: step, mean D(G(z)), the two gradient norms."""
    z = latents(1000, tg.backend.rng(0, device))
    rows, printed = [], {round(steps * part) for part in (0, 0.02, 0.05, 0.1, 0.2, 0.5, 1)}
    print("the discriminator is trained alone:\n"
          " step  mean D(G(z))   |gradient| minimax   non-saturating")
    for step in range(steps + 1):
        if step % max(1, steps // 100) == 0 or step in printed:
            rows.append([step, *generator_gradients(generator, discriminator, z)])
        if step in printed:
            print("{:5d}  {:12.2e}  {:19.2e}  {:15.2e}".format(*rows[-1]))
        discriminator_step(discriminator, optimizer, generator, data, rng, device)
    return np.array(rows).T


def train(loss, generator, discriminator, optimizer, data, steps, rng, device):
    """Algorithm 1 of Goodfellow et al. 2014, k = 1; returns 2,500 samples."""
    generator_optimizer = adam(generator)
    for _ in range(steps):
        discriminator_step(discriminator, optimizer, generator, data, rng, device)
        scores = discriminator(generator(latents(BATCH, rng)))
        generator_optimizer.step(tg.grad(loss(scores), generator.parameters()))
    return tg.backend.to_numpy(generator(latents(2500, rng)).data)


def compare(generator, discriminator, optimizer, data, steps, rng, device):
    """Both losses from the same networks, on the same draws: name -> (samples, scores)."""
    outcomes = {}
    print(f"from there, {steps} steps of each player in turn:")
    for name, loss in LOSSES.items():
        g, d, own_rng = copy.deepcopy((generator, discriminator, rng))
        d_optimizer = adam(d)
        d_optimizer.load_state_dict(optimizer.state_dict())
        samples = train(loss, g, d, d_optimizer, data, steps, own_rng, device)
        found = tg.metrics.mode_coverage(samples, data.centers, data.sigma)
        outcomes[name] = samples, found
        print(f"  {name:15s} {found.captured} of 8 modes, {found.high_quality:6.1%} high quality, "
              f"reverse KL {found.reverse_kl:.2f}")
    return outcomes


def picture(rows, outcomes, data, title):
    figure = Figure(figsize=(15, 5.6), dpi=80, layout="constrained")
    figure.suptitle(title, fontsize=14, weight="bold")
    left, *others = figure.subplots(1, 1 + len(outcomes))
    for name, norms in zip(LOSSES, rows[2:]):
        left.plot(rows[0], norms, color=COLORS[name], label=f"gradient norm, {name}")
    left.plot(rows[0], rows[1], color="#666666", linestyle="--", linewidth=1, label="mean D(G(z))")
    left.set(yscale="log", xlabel="steps of the discriminator alone",
             ylabel="norm of the generator's gradient; probability")
    left.set_title("1. D wins: minimax loses its gradient", fontsize=11, loc="left")
    left.set_ylim(bottom=rows[1].min() / 30)
    left.legend(fontsize=9, loc="lower left")
    left.grid(alpha=0.3)
    real = data.draw(np.random.default_rng(0), 1000)
    for number, (axes, (name, (samples, found))) in enumerate(zip(others, outcomes.items()), 2):
        axes.scatter(*samples[:1000].T, s=9, color=COLORS[name], label="generated (1000 points)")
        axes.scatter(*real.T, s=14, color=COLORS["real"], marker="x", label="real (1000 points)")
        axes.set(xlim=(-2.2, 2.2), ylim=(-2.2, 2.5), aspect="equal", xlabel="x1", ylabel="x2")
        axes.set_title(f"{number}. Then both train, {name}:\n{found.captured} of 8 modes, "
                       f"{found.high_quality:.0%} high quality", fontsize=11, loc="left")
        axes.legend(fontsize=9, loc="upper center", ncols=2)
    return figure


def main():
    options = demo.options(__doc__, "GAN, eight Gaussians", WIDTH, "runs/gan_ring.png",
                           head_start=(1000, "steps of the discriminator alone"),
                           steps=(2000, "steps of both players afterwards"))
    data, rng = tg.data.ring(), tg.backend.rng(options.seed, options.device)
    # Small last weights: the first samples lie in the middle of the ring, on none of the modes.
    generator = network(LATENT, 2, rng, tg.init.dcgan)
    discriminator = network(2, 1, rng, tg.init.glorot_uniform)
    players = generator, discriminator, adam(discriminator), data
    rows = head_start(*players, options.head_start, rng, options.device)
    outcomes = compare(*players, options.steps, rng, options.device)
    options.save(picture(rows, outcomes, data, options.title))


if __name__ == "__main__":
    main()
