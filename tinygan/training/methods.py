"""The methods, each with its losses and the settings of its paper, and the choices of a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .. import backend, losses
from ..data import DataError, DataSet
from ..optim import Adam, Optimizer, RMSprop
from .distributed import Ranks
from .game import Game
from .likelihood import VAEGAN, Autoencoder, Mixture


@dataclass(frozen=True)
class Method:
    """What distinguishes one way to train a generator from the others."""

    title: str
    formula: str  # what is minimized, for ``tinygan methods``
    lr: float  # learning rate at the start
    critic_loss: Callable[..., Any] = losses.nonsaturating_discriminator  # (real, fake scores)
    generator_loss: Callable[..., Any] = losses.nonsaturating_generator  # of fake scores ...
    paired: bool = False  # ... or of (fake, real scores)
    betas: tuple[float, float] | None = (0.5, 0.999)  # of Adam (Radford et al. 2016); None: RMSprop
    n_critic: int = 1  # critic steps per generator step
    steps: int = 5000  # of the generator
    penalty: float | None = None  # weight of ``penalize``
    penalize: Callable[..., Any] = losses.gradient_penalty  # (critic, real, fake, rng=rng)
    clip: float | None = None  # limit of the critic's weights
    spectral: bool = False  # spectral normalization of the critic
    noise: float = 0.0  # standard deviation, at the start, of noise on all that the critic sees
    path_length: float = 0.0  # weight of the generator's path length penalty
    width: int | None = None  # where it is not that of the network
    depth: int = 3  # hidden layers of the perceptrons
    game: type[Game] = Game  # the iteration
    without: tuple[str, ...] = ()  # the settings that the method does not have
    images: Mapping[str, Any] = field(default_factory=dict)  # what differs for images ...
    conv: Mapping[str, Any] = field(default_factory=dict)  # ... and for their conv net

    @property
    def wasserstein(self) -> bool:
        """Is the critic's loss, negated and without penalty, an estimate of the Wasserstein-1
        distance?
        """
        return self.critic_loss is losses.wasserstein_critic

    def of(self, data: DataSet | None, net: str) -> Method:
        """The method with its settings for a data set and a network."""
        if data is None or data.shape is None:
            return self
        return replace(self, **{**self.images, **(self.conv if net == "conv" else {})})

    def optimizer(self, parameters: Any, lr: Any) -> Optimizer:
        """The optimizer of a network's parameters."""
        if self.betas is None:
            return RMSprop(parameters, lr)
        return Adam(parameters, lr, self.betas)


def r1(critic: Any, real: Any, fake: Any, rng: Any) -> Any:
    """R1 alone."""
    return losses.r1_penalty(critic, real)


def r1_and_r2(critic: Any, real: Any, fake: Any, rng: Any) -> Any:
    """R1 + R2, which have one weight (Huang et al. 2024, section 2)."""
    return losses.r1_penalty(critic, real) + losses.r2_penalty(critic, fake)


METHODS = {
    "gan": Method(
        title="non-saturating GAN (Goodfellow et al. 2014)",
        formula="D: -log D(x) - log(1 - D(G(z)))   G: -log D(G(z))",
        lr=1e-3,
        images={"lr": 2e-4},
        conv={"lr": 4e-3},  # 2e-4 in the paper, over many more steps
    ),
    "minimax": Method(
        title="minimax GAN (Goodfellow et al. 2014)",
        formula="D: -log D(x) - log(1 - D(G(z)))   G: log(1 - D(G(z)))",
        critic_loss=losses.minimax_discriminator,
        generator_loss=losses.minimax_generator,
        lr=2e-4,
    ),
    "lsgan": Method(
        title="least squares GAN (Mao et al. 2017)",
        formula="D: ((D(x) - 1)^2 + D(G(z))^2) / 2   G: (D(G(z)) - 1)^2 / 2",
        critic_loss=losses.least_squares_discriminator,
        generator_loss=losses.least_squares_generator,
        lr=1e-3,
        images={"lr": 2e-4},
    ),
    "hinge": Method(
        title="hinge loss (Lim & Ye 2017)",
        formula="D: max(0, 1 - D(x)) + max(0, 1 + D(G(z)))   G: -D(G(z))",
        critic_loss=losses.hinge_discriminator,
        generator_loss=losses.hinge_generator,
        lr=1e-3,
        images={"lr": 2e-4},
    ),
    "sngan": Method(
        title="spectral normalization (Miyato et al. 2018)",
        formula="hinge, D's weights divided by their largest singular value",
        critic_loss=losses.hinge_discriminator,
        generator_loss=losses.hinge_generator,
        spectral=True,
        lr=2e-3,
        betas=(0.0, 0.9),
        n_critic=5,
        images={"lr": 2e-4},
    ),
    "noise": Method(
        title="instance noise (Sønderby et al. 2017)",
        formula="D: -log D(x) - log(1 - D(G(z)))   G: -log D(G(z)), "
                "D sees x + e and G(z) + e, e -> 0",
        noise=0.2,
        lr=1e-3,
        images={"lr": 2e-4},
    ),
    "wgan": Method(
        title="WGAN with weight clipping (Arjovsky et al. 2017)",
        formula="D: D(G(z)) - D(x), weights within +-c   G: -D(G(z))",
        critic_loss=losses.wasserstein_critic,
        generator_loss=losses.wasserstein_generator,
        # The paper's clip is 0.01 at a learning rate of 5e-5; small networks on points want more of
        # both.
        clip=0.3,
        lr=2e-3,
        betas=None,
        n_critic=5,
        images={"lr": 2e-4, "clip": 0.01},
    ),
    "wgan-gp": Method(
        title="WGAN-GP (Gulrajani et al. 2017)",
        formula="D: D(G(z)) - D(x) + w (|grad D| - 1)^2 between x and G(z)   G: -D(G(z))",
        critic_loss=losses.wasserstein_critic,
        generator_loss=losses.wasserstein_generator,
        penalty=0.2,  # 0.1 in the authors' code for toy data; 10 in the paper
        lr=3e-3,
        betas=(0.0, 0.99),
        n_critic=2,  # 5 in the paper
        width=64,
        depth=5,
        steps=30000,
        images={"lr": 1e-3, "penalty": 10.0, "betas": (0.0, 0.9), "width": None, "depth": 3,
                "steps": 20000},
        conv={"lr": 4e-3},
    ),
    "r1": Method(
        title="R1 regularization (Mescheder et al. 2018)",
        formula="D: -log D(x) - log(1 - D(G(z)))   G: -log D(G(z))   D: + w |grad D(x)|^2 / 2",
        penalize=r1,
        penalty=0.02,
        lr=2e-3,
        images={"lr": 2e-4, "penalty": 10.0},
    ),
    "r3gan": Method(
        title="R3GAN (Huang et al. 2024)",
        formula="D: -log s(D(x) - D(G(z))) + w (|grad D(x)|^2 + |grad D(G(z))|^2) / 2   "
                "G: -log s(D(G(z)) - D(x))",
        critic_loss=losses.relativistic_discriminator,
        generator_loss=losses.relativistic_generator,
        paired=True,
        penalize=r1_and_r2,
        penalty=0.02,
        lr=2e-3,
        betas=(0.5, 0.99),
        images={"lr": 1e-3, "penalty": 1.0, "steps": 20000},
    ),
    "path-length": Method(
        title="path length regularization (Karras et al. 2020)",
        formula="R1   G: + w' (|J^T y| - a)^2, J = dG/dz, y normal",
        penalize=r1,
        penalty=0.02,
        path_length=0.01,  # at every step; the paper's code: 2, at every fourth
        lr=2e-3,
        images={"lr": 2e-4, "penalty": 10.0},
    ),
    "vae": Method(
        title="VAE (Kingma & Welling 2014)",
        formula="-log p(x|z) + KL(q(z|x) || N(0, I)), z drawn from q",
        game=Autoencoder,
        lr=3e-3,
        betas=(0.9, 0.999),
        without=("n_critic",),
        images={"lr": 1e-3},
    ),
    "vae-gan": Method(
        title="VAE-GAN (Larsen et al. 2016)",
        formula="E: KL + |f(x) - f(G(z))|^2 / 2   D, G: the GAN's, f: D's features",
        game=VAEGAN,
        lr=1e-3,
        without=("n_critic",),
        images={"lr": 2e-4},
    ),
    "mixture": Method(
        title="mixture of Gaussians by maximum likelihood",
        formula="-log sum_k p_k N(x; m_k, s_k^2)",
        game=Mixture,
        lr=1e-2,
        betas=(0.9, 0.999),
        width=50,
        without=("n_critic", "depth", "latent", "net", "conditional"),
    ),
}
WIDTHS = {"mlp": 128, "conv": 32}  # units of a layer; channels of the layer next to the image
WHOLE = {  # settings that are whole numbers, with the least and the largest allowed
    "steps": (1, 2**62), "batch": (1, 2**31), "accumulate": (1, 2**31), "width": (1, 2**31),
    "depth": (0, 1000), "latent": (1, 2**31), "n_critic": (1, 2**31), "seed": (0, math.inf)}
MOST_NUMBERS = 2**33  # in the examples of an iteration


@dataclass(frozen=True)
class Config:
    """The choices that make a run repeatable. None stands for the method's own setting.

    A step's batch is ``accumulate`` times ``batch`` examples, of which ``batch`` are in memory at a
    time.
    """

    method: str = "wgan-gp"
    net: str = "mlp"
    steps: Any = None
    batch: int = 64
    accumulate: int = 1
    width: Any = None
    depth: Any = None
    latent: Any = None
    lr: Any = None
    n_critic: Any = None
    penalty: Any = None
    seed: int = 0
    conditional: bool = False  # whether the networks are given labels

    def resolved(self, data: DataSet | None = None) -> Config:
        """The same with the method's settings in place of None; what it lacks is None.

        Raises ValueError for an unknown name, a setting that does not fit the others, or a value
        out of range.
        """
        if self.method not in METHODS:
            raise ValueError(f"unknown method {self.method!r}; choose {', '.join(METHODS)}")
        if self.net not in WIDTHS:
            raise ValueError(f"unknown net {self.net!r}; choose {', '.join(WIDTHS)}")
        method = METHODS[self.method].of(data, self.net)
        if self.penalty is not None and method.penalty is None:
            raise ValueError(f"method {self.method} has no penalty; leave it out")
        without = method.without
        if type(self.conditional) is not bool:
            raise ValueError(f"conditional must be True or False, got {self.conditional!r:.40}")
        if self.conditional and "conditional" in without:
            raise ValueError(f"method {self.method} cannot be conditional; leave that out, or fit "
                             "one for each label")
        if self.conditional and data is not None and not data.classes:
            raise DataError(f"conditional, but {data.name} has no labels: they are y in fit(X, y), "
                            "the subfolders of a folder of images, y in a .npz, --label COLUMN of "
                            "a CSV")
        if self.net == "conv":
            self._check_conv(method, data)
            without += ("depth",)
        own = {"lr": method.lr, "n_critic": method.n_critic, "penalty": method.penalty,
               "steps": method.steps, "depth": method.depth,
               "latent": 2 if data is None else min(max(2, data.dim), 100),
               "width": method.width or WIDTHS[self.net]}
        chosen = {name: value for name in own if (value := getattr(self, name)) is not None}
        missing = {name: None for name in own if name in without}
        full = replace(self, **own | chosen | missing)
        full._check_ranges(missing)
        return full

    def _check_conv(self, method: Method, data: DataSet | None) -> None:
        if self.depth is not None:
            raise ValueError("the depth of net conv follows from the size of the images; "
                             "leave depth out or use mlp")
        if "net" in method.without:
            raise ValueError(f"method {self.method} has no net conv; leave net out")
        if data is not None and data.shape is None:
            raise ValueError(f"net conv is for images, and {data.name} has none; use net mlp")

    def _check_ranges(self, missing: Mapping[str, None]) -> None:
        for name, (least, most) in WHOLE.items():
            value = getattr(self, name)
            if name in missing:
                continue
            whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
            if not whole or not least <= value <= most:
                bound = f"at most {most}" if whole and value > most else f"at least {least}"
                raise ValueError(f"{name} must be a whole number of {bound}, got {value!r:.40}")
        for name, value in (("lr", self.lr), ("penalty", self.penalty)):
            if value is None:  # no penalty
                continue
            if not isinstance(value, (int, float)) or not 0 <= value <= np.finfo(float).max:
                raise ValueError(f"{name} must be a number of at least 0, got {value!r:.40}")
        examples = self.batch * self.accumulate * (self.n_critic or 1)
        if examples * max(self.width, self.latent or 1) > MOST_NUMBERS:
            raise ValueError("batch x accumulate x n_critic x width is more than "
                             f"{MOST_NUMBERS} numbers; make one smaller")


def new_game(config: Config, data: DataSet, device: str = "cpu",
             ranks: Ranks | None = None) -> Game:
    """The game of a configuration on a data set. Raises ValueError as ``Config.resolved``."""
    config = config.resolved(data)
    method = METHODS[config.method].of(data, config.net)
    with backend.on(device):
        return method.game(config, method, data, device, ranks)
