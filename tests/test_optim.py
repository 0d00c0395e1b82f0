"""Optimizers against definitions written out here from PyTorch's documentation, in float64 over 100 steps to 1e-12."""

import numpy as np
import pytest

from tinygan import Tensor, optim
from tinygan.layers import BatchNorm, Dense, Sequential
from tinygan.optim import SGD, Adam, ExponentialMovingAverage, RMSprop, WeightClip

STEPS = 100
SHAPES = [(3, 4), (4,), (), (2, 1, 2)]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


# ------------------------------------------------------------------------------------ written-out definitions
# Each yields the parameter after every step, for one parameter, from an iterator of gradients (torch.optim, "Algorithm").


def sgd(p, gradients, lr, momentum=0.0, nesterov=False):
    b = None
    for t, g in enumerate(gradients):
        if momentum != 0:
            b = g if t == 0 else momentum * b + g  # dampening 0
            g = g + momentum * b if nesterov else b
        p = p - lr(t) * g
        yield p


def rmsprop(p, gradients, lr, alpha=0.99, eps=1e-8):
    v = np.zeros_like(p)
    for t, g in enumerate(gradients):
        v = alpha * v + (1 - alpha) * g**2
        p = p - lr(t) * g / (np.sqrt(v) + eps)
        yield p


def adam(p, gradients, lr, betas=(0.9, 0.999), eps=1e-8):
    m, v = np.zeros_like(p), np.zeros_like(p)
    for t, g in enumerate(gradients):
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        m_hat, v_hat = m / (1 - betas[0] ** (t + 1)), v / (1 - betas[1] ** (t + 1))
        p = p - lr(t) * m_hat / (np.sqrt(v_hat) + eps)
        yield p


CASES = {"sgd": (SGD, sgd, {}), "momentum": (SGD, sgd, {"momentum": 0.9}),
         "nesterov": (SGD, sgd, {"momentum": 0.7, "nesterov": True}), "rmsprop": (RMSprop, rmsprop, {}),
         "rmsprop, its own alpha and eps": (RMSprop, rmsprop, {"alpha": 0.9, "eps": 1e-3}), "adam": (Adam, adam, {}),
         "adam for GANs": (Adam, adam, {"betas": (0.0, 0.9), "eps": 1e-4})}
RATES = {"constant": (0.02, lambda t: 0.02),
         "linear": (optim.linear(0.05, 80, 0.01), lambda t: 0.05 - 0.04 * min(t / 80, 1))}


def stream(rng, shapes, steps=STEPS):
    """Gradients whose size changes over the run by a factor of a thousand, zeros included."""
    return [[10 ** rng.uniform(-2, 1) * rng.normal(size=s) * (rng.random(s) > 0.1) for s in shapes] for _ in range(steps)]


def assert_follows(optimizer, parameters, gradients, reference):
    """Step by step; 1e-12 of the parameters' size, which is about 1."""
    paths = list(zip(*[reference(p.data.copy(), [g[i] for g in gradients]) for i, p in enumerate(parameters)]))
    assert len(paths) == len(gradients)
    for g, expected in zip(gradients, paths):
        optimizer.step(g)
        for p, e in zip(parameters, expected):
            np.testing.assert_allclose(p.data, e, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("case", CASES)
def test_optimizers_are_their_definitions(case, rate, rng):
    make, reference, options = CASES[case]
    lr, rule = RATES[rate]
    parameters = [Tensor(rng.normal(size=s)) for s in SHAPES]
    assert_follows(make(parameters, lr, **options), parameters, stream(rng, SHAPES),
                   lambda p, g: reference(p, g, rule, **options))


@pytest.mark.parametrize("case", CASES)
def test_parameters_larger_than_a_block_are_updated_alike(case, rng):
    """The flat state is updated in blocks; a parameter may cross several borders of them."""
    make, reference, options = CASES[case]
    shapes = [(7,), (optim.BLOCK * 2 + 5,), (3, 11)]
    parameters = [Tensor(rng.normal(size=s)) for s in shapes]
    assert_follows(make(parameters, 0.02, **options), parameters, stream(rng, shapes, steps=4),
                   lambda p, g: reference(p, g, lambda t: 0.02, **options))


@pytest.mark.parametrize("case", CASES)
def test_float32_stays_float32_and_close(case, rng):
    make, reference, options = CASES[case]
    p, gradients = Tensor(rng.normal(size=(3, 4)).astype(np.float32)), stream(rng, [(3, 4)], 20)
    *_, expected = reference(p.data.astype(np.float64), [g for (g,) in gradients], lambda t: 0.02, **options)
    optimizer = make([p], 0.02, **options)
    for g in gradients:
        optimizer.step([g[0].astype(np.float32)])
    assert p.dtype == np.float32 and {v.dtype for k, v in optimizer.state_dict().items() if k != "steps"} <= {p.dtype}
    np.testing.assert_allclose(p.data, expected, rtol=1e-4, atol=1e-4)  # 20 steps of up to 10 with roundings of 6e-8 each


def test_adams_first_step_has_the_length_of_the_learning_rate():
    """By the bias corrections: m_hat = g and v_hat = g^2, so the step is lr times the sign, whatever the gradient's size."""
    p = Tensor(np.zeros(4))
    Adam([p], 0.01, eps=0).step([np.array([1e-5, -1.0, 1e5, -3.0])])
    np.testing.assert_allclose(p.data, [-0.01, 0.01, -0.01, 0.01], rtol=1e-14)


def test_hyperparameters_may_change_between_steps():
    p = Tensor(np.zeros(1))
    optimizer = SGD([p], 1.0)
    optimizer.step([np.ones(1)])
    optimizer.lr = 10.0
    optimizer.step([np.ones(1)])
    assert p.data[0] == -11


def test_gradients_may_be_tensors_or_views():
    p, q = Tensor(np.zeros((2, 2))), Tensor(np.zeros((2, 2)))
    g = np.arange(4.0).reshape(2, 2)
    SGD([p, q], 1.0).step([Tensor(g), g.T])
    assert np.array_equal(p.data, -g) and np.array_equal(q.data, -g.T)


def test_a_step_keeps_the_parameters_memory_and_the_gradients(rng):
    p, g = Tensor(np.ones(3)), np.ones(3)
    memory, g.flags.writeable = p.data, False
    Adam([p]).step([g])
    assert p.data is memory and not np.array_equal(memory, np.ones(3))


# ------------------------------------------------------------------------------------------------- schedules


def test_a_linear_schedule_is_a_straight_line_and_then_stays():
    lr = optim.linear(0.4, 10, 0.1)
    assert [lr(t) for t in (0, 5, 10, 11, 1000)] == pytest.approx([0.4, 0.25, 0.1, 0.1, 0.1], rel=1e-15)
    assert optim.linear(0.4, 10)(10) == 0
    assert [optim.constant(0.3)(t) for t in (0, 10**6)] == [0.3, 0.3]


def test_a_schedule_sees_the_number_of_steps_before():
    seen = []
    p = Tensor(np.zeros(1))
    optimizer = SGD([p], lambda t: seen.append(t) or 1.0)
    for _ in range(3):
        optimizer.step([np.ones(1)])
    assert seen == [0, 1, 2] and optimizer.steps == 3


# ----------------------------------------------------------------------------------------- state and errors


@pytest.mark.parametrize("case", CASES)
def test_a_saved_and_loaded_optimizer_goes_on_bit_for_bit(case, rng):
    make, _, options = CASES[case]
    gradients = stream(rng, SHAPES, 20)
    start = [rng.normal(size=s) for s in SHAPES]

    def run(interrupted):
        parameters = [Tensor(s) for s in start]
        optimizer = make(parameters, optim.linear(0.05, 20), **options)
        for t, g in enumerate(gradients):
            if interrupted and t == 7:
                state = optimizer.state_dict()
                saved = [p.data.copy() for p in parameters]
                optimizer.step(g)  # after the copies: must not reach them
                parameters = [Tensor(p) for p in saved]
                optimizer = make(parameters, optim.linear(0.05, 20), **options)
                optimizer.load_state_dict(state)
            optimizer.step(g)
        return [p.data.tobytes() for p in parameters], {k: v.tobytes() for k, v in optimizer.state_dict().items()}

    assert run(True) == run(False)


@pytest.mark.parametrize("spoil", [lambda s: s.pop("steps"), lambda s: s.pop("mean"), lambda s: s.update(extra=np.ones(1)),
                                   lambda s: s.update(mean=np.ones(2)), lambda s: s.update(steps=np.ones(2))])
def test_an_unfitting_state_changes_nothing(spoil):
    p = Tensor(np.ones(3))
    optimizer = Adam([p])
    optimizer.step([np.ones(3)])
    before = {k: v.tobytes() for k, v in optimizer.state_dict().items()}
    state = {k: v + 1 for k, v in optimizer.state_dict().items()}
    spoil(state)
    with pytest.raises(ValueError, match="Adam.load_state_dict: expected .*, got"):
        optimizer.load_state_dict(state)
    assert {k: v.tobytes() for k, v in optimizer.state_dict().items()} == before


@pytest.mark.parametrize("gradients", [[], [np.ones(3)], [np.ones(3), np.ones(3)], [np.ones((3, 1)), np.ones(2)],
                                       [np.ones(3), np.ones(2), np.ones(2)]])
def test_gradients_of_other_shapes_are_refused(gradients):
    parameters = [Tensor(np.ones(3)), Tensor(np.ones(2))]
    optimizer = Adam(parameters)
    with pytest.raises(ValueError, match=r"Adam.step: expected gradients of shapes \[\(3,\), \(2,\)\], got"):
        optimizer.step(gradients)
    assert optimizer.steps == 0 and all((p.data == 1).all() for p in parameters)


def test_bad_settings_are_refused():
    p, q = Tensor(np.ones(2)), Tensor(np.ones(2, np.float32))
    for make, message in ((lambda: Adam([]), "at least one parameter"), (lambda: Adam([p, p]), "each once"),
                          (lambda: Adam([p, q]), "different dtypes"), (lambda: SGD([p], -1.0), "must be >= 0, got -1.0"),
                          (lambda: SGD([p], float("nan")), "must be >= 0"), (lambda: RMSprop([p], -0.1), "RMSprop"),
                          (lambda: SGD([p], 0.1, nesterov=True), "nesterov needs a momentum"),
                          (lambda: WeightClip([p], 0.0), "limit must be > 0"),
                          (lambda: WeightClip([p], float("nan")), "limit must be > 0"),
                          (lambda: ExponentialMovingAverage(Sequential(), 1.0), "0 <= decay < 1"),
                          (lambda: ExponentialMovingAverage(Sequential(), -0.1), "0 <= decay < 1")):
        with pytest.raises(ValueError, match=message):
            make()


# ------------------------------------------------------------------------------ weight clip and moving average


def test_weights_are_clipped_to_the_limit():
    p = Tensor(np.array([-5.0, -0.1, 0.0, 0.05, 0.2]))
    memory = p.data
    WeightClip([p], 0.1).step()
    assert np.array_equal(p.data, [-0.1, -0.1, 0, 0.05, 0.1]) and p.data is memory


def test_the_moving_average_follows_parameters_and_buffers(rng):
    """a <- d a + (1 - d) s with d = min(decay, (1 + t) / (10 + t)), written out."""
    source = Sequential(Dense(2, 3, rng=rng, dtype=np.float64), BatchNorm(3, dtype=np.float64))
    average = ExponentialMovingAverage(source, decay=0.3)
    expected = source.state_dict()
    for t in range(6):
        source(rng.normal(size=(4, 2)))  # moves the running statistics
        for p in source.parameters():
            p.assign(rng.normal(size=p.shape))
        average.update()
        d = min(0.3, (1 + t) / (10 + t))
        expected = {k: d * v + (1 - d) * source.state_dict()[k] for k, v in expected.items()}
        for name, value in average.network.state_dict().items():
            np.testing.assert_allclose(value, expected[name], rtol=1e-12, atol=1e-13)
    assert not np.array_equal(expected["layers.1.running_mean"], np.zeros(3))


def test_the_average_is_a_network_of_its_own_in_evaluation(rng):
    source = Sequential(Dense(2, 3, rng=rng), BatchNorm(3))
    average = ExponentialMovingAverage(source)
    before = {k: v.tobytes() for k, v in source.state_dict().items()}
    average.update()
    average.network(np.ones((1, 2), np.float32))
    assert source.training and not average.network.training
    assert {k: v.tobytes() for k, v in source.state_dict().items()} == before
    mine, yours = (network.named_tensors() for network in (source, average.network))
    assert not any(np.shares_memory(a.data, b.data) for (_, a, _), (_, b, _) in zip(mine, yours))


def test_the_average_of_a_resting_network_is_the_network(rng):
    source = Dense(2, 3, rng=rng)
    average = ExponentialMovingAverage(source)
    for _ in range(5):
        average.update()
    assert np.array_equal(average.network.weight.data, source.weight.data)


def test_what_cannot_be_assigned_is_no_parameter():
    w = Tensor(np.ones((2, 3)))
    for wrong in (w.T, w * 2, np.ones(3)):
        with pytest.raises(ValueError, match="no operation's results"):
            SGD([wrong], 0.1)


@pytest.mark.parametrize("data", [np.asfortranarray(np.ones((2, 3))), np.arange(6).reshape(2, 3).T, np.ones((3, 2))[:, ::-1],
                                  np.broadcast_to(np.float32(1), (2, 3))], ids=["F", "transposed", "negative", "stride 0"])
def test_parameters_move_whatever_the_layout_they_came_in(data):
    w = Tensor(data)
    before = w.data.copy()
    SGD([w], 0.5).step([np.ones(w.shape, w.dtype)])
    assert np.array_equal(w.data, before - 0.5)
