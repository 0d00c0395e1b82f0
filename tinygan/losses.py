"""Losses: pure functions of scores. A discriminator's scores are logits, D(x) = sigmoid(score); a critic's are unbounded.

Every loss is a mean over the batch and is *minimized* by its player. Cross-entropies are computed from logits,
-log D = softplus(-score) and -log(1 - D) = softplus(score), so no probability is ever clipped. The likelihoods at the end
are those of a variational autoencoder and of a mixture of Gaussians: nats per example.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any

import numpy as np

from . import backend, ops
from .backprop import grad
from .functional import mean
from .tensor import PLAIN, Tensor, floating, value_of


def _of_scores(loss: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: TypeError for scores that are no Tensor or floating array. (Unsigned integers would wrap around.)"""
    count = sum(p.default is p.empty for p in signature(loss).parameters.values())  # behind them, a smoothing

    @wraps(loss)
    def checked(*scores: Any, **named: Any) -> Any:
        for x in (*scores[:count], *(x for x in named.values() if type(x) not in PLAIN)):
            floating(loss.__name__, x)
        return loss(*scores, **named)
    return checked


@_of_scores
def minimax_discriminator(real_scores: Any, fake_scores: Any, smoothing: float = 0.0) -> Any:
    """-E[(1 - s) log D(x) + s log(1 - D(x))] - E[log(1 - D(G(z)))], s the one-sided label smoothing.

    (Goodfellow et al. 2014, eq. 1; smoothing of the real labels alone: Salimans et al. 2016, section 3.4.)
    """
    real = ops.softplus(-real_scores)
    if smoothing:  # softplus(s) = softplus(-s) + s
        real = real + smoothing * real_scores
    return mean(real) + mean(ops.softplus(fake_scores))


@_of_scores
def minimax_generator(fake_scores: Any) -> Any:
    """E[log(1 - D(G(z)))]: the saturating loss, whose gradient vanishes while D wins (Goodfellow et al. 2014, eq. 1)."""
    return -mean(ops.softplus(fake_scores))


@_of_scores
def nonsaturating_discriminator(real_scores: Any, fake_scores: Any, smoothing: float = 0.0) -> Any:
    """The same as ``minimax_discriminator``: only the generator's half differs."""
    return minimax_discriminator(real_scores, fake_scores, smoothing)


@_of_scores
def nonsaturating_generator(fake_scores: Any) -> Any:
    """-E[log D(G(z))] (Goodfellow et al. 2014, section 3)."""
    return mean(ops.softplus(-fake_scores))


@_of_scores
def wasserstein_critic(real_scores: Any, fake_scores: Any) -> Any:
    """E[D(G(z))] - E[D(x)]: the negative of the critic's estimate of the Wasserstein-1 distance (Arjovsky et al. 2017)."""
    return mean(fake_scores) - mean(real_scores)


@_of_scores
def wasserstein_generator(fake_scores: Any) -> Any:
    """-E[D(G(z))] (Arjovsky et al. 2017, algorithm 1)."""
    return -mean(fake_scores)


@_of_scores
def least_squares_discriminator(real_scores: Any, fake_scores: Any) -> Any:
    """E[(D(x) - 1)^2] / 2 + E[D(G(z))^2] / 2, the scores themselves being the outputs (Mao et al. 2017, eq. 9)."""
    return (_mean_square(real_scores - 1) + _mean_square(fake_scores)) / 2


@_of_scores
def least_squares_generator(fake_scores: Any) -> Any:
    """E[(D(G(z)) - 1)^2] / 2 (Mao et al. 2017, eq. 9)."""
    return _mean_square(fake_scores - 1) / 2


@_of_scores
def hinge_discriminator(real_scores: Any, fake_scores: Any) -> Any:
    """E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))] (Lim & Ye 2017; Miyato et al. 2018, eq. 16, its negative)."""
    return mean(ops.relu(1 - real_scores)) + mean(ops.relu(1 + fake_scores))


@_of_scores
def hinge_generator(fake_scores: Any) -> Any:
    """-E[D(G(z))], the same as ``wasserstein_generator`` (Lim & Ye 2017; Miyato et al. 2018, eq. 17)."""
    return wasserstein_generator(fake_scores)


@_of_scores
def relativistic_discriminator(real_scores: Any, fake_scores: Any) -> Any:
    """E[softplus(-(D(x) - D(G(z))))], x and G(z) paired by their places: is the real one more real than its partner?

    (Jolicoeur-Martineau 2019, RSGAN; Huang et al. 2024, who call it RpGAN.) ValueError if the shapes differ.
    """
    if real_scores.shape != fake_scores.shape:
        raise ValueError(f"relativistic loss: real scores of shape {real_scores.shape}, fake ones of {fake_scores.shape}; "
                         "they are compared in pairs, so use batches of one size")
    return mean(ops.softplus(fake_scores - real_scores))


@_of_scores
def relativistic_generator(fake_scores: Any, real_scores: Any) -> Any:
    """E[softplus(-(D(G(z)) - D(x)))]: the discriminator's loss with the roles exchanged. ValueError if the shapes differ."""
    return relativistic_discriminator(fake_scores, real_scores)


def interpolate(real: Any, fake: Any, *, rng: backend.Rng) -> Any:
    """e x + (1 - e) G(z), one e ~ U[0, 1) per example (Gulrajani et al. 2017, algorithm 1). ValueError if shapes differ."""
    real, fake = floating("interpolate", real), floating("interpolate", fake)
    if real.shape != fake.shape:
        raise ValueError(f"interpolate: real has shape {real.shape}, fake {fake.shape}; they must be equal")
    e = backend.uniform(rng, (len(real),) + (1,) * (real.ndim - 1), real.dtype, like=real)
    return fake + e * (real - fake)


def gradient_norms(critic: Callable[[Any], Any], x: Any, create_graph: bool = False) -> Any:
    """The length of the critic's gradient at each example, over all axes but the first: (n, ...) -> (n,)."""
    x = Tensor(value_of(x))
    (gradient,) = grad(ops.sum(critic(x)), [x], create_graph=create_graph)
    return ops.norm(gradient, axis=tuple(range(1, x.ndim)))


def gradient_penalty(critic: Callable[[Any], Any], real: Any, fake: Any, *, rng: backend.Rng,
                     target: float = 1.0) -> Any:
    """E[(|grad D(x_hat)|_2 - target)^2] at the interpolates x_hat (Gulrajani et al. 2017, eq. 3), without its weight.

    The gradient is recorded, so the penalty can be differentiated with respect to the critic's parameters: double
    backpropagation. Finite, at every order, where the gradient is zero.

    Raises ValueError for a critic whose layers couple the examples of a batch.
    """
    _refuse_coupling("gradient_penalty", critic)
    slack = gradient_norms(critic, interpolate(real, fake, rng=rng), create_graph=True) - target
    return mean(slack * slack)


def r1_penalty(critic: Callable[[Any], Any], real: Any) -> Any:
    """E[|grad D(x)|^2] / 2 at real examples, without its weight gamma (Mescheder et al. 2018, eq. 9).

    Double backpropagation, as in ``gradient_penalty``. Raises ValueError for a critic whose layers couple the examples.
    """
    return _mean_squared_slope("r1_penalty", critic, real)


def r2_penalty(critic: Callable[[Any], Any], fake: Any) -> Any:
    """E[|grad D(G(z))|^2] / 2, as ``r1_penalty`` at generated examples (Mescheder et al. 2018, eq. 10)."""
    return _mean_squared_slope("r2_penalty", critic, fake)


def path_length_penalty(generator: Callable[[Any], Any], z: Any, target: Any, *, rng: backend.Rng) -> tuple[Any, Any]:
    """(E[(|J^T y|_2 - a)^2], E[|J^T y|_2]), J = dG/dz, y ~ N(0, I), a = ``target`` (Karras et al. 2020, eq. 4), unweighted.

    J^T y is the gradient of <G(z), y> at z; its length is taken over all axes of z but the first. For images (n, c, h, w)
    y is divided by (h w)^(1/2), as the authors' code does; for points (n, d) it is not. (Images in rows are points: the
    lengths and a are larger by that factor, the penalty by its square.) The second value, the mean length, is a constant:
    the caller keeps its running average and passes it as ``target``.

    The penalty is to be differentiated with respect to the generator's parameters: double backpropagation. Raises
    ValueError for a generator whose layers couple the examples of a batch.
    """
    _refuse_coupling("path_length_penalty", generator)
    z = Tensor(value_of(z))
    x = generator(z)
    y = backend.normal(rng, x.shape, x.dtype, like=x.data) * math.prod(x.shape[2:]) ** -0.5
    (gradient,) = grad(x, [z], create_graph=True, cotangent=y)
    lengths = ops.norm(gradient, axis=tuple(range(1, z.ndim)))
    _broadcasts("path_length_penalty", lengths, target)
    return _mean_square(lengths - target), value_of(mean(lengths))


def gaussian_kl(mean: Any, log_var: Any) -> Any:
    """KL(N(mean, diag e^log_var) || N(0, I)) = sum (mean^2 + e^log_var - 1 - log_var) / 2, a mean over the batch: (n, ...).

    (Kingma & Welling 2014, appendix B.) The negative ELBO (eqs. 3 and 10) is this plus ``gaussian_nll`` or
    ``bernoulli_nll`` of the decoded ``reparameterize``.
    """
    _broadcasts("gaussian_kl", mean, log_var)
    return _sum_per_example(mean * mean + ops.exp(log_var) - 1 - log_var) / 2


def reparameterize(mean: Any, log_var: Any, *, rng: backend.Rng) -> Any:
    """mean + e^(log_var / 2) eps, eps ~ N(0, I): draws from N(mean, diag e^log_var) (Kingma & Welling 2014, section 2.4)."""
    value = floating("reparameterize", mean)
    _broadcasts("reparameterize", mean, log_var)
    return mean + ops.exp(log_var / 2) * backend.normal(rng, value.shape, value.dtype, like=value)


def gaussian_nll(x: Any, reconstruction: Any, log_sigma: Any) -> Any:
    """-log N(x; reconstruction, diag e^(2 log_sigma)), a mean over the batch: (n, ...). ``log_sigma`` broadcasts to x.

    = sum ((x - reconstruction)^2 e^(-2 log_sigma) / 2 + log_sigma + log(2 pi) / 2) (Kingma & Welling 2014, appendix C.2).
    """
    _broadcasts("gaussian_nll", x, reconstruction, log_sigma)
    if isinstance(log_sigma, (int, float)):
        log_sigma = backend.scalars([log_sigma], like=value_of(x))
    return _sum_per_example(_gaussian_nlls(x, reconstruction, log_sigma))


def bernoulli_nll(x: Any, logits: Any) -> Any:
    """-sum (x log p + (1 - x) log(1 - p)), p = sigmoid(logits), for x in [0, 1], a mean over the batch: (n, ...).

    (Kingma & Welling 2014, appendix C.1.) A likelihood for x of 0 and 1; between them a cross-entropy that is smallest at
    p = x, but not 0 there.
    """
    _broadcasts("bernoulli_nll", x, logits)
    return _sum_per_example(ops.softplus(logits) - x * logits)


def gaussian_mixture_nll(x: Any, logits: Any, means: Any, log_sigmas: Any) -> Any:
    """-E[log sum_k pi_k N(x; mu_k, diag sigma_k^2)], pi = softmax(logits); stable far from every component.

    Shapes: x (n, d), logits (k,), means (k, d), log_sigmas (k, d), or (k, 1) for isotropic components; memory n k d.
    Minimizing it is maximum likelihood. It has no minimum where a component may shrink onto one example, sigma -> 0 (Bishop
    2006, section 9.2.1). Raises ValueError for other shapes.
    """
    shapes = [np.shape(value_of(a)) for a in (x, logits, means, log_sigmas)]
    (n, d), k = (*shapes[0], 0, 0)[:2], (*shapes[1], 0)[0]
    if shapes not in [[(n, d), (k,), (k, d), (k, e)] for e in (1, d)]:
        raise ValueError("gaussian_mixture_nll: expected x, logits, means, log_sigmas of shapes (n, d), (k,), (k, d) and "
                         f"(k, d) or (k, 1), got {', '.join(map(str, shapes))}")
    nlls = ops.sum(_gaussian_nlls(ops.reshape(x, (n, 1, d)), means, log_sigmas), axis=2)
    return ops.logsumexp(logits) - mean(ops.logsumexp(logits - nlls, axis=1))


# ---------------------------------------------------------------------------------------------- shared parts


def _broadcasts(name: str, x: Any, *others: Any) -> None:
    """ValueError unless x is a batch and the others broadcast to its shape: (n,) beside (n, 1) would give (n, n)."""
    shapes = [np.shape(value_of(a)) for a in (x, *others)]
    if odd := [a.dtype for a in (x, *others) if hasattr(a, "dtype") and a.dtype.kind not in "biuf"]:
        raise TypeError(f"{name}: expected real numbers, got dtype {odd[0]}")
    if not shapes[0][:1] > (0,) or any(len(shape) > len(shapes[0]) or any(
            n not in (1, m) for n, m in zip(shape[::-1], shapes[0][::-1])) for shape in shapes):
        raise ValueError(f"{name}: expected shapes that broadcast to that of the first, got {', '.join(map(str, shapes))}")


def _mean_square(x: Any) -> Any:
    return mean(x * x)


def _sum_per_example(x: Any) -> Any:
    """The sum over all axes but the first, and the mean over that."""
    return ops.sum(x) / len(x)


def _mean_squared_slope(name: str, critic: Callable[[Any], Any], x: Any) -> Any:
    _refuse_coupling(name, critic)
    x = Tensor(value_of(x))
    (gradient,) = grad(ops.sum(critic(x)), [x], create_graph=True)
    return _sum_per_example(gradient * gradient) / 2


def _gaussian_nlls(x: Any, mean: Any, log_sigma: Any) -> Any:
    """-log N(x; mean, sigma^2), elementwise."""
    z = (x - mean) * ops.exp(-log_sigma)
    return z * z / 2 + (log_sigma + math.log(2 * math.pi) / 2)


def _refuse_coupling(name: str, network: Callable[[Any], Any]) -> None:
    if getattr(network, "couples_examples", False):
        raise ValueError(f"{name}: the network has a layer that couples the examples of a batch (batch norm in training "
                         "mode). The penalty constrains the derivative of each output with respect to its own example, "
                         "which such a layer mixes with the others'. Use LayerNorm or no norm, or put it in eval mode")
