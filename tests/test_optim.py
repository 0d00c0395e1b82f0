"""Optimizers against PyTorch's definitions, written out here in float64, 100 steps to 1e-12."""

import numpy as np
import pytest

from tinygan import Tensor, layers, optim
from tinygan.layers import BatchNorm, Dense, Sequential
from tinygan.optim import SGD, Adam, ExponentialMovingAverage, RMSprop, WeightClip

STEPS = 100
SHAPES = [(3, 4), (4,), (), (2, 1, 2)]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


# ------------------------------------------------------------------------- written-out definitions
# Each yields the parameter after every step (torch.optim, "Algorithm"), from pairs of a gradient
# and the hyper-parameters at that step.


def sgd(p, steps):
    b = np.zeros_like(p)
    for g, now in steps:
        b = now["momentum"] * b + g  # dampening 0
        p = p - now["lr"] * (g + now["momentum"] * b if now["nesterov"] else b)
        yield p


def rmsprop(p, steps):
    v = np.zeros_like(p)
    for g, now in steps:
        v = now["alpha"] * v + (1 - now["alpha"]) * g**2
        p = p - now["lr"] * g / (np.sqrt(v) + now["eps"])
        yield p


def adam(p, steps):
    m, v = np.zeros_like(p), np.zeros_like(p)
    for t, (g, now) in enumerate(steps, start=1):
        b1, b2 = now["betas"]
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        m_hat, v_hat = m / (1 - b1**t), v / (1 - b2**t)
        p = p - now["lr"] * m_hat / (np.sqrt(v_hat) + now["eps"])
        yield p


DEFINITIONS = {  # and the defaults of the hyper-parameters
    SGD: (sgd, {"momentum": 0.0, "nesterov": False}),
    RMSprop: (rmsprop, {"alpha": 0.99, "eps": 1e-8}),
    Adam: (adam, {"betas": (0.9, 0.999), "eps": 1e-8})}
CASES = {"sgd": (SGD, {}), "momentum": (SGD, {"momentum": 0.9}),
         "nesterov": (SGD, {"momentum": 0.7, "nesterov": True}), "rmsprop": (RMSprop, {}),
         "rmsprop, its own alpha and eps": (RMSprop, {"alpha": 0.9, "eps": 1e-3}),
         "adam": (Adam, {}), "adam for GANs": (Adam, {"betas": (0.0, 0.9), "eps": 1e-4})}
RATES = {"constant": (0.02, lambda t: 0.02),
         "linear": (optim.linear(0.05, 80, 0.01), lambda t: 0.05 - 0.04 * min(t / 80, 1))}


def stream(rng, shapes, steps=STEPS):
    """Gradients whose size changes over the run by a factor of a thousand, zeros included."""
    return [[10 ** rng.uniform(-2, 1) * rng.normal(size=s) * (rng.random(s) > 0.1) for s in shapes]
            for _ in range(steps)]


def constant(options, gradients, rate=lambda t: 0.02):
    """The hyper-parameters at each step where only the learning rate changes."""
    return [{**options, "lr": rate(t)} for t in range(len(gradients))]


def paths(kind, starts, gradients, settings):
    """The parameters after each step, by the definition in float64."""
    definition, defaults = DEFINITIONS[kind]
    settings = [defaults | now for now in settings]
    return list(zip(*[definition(np.asarray(p, float), zip([g[i] for g in gradients], settings))
                      for i, p in enumerate(starts)]))


def assert_follows(optimizer, gradients, settings):
    """Step by step; 1e-12 of the parameters' size, which is about 1."""
    starts = [p.data.copy() for p in optimizer.parameters]
    expected = paths(type(optimizer), starts, gradients, settings)
    assert len(expected) == len(gradients)
    for g, after in zip(gradients, expected):
        optimizer.step(g)
        for p, e in zip(optimizer.parameters, after):
            np.testing.assert_allclose(p.data, e, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("case", CASES)
def test_optimizers_are_their_definitions(case, rate, rng):
    (kind, options), (lr, rule) = CASES[case], RATES[rate]
    optimizer = kind([Tensor(rng.normal(size=s)) for s in SHAPES], lr, **options)
    gradients = stream(rng, SHAPES)
    assert_follows(optimizer, gradients, constant(options, gradients, rule))


@pytest.mark.parametrize("case", CASES)
def test_parameters_larger_than_a_block_are_updated_alike(case, rng):
    """The flat state is updated in blocks; a parameter may cross several borders of them."""
    kind, options = CASES[case]
    shapes = [(7,), (optim.BLOCK * 2 + 5,), (3, 11)]
    optimizer = kind([Tensor(rng.normal(size=s)) for s in shapes], 0.02, **options)
    gradients = stream(rng, shapes, steps=4)
    assert_follows(optimizer, gradients, constant(options, gradients))


@pytest.mark.parametrize("case", CASES)
def test_float32_stays_float32_and_close(case, rng):
    kind, options = CASES[case]
    p, gradients = Tensor(rng.normal(size=(3, 4)).astype(np.float32)), stream(rng, [(3, 4)], 20)
    *_, (expected,) = paths(kind, [p.data.copy()], gradients, constant(options, gradients))
    optimizer = kind([p], 0.02, **options)
    for g in gradients:
        optimizer.step([g[0].astype(np.float32)])
    state = optimizer.state_dict()
    assert p.dtype == np.float32 and {state[slot].dtype for slot in optimizer.slots} == {p.dtype}
    # 20 steps of up to 10 with roundings of 6e-8 each
    np.testing.assert_allclose(p.data, expected, rtol=1e-4, atol=1e-4)


CHANGES = [  # (optimizer, its options at first, a hyper-parameter, its values in turn)
    (SGD, {"momentum": 0.9}, "lr", [0.1, 0.02, 0.3]), (SGD, {}, "momentum", [0.9, 0.5, 0.99]),
    (SGD, {"momentum": 0.9}, "nesterov", [False, True]), (RMSprop, {}, "lr", [0.1, 0.02]),
    (RMSprop, {}, "alpha", [0.99, 0.5, 0.9]), (RMSprop, {}, "eps", [1e-8, 0.1]),
    (Adam, {}, "lr", [0.1, 0.02]), (Adam, {}, "eps", [1e-8, 0.1]),
    (Adam, {}, "betas", [(0.9, 0.999), (0.5, 0.999), (0.5, 0.9), (0.0, 0.99)])]


@pytest.mark.parametrize("kind, options, name, values", CHANGES,
                         ids=[f"{kind.__name__} {name}" for kind, _, name, _ in CHANGES])
def test_hyperparameters_may_change_between_steps(kind, options, name, values, rng):
    optimizer = kind([Tensor(rng.normal(size=s)) for s in SHAPES], 0.02, **options)
    gradients = stream(rng, SHAPES, 20)
    settings = [{"lr": 0.02, **options, name: values[t % len(values)]} for t in range(20)]
    starts = [p.data.copy() for p in optimizer.parameters]
    for g, now, after in zip(gradients, settings, paths(kind, starts, gradients, settings)):
        setattr(optimizer, name, now[name])
        optimizer.step(g)
        for p, e in zip(optimizer.parameters, after):
            np.testing.assert_allclose(p.data, e, rtol=1e-12, atol=1e-12)


def test_adam_with_another_beta_from_the_second_step_on():
    p = Tensor(np.zeros(1))
    optimizer, path = Adam([p], 0.1), []
    for g, b1 in ((1.0, 0.9), (0.5, 0.5), (-0.3, 0.5)):
        optimizer.betas = (b1, 0.999)
        optimizer.step([np.array([g])])
        path.append(float(p.data[0]))
    np.testing.assert_allclose(path, [-0.10000, -0.15060, -0.15060], rtol=0, atol=5e-6)


def test_adam_keeps_the_papers_moments():
    """Over two steps: m = b1 (1 - b1) g_1 + (1 - b1) g_2, and v alike from the squares."""
    optimizer = Adam([Tensor(np.zeros(2))], betas=(0.75, 0.5))
    first, second = np.array([1.0, -2.0]), np.array([0.5, 4.0])
    optimizer.step([first])
    optimizer.step([second])
    state = optimizer.state_dict()
    assert list(state) == ["steps", "m", "v"] and state["steps"] == 2
    np.testing.assert_allclose(state["m"], 0.25 * (0.75 * first + second), rtol=1e-15)
    np.testing.assert_allclose(state["v"], 0.5 * (0.5 * first**2 + second**2), rtol=1e-15)


def test_adams_first_step_has_the_length_of_the_learning_rate():
    """m_hat = g and v_hat = g^2: the step is lr times the sign, whatever the gradient's size."""
    p = Tensor(np.zeros(4))
    Adam([p], 0.01, eps=0).step([np.array([1e-5, -1.0, 1e5, -3.0])])
    np.testing.assert_allclose(p.data, [-0.01, 0.01, -0.01, 0.01], rtol=1e-14)


@pytest.mark.parametrize("kind, options, size", [
    (Adam, {}, 5e20), (Adam, {"betas": (0.5, 0.999)}, 5e20), (Adam, {"betas": (0.0, 0.9)}, 5e19),
    (RMSprop, {}, 1.5e20), (RMSprop, {"alpha": 0.9}, 5e19)])
def test_a_float32_gradient_whose_square_overflows_takes_the_step_of_a_smaller_one(
        kind, options, size):
    """As long as (1 - b2) g^2 is finite, as in PyTorch: the step does not depend on the size."""
    paths = []
    for scale in (1.0, size):
        p = Tensor(np.zeros(2, "f4"))
        kind([p], 0.02, **options).step([np.array([scale, -scale / 8], "f4")])
        paths.append(p.data)
    assert paths[0].all()
    np.testing.assert_allclose(paths[1], paths[0], rtol=1e-6)


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


# --------------------------------------------------------------------------------------- schedules


def test_a_linear_schedule_is_a_straight_line_and_then_stays():
    lr = optim.linear(0.4, 10, 0.1)
    rates = [lr(t) for t in (0, 5, 10, 11, 1000)]
    assert rates == pytest.approx([0.4, 0.25, 0.1, 0.1, 0.1], rel=1e-15)
    assert optim.linear(0.4, 10)(10) == 0


def test_a_schedule_sees_the_number_of_steps_before():
    seen = []
    p = Tensor(np.zeros(1))
    optimizer = SGD([p], lambda t: seen.append(t) or 1.0)
    for _ in range(3):
        optimizer.step([np.ones(1)])
    assert seen == [0, 1, 2] and optimizer.steps == 3


# -------------------------------------------------------------------------------- state and errors


@pytest.mark.parametrize("case", CASES)
def test_a_saved_and_loaded_optimizer_goes_on_bit_for_bit(case, rng):
    make, options = CASES[case]
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
        state = {k: v.tobytes() for k, v in optimizer.state_dict().items()}
        return [p.data.tobytes() for p in parameters], state

    assert run(True) == run(False)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.9)])
def test_adam_goes_on_from_a_state_that_version_0_1_0_saved(betas, dtype, rng):
    """It held ``mean`` = m / (1 - b1) and ``square`` = v / (1 - b2), here by recursion."""
    p = Tensor(rng.normal(size=4).astype(dtype))
    optimizer, mean, square = Adam([p], 0.02, betas), np.zeros(4, dtype), np.zeros(4, dtype)
    gradients = [g.astype(dtype) for (g,) in stream(rng, [(4,)], 20)]
    for g in gradients[:10]:
        optimizer.step([g])
        mean, square = betas[0] * mean + g, betas[1] * square + g * g
    resumed = Adam([Tensor(p.data)], 0.02, betas)
    old = {"steps": np.array(10), "mean": mean, "square": square}
    found = resumed.upgraded(old)
    assert {name: (a.dtype, a.shape) for name, a in found.items()} == {
        name: (a.dtype, a.shape) for name, a in optimizer.state_dict().items()}
    resumed.load_state_dict(old)
    for g in gradients[10:]:
        optimizer.step([g])
        resumed.step([g])
    np.testing.assert_allclose(resumed.parameters[0].data, p.data, rtol=1000 * np.finfo(dtype).eps)
    present = resumed.state_dict()
    assert resumed.upgraded(present) == present and present["steps"] == 20


@pytest.mark.parametrize("spoil", [
    lambda s: s.pop("steps"), lambda s: s.pop("m"), lambda s: s.update(extra=np.ones(1)),
    lambda s: s.update(m=np.ones(2)), lambda s: s.update(steps=np.ones(2)),
    lambda s: s.update(mean=s.pop("m")), lambda s: s.update(mean=s.pop("m"), square=np.ones(2))])
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


@pytest.mark.parametrize("gradients", [
    [], [np.ones(3)], [np.ones(3), np.ones(3)], [np.ones((3, 1)), np.ones(2)],
    [np.ones(3), np.ones(2), np.ones(2)]])
def test_gradients_of_other_shapes_are_refused(gradients):
    parameters = [Tensor(np.ones(3)), Tensor(np.ones(2))]
    optimizer = Adam(parameters)
    shapes = r"\[\(3,\), \(2,\)\]"
    with pytest.raises(ValueError, match=f"Adam.step: expected gradients of shapes {shapes}, got"):
        optimizer.step(gradients)
    assert optimizer.steps == 0 and all((p.data == 1).all() for p in parameters)


P, Q = Tensor(np.ones(2)), Tensor(np.ones(2, np.float32))


@pytest.mark.parametrize("make, message", [
    (lambda: Adam([]), "at least one parameter"), (lambda: Adam([P, P]), "each once"),
    (lambda: Adam([P, Q]), "different dtypes"), (lambda: SGD([P], -1.0), "must be >= 0, got -1.0"),
    (lambda: SGD([P], float("nan")), "must be >= 0"), (lambda: RMSprop([P], -0.1), "RMSprop"),
    (lambda: SGD([P], 0.1, nesterov=True), "nesterov needs a momentum"),
    (lambda: SGD([P], 0.1, momentum=-0.5), "SGD: expected momentum >= 0, got -0.5"),
    (lambda: RMSprop([P], 0.1, alpha=1.0), "RMSprop: expected 0 <= alpha < 1 .*got 1.0"),
    (lambda: RMSprop([P], 0.1, eps=-1.0), "eps >= 0, got .*-1.0"),
    (lambda: Adam([P], betas=(0.9, 1.0)), r"Adam: expected 0 <= betas < 1 .*got \(0.9, 1.0\)"),
    (lambda: Adam([P], betas=(-0.1, 0.9)), "0 <= betas"),
    (lambda: Adam([P], eps=float("nan")), "eps >= 0"),
    (lambda: WeightClip([P], 0.0), "limit must be > 0"),
    (lambda: WeightClip([P], float("nan")), "limit must be > 0"),
    (lambda: ExponentialMovingAverage(Sequential(), 1.0), "0 <= decay < 1"),
    (lambda: ExponentialMovingAverage(Sequential(), -0.1), "0 <= decay < 1")])
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("kind", [RMSprop, Adam])
def test_float16_is_refused_where_squares_are_kept(kind):
    """eps = 1e-8 is 0 there, so a gradient of 0 would give 0 / 0."""
    p = Tensor(np.ones(2, np.float16))
    with pytest.raises(ValueError, match=f"{kind.__name__}: float16 is too narrow.*use float32"):
        kind([p], 0.1)
    SGD([p], 0.5).step([np.ones(2, np.float16)])
    assert np.array_equal(p.data, [0.5, 0.5])


def test_an_optimizer_of_ones_own_has_attributes_of_its_own():
    class Signs(optim.Optimizer):
        """p -= lr alpha sign(g), for any alpha."""

        def __init__(self, parameters, lr):
            self.alpha, self.betas, self.eps = 2.0, "none", -1
            super().__init__(parameters, lr)

        def update(self, rates, g, *state):
            np.sign(g, out=g)
            g *= self.alpha * rates[0]

    p = Tensor(np.zeros(3))
    Signs([p], 0.5).step([np.array([3.0, -0.1, 0.0])])
    assert np.array_equal(p.data, [-1, 1, 0])


# ------------------------------------------------------------------ weight clip and moving average


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
        with pytest.raises(ValueError, match="not the result of an operation"):
            SGD([wrong], 0.1)


@pytest.mark.parametrize("data", [
    np.asfortranarray(np.ones((2, 3))), np.arange(6).reshape(2, 3).T, np.ones((3, 2))[:, ::-1],
    np.broadcast_to(np.float32(1), (2, 3))], ids=["F", "transposed", "negative", "stride 0"])
def test_parameters_move_whatever_the_layout_they_came_in(data):
    w = Tensor(data)
    before = w.data.copy()
    SGD([w], 0.5).step([np.ones(w.shape, w.dtype)])
    assert np.array_equal(w.data, before - 0.5)


@pytest.mark.parametrize("text", [
    "SGD(parameters, 0.1, momentum=0.9, nesterov=True)", "RMSprop(parameters, 0.1)",
    "Adam(parameters, lr=linear(lr=0.1, steps=9, final=0.0), betas=(0.0, 0.9))",
    "Adam(parameters)", "WeightClip(parameters, 0.1)",
    "ExponentialMovingAverage(ReLU(), decay=0.9)"])
def test_an_optimizer_is_shown_as_one_would_type_it(text):
    names = vars(optim) | {"parameters": [Tensor([1.0])], "ReLU": layers.ReLU}
    assert repr(eval(text, names)) == text
