"""The contract of the engine: what ``Tensor`` and ``grad`` promise, whatever the operation."""

import gc
import tracemalloc
import weakref
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygan as tg
from tinygan import PRIMITIVES, Tensor, conv, functional, grad, ops
from tinygan.tensor import Primitive, primitive
from tinygan.testing import gradcheck

LONG = 20_000


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@contextmanager
def collector_off():
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def counted_rules(name):
    """A list that grows by the slot number whenever a rule of a primitive is applied."""
    primitive, calls = PRIMITIVES[name], []
    rules = primitive.rules

    def spy(slot, rule):
        def called(*arguments, **statics):
            calls.append(slot)
            return rule(*arguments, **statics)
        return called

    primitive.rules = tuple(rule and spy(slot, rule) for slot, rule in enumerate(rules))
    try:
        yield calls
    finally:
        primitive.rules = rules


def chain(x, length):
    for _ in range(length):
        x = x * 1.0001
    return x


# ------------------------------------------------------------------------------------- construction


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
def test_floating_arrays_keep_their_dtype(dtype):
    assert Tensor(np.ones(3, dtype)).dtype == dtype
    assert Tensor(dtype(1)).dtype == dtype


@pytest.mark.parametrize("data", [1, 1.5, True, [1, 2], [0.1, 0.2], [[True]], [], np.arange(3),
                                  np.int64(3), np.bool_(True),
                                  np.ones(2, np.uint8), np.ones(2, bool), [np.float64(1)]])
def test_everything_else_becomes_float32(data):
    t = Tensor(data)
    assert t.dtype == np.float32 and t.shape == np.shape(data) and type(t.data) is np.ndarray
    assert np.array_equal(t.data, np.asarray(data, np.float32))


@pytest.mark.parametrize("data", ["text", ["a"], None, object(), 1j, [1j], np.ones(2, complex),
                                  np.array([None]), {}])
def test_what_is_not_numeric_is_a_type_error(data):
    with pytest.raises(TypeError, match="expected numbers, got"):
        Tensor(data)


def test_a_tensor_of_a_tensor_is_refused():
    with pytest.raises(TypeError, match="stop_gradient"):
        Tensor(Tensor(1.0))


def test_data_is_copied_both_ways():
    source = np.ones(3)
    t = Tensor(source)
    source[:] = 7
    assert np.array_equal(t.data, [1, 1, 1])
    t.assign(np.zeros(3))
    assert np.array_equal(source, [7, 7, 7])


def test_attributes_are_those_of_the_array():
    t = Tensor(np.ones((2, 3)))
    assert (t.shape, t.dtype, t.ndim, t.size, len(t)) == ((2, 3), np.float64, 2, 6, 2)
    assert float(Tensor(2.5)) == 2.5 and bool(Tensor(1.0)) and not bool(Tensor(0.0))
    assert repr(Tensor([1.0])) == "Tensor(array([1.], dtype=float32))"


@pytest.mark.parametrize("convert",
                         [np.asarray, np.array, lambda t: np.exp(t), lambda t: np.array([t])])
def test_a_tensor_never_turns_into_an_array_silently(convert):
    with pytest.raises(TypeError):
        convert(Tensor([1.0, 2.0]))


def test_tensors_are_keys_by_identity():
    a, b = Tensor([1.0, 2.0]), Tensor([1.0, 2.0])
    assert {a: 1, b: 2} == {a: 1, b: 2} and len({a, b, a}) == 2


@pytest.mark.parametrize("compare", [lambda a, b: a < b, lambda a, b: a <= b, lambda a, b: a > b,
                                     lambda a, b: a >= b,
                                     lambda a, b: a == b, lambda a, b: a != b])
def test_comparisons_give_plain_arrays(compare):
    a, b = np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])
    for mask in (compare(Tensor(a), Tensor(b)), compare(Tensor(a), b), compare(a, Tensor(b))):
        assert type(mask) is np.ndarray and np.array_equal(mask, compare(a, b))


# ---------------------------------------------------------------------- assignment and stale graphs


def test_assignment_writes_into_the_same_memory():
    t = Tensor([1.0, 2.0])
    memory = t.data
    t.data = [3.0, 4.0]
    assert t.data is memory and np.array_equal(memory, [3, 4])
    t.assign(np.array([5, 6]))
    assert t.data is memory and t.dtype == np.float32


@pytest.mark.parametrize("value", [1.0, [1.0], [1.0, 2.0, 3.0], [[1.0, 2.0]]])
def test_assignment_of_another_shape_is_refused(value):
    t = Tensor([1.0, 2.0])
    with pytest.raises(ValueError, match=r"expected shape \(2,\), got"):
        t.assign(value)
    assert np.array_equal(t.data, [1, 2])


def test_a_result_cannot_be_assigned():
    y = ops.exp(Tensor([1.0]))
    with pytest.raises(ValueError, match="result of exp"):
        y.data = [2.0]


def adam_step(w):
    tg.optim.Adam([w]).step([np.ones_like(w.data)])


def load_into(w):
    layer = tg.layers.Dense(2, 2, rng=np.random.default_rng(1), dtype=np.float64)
    layer.weight = w
    layer.load_state_dict(layer.state_dict())


CHANGES = {"assign": lambda w: w.assign(w.data + 1),
           "data": lambda w: setattr(w, "data", np.ones((2, 2))),
           "optimizer": adam_step, "load_state_dict": load_into,
           "weight clip": lambda w: tg.optim.WeightClip([w], 0.1).step()}
READERS = {"directly": lambda w: w, "a reshape": lambda w: w.reshape(2, 2),
           "a transpose": lambda w: w.T,
           "a slice": lambda w: w[:, :], "two views": lambda w: w.reshape(4).reshape(2, 2),
           "a broadcast": lambda w: ops.broadcast_to(w, (3, 2, 2))}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("reader", READERS)
def test_a_stale_graph_raises_and_names_the_operation(change, reader, rng):
    """For the assigned Tensor's own gradient, and for another's that needs its value."""
    w, x = Tensor(rng.normal(size=(2, 2))), Tensor(rng.normal(size=(2, 2)))
    product = READERS[reader](w) * x
    loss = product.sum()
    CHANGES[change](w)
    reading = "multiply|reshape|transpose|getitem|broadcast_to"
    for inputs in ([w], [x], [x, w]):
        with pytest.raises(RuntimeError, match=f"stale.*({reading}).*assigned after"):
            grad(loss, inputs)


def test_the_gradient_of_a_gradient_goes_stale_too():
    w = Tensor([2.0])
    (g,) = grad((w * w * w).sum(), [w], create_graph=True)
    w.assign([3.0])
    with pytest.raises(RuntimeError, match="stale"):
        grad(g.sum(), [w])


def test_a_graph_recorded_after_the_assignment_is_fresh():
    w = Tensor([2.0])
    view = w.reshape(1, 1)
    w.assign([3.0])
    for y in ((w * w).sum(), (view * view).sum()):
        assert np.isfinite(float(y))
    assert grad((w * w).sum(), [w])[0] == 6
    assert grad((view * view).sum(), [view])[0] == 6  # all of this was computed from the new value


def test_a_parameter_beside_the_path_may_change():
    """The graph of D(G(z)) with respect to D's parameters does not read G's any more."""
    g, d = Tensor([2.0]), Tensor([5.0])
    fake = g * 3.0
    score = (fake * d).sum()
    g.assign([100.0])
    assert grad(score, [d])[0] == 6


# -------------------------------------------------------------------------------- graphs and memory


def test_a_long_chain_differentiates_and_is_freed_without_recursion():
    x = Tensor(np.ones(2))
    y = chain(x, LONG)
    dead = weakref.ref(y)
    (g,) = grad(y.sum(), [x])
    np.testing.assert_allclose(g, 1.0001**LONG, rtol=LONG * 1e-15)
    with collector_off():
        del y
        assert dead() is None


def test_a_long_chain_differentiates_twice():
    x = Tensor(1.0)
    y = chain(x, LONG)
    (g,) = grad(y * y, [x], create_graph=True)
    (h,) = grad(g, [x])
    # float32 throughout: 40,000 roundings of 6e-8
    assert h == pytest.approx(2 * 1.0001 ** (2 * LONG), rel=1e-2)


@pytest.mark.parametrize("orders", [0, 1, 2])
def test_a_dropped_loss_frees_its_graph_without_the_collector(orders):
    x = Tensor(np.ones(3))
    with collector_off():
        middle = ops.tanh(x * x)
        loss = (middle * middle).sum()
        for _ in range(orders):
            (g,) = grad(loss, [x], create_graph=True)
            loss = (g * g).sum()
            del g
        references = [weakref.ref(middle), weakref.ref(loss)]
        del middle, loss
        assert [r() for r in references] == [None, None]
        assert gc.collect() == 0


def test_training_does_not_grow():
    """1,000 steps of a penalized critic, the collector off: no cycles, no more memory."""
    rng = np.random.default_rng(0)
    critic = tg.layers.Sequential(tg.layers.Dense(2, 8, rng=rng), tg.layers.ReLU(),
                                  tg.layers.Dense(8, 1, rng=rng))
    optimizer = tg.optim.Adam(critic.parameters())
    real, fake = rng.normal(size=(2, 4, 2)).astype(np.float32)

    def step():
        penalty = tg.losses.gradient_penalty(critic, real, fake, rng=rng)
        optimizer.step(grad(tg.losses.wasserstein_critic(critic(real), critic(fake)) + penalty,
                            critic.parameters()))

    def memory():
        assert gc.collect() == 0  # also empties the free lists of tuples, which are no growth
        return tracemalloc.get_traced_memory()[0]

    with collector_off():
        tracemalloc.start()
        try:
            step()
            before = memory()
            for _ in range(1000):
                step()
            grown = memory() - before
        finally:
            tracemalloc.stop()
    # a forgotten Tensor a step takes 100,000; the caches of CPython and NumPy 20,000
    assert grown < 50_000


def test_only_the_nodes_between_inputs_and_output_are_visited():
    g, d = Tensor(np.ones(3)), Tensor(np.ones(3))
    fake = ops.exp(ops.exp(g))
    loss = (ops.tanh(fake * d)).sum()
    with counted_rules("exp") as exps, counted_rules("multiply") as products:
        with counted_rules("tanh") as tanhs:
            grad(loss, [d])
    assert exps == [] and tanhs == [0] and products == [1]


def test_what_does_not_lead_to_the_output_is_not_visited():
    x = Tensor(np.ones(3))
    y = x * 2.0
    unused = ops.exp(y)
    with counted_rules("exp") as calls:
        grad(y.sum(), [x])
    assert calls == [] and unused.shape == (3,)


def test_the_walk_stops_at_the_inputs():
    x = Tensor(np.ones(3))
    middle = ops.exp(x)
    with counted_rules("exp") as calls:
        (g,) = grad((middle * 3.0).sum(), [middle])
    assert calls == [] and np.array_equal(g, [3, 3, 3])


def test_a_shared_node_is_visited_once():
    x = Tensor(np.array([0.3, 0.7]))
    y = ops.exp(x)
    for _ in range(4):
        y = y + y
    with counted_rules("exp") as calls:
        (g,) = grad(y.sum(), [x])
    assert calls == [0]
    np.testing.assert_allclose(g, 16 * np.exp(x.data), rtol=1e-15)


@pytest.mark.parametrize("k", range(1, 6))
def test_a_tensor_used_k_times_gets_k_contributions(k):
    x = Tensor(np.array([3.0, 5.0]))
    y, z = x, x
    for _ in range(k - 1):
        y, z = y + x, z * x
    (g,) = grad(y.sum(), [x])
    assert np.array_equal(g, [k, k])
    (g,) = grad(z.sum(), [x])
    assert np.array_equal(g, k * x.data ** (k - 1))


def test_the_same_graph_gives_the_same_gradient_again():
    x = Tensor(np.array([0.5, 2.0]))
    loss = (ops.exp(x) * x).sum()
    first = grad(loss, [x])[0]
    grad(loss, [x], create_graph=True)
    assert np.array_equal(first, grad(loss, [x])[0])


def test_inputs_may_lie_on_the_way_to_each_other():
    x = Tensor(np.array([2.0]))
    y = x * x
    z = y * y
    gx, gy, gz = grad(z.sum(), [x, y, z])
    assert (gx[0], gy[0], gz[0]) == (4 * 8, 2 * 4, 1)


def test_an_operation_that_raises_leaves_the_graph_usable():
    x = Tensor(np.ones((2, 3)))
    y = x * 2.0
    with pytest.raises(ValueError):
        y @ y
    assert np.array_equal(grad(y.sum(), [x])[0], np.full((2, 3), 2))


# ------------------------------------------------------------------------------ the results of grad


def test_an_unreached_input_gets_zeros_of_its_own_dtype():
    x, y = Tensor(np.ones(2)), Tensor(np.ones((3, 1), np.float32))
    for create_graph in (False, True):
        _, g = grad((x * x).sum(), [x, y], create_graph=create_graph)
        value = g.data if create_graph else g
        assert value.shape == (3, 1) and value.dtype == np.float32 and not value.any()


@pytest.mark.parametrize("output", [lambda x: Tensor(1.0), lambda x: Tensor([2.0]) * 3.0,
                                    lambda x: ops.where(x, Tensor(1.0), 2.0)],
                         ids=["a leaf", "another graph",
                              "through an argument without a derivative"])
def test_no_input_reached_is_an_error(output):
    x = Tensor(1.0)
    with pytest.raises(ValueError, match="does not depend on any of the inputs"):
        grad(output(x), [x])


@pytest.mark.parametrize("create_graph", [False, True])
def test_zeros_where_no_input_is_reached_are_given_if_asked_for(create_graph):
    """The second derivative of a linear function, also of one whose slope is a constant Tensor."""
    x, y = Tensor([1.0, 2.0]), Tensor(np.ones((2, 3)))
    (slope,) = grad((x * 3.0).sum(), [x], create_graph=True)
    for output in (slope.sum(), (y * y).sum() * 0.0 + slope.sum(), Tensor(1.0)):
        found = grad(output, [x, Tensor(np.ones(3, "f8"))], create_graph, allow_unreached=True)
        assert [g.dtype for g in found] == ["f4", "f8"]
        assert [g.shape for g in found] == [(2,), (3,)]
        assert not any(np.any(g.data if create_graph else g) for g in found)
        assert all(isinstance(g, Tensor) == create_graph for g in found)
    with pytest.raises(ValueError, match="allow_unreached=True gives zeros"):
        grad(slope.sum(), [x])


def test_the_gradient_of_a_tensor_by_itself_is_one():
    x = Tensor(np.array(3.0))
    assert np.array_equal(grad(x, [x])[0], 1.0)


@pytest.mark.parametrize("create_graph", [False, True])
def test_an_input_asked_for_twice_is_answered_twice(create_graph):
    x = Tensor(np.array([1.0, 2.0]))
    for g in grad((x * x).sum(), [x, x], create_graph=create_graph):
        assert np.array_equal(g.data if create_graph else g, [2, 4])


def test_a_single_input_needs_no_list():
    x = Tensor([2.0])
    assert grad((x * x).sum(), x)[0] == 4


def test_an_output_that_is_not_a_scalar_needs_a_cotangent():
    x = Tensor([1.0, 2.0])
    with pytest.raises(ValueError, match=r"shape \(2,\).*cotangent="):
        grad(x * x, [x])
    with pytest.raises(ValueError, match=r"cotangent has shape \(3,\), the output \(2,\)"):
        grad(x * x, [x], cotangent=np.ones(3))


@pytest.mark.parametrize("cotangent", [[3, 5], [3.0, 5.0], np.array([3, 5]), np.array([3.0, 5.0]),
                                       Tensor([3.0, 5.0])],
                         ids=["integers", "list", "integer array", "float64 array", "Tensor"])
@pytest.mark.parametrize("create_graph", [False, True])
def test_the_cotangent_weights_the_outputs(cotangent, create_graph):
    x = Tensor(np.array([1.0, 2.0], np.float32))
    (g,) = grad(x * x, [x], cotangent=cotangent, create_graph=create_graph)
    assert g.dtype == np.float32 and np.array_equal(g.data if create_graph else g, [6, 20])


def test_a_gradient_is_a_function_of_its_cotangent():
    """d/dv <u, vjp(v)> = J u: forward-mode differentiation out of two reverse ones."""
    x, v, u = Tensor(np.array([1.0, 2.0])), Tensor(np.array([3.0, 5.0])), np.array([7.0, 11.0])
    (g,) = grad(ops.exp(x), [x], cotangent=v, create_graph=True)
    (jvp,) = grad(g, [v], cotangent=u)
    np.testing.assert_allclose(jvp, np.exp(x.data) * u, rtol=1e-15)


@pytest.mark.parametrize("wrong", [np.ones(2), 1.0, None, "x"])
def test_what_is_not_a_tensor_is_refused_by_grad(wrong):
    x = Tensor(1.0)
    with pytest.raises(TypeError, match="expected Tensors, got"):
        grad(x * x, [x, wrong])
    with pytest.raises(TypeError, match="expected Tensors, got"):
        grad(wrong, [x])


def test_stop_gradient_is_a_copy_and_a_constant():
    x = Tensor(np.array([2.0]))
    constant = tg.stop_gradient(x)
    assert type(constant) is np.ndarray and not np.shares_memory(constant, x.data)
    (g,) = grad((x * tg.stop_gradient(x)).sum(), [x])
    assert g[0] == 2
    array = np.ones(2)
    assert tg.stop_gradient(array) is array and tg.stop_gradient(3.0) == 3.0


# ---------------------------------------------------------------------- operands, shapes and dtypes

BINARY = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b,
          "/": lambda a, b: a / b,
          "**": lambda a, b: a**b}
OPERANDS = {"Python float": 2.0, "Python integer": 3, "Python Boolean": True,
            "NumPy float64": np.float64(2.5),
            "NumPy float32": np.float32(2.5), "NumPy integer": np.int64(3),
            "NumPy Boolean": np.bool_(True),
            "0-d float64": np.array(2.5), "0-d integer": np.array(2),
            "integer array": np.array([1, 2, 3]),
            "unsigned array": np.array([1, 2, 3], np.uint8),
            "Boolean array": np.array([True, True, True]),
            "float32 array": np.array([1.5, 2.0, 3.0], np.float32)}


def derivatives(f, x, orders):
    """f(x) and the gradients of the sum of f, of the sum of that gradient, ..."""
    results = [f(x)]
    for _ in range(orders):
        results.append(grad(results[-1].sum(), [x], create_graph=True)[0])
    return results


@pytest.mark.parametrize("symbol", BINARY)
@pytest.mark.parametrize("operand", OPERANDS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_operands_mix_in_either_order_and_float32_stays_float32(symbol, operand, side):
    """Values and gradients to the third order are float32, and those of the operand in float64."""
    def f(x, other):
        y = BINARY[symbol](x, other) if side == "left" else BINARY[symbol](other, x)
        return y * y * y  # so that the third derivative depends on x whatever the operation

    start, other = np.array([0.5, 1.25, 2.0]), OPERANDS[operand]
    found = derivatives(lambda x: f(x, other), Tensor(start.astype(np.float32)), 3)
    expected = derivatives(lambda x: f(x, np.asarray(other, np.float64)), Tensor(start), 3)
    for a, b in zip(found, expected):
        assert type(a) is Tensor and a.dtype == np.float32 and a.shape == b.shape
        # some hundred roundings of 6e-8
        np.testing.assert_allclose(a.data, b.data, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_network_and_its_penalty_stay_in_their_dtype(dtype):
    """Every value and gradient, to the third order, with Python and NumPy scalars in between."""
    rng = np.random.default_rng(0)
    dense = tg.layers.Dense(3, 4, rng=rng, dtype=dtype)
    x = Tensor(rng.normal(size=(5, 3)).astype(dtype))
    y = (ops.softplus(dense(x)) * np.float64(0.5) + 1).mean()
    for _ in range(3):
        assert y.dtype == dtype
        gradients = grad(y, [x, dense.weight], create_graph=True)
        assert [g.dtype for g in gradients] == [dtype] * 2
        y = sum((g * g).mean() for g in gradients)
    assert [g.dtype for g in grad(y, [x, dense.weight])] == [dtype] * 2


def test_mixed_precision_gradients_take_the_inputs_dtype():
    x, y = Tensor(np.ones(2, np.float32)), Tensor(np.ones(2, np.float64))
    loss = (x * y).sum()
    assert loss.dtype == np.float64
    assert [g.dtype for g in grad(loss, [x, y])] == [np.float32, np.float64]
    assert [g.dtype for g in grad(loss, [x, y], create_graph=True)] == [np.float32, np.float64]


def test_arrays_in_array_out_and_any_tensor_in_tensor_out():
    array = np.array([1.0, 2.0])
    assert type(ops.exp(array)) is np.ndarray and type(ops.sum(array)) is np.ndarray
    assert type(ops.add(array, 1.0)) is np.ndarray
    x = Tensor(array)
    for y in (ops.exp(x), array + x, x + array, ops.where(array > 1, x, 0.0)):
        assert type(y) is Tensor and type(y.data) is np.ndarray


def test_reductions_to_a_scalar_are_arrays_of_no_dimension():
    y = Tensor(np.ones(3, np.float32)).sum()
    assert type(y.data) is np.ndarray and y.shape == () and y.dtype == np.float32
    x = Tensor(1.0)
    assert type(grad(x * x, [x])[0]) is np.ndarray


@pytest.mark.parametrize("wrong", ["text", None, [1.0, 2.0], object()])
def test_an_operand_of_another_kind_is_named(wrong):
    with pytest.raises(TypeError, match="multiply: argument 1 is a " + type(wrong).__name__):
        Tensor([1.0, 2.0]) * wrong


@given(hnp.mutually_broadcastable_shapes(num_shapes=2, min_side=0, max_side=3, max_dims=4))
def test_broadcasting_is_undone_in_the_gradient(shapes):
    """Gradients have the inputs' shapes and lose nothing: that of a counts the uses of a."""
    (left, right), result = shapes.input_shapes, shapes.result_shape
    a, b = Tensor(np.ones(left)), Tensor(np.full(right, 2.0))
    ga, gb = grad((a * b).sum(), [a, b])
    assert ga.shape == left and gb.shape == right
    size = np.prod(result)
    np.testing.assert_allclose([ga.sum(), gb.sum()], [2 * size, size], rtol=1e-14)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
def test_empty_arrays_have_empty_gradients(shape):
    x = Tensor(np.ones(shape))
    loss = (ops.exp(x) * x).sum()
    assert float(loss) == 0 and grad(loss, [x])[0].shape == shape


# ------------------------------------------------------------------------- linearity, by hypothesis

FUNCTIONS = [ops.exp, ops.tanh, ops.sigmoid, ops.softplus, lambda x: x * x * x,
             lambda x: ops.logsumexp(x, axis=0),
             lambda x: x / (1.0 + x * x), lambda x: ops.norm(x), lambda x: x[::-1] * x.mean()]
functions = st.sampled_from(FUNCTIONS)
values = hnp.arrays(np.float64, hnp.array_shapes(min_dims=1, max_dims=3, max_side=4),
                    elements=st.floats(-3, 3))


def close(a, b):
    """Equal up to the rounding of sums of a few terms."""
    np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)


@given(values, functions, functions)
def test_the_gradient_of_a_sum_is_the_sum_of_the_gradients(value, f, g):
    x = Tensor(value)
    together = grad(f(x).sum() + g(x).sum(), [x])[0]
    close(together, grad(f(x).sum(), [x])[0] + grad(g(x).sum(), [x])[0])


@given(values, functions, st.floats(-3, 3), st.floats(-3, 3), st.integers(0, 2**32 - 1))
def test_a_gradient_is_linear_in_its_cotangent(value, f, a, b, seed):
    x = Tensor(value)
    y = f(x)
    v, w = np.random.default_rng(seed).normal(size=(2, *y.shape))
    close(grad(y, [x], cotangent=a * v + b * w)[0],
          a * grad(y, [x], cotangent=v)[0] + b * grad(y, [x], cotangent=w)[0])
    assert not grad(y, [x], cotangent=np.zeros(y.shape))[0].any()


@given(values, functions, functions)
def test_the_gradient_of_a_composition_is_the_chain_rule(value, f, g):
    x = Tensor(value)
    inner = f(x)
    outer = g(inner.reshape(-1)).sum()
    (share,) = grad(outer, [inner])
    close(grad(outer, [x])[0], grad(inner, [x], cotangent=share)[0])


@given(values, functions, st.integers(0, 2**32 - 1))
def test_second_derivatives_are_symmetric(value, f, seed):
    """<H a, b> = <H b, a>."""
    x = Tensor(value)
    a, b = np.random.default_rng(seed).normal(size=(2, *value.shape))
    (g,) = grad((f(x) * f(x)).sum(), [x], create_graph=True)
    ha, hb = grad((g * a).sum(), [x])[0], grad((g * b).sum(), [x])[0]
    scale = np.linalg.norm(ha) * np.linalg.norm(b) + np.linalg.norm(hb) * np.linalg.norm(a)
    assert abs((ha * b).sum() - (hb * a).sum()) <= 1e-12 * scale + 1e-13


@given(values, functions)
def test_both_modes_give_the_same_gradient(value, f):
    """The rules run on arrays and on Tensors are the same computation."""
    x = Tensor(value)
    y = f(x).sum()
    assert np.array_equal(grad(y, [x])[0], grad(y, [x], create_graph=True)[0].data)


# ------------------------------------------------------------------------------------------- memory

VIEWS = {"identity": lambda x: x + 0.0, "sum": lambda x: x + x, "reshape": lambda x: x.reshape(-1),
         "transpose": lambda x: x.T, "slice": lambda x: x[:],
         "broadcast": lambda x: ops.broadcast_to(x, (2, *x.shape)),
         "sum of all": lambda x: x.sum(), "concatenate": lambda x: ops.concatenate([x, x]),
         "swapaxes": lambda x: x.swapaxes(0, 1), "where": lambda x: ops.where(x > 0, x, 0.0)}


@pytest.mark.parametrize("view", VIEWS)
def test_results_share_no_memory(view):
    """With each other, the inputs, the output or the cotangent; and all can be written to."""
    x, y = Tensor(np.ones((2, 3))), Tensor(np.ones((2, 3)))
    output = VIEWS[view](x + y)
    cotangent = np.ones(output.shape)
    results = grad(output, [x, y, x, output], cotangent=cotangent)
    arrays = [*results, x.data, y.data, output.data, cotangent]
    for i, result in enumerate(results):
        assert result.flags.writeable and result.flags.owndata
        assert not any(np.shares_memory(result, other) for j, other in enumerate(arrays) if i != j)


def test_recorded_results_of_constants_share_no_memory():
    x, y = Tensor(np.ones(3)), Tensor(np.ones(3))
    cotangent = np.ones(3)
    a, b = grad(x + y, [x, y], create_graph=True, cotangent=cotangent)
    assert not np.shares_memory(a.data, b.data) and not np.shares_memory(a.data, cotangent)


@pytest.mark.parametrize("create_graph", [False, True])
def test_nothing_is_written_into_inputs_or_cotangents(create_graph):
    """Read-only arrays work throughout, and keep their bytes."""
    rng = np.random.default_rng(0)
    w, x, v = Tensor(rng.normal(size=(3, 3))), rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    w.data.flags.writeable = x.flags.writeable = v.flags.writeable = False
    before = w.data.tobytes(), x.tobytes(), v.tobytes()
    y = ops.maximum(ops.softplus(x @ w) * x + x[:, ::-1], 0.1)
    (g,) = grad(y, [w], create_graph=create_graph, cotangent=v)
    if create_graph:
        grad((g * g).sum(), [w])
    assert (w.data.tobytes(), x.tobytes(), v.tobytes()) == before


@pytest.mark.parametrize("layout", ["fortran", "transposed", "strided", "reversed", "broadcast"])
def test_the_layout_of_a_constant_changes_nothing(layout):
    base = np.random.default_rng(0).normal(size=(4, 4))
    array = {"fortran": np.asfortranarray(base), "transposed": base.T,
             "strided": np.repeat(base, 2, axis=0)[::2],
             "reversed": base[::-1], "broadcast": np.broadcast_to(base[0], (4, 4))}[layout]
    w = Tensor(base)
    loss = [(ops.tanh(a @ w) * a).sum() for a in (array, np.ascontiguousarray(array))]
    np.testing.assert_allclose(*(grad(y, [w])[0] for y in loss), rtol=1e-14, atol=1e-15)


# --------------------------------------------------------------------------------------- primitives


@pytest.fixture
def scratch_registry():
    """A test may register primitives of its own; they are gone afterwards."""
    known = set(PRIMITIVES)
    yield
    for name in set(PRIMITIVES) - known:
        del PRIMITIVES[name]


def test_the_registry_knows_every_primitive_by_name():
    defined = [x for module in (ops, conv) for x in vars(module).values()
               if isinstance(x, Primitive)]
    assert len(PRIMITIVES) >= 25 and {p.name: p for p in defined} == PRIMITIVES
    assert all(p.__doc__ for p in defined)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_wrong_number_of_rules_is_refused(count, scratch_registry):
    @primitive()
    def two_arguments(a, b, /, axis=0):
        return a + b

    with pytest.raises(TypeError, match=rf"two_arguments.vjp: expected 2 rule\(s\), got {count}"):
        two_arguments.vjp(*[lambda g, y, a, b, axis: g] * count)


def test_a_primitive_of_ones_own_is_differentiated_to_any_order(scratch_registry):
    @primitive()
    def cube(x, /):
        return x**3

    cube.vjp(lambda g, y, x: g * (3 * x**2))
    x = Tensor(np.array([2.0, 5.0]))
    value, first, second, third = derivatives(cube, x, 3)
    for found, expected in ((value, x.data**3), (first, 3 * x.data**2), (second, 6 * x.data),
                            (third, [6, 6])):
        np.testing.assert_allclose(found.data, expected, rtol=1e-15)


def test_a_graph_with_a_rule_that_returns_its_argument_shares_nothing(scratch_registry):
    """Even a careless rule that hands out an array it was given cannot make a result alias it."""
    @primitive()
    def dot(a, b, /):
        return (a * b).sum()

    dot.vjp(lambda g, y, a, b: g * b, lambda g, y, a, b: g * a)
    x, constant = Tensor(np.ones(3)), np.arange(3.0)
    (g,) = grad(dot(x, constant), [x])
    assert np.array_equal(g, constant) and not np.shares_memory(g, constant)


# ---------------------------------------------------------------------- what people reach for


X = np.random.default_rng(1).normal(size=(4, 1, 3))
METHODS = {
    "var": (lambda x: x.var(axis=0), lambda x: x.var(axis=0)),
    "var, keepdims, ddof": (lambda x: x.var((0, 2), True, 1),
                            lambda x: x.var(axis=(0, 2), keepdims=True, ddof=1)),
    "clip": (lambda x: x.clip(-0.5, 0.5), lambda x: x.clip(-0.5, 0.5)),
    "clip from below": (lambda x: x.clip(-0.5), lambda x: x.clip(-0.5)),
    "clip from above": (lambda x: tg.functional.clip(x, None, 0.5), lambda x: x.clip(None, 0.5)),
    "clip between arrays": (lambda x: x.clip(-abs(X[0]), X[1]), lambda x: x.clip(-abs(X[0]), X[1])),
    "squeeze": (lambda x: x.squeeze(), np.squeeze),
    "squeeze 1": (lambda x: x.squeeze(1), np.squeeze),
    "squeeze -2": (lambda x: x.squeeze((-2,)), lambda x: x.squeeze((-2,))),
    "exp": (lambda x: x.exp(), np.exp), "log": (lambda x: (x * x).log(), lambda x: np.log(x * x)),
    "sqrt": (lambda x: (x * x).sqrt(), np.abs), "flatten": (lambda x: x.flatten(), np.ravel),
    "astype": (lambda x: x.astype("f8"), lambda x: x), "plus": (lambda x: +x, lambda x: x),
    "pad": (lambda x: tg.functional.pad(x, 2), lambda x: np.pad(x, 2)),
    "pad the sides": (lambda x: tg.functional.pad(x, [0, (1, 0), [0, 3]]),
                      lambda x: np.pad(x, [(0, 0), (1, 0), (0, 3)]))}


@pytest.mark.parametrize("ours, numpys", METHODS.values(), ids=METHODS)
def test_methods_and_functions_are_numpys(ours, numpys):
    y = ours(Tensor(X))
    assert isinstance(y, Tensor) and np.allclose(y.data, numpys(X), rtol=1e-12, atol=1e-15)
    assert y.shape == numpys(X).shape
    gradcheck(ours, [X], order=2)


def test_one_number_becomes_a_number_of_python():
    for x in (Tensor([[2.5]]), Tensor(2.5)):
        assert (x.item(), float(x), int(x), bool(x)) == (2.5, 2.5, 2, True)
        assert type(x.item()) is float
    for convert in (float, int, bool, Tensor.item):
        with pytest.raises(ValueError, match="expected a Tensor of one element"):
            convert(Tensor([1.0, 2.0]))


@pytest.mark.parametrize("wrong", [[1], [1, 2, 3, 4], [(1, 2, 3), 0, 0], -1, 0.5, "x"])
def test_paddings_of_another_form_are_refused(wrong):
    with pytest.raises(ValueError, match="^pad: expected a w"):
        tg.functional.pad(X, wrong)


@pytest.mark.parametrize("axis", [0, (1, 2), 3])
def test_an_axis_of_another_length_is_not_squeezed(axis):
    with pytest.raises(ValueError, match="^squeeze: .*shape .4, 1, 3."):
        tg.functional.squeeze(X, axis)


@pytest.mark.parametrize("function", [ops.sum, ops.max, ops.logsumexp, ops.norm, functional.mean,
                                      functional.softmax], ids=lambda f: f.__name__)
def test_a_number_is_reduced_along_the_one_axis_it_might_have_as_in_numpy(function):
    for axis in (0, -1):
        assert function(tg.Tensor(2.0), axis=axis).data == (1 if function is functional.softmax
                                                            else 2)
    with pytest.raises(ValueError, match="axis"):
        function(tg.Tensor(2.0), axis=1)
