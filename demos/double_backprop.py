"""The gradient penalty of a small critic, differentiated three ways: by hand, by grad, numerically.

    .venv/bin/python demos/double_backprop.py

The critic has one hidden layer: D(x) = tanh(x W + b) v. The penalty P = mean of (|dD/dx| - 1)^2
over n points already contains a gradient, so its derivatives with respect to W, b and v are
gradients of a gradient.

Measured (2 s, seeds 0 to 4): the three columns agree in all 8 printed decimals; over all 32
derivatives ``grad`` differs from the calculation by hand by at most 4e-16, finite differences by at
most 1e-10. The picture shows the error of the differences against their step h: the best h is a
compromise between truncation (h^2, extrapolated h^4) and rounding (1/h).
"""

import numpy as np
from matplotlib.figure import Figure

import tinygan as tg
from tinygan.app import demo

POINTS, INPUTS, UNITS = 16, 2, 8


def penalty(x, W, b, v):
    """P, for any mixture of arrays and Tensors; recorded if W, b or v is a Tensor."""
    x = tg.Tensor(x)
    scores = tg.ops.tanh(x @ W + b) @ v
    (slopes,) = tg.grad(scores.sum(), [x], create_graph=True)  # the first backprop, itself recorded
    excess = tg.ops.norm(slopes, axis=1) - 1.0
    return (excess * excess).mean()


def by_grad(x, W, b, v):
    """[P, dP/dW, dP/db, dP/dv]: the second backprop runs through the first."""
    parameters = [tg.Tensor(W), tg.Tensor(b), tg.Tensor(v)]
    p = penalty(x, *parameters)
    return [p.data, *tg.grad(p, parameters)]


def by_hand(x, W, b, v):
    """The same with pencil and paper: the chain rule applied to the formula of the slope."""
    n = len(x)
    a = np.tanh(x @ W + b)  # (n, units)
    da = 1 - a * a  # tanh'
    q = da * v  # dD/dh, h = x W + b
    slopes = q @ W.T  # dD/dx: (n, inputs)
    lengths = np.sqrt((slopes * slopes).sum(axis=1, keepdims=True))
    p = ((lengths - 1) ** 2).mean()
    c = 2 / n * (lengths - 1) * slopes / lengths  # dP/dslopes
    r = c @ W  # dP/dq
    e = r * v * (-2 * a * da)  # dP/dh, since d(1 - a^2)/dh = -2 a (1 - a^2)
    return [p, c.T @ q + x.T @ e, e.sum(axis=0), (r * da).sum(axis=0)]


def by_differences(x, W, b, v, h, extrapolate=True):
    """[P, dP/dW, dP/db, dP/dv] from values of P alone, by Q(h) = (P(+h) - P(-h)) / 2h.

    The error of Q is c h^2 + O(h^4); (4 Q(h/2) - Q(h)) / 3 cancels c h^2 (Richardson 1911).
    """
    W, b, v = W.copy(), b.copy(), v.copy()

    def quotient(values, place, h):
        value, ends = values[place], []
        for moved in (value + h, value - h):
            values[place] = moved
            ends.append(float(penalty(x, W, b, v)))
        values[place] = value
        return (ends[0] - ends[1]) / (2 * h)

    result = [np.asarray(float(penalty(x, W, b, v)))]
    for values in (W, b, v):
        derivative = np.zeros(values.shape)
        for place in np.ndindex(values.shape):
            derivative[place] = quotient(values, place, h)
            if extrapolate:
                derivative[place] = (4 * quotient(values, place, h / 2) - derivative[place]) / 3
        result.append(derivative)
    return result


def largest_difference(one, other):
    return max(float(np.abs(a - b).max()) for a, b in zip(one, other))


def error_curve(exact, arrays, steps, extrapolate):
    """The largest error of the differences for each step h; an exact zero is drawn as 1e-17."""
    return [max(largest_difference(exact, by_differences(*arrays, h, extrapolate)), 1e-17)
            for h in steps]


def table(hand, grad, differences):
    print(f"{'':12s}{'by hand':>16s}{'by grad':>16s}{'by differences':>18s}")
    for name, i, place in (("penalty P", 0, ()), ("dP/dW[0, 0]", 1, (0, 0)),
                           ("dP/dW[1, 7]", 1, (1, 7)), ("dP/db[0]", 2, 0), ("dP/dv[0]", 3, 0)):
        print(f"{name:12s}{float(hand[i][place]):16.8f}{float(grad[i][place]):16.8f}"
              f"{float(differences[i][place]):18.8f}")
    print(f"largest difference over all {sum(d.size for d in hand[1:])} derivatives: "
          f"by grad {largest_difference(hand, grad):.0e}, "
          f"by differences {largest_difference(hand, differences):.0e}")


def picture(steps, errors, title):
    figure = Figure(figsize=(8, 5.2), dpi=80, layout="constrained")
    figure.suptitle(title, fontsize=14, weight="bold")
    axes = figure.subplots()
    central, extrapolated = errors
    axes.loglog(steps, central, "o-", color="#b35806", markersize=4,
                label="central difference, error ~ h^2")
    axes.loglog(steps, extrapolated, "o-", color="#762a83", markersize=4,
                label="with Richardson extrapolation, error ~ h^4")
    axes.set(xlabel="step h of the difference",
             ylabel="largest error of a derivative of the penalty")
    axes.set_title("Why finite differences can only check a gradient:\n"
                   "h too large, truncation; h too small, rounding", fontsize=11, loc="left")
    axes.legend()
    axes.grid(alpha=0.3)
    return figure


def main():
    options = demo.options(__doc__, "Double backprop in float64", UNITS, "runs/double_backprop.png",
                           steps=(25, "number of step sizes h in the picture"))
    rng = np.random.default_rng(options.seed)
    shapes = (POINTS, INPUTS), (INPUTS, UNITS), (UNITS,), (UNITS,)
    arrays = [rng.standard_normal(shape) for shape in shapes]  # x, W, b, v
    on_device = (tg.backend.to_device(a, options.device) for a in arrays)
    grad = [tg.backend.to_numpy(g) for g in by_grad(*on_device)]
    table(by_hand(*arrays), grad, by_differences(*arrays, h=1e-3))
    steps = np.geomspace(1e-9, 0.3, options.steps)
    errors = [error_curve(grad, arrays, steps, extrapolate) for extrapolate in (False, True)]
    options.save(picture(steps, errors, options.title))


if __name__ == "__main__":
    main()
