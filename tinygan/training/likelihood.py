"""Training by likelihood instead of, or beside, a game: the VAE, the VAE-GAN and the mixture of Gaussians."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import backend, functional, losses, ops
from . import networks
from ..data import DataError, DataSet
from ..layers import Module, Sequential
from .methods import METHODS, Config
from ..tensor import Tensor, grad
from .game import Trainer


def trainer(config: Config, data: DataSet, device: str = "cpu", eager: bool = False) -> Trainer:
    """The trainer of a method."""
    kinds = {kind.__name__: kind for kind in (Trainer, Autoencoder, VAEGAN, Mixture)}
    return kinds[METHODS[config.resolved(data).method].kind](config, data, device, eager)


class Decoder(Module):
    """A network from latents to the mean of N(mean, sigma^2 I), and ``log_sigma``, one number that is learned with it.

    It starts at -2: from a sigma as large as the data the encoder's code is given up before it is of use.
    """

    def __init__(self, network: Module, device: str) -> None:
        self.network, self.log_sigma = network, Tensor(backend.zeros((1,), device=device) - 2)

    def forward(self, z: Any) -> Any:
        return self.network(z)


class Together(Trainer):
    """All networks move together, by ``all_gradients``, every one of which is taken before any of them moves."""

    gradients = ("all_gradients",)

    def examples(self) -> tuple[backend.Array, ...]:
        """The arguments of ``all_gradients`` in a step."""
        return (self.real(),)

    def all_gradients(self, x: backend.Array, *more: backend.Array) -> tuple[list[backend.Array], dict[str, Any]]:
        """(the gradients of the ``players``, in that order, their columns of the log)."""
        raise NotImplementedError

    def iteration(self) -> dict[str, Any]:
        """One step of every network."""
        gradients, columns = self.averaged(self.all_gradients, *self.examples())
        for name in self.players:
            count = len(getattr(self, name).parameters())
            getattr(self, f"{name}_optimizer").step(gradients[:count])
            gradients = gradients[count:]
        self.average.update()
        return columns


class Autoencoder(Together):
    """The variational autoencoder: q(z|x) = N(m(x), diag e^v(x)) of an encoder, p(x|z) = N(G(z), s^2 I), p(z) = N(0, I).

    Minimized is the negative ELBO, -E_q[log p(x|z)] + KL(q || p) (Kingma & Welling 2014, eq. 10), in nats an example and in
    the networks' units; s is learned (their appendix C.2 has one for each element). The log's penalty is the KL. Samples
    are the means G(z), without the noise of p(x|z). The encoder is built as a critic is.
    """

    players: tuple[str, ...] = ("generator", "encoder")

    def build(self, rng: backend.Rng) -> None:
        decoder = networks.generator(self.config, self.data, True, rng)
        self.generator = Decoder(decoder, self.device)
        self.encoder = networks.critic(self.config, self.data, True, rng, outputs=2 * self.latents)

    def encode(self, x: backend.Array) -> tuple[Any, Any]:
        """(z drawn from q(z|x), KL(q || p), a mean over the batch)."""
        code = self.encoder(x)
        mean, log_var = code[:, :self.latents], code[:, self.latents:]
        return losses.reparameterize(mean, log_var, rng=self.rng), losses.gaussian_kl(mean, log_var)

    def all_gradients(self, x: backend.Array, *more: backend.Array) -> tuple[list[backend.Array], dict[str, Any]]:
        """(the gradients of the negative ELBO, decoder's first, its columns of the log)."""
        z, kl = self.encode(x)
        loss = losses.gaussian_nll(x, self.generator(z), self.generator.log_sigma) + kl
        return (grad(loss, self.generator.parameters() + self.encoder.parameters()),
                {"generator_loss": loss.data, "penalty": kl.data})


class VAEGAN(Autoencoder):
    """An autoencoder whose decoder is a generator, and whose error is measured by what a discriminator sees.

    The error is -log N(f(x); f(G(z)), I), f the discriminator's features before its last layer. E minimizes it plus KL(q
    || p); G minimizes ``gamma`` of it plus the non-saturating loss of G(z), z ~ q, and of G(p), p ~ N(0, I); D tells x
    from both (Larsen et al. 2016, algorithm 1, which has the minimax loss for G). The log's penalty is the KL.
    """

    players = ("generator", "encoder", "critic")
    gamma = 0.1

    def build(self, rng: backend.Rng) -> None:
        Trainer.build(self, rng)
        self.encoder = networks.critic(self.config, self.data, True, rng, outputs=2 * self.latents)

    def examples(self) -> tuple[backend.Array, ...]:
        return self.real(), self.latent()

    def all_gradients(self, x: backend.Array, *more: backend.Array) -> tuple[list[backend.Array], dict[str, Any]]:
        """(the gradients of the generator, the encoder and the critic, their columns of the log)."""
        (p,) = more
        *body, last = self.critic.layers
        features, n = Sequential(*body), len(x)
        z, kl = self.encode(x)
        made = self.generator(ops.concatenate([z, p]))
        seen, seen_made = features(x), features(made)
        error = losses.gaussian_nll(seen, seen_made[:n], 0.0)
        fake = last(seen_made)
        critic_loss = losses.nonsaturating_discriminator(last(seen), fake)
        generator_loss = losses.nonsaturating_generator(fake) + self.gamma * error
        found = [grad(loss, network.parameters()) for loss, network in (
            (generator_loss, self.generator), (error + kl, self.encoder), (critic_loss, self.critic))]
        return sum(found, []), {"critic_loss": critic_loss.data, "generator_loss": generator_loss.data, "penalty": kl.data}


class GaussianMixture(Module):
    """k Gaussians N(m_k, diag s_k^2) with shares softmax(logits), as a map from d + 2 normal latents to points.

    The angle of the first two latents is uniform and chooses a component; the others are its noise. ``floor`` is the
    smallest s_k: without it the likelihood is infinite where a component shrinks onto one training point.
    """

    floor = 1e-3

    def __init__(self, means: backend.Array, spread: float) -> None:
        self.logits = Tensor(means[:, 0] * 0)
        self.means = Tensor(means)
        self.log_sigmas = Tensor(means * 0 + math.log(spread))

    def nll(self, x: Any) -> Any:
        """The mean negative log likelihood of x (n, d), in nats."""
        return losses.gaussian_mixture_nll(x, self.logits, self.means, ops.maximum(self.log_sigmas, math.log(self.floor)))

    def forward(self, z: Any) -> Any:
        angle = np.arctan2(z[:, 1], z[:, 0]) / (2 * np.pi) + 0.5
        ends = functional.softmax(self.logits.data).cumsum()
        k = np.minimum((angle[:, None] > ends).sum(axis=1), len(ends) - 1)
        sigmas = np.maximum(np.exp(self.log_sigmas.data), self.floor)
        return Tensor(self.means.data[k] + sigmas[k] * z[:, 2:])


class Mixture(Together):
    """A mixture of ``width`` Gaussians fitted by maximum likelihood, by gradients and not by EM: the contrast to a GAN.

    No game, no critic: one loss that falls. It starts at training points, with the standard deviation of the data over
    width^(1 / d). (Bishop 2006, section 9.2.1, for the likelihood and its singularities.)
    """

    players = ("generator",)

    def build(self, rng: backend.Rng) -> None:
        try:
            x = self.data.draw(backend.host_rng(rng), max(self.config.width, 1000))
        except DataError:  # loaded without its data, and so with the parameters that it had
            x = np.zeros((self.config.width, self.data.dim), np.float32)
        self.latents = self.data.dim + 2
        means = backend.to_device(x[:self.config.width], self.device)
        spread = float(x.std()) or 1.0
        self.generator = GaussianMixture(means, spread / self.config.width ** (1 / self.data.dim))

    def all_gradients(self, x: backend.Array, *more: backend.Array) -> tuple[list[backend.Array], dict[str, Any]]:
        """(the gradients of the negative log likelihood, its column of the log)."""
        loss = self.generator.nll(x)
        return grad(loss, self.generator.parameters()), {"generator_loss": loss.data}
