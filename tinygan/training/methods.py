"""The methods: what each one minimizes, with the settings of its paper, and the choices that make a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .. import losses
from ..data import DataSet
from ..optim import Adam, Optimizer, RMSprop


@dataclass(frozen=True)
class Method:
    """What distinguishes one way to train a generator from another, with its papers' settings."""

    title: str
    formula: str  # what is minimized, for ``tinygan methods``
    optimizer: Callable[..., Optimizer]
    lr: float
    critic_loss: Callable[[Any, Any], Any] | None = None  # of real and fake scores; None where there is no critic
    generator_loss: Callable[..., Any] | None = None  # of fake scores, if it is ``paired`` of fake and real ones
    paired: bool = False
    n_critic: int = 1
    penalty: float | None = None  # weight of ``penalize``, None where the method has none
    penalize: Callable[..., Any] = losses.gradient_penalty  # (critic, real, fake, rng=rng) -> the penalty
    clip: float | None = None  # limit of the critic's weights
    spectral: bool = False  # spectral normalization of the critic
    noise: float = 0.0  # standard deviation of what is added to all that the critic sees, at the start; falls to 0
    path_length: float = 0.0  # weight of the generator's path length regularization
    kind: str = "Trainer"  # the class that trains it
    images: Mapping[str, Any] = field(default_factory=dict)  # settings that are others for images
    own: Mapping[str, Any] = field(default_factory=dict)  # settings that are others than those of most methods

    @property
    def wasserstein(self) -> bool:
        """Is the negative critic loss, without its penalty, an estimate of the Wasserstein-1 distance?"""
        return self.critic_loss is losses.wasserstein_critic

    def of(self, images: bool) -> Method:
        """The method with its settings for images, if the data are."""
        return replace(self, **self.images) if images else self


def adam(parameters: Any, lr: Any) -> Adam:
    """Adam with the first moment's memory halved, as GANs want it (Radford et al. 2016)."""
    return Adam(parameters, lr, betas=(0.5, 0.999))


def r1(critic: Any, real: Any, fake: Any, rng: Any) -> Any:
    """R1 alone."""
    return losses.r1_penalty(critic, real)


def r1_and_r2(critic: Any, real: Any, fake: Any, rng: Any) -> Any:
    """The sum of R1 and R2, which have one weight (Huang et al. 2024, section 2)."""
    return losses.r1_penalty(critic, real) + losses.r2_penalty(critic, fake)


NONSATURATING: dict[str, Any] = dict(critic_loss=losses.nonsaturating_discriminator,
                                     generator_loss=losses.nonsaturating_generator)
WASSERSTEIN: dict[str, Any] = dict(critic_loss=losses.wasserstein_critic, generator_loss=losses.wasserstein_generator)
HINGE: dict[str, Any] = dict(critic_loss=losses.hinge_discriminator, generator_loss=losses.hinge_generator)
CROSS_ENTROPY = "D: -log D(x) - log(1 - D(G(z)))   G: -log D(G(z))"
METHODS = {
    "gan": Method("non-saturating GAN (Goodfellow et al. 2014)", CROSS_ENTROPY, adam, lr=1e-3, images={"lr": 2e-4},
                  **NONSATURATING),
    "minimax": Method("minimax GAN (Goodfellow et al. 2014)", "D: -log D(x) - log(1 - D(G(z)))   G: log(1 - D(G(z)))", adam,
                      lr=2e-4, critic_loss=losses.minimax_discriminator, generator_loss=losses.minimax_generator),
    "lsgan": Method("least squares GAN (Mao et al. 2017)", "D: ((D(x) - 1)^2 + D(G(z))^2) / 2   G: (D(G(z)) - 1)^2 / 2",
                    adam, lr=1e-3, images={"lr": 2e-4}, critic_loss=losses.least_squares_discriminator,
                    generator_loss=losses.least_squares_generator),
    "hinge": Method("hinge loss (Lim & Ye 2017)", "D: max(0, 1 - D(x)) + max(0, 1 + D(G(z)))   G: -D(G(z))", adam, lr=1e-3,
                    images={"lr": 2e-4}, **HINGE),
    "sngan": Method("spectral normalization (Miyato et al. 2018)", "hinge, D's weights divided by their largest singular "
                    "value", lambda p, lr: Adam(p, lr, betas=(0.0, 0.9)), lr=2e-3, n_critic=5, spectral=True,
                    images={"lr": 2e-4}, **HINGE),
    "noise": Method("instance noise (Sønderby et al. 2017)", CROSS_ENTROPY + ", D sees x + e and G(z) + e, e -> 0", adam,
                    lr=1e-3, noise=0.2, images={"lr": 2e-4}, **NONSATURATING),
    # The paper clips at 0.01 with a learning rate of 5e-5; small networks on sharp data want more of both.
    "wgan": Method("WGAN with weight clipping (Arjovsky et al. 2017)", "D: D(G(z)) - D(x), weights within +-c   G: -D(G(z))",
                   RMSprop, lr=2e-3, n_critic=5, clip=0.3, images={"lr": 2e-4, "clip": 0.01}, **WASSERSTEIN),
    # The paper's weight is 10; its authors' own code for toy data uses 0.1.
    "wgan-gp": Method("WGAN-GP (Gulrajani et al. 2017)", "D: D(G(z)) - D(x) + w (|grad D| - 1)^2 between x and G(z)   "
                      "G: -D(G(z))", lambda p, lr: Adam(p, lr, betas=(0.5, 0.9)), lr=4e-3, n_critic=5, penalty=0.1,
                      images={"lr": 1e-3, "penalty": 10.0}, **WASSERSTEIN),
    "r1": Method("R1 regularization (Mescheder et al. 2018)", CROSS_ENTROPY + "   D: + w |grad D(x)|^2 / 2", adam, lr=2e-3,
                 penalty=0.02, penalize=r1, images={"lr": 2e-4, "penalty": 10.0}, **NONSATURATING),
    "r3gan": Method("R3GAN (Huang et al. 2024)", "D: -log s(D(x) - D(G(z))) + w (|grad D(x)|^2 + |grad D(G(z))|^2) / 2   "
                    "G: -log s(D(G(z)) - D(x))", lambda p, lr: Adam(p, lr, betas=(0.5, 0.99)), lr=2e-3, penalty=0.02,
                    penalize=r1_and_r2, paired=True, images={"lr": 1e-3, "penalty": 1.0},
                    critic_loss=losses.relativistic_discriminator, generator_loss=losses.relativistic_generator),
    # At every step; the paper's code does so at every fourth, with a weight of 2 for its pixels.
    "path-length": Method("path length regularization (Karras et al. 2020)", "R1   G: + w' (|J^T y| - a)^2, J = dG/dz, y "
                          "normal", adam, lr=2e-3, penalty=0.02, penalize=r1, path_length=0.01,
                          images={"lr": 2e-4, "penalty": 10.0}, **NONSATURATING),
    "vae": Method("VAE (Kingma & Welling 2014)", "-log p(x|z) + KL(q(z|x) || N(0, I)), z drawn from q", Adam, lr=3e-3,
                  kind="Autoencoder", images={"lr": 1e-3}, own={"n_critic": None}),
    "vae-gan": Method("VAE-GAN (Larsen et al. 2016)", "E: KL + |f(x) - f(G(z))|^2 / 2   D, G: the GAN's, f: D's features",
                      adam, lr=1e-3, kind="VAEGAN", images={"lr": 2e-4}, own={"n_critic": None}, **NONSATURATING),
    "mixture": Method("mixture of Gaussians by maximum likelihood", "-log sum_k p_k N(x; m_k, s_k^2)", Adam, lr=1e-2,
                      kind="Mixture", own={"n_critic": None, "depth": None, "latent": None, "width": 50, "net": "mlp"}),
}
MOST: dict[str, float] = {"steps": 2**62, "depth": 1000, "seed": math.inf}  # of settings; 2^31 of the others
MOST_NUMBERS = 2**33  # in all the examples of an iteration
WIDTHS = {"mlp": 128, "conv": 64}  # of the networks: units of a layer, channels of the layer next to the image


@dataclass(frozen=True)
class Config:
    """The choices that make a run repeatable. None means the method's own setting for the data; some methods lack some.

    A step's batch is ``accumulate`` times ``batch`` examples, ``batch`` of which are in memory at a time.
    """

    method: str = "wgan-gp"
    net: str = "mlp"
    steps: int = 5000
    batch: int = 64
    accumulate: int = 1
    width: Any = None
    depth: Any = None
    latent: Any = None
    lr: Any = None
    n_critic: Any = None
    penalty: Any = None
    seed: int = 0

    def resolved(self, data: DataSet | None = None) -> Config:
        """The same with every None replaced. Raises ValueError for an unknown name or a value out of range."""
        if self.method not in METHODS:
            raise ValueError(f"unknown method {self.method!r}; choose {', '.join(METHODS)}")
        if self.net not in WIDTHS:
            raise ValueError(f"unknown net {self.net!r}; choose {', '.join(WIDTHS)}")
        image, dim = (False, 2) if data is None else (data.shape is not None, data.dim)
        method = METHODS[self.method].of(image)
        if self.net == "conv" and (self.depth is not None or "net" in method.own):
            raise ValueError("the depth of net conv follows from the size of the images; leave depth out or use mlp"
                             if self.depth is not None else f"method {self.method} has no net conv; leave net out")
        if self.net == "conv" and data is not None and data.shape is None:
            raise ValueError(f"net conv is for images, and {data.name} has none; use net mlp")
        own = {"lr": method.lr, "n_critic": method.n_critic, "penalty": method.penalty, "latent": min(max(2, dim), 100),
               "width": WIDTHS[self.net] * (4 if image and self.net == "mlp" else 1),
               "depth": 3 if self.net == "mlp" else None} | dict(method.own)
        if self.penalty is not None and own["penalty"] is None:
            raise ValueError(f"method {self.method} has no penalty; leave it out")
        full = replace(self, **{name: own[name] for name in own if name != "net"
                                and (getattr(self, name) is None or own[name] is None)})
        for name, least in {"steps": 1, "batch": 1, "accumulate": 1, "width": 1, "depth": 0, "latent": 1, "n_critic": 1,
                            "seed": 0}.items():
            value = getattr(full, name)
            if value is None and own.get(name, 0) is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r:.40}")
            if value > MOST.get(name, 2**31):
                raise ValueError(f"{name} must be a whole number of at most {MOST.get(name, 2**31)}, got {value!r:.40}")
        for name in ("lr", "penalty"):
            value = getattr(full, name)
            if value is not None and not (isinstance(value, (int, float)) and 0 <= value <= np.finfo(float).max):
                raise ValueError(f"{name} must be a number of at least 0, got {value!r:.40}")
        if full.batch * full.accumulate * (full.n_critic or 1) * max(full.width, full.latent or 1) > MOST_NUMBERS:
            raise ValueError(f"batch x accumulate x n_critic x width is more than {MOST_NUMBERS} numbers; make one smaller")
        return full
