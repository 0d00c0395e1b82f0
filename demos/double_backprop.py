"""The gradient penalty of a small critic, differentiated three ways: by hand, by ``grad``, by finite differences.

    .venv/bin/python demos/double_backprop.py

The critic has one hidden layer: D(x) = tanh(x W + b) v. The penalty P = mean of (|dD/dx| - 1)^2 over n points holds a
gradient already; its derivatives with respect to W, b and v need a gradient of a gradient.

Measured (2 s, seeds 0 to 4): the three columns agree in all 8 printed decimals; over all 32 derivatives ``grad`` differs
from the hand calculation by at most 4e-16, differences by at most 1e-10. The picture shows the error of differences by
their step h: the best h is a compromise between truncation (h^2, extrapolated h^4) and rounding (1/h).
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import tinygan as tg

POINTS, INPUTS, UNITS = 16, 2, 8


def penalty(x, W, b, v):
    """The penalty for any mixture of arrays and Tensors, recorded if W, b or v is a Tensor."""
    x = tg.Tensor(x)
    scores = tg.ops.tanh(x @ W + b) @ v
    (slopes,) = tg.grad(scores.sum(), [x], create_graph=True)  # the first backprop, itself recorded
    slack = tg.ops.norm(slopes, axis=1) - 1.0
    return (slack * slack).mean()


def by_grad(x, W, b, v):
    """(P, dP/dW, dP/db, dP/dv): the second backprop runs through the first."""
    parameters = [tg.Tensor(W), tg.Tensor(b), tg.Tensor(v)]
    p = penalty(x, *parameters)
    return [p.data, *tg.grad(p, parameters)]


def by_hand(x, W, b, v):
    """The same with pencil and paper: the chain rule applied to the formula of the slope."""
    n = len(x)
    a = np.tanh(x @ W + b)                    # (n, units)
    da = 1 - a * a                            # tanh'
    q = da * v                                # dD/dh, h = x W + b
    slopes = q @ W.T                          # dD/dx = W q: (n, inputs)
    lengths = np.sqrt((slopes * slopes).sum(axis=1, keepdims=True))
    p = ((lengths - 1) ** 2).mean()
    c = 2 / n * (lengths - 1) * slopes / lengths  # dP/d slopes
    r = c @ W                                 # dP/dq
    e = r * v * (-2 * a * da)                 # dP/dh, since d(1 - a^2)/dh = -2 a (1 - a^2)
    return [p, c.T @ q + x.T @ e, e.sum(axis=0), (r * da).sum(axis=0)]


def by_differences(x, W, b, v, h, extrapolate=True):
    """(P, dP/dW, dP/db, dP/dv) from values of P alone: (P(+h) - P(-h)) / 2h for each number of W, b and v.

    Extrapolated (Richardson): the error of this quotient is c h^2 + ..., so (4 Q(h/2) - Q(h)) / 3 is rid of its c.
    """
    def quotient(values, place, h):
        value, ends = values[place], []
        for moved in (value + h, value - h):
            values[place] = moved
            ends.append(float(penalty(x, W, b, v)))
        values[place] = value
        return (ends[0] - ends[1]) / (2 * h)

    W, b, v = W.copy(), b.copy(), v.copy()
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
    return max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in zip(one, other))


def picture(steps, errors, title):
    figure = Figure(figsize=(8, 5.2), dpi=80, layout="constrained")
    axes = figure.subplots()
    for (name, values), color in zip(errors.items(), ("#b35806", "#762a83")):
        axes.loglog(steps, values, "o-", color=color, markersize=4, label=name)
    axes.set(xlabel="step h of the difference", ylabel="largest error of a derivative of the penalty")
    axes.set_title("Why differences only check: h too large, truncation; h too small, rounding\n" + title, fontsize=11)
    axes.legend()
    axes.grid(alpha=0.3)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=25, help="number of step sizes h in the picture (default: 25)")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--device", help="where grad computes: cpu, cuda, cuda:N or auto (the default)")
    parser.add_argument("--out", type=Path, default=Path("runs/double_backprop.png"),
                        help="the picture (default: %(default)s)")
    options = parser.parse_args()
    try:
        device = tg.backend.resolve_device(options.device)
    except (ValueError, tg.backend.DeviceError) as fault:
        parser.error(str(fault))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    out, number = options.out, 1
    while out.exists():  # no picture is overwritten: name.png, name-2.png, ...
        out, number = options.out.with_stem(f"{options.out.stem}-{number + 1}"), number + 1
    print(f"seed {options.seed}, device {device}, float64, {tg.app.process.tune_process(UNITS)}")

    rng = np.random.default_rng(options.seed)
    x, W, b, v = (rng.standard_normal(shape) for shape in ((POINTS, INPUTS), (INPUTS, UNITS), (UNITS,), (UNITS,)))
    hand = by_hand(x, W, b, v)
    grad = [tg.backend.to_numpy(g) for g in by_grad(*(tg.backend.to_device(a, device) for a in (x, W, b, v)))]
    differences = by_differences(x, W, b, v, h=1e-3)

    print(f"{'':12s}{'by hand':>16s}{'by grad':>16s}{'by differences':>18s}")
    for name, place, number in (("penalty P", (), 0), ("dP/dW[0, 0]", (0, 0), 1), ("dP/dW[1, 7]", (1, 7), 1),
                                ("dP/db[0]", (0,), 2), ("dP/dv[0]", (0,), 3)):
        three = [float(way[number][place]) for way in (hand, grad, differences)]
        print(f"{name:12s}{three[0]:16.8f}{three[1]:16.8f}{three[2]:18.8f}")
    size = sum(a.size for a in (W, b, v))
    print(f"largest difference over all {size} derivatives: by grad {largest_difference(hand, grad):.0e}, "
          f"by differences {largest_difference(hand, differences):.0e}")

    steps = np.geomspace(1e-9, 0.3, options.steps)
    errors = {"central difference, error ~ h^2": [], "with Richardson extrapolation, error ~ h^4": []}
    for values, extrapolate in zip(errors.values(), (False, True)):
        values += [max(largest_difference(grad, by_differences(x, W, b, v, h, extrapolate)), 1e-17) for h in steps]
    picture(steps, errors, f"seed {options.seed}").savefig(out)
    print(f"picture  {out}")


if __name__ == "__main__":
    main()
