"""Every public function of the core, called with each argument wrong in many ways.

An error is a TypeError or a ValueError (an index may give an IndexError), begins with the name of
the function that was called, or with that of the argument ``rng`` or ``dtype``, which many take,
and contains none of the phrases in which NumPy and Python speak of their own insides.
"""

import inspect
import warnings

import numpy as np
import pytest

from tinygan import Tensor, functional, grad, init, layers, losses, ops, optim
from tinygan.tensor import PRIMITIVES

FOREIGN = (  # what NumPy and Python say of their own insides
    "ufunc", "no identity", "has no attribute", "index out of range", "could not be broadcast",
    "shape mismatch", "zero-size", "unsupported operand", "not iterable", "not subscriptable",
    "array element with a sequence", "inhomogeneous", "cannot reshape", "must be real number",
    "not supported between", "number of dimensions", "same shape", "interpreted as an integer",
    "could not convert", "ambiguous", "axes don't match", "repeated axis", "duplicate value",
    "can't multiply", "unpack", "not understood", "as a data type", "required positional",
    "unexpected keyword", "can only concatenate", "must be integers", "bad operand",
    "invalid literal", "unhashable", "range indices", "unsized")


class Foreign:
    """Another library's tensor: NumPy can make an array of it."""

    shape, dtype, ndim = (4, 3), "float32", 2

    def __array__(self, dtype=None, copy=None):
        return np.ones((4, 3), np.float32)


def rng():
    return np.random.default_rng(0)


def ones(*shape):
    return Tensor(np.ones(shape, np.float32))


class Critic(layers.Module):
    def __init__(self):
        self.weight = ones(3, 1)

    def forward(self, x):
        return x @ self.weight


ANYTHING = {
    "another library's tensor": Foreign(), "text": "x", "None": None, "a dictionary": {},
    "a function": len, "a class": Tensor, "a complex number": 1j, "a list": [1.0, 2.0],
    "a list of Tensors": [ones(4, 3), ones(4, 3)], "a ragged list": [[1.0], [1.0, 2.0]],
    "objects": np.array([[None]]), "complex": np.ones((4, 3), complex),
    "dates": np.ones(3, "M8[s]"), "texts": np.array(["a"]),
    "empty": np.ones((0, 3), np.float32), "no axis": ones(), "another shape": ones(5, 7),
    "many axes": ones(2, 5, 3, 4, 2), "a network": Critic(),
    "a fraction": 1.5, "negative": -7, "large": 99, "nan": np.nan, "infinite": np.inf,
    "a wrong pair": (9, -9), "a pair of texts": ("a", "b"), "a repeated axis": (0, 0),
    "a dtype": np.dtype("int8")}

x, z, image, kernel = ones(4, 3), ones(4, 2), ones(2, 3, 5, 5), ones(3, 3, 3, 2)
STATICS = {"shape": (4, 3), "axis": 1, "keepdims": True, "axes": (1, 0), "a": 0, "b": 1,
           "index": (slice(0, 2), 1), "dtype": np.float64, "slope": 0.1, "stride": (1, 1),
           "padding": (0, 0), "size": (7, 7), "kernel": (3, 3)}
INPUTS = {"matmul": [x, ones(3, 2)], "matmul_nt": [x, x], "where": [x > 0, x, x],
          "scatter": [ones(2)], "concatenate": [x, x],
          "convolve": [ones(2, 5, 5, 3), kernel], "convolve_t": [ones(2, 5, 5, 2), kernel],
          "convolve_w": [ones(2, 5, 5, 3), ones(2, 3, 3, 2)]}


def of_primitive(primitive):
    """(name, function, arguments) of a call with good arguments."""
    kinds = inspect.signature(primitive).parameters.values()
    inputs = [x for p in kinds if p.kind is p.POSITIONAL_ONLY]
    statics = {p.name: STATICS[p.name] for p in kinds if p.kind not in (p.POSITIONAL_ONLY,
                                                                       p.VAR_POSITIONAL)}
    return primitive.name, primitive, (*INPUTS.get(primitive.name, inputs),), statics


row, scores = ones(3), ones(4, 1)
CALLS = [
    *map(of_primitive, PRIMITIVES.values()),
    ("concatenate", ops.concatenate, ([x, x],), {"axis": 1}),
    ("mean", functional.mean, (x,), {"axis": 0}), ("var", functional.var, (x, 0, True, 1), {}),
    ("stack", functional.stack, ([x, x], 0), {}), ("clip", functional.clip, (x, 0.0, 1.0), {}),
    ("squeeze", functional.squeeze, (ones(4, 1), 1), {}), ("pad", functional.pad, (x, 1), {}),
    ("log_sigmoid", functional.log_sigmoid, (x,), {}),
    ("softmax", functional.softmax, (x, 1), {}),
    ("dropout", functional.dropout, (x, 0.5, rng()), {}),
    ("normalize", functional.normalize, (x, 0, 1e-5, row, row), {}),
    ("batch_norm", functional.batch_norm, (x, row, row, 1e-5), {}),
    ("layer_norm", functional.layer_norm, (x, row, row, 1e-5), {}),
    ("conv2d", functional.conv2d, (image, kernel, ones(2), 1, 0), {}),
    ("conv_transpose2d", functional.conv_transpose2d, (ones(2, 2, 5, 5), kernel, row, 2, 0, 1), {}),
    ("upsample", functional.upsample, (image, 2), {}),
    *((f.__name__, f, ((3, 2), rng(), np.float32), {})
      for f in (init.he_normal, init.he_uniform, init.glorot_uniform, init.dcgan)),
    *((name, getattr(losses, name), (scores, scores), {}) for name in (
        "wasserstein_critic", "least_squares_discriminator", "hinge_discriminator",
        "relativistic_discriminator", "relativistic_generator", "gaussian_kl", "bernoulli_nll")),
    *((name, getattr(losses, name), (scores, scores, 0.1), {})
      for name in ("minimax_discriminator", "nonsaturating_discriminator")),
    *((f"{name}_generator", getattr(losses, f"{name}_generator"), (scores,), {}) for name in (
        "minimax", "nonsaturating", "wasserstein", "least_squares", "hinge")),
    ("interpolate", losses.interpolate, (x.data, x.data), {"rng": rng()}),
    ("gradient_norms", losses.gradient_norms, (Critic(), x.data), {}),
    ("gradient_penalty", losses.gradient_penalty, (Critic(), x.data, x.data),
     {"rng": rng(), "target": 1.0}),
    ("r1_penalty", losses.r1_penalty, (Critic(), x.data), {}),
    ("r2_penalty", losses.r2_penalty, (Critic(), x.data), {}),
    ("path_length_penalty", losses.path_length_penalty, (Critic(), x.data, 1.0), {"rng": rng()}),
    ("gaussian_nll", losses.gaussian_nll, (z, z, 0.0), {}),
    ("reparameterize", losses.reparameterize, (z, z), {"rng": rng()}),
    ("gaussian_mixture_nll", losses.gaussian_mixture_nll, (x, ones(5), ones(5, 3), ones(5, 3)), {}),
    ("grad", lambda *a, **k: grad(*a, **k), (ops.sum(x), [x]), {"cotangent": 1.0}),
    ("Tensor", Tensor, ([1.0],), {}), ("assign", ones(4, 3).assign, (x,), {}),
    ("Dense", layers.Dense, (3, 2), {"rng": rng(), "init": init.he_normal, "dtype": np.float32}),
    ("Conv2d", layers.Conv2d, (3, 2, 3, 1, 0), {"rng": rng(), "init": init.he_normal}),
    ("ConvTranspose2d", layers.ConvTranspose2d, (3, 2, 3, 2, 0, 1), {"rng": rng()}),
    ("SpectralNorm", layers.SpectralNorm, (layers.Dense(3, 2, rng=rng()),), {"rng": rng()}),
    ("Upsample", layers.Upsample, (2,), {}), ("Reshape", layers.Reshape, ((3, 1),), {}),
    ("BatchNorm", layers.BatchNorm, (3, 0.1, 1e-5), {"dtype": np.float32}),
    ("LayerNorm", layers.LayerNorm, (3, 1e-5), {"dtype": np.float32}),
    ("Dropout", layers.Dropout, (0.5,), {"rng": rng()}),
    ("LeakyReLU", layers.LeakyReLU, (0.1,), {}), ("Sequential", layers.Sequential, (ops.relu,), {}),
    ("linear", optim.linear, (1.0, 10, 0.0), {}),
    ("SGD", optim.SGD, ([row], 0.1), {"momentum": 0.9}),
    ("RMSprop", optim.RMSprop, ([row], 0.1, 0.9, 1e-8), {}),
    ("Adam", optim.Adam, ([row], 0.1, (0.9, 0.99), 1e-8), {}),
    *((f"{kind.__name__}.step", kind([ones(3)], 0.1).step, ([np.ones(3, np.float32)],), {})
      for kind in (optim.SGD, optim.RMSprop, optim.Adam)),
    ("WeightClip", optim.WeightClip, ([row], 0.1), {}),
    ("ExponentialMovingAverage", optim.ExponentialMovingAverage, (Critic(), 0.9), {})]


def test_every_public_function_is_called():
    called = {name.partition(".")[0] for name, *_ in CALLS} | set(PRIMITIVES)
    helpers = {"indicator", "axes_of", "whole", "pair", "fans", "symmetric", "Module", "Affine",
               "Optimizer", "ReLU", "Tanh", "Sigmoid", "Flatten"}  # these take no argument, or are
    public = {name for room in (ops, functional, losses, layers, optim, init)  # not for users
              for name, value in vars(room).items() if not name.startswith("_")
              and (inspect.isfunction(value) or inspect.isclass(value))
              and value.__module__ == room.__name__}
    assert public - helpers <= called


@pytest.mark.parametrize("name, function, arguments, named", CALLS, ids=[c[0] for c in CALLS])
def test_a_wrong_argument_is_refused_in_the_librarys_own_words(name, function, arguments, named):
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        function(*arguments, **named)
        for place in [*range(len(arguments)), *named]:
            for kind, wrong in ANYTHING.items():
                given, words = list(arguments), dict(named)
                (words if isinstance(place, str) else given)[place] = wrong
                try:
                    function(*given, **words)
                except (IndexError, TypeError, ValueError) as error:
                    said = str(error)
                    case = f"argument {place} is {kind}: {type(error).__name__}: {said}"
                    assert said.startswith((f"{name}: ", f"{place}: expected")), case
                    assert not any(phrase in said for phrase in FOREIGN), case
                    assert name == "getitem" or not isinstance(error, IndexError), case
                except Exception as error:
                    raise AssertionError(f"argument {place} is {kind}: {error!r}") from error


@pytest.mark.parametrize("call, says", [
    (lambda: x + Foreign(), "add: argument 1 is a test_words.Foreign, not a Tensor, an array or a "
     "number; np.asarray makes an array of it"),
    (lambda: ops.exp([x, x]), "exp: argument 0 is a list, .*; functional.stack makes a Tensor"),
    (lambda: x * None, "multiply: argument 1 is a NoneType"),
    (lambda: functional.mean([x]), "mean: expected a Tensor or an array, got list"),
    (lambda: functional.mean(ones(0, 3)), "mean: expected an axis of shape .0, 3. that is not e"),
    (lambda: functional.softmax(x, axis=5), "softmax: expected an axis of shape .4, 3."),
    (lambda: ops.sum(x, axis=5), "sum: float32 .4, 3., axis=5 does not fit; expected sum"),
    (lambda: ops.max(ones(0)), "max: float32 .0,. does not fit; .* ValueError for an empty axis"),
    (lambda: x @ 2.0, "matmul: .* does not fit; expected matmul.a, b, /.: a @ b: "),
    (lambda: x < ones(5), "lt: a Tensor of shape .4, 3. cannot be compared with shape .5,."),
    (lambda: int(x), "int: expected a Tensor of one element, got shape .4, 3."),
    (lambda: functional.conv2d(image, ones(8, 3, 5, 5)), "conv2d: .*layout.*.transpose.2, 3, 1, 0"),
    (lambda: layers.Sequential([layers.ReLU()]), "Sequential: expected modules, such as ReLU.. "),
    (lambda: layers.Sequential(layers.ReLU), "Sequential: expected modules, .* and not ReLU"),
    (lambda: optim.Adam(Critic()), "Adam: expected a list of Tensors, such as network.parameters"),
    (lambda: optim.SGD(x, 0.1), "SGD: expected a list of Tensors, .* got a tinygan.Tensor"),
    (lambda: losses.minimax_discriminator(scores, scores, 2.0), "minimax_discriminator: expected 0 "
     "<= smoothing <= 1, got 2.0"),
    (lambda: losses.nonsaturating_discriminator(scores, scores, 2.0),
     "nonsaturating_discriminator: minimax_discriminator: "),
    (lambda: np.concatenate([x, x]), "np.concatenate .*use tinygan.ops.concatenate"),
    (lambda: np.where(x > 0, x, 0), "np.where .*use tinygan.ops.where"),
    (lambda: np.mean(x), "np.mean .*use tinygan.functional.mean"),
    (lambda: np.linalg.norm(x), "np.norm .*use tinygan.ops.norm"),
    (lambda: np.median(x), "np.median .*use those of tinygan.ops and tinygan.functional")])
def test_what_people_do_by_mistake_is_answered_with_the_remedy(call, says):
    with pytest.raises((TypeError, ValueError), match=f"^{says}"):
        call()


def test_lists_are_pairs_where_tuples_are():
    for call in (lambda two: functional.conv2d(image, kernel, stride=two, padding=two),
                 lambda two: functional.conv_transpose2d(ones(2, 2, 5, 5), kernel, stride=two)):
        assert np.array_equal(call([2, 2]).data, call((2, 2)).data)
        assert np.array_equal(call([2, 2]).data, call(2).data)
