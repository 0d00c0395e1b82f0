"""Losses: pure functions of scores, penalties on gradients, and likelihoods.

A discriminator's scores are logits, D(x) = sigmoid(score); a critic's are unbounded. Every loss is
a mean over the batch, and its player *minimizes* it. Cross-entropies are computed from logits, -log
D = softplus(-score) and -log(1 - D) = softplus(score), so no probability is ever clipped. The
likelihoods at the end, in nats per example, are those of a variational autoencoder and of a mixture
of Gaussians.

The losses of scores raise TypeError for anything but Tensors and floating arrays: unsigned integers
would wrap around.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from . import backend, ops
from .backend import named
from .backprop import grad
from .functional import mean
from .tensor import Operand, Tensor, floating, number, unreal, value_of

Network = Callable[[Operand], Operand]


# ------------------------------------------------------------------------------- losses of scores


def minimax_discriminator(real_scores: Operand, fake_scores: Operand,
                          smoothing: float = 0.0) -> Operand:
    """-E[(1 - s) log D(x) + s log(1 - D(x))] - E[log(1 - D(G(z)))], s the label smoothing.

    (Goodfellow et al. 2014, eq. 1; one-sided smoothing, of the real labels alone: Salimans et al.
    2016, section 3.4.) ValueError for a smoothing outside [0, 1].
    """
    _check_scores("minimax_discriminator", real_scores, fake_scores)
    number("minimax_discriminator", "smoothing", smoothing, 0, 1)
    real = ops.softplus(-real_scores)
    if smoothing:  # softplus(score) = softplus(-score) + score
        real = real + smoothing * real_scores
    return mean(real) + mean(ops.softplus(fake_scores))


def minimax_generator(fake_scores: Operand) -> Operand:
    """E[log(1 - D(G(z)))] (Goodfellow et al. 2014, eq. 1).

    It saturates: its gradient vanishes while the discriminator wins.
    """
    _check_scores("minimax_generator", fake_scores)
    return -mean(ops.softplus(fake_scores))


@named
def nonsaturating_discriminator(real_scores: Operand, fake_scores: Operand,
                                smoothing: float = 0.0) -> Operand:
    """The same as ``minimax_discriminator``: only the generator's loss differs."""
    return minimax_discriminator(real_scores, fake_scores, smoothing)


def nonsaturating_generator(fake_scores: Operand) -> Operand:
    """-E[log D(G(z))] (Goodfellow et al. 2014, section 3)."""
    _check_scores("nonsaturating_generator", fake_scores)
    return mean(ops.softplus(-fake_scores))


def wasserstein_critic(real_scores: Operand, fake_scores: Operand) -> Operand:
    """E[D(G(z))] - E[D(x)] (Arjovsky et al. 2017, eq. 2).

    It is the negative of the critic's estimate of the Wasserstein-1 distance.
    """
    _check_scores("wasserstein_critic", real_scores, fake_scores)
    return mean(fake_scores) - mean(real_scores)


def wasserstein_generator(fake_scores: Operand) -> Operand:
    """-E[D(G(z))] (Arjovsky et al. 2017, algorithm 1)."""
    _check_scores("wasserstein_generator", fake_scores)
    return -mean(fake_scores)


def least_squares_discriminator(real_scores: Operand, fake_scores: Operand) -> Operand:
    """E[(D(x) - 1)^2] / 2 + E[D(G(z))^2] / 2, D(x) the score itself (Mao et al. 2017, eq. 9)."""
    _check_scores("least_squares_discriminator", real_scores, fake_scores)
    return (_mean_square(real_scores - 1) + _mean_square(fake_scores)) / 2


def least_squares_generator(fake_scores: Operand) -> Operand:
    """E[(D(G(z)) - 1)^2] / 2 (Mao et al. 2017, eq. 9)."""
    _check_scores("least_squares_generator", fake_scores)
    return _mean_square(fake_scores - 1) / 2


def hinge_discriminator(real_scores: Operand, fake_scores: Operand) -> Operand:
    """E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))].

    (Lim & Ye 2017; Miyato et al. 2018, eq. 16, the negative of this.)
    """
    _check_scores("hinge_discriminator", real_scores, fake_scores)
    return mean(ops.relu(1 - real_scores)) + mean(ops.relu(1 + fake_scores))


@named
def hinge_generator(fake_scores: Operand) -> Operand:
    """-E[D(G(z))], as ``wasserstein_generator`` (Lim & Ye 2017; Miyato et al. 2018, eq. 17)."""
    return wasserstein_generator(fake_scores)


def relativistic_discriminator(real_scores: Operand, fake_scores: Operand) -> Operand:
    """E[softplus(-(D(x) - D(G(z))))]: is the real example more real than its generated partner?

    x and G(z) are paired by their places in the batch (Jolicoeur-Martineau 2019, RSGAN; Huang et
    al. 2024, who call it RpGAN). ValueError for scores of different shapes.
    """
    _check_scores("relativistic_discriminator", real_scores, fake_scores)
    if real_scores.shape != fake_scores.shape:
        raise ValueError("relativistic_discriminator: real scores of shape "
                         f"{real_scores.shape}, fake ones of {fake_scores.shape}; they are "
                         "compared in pairs, so use batches of one size")
    return mean(ops.softplus(fake_scores - real_scores))


@named
def relativistic_generator(fake_scores: Operand, real_scores: Operand) -> Operand:
    """E[softplus(-(D(G(z)) - D(x)))]: ``relativistic_discriminator`` with the roles exchanged."""
    return relativistic_discriminator(fake_scores, real_scores)


def _check_scores(loss: str, *scores: Operand) -> None:
    """An error unless all are Tensors or floating arrays, and not empty."""
    for x in scores:
        if floating(loss, x).size == 0:
            raise ValueError(f"{loss}: expected at least one score, got shape {x.shape}")


def _mean_square(x: Operand) -> Operand:
    return mean(x * x)


# --------------------------------------------------------------------------- penalties on gradients


@named
def interpolate(real: Operand, fake: Operand, *, rng: backend.Rng) -> Operand:
    """The array e x + (1 - e) G(z), one e ~ U[0, 1) per example (Gulrajani et al. 2017, alg. 1).

    ValueError unless both are batches of one shape, TypeError for anything but Tensors and
    floating arrays.
    """
    real, fake = floating("interpolate", real), floating("interpolate", fake)
    if real.shape != fake.shape or real.ndim == 0:
        raise ValueError(f"interpolate: real has shape {real.shape}, fake {fake.shape}; "
                         "expected batches of one shape")
    e = backend.uniform(rng, (len(real),) + (1,) * (real.ndim - 1), real.dtype, like=real)
    return fake + e * (real - fake)


@named
def gradient_norms(critic: Network, x: Operand, create_graph: bool = False) -> Operand:
    """|grad D(x)|_2 for each example x, over all its axes: (n, ...) -> (n,)."""
    x = Tensor(value_of(x))
    (gradient,) = grad(ops.sum(critic(x)), [x], create_graph=create_graph)
    return ops.norm(gradient, axis=tuple(range(1, x.ndim)))


@named
def gradient_penalty(critic: Network, real: Operand, fake: Operand, *, rng: backend.Rng,
                     target: float = 1.0) -> Operand:
    """E[(|grad D(x_hat)|_2 - target)^2] at the interpolates x_hat, without its weight.

    (Gulrajani et al. 2017, eq. 3.) The gradient is recorded, so the penalty can be differentiated
    with respect to the critic's parameters: double backpropagation. Finite, at every order, where
    the gradient is zero.

    ValueError for a critic whose layers couple the examples of a batch.
    """
    _refuse_coupling("gradient_penalty", critic)
    number("gradient_penalty", "target", target, 0)
    points = interpolate(real, fake, rng=rng)
    return _mean_square(gradient_norms(critic, points, create_graph=True) - target)


@named
def r1_penalty(critic: Network, real: Operand) -> Operand:
    """E[|grad D(x)|^2] / 2 at real examples, without its weight (Mescheder et al. 2018, eq. 9).

    Double backpropagation, as in ``gradient_penalty``. ValueError for a critic whose layers couple
    the examples of a batch.
    """
    return _mean_squared_slope("r1_penalty", critic, real)


@named
def r2_penalty(critic: Network, fake: Operand) -> Operand:
    """E[|grad D(G(z))|^2] / 2: ``r1_penalty`` at generated examples (the same, eq. 10)."""
    return _mean_squared_slope("r2_penalty", critic, fake)


@named
def path_length_penalty(generator: Network, z: Operand, target: Operand, *,
                        rng: backend.Rng) -> tuple[Operand, Operand]:
    """(E[(|J^T y|_2 - a)^2], E[|J^T y|_2]), J = dG/dz, y ~ N(0, I), a = ``target``; unweighted.

    (Karras et al. 2020, eq. 4.) J^T y is the gradient of <G(z), y> at z; its length is taken over
    all axes of z but the first. For images (n, c, h, w) y is divided by (h w)^(1/2), as in the
    authors' code; for points (n, d) it is not. (Images given as rows count as points: lengths and a
    are larger by that factor, the penalty by its square.) The second value, the mean length, is a
    constant: the caller keeps its running average and passes that as ``target``.

    To be differentiated with respect to the generator's parameters: double backpropagation.
    ValueError for a generator whose layers couple the examples of a batch.
    """
    _refuse_coupling("path_length_penalty", generator)
    z = Tensor(value_of(z))
    x = generator(z)
    value = floating("path_length_penalty", x)
    y = backend.normal(rng, x.shape, x.dtype, like=value) * math.prod(x.shape[2:]) ** -0.5
    (gradient,) = grad(x, [z], create_graph=True, cotangent=y)
    lengths = ops.norm(gradient, axis=tuple(range(1, z.ndim)))
    _check_broadcast("path_length_penalty", lengths, target)
    return _mean_square(lengths - target), value_of(mean(lengths))


def _mean_squared_slope(name: str, critic: Network, x: Operand) -> Operand:
    _refuse_coupling(name, critic)
    x = Tensor(value_of(x))
    (gradient,) = grad(ops.sum(critic(x)), [x], create_graph=True)
    return _mean_of_sums(gradient * gradient) / 2


def _refuse_coupling(name: str, network: Network) -> None:
    if getattr(network, "couples_examples", False):
        raise ValueError(f"{name}: the network has a layer that couples the examples of a batch "
                         "(batch norm in training mode). The penalty constrains the derivative of "
                         "each output with respect to its own example, which such a layer mixes "
                         "with the others'. Use LayerNorm or no norm, or put it in eval mode")


# ----------------------------------------------------------------------------------- likelihoods


def gaussian_kl(mean: Operand, log_var: Operand) -> Operand:
    """KL(N(mean, diag e^log_var) || N(0, I)), a mean over the batch: (n, ...) -> ().

    = sum (mean^2 + e^log_var - 1 - log_var) / 2 (Kingma & Welling 2014, appendix B). The negative
    ELBO (eqs. 3 and 10) is this plus ``gaussian_nll`` or ``bernoulli_nll`` of the decoded
    ``reparameterize``.
    """
    _check_broadcast("gaussian_kl", mean, log_var)
    return _mean_of_sums(mean * mean + ops.exp(log_var) - 1 - log_var) / 2


@named
def reparameterize(mean: Operand, log_var: Operand, *, rng: backend.Rng) -> Operand:
    """mean + e^(log_var / 2) eps, eps ~ N(0, I): draws from N(mean, diag e^log_var).

    (Kingma & Welling 2014, section 2.4.)
    """
    value = floating("reparameterize", mean)
    _check_broadcast("reparameterize", mean, log_var)
    eps = backend.normal(rng, value.shape, value.dtype, like=value)
    return mean + ops.exp(log_var / 2) * eps


def gaussian_nll(x: Operand, reconstruction: Operand, log_sigma: Operand) -> Operand:
    """-log N(x; reconstruction, diag e^(2 log_sigma)), a mean over the batch: (n, ...) -> ().

    = sum ((x - reconstruction)^2 e^(-2 log_sigma) / 2 + log_sigma + log(2 pi) / 2) (Kingma &
    Welling 2014, appendix C.2). ``log_sigma`` broadcasts to x.
    """
    _check_broadcast("gaussian_nll", x, reconstruction, log_sigma)
    if isinstance(log_sigma, (int, float)):
        log_sigma = backend.scalars([log_sigma], like=value_of(x))
    return _mean_of_sums(_gaussian_nlls(x, reconstruction, log_sigma))


def bernoulli_nll(x: Operand, logits: Operand) -> Operand:
    """-sum (x log p + (1 - x) log(1 - p)), p = sigmoid(logits), a mean over the batch: (n, ...) ->
    ().

    (Kingma & Welling 2014, appendix C.1.) A likelihood for x of 0 and 1; for x in between a
    cross-entropy, smallest at p = x but not 0 there.
    """
    _check_broadcast("bernoulli_nll", x, logits)
    return _mean_of_sums(ops.softplus(logits) - x * logits)


def gaussian_mixture_nll(x: Operand, logits: Operand, means: Operand,
                         log_sigmas: Operand) -> Operand:
    """-E[log sum_k pi_k N(x; mu_k, diag sigma_k^2)], pi = softmax(logits).

    Shapes: x (n, d), logits (k,), means (k, d), log_sigmas (k, d), or (k, 1) for isotropic
    components; it takes memory for n k d numbers, and is stable far from every component.
    Minimizing it is maximum likelihood, which has no minimum where a component may shrink onto one
    example, sigma -> 0 (Bishop 2006, section 9.2.1). ValueError for other shapes.
    """
    shapes = _shapes("gaussian_mixture_nll", x, logits, means, log_sigmas)
    fits = [len(shape) for shape in shapes] == [2, 1, 2, 2]
    if fits:
        (n, d), (k,), *rest = shapes
        fits = n > 0 and rest in ([(k, d), (k, d)], [(k, d), (k, 1)])
    if not fits:
        raise ValueError("gaussian_mixture_nll: expected x, logits, means, log_sigmas of shapes "
                         "(n, d), (k,), (k, d) and (k, d) or (k, 1), "
                         f"got {', '.join(map(str, shapes))}")
    nlls = ops.sum(_gaussian_nlls(ops.reshape(x, (n, 1, d)), means, log_sigmas), axis=2)
    return ops.logsumexp(logits) - mean(ops.logsumexp(logits - nlls, axis=1))


def _gaussian_nlls(x: Operand, mean: Operand, log_sigma: Operand) -> Operand:
    """-log N(x; mean, sigma^2), elementwise."""
    z = (x - mean) * ops.exp(-log_sigma)
    return z * z / 2 + (log_sigma + math.log(2 * math.pi) / 2)


def _mean_of_sums(x: Operand) -> Operand:
    """The mean over the batch of the sum over all other axes."""
    return ops.sum(x) / len(x)


def _check_broadcast(name: str, x: Operand, *others: Operand) -> None:
    """ValueError unless x is a batch and the others broadcast to its shape.

    (n,) beside (n, 1) would give (n, n). TypeError for anything but real numbers.
    """
    shapes = _shapes(name, x, *others)
    try:
        together = np.broadcast_shapes(*shapes)
    except ValueError:
        together = None
    if together != shapes[0] or not shapes[0] or shapes[0][0] == 0:
        raise ValueError(f"{name}: expected shapes that broadcast to that of the first, a batch, "
                         f"got {', '.join(map(str, shapes))}")


def _shapes(name: str, *arrays: Operand) -> list[tuple[int, ...]]:
    """The shapes of arrays or numbers. TypeError for anything else."""
    for a in arrays:
        if unreal(a):
            raise TypeError(f"{name}: expected real numbers, got {unreal(a)}")
    return [np.shape(value_of(a)) for a in arrays]
