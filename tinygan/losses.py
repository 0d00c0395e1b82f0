"""Losses: pure functions of scores. A discriminator's scores are logits, D(x) = sigmoid(score); a critic's are unbounded.

Every loss is a mean over the batch and is *minimized* by its player. Cross-entropies are computed from logits,
-log D = softplus(-score) and -log(1 - D) = softplus(score), so no probability is ever clipped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import backend, ops
from .functional import mean
from .tensor import Tensor, grad, value_of


def minimax_discriminator(real_scores: Any, fake_scores: Any, smoothing: float = 0.0) -> Any:
    """-E[(1 - s) log D(x) + s log(1 - D(x))] - E[log(1 - D(G(z)))], s the one-sided label smoothing.

    (Goodfellow et al. 2014, eq. 1; smoothing of the real labels alone: Salimans et al. 2016, section 3.4.)
    """
    real = ops.softplus(-real_scores)
    if smoothing:  # softplus(s) = softplus(-s) + s
        real = real + smoothing * real_scores
    return mean(real) + mean(ops.softplus(fake_scores))


def minimax_generator(fake_scores: Any) -> Any:
    """E[log(1 - D(G(z)))]: the saturating loss, whose gradient vanishes while D wins (Goodfellow et al. 2014, eq. 1)."""
    return -mean(ops.softplus(fake_scores))


def nonsaturating_discriminator(real_scores: Any, fake_scores: Any, smoothing: float = 0.0) -> Any:
    """The same as ``minimax_discriminator``: only the generator's half differs."""
    return minimax_discriminator(real_scores, fake_scores, smoothing)


def nonsaturating_generator(fake_scores: Any) -> Any:
    """-E[log D(G(z))] (Goodfellow et al. 2014, section 3)."""
    return mean(ops.softplus(-fake_scores))


def wasserstein_critic(real_scores: Any, fake_scores: Any) -> Any:
    """E[D(G(z))] - E[D(x)]: the negative of the critic's estimate of the Wasserstein-1 distance (Arjovsky et al. 2017)."""
    return mean(fake_scores) - mean(real_scores)


def wasserstein_generator(fake_scores: Any) -> Any:
    """-E[D(G(z))] (Arjovsky et al. 2017, algorithm 1)."""
    return -mean(fake_scores)


def interpolate(real: Any, fake: Any, *, rng: backend.Generator) -> Any:
    """e x + (1 - e) G(z), one e ~ U[0, 1) per example (Gulrajani et al. 2017, algorithm 1). ValueError if shapes differ."""
    real, fake = value_of(real), value_of(fake)
    if real.shape != fake.shape:
        raise ValueError(f"interpolate: real has shape {real.shape}, fake {fake.shape}; they must be equal")
    e = backend.uniform(rng, (len(real),) + (1,) * (real.ndim - 1), real.dtype, like=real)
    return fake + e * (real - fake)


def gradient_norms(critic: Callable[[Any], Any], x: Any, create_graph: bool = False) -> Any:
    """The length of the critic's gradient at each example, over all axes but the first: (n, ...) -> (n,)."""
    x = Tensor(value_of(x))
    (gradient,) = grad(ops.sum(critic(x)), [x], create_graph=create_graph)
    return ops.norm(gradient, axis=tuple(range(1, x.ndim)))


def gradient_penalty(critic: Callable[[Any], Any], real: Any, fake: Any, *, rng: backend.Generator,
                     target: float = 1.0) -> Any:
    """E[(|grad D(x_hat)|_2 - target)^2] at the interpolates x_hat (Gulrajani et al. 2017, eq. 3), without its weight.

    The gradient is recorded, so the penalty can be differentiated with respect to the critic's parameters: double
    backpropagation. Finite, at every order, where the gradient is zero.

    Raises ValueError for a critic whose layers couple the examples of a batch.
    """
    if getattr(critic, "couples_examples", False):
        raise ValueError("gradient_penalty: the critic has a layer that couples the examples of a batch (batch norm in "
                         "training mode). The penalty constrains the gradient of each score with respect to its own "
                         "example, which such a layer mixes with the others'. Use LayerNorm or no norm in the critic, "
                         "or put it in eval mode")
    slack = gradient_norms(critic, interpolate(real, fake, rng=rng), create_graph=True) - target
    return mean(slack * slack)
