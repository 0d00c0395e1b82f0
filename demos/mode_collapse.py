"""Mode collapse, measured: a GAN that keeps one mode of eight, beside an unrolled critic and a gradient penalty.

    .venv/bin/python demos/mode_collapse.py

The recipe: latents of 256 numbers, ReLU networks, the generator's rate ten times the critic's. The reverse KL divergence
of the samples' shares of the modes from equal ones is 0 for even shares and log 8 = 2.08 for one mode of eight. An unrolled
critic (Metz et al. 2017) answers the generator's move before that is judged: the generator's loss is differentiated through
five steps of the critic's optimizer, gradients within a gradient. The control takes as many critic steps for real.

Measured (1500 steps; 2 s of one core for the GAN, 7 to 12 s for each of the others), at the end and as a mean of the second
half; networks of two tanh layers did not collapse (6,800 steps, seed 0):
                                seeds     reverse KL at the end   second half           modes      high quality
    GAN                         0, 1, 2   2.04, 2.01, 0.76        1.87, 0.92, 1.38      0, 1, 0    0, 1.4, 0 %
    GAN, 6 critic steps         0, 1, 2   2.08, 2.08, 2.08        2.07, 2.02, 2.01      1, 1, 1    60, 60, 60 %
    unrolled 5 steps, rate 1e-4 0, 1, 2   0.05, 0.13, 0.11        0.03, 0.07, 0.06      5, 4, 5    0.3, 0.6, 0.3 %
    unrolled 5 steps, rate 1e-3 0, 1, 2   0.15, 1.11, 0.17        0.06, 0.37, 0.09      3, 0, 5    0.2, 0, 0.4 %
    penalty, 6 critic steps     0, 1, 2   0.02, 0.03, 0.02        0.01, 0.01, 0.02      8, 7, 8    1.8, 3.3, 3.0 %
So the GAN wanders from mode to mode, more critic steps nail it to one, and the penalty and the unrolled critic, at the
critic's own rate of 1e-4, keep it spread; at ten times that rate samples of seed 1 flew away in the end. That is all that
the unrolled critic has done by then: its samples are a cloud over the ring, not on its modes (the paper trains for far more
steps).

Where this departs from the paper: its generator lowers V(D, G) itself, ours -E[log D(G(z))]. The steps are Adam's, as
there, from the critic's own moments. Plain gradient descent in their place (rates 0.03 to 0.3, seed 0) overshot where
fakes were far out: reverse KL 0.45 to 0.66 at the end, and samples that flew away if V itself was lowered.
"""

import argparse
import copy
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import tinygan as tg
from tinygan.layers import Dense, ReLU, Sequential

BATCH, WIDTH, LATENT = 128, 64, 256
GENERATOR_LR, CRITIC_LR = 1e-3, 1e-4
METHODS = {  # name: (critic steps for each of the generator, unrolled steps, their rate, weight of the penalty, color)
    "GAN": (1, 0, 0.0, 0.0, "#b35806"),
    "GAN, 6 critic steps": (6, 0, 0.0, 0.0, "#e08214"),
    "unrolled 5 steps, rate 1e-4": (1, 5, 1e-4, 0.0, "#9970ab"),
    "unrolled 5 steps, rate 1e-3": (1, 5, 1e-3, 0.0, "#762a83"),
    "penalty, 6 critic steps": (6, 0, 0.0, 0.1, "#1b7837")}


def network(d_in, d_out, rng):
    sizes = [d_in, WIDTH, WIDTH, WIDTH]
    hidden = [layer for a, b in zip(sizes, sizes[1:]) for layer in (Dense(a, b, rng=rng), ReLU())]
    return Sequential(*hidden, Dense(WIDTH, d_out, rng=rng))


def with_parameters(module, tensors):
    """The module with these Tensors in the place of its parameters; they may be results, which lead on to others."""
    return copy.deepcopy(module, {id(p): t for p, t in zip(module.parameters(), tensors)})


def coming_rates(optimizer, rate, steps):
    """Adam's two numbers (see ``tg.optim.Adam.rates``) for each of its next steps."""
    later, numbers = copy.copy(optimizer), []
    for later.steps in range(optimizer.steps + 1, optimizer.steps + steps + 1):
        numbers += later.rates(rate)
    return tg.backend.scalars(numbers, like=optimizer.parameters[0].data)


def unrolled(critic, loss, steps, optimizer, rate):
    """The critic after its optimizer's next steps down ``loss(critic)``: a copy, every step a part of the graph.

    The steps are Adam's from its present moments (Metz et al. 2017, eq. 7 and the sentence after it).
    """
    parameters, numbers = critic.parameters(), tg.backend.fresh(coming_rates, optimizer, rate, steps)
    ends = np.cumsum([p.size for p in parameters])
    means, squares = ([optimizer.state[slot][end - p.size:end].reshape(p.shape) for p, end in zip(parameters, ends)]
                      for slot in optimizer.slots)
    b1, b2 = optimizer.betas
    for i in range(steps):
        gradients = tg.grad(loss(critic), parameters, create_graph=True)
        means = [b1 * m + (1 - b1) * g for m, g in zip(means, gradients)]
        squares = [b2 * v + (1 - b2) * g * g for v, g in zip(squares, gradients)]
        # The root's slope at 0 is infinite, and a dead unit's gradients are 0: hence the 1e-19
        parameters = [p - numbers[2 * i] * m / (tg.ops.sqrt(v + 1e-19) + numbers[2 * i + 1])
                      for p, m, v in zip(parameters, means, squares)]
        critic = with_parameters(critic, parameters)
    return critic


def generator_loss(critic, real, fake, steps, optimizer, rate):
    """-E[log D(G(z))] by the critic that has answered these fakes: it depends on them in two ways (Metz et al., eq. 10)."""
    answer = unrolled(critic, lambda c: tg.losses.nonsaturating_discriminator(c(real), c(fake)), steps, optimizer, rate)
    return tg.losses.nonsaturating_generator(answer(fake))


def train(method, data, steps, seed, device):
    """(samples, rows (step, reverse KL)) of one run."""
    n_critic, ahead, rate, weight, _ = METHODS[method]
    rng = tg.backend.rng(seed, device)
    generator, critic = network(LATENT, 2, rng), network(2, 1, rng)
    generator_optimizer = tg.optim.Adam(generator.parameters(), GENERATOR_LR, betas=(0.5, 0.999))
    critic_optimizer = tg.optim.Adam(critic.parameters(), CRITIC_LR, betas=(0.5, 0.999))

    def draw(host):
        return tg.backend.to_device(data.draw(host, BATCH), device)

    def batch():
        real = tg.backend.fresh(draw, tg.backend.host_rng(rng))  # drawn anew in every replay
        return real, generator(tg.backend.normal(rng, (BATCH, LATENT)))

    def iteration():
        for _ in range(n_critic):
            real, fake = batch()
            loss = tg.losses.nonsaturating_discriminator(critic(real), critic(fake.data))
            if weight:
                loss = loss + weight * tg.losses.gradient_penalty(critic, real, fake, rng=rng)
            critic_optimizer.step(tg.grad(loss, critic.parameters()))
        loss = generator_loss(critic, *batch(), ahead, critic_optimizer, rate)
        generator_optimizer.step(tg.grad(loss, generator.parameters()))

    # Traced twice, then replayed: the same bits without the engine. A GPU runs the function as it stands.
    state = [generator, critic, generator_optimizer, critic_optimizer, rng]
    step = tg.program.Program(iteration, state) if device == "cpu" else iteration
    z, rows = tg.backend.normal(tg.backend.rng(0, device), (2500, LATENT)), []
    for number in range(steps + 1):
        if number % max(1, steps // 20) == 0 or number == steps:
            samples = tg.backend.to_numpy(generator(z).data)
            rows.append([number, tg.metrics.mode_coverage(samples, data.centers, data.sigma).reverse_kl])
        if number < steps:
            step()
    return samples, np.array(rows).T


def late(rows):
    """The mean reverse KL in the second half of a run: one that collapses goes from mode to mode, so its end says little."""
    return rows[1, rows.shape[1] // 2:].mean()


def picture(runs, data, title):
    figure = Figure(figsize=(15, 10), dpi=80, layout="constrained")
    figure.suptitle(title, fontsize=14, weight="bold")
    curves, *others = figure.subplots(2, 3).ravel()
    for (method, results), axes, number in zip(runs.items(), others, range(2, 9)):
        color, (samples, _) = METHODS[method][-1], results[0]
        for i, (_, rows) in enumerate(results):
            curves.plot(*rows, color=color, linewidth=1.6, alpha=0.8, label=method if i == 0 else None)
        found = tg.metrics.mode_coverage(samples, data.centers, data.sigma)
        axes.scatter(*samples[:1000].T, s=9, color=color, label="generated (1000 points)")
        axes.scatter(*data.centers.T, s=60, color="black", marker="x", label="the modes of the data")
        axes.set(xlim=(-2.5, 2.5), ylim=(-2.5, 2.9), aspect="equal", xlabel="x1", ylabel="x2")
        axes.set_title(f"{number}. {method}:\nreverse KL {found.reverse_kl:.2f}, {found.high_quality:.1%} high quality",
                       fontsize=11, loc="left")
        axes.legend(fontsize=8, loc="upper center", ncols=2)
    curves.axhline(np.log(8), color="#666666", linestyle=":", label="log 8: one mode of eight")
    curves.axhline(np.log(2), color="#666666", linestyle="--", label="log 2: half of the modes")
    curves.set(xlabel="step of the generator", ylabel="reverse KL of 2,500 samples")
    curves.set_title("1. Uneven shares of the modes, all seeds\n(the other panels: the first seed, at the end)",
                     fontsize=11, loc="left")
    curves.set_ylim(-0.05, 3.4)
    curves.legend(fontsize=8, loc="upper center", ncols=2)
    curves.grid(alpha=0.3)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1500, help="steps of the generator (default: 1500)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each method (default: 3)")
    parser.add_argument("--seed", type=int, default=0, help="of the first run (default: 0)")
    parser.add_argument("--device", help="cpu, cuda, cuda:N or auto (the default)")
    parser.add_argument("--out", type=Path, default=Path("runs/mode_collapse.png"),
                        help="the picture (default: %(default)s)")
    options = parser.parse_args()
    try:
        device = tg.backend.resolve_device(options.device)
    except (ValueError, tg.backend.DeviceError) as fault:
        parser.error(str(fault))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    title, out, number = f"Mode collapse, eight Gaussians, seed {options.seed}, {options.steps} steps", options.out, 1
    while out.exists():  # no picture is overwritten: name.png, name-2.png, ...
        out, number = options.out.with_stem(f"{options.out.stem}-{number + 1}"), number + 1

    data, runs = tg.data.ring(), {method: [] for method in METHODS}
    print(f"{title}, device {device}, {tg.app.process.tune_process(WIDTH)}\n"
          f"{'method':28s}{'seed':>5s}{'modes':>7s}{'high quality':>14s}{'reverse KL':>12s}{'2nd half':>10s}"
          f"{'sliced W':>10s}{'seconds':>9s}")
    for seed in range(options.seed, options.seed + options.seeds):
        for method, results in runs.items():
            started = time.perf_counter()
            results.append(train(method, data, options.steps, seed, device))
            samples, rng = results[-1][0], np.random.default_rng(0)
            found = tg.metrics.mode_coverage(samples, data.centers, data.sigma)
            distance = tg.metrics.sliced_wasserstein(samples, data.draw(rng, 2500), rng, projections=64)
            print(f"{method:28s}{seed:5d}{found.captured:7d}{found.high_quality:14.3f}{found.reverse_kl:12.3f}"
                  f"{late(results[-1][1]):10.3f}{distance:10.3f}{time.perf_counter() - started:9.0f}", flush=True)
    picture(runs, data, title).savefig(out)
    print(f"picture  {out}")


if __name__ == "__main__":
    main()
