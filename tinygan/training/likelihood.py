"""What maximizes a likelihood instead of, or beside, playing a game: VAE, VAE-GAN, mixture."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import backend, functional, losses, ops
from ..backend import Array
from ..backprop import grad
from ..data import DataError
from ..layers import Module, Sequential
from ..tensor import Tensor
from . import networks
from .game import Columns, Game, Gradients


class JointGame(Game):
    """All networks move together: every gradient is taken before any of them moves."""

    def examples(self) -> tuple[Array, ...]:
        """The arguments of ``joint_gradients`` in a step."""
        labels = self.labels()
        return (self.real(*labels), *labels)

    def joint_gradients(self, x: Array, *more: Array) -> Gradients:
        """Of the losses, for the parameters of the ``networks`` in their order."""
        raise NotImplementedError

    def gradient_functions(self) -> dict[str, Callable[..., Gradients]]:
        return {"joint": self.joint_gradients}

    def iteration(self) -> Columns:
        """One step of every network."""
        gradients, columns = self.accumulated("joint", *self.examples())
        for name, network in self.networks.items():
            count = len(network.parameters())
            self.optimizers[name].step(gradients[:count])
            gradients = gradients[count:]
        self.average.update()
        return columns


class Decoder(Module):
    """A network from latents to the mean of N(mean, sigma^2 I), with a learned ``log_sigma``.

    It starts at -2: with a sigma as large as the data, the code would be given up before it is of
    use.
    """

    def __init__(self, network: Module, device: str) -> None:
        self.network, self.log_sigma = network, Tensor(backend.zeros((1,), device=device) - 2)

    def forward(self, z: Any, *labels: Any) -> Any:
        return self.network(z, *labels)


class Autoencoder(JointGame):
    """The variational autoencoder: q(z|x) = N(m(x), diag e^v(x)), p(x|z) = N(G(z), s^2 I).

    It minimizes the negative ELBO, -E_q[log p(x|z)] + KL(q(z|x) || N(0, I)) (Kingma & Welling 2014,
    eq. 10), in nats per example and in the networks' units; s is one learned number (their appendix
    C.2 has one for each element). In the log the KL is the penalty. Samples are the means G(z),
    without the noise of p(x|z). The encoder is built like a critic. Conditional on labels, G takes
    them too and p(x|z, y) is maximized (Kingma et al. 2014); q(z|x) does not, and the ELBO is a
    bound for any q.
    """

    def build(self, rng: backend.Rng) -> dict[str, Any]:
        decoder = networks.generator(self.config, self.data, True, rng)
        return {"generator": Decoder(decoder, self.device), "encoder": self.build_encoder(rng)}

    def build_encoder(self, rng: backend.Rng) -> Module:
        """A network from x to m(x) and v(x)."""
        return networks.encoder(self.config, self.data, True, rng, 2 * self.latent_dim)

    def encode(self, x: Array) -> tuple[Any, Any]:
        """(z drawn from q(z|x), KL(q(z|x) || N(0, I)) as a mean over the batch)."""
        code = self.networks["encoder"](x)
        mean, log_var = code[:, :self.latent_dim], code[:, self.latent_dim:]
        z = losses.reparameterize(mean, log_var, rng=self.rng)
        return z, losses.gaussian_kl(mean, log_var)

    def joint_gradients(self, x: Array, *labels: Array) -> Gradients:
        """Of the negative ELBO."""
        z, kl = self.encode(x)
        made = self.generator(z, *labels)
        loss = losses.gaussian_nll(x, made, self.generator.log_sigma) + kl
        parameters = self.generator.parameters() + self.networks["encoder"].parameters()
        return grad(loss, parameters), {"generator_loss": loss.data, "penalty": kl.data}


class VAEGAN(Autoencoder):
    """An autoencoder that measures its error by a discriminator's features and plays against it.

    The error is -log N(f(x); f(G(z)), I), f the discriminator's features before its last layer. E
    minimizes the error plus KL(q || p); G minimizes ``gamma`` times the error plus the
    non-saturating loss of G(z), z ~ q, and of G(p), p ~ N(0, I); D tells x from both (Larsen et al.
    2016, algorithm 1, where G's loss is the minimax one). In the log the KL is the penalty.
    """

    gamma = 0.1

    def build(self, rng: backend.Rng) -> dict[str, Any]:
        players = Game.build(self, rng)
        return {"generator": players["generator"], "encoder": self.build_encoder(rng),
                "critic": players["critic"]}

    def examples(self) -> tuple[Array, ...]:
        labels = self.labels()
        return (self.real(*labels), self.latents(), *labels)

    def joint_gradients(self, x: Array, *more: Array) -> Gradients:
        """Of the generator's, the encoder's and the critic's loss."""
        p, *labels = more
        twice = [ops.concatenate([y, y]) for y in labels]
        features = Sequential(*self.critic.layers[:-1])
        z, kl = self.encode(x)
        real, fake = features(x), features(self.generator(ops.concatenate([z, p]), *twice))
        error = losses.gaussian_nll(real, fake[:len(x)], 0.0)
        last: Any = self.critic.scores if labels else self.critic.layers[-1]
        real_scores, fake_scores = last(real, *labels), last(fake, *twice)
        critic_loss: Any = losses.nonsaturating_discriminator(real_scores, fake_scores)
        generator_loss: Any = losses.nonsaturating_generator(fake_scores) + self.gamma * error
        gradients = (grad(generator_loss, self.generator.parameters())
                     + grad(error + kl, self.networks["encoder"].parameters())
                     + grad(critic_loss, self.critic.parameters()))
        return gradients, {"critic_loss": critic_loss.data, "generator_loss": generator_loss.data,
                           "penalty": kl.data}


class GaussianMixture(Module):
    """k Gaussians N(m_k, diag s_k^2) weighted softmax(logits), as a map from normal latents to
    points.

    Of d + 2 latents the first two choose the component, by their angle, which is uniform; the
    others are its noise. ``floor`` bounds s_k from below: the likelihood is infinite where a
    component shrinks onto one training point.
    """

    floor = 1e-3

    def __init__(self, means: Array, spread: float) -> None:
        self.logits = Tensor(means[:, 0] * 0)
        self.means = Tensor(means)
        self.log_sigmas = Tensor(means * 0 + math.log(spread))

    def nll(self, x: Any) -> Any:
        """The mean negative log likelihood of x (n, d), in nats."""
        log_sigmas = ops.maximum(self.log_sigmas, math.log(self.floor))
        return losses.gaussian_mixture_nll(x, self.logits, self.means, log_sigmas)

    def forward(self, z: Any) -> Any:
        angle = np.arctan2(z[:, 1], z[:, 0]) / (2 * np.pi) + 0.5
        ends = functional.softmax(self.logits.data).cumsum()
        k = np.minimum((angle[:, None] > ends).sum(axis=1), len(ends) - 1)
        sigmas = np.maximum(np.exp(self.log_sigmas.data), self.floor)
        return Tensor(self.means.data[k] + sigmas[k] * z[:, 2:])


class Mixture(JointGame):
    """``width`` Gaussians fitted by maximum likelihood, by gradients and not by EM: no game at all.

    One loss that falls, as a contrast to a GAN. The Gaussians start at training points, with the
    standard deviation of the data divided by width^(1 / d). (Bishop 2006, section 9.2.1, on the
    likelihood and its singularities.)
    """

    def build(self, rng: backend.Rng) -> dict[str, Any]:
        width, dim = self.config.width, self.data.dim
        self.latent_dim = dim + 2
        try:
            x = self.data.draw(backend.host_rng(rng), max(width, 1000))
        except DataError:  # loaded without its data; its parameters are loaded next
            x = np.zeros((width, dim), np.float32)
        means = backend.to_device(x[:width], self.device)
        return {"generator": GaussianMixture(means, (float(x.std()) or 1.0) / width ** (1 / dim))}

    def joint_gradients(self, x: Array, *more: Array) -> Gradients:
        """Of the negative log likelihood."""
        loss = self.generator.nll(x)
        return grad(loss, self.generator.parameters()), {"generator_loss": loss.data}
