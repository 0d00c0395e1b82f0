"""The theory where the answer is known: optima, divergences, the Dirac-GAN, vanishing gradients.

Everything is computed by the library's own losses, layers and optimizers. What is expected is a
closed form, or an integral of one over a fine grid; how near it has to come follows from a
statistical error, a step size or the order of a neglected term, and is said where it is used. The
seeds are the first ones.
"""

import math

import numpy as np
import pytest

from tinygan import Tensor, grad, init, losses, ops
from tinygan.layers import Dense, ReLU, Sequential, Tanh
from tinygan.optim import SGD, Adam, WeightClip, linear


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softplus(x):
    return np.logaddexp(0, x)


def no_weights(shape, rng, dtype):
    return np.zeros(shape, dtype)


def density(x, mean, sigma):
    return np.exp(-((x - mean) / sigma) ** 2 / 2) / (sigma * math.sqrt(2 * math.pi))


# the trapezoidal rule on it is exact to rounding for everything smooth that is used here
LINE = np.linspace(-20, 20, 8001)


def integral(values):
    return np.sum(values, axis=-1) * (LINE[1] - LINE[0])


def jensen_shannon(p, q):
    """In nats, of two densities on LINE."""
    p, q = np.maximum(p, 1e-300), np.maximum(q, 1e-300)
    return integral(p * np.log(2 * p / (p + q)) + q * np.log(2 * q / (p + q))) / 2


# -------------------------- the optimal discriminator p / (p + q) (Goodfellow et al. 2014)

# (mean, standard deviation) of p and of q. log p - log q is a parabola: a linear discriminator of x
# and x^2 can be optimal.
GAUSSIANS = [((0.0, 1.0), (1.0, 1.0)), ((0.0, 1.0), (0.0, 2.0)), ((-1.0, 0.7), (0.5, 1.5))]


def parabola(p, q):
    """The logit log p(x) - log q(x) = a x + b x^2 + c: (a, b, c)."""
    (m, s), (k, r) = p, q
    return np.array([m / s**2 - k / r**2, (r**-2 - s**-2) / 2,
                     math.log(r / s) + (k / r) ** 2 / 2 - (m / s) ** 2 / 2])


def powers(x):
    return np.stack([x, x * x], axis=1)


def flat(gradients):
    return np.concatenate([g.reshape(-1) for g in gradients])


def best_parabola(real, fake):
    """The coefficients at which the discriminator's loss on these samples is smallest,
    by Newton's method: grad of grad."""
    discriminator = Dense(2, 1, rng=np.random.default_rng(0), init=no_weights, dtype=np.float64)
    parameters = discriminator.parameters()
    newton = SGD(parameters, lr=1.0)
    for _ in range(20):
        loss = losses.minimax_discriminator(discriminator(powers(real)),
                                            discriminator(powers(fake)))
        slopes = grad(loss, parameters, create_graph=True)
        weight, bias = slopes
        hessian = [flat(grad(s, parameters)) for s in (weight[0, 0], weight[1, 0], bias[0])]
        step = np.linalg.solve(hessian, flat([s.data for s in slopes]))
        newton.step([step[:2].reshape(2, 1), step[2:]])
        if np.abs(step).max() < 1e-9:
            return flat([p.data for p in parameters]), float(loss)
    raise AssertionError("Newton's method did not converge")


def asymptotics(p, q, n):
    """The loss's second derivative H, and the covariance of coefficients found from n examples
    each, to order 1 / n.

    That is H^-1 (C_p + C_q) H^-1 / n, C_p and C_q being the covariances of an example's first
    derivative.
    """
    real, fake = density(LINE, *p), density(LINE, *q)
    x = np.stack([LINE, LINE**2, np.ones_like(LINE)])
    d = sigmoid(parabola(p, q) @ x)
    outer = x[:, None] * x
    curvature = integral(outer * (d * (1 - d) * (real + fake)))
    inverse = np.linalg.inv(curvature)
    spread = [integral(outer * f**2 * h) - np.outer(*2 * [integral(x * f * h)])
              for f, h in ((1 - d, real), (d, fake))]
    return curvature, inverse @ sum(spread) @ inverse / n


@pytest.mark.parametrize("p, q", GAUSSIANS)
def test_the_best_discriminator_of_two_gaussians_is_the_ratio_of_their_densities(p, q):
    """In units of their standard errors the 3 coefficients of 20 seeds are normal: the sum of
    squares is a chi-squared.

    It has to be between the quantiles at 4 standard deviations (Wilson & Hilferty's normal
    approximation): errors of 0.65 to 1.38 times the size that theory gives them.
    """
    n, seeds, squares, values = 2000, 20, 0.0, []
    curvature, covariance = asymptotics(p, q, n)
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        found, value = best_parabola(*(m + s * rng.standard_normal(n) for m, s in (p, q)))
        error = found - parabola(p, q)
        squares += error @ np.linalg.solve(covariance, error)
        values.append(value)
    k = 3 * seeds
    assert abs((squares / k) ** (1 / 3) - 1 + 2 / (9 * k)) < 4 * math.sqrt(2 / (9 * k))
    # The least loss is 2 log 2 - 2 JSD(p, q); on the examples it was found from it is below that by
    # tr(H covariance) / 2.
    divergence = jensen_shannon(density(LINE, *p), density(LINE, *q))
    least = 2 * math.log(2) - 2 * divergence - np.trace(curvature @ covariance) / 2
    assert abs(np.mean(values) - least) < 4 * np.std(values, ddof=1) / math.sqrt(seeds)


@pytest.mark.parametrize("seed", range(3))
def test_a_network_trained_by_adam_finds_the_optimal_discriminator_in_the_plane(seed):
    """Its loss exceeds the least one by the mean of (p + q) KL(D* || D): on average k / 2n for k
    parameters and n examples.

    That is Wilks' theorem; the bound is 4 standard deviations of such a chi-squared above its mean.
    A constant D exceeds the least loss by 2 JSD, more than 25 times the bound.
    """
    n, units, shift = 2000, 8, np.array([1.5, 0.0])
    rng = np.random.default_rng(seed)
    real, fake = rng.standard_normal((2, n, 2)) + np.stack([shift, -shift])[:, None] / 2
    discriminator = Sequential(Dense(2, units, rng=rng, dtype=np.float64), Tanh(),
                               Dense(units, 1, rng=rng, dtype=np.float64, init=init.glorot_uniform))
    parameters = discriminator.parameters()
    optimizer = Adam(parameters, linear(0.05, 150))
    for _ in range(150):
        loss = losses.minimax_discriminator(discriminator(real), discriminator(fake))
        optimizer.step(grad(loss, parameters))
    k = sum(parameter.size for parameter in parameters)
    excess = 0.0
    for x in rng.standard_normal((2, n, 2)) + np.stack([shift, -shift])[:, None] / 2:
        # log p - log q of N(+-shift / 2, I) is x . shift
        best, found = x @ shift, discriminator(x).data[:, 0]
        excess += np.mean(sigmoid(best) * (best - found) + softplus(found) - softplus(best))
    assert 0 < excess < (k + 4 * math.sqrt(2 * k)) / (2 * n)


# -------------------------- critics and Wasserstein distances


def train_wgan_gp(critic, draw, weight, batch, rng):
    """Gulrajani et al. 2017, algorithm 1, without its generator."""
    optimizer = Adam(critic.parameters(), linear(1e-2, 400), betas=(0.5, 0.9))
    for _ in range(400):
        real, fake = draw(batch)
        loss = losses.wasserstein_critic(critic(real), critic(fake))
        loss = loss + weight * losses.gradient_penalty(critic, real, fake, rng=rng)
        optimizer.step(grad(loss, critic.parameters()))


def relu_critic(d, rng):
    return Sequential(Dense(d, 32, rng=rng), ReLU(), Dense(32, 32, rng=rng), ReLU(),
                      Dense(32, 1, rng=rng, init=init.glorot_uniform))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("weight", [1.0, 10.0])
def test_a_linear_wgan_gp_critic_points_from_mean_to_mean_and_is_too_steep(weight, seed):
    """D(x) = w . x: maximize w . m - weight (|w| - 1)^2, m the difference of the means: w = (1 +
    |m| / 2 weight) m / |m|.

    So the estimate of the distance is |m| (1 + |m| / 2 weight), beyond |m| by what the penalty
    leaves undecided. At that w the second derivatives are 2 weight along m and c = |m| / |w|
    across, so steps of 0.45 / weight multiply errors by 0.1 and by 1 - 0.45 c / weight: over 300
    steps by less than 1e-12.
    """
    rng = np.random.default_rng(seed)
    fake = rng.standard_normal((50, 3))
    real = fake[::-1] + np.array([2.0, -1.0, 0.5])
    m = real.mean(axis=0) - fake.mean(axis=0)
    distance = np.linalg.norm(m)
    assert (1 - 0.45 / weight * distance / (1 + distance / (2 * weight))) ** 300 < 1e-12
    critic = Dense(3, 1, rng=rng, dtype=np.float64)
    descent = SGD(critic.parameters(), lr=0.45 / weight)
    for _ in range(300):
        loss = losses.wasserstein_critic(critic(real), critic(fake))
        loss = loss + weight * losses.gradient_penalty(critic, real, fake, rng=rng)
        descent.step(grad(loss, critic.parameters()))
    steepness = 1 + distance / (2 * weight)
    np.testing.assert_allclose(critic.weight.data[:, 0], steepness * m / distance, rtol=1e-9)
    estimate = -float(losses.wasserstein_critic(critic(real), critic(fake)))
    np.testing.assert_allclose(estimate, steepness * distance, rtol=1e-9)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("radius, weight", [(1.0, 1.0), (3.0, 10.0), (5.0, 2.5)])
def test_the_slope_between_coupled_points_is_one_and_points_at_the_partner(radius, weight, seed):
    """Fakes on a circle, the real point at its center: every fake is coupled to the center
    (Gulrajani et al., prop. 1).

    With a penalty of finite weight the slope is s = 1 + radius / 2 weight instead of 1, and the
    objective is at most J* = radius + radius^2 / 4 weight. Any critic falls short of it by E[weight
    (|grad D| - s)^2 + radius (|grad D| - u)], u being the slope along the segment: no sooner is the
    one small than the gradient is right in length and direction.
    """
    rng = np.random.default_rng(seed)

    def circle(n):
        angle = rng.uniform(0, 2 * np.pi, (n, 1))
        return (radius * np.concatenate([np.cos(angle), np.sin(angle)], axis=1)).astype(np.float32)

    critic = relu_critic(2, rng)
    train_wgan_gp(critic, lambda n: (np.zeros((n, 2), np.float32), circle(n)), weight, 64, rng)

    slope, best = 1 + radius / (2 * weight), radius + radius**2 / (4 * weight)
    fake = circle(4000)
    # evenly on the segments
    x = Tensor(fake * ((np.arange(4000) + 0.5) / 4000)[:, None].astype(np.float32))
    (gradient,) = grad(critic(x).sum(), [x])
    steepness, towards = np.linalg.norm(gradient, axis=1), -np.sum(gradient * fake, axis=1) / radius
    estimate = -float(losses.wasserstein_critic(critic(np.zeros_like(fake)), critic(fake)))
    penalty = float(losses.gradient_penalty(critic, np.zeros_like(fake), fake, rng=rng))
    errors = weight * (steepness - slope) ** 2 + radius * (steepness - towards)
    # 4 standard errors of the draws: of the penalty's, and of the radii in the estimate
    noise = 4 * (weight * np.std((steepness - 1) ** 2) + radius * np.std(towards)) / math.sqrt(4000)
    assert abs(best - (estimate - weight * penalty) - np.mean(errors)) < noise
    assert np.mean(errors) < 0.01 * best
    for found in (np.mean(steepness), np.mean(towards), estimate / radius):
        assert abs(found - slope) < (slope - 1) / 10  # far nearer to s than to 1


def normal_cdf(x):
    return np.cumsum(density(x, 0, 1)) * (x[1] - x[0])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shift, weight", [(1.0, 1.0), (4.0, 10.0)])
def test_a_trained_critic_estimates_the_distance_of_shifted_gaussians(shift, weight, seed):
    """W = shift. On a line the penalized problem is solved point by point: slope f = 1 + w / (2
    weight r).

    w = F_fake - F_real, r the density of the interpolates; J* = integral of w f - weight r (f -
    1)^2. For every critic of slope f + e the shortfall is weight times the integral of r e^2, so by
    Cauchy and Schwarz a shortfall of 1 % moves the estimate, the integral of w (f + e), by at most
    (integral of w^2 / r times 0.01 J* / weight)^(1/2).
    """
    rng = np.random.default_rng(seed)

    def draw(n):
        real, fake = (rng.standard_normal((n, 1), np.float32) for _ in range(2))
        return real + np.float32(shift), fake

    critic = relu_critic(1, rng)
    train_wgan_gp(critic, draw, weight, 256, rng)

    inside = np.abs(LINE - shift / 2) < 6 + shift / 2  # beyond, w and r are below 1e-8
    w = (normal_cdf(LINE) - normal_cdf(LINE - shift)) * inside
    r = np.mean([density(LINE, e * shift, math.hypot(e, 1 - e))
                 for e in (np.arange(200) + 0.5) / 200], axis=0)
    extra = integral(w * w / r)
    distance, best = shift + extra / (2 * weight), shift + extra / (4 * weight)
    assert abs(integral(w) - shift) < 1e-6

    real, fake = draw(20000)
    scores = critic(real).data, critic(fake).data
    estimate = -float(losses.wasserstein_critic(*scores))
    penalty = float(losses.gradient_penalty(critic, real, fake, rng=rng))
    noise = 4 * math.sqrt((scores[0].var() + scores[1].var()) / 20000)
    assert -noise < best - (estimate - weight * penalty) < 0.01 * best + noise
    assert abs(estimate - distance) < math.sqrt(extra * 0.01 * best / weight) + noise


# -------------------------- Jensen-Shannon is stuck at log 2, Wasserstein is not


@pytest.mark.parametrize("distance", [1.0, 2.0, 4.0, 8.0])
def test_two_points_are_always_log_2_apart_for_jensen_shannon_but_not_for_wasserstein(distance):
    """Points at -+distance / 2, D(x) = w x, each player's estimate after descent from w = 0 with a
    known course.

    Discriminator: the margin m = w distance / 2 grows by a / (1 + e^m) a step, a = lr distance^2 /
    2, so it is between the solution of m + e^m = 1 + a steps and that plus a (Euler's method
    overtakes a slowing flow by at most its first step). JSD = log 2 - loss / 2 is then short of log
    2 by softplus(-m), about 1 / (a steps). The gradients that a generator gets at its point are D w
    for minimax and (1 - D) w otherwise: as e^-m to 1. Critic: w = 1 + distance / 2 weight, errors
    halved in each step.
    """
    rng, lr, steps, weight = np.random.default_rng(0), 0.1, 1000, 10.0
    real, fake = np.full((1, 1), distance / 2), np.full((1, 1), -distance / 2)
    discriminator, critic = (Dense(1, 1, rng=rng, init=no_weights, dtype=np.float64)
                             for _ in range(2))
    # a penalty on |w| does not say in which direction to leave w = 0
    critic.weight.assign(np.ones((1, 1)))
    descent = SGD(discriminator.parameters(), lr)
    critic_descent = SGD(critic.parameters(), 0.25 / weight)
    for _ in range(steps):
        loss = losses.minimax_discriminator(discriminator(real), discriminator(fake))
        descent.step(grad(loss, discriminator.parameters()))
    for _ in range(50):
        loss = losses.wasserstein_critic(critic(real), critic(fake))
        loss = loss + weight * losses.gradient_penalty(critic, real, fake, rng=rng)
        critic_descent.step(grad(loss, critic.parameters()))
    a, low, high = lr * distance**2 / 2, 0.0, 100.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if middle + math.exp(middle) < 1 + a * steps else (low, middle)
    loss = losses.minimax_discriminator(discriminator(real), discriminator(fake))
    estimate = math.log(2) - float(loss) / 2
    assert math.log(2) - softplus(-low) - 1e-9 < estimate < math.log(2) - softplus(-(low + a))
    assert math.log(2) - estimate < 0.025
    at = Tensor(fake)
    saturating, other = (
        grad(generator_loss(discriminator(at)), [at])[0].item()
        for generator_loss in (losses.minimax_generator, losses.nonsaturating_generator))
    assert math.exp(-(low + a)) - 1e-9 < saturating / other < math.exp(-low) + 1e-9
    wasserstein = -float(losses.wasserstein_critic(critic(real), critic(fake)))
    excess = distance / (2 * weight)
    error = abs(wasserstein - distance * (1 + excess))
    assert error < distance * 0.5**50 * excess + 1e-12


# -------------------------- the Dirac-GAN (Mescheder et al. 2018, section 2)

STARTS = [(math.cos(angle), math.sin(angle))
          for angle in np.random.default_rng(0).uniform(0, 2 * np.pi, 3)]
PLAYERS = {"minimax": (losses.minimax_discriminator, losses.minimax_generator),
           "non-saturating": (losses.nonsaturating_discriminator, losses.nonsaturating_generator),
           "wasserstein": (losses.wasserstein_critic, losses.wasserstein_generator)}


def play(method, start, lr, steps, alternating=False, penalty=None, clip=None):
    """Rows (theta, psi) of a game whose real point is 0, whose generated point is theta,
    and D(x) = psi x."""
    theta, psi = (Tensor(np.full((1, 1), number)) for number in start)
    real = np.zeros((1, 1))
    discriminator_loss, generator_loss = PLAYERS[method]
    generator_descent, discriminator_descent = SGD([theta], lr), SGD([psi], lr)

    def discriminator(x):
        return ops.matmul(x, psi)

    path = [start]
    for _ in range(steps):
        loss = discriminator_loss(discriminator(real), discriminator(theta.data))
        if penalty:
            loss = loss + penalty(discriminator, real, theta.data)
        if not alternating:
            slopes = grad(generator_loss(discriminator(theta)), [theta])
        discriminator_descent.step(grad(loss, [psi]))
        if clip:
            WeightClip([psi], clip).step()
        if alternating:
            slopes = grad(generator_loss(discriminator(theta)), [theta])
        generator_descent.step(slopes)
        path.append((theta.data.item(), psi.data.item()))
    return np.array(path)


def distances(path):
    """To the equilibrium (0, 0)."""
    return np.hypot(*path.T)


def small(start):
    """Near the equilibrium,
    where the game is linear up to a relative error of the distance's square."""
    return (start[0] * 1e-4, start[1] * 1e-4)


@pytest.mark.parametrize("start", STARTS)
def test_simultaneous_steps_lead_away_from_the_equilibrium_by_a_known_factor(start):
    """(theta, psi) += lr f (psi, -theta) is at a right angle to (theta, psi): a step stretches by
    (1 + lr^2 f^2)^(1/2).

    f = 1 for WGAN, the modulus of its eigenvalues 1 +- i lr, and sigmoid(theta psi) for the minimax
    GAN: 1/2 near (0, 0).
    """
    for method, factor in (("wasserstein", lambda product: 1.0), ("minimax", sigmoid)):
        for lr in (0.1, 0.5):
            path = play(method, start, lr, 100)
            f = factor(path[:-1, 0] * path[:-1, 1])
            np.testing.assert_allclose(distances(path)[1:] / distances(path)[:-1],
                                       np.sqrt(1 + (lr * f) ** 2), rtol=1e-12)
    away = distances(play("non-saturating", small(start), 0.5, 100))
    np.testing.assert_allclose(away[-1] / away[0], (1 + 0.5**2 / 4) ** 50, rtol=100 * away[-1] ** 2)


@pytest.mark.parametrize("start", STARTS)
def test_alternating_steps_of_wgan_go_round_on_an_ellipse_for_ever(start):
    """psi' = psi - lr theta, theta' = theta + lr psi' has determinant 1 and keeps theta^2 + psi^2 -
    lr theta psi.

    An ellipse whose axes are as (1 + lr / 2)^(1/2) to (1 - lr / 2)^(1/2); its eigenvalues, of
    modulus 1, turn by 2 arcsin(lr / 2) a step.
    """
    lr, steps = 0.2, 400
    path = play("wasserstein", start, lr, steps, alternating=True)
    theta, psi = path.T
    kept = theta**2 + psi**2 - lr * theta * psi
    np.testing.assert_allclose(kept, kept[0], rtol=1e-11)
    axes = math.sqrt((1 - lr / 2) / (1 + lr / 2))
    assert distances(path).min() >= distances(path)[0] * axes - 1e-11
    angle = np.unwrap(np.arctan2(psi, theta))  # within a turn it is as uneven as the ellipse
    assert abs(angle[0] - angle[-1] - 2 * steps * math.asin(lr / 2)) < lr


@pytest.mark.parametrize("method", ["minimax", "non-saturating"])
@pytest.mark.parametrize("start", STARTS)
def test_alternating_steps_of_a_gan_do_not_come_nearer(method, start):
    """Near (0, 0) they are those of WGAN with lr / 2:
    the same ellipse, up to the distance's square in each step."""
    lr, steps = 0.2, 400
    theta, psi = play(method, small(start), lr, steps, alternating=True).T
    kept = theta**2 + psi**2 - lr / 2 * theta * psi
    np.testing.assert_allclose(kept, kept[0], rtol=steps * lr * kept[0] * 4)


@pytest.mark.parametrize("start", STARTS)
def test_far_out_the_saturating_game_keeps_its_distance_and_the_other_creeps_in(start):
    """As flows: d r^2 / dt is 0 for minimax, and -2 u tanh(u / 2), u = theta psi, for the
    non-saturating game.

    Steps turn the circle into the ellipse of lr f, f at most sigmoid(1/2). The second is about -u^2
    = -(r^2 sin 2 phi / 2)^2: 1 / r^2 grows by t / 8, slower than any exponential, up to 1 / 16 from
    the sine and to lr.
    """
    lr, steps = 0.1, 400
    circle = distances(play("minimax", start, lr, steps, alternating=True))
    assert np.abs(circle - circle[0]).max() < lr * sigmoid(0.5) / 2
    theta, psi = play("non-saturating", (start[0] / 2, start[1] / 2), lr, steps, alternating=True).T
    inverse = 1 / (theta**2 + psi**2 - lr / 2 * theta * psi)
    assert abs(inverse[-1] - inverse[0] - lr * steps / 8) < 1 / 16 + lr


@pytest.mark.parametrize("start", STARTS)
def test_clipping_does_not_make_wgan_converge(start):
    """It ends on the largest of the ellipses above inside |psi| <= clip,
    which touches clip where theta is lr clip / 2."""
    lr, clip = 0.1, 0.5
    theta, psi = play("wasserstein", start, lr, 400, alternating=True, clip=clip)[200:].T
    np.testing.assert_allclose(theta**2 + psi**2 - lr * theta * psi, clip**2 * (1 - lr**2 / 4),
                               rtol=lr**2)


def penalized(method, weight, lr, alternating):
    """The matrix of a step at (0, 0) with a penalty weight psi^2 / 2: Mescheder et al.
    2018, lemma 4.1, in steps."""
    f = 1.0 if method == "wasserstein" else 0.5
    discriminator = np.array([[0, 0], [-lr * f, -lr * weight]])
    generator = np.array([[0, lr * f], [0, 0]])
    if alternating:
        return (np.eye(2) + generator) @ (np.eye(2) + discriminator)
    return np.eye(2) + generator + discriminator


PENALTIES = {"R1": lambda weight: lambda d, real, fake: weight * losses.r1_penalty(d, real),
             "zero-centred":
                 lambda weight: lambda d, real, fake: weight / 2 * losses.gradient_penalty(
                     d, real, fake, rng=np.random.default_rng(0), target=0.0)}


@pytest.mark.parametrize("alternating", [False, True])
@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("method", PLAYERS)
def test_with_a_zero_centred_penalty_the_game_converges_at_the_rate_of_its_eigenvalues(
        method, name, alternating):
    """From far away to (0, 0); and there by the powers of one matrix, up to the distance's square
    in each step.

    Its eigenvalues are 1 + lr (-weight / 2 +- (weight^2 / 4 - f^2)^(1/2)) if both players move at
    once; f = 1/2, for WGAN 1.
    """
    lr, weight, steps = 0.2, 0.5, 120
    matrix = penalized(method, weight, lr, alternating)
    values, vectors = np.linalg.eig(matrix)
    if not alternating:
        f = 1.0 if method == "wasserstein" else 0.5
        root = np.emath.sqrt(weight**2 / 4 - f**2)
        np.testing.assert_allclose(np.sort(values),
                                   np.sort(1 + lr * (-weight / 2 + np.array([-root, root]))))
    for start in STARTS:
        path = play(method, start, lr, steps, alternating, PENALTIES[name](weight))
        assert distances(path)[-1] < np.linalg.cond(vectors) * np.abs(values).max() ** steps
        near = path[steps // 2:]
        error = np.linalg.norm(np.linalg.matrix_power(matrix, steps // 2) @ near[0] - near[-1])
        nonlinear = distances(near)[0] ** 2 if method != "wasserstein" else 1e-12
        assert error < np.linalg.norm(near[-1]) * nonlinear


def slope_one(weight):
    return lambda d, real, fake: weight * losses.gradient_penalty(
        d, real, fake, rng=np.random.default_rng(0))


@pytest.mark.parametrize("weight", [1.0, 2.0])
@pytest.mark.parametrize("start", [*STARTS, small(STARTS[0])])
def test_wgan_gp_with_a_strong_penalty_converges_to_the_wrong_point(start, weight):
    """While psi > 0, (theta - 2 weight, psi) is an oscillator damped by 2 weight: for weight >= 1
    it ends in (2 weight, 0).

    There the critic is flat, and for psi < 0 likewise at -2 weight; from the equilibrium itself the
    penalty drives psi away. The slower eigenvalue of that flow is -weight + (weight^2 - 1)^(1/2).
    """
    lr, steps = 0.1, 400
    theta, psi = np.abs(play("wasserstein", start, lr, steps, alternating=True,
                             penalty=slope_one(weight))[-1])
    bound = 10 * math.exp((math.sqrt(weight**2 - 1) - weight) * lr * steps) + 1e-9
    assert abs(theta - 2 * weight) < bound and psi < bound


@pytest.mark.parametrize("start", [*STARTS, small(STARTS[0])])
def test_wgan_gp_with_a_weak_penalty_circles_at_a_known_distance(start):
    """For weight < 1 psi crosses 0: half a turn of the oscillator about 2 weight, then one about -2
    weight, and so on.

    Half a turn shrinks by q = exp(-pi weight / (1 - weight^2)^(1/2)), so theta, at the crossing,
    goes to the fixed point of |theta| -> 2 weight + q (|theta| + 2 weight), which is 2 weight (1 +
    q) / (1 - q): from inside and from outside, to lr.
    """
    lr, steps, weight = 0.05, 600, 0.5
    path = play("wasserstein", start, lr, steps, alternating=True, penalty=slope_one(weight))
    q = math.exp(-math.pi * weight / math.sqrt(1 - weight**2))
    for part in np.split(path[1:], 4)[1:]:  # 2 or 3 crossings each
        np.testing.assert_allclose(np.abs(part[:, 0]).max(), 2 * weight * (1 + q) / (1 - q),
                                   rtol=lr / 2)


# -------------------------- the generator's gradient as the discriminator wins


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shift", [0.5, 2.0, 4.0, 6.0])
def test_the_saturating_gradient_vanishes_at_the_optimum_and_the_others_do_not(shift, seed):
    """p = N(0, 1), q = N(shift, 1), and the derivative by the shift at the optimal D of each loss.

    Minimax: 2 JSD' (Goodfellow et al. 2014, section 4.1), below shift / 2 e^(-shift^2 / 8), as p q
    / (p + q) is below (p q)^(1/2) / 2. Non-saturating: KL(q || p)' - 2 JSD' = shift - 2 JSD'
    (Arjovsky & Bottou 2017, theorem 2.5). Wasserstein: 1. The tolerance is 4 standard errors of the
    mean over the draws.
    """
    n, rng = 20000, np.random.default_rng(seed)
    generator, discriminator, critic = (Dense(1, 1, rng=rng, init=no_weights, dtype=np.float64)
                                        for _ in range(3))
    generator.weight.assign([[1.0]])
    generator.bias.assign([shift])
    discriminator.weight.assign([[-shift]])  # log p - log q = shift^2 / 2 - shift x
    discriminator.bias.assign([shift**2 / 2])
    critic.weight.assign([[-1.0]])
    z = rng.standard_normal((n, 1))
    scores = discriminator(generator(z))

    def slope(loss):
        return grad(loss, [generator.bias])[0].item()

    def divergence(shift):
        return jensen_shannon(density(LINE, 0, 1), density(LINE, shift, 1))

    # to about 1e-8
    by_jensen_shannon = 2 * (divergence(shift + 1e-4) - divergence(shift - 1e-4)) / 2e-4
    error = 4 * shift * np.std(sigmoid(scores.data)) / math.sqrt(n)
    assert 0 < by_jensen_shannon < shift / 2 * math.exp(-shift**2 / 8)
    assert abs(slope(losses.minimax_generator(scores)) - by_jensen_shannon) < error
    assert abs(slope(losses.nonsaturating_generator(scores)) - (shift - by_jensen_shannon)) < error
    assert abs(slope(losses.wasserstein_generator(critic(generator(z)))) - 1) < 1e-12
