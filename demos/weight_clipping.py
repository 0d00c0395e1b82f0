"""Weight clipping and gradient penalty side by side: value surfaces, weights, gradients in depth.

    .venv/bin/python demos/weight_clipping.py

The experiment of figure 1 in Gulrajani et al. 2017. There is no generator: a "generated" point is a
real one plus N(0, I), and critics are trained to tell the two apart, with WGAN's weight clipping
and with WGAN-GP's penalty. The paper's claims: clipping gives surfaces that are too simple, drives
the weights to its limits, and makes the gradient explode or vanish in a deep critic.

Measured (20 s of one core), seeds 0, 1 and 2. How often D(real) > D(noisy), and the share of
weights beyond 95 % of the largest:

                  clipped at 0.1                     penalty
    ring          67, 65, 63 %    74, 67, 66 %      99.5, 99.7, 99.7 %    0 %
    grid          66, 67, 64 %    70, 72, 66 %      68, 68, 68 %          0 %
    swissroll     66, 65, 67 %    76, 81, 77 %      73, 73, 73 %          0 %

(Clipped weights start uniform between the limits, 5 % of them that far out.) On the grid, whose
modes are closer together than the noise is wide, the penalty is hardly ahead after these steps. The
factor by which a layer multiplies the gradient on its way back through 12 layers: clip 0.1: 3.3,
3.0, 3.1; clip 0.01: 0.03; clip 0.001: 0.003; penalty: 1.09, 1.09, 1.07.
"""

import numpy as np
from matplotlib.figure import Figure

import tinygan as tg
from tinygan.app import demo
from tinygan.layers import Dense, ReLU, Sequential

BATCH, WIDTH, CLIP, CLIP_LR = 128, 64, 0.1, 1e-3
PENALTY, PENALTY_LR = 0.1, 3e-3  # lambda as in the authors' code for toy data; their paper says 10
DEEP, DEEP_CLIPS = 12, (0.1, 0.01, 0.001)  # layers, and clips, of the critics followed in depth
EDGE = 0.95  # a weight is at the limit beyond this share of the largest


class Critic:
    """A network and its training: clipped to [-clip, clip], or penalized if clip is None."""

    def __init__(self, clip, layers, data, rng, device, dtype=np.float32):
        self.clip, self.data, self.rng, self.device = clip, data, rng, device

        def within_limits(shape, rng, dtype):
            return tg.init.symmetric(shape, rng, dtype, clip)

        hidden, last = tg.init.he_normal, tg.init.glorot_uniform
        if clip:
            hidden = last = within_limits
        stack = []
        for d_in in [2] + [WIDTH] * (layers - 1):
            stack += [Dense(d_in, WIDTH, rng=rng, init=hidden, dtype=dtype), ReLU()]
        self.network = Sequential(*stack, Dense(WIDTH, 1, rng=rng, init=last, dtype=dtype))

    def batch(self, n):
        """n real points, and n other real points with noise."""
        host_rng = tg.backend.host_rng(self.rng)
        real, other = (tg.backend.to_device(self.data.draw(host_rng, n), self.device)
                       for _ in range(2))
        return real, other + tg.backend.normal(self.rng, (n, 2))

    def train(self, steps):
        if self.clip:
            self.train_clipped(steps)
        else:
            self.train_penalized(steps)
        return self

    def train_clipped(self, steps):
        """Algorithm 1 of Arjovsky et al. 2017, the critic's part."""
        parameters = self.network.parameters()
        optimizer = tg.optim.RMSprop(parameters, CLIP_LR)
        clip = tg.optim.WeightClip(parameters, self.clip)
        for _ in range(steps):
            real, fake = self.batch(BATCH)
            loss = tg.losses.wasserstein_critic(self.network(real), self.network(fake))
            optimizer.step(tg.grad(loss, parameters))
            clip.step()

    def train_penalized(self, steps):
        """Algorithm 1 of Gulrajani et al. 2017, the critic's part, with a decaying rate."""
        parameters = self.network.parameters()
        optimizer = tg.optim.Adam(parameters, tg.optim.linear(PENALTY_LR, steps), betas=(0.5, 0.9))
        for _ in range(steps):
            real, fake = self.batch(BATCH)
            loss = tg.losses.wasserstein_critic(self.network(real), self.network(fake))
            penalty = tg.losses.gradient_penalty(self.network, real, fake, rng=self.rng)
            optimizer.step(tg.grad(loss + PENALTY * penalty, parameters))

    def weights(self):
        """All weights as one array, without the biases."""
        return np.concatenate([tg.backend.to_numpy(p.data).ravel()
                               for p in self.network.parameters() if p.ndim == 2])

    def told_apart(self):
        """P(D(real) > D(fake)) from 10,000 points of each kind: 0.5 is chance."""
        real, fake = (tg.backend.to_numpy(self.network(x).data).ravel() for x in self.batch(10000))
        return np.searchsorted(np.sort(fake), real).mean() / len(fake)

    def gradients(self):
        """The mean norm of d loss / d activations of each layer: (layers,)."""
        activations = []
        real, fake = self.batch(1000)
        hidden = tg.Tensor(np.concatenate([real, fake]))
        for layer in self.network.layers:
            hidden = layer(hidden)
            if isinstance(layer, ReLU):
                activations.append(hidden)
        loss = tg.losses.wasserstein_critic(hidden[:1000], hidden[1000:])
        return np.array([1000 * float(tg.ops.norm(g, axis=1).mean())
                         for g in tg.grad(loss, activations)])


def at_limit(weights):
    """The share of weights beyond ``EDGE`` of the largest."""
    return float(np.mean(np.abs(weights) > EDGE * np.abs(weights).max()))


def factor(norms):
    """By what a layer multiplies the gradient on its way back, the geometric mean."""
    return (norms[0] / norms[-1]) ** (1 / (len(norms) - 1))


def shallow_critics(steps, rng, device):
    """Three hidden layers: data set -> (clipped, penalized)."""
    pairs = {}
    print(f"{'':24s}{'D(real) > D(noisy)':>20s}{'at the limit':>14s}")
    for name, make in tg.data.TOYS.items():
        data = make()
        pairs[name] = [Critic(clip, 3, data, rng, device).train(steps) for clip in (CLIP, None)]
        for way, critic in zip(("clipped", "penalty"), pairs[name]):
            print(f"{f'{name}, {way}':24s}{critic.told_apart():20.1%}"
                  f"{at_limit(critic.weights()):14.1%}")
    return pairs


def deep_gradients(steps, rng, device):
    """Twelve hidden layers, on the swiss roll: name -> norms by layer."""
    norms = {}
    print(f"{'':24s}{'gradient at layer 1':>22s}{f'at layer {DEEP}':>14s}{'factor a layer':>16s}")
    for clip in (*DEEP_CLIPS, None):
        name = f"clip {clip}" if clip else "penalty"
        critic = Critic(clip, DEEP, tg.data.swissroll(), rng, device, np.float64)  # tiny gradients
        first, *_, last = norms[name] = critic.train(steps).gradients()
        print(f"{f'{DEEP} layers, {name}':24s}{first:22.1e}{last:14.1e}{factor(norms[name]):16.3f}")
    return norms


def surface(axes, critic, title):
    """The critic's level sets, and real points."""
    limit = 2.6 if critic.data.name == "swissroll" else 2.2
    line = np.linspace(-limit, limit, 100, dtype=np.float32)
    places = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    scores = critic.network(tg.backend.to_device(places, critic.device)).data
    scores = tg.backend.to_numpy(scores).reshape(100, 100)
    axes.contourf(line, line, scores, levels=20, cmap="PRGn")
    axes.contour(line, line, scores, levels=20, colors="white", linewidths=0.5)
    real = critic.data.draw(np.random.default_rng(0), 500)
    axes.scatter(*real.T, s=4, color="black", linewidths=0)
    axes.set(xlabel="x1", ylabel="x2", aspect="equal")
    axes.set_title(f"{title}\nD(real) > D(noisy) in {critic.told_apart():.0%} of pairs",
                   fontsize=11, loc="left")


def histogram(axes, weights, color):
    axes.hist(weights, bins=61, color=color)
    axes.set(xlabel="weight", ylabel="number of weights")
    axes.set_title(f"Weights for the swiss roll:\n{at_limit(weights):.0%} beyond {EDGE:.0%} of the "
                   "largest", fontsize=11, loc="left")


def picture(pairs, deep, title):
    figure = Figure(figsize=(20, 8.6), dpi=80, layout="constrained")
    figure.suptitle(f"{title}\nAbove, clipping: simple surfaces, weights at the limit. "
                    "Below, penalty: greener where the real points (black) are",
                    fontsize=14, weight="bold")
    grid = figure.add_gridspec(2, 5)
    for column, (name, (clipped, penalized)) in enumerate(pairs.items()):
        surface(figure.add_subplot(grid[0, column]), clipped, f"{name}, clipped at {CLIP}")
        surface(figure.add_subplot(grid[1, column]), penalized, f"{name}, penalty {PENALTY}")
    clipped, penalized = pairs["swissroll"]
    histogram(figure.add_subplot(grid[0, 3]), clipped.weights(), "#b35806")
    histogram(figure.add_subplot(grid[1, 3]), penalized.weights(), "#762a83")
    axes = figure.add_subplot(grid[:, 4])
    for (name, norms), color in zip(deep.items(), ("#b35806", "#fdb863", "#666666", "#762a83")):
        axes.semilogy(np.arange(1, DEEP + 1), norms, "o-", color=color,
                      label=f"{name}: x {factor(norms):.2g} a layer")
    axes.set(xlabel="layer (1: next to the data)",
             ylabel="norm of d loss / d activations, mean over examples")
    axes.set_title(f"{DEEP} layers, swiss roll: the gradient on its\nway back, right to left. "
                   "Flat is good", fontsize=11, loc="left")
    axes.legend(fontsize=9, loc="lower right")
    axes.grid(alpha=0.3)
    return figure


def main():
    options = demo.options(__doc__, "Weight clipping", WIDTH, "runs/weight_clipping.png",
                           steps=(2500, "of each of the six critics"),
                           deep_steps=(300, "of each of the four deep critics"))
    rng = tg.backend.rng(options.seed, options.device)
    pairs = shallow_critics(options.steps, rng, options.device)
    deep = deep_gradients(options.deep_steps, rng, options.device)
    options.save(picture(pairs, deep, options.title))


if __name__ == "__main__":
    main()
