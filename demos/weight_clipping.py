"""Critics by weight clipping beside critics by gradient penalty: value surfaces, weights, gradients (Gulrajani et al. 2017).

    .venv/bin/python demos/weight_clipping.py

The experiment of the paper's figure 1. There is no generator: a "generated" point is a real one plus N(0, I), and critics
are trained to tell the two apart, with WGAN's weight clipping and with WGAN-GP's penalty. The paper's claims: clipping
gives surfaces that are too simple, drives the weights to its limits, and makes the gradient explode or vanish in a deep
critic.

Measured (20 s of one core), seeds 0, 1 and 2. How often D(real) > D(noisy), and the weights beyond 95 % of the largest:

                  clipped at 0.1                     penalty
    ring          67, 65, 63 %    74, 67, 66 %      99.5, 99.7, 99.7 %    0 %
    grid          66, 67, 64 %    70, 72, 66 %      68, 68, 68 %          0 %
    swissroll     66, 65, 67 %    76, 81, 77 %      73, 73, 73 %          0 %

(Clipped weights start evenly between the limits, 5 % of them so far out.) On the grid, whose modes are nearer to each
other than the noise is wide, the penalty is hardly ahead after these steps. By what a layer multiplies the gradient on its
way back through 12 layers: clip 0.1: 3.3, 3.0, 3.1; clip 0.01: 0.03; clip 0.001: 0.003; penalty: 1.09, 1.09, 1.07.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import tinygan as tg
from tinygan.layers import Dense, ReLU, Sequential

BATCH, WIDTH, CLIP, CLIP_LR = 128, 64, 0.1, 1e-3
PENALTY, PENALTY_LR = 0.1, 3e-3  # the weight of the authors' code for toy data; their paper says 10
DEEP, DEEP_CLIPS = 12, (0.1, 0.01, 0.001)  # layers of the critics whose gradients are followed; their clips
EDGE = 0.95  # a weight is at the limit beyond this part of it


class Critic:
    """A network and its step. With a ``clip`` c its weights start as U(-c, c) and stay there; without, the penalty."""

    def __init__(self, clip, layers, steps, data, rng, device, dtype=np.float32):
        self.clip, self.steps, self.data, self.rng, self.device = clip, steps, data, rng, device

        def inside(shape, rng, dtype):
            return tg.init.symmetric(shape, rng, dtype, clip)

        hidden, last = (inside, inside) if clip else (tg.init.he_normal, tg.init.glorot_uniform)
        parts = []
        for d_in in [2] + [WIDTH] * (layers - 1):
            parts += [Dense(d_in, WIDTH, rng=rng, init=hidden, dtype=dtype), ReLU()]
        self.network = Sequential(*parts, Dense(WIDTH, 1, rng=rng, init=last, dtype=dtype))
        parameters = self.network.parameters()
        if clip:
            self.optimizer, self.clipper = tg.optim.RMSprop(parameters, CLIP_LR), tg.optim.WeightClip(parameters, clip)
        else:
            self.optimizer = tg.optim.Adam(parameters, tg.optim.linear(PENALTY_LR, steps), betas=(0.5, 0.9))

    def batch(self, n):
        """n real points and n real points with noise."""
        real, other = (tg.backend.to_device(self.data.draw(tg.backend.host_rng(self.rng), n), self.device)
                       for _ in range(2))
        return real, other + tg.backend.normal(self.rng, (n, 2))

    def train(self):
        for _ in range(self.steps):
            real, fake = self.batch(BATCH)
            loss = tg.losses.wasserstein_critic(self.network(real), self.network(fake))
            if not self.clip:
                loss = loss + PENALTY * tg.losses.gradient_penalty(self.network, real, fake, rng=self.rng)
            self.optimizer.step(tg.grad(loss, self.network.parameters()))
            if self.clip:
                self.clipper.step()
        return self

    def weights(self):
        """All of them, without the biases."""
        return np.concatenate([tg.backend.to_numpy(p.data).ravel() for p in self.network.parameters() if p.ndim == 2])

    def told_apart(self):
        """P(D(real) > D(fake)) for a point of each kind, of 10,000: 0.5 is chance."""
        real, fake = (tg.backend.to_numpy(self.network(points).data).ravel() for points in self.batch(10000))
        return np.searchsorted(np.sort(fake), real).mean() / len(fake)

    def gradients(self):
        """The mean length of d loss / d activations, layer by layer: (layers,)."""
        activations = []
        real, fake = self.batch(1000)
        hidden = tg.Tensor(np.concatenate([real, fake]))
        for layer in self.network.layers:
            hidden = layer(hidden)
            if isinstance(layer, ReLU):
                activations.append(hidden)
        loss = tg.losses.wasserstein_critic(hidden[:1000], hidden[1000:])
        return np.array([1000 * float(tg.ops.norm(g, axis=1).mean()) for g in tg.grad(loss, activations)])


def at_limit(weights):
    """The share of weights beyond ``EDGE`` of the largest."""
    return float(np.mean(np.abs(weights) > EDGE * np.abs(weights).max()))


def growth(norms):
    """By what a layer multiplies the gradient on its way back, the geometric mean."""
    return (norms[0] / norms[-1]) ** (1 / (len(norms) - 1))


def surface(axes, critic, title):
    limit = 2.6 if critic.data.name == "swissroll" else 2.2
    line = np.linspace(-limit, limit, 100, dtype=np.float32)
    places = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    scores = tg.backend.to_numpy(critic.network(tg.backend.to_device(places, critic.device)).data).reshape(100, 100)
    axes.contourf(line, line, scores, levels=20, cmap="PRGn")
    axes.contour(line, line, scores, levels=20, colors="white", linewidths=0.5)
    axes.scatter(*critic.data.draw(np.random.default_rng(0), 500).T, s=4, color="black", linewidths=0)
    axes.set(xlabel="x1", ylabel="x2", aspect="equal")
    axes.set_title(title, fontsize=11, loc="left")


def picture(pairs, deep, title):
    figure = Figure(figsize=(20, 8.6), dpi=80, layout="constrained")
    figure.suptitle(title, fontsize=14, weight="bold")
    grid = figure.add_gridspec(2, 5)
    for column, (name, critics) in enumerate(pairs.items()):
        for row, (way, critic) in enumerate(zip((f"clipped at {CLIP}", f"penalty, weight {PENALTY}"), critics)):
            surface(figure.add_subplot(grid[row, column]), critic,
                    f"{name}, {way}\nD(real) > D(noisy) in {critic.told_apart():.0%} of pairs")
    for row, (critic, color) in enumerate(zip(pairs["swissroll"], ("#b35806", "#762a83"))):
        axes, weights = figure.add_subplot(grid[row, 3]), critic.weights()
        axes.hist(weights, bins=61, color=color)
        axes.set(xlabel="weight", ylabel="number of weights")
        axes.set_title(f"Weights for the swissroll:\n{at_limit(weights):.0%} beyond {EDGE:.0%} of the largest", fontsize=11,
                       loc="left")
    axes = figure.add_subplot(grid[:, 4])
    for (name, norms), color in zip(deep.items(), ("#7f3b08", "#b35806", "#fdb863", "#762a83")):
        axes.semilogy(np.arange(1, DEEP + 1), norms, "o-", color=color, label=f"{name}: x {growth(norms):.2g} a layer")
    axes.set(xlabel="layer (1: next to the data)", ylabel="length of d loss / d activations, mean over examples")
    axes.set_title(f"{DEEP} layers, swissroll: the gradient on its\nway back, right to left. Flat is good", fontsize=11,
                   loc="left")
    axes.legend(fontsize=9, loc="lower right")
    axes.grid(alpha=0.3)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2500, help="of each of the six critics (default: 2500)")
    parser.add_argument("--deep-steps", type=int, default=300, help="of each of the four deep critics (default: 300)")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--device", help="cpu, cuda, cuda:N or auto (the default)")
    parser.add_argument("--out", type=Path, default=Path("runs/weight_clipping.png"),
                        help="the picture (default: %(default)s)")
    options = parser.parse_args()
    try:
        device = tg.backend.resolve_device(options.device)
    except (ValueError, tg.backend.DeviceError) as fault:
        parser.error(str(fault))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    out, number = options.out, 1
    while out.exists():  # no picture is overwritten: name.png, name-2.png, ...
        out, number = options.out.with_stem(f"{options.out.stem}-{number + 1}"), number + 1

    rng, started = tg.backend.rng(options.seed, device), time.perf_counter()
    print(f"weight clipping, seed {options.seed}, device {device}, {tg.app.process.tune_process(WIDTH)}")
    pairs, deep = {}, {}
    print(f"{'':24s}{'D(real) > D(noisy)':>20s}{'at the limit':>14s}")
    for name, make in tg.data.TOYS.items():
        data = make()
        pairs[name] = [Critic(clip, 3, options.steps, data, rng, device).train() for clip in (CLIP, None)]
        for way, critic in zip(("clipped", "penalty"), pairs[name]):
            print(f"{name + ', ' + way:24s}{critic.told_apart():20.1%}{at_limit(critic.weights()):14.1%}")
    print(f"{'':24s}{'gradient at layer 1':>22s}{'at layer ' + str(DEEP):>14s}{'factor a layer':>16s}")
    for clip in (*DEEP_CLIPS, None):
        name = f"clip {clip}" if clip else "penalty"
        critic = Critic(clip, DEEP, options.deep_steps, tg.data.swissroll(), rng, device, np.float64)  # tiny gradients
        deep[name] = critic.train().gradients()
        print(f"{str(DEEP) + ' layers, ' + name:24s}{deep[name][0]:22.1e}{deep[name][-1]:14.1e}{growth(deep[name]):16.3f}")
    title = ("Above, critics by clipping: simple surfaces, weights at the limit. Below, by penalty: greener where the real "
             f"points (black) are (seed {options.seed})")
    tg.app.plots.save(picture(pairs, deep, title), out)
    print(f"done in {time.perf_counter() - started:.0f} s\npicture  {out}")


if __name__ == "__main__":
    main()
