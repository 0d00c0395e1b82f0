"""Ridders' extrapolation: the limit of difference quotients, and an estimate of its error.

C. J. F. Ridders, "Accurate computation of F'(x) and F'(x) F''(x)", Advances in Engineering
Software 4 (1982); W. H. Press et al., "Numerical Recipes", section 5.7.

A table of quotients has the shape (steps, outputs); each step is half the one above it. NaN marks
a quotient that cannot be used. ``base`` is 4 for central quotients, whose error is a series in h^2,
and 2 for one-sided ones, whose error is a series in h. ``noise`` is the rounding error of each.
"""

from __future__ import annotations

import numpy as np

ORDERS = 7  # columns of the extrapolation table


def ridders(quotients: np.ndarray, noise: np.ndarray, base: int) -> tuple[np.ndarray, np.ndarray]:
    """(limits, errors), per output, of quotients D_0(h) as h goes to 0.

    D_m(h) = D_{m-1}(h) + (D_{m-1}(h) - D_{m-1}(2h)) / (base^m - 1) is free of the error's first m
    terms. Of all D_m(h) the one is kept that agrees best with the two it is made of; its error is
    the larger of their differences from it, or the noise if that is larger. Infinite where no two
    quotients in a row can be used.
    """
    outputs = np.arange(quotients.shape[1])
    limit, error = np.full(outputs.shape, np.nan), np.full(outputs.shape, np.inf)
    for m in range(1, min(ORDERS, len(quotients) - 1) + 1):
        finer, coarser = quotients[1:], quotients[:-1]
        quotients = finer + (finer - coarser) / (base**m - 1)
        change = np.maximum(np.abs(quotients - finer), np.abs(quotients - coarser))
        change = np.maximum(change, noise[m:])
        change[np.isnan(change)] = np.inf
        row = np.argmin(change, axis=0)
        least = change[row, outputs]
        better = least < error
        limit = np.where(better, quotients[row, outputs], limit)
        error = np.where(better, least, error)
    return limit, error


def once_extrapolated(quotients: np.ndarray, base: int) -> np.ndarray:
    """D_1: row j is made of the quotients of steps j and j + 1."""
    return quotients[1:] + (quotients[1:] - quotients[:-1]) / (base - 1)


def extrapolate(quotients: np.ndarray, noise: np.ndarray,
                base: int) -> tuple[np.ndarray, np.ndarray]:
    """``ridders`` without the wide steps that disagree with its limit: they cross a kink or a jump.

    The steps down to the finest one that disagrees are left out, and the limit is taken anew.
    """
    for _ in range(4):
        limit, error = ridders(quotients, noise, base)
        once = once_extrapolated(quotients, base)
        doubt = np.maximum(np.abs(once - quotients[1:]), np.abs(once - quotients[:-1])) + noise[1:]
        disagrees = np.abs(once - limit) > 3 * (error + doubt)
        if not disagrees.any():
            return limit, error
        keep_from = len(disagrees) - np.argmax(disagrees[::-1], axis=0)
        left_out = np.arange(len(quotients))[:, None] < keep_from
        quotients = np.where(left_out & disagrees.any(axis=0), np.nan, quotients)
    return limit, np.where(disagrees.any(axis=0), np.inf, error)


def observed_noise(quotients: np.ndarray, h: np.ndarray, base: int) -> np.ndarray:
    """The noise of f per output: what makes slopes from successive fine steps differ."""
    once = once_extrapolated(quotients, base)
    jitter = (np.abs(once[1:] - once[:-1]) * h[2:])[-6:]
    return np.max(jitter, axis=0, initial=0, where=np.isfinite(jitter))


def stair_height(plus: np.ndarray, y: np.ndarray, minus: np.ndarray,
                 tiny: float) -> np.ndarray:
    """The noise of a staircase, per output: the height of its steps; 0 where f is not one.

    Rounding inside f, to float32 or in the 1 of 1 - tanh(x)^2 at x = 18, leaves multiples of one
    height: the values do not change at all over fine steps, and over wider ones by 1, 2, 3, ...
    times the smallest change. One or two changes alone may be jumps of an exact f, such as floor,
    unless they are ``tiny``.
    """
    change = np.abs(np.stack([plus, minus]) - y)
    height = np.min(change, axis=(0, 1), initial=np.inf, where=change > 0)
    multiple = change / height
    low = multiple < 1000  # larger ones need not be exact
    whole = (np.abs(multiple - np.round(multiple)) < 1e-3) | ~low
    many = np.max(multiple, axis=(0, 1), initial=0, where=low) > 2.5
    still = (change[:, -2:] == 0).all(axis=(0, 1))
    return np.where(still & (many | (height <= tiny)) & whole.all(axis=(0, 1)), height, 0)


def crosses_kink(plus: np.ndarray, y: np.ndarray, minus: np.ndarray, h: np.ndarray,
                 noise: np.ndarray) -> np.ndarray:
    """Which steps cross a kink or a jump between x - hu and x + hu, as do all wider ones.

    The second difference S(h) = |f(x + hu) - 2 f(x) + f(x - hu)| / h of a smooth f shrinks like h,
    to 1/8 over three halvings; across a kink it stays, across a jump it grows.
    """
    bend = np.abs((plus - y) - (y - minus)) / h
    crossed = np.zeros(bend.shape, bool)
    crossed[3:] = (bend[3:] > 4 * noise[3:]) & (bend[3:] > bend[:-3] / 2)
    return np.logical_or.accumulate(crossed[::-1], axis=0)[::-1]
