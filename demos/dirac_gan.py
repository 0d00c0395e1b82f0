"""Which GANs converge? The smallest one, of two numbers, in seven variants: the Dirac-GAN.

    .venv/bin/python demos/dirac_gan.py

Mescheder et al. 2018. The real data are the single point 0; the generator puts its point at theta;
the discriminator is D(x) = psi x. The equilibrium is (theta, psi) = (0, 0), where D cannot tell the
points apart. The paper's claim (sections 2 to 4): GAN, WGAN and WGAN-GP do not converge to it; a
GAN with instance noise, or with a penalty that pulls D's slope to 0, does. A step is one gradient
step of the discriminator, then one of the generator. Near (0, 0) it is a matrix, and its spectral
radius (the largest modulus of an eigenvalue) is the factor by which the distance to (0, 0) shrinks.
Beside this prediction stands the factor measured over the second half of the run.

Measured (3 to 7 s), seeds 0 to 4, which draw the starting point, at distance 1, and the noise:

                                   distance after 1000 steps   factor per step     predicted
    GAN, minimax                   0.98 to 1.01                1.0000              1.0000
    GAN, non-saturating            0.27 to 0.28                0.9994              1.0000
    WGAN, clipped at 0.5           0.49 to 0.51                1.0000              1.0000
    WGAN-GP, weight 0.5            1.25 to 1.37                0.9999 to 1.0001    none
    GAN + instance noise, sd 1     6e-12 to 9e-12              0.9746 to 0.9749    0.9747
    GAN + R1, gamma 1              4e-18 to 9e-18              0.9600              0.9600
    GAN + zero-centred, weight 0.1 3e-5 to 4e-5                0.9899 to 0.9901    0.9899

WGAN-GP has no prediction: its penalty (|psi| - 1)^2 is not differentiable at psi = 0, and pushes
psi away from there. The non-saturating GAN does come nearer, but ever more slowly: 1 / distance^2
grows by 1/8 per unit of lr * steps.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

import tinygan as tg
from tinygan.app import demo

LR, DRAWS = 0.1, 500
COLORS = "#b35806", "#e08214", "#d6604d", "#666666", "#1b7837", "#762a83", "#2166ac"


class Game(NamedTuple):
    """Losses, and the motion near (0, 0): theta' = slope psi, psi' = -slope theta - damping psi."""

    discriminator_loss: Callable[[Any, Any], Any]
    generator_loss: Callable[[Any], Any]
    slope: float
    damping: float | None = 0.0  # None: not differentiable at psi = 0
    penalty: Callable[..., Any] | None = None  # of D, real, fake, rng
    noise: float = 0.0  # standard deviation of the instance noise
    clip: float | None = None


def zero_centred(d, real, fake, rng):
    return 0.1 * tg.losses.gradient_penalty(d, real, fake, rng=rng, target=0.0)


def one_centred(d, real, fake, rng):
    return 0.5 * tg.losses.gradient_penalty(d, real, fake, rng=rng)


def r1(d, real, fake, rng):
    return tg.losses.r1_penalty(d, real)


MINIMAX = tg.losses.minimax_discriminator, tg.losses.minimax_generator, 0.5
NON_SATURATING = tg.losses.nonsaturating_discriminator, tg.losses.nonsaturating_generator, 0.5
WASSERSTEIN = tg.losses.wasserstein_critic, tg.losses.wasserstein_generator, 1.0
GAMES = {
    "GAN, minimax": Game(*MINIMAX),
    "GAN, non-saturating": Game(*NON_SATURATING),
    "WGAN, clipped at 0.5": Game(*WASSERSTEIN, clip=0.5),
    "WGAN-GP, weight 0.5": Game(*WASSERSTEIN, damping=None, penalty=one_centred),
    "GAN + instance noise, sd 1": Game(*NON_SATURATING, damping=0.5, noise=1.0),  # noise^2 / 2
    "GAN + R1, gamma 1": Game(*NON_SATURATING, damping=1.0, penalty=r1),
    "GAN + zero-centred, weight 0.1": Game(*NON_SATURATING, damping=0.2, penalty=zero_centred),
}


def play(game, start, steps, rng, device):
    """The path from (theta, psi) = start: (steps + 1, 2)."""
    theta, psi = (tg.Tensor(tg.backend.to_device(np.full((1, 1), x), device)) for x in start)
    generator, discriminator = tg.optim.SGD([theta], LR), tg.optim.SGD([psi], LR)
    clip = tg.optim.WeightClip([psi], game.clip) if game.clip else None
    origin = tg.backend.zeros((1, 1), np.float64, device)

    def scores(x):
        if game.noise:  # e and -e, so that the noise has mean 0 in every step
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
    """The spectral radius of a step at (0, 0); NaN where the step is not differentiable."""
    if game.damping is None:
        return np.nan
    discriminator = np.array([[1, 0], [-LR * game.slope, 1 - LR * game.damping]])
    generator = np.array([[1, LR * game.slope], [0, 1]])
    return np.abs(np.linalg.eigvals(generator @ discriminator)).max()


def factor(path):
    """The factor of the distance to (0, 0) per step: geometric mean over the second half."""
    distances, half = np.hypot(*path.T), len(path) // 2
    return (distances[-1] / distances[half]) ** (1 / (len(path) - 1 - half))


def field(game, rng, device):
    """Where one step leads from each of 9 x 9 places: (places, ends), (81, 2) each."""
    line = np.linspace(-1.6, 1.6, 9)
    places = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    return places, np.array([play(game, place, 1, rng, device)[1] for place in places])


def plane(axes, name, path, places, ends, color):
    arrows = (ends - places) / np.maximum(np.hypot(*(ends - places).T), 1e-12)[:, None]
    axes.quiver(*places.T, *arrows.T, color="#bbbbbb", pivot="middle", scale=24, width=0.004)
    axes.plot(*path.T, color=color, linewidth=1.2)
    axes.plot(*path[0], "o", color="black", label="start")
    axes.plot(*path[-1], "*", color=color, markersize=15, markeredgecolor="black", label="end")
    axes.plot(0, 0, "+", color="black", markersize=14, markeredgewidth=2, label="equilibrium")
    axes.set(xlim=(-1.7, 1.7), ylim=(-1.7, 1.7), aspect="equal",
             xlabel="theta  (the generated point; the real one: 0)",
             ylabel="psi  (the discriminator's slope)")
    expected = predicted(GAMES[name])
    axes.set_title(f"{name}\nmeasured factor per step {factor(path):.4f}\n" + (
        "near (0, 0) the penalty pushes psi away" if np.isnan(expected)
        else f"predicted by eigenvalues {expected:.4f}"), fontsize=11, loc="left")


def picture(paths, fields, title):
    figure = Figure(figsize=(17, 10), dpi=80, layout="constrained")
    figure.suptitle(f"{title}. Which paths end at the cross? Arrows: the direction of a step",
                    fontsize=14, weight="bold")
    *planes, last = figure.subplots(2, 4).flat
    for axes, (name, path), color in zip(planes, paths.items(), COLORS):
        plane(axes, name, path, *fields[name], color)
        last.plot(np.hypot(*path.T), color=color, linewidth=1.8, label=name)
    planes[0].legend(fontsize=9, loc="upper right")
    last.set(yscale="log", ylim=(1e-9, 1e8), xlabel="step", ylabel="distance to the equilibrium")
    last.set_title("All seven. Flat: it circles;\na straight fall: it converges", fontsize=11,
                   loc="left")
    last.set_box_aspect(1)
    last.legend(fontsize=9, loc="upper right")
    last.grid(alpha=0.3)
    return figure


def main():
    options = demo.options(__doc__, "Dirac-GAN in float64", 1, "runs/dirac_gan.png",
                           steps=(1000, "of both players"))
    rng, device = tg.backend.rng(options.seed, options.device), options.device
    angle = tg.backend.host_rng(rng).uniform(0, 2 * np.pi)
    print(f"{'':32s}{'distance at the end':>20s}{'factor per step':>18s}{'predicted':>12s}")
    paths, fields = {}, {}
    for name, game in GAMES.items():
        paths[name] = play(game, (np.cos(angle), np.sin(angle)), options.steps, rng, device)
        end, measured = np.hypot(*paths[name][-1]), factor(paths[name])
        print(f"{name:32s}{end:20.2e}{measured:18.4f}{predicted(game):12.4f}")
        fields[name] = field(game, rng, device)
    options.save(picture(paths, fields, options.title))


if __name__ == "__main__":
    main()
