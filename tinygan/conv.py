"""Convolutions of images: three primitives that are closed under differentiation.

In one dimension, with one channel and no padding, a convolution is y_i = sum_a x_(i s + a) w_a for
a stride s. Two dimensions, channels and padding make of it ``reference``: slow, and all there is to
know. The primitives compute the same by products of matrices.

``convolve`` is linear in x and in w; its adjoints are the other two, and their rules come back to
it: <convolve(x, w), g> = <x, convolve_t(g, w)> = <w, convolve_w(x, g)>. Images are (n, h, w, c)
here, so that a row of a window is one run of numbers in memory.
"""

from __future__ import annotations

import numpy as np

from . import backend
from .tensor import primitive

Pair = tuple[int, int]
WINDOWS = 2**20  # numbers in the windows of a few images, which stay in the cache until multiplied


def reference(x, w, stride, padding):
    """What ``convolve`` computes: (n, h, w, c), (kh, kw, c, d) -> (n, oh, ow, d)."""
    (top, left), (kh, kw) = padding, w.shape[:2]
    x = np.pad(x, ((0, 0), (top, top), (left, left), (0, 0)))
    y = np.zeros((len(x), *output_size(x.shape[1:3], (kh, kw), stride, (0, 0)), w.shape[3]))
    for i, j, a, b in np.ndindex(*y.shape[1:3], kh, kw):
        y[:, i, j] += x[:, i * stride[0] + a, j * stride[1] + b] @ w[a, b]
    return y


def output_size(size: Pair, kernel: Pair, stride: Pair, padding: Pair) -> Pair:
    """How many windows fit along each axis."""
    rows, columns = ((n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, kernel, stride, padding))
    return rows, columns


@primitive()
def convolve(x, w, /, *, stride, padding):
    """The windows of images times a kernel: (n, h, w, c), (kh, kw, c, d) -> (n, oh, ow, d)."""
    n, (kh, kw, c, d) = len(x), w.shape
    oh, ow = output_size(x.shape[1:3], (kh, kw), stride, padding)
    w = w.reshape(kh * kw * c, d)
    y = [np.matmul(_windows(x[part], (kh, kw), stride, padding), w)
         for part in _parts(x, n * oh * ow * len(w))]
    return (np.concatenate(y) if len(y) > 1 else y[0]).reshape(n, oh, ow, d)


@primitive()
def convolve_t(g, w, /, *, size, stride, padding):
    """The transposed convolution: (n, oh, ow, d), (kh, kw, c, d) -> (n, *size, c)."""
    (n, oh, ow, d), (kh, kw, c, _) = g.shape, w.shape
    x = np.zeros_like(g, dtype=np.result_type(g, w), shape=(n, *size, c), order="C")
    w = w.reshape(kh * kw * c, d).T.copy()
    for part in _parts(g, n * oh * ow * kh * kw * c):
        _add_windows(np.matmul(g[part].reshape(-1, d), w), x[part], (kh, kw), stride, padding)
    return x


@primitive()
def convolve_w(x, g, /, *, kernel, stride, padding):
    """The cotangent of a kernel: (n, h, w, c), (n, oh, ow, d) -> (kh, kw, c, d)."""
    (n, oh, ow, d), (kh, kw), c = g.shape, kernel, x.shape[3]
    w, *others = [np.matmul(_windows(x[part], kernel, stride, padding).T, g[part].reshape(-1, d))
                  for part in _parts(g, n * oh * ow * kh * kw * c)]
    for more in others:
        w += more
    return w.reshape(kh, kw, c, d)


convolve.vjp(lambda g, y, x, w, **how: convolve_t(g, w, size=x.shape[1:3], **how),
             lambda g, y, x, w, **how: convolve_w(x, g, kernel=w.shape[:2], **how))
convolve_t.vjp(lambda u, y, g, w, size, **how: convolve(u, w, **how),
               lambda u, y, g, w, size, **how: convolve_w(u, g, kernel=w.shape[:2], **how))
convolve_w.vjp(lambda v, y, x, g, kernel, **how: convolve_t(g, v, size=x.shape[1:3], **how),
               lambda v, y, x, g, kernel, **how: convolve(x, v, **how))


def _parts(images, numbers):
    """Images, a few at a time: those whose windows hold ``WINDOWS`` of all the numbers.

    On a GPU they are all one part: it has no such cache, and each part costs launches.
    """
    n = len(images)
    count = 1 if backend.on_gpu(images) else max(1, -(-numbers // WINDOWS))
    size = max(1, -(-n // count))
    return [slice(i, i + size) for i in range(0, max(1, n), size)]


def _windows(x, kernel, stride, padding):
    """The windows of zero-padded images as rows: (n, h, w, c) -> (n oh ow, kh kw c)."""
    (n, h, w, c), (kh, kw), (top, left) = x.shape, kernel, padding
    if top or left:
        wide = np.zeros_like(x, shape=(n, h + 2 * top, w + 2 * left, c), order="C")
        wide[:, top:top + h, left:left + w] = x
        x = wide
    x = x.reshape(*x.shape[:2], x.shape[2] * c)
    y = backend.windows(x, (kh, kw * c))
    y = y[:, ::stride[0], ::stride[1] * c]
    return y.reshape(n * y.shape[1] * y.shape[2], kh * kw * c)


def _add_windows(rows, x, kernel, stride, padding):
    """Add rows (n oh ow, kh kw c) to images x, each where ``_windows`` takes it from."""
    size = x.shape[1:3]
    counts = output_size(size, kernel, stride, padding)
    rows = rows.reshape(len(x), *counts, *kernel, x.shape[3])
    for i in range(kernel[0]):
        from_rows, to_rows = _inside(i - padding[0], stride[0], size[0], counts[0])
        for j in range(kernel[1]):
            from_columns, to_columns = _inside(j - padding[1], stride[1], size[1], counts[1])
            part = x[:, to_rows, to_columns]
            np.add(part, rows[:, from_rows, from_columns, i, j], out=part)


def _inside(offset, stride, size, count):
    """The windows whose pixel ``offset`` after their start lies in the image, and those pixels.

    A row of 5 pixels, kernel 3, stride 2, padding 1: 3 windows, which begin at pixels -1, 1, 3. The
    kernel's first pixel (offset -1 with stride 2) lies at -1, 1, 3: windows 1, 2 and pixels 1, 3.

    >>> _inside(-1, 2, 5, 3)
    (slice(1, 3, None), slice(1, 4, 2))
    """
    first, last = max(0, -(offset // stride)), min(count - 1, (size - 1 - offset) // stride)
    if first > last:
        return slice(0), slice(0)
    start, end = first * stride + offset, last * stride + offset + 1
    return slice(first, last + 1), slice(start, end, stride)
