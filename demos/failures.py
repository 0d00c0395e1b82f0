"""The failure gallery: twenty-two ways to break a GAN, each made to happen, measured and cured.

    .venv/bin/python demos/failures.py

Each failure is a function that trains twice: as it should be, and with one line wrong. The rest is
equal: networks, data, draws. Two numbers tell the two apart: what the failure costs, and the sign
by which to know it in a log. Name failures to make only those (``... failures.py collapse``).

docs/failures.md explains each one, and has the table that this program prints (seeds 0 to 4).
"""

import contextlib
import operator
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

import tinygan as tg
from tinygan.app import demo
from tinygan.functional import clip, mean
from tinygan.layers import BatchNorm, LayerNorm, ReLU, Sequential
from tinygan.training import METHODS, Config, Diverged, Game, Run, samples

WIDTH, SHOWN = 32, 500  # units of a hidden layer; points of each kind in a picture
REAL, FAKE = "#1b7837", "#762a83"
RING, ROLL = tg.data.ring(), tg.data.swissroll()


def square(rng, n):
    """Uniform, with standard deviation 1."""
    return np.float32(3 ** 0.5) * rng.uniform(-1, 1, (n, 2)).astype(np.float32)


def circle(rng, n):
    """A circle in the plane of the first two of 16 coordinates, and little of the others."""
    t = rng.uniform(0, 2 * np.pi, n)
    x = 0.01 * rng.standard_normal((n, 16))
    x[:, :2] += 2 ** 0.5 * np.stack([np.cos(t), np.sin(t)], axis=1)
    return x.astype(np.float32)


SQUARE = replace(ROLL, name="square", draw=square)
CIRCLE = replace(ROLL, name="circle", dim=16, draw=circle, mean=np.zeros(16), scale=np.ones(16))


class Outcome(NamedTuple):
    number: float  # what the failure costs
    sign: float  # by which to know it
    draw: Callable  # of axes


class Failure(NamedTuple):
    run: Callable[..., Outcome]  # of cured, seed, device; steps for a shorter run
    number: str  # what is measured
    sign: str
    wrong: str  # the line
    cure: str
    worse: Callable = operator.gt  # the failed number than the cured one

    @property
    def seen(self):
        """The first line of its description, without the period: the picture's title."""
        return self.run.__doc__.splitlines()[0].rstrip(".")


FAILURES = {}


def failure(**words):
    """Enter the function in ``FAILURES`` under its name, with hyphens."""
    def enter(run):
        FAILURES[run.__name__.replace("_", "-")] = Failure(run, **words)
        return run
    return enter


# ------------------------------------------------------------------------------ what they share


def new(method, seed, device, steps, data=RING, kind=Game, changes={}, **settings):
    """A small game of the package: ``settings`` of the run, ``changes`` to the method."""
    if method == "wgan-gp":  # the paper's critic steps, the memories of its code, a shallow network
        settings = {"n_critic": 5, "depth": 3, "penalty": 0.1, "lr": 4e-3} | settings
        changes = {"betas": (0.5, 0.9)} | changes
    config = Config(method, seed=seed, steps=steps, **{"width": WIDTH} | settings).resolved(data)
    return kind(config, replace(METHODS[method], **changes), data, device)


def train(game):
    """Play all steps: the columns of the log, each step's value."""
    run = Run(game)
    rows = [run.iterate() for _ in range(game.config.steps)]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def late(column):
    """The mean over the last tenth of a run."""
    return float(column[-max(1, len(column) // 10):].mean())


def cloud(data, generated):
    """Draws points over real ones, the first two coordinates."""
    def draw(axes):
        real = data.draw(np.random.default_rng(0), SHOWN)
        axes.scatter(*real.T[:2], s=30, color=REAL, alpha=0.4, label="real", linewidths=0)
        axes.scatter(*generated[:SHOWN].T[:2], s=5, color=FAKE, label="generated", linewidths=0)
        axes.set_aspect("equal", adjustable="datalim")
    return draw


def judged(game, sign, number="sliced_wasserstein"):
    """The outcome by the scores that a log has; the sign is one of them, or a number."""
    scores = samples.evaluate(game, 0)
    drawn = cloud(game.data, samples.sample(game, SHOWN))
    return Outcome(scores[number], scores.get(sign, sign), drawn)


# --------------------------------------------------------------------------- games of probabilities


@failure(number="reverse KL", sign="modes captured", wrong="penalty 0", cure="R1 penalty 0.1")
def collapse(cured, seed, device, steps=2500):
    """Perfect samples of two modes in eight, none of the others."""
    game = new("r1", seed, device, steps, latent=16, lr=3e-3, penalty=0.1 if cured else 0.0)
    train(game)
    return judged(game, "modes", "reverse_kl")


@failure(number="sliced Wasserstein", sign="critic loss, first 100 steps", wrong="penalty 0",
         cure="R1 penalty 0.1")
def early_winner(cured, seed, device, steps=600):
    """A thin circle in 16 dimensions, and every fake is known at once."""
    game = new("r1", seed, device, steps, CIRCLE, n_critic=5, latent=2, lr=4e-3,
               penalty=0.1 if cured else 0.0)
    log = train(game)
    return judged(game, float(log["critic_loss"][:100].mean()))


def ahead(game, steps, shift, lr=1e-3):
    """Move the fakes away from the data, and train the discriminator alone."""
    game.generator.parameters()[-1].assign(np.full(2, shift))
    optimizer = tg.optim.Adam(game.critic.parameters(), lr, (0.5, 0.999))

    def step():
        optimizer.step(game.critic_gradients(game.real(), *game.fakes(1))[0])

    replayed = tg.program.Program(step, [*game.state(), optimizer])
    with tg.backend.on(game.device):
        for _ in range(steps):
            replayed()


@failure(number="sliced Wasserstein", sign="critic loss", wrong="minimax loss",
         cure="non-saturating loss")
def saturated_generator(cured, seed, device, steps=600):
    """The discriminator is ahead, and leaves the generator nothing to follow."""
    losses = tg.losses
    loss = losses.nonsaturating_generator if cured else losses.minimax_generator
    game = new("gan", seed, device, steps, changes={"generator_loss": loss})
    game.optimizers["generator"] = tg.optim.SGD(game.generator.parameters(), 1e-3)  # as in 2014
    ahead(game, 1000, shift=3)
    log = train(game)
    return judged(game, late(log["critic_loss"]))


def bce_of_clipped(probability, is_real):
    p = clip(probability, 1e-7, 1 - 1e-7)
    return -mean(tg.ops.log(p if is_real else 1 - p))


@failure(number="sliced Wasserstein", sign="largest generator loss",
         wrong="log(clip(D, 1e-7, 1 - 1e-7))", cure="softplus of the score")
def clipped_probabilities(cured, seed, device, steps=600):
    """Fakes that the discriminator is sure of have no gradient at all."""
    def critic_loss(real, fake):
        return (bce_of_clipped(tg.ops.sigmoid(real), True)
                + bce_of_clipped(tg.ops.sigmoid(fake), False))

    def generator_loss(fake):
        return bce_of_clipped(tg.ops.sigmoid(fake), True)

    wrong = {"critic_loss": critic_loss, "generator_loss": generator_loss}
    game = new("gan", seed, device, steps, changes={} if cured else wrong)
    ahead(game, 400, shift=10, lr=1e-2)
    log = train(game)
    return judged(game, float(log["generator_loss"].max()))


@failure(number="sliced Wasserstein", sign="generator's gradient at first",
         wrong="labels 0.7 and 0.3", cure="labels 0.7 and 0")
def two_sided_smoothing(cured, seed, device, steps=600):
    """Smoothed labels of fakes make the discriminator flat where only fakes are."""
    real_label, fake_label = 0.7, 0.0 if cured else 0.3

    def critic_loss(real, fake):
        bce = tg.ops.softplus
        return mean(bce(real) - real_label * real) + mean(bce(fake) - fake_label * fake)

    game = new("gan", seed, device, steps, changes={"critic_loss": critic_loss})
    game.optimizers["generator"] = tg.optim.SGD(game.generator.parameters(), 3e-3)
    ahead(game, 1000, shift=3)
    gradients, _ = game.generator_gradients(game.latents())
    norm = float(sum((g * g).sum() for g in gradients)) ** 0.5
    train(game)
    return judged(game, norm)


@failure(number="high quality", sign="critic loss", wrong="noise 0.3 throughout",
         cure="noise from 0.3 to 0", worse=operator.lt)
def constant_noise(cured, seed, device, steps=2000):
    """What is finer than the noise is never learned."""
    game = new("noise", seed, device, steps, lr=4e-3, changes={"noise": 0.3})
    if not cured:
        game.noise = lambda: tg.backend.scalars([0.3], like=game.generator.parameters()[0].data)
    log = train(game)
    return judged(game, late(log["critic_loss"]), "high_quality")


@failure(number="distance to equilibrium", sign="swing of the critic loss", wrong="gamma 0",
         cure="R1, gamma 1")
def oscillation(cured, seed, device, steps=500):
    """Two numbers: each player answers the other's last move, round and round."""
    angle = np.random.default_rng(seed).uniform(0, 2 * np.pi)
    theta, psi = (tg.Tensor(tg.backend.to_device(np.full((1, 1), x), device))
                  for x in (np.cos(angle), np.sin(angle)))
    players = tg.optim.SGD([psi], 0.1), tg.optim.SGD([theta], 0.1)
    real, gamma, rows = tg.backend.zeros((1, 1), np.float64, device), 1.0 if cured else 0.0, []
    for _ in range(steps):
        loss = tg.losses.nonsaturating_discriminator(real @ psi, theta.data @ psi)
        rows.append((theta.data.item(), psi.data.item(), float(loss)))
        loss = loss + gamma * tg.losses.r1_penalty(lambda x: x @ psi, real)
        players[0].step(tg.grad(loss, [psi]))
        players[1].step(tg.grad(tg.losses.nonsaturating_generator(theta @ psi), [theta]))
    thetas, psis, losses = np.array(rows).T

    def draw(axes):
        axes.plot(thetas, psis, color=FAKE, linewidth=0.8)
        axes.plot(0, 0, "+", color="black", markersize=10)
        axes.set(xlabel="generated point (real: 0)", ylabel="slope of D", xlim=(-1.1, 1.1),
                 ylim=(-1.1, 1.1))

    return Outcome(float(np.hypot(thetas[-1], psis[-1])), float(np.ptp(losses[-100:])), draw)


# ------------------------------------------------------------------------------ Wasserstein critics


@failure(number="sliced Wasserstein", sign="slope of the critic", wrong="clip 0.001",
         cure="clip 0.1")
def narrow_clip(cured, seed, device, steps=400):
    """Clipped too close, the critic is flat, and the generator stands still."""
    game = new("wgan", seed, device, steps, depth=6, changes={"clip": 0.1 if cured else 0.001})
    train(game)
    return judged(game, "gradient_norm")


@failure(number="sliced Wasserstein", sign="W estimate", wrong="clip 1", cure="clip 0.1")
def wide_clip(cured, seed, device, steps=400):
    """Clipped wide: W explodes, and the samples are no worse."""
    game = new("wgan", seed, device, steps, depth=6, changes={"clip": 0.1 if cured else 1.0})
    log = train(game)
    return judged(game, late(log["w_estimate"]))


@failure(number="finite steps", sign="largest W estimate", wrong="no bound", cure="clip 0.3",
         worse=operator.lt)
def divergence(cured, seed, device, steps=500):
    """Nothing bounds a critic that has forgotten to clip."""
    game = new("wgan", seed, device, steps, changes={"clip": 0.3 if cured else None})
    game.optimizers["critic"] = tg.optim.SGD(game.critic.parameters(), 0.01)
    run, estimates = Run(game), []
    with np.errstate(over="ignore", invalid="ignore"), contextlib.suppress(Diverged):
        while run.step < steps:
            estimates.append(run.iterate()["w_estimate"])

    def draw(axes):
        axes.semilogy(np.abs(estimates), color=FAKE, linewidth=1)
        axes.axvline(len(estimates), color="black", linestyle=":")
        axes.set(xlabel="step", ylabel="|W estimate|", xlim=(0, steps), ylim=(1e-3, 1e8))

    return Outcome(len(estimates), float(np.abs(estimates).max(initial=0.0)), draw)


@failure(number="sliced Wasserstein", sign="W estimate", wrong="learning rate 0.3",
         cure="learning rate 0.03")
def high_rate(cured, seed, device, steps=500):
    """Steps so long that rectifiers die."""
    game = new("wgan-gp", seed, device, steps, lr=0.03 if cured else 0.3)
    log = train(game)
    return judged(game, late(log["w_estimate"]))


# ------------------------------------------------------------------------------- gradient penalties


@failure(number="sliced Wasserstein", sign="slope of the critic", wrong="weight 0", cure="weight 1")
def small_penalty(cured, seed, device, steps=500):
    """Without its penalty the critic is as steep as it likes."""
    game = new("wgan-gp", seed, device, steps, penalty=1.0 if cured else 0.0)
    train(game)
    return judged(game, "gradient_norm")


@failure(number="sliced Wasserstein", sign="W estimate", wrong="weight 1,000", cure="weight 1")
def large_penalty(cured, seed, device, steps=500):
    """The critic has slope 1, and no attention left for the data."""
    game = new("wgan-gp", seed, device, steps, penalty=1.0 if cured else 1000.0)
    log = train(game)
    return judged(game, late(log["w_estimate"]))


def slope_penalty(critic, x, create_graph=True, axis=1):
    """E[(|grad D(x)| - 1)^2], written out so that it can be spoiled."""
    x = tg.Tensor(x)
    (gradient,) = tg.grad(tg.ops.sum(critic(x)), [x], create_graph=create_graph)
    return mean((tg.ops.norm(gradient, axis=axis) - 1) ** 2)


@failure(number="sliced Wasserstein", sign="slope of the critic", wrong="BatchNorm",
         cure="LayerNorm")
def batch_norm(cured, seed, device, steps=300):
    """The penalty is on slopes of the whole batch, and each example's own is free."""
    class Normalized(Game):
        def build(self, rng):
            networks, norm = super().build(rng), LayerNorm if cured else BatchNorm
            networks["critic"] = Sequential(*(
                part for layer in networks["critic"].layers
                for part in ([norm(WIDTH, device=device)] * isinstance(layer, ReLU) + [layer])))
            return networks

    def penalize(critic, real, fake, rng):
        return slope_penalty(critic, tg.losses.interpolate(real, fake, rng=rng))

    game = new("wgan-gp", seed, device, steps, kind=Normalized, changes={"penalize": penalize})
    train(game)
    return judged(game, "gradient_norm")


@failure(number="sliced Wasserstein", sign="penalty", wrong="create_graph=False",
         cure="create_graph=True")
def constant_penalty(cured, seed, device, steps=500):
    """The penalty is in the loss and not in the gradient."""
    def penalize(critic, real, fake, rng):
        x = tg.losses.interpolate(real, fake, rng=rng)
        penalty = slope_penalty(critic, x, create_graph=cured)
        return penalty if cured else tg.Tensor(penalty)  # as an array it would have no graph either

    game = new("wgan-gp", seed, device, steps, penalty=1.0, changes={"penalize": penalize})
    log = train(game)
    return judged(game, late(log["penalty"]))


@failure(number="slope of the critic", sign="W estimate", wrong="norm(gradient)",
         cure="norm(gradient, axis=1)", worse=operator.lt)
def wrong_axes(cured, seed, device, steps=500):
    """One norm for the batch: 64 slopes share the length 1."""
    def penalize(critic, real, fake, rng):
        x = tg.losses.interpolate(real, fake, rng=rng)
        return slope_penalty(critic, x, axis=1 if cured else None)

    game = new("wgan-gp", seed, device, steps, penalty=1.0, changes={"penalize": penalize})
    log = train(game)
    return judged(game, late(log["w_estimate"]), "gradient_norm")


@failure(number="sliced Wasserstein", sign="spread of the penalty", wrong="one epsilon a batch",
         cure="one epsilon an example")
def shared_epsilon(cured, seed, device, steps=500):
    """One epsilon for the batch: a noisier penalty, and samples no worse."""
    def penalize(critic, real, fake, rng):
        e = tg.backend.uniform(rng, (len(real), 1))
        e = e if cured else e[:1]
        return slope_penalty(critic, fake + e * (real - fake))

    game = new("wgan-gp", seed, device, steps, changes={"penalize": penalize})
    train(game)
    with tg.backend.on(device):
        real, (fake,) = game.real(), game.fakes(1)
        draws = [float(penalize(game.critic, real, fake, game.rng)) for _ in range(200)]
    return judged(game, float(np.std(draws) / np.mean(draws)))


# ------------------------------------------------------------------------- what surrounds the game


class OneLoss(Game):
    """Both players' losses are computed at once, and the generator descends their sum."""

    stopped = True

    def iteration(self):
        fake, real = self.generator(self.latents()), self.real()
        seen = tg.stop_gradient(fake) if self.stopped else fake
        critic_loss = self.method.critic_loss(self.critic(real), self.critic(seen))
        generator_loss = self.method.generator_loss(self.critic(fake))
        penalty = self.method.penalize(self.critic, real, fake, rng=self.rng)
        descents = {"critic": critic_loss + self.config.penalty * penalty,
                    "generator": critic_loss + generator_loss}
        gradients = {name: tg.grad(loss, self.networks[name].parameters())
                     for name, loss in descents.items()}
        for name, optimizer in self.optimizers.items():
            optimizer.step(gradients[name])
        self.average.update()
        return {"generator_loss": generator_loss.data}


@failure(number="sliced Wasserstein", sign="farthest move of a sample", wrong="D(fake)",
         cure="D(stop_gradient(fake))")
def forgotten_stop_gradient(cured, seed, device, steps=500):
    """The critic's loss reaches the generator, and takes back what its own loss gives."""
    game = new("wgan-gp", seed, device, steps, kind=OneLoss, penalty=1.0)
    game.stopped, before = cured, samples.sample(game, SHOWN)
    train(game)
    return judged(game, float(np.abs(samples.sample(game, SHOWN) - before).max()))


@failure(number="sliced Wasserstein", sign="the same of the last weights", wrong="no warm-up",
         cure="warm-up")
def lagging_average(cured, seed, device, steps=500):
    """The averaged generator still remembers its random start."""
    game = new("wgan-gp", seed, device, steps)
    if not cured:
        game.average.updates = 10**6  # from the first step on decay 0.999
    train(game)
    z = tg.backend.normal(tg.backend.rng(0, device), (samples.SCORED, game.latent_dim))
    last = tg.training.score(game.data, tg.backend.to_numpy(game.generator(z).data),
                             np.random.default_rng(0))
    return judged(game, last["sliced_wasserstein"])


@failure(number="distance to training data", sign="held-out / training distance",
         wrong="20 examples", cure="500 examples", worse=operator.lt)
def memorization(cured, seed, device, steps=600):
    """The samples keep to the few training points."""
    rng = np.random.default_rng(seed)
    seen, fresh = ROLL.draw(rng, 500)[:500 if cured else 20], ROLL.draw(rng, 2500)
    data = replace(ROLL, draw=lambda rng, n: seen[rng.integers(len(seen), size=n)])
    game = new("wgan-gp", seed, device, steps, data, lr=1.2e-2)
    train(game)
    generated = samples.sample(game, samples.SCORED)
    found = tg.metrics.memorization(generated, seen, fresh)
    held_out, training = (tg.metrics.sliced_wasserstein(generated, x, np.random.default_rng(0), 64)
                          for x in (fresh, seen))
    return Outcome(found.fake_distance / found.held_out_distance, held_out / training,
                   cloud(data, generated))


@failure(number="coverage", sign="sliced Wasserstein", wrong="1 latent", cure="2 latents",
         worse=operator.lt)
def small_latent(cured, seed, device, steps=500):
    """A line cannot fill a square."""
    game = new("wgan-gp", seed, device, steps, SQUARE, latent=2 if cured else 1)
    train(game)
    outcome, rng = judged(game, "sliced_wasserstein"), np.random.default_rng(0)
    coverage = tg.metrics.prdc(SQUARE.draw(rng, 1000), samples.sample(game, 1000)).coverage
    return Outcome(coverage, outcome.number, outcome.draw)


@failure(number="sliced Wasserstein", sign="W estimate", wrong="raw columns", cure="standardized")
def unscaled_data(cured, seed, device, steps=500):
    """Columns with mean 1,000 and standard deviation 50, as they come."""
    raw = 1000 + 50 * ROLL.draw(np.random.default_rng(seed), 5000)
    scale = raw.std(axis=0)
    x = (raw - raw.mean(axis=0)) / scale if cured else raw
    data = replace(ROLL, draw=lambda rng, n: x[rng.integers(len(x), size=n)])
    game = new("wgan-gp", seed, device, steps, data)
    log = train(game)
    outcome = judged(game, late(log["w_estimate"]))
    if cured:
        return outcome
    shown = replace(data, draw=lambda rng, n: (data.draw(rng, n) - 1000) / scale)
    return Outcome(outcome.number / scale.mean(), outcome.sign,
                   cloud(shown, (samples.sample(game, SHOWN) - 1000) / scale))


# ----------------------------------------------------------------------------- the gallery


TABLE = """\
| failure | what it costs | gone wrong | cured | worse in | sign | gone wrong | cured |
|---|---|---|---|---|---|---|---|"""


def text(x):
    """Two digits, or a power of ten."""
    if x == 0 or 1e-3 <= abs(x) < 1e5:
        return np.format_float_positional(x, precision=2, fractional=False, trim="-")
    return f"{x:.0e}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def spread(values):
    """"lowest to highest"."""
    lowest, highest = text(min(values)), text(max(values))
    return lowest if lowest == highest else f"{lowest} to {highest}"


def row(name, outcomes):
    """A line of the table; outcomes: cured -> [Outcome of each seed]."""
    kind, (failed, cured) = FAILURES[name], (outcomes[False], outcomes[True])
    numbers, signs = ([spread([getattr(outcome, what) for outcome in runs])
                       for runs in (failed, cured)] for what in ("number", "sign"))
    worse = sum(kind.worse(a.number, b.number) for a, b in zip(failed, cured))
    return (f"| {name} | {kind.number} | {' | '.join(numbers)} | {worse} of {len(cured)} "
            f"| {kind.sign} | {' | '.join(signs)} |")


def picture(name, outcomes):
    """The first seed, gone wrong and cured, each at its own scale."""
    kind = FAILURES[name]
    figure = Figure(figsize=(6.4, 4), dpi=100)
    figure.suptitle(f"{name.replace('-', ' ').capitalize()}. {kind.seen}.", fontsize=9, x=0.02,
                    ha="left", weight="bold", wrap=True)
    figure.subplots_adjust(left=0.09, right=0.98, top=0.76, bottom=0.17, wspace=0.25)
    titles = f"Gone wrong: {kind.wrong}", f"Cured: {kind.cure}"
    for axes, title, cured in zip(figure.subplots(1, 2), titles, (False, True)):
        outcome = outcomes[cured][0]
        outcome.draw(axes)
        axes.set_title(f"{title}\n{kind.number} {text(outcome.number)}\n"
                       f"{kind.sign} {text(outcome.sign)}", fontsize=8, loc="left")
        axes.tick_params(labelsize=7)
        axes.xaxis.label.set_size(7)
        axes.yaxis.label.set_size(7)
    figure.legend(*axes.get_legend_handles_labels(), loc="lower center", ncols=2, fontsize=8,
                  frameon=False)
    return figure


def main():
    options = demo.options(__doc__, "Failures", WIDTH, "runs/failures.png", list(FAILURES),
                           seeds=(5, "number of runs of each, from --seed on"))
    seeds, pictures = range(options.seed, options.seed + options.seeds), {}
    print(TABLE)
    for name in options.parts:
        outcomes = {cured: [FAILURES[name].run(cured, seed, options.device) for seed in seeds]
                    for cured in (False, True)}
        print(row(name, outcomes), flush=True)
        pictures[name] = picture(name, outcomes)
    options.save(pictures)


if __name__ == "__main__":
    main()
