"""Which GANs come to rest? The smallest one, of two numbers, played seven ways: the Dirac-GAN (Mescheder et al. 2018).

    .venv/bin/python demos/dirac_gan.py

The real data are one point, 0; the generator puts its point at theta; the discriminator is D(x) = psi x. The equilibrium is
(theta, psi) = (0, 0), where D cannot tell the points apart. The paper's claim (sections 2 to 4): GAN, WGAN and WGAN-GP do
not converge to it, a GAN with instance noise or with a penalty that pulls D's slope to 0 does. A step is the
discriminator's step of gradient descent, then the generator's. Near (0, 0) it is a matrix, and the largest modulus of its
eigenvalues is the factor by which the distance to (0, 0) shrinks; the factor of the second half of the run is beside it.

Measured (3 to 7 s), seeds 0 to 4, which draw the starting point, at distance 1, and the noise:

                                      distance after 1000 steps    factor a step         predicted
    GAN, minimax                      0.98 to 1.01                 1.0000                1.0000
    GAN, non-saturating               0.27 to 0.28                 0.9994                1.0000
    WGAN, clipped at 0.5              0.49 to 0.51                 1.0000                1.0000
    WGAN-GP, weight 0.5               1.25 to 1.37                 0.9999 to 1.0001      none: there psi is pushed away
    GAN + instance noise, sd 1        6e-12 to 9e-12               0.9746 to 0.9749      0.9747
    GAN + R1, gamma 1                 4e-18 to 9e-18               0.9600                0.9600
    GAN + zero-centred, weight 0.1    3e-5 to 4e-5                 0.9899 to 0.9901      0.9899

The non-saturating GAN, alone, does come nearer, but ever more slowly: 1 / distance^2 grows by 1 / 8 per unit of lr * steps.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

import tinygan as tg

LR, DRAWS = 0.1, 500
COLORS = "#b35806", "#e08214", "#d6604d", "#666666", "#1b7837", "#762a83", "#2166ac"


class Game(NamedTuple):
    """``slope`` and ``damping``: at (0, 0) d theta / dt = slope psi and d psi / dt = -slope theta - damping psi."""

    discriminator_loss: Callable[[Any, Any], Any]
    generator_loss: Callable[[Any], Any]
    slope: float
    damping: float | None = 0.0  # None: that motion does not exist at psi = 0
    penalty: Callable[..., Any] | None = None
    noise: float = 0.0  # standard deviation of the instance noise
    clip: float | None = None


MINIMAX = tg.losses.minimax_discriminator, tg.losses.minimax_generator, 0.5
NON_SATURATING = tg.losses.nonsaturating_discriminator, tg.losses.nonsaturating_generator, 0.5
WASSERSTEIN = tg.losses.wasserstein_critic, tg.losses.wasserstein_generator, 1.0
GAMES = {
    "GAN, minimax": Game(*MINIMAX),
    "GAN, non-saturating": Game(*NON_SATURATING),
    "WGAN, clipped at 0.5": Game(*WASSERSTEIN, clip=0.5),
    "WGAN-GP, weight 0.5": Game(*WASSERSTEIN, damping=None, penalty=lambda d, real, fake, rng:
        0.5 * tg.losses.gradient_penalty(d, real, fake, rng=rng)),
    "GAN + instance noise, sd 1": Game(*NON_SATURATING, damping=0.5, noise=1.0),  # noise^2 / 2
    "GAN + R1, gamma 1": Game(*NON_SATURATING, damping=1.0, penalty=lambda d, real, fake, rng:
        tg.losses.r1_penalty(d, real)),
    "GAN + zero-centred, weight 0.1": Game(*NON_SATURATING, damping=0.2, penalty=lambda d, real, fake, rng:
        0.1 * tg.losses.gradient_penalty(d, real, fake, rng=rng, target=0.0)),
}


def play(game, start, steps, rng, device):
    """The path from (theta, psi) = start: (steps + 1, 2)."""
    theta, psi = (tg.Tensor(tg.backend.to_device(np.full((1, 1), x), device)) for x in start)
    generator, discriminator = tg.optim.SGD([theta], LR), tg.optim.SGD([psi], LR)
    clip = tg.optim.WeightClip([psi], game.clip) if game.clip else None
    origin = tg.backend.zeros((1, 1), np.float64, device)

    def scores(x):
        if game.noise:  # e and -e, so that the draws' mean is 0, like that of all draws
            e = game.noise * tg.backend.normal(rng, (DRAWS // 2, 1), np.float64)
            x = x + np.concatenate([e, -e])
        return x @ psi

    path = [start]
    for _ in range(steps):
        loss = game.discriminator_loss(scores(origin), scores(theta.data))
        if game.penalty:
            loss = loss + game.penalty(lambda x: x @ psi, origin, theta.data, rng)
        discriminator.step(tg.grad(loss, [psi]))
        if clip:
            clip.step()
        generator.step(tg.grad(game.generator_loss(scores(theta)), [theta]))
        path.append((theta.data.item(), psi.data.item()))
    return np.array(path)


def predicted(game):
    """The largest modulus of an eigenvalue of a step at (0, 0); NaN where there is none."""
    if game.damping is None:
        return np.nan
    discriminator = np.array([[1, 0], [-LR * game.slope, 1 - LR * game.damping]])
    generator = np.array([[1, LR * game.slope], [0, 1]])
    return np.abs(np.linalg.eigvals(generator @ discriminator)).max()


def factor(path):
    """By how much the distance to (0, 0) is multiplied in a step of the second half, the geometric mean."""
    distances, half = np.hypot(*path.T), len(path) // 2
    return (distances[-1] / distances[half]) ** (1 / (len(path) - 1 - half))


def picture(paths, fields, title):
    figure = Figure(figsize=(17, 10), dpi=80, layout="constrained")
    figure.suptitle(title, fontsize=14, weight="bold")
    *planes, last = figure.subplots(2, 4).flat
    for axes, (name, path), color in zip(planes, paths.items(), COLORS):
        places, ends = fields[name]
        arrows = (ends - places) / np.maximum(np.hypot(*(ends - places).T), 1e-12)[:, None]
        axes.quiver(*places.T, *arrows.T, color="#bbbbbb", pivot="middle", scale=24, width=0.004)
        axes.plot(*path.T, color=color, linewidth=1.2)
        axes.plot(*path[0], "o", color="black", label="start")
        axes.plot(*path[-1], "*", color=color, markersize=15, markeredgecolor="black", label="end")
        axes.plot(0, 0, "+", color="black", markersize=14, markeredgewidth=2, label="equilibrium")
        axes.set(xlim=(-1.7, 1.7), ylim=(-1.7, 1.7), aspect="equal", xlabel="theta  (the generated point; the real one: 0)",
                 ylabel="psi  (the discriminator's slope)")
        expected = predicted(GAMES[name])
        axes.set_title(f"{name}\ndistance x {factor(path):.4f} a step at the end\n" + (
            "at (0, 0) the penalty pushes psi away" if np.isnan(expected) else f"eigenvalues at (0, 0): x {expected:.4f}"),
            fontsize=11, loc="left")
        last.plot(np.hypot(*path.T), color=color, linewidth=1.8, label=name)
    planes[0].legend(fontsize=9, loc="upper right")
    last.set(yscale="log", ylim=(1e-9, 1e8), xlabel="step", ylabel="distance to the equilibrium")
    last.set_title("All seven: flat, it goes round;\nstraight down, it converges", fontsize=11, loc="left")
    last.set_box_aspect(1)
    last.legend(fontsize=9, loc="upper right")
    last.grid(alpha=0.3)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1000, help="of both players (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the start and the noise (default: 0)")
    parser.add_argument("--device", help="cpu, cuda, cuda:N or auto (the default)")
    parser.add_argument("--out", type=Path, default=Path("runs/dirac_gan.png"), help="the picture (default: %(default)s)")
    options = parser.parse_args()
    try:
        device = tg.backend.resolve_device(options.device)
    except (ValueError, tg.backend.DeviceError) as fault:
        parser.error(str(fault))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    out, number = options.out, 1
    while out.exists():  # no picture is overwritten: name.png, name-2.png, ...
        out, number = options.out.with_stem(f"{options.out.stem}-{number + 1}"), number + 1

    started, rng = time.perf_counter(), tg.backend.rng(options.seed, device)
    angle = tg.backend.host_rng(rng).uniform(0, 2 * np.pi)
    print(f"Dirac-GAN, seed {options.seed}, device {device}, float64, {tg.app.process.tune_process(1)}")
    print(f"{'':32s}{'distance at the end':>20s}{'factor a step':>16s}{'predicted':>12s}")
    paths, fields = {}, {}
    for name, game in GAMES.items():
        path = paths[name] = play(game, (np.cos(angle), np.sin(angle)), options.steps, rng, device)
        print(f"{name:32s}{np.hypot(*path[-1]):20.2e}{factor(path):16.4f}{predicted(game):12.4f}")
        places = np.stack(np.meshgrid(*2 * [np.linspace(-1.6, 1.6, 9)]), axis=-1).reshape(-1, 2)
        fields[name] = places, np.array([play(game, place, 1, rng, device)[1] for place in places])
    title = (f"The Dirac-GAN, {options.steps:,} steps, lr {LR}, seed {options.seed}. Which paths end at the cross? "
             "Arrows: the direction of a step")
    tg.app.plots.save(picture(paths, fields, title), out)
    print(f"done in {time.perf_counter() - started:.0f} s\npicture  {out}")


if __name__ == "__main__":
    main()
