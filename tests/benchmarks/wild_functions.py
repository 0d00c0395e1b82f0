"""The functions that ``in_the_wild.py`` checks: of one number t, each with its form in mpmath.

``ELEMENTWISE`` lists functions by what they compute; a function of two numbers is taken along
three lines through each point. Below stand those that take more than a name.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import mpmath as mp


class Row(NamedTuple):
    """A function of one number, where it is looked at, and what is right."""

    name: str
    f: Callable
    at: float
    exact: Any  # the function in mpmath, or the derivative itself
    orders: tuple = (1, 2, 3)
    remark: str = ""


# --------------------------------------------------------------------------------- elementwise

REAL = (0.3, -1.7, 0, 1e-4, -1e-7, 1e-10, 2, -0.5, 20, -50, 300, -1e4, 1e7)
POINTS = {
    "real": REAL, "positive": (0.3, 2.5, 1, 1e-4, 1e-10, 20, 300, 1e7),
    "unit": (0.3, -0.7, 0, 1e-4, 1e-10, 0.99, -0.9999), "not 0": [t for t in REAL if t],
    "probability": (0.25, 0.5, 0.9, 1e-5, 1e-10, 0.9999), "above 1": (1.01, 2, 300, 1e7),
    "gamma": (0.3, 2.5, 1, 2, -0.5, -1.7, 1e-4, 20, 300, 1e7), "middle": (0.3, -1.7, 0, 1e-4, 2.5),
    "pairs": ((0.7, 1.3), (1, 1), (-0.7, 0.7), (1e-4, 1), (1e8, 1), (0.7, 0)),
    "positive pairs": ((0.7, 1.3), (1, 1), (2, 3), (30, 20)),
    "powers": ((0.7, 1.3), (2, 3), (0.7, 0), (1, 0))}


def expit(x):
    return 1 / (1 + mp.exp(-x))


def log_ndtr(x):
    return mp.log(mp.erfc(-x / mp.sqrt(2)) / 2)


def log_gamma(x):
    return mp.log(abs(mp.gamma(x)))


def gammainc(a, x):
    return mp.gammainc(a, 0, x, regularized=True)


def gammaincc(a, x):
    return mp.gammainc(a, x, regularized=True)


ELEMENTWISE = [  # what it is in mpmath, the points, the names in torch, jax and autograd
    (mp.sin, "real", "sin", "numpy.sin", "sin"), (mp.cos, "real", "cos", "numpy.cos", "cos"),
    (mp.tan, "middle", "tan", "numpy.tan", "tan"),
    (mp.sinh, "middle", "sinh", "numpy.sinh", "sinh"),
    (mp.cosh, "middle", "cosh", "numpy.cosh", "cosh"),
    (mp.tanh, "real", "tanh", "numpy.tanh", "tanh"),
    (mp.atan, "real", "atan", "numpy.arctan", "arctan"),
    (mp.asinh, "real", "asinh", "numpy.arcsinh", "arcsinh"),
    (mp.asin, "unit", "asin", "numpy.arcsin", "arcsin"),
    (mp.acos, "unit", "acos", "numpy.arccos", "arccos"),
    (mp.atanh, "unit", "atanh", "numpy.arctanh", "arctanh"),
    (mp.acosh, "above 1", "acosh", "numpy.arccosh", "arccosh"),
    (mp.exp, "middle", "exp", "numpy.exp", "exp"),
    (lambda x: mp.mpf(2) ** x, "middle", "exp2", "numpy.exp2", "exp2"),
    (mp.expm1, "middle", "expm1", "numpy.expm1", "expm1"),
    (mp.log, "positive", "log", "numpy.log", "log"),
    (lambda x: mp.log(x, 2), "positive", "log2", "numpy.log2", "log2"),
    (mp.log10, "positive", "log10", "numpy.log10", "log10"),
    (mp.log1p, "positive", "log1p", "numpy.log1p", "log1p"),
    (mp.sqrt, "positive", "sqrt", "numpy.sqrt", "sqrt"),
    (lambda x: 1 / mp.sqrt(x), "positive", "rsqrt", "lax.rsqrt", ""),
    (lambda x: 1 / x, "not 0", "reciprocal", "numpy.reciprocal", "reciprocal"),
    (lambda x: x * x, "real", "square", "numpy.square", "square"),
    (mp.cbrt, "positive", "", "numpy.cbrt", ""),
    (lambda x: mp.sinc(mp.pi * x), "real", "sinc special.sinc", "numpy.sinc", "sinc"),
    (mp.erf, "real", "erf", "scipy.special.erf", "scipy.special.erf"),
    (mp.erfc, "middle", "erfc", "scipy.special.erfc", "scipy.special.erfc"),
    (lambda x: mp.exp(x * x) * mp.erfc(x), "middle", "special.erfcx", "scipy.special.erfcx", ""),
    (mp.erfinv, "unit", "erfinv", "scipy.special.erfinv", "scipy.special.erfinv"),
    (lambda x: mp.erfinv(1 - x), "probability", "", "", "scipy.special.erfcinv"),
    (lambda x: mp.sqrt(2) * mp.erfinv(2 * x - 1), "probability", "special.ndtri",
     "scipy.special.ndtri", ""),
    (lambda x: mp.erfc(-x / mp.sqrt(2)) / 2, "middle", "special.ndtr", "scipy.special.ndtr",
     "scipy.stats.norm.cdf"),
    (log_ndtr, "real", "special.log_ndtr", "scipy.special.log_ndtr scipy.stats.norm.logcdf",
     "scipy.stats.norm.logcdf"),
    (lambda x: log_ndtr(-x), "real", "", "scipy.stats.norm.logsf", "scipy.stats.norm.logsf"),
    (expit, "real", "sigmoid special.expit", "nn.sigmoid scipy.special.expit lax.logistic",
     "scipy.special.expit"),
    (lambda x: mp.log(x / (1 - x)), "probability", "logit", "scipy.special.logit",
     "scipy.special.logit"),
    (lambda x: -x * mp.log(x), "positive", "special.entr", "scipy.special.entr", ""),
    (mp.gamma, (0.3, 2.5, 1, 2, -0.5, -1.7, 20), "", "scipy.special.gamma", "scipy.special.gamma"),
    (mp.rgamma, (0.3, 2.5, 0, 1, 2, -0.5, -1.7, 20), "", "", "scipy.special.rgamma"),
    (mp.factorial, (0.3, 2.5, 0, 1, 2, 20), "", "scipy.special.factorial", ""),
    (log_gamma, "gamma", "lgamma special.gammaln", "scipy.special.gammaln lax.lgamma",
     "scipy.special.gammaln"),
    (partial(mp.psi, 0), "gamma", "digamma special.psi", "scipy.special.digamma",
     "scipy.special.digamma scipy.special.psi"),
    (partial(mp.besseli, 0), "middle", "i0", "scipy.special.i0 numpy.i0", "scipy.special.i0"),
    (partial(mp.besseli, 1), "middle", "special.i1", "scipy.special.i1", "scipy.special.i1"),
    (lambda x: mp.besseli(0, x) * mp.exp(-x), "positive", "special.i0e", "scipy.special.i0e", ""),
    (lambda x: mp.besseli(1, x) * mp.exp(-x), "positive", "special.i1e", "scipy.special.i1e", ""),
    (partial(mp.besselj, 0), "middle", "", "", "scipy.special.j0"),
    (partial(mp.besselj, 1), "middle", "", "", "scipy.special.j1"),
    (lambda x: mp.sqrt(mp.pi) / 2 * mp.exp(-x * x) * mp.erfi(x), "middle", "",
     "scipy.special.dawsn", ""),
    (mp.ei, "not 0", "", "scipy.special.expi", ""),
    (mp.e1, (0.3, 2.5, 1, 1e-4, 1e-10, 20), "", "scipy.special.exp1", ""),
    (lambda x: mp.polylog(2, 1 - x), (0.3, 0.9, 1, 1.3, 2.5, 20), "", "scipy.special.spence", ""),
    (lambda x: mp.log(-mp.expm1(-x)), "positive", "", "nn.log1mexp", ""),
    (lambda x: mp.log1p(mp.exp(x)), "middle", "nn.functional.softplus", "nn.softplus", ""),
    (lambda x: -mp.log1p(mp.exp(-x)), "middle", "nn.functional.logsigmoid", "nn.log_sigmoid", ""),
    (lambda x: x * expit(x), "real", "nn.functional.silu", "nn.silu", ""),
    (lambda x: x * mp.tanh(mp.log1p(mp.exp(x))), (0.3, -1.7, 0, 2, 20, 300, 1e4, -20),
     "nn.functional.mish", "nn.mish", ""),
    (lambda x: x * mp.erfc(-x / mp.sqrt(2)) / 2, "middle", "nn.functional.gelu", "", ""),
    (lambda x: x - mp.tanh(x), "real", "nn.functional.tanhshrink", "", ""),
    (lambda x: (x + 3) / 6, (0.3, -1.7, 0, 2), "nn.functional.hardsigmoid", "nn.hard_sigmoid", ""),
    (lambda x: x * (x + 3) / 6, (0.3, -1.7, 0, 2), "nn.functional.hardswish", "nn.hard_silu", ""),
    (lambda x: (x + mp.sqrt(x * x + 4)) / 2, "real", "", "nn.squareplus", ""),
    (lambda x, y: mp.atan2(x, y), "pairs", "atan2", "numpy.arctan2", "arctan2"),
    (lambda x, y: mp.sqrt(x * x + y * y), "pairs", "hypot", "numpy.hypot", "hypot"),
    (lambda x, y: mp.log(mp.exp(x) + mp.exp(y)), "pairs", "logaddexp", "numpy.logaddexp",
     "logaddexp"),
    (lambda x, y: mp.log(mp.mpf(2)**x + mp.mpf(2)**y, 2), "pairs", "logaddexp2", "numpy.logaddexp2",
     "logaddexp2"),
    (lambda x, y: x * mp.log(y), "positive pairs", "xlogy", "scipy.special.xlogy", ""),
    (lambda x, y: x * mp.log1p(y), "positive pairs", "special.xlog1py", "scipy.special.xlog1py",
     ""),
    (lambda x, y: mp.power(x, y), "powers", "pow float_power", "numpy.power", "power"),
    (gammaincc, "positive pairs", "", "scipy.special.gammaincc", ""),
    (mp.beta, "positive pairs", "", "scipy.special.beta", "scipy.special.beta"),
    (lambda a, b: mp.log(mp.beta(a, b)), "positive pairs", "", "scipy.special.betaln",
     "scipy.special.betaln"),
    (lambda x, y: x * mp.log(x / y), "positive pairs", "", "scipy.special.rel_entr", ""),
    (lambda x, y: x * mp.log(x / y) - x + y, "positive pairs", "", "scipy.special.kl_div", ""),
    (mp.rf, "positive pairs", "", "scipy.special.poch", ""),
    (lambda x, y: (x**y - 1) / y, "positive pairs", "", "scipy.special.boxcox", ""),
]


def elementwise(column, root):
    """The rows of a library, of the functions below a module."""
    for exact, points, *names in ELEMENTWISE:
        for name in names[column].split():
            f = root
            for part in name.split("."):
                f = getattr(f, part)
            for point in POINTS.get(points, points) if isinstance(points, str) else points:
                if isinstance(point, tuple):
                    yield from along_lines(name, f, *point, exact)
                else:
                    yield Row(f"{name}(t)", f, point, exact)


def along_lines(name, f, x, y, exact):
    """f of two numbers as a function of the first, of the second, and of both at once."""
    yield Row(f"{name}(t, {y:g})", lambda t: f(t, 0 * t + y), x, lambda t: exact(t, mp.mpf(y)))
    yield Row(f"{name}({x:g}, t)", lambda t: f(0 * t + x, t), y, lambda t: exact(mp.mpf(x), t))
    yield Row(f"{name}({x:g} + t, {y:g} + t)", lambda t: f(x + t, y + t), 0,
              lambda t: exact(x + t, y + t))


# --------------------------------------------------------------------------------- everything else


def matrix(rows):
    """A matrix of mpmath."""
    return mp.matrix([[mp.mpf(x) for x in row] for row in rows])


def normalized(values, k, eps=mp.mpf(1e-5)):
    """Element k of values minus their mean, over the root of their variance + eps."""
    mean = sum(values) / len(values)
    return (values[k] - mean) / mp.sqrt(sum((x - mean)**2 for x in values) / len(values) + eps)


def moved(t):
    """Four numbers, the first of them moved by t."""
    return [mp.mpf(0.5) + t, mp.mpf(-1), mp.mpf(2), mp.mpf(0.25)]


def softmax(x):
    """The first share."""
    return mp.exp(x[0]) / sum(map(mp.exp, x))


def deviation(x):
    """The standard deviation."""
    mean = sum(x) / 4
    return mp.sqrt(sum((a - mean)**2 for a in x) / 4)


FOUR = [0.5, -1.0, 2.0, 0.25]
SQUARE = [[1.0, 2, -1], [0.5, -1, 2], [3, 0.25, 1]]
CORNER = [[0.0, 1, 0], [0, 0, 0], [0, 0, 0]]


def square(t, scale=1):
    """A matrix with an element that moves."""
    return scale * (matrix(SQUARE) + t * matrix(CORNER))


def largest_singular(a):
    return mp.sqrt(max(mp.eigsy(a.T * a, eigvals_only=True)))


def least_squares(a, b):
    return (mp.inverse(a.T * a) * a.T * b)[0]


def cross_entropy(t):
    logits = [[sum((mp.mpf(a) + t) * mp.mpf(b) for a, b in zip(row, column))
               for column in ((1, 0, 2), (-1, 1, 0.5))] for row in SQUARE]
    return sum(mp.log(sum(map(mp.exp, row))) - row[k] for row, k in zip(logits, (0, 1, 1))) / 3


def attention(t):
    a = square(t, 10)
    logits = [sum(a[0, k] * a[row, k]**2 for k in range(3)) / mp.sqrt(3) for row in range(3)]
    weights = [mp.exp(x) for x in logits]
    return sum(w * mp.sin(a[row, 0]) for row, w in enumerate(weights)) / sum(weights)


BOTH = {  # of the four numbers moved(t): what a library's functions of a vector give
    "softmax": softmax, "log_softmax": lambda x: mp.log(softmax(x)),
    "logsumexp": lambda x: mp.log(sum(map(mp.exp, x))), "prod": lambda x: x[0] * x[1] * x[2] * x[3],
    "std": deviation, "norm": lambda x: mp.sqrt(sum(a * a for a in x)),
    "inv": lambda x: 1 / x[0], "det": lambda x: x[0], "cumsum": lambda x: x[0] + x[1]}


def torch_rows():
    """The rows of PyTorch."""
    import torch
    import torch.nn.functional as F

    def tensor(x):
        return torch.tensor(x, dtype=torch.float64)

    four, first = tensor(FOUR), tensor([1.0, 0, 0, 0])
    ones, zero, x = torch.ones(3, 3).double(), tensor([0.0]), tensor(SQUARE)
    w, index = tensor([[1.0, 0, 2], [-1, 1, 0.5]]), torch.tensor([0, 1, 1])

    def vector(t):
        return four + t * first

    def twice(f, y):
        """The gradient of f, at y, as a function of the cotangent t."""
        def g(t):
            point = y.clone().requires_grad_()
            (found,) = torch.autograd.grad(f(point), point, t, create_graph=True)
            return found.flatten()[0]
        return g

    yield from elementwise(0, torch)
    for name, f in {
            "softmax": lambda v: torch.softmax(v, 0)[0],
            "log_softmax": lambda v: torch.log_softmax(v, 0)[0],
            "logsumexp": lambda v: torch.logsumexp(v, 0), "prod": torch.prod,
            "std": lambda v: torch.std(v, correction=0), "norm": torch.linalg.vector_norm,
            "cumsum": lambda v: torch.cumsum(v, 0)[1]}.items():
        yield Row(f"{name}(x)", lambda t, f=f: f(vector(t)), 0, lambda t, g=BOTH[name]: g(moved(t)))
    for name, f in {
            "batch_norm": lambda v: F.batch_norm(v[:, None], None, None, training=True)[0, 0],
            "layer_norm": lambda v: F.layer_norm(v, (4,))[0],
            "instance_norm": lambda v: F.instance_norm(v[None, None])[0, 0, 0],
            "group_norm": lambda v: F.group_norm(v[None, :, None], 1)[0, 0, 0]}.items():
        yield Row(f"{name}(x)", lambda t, f=f: f(vector(t)), 0, lambda t: normalized(moved(t), 0))
    yield from [
        Row("logcumsumexp(x)[2]", lambda t: torch.logcumsumexp(vector(t), 0)[2], 0,
            lambda t: mp.log(sum(map(mp.exp, moved(t)[:3])))),
        Row("gelu(t, tanh)", lambda t: F.gelu(t, approximate="tanh"), 50, lambda t: t / 2 * (
            1 + mp.tanh(mp.sqrt(2 / mp.pi) * (t + mp.mpf(44715) / 10**6 * t**3)))),
        Row("celu(t, 0.7)", lambda t: F.celu(t, 0.7), -0.5,
            lambda t: mp.mpf(0.7) * mp.expm1(t / mp.mpf(0.7)), remark="alpha in float32"),
        Row("t ** 0", lambda t: t**0, 0.7, lambda t: mp.mpf(1)),
        Row("0 ** t", lambda t: 0**t, 0.7, lambda t: mp.mpf(0)),
        Row("as_strided_scatter((t, ..., 0), zeros(2, 2), (2, 2), (4, 1))[0, 0]",
            lambda t: torch.as_strided_scatter(F.pad(t.reshape(1, 1), (0, 3, 0, 2)),
                                               0 * ones[:2, :2], (2, 2), (4, 1))[0, 0], 0.5, 0.0,
            (1,), "what is overwritten gets a gradient"),
        Row("as_strided_scatter((0, ..., t), zeros(2, 2), (2, 2), (1, 1))[2, 3]",
            lambda t: torch.as_strided_scatter(F.pad(t.reshape(1, 1), (3, 0, 2, 0)),
                                               0 * ones[:2, :2], (2, 2), (1, 1))[2, 3], 0.5, 1.0,
            (1,), "what is kept gets none"),
        Row("cotangent t of std((x,), correction=0) at x = 0.7",
            twice(lambda y: torch.std(y, 0, correction=0), tensor([0.7])), 1, 0.0, (1,),
            "the standard deviation of one number is 0"),
        Row("scatter_reduce((0,), 0, (0,), (t,), amax, include_self=False)[0]",
            lambda t: zero.scatter_reduce(0, index[:1], t.reshape(1), "amax", include_self=False
                                          )[0], 0, lambda t: t, (1,),
            "halved where the excluded value is equal"),
        Row("index_reduce((0,), 0, (0,), (t,), amax, include_self=False)[0]",
            lambda t: zero.index_reduce(0, index[:1], t.reshape(1), "amax", include_self=False)[0],
            0, lambda t: t, (1,), "halved where the excluded value is equal"),
        Row("-segment_reduce((t, t, t), max)", lambda t: -torch.segment_reduce(
            t * ones[0], "max", lengths=torch.tensor([3]))[0], 0, lambda t: -t, (1,),
            "shared among ties only where the cotangent is positive"),
        Row("cdist((t, t), (0, 0), inf)",
            lambda t: torch.cdist(t * ones[:1, :2], 0 * ones[:1, :2], math.inf)[0, 0], 1,
            lambda t: t, (1,), "every tie counts in full"),
        Row("pdist(((t, t), (0, 0)), inf)",
            lambda t: F.pdist(t * tensor([[1.0, 1], [0, 0]]), math.inf)[0], 1, lambda t: t, (1,),
            "every tie counts in full"),
        Row("linalg.det(diag(1, t, t))", lambda t: torch.linalg.det(torch.diag(
            tensor([1.0, 0, 0]) + t * tensor([0, 1.0, 1]))), 0, lambda t: t * t, (1, 2),
            "documented as unstable"),
        Row("linalg.inv(a)[0, 0]", lambda t: torch.linalg.inv(x + t * tensor(CORNER))[0, 0], 0,
            lambda t: mp.inverse(square(t))[0, 0]),
        Row("linalg.matrix_norm(((1, t, 0), (t, 0, 0), (0, 0, 0)), 2)",
            lambda t: torch.linalg.matrix_norm(torch.stack(
                [torch.stack([1 + 0 * t, t, 0 * t]), torch.stack([t, 0 * t, 0 * t]), 0 * x[0]]),
                2), 0, lambda t: (1 + mp.sqrt(1 + 4 * t * t)) / 2, (1, 2),
            "a simple singular value beside two equal ones"),
        Row("renorm(((t, 0),), 2, 0, 1)[0, 0]", lambda t: torch.renorm(
            torch.stack([t, 0 * t])[None], 2, 0, 1.0)[0, 0], 0, lambda t: t, (1, 2)),
        Row("normalize((t, 0), eps=1)[0]", lambda t: F.normalize(
            torch.stack([t, 0 * t]), dim=0, eps=1.0)[0], 0, lambda t: t, (1, 2)),
        Row("cosine_similarity((t, 0), (1, 0), eps=1)", lambda t: F.cosine_similarity(
            torch.stack([t, 0 * t]), tensor([1.0, 0]), 0, 1.0), 0, lambda t: t, (1, 2)),
        Row("linalg.householder_product(((1,),), (t,))",
            lambda t: torch.linalg.householder_product(ones[:1, :1], t.reshape(1))[0, 0], 1,
            lambda t: 1 - t, (1,)),
        Row("poisson_nll_loss((1,), (t,), log_input=False, full=True)",
            lambda t: F.poisson_nll_loss(ones[0, :1], t.reshape(1), log_input=False, full=True), 0,
            lambda t: 1 - t * mp.log(1 + mp.mpf(1e-8)), (1,)),
        Row("cotangent t of embedding((0, 0), w, scale_grad_by_freq=True)",
            twice(lambda y: F.embedding(torch.tensor([0, 0]), y, scale_grad_by_freq=True).sum(),
                  ones[:2, :1]), 1, 1.0, (1,), "the scale is forgotten")]
    if hasattr(torch.nn, "LinearCrossEntropyOptions"):
        options = torch.nn.LinearCrossEntropyOptions(allow_retain_graph=True)
        yield Row("linear_cross_entropy(x + t, w, target, options=allow_retain_graph)",
                  lambda t: F.linear_cross_entropy(x + t, w, index, options=options), 0,
                  cross_entropy, (1, 2), "documented as unsupported, but silent")


def jax_rows():
    """The rows of JAX."""
    import jax
    import jax.numpy as jnp
    import jax.scipy.special  # noqa: F401
    import jax.scipy.stats  # noqa: F401

    four, first, a, corner = map(jnp.array, (FOUR, [1.0, 0, 0, 0], SQUARE, CORNER))
    nn, linalg = jax.nn, jnp.linalg

    def vector(t):
        return four + t * first

    def moving(t, scale=1.0):
        return scale * (a + t * corner)

    yield from elementwise(1, jax)
    for name, f in {
            "softmax": lambda v: nn.softmax(v)[0], "log_softmax": lambda v: nn.log_softmax(v)[0],
            "logsumexp": nn.logsumexp, "prod": jnp.prod, "std": jnp.std, "norm": linalg.norm,
            "cumsum": lambda v: jnp.cumsum(v)[1]}.items():
        yield Row(f"{name}(x)", lambda t, f=f: f(vector(t)), 0, lambda t, g=BOTH[name]: g(moved(t)))
    yield Row("nn.standardize(x)[0]", lambda t: nn.standardize(vector(t))[0], 0,
              lambda t: normalized(moved(t), 0))
    yield from [
        Row("nn.standardize((0, t))[1]", lambda t: nn.standardize(jnp.stack([0 * t, t]))[1], 0,
            lambda t: t / 2 / mp.sqrt(t * t / 4 + mp.mpf(1e-5)), remark="half at a clamp"),
        Row("numpy.std((t,))", lambda t: jnp.std(t.reshape(1)), 0.7, 0.0, (1,),
            "the standard deviation of one number is 0"),
        Row("logsumexp((0, 1), b=(t, 1))", lambda t: jax.scipy.special.logsumexp(
            jnp.array([0.0, 1]), b=jnp.stack([t, 1 + 0 * t])), 0, lambda t: mp.log(t + mp.e)),
        Row("numpy.vander((t,), 2)[0, 0]", lambda t: jnp.vander(t.reshape(1), 2)[0, 0], 0,
            lambda t: t, (1,)),
        Row("(1, t).at[0].power(2.)[1]", lambda t: jnp.stack([1 + 0 * t, t]).at[0].power(2.0)[1], 0,
            lambda t: t, (1, 2), "an element that is not touched"),
        Row("t ** 2.0", lambda t: t**2.0, 0, lambda t: t * t),
        Row("numpy.ldexp(t, 3)", lambda t: jnp.ldexp(t, 3), 0, lambda t: 8 * t),
        Row("linalg.inv(a)[0, 0]", lambda t: linalg.inv(moving(t))[0, 0], 0,
            lambda t: mp.inverse(square(t))[0, 0]),
        Row("linalg.norm(a, 2), a of size 1e3", lambda t: linalg.norm(moving(t, 1e3), 2), 0,
            lambda t: largest_singular(square(t, 1000))),
        Row("linalg.lstsq(a, b)[0][0], a of size 1e3", lambda t: linalg.lstsq(
            moving(t, 1e3)[:, :2], moving(t, 1e3)[:, 2])[0][0], 0,
            lambda t: least_squares(square(t, 1000)[:, 0:2], square(t, 1000)[:, 2]), (1, 2)),
        Row("linalg.lstsq(((1, t), (0, 1)), (1, 2))[0][0]", lambda t: linalg.lstsq(
            jnp.eye(2) + t * corner[:2, :2], jnp.array([1.0, 2]))[0][0], 0,
            lambda t: least_squares(matrix([[1, t], [0, 1]]), matrix([[1], [2]])), (1,),
            "two equal singular values"),
        Row("nn.dot_product_attention(a, a^2, sin a), a of size 10",
            lambda t: nn.dot_product_attention(*(y[None, :, None] for y in (
                moving(t, 10.0), moving(t, 10.0) ** 2, jnp.sin(moving(t, 10.0)))))[0, 0, 0, 0], 0,
            attention, remark="its softmax is in float32")]


def autograd_rows():
    """The rows of HIPS autograd."""
    import types

    import autograd.numpy as anp
    import autograd.scipy.special
    import autograd.scipy.stats

    four, first = map(anp.array, (FOUR, [1.0, 0, 0, 0]))
    root = types.SimpleNamespace(**vars(anp), scipy=autograd.scipy)
    yield from elementwise(2, root)
    for name, f in {"logsumexp": autograd.scipy.special.logsumexp, "prod": anp.prod, "std": anp.std,
                    "norm": anp.linalg.norm, "cumsum": lambda v: anp.cumsum(v)[1]}.items():
        yield Row(f"{name}(x)", lambda t, f=f: f(four + t * first), 0,
                  lambda t, g=BOTH[name]: g(moved(t)))
    yield Row("prod((t, 2))", lambda t: anp.prod(anp.array([t, 2.0])), 0, lambda t: 2 * t)
    yield Row("t ** 2", lambda t: t**2, 0, lambda t: t * t)
    yield Row("0 ** t", lambda t: 0.0**t, 0.7, lambda t: mp.mpf(0))


ROWS = {"torch": torch_rows, "jax": jax_rows, "autograd": autograd_rows}
