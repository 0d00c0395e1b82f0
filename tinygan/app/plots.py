"""Pictures of a run: real points green, generated ones purple, level sets in PRGn, told apart by colour-blind eyes too.

Images are enlarged by whole numbers and shown pixel for pixel. Figures are ``matplotlib.figure.Figure`` objects made
without pyplot: no window, no global state. Matplotlib is imported when the first picture is made. Real points are drawn
with a fixed generator, so that pictures of a run can be compared.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import backend, metrics
from ..training.checkpoint import write_atomically
from ..data import DataSet

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

REAL, GENERATED, THIRD, FAINT = "#1b7837", "#762a83", "#b35806", "#666666"
POINTS = 1000  # of each kind in a picture
TILE, GAP = 64, 6  # pixels: the longer side of an image that is enlarged, at most; the line between images,
LINE = 192  # whose grey is none of black, white and what an untrained generator makes
NEIGHBOURS = 2**22  # pixels of training images in which to look for a neighbour at a time: they are needed in float64


def panel(
    data: DataSet,
    samples: Any,
    history: Mapping[str, np.ndarray],
    gradient_norms: Any | None,
    critic: Callable[[np.ndarray], Any] | None = None,
    title: str = "",
    yardstick: Mapping[str, Any] | None = None,
) -> Figure:
    """One picture of a run: points over the critic's level sets, losses, gradient norms, scores over time.

    samples: (n, d) generated points in data units. history: the columns of ``log.csv``, equally long, NaN where there is
    no value. gradient_norms: (n,) norms of the critic's gradient at the interpolates. critic: (n, d) float32 in the
    networks' units -> (n,) scores. yardstick: the scores of real data against real data, (low, high) for
    ``high_quality`` and ``sliced_wasserstein``.
    """
    figure = _figure((14, 10.4), title)
    parts: Any = figure.subfigures(2, 2)
    _points(parts[0, 0].add_subplot(), data, samples, critic)
    _losses(parts[0, 1], history)
    _gradient_norms(parts[1, 0].add_subplot(), gradient_norms, *(_measured(history, x) for x in ("penalty", "w_estimate")))
    _scores(parts[1, 1], data, history, yardstick or {})
    return figure


def scatter(data: DataSet, samples: Any, title: str = "") -> Figure:
    """Generated points (n, d), in data units, over real ones: histograms for d = 1, principal components for d > 2."""
    figure = _figure((9, 6.8), title)
    _points(figure.add_subplot(), data, samples, None)
    return figure


def image_panel(
    data: DataSet,
    samples: np.ndarray,
    moments: Sequence[tuple[int, np.ndarray]],
    paths: np.ndarray,
    history: Mapping[str, np.ndarray],
    title: str = "",
    yardstick: Mapping[str, Any] | None = None,
) -> Figure:
    """One picture of a run on images: samples, the same latents over time, paths, nearest training images, curves.

    Images are uint8, (c, h, w) or flat. samples: (n, ...), n >= 1. moments: (step, images (k, ...) of the same k latents
    then). paths: (p, steps, ...), images on p paths through latent space. history, yardstick: those of ``panel``.
    """
    assert data.shape is not None
    samples, tall, wide = samples.reshape(-1, *data.shape), *(GAP + _zoom(data.shape) * side for side in data.shape[1:])
    left, right, top, lowest = 40, 810, 112, 430  # pixels: where the two columns and the first row begin; the last row
    middle = top + 8 * tall + 75
    width, height = 1540, middle + 4 * tall + 25 + lowest
    figure = _figure((width / 100, height / 100), title)
    figure.get_layout_engine().set(rect=(0, 0, 1, lowest / height))  # type: ignore[union-attr,call-arg]
    for text in figure.texts:  # the title, which is above
        text.set_in_layout(False)

    def show(x: int, y: int, images: Any, columns: int, labels: list[str], heading: str, caption: str) -> None:
        canvas = tiles(np.reshape(images, (-1, *samples.shape[1:])), columns)
        h, w = canvas.shape[:2]
        axes = figure.add_axes((x / width, 1 - (y + h) / height, w / width, h / height))  # a pixel for a pixel
        axes.imshow(canvas, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set(xticks=[], yticks=tall * (np.arange(len(labels)) + 0.5) + GAP / 2, yticklabels=labels)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        _heading(axes, heading, caption)

    columns = (right - left - 70) // wide
    first = samples[:8 * columns]
    show(left, top, first, columns, [], "Samples",
         f"The first {len(first)}, chosen by nobody. Good: like the training images, and as varied.")
    rows = [moments[i] for i in np.unique(np.linspace(0, len(moments) - 1, 8).round().astype(int))] if moments else []
    show(right, top, [images for _, images in rows], len(rows[0][1]) if rows else 1, [f"{step:,}" for step, _ in rows],
         "The same latents over time",
         "Rows are steps of the training. Good: shapes settle. Bad: the columns become alike." if rows else "None kept yet.")
    show(left, middle, paths, paths.shape[1], [], "Paths through latent space",
         "Each row from one latent to another. Good: every image could be a sample. Bad: jumps.")
    columns = min(10, len(samples))
    asked = samples[:columns * min(2, len(samples) // columns)]
    found, distances = _nearest(asked, data)
    pairs = np.stack([x.reshape(-1, columns, *data.shape) for x in (asked, found)], axis=1)
    show(right, middle, pairs, columns, ["sample", "nearest"] * len(pairs), "Nearest training images",
         f"Good: alike, not the same. Here {distances.min():.0f} to {distances.max():.0f} of 255 levels lie between "
         "(root mean square).")
    parts: Any = figure.subfigures(1, 2)
    _losses(parts[0], history)
    _scores(parts[1], data, history, yardstick or {})
    return figure


def tiles(images: np.ndarray, columns: int | None = None) -> np.ndarray:
    """Images (n, c, h, w) uint8 side by side, row by row, as one (height, width) if grey or (height, width, 3) if colour.

    Small ones are enlarged by a whole number, so that they can be seen. Without ``columns`` the whole is about square.
    """
    n, c, h, w = images.shape
    zoom = _zoom(images.shape[1:])
    tall, wide = zoom * h + GAP, zoom * w + GAP
    columns = columns or math.ceil(math.sqrt(n * tall / wide))
    rows = math.ceil(n / columns)
    cells = np.full((rows * columns, tall, wide, c), LINE, np.uint8)
    cells[:n, GAP:, GAP:] = images.transpose(0, 2, 3, 1).repeat(zoom, axis=1).repeat(zoom, axis=2)
    whole = cells.reshape(rows, columns, tall, wide, c).swapaxes(1, 2).reshape(rows * tall, columns * wide, c)
    whole = np.pad(whole, ((0, GAP), (0, GAP), (0, 0)), constant_values=LINE)
    return whole[..., 0] if c == 1 else whole


def point_frames(data: DataSet, points: np.ndarray, title: str = "") -> Iterator[np.ndarray]:
    """A picture (h, w, 3) uint8 of each frame of points (frames, n, d), in data units, over real ones, all in one scale."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    figure = _figure((8, 6.2), title)
    move = _points(figure.add_subplot(), data, points[0], None, points.swapaxes(0, 1).reshape(-1, data.dim))
    for artist in move(points[0]):
        artist.set_animated(True)  # it is left out of the background, which is drawn once
    canvas = FigureCanvasAgg(figure)
    figure.draw_without_rendering()  # the layout takes two rounds
    canvas.draw()
    background: Any = canvas.copy_from_bbox(figure.bbox)
    for samples in points:
        canvas.restore_region(background)
        for artist in move(samples):
            artist.axes.draw_artist(artist)  # type: ignore[union-attr]
        yield np.array(canvas.buffer_rgba())[..., :3]


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a PNG, whole or not at all: a file already at ``path`` stays until the new one is complete."""
    from matplotlib.image import AxesImage
    from PIL import Image
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    picture = Image.open(drawn).convert("RGB")
    if not any(np.ndim(image.get_array()) == 3 for image in figure.findobj(AxesImage)):  # type: ignore[arg-type]
        picture = picture.quantize(256, dither=Image.Dither.NONE)  # a third of the bytes
    write_atomically(path, lambda file: picture.save(file, format="png"))


def save_images(images: np.ndarray, path: str | os.PathLike[str]) -> None:
    """Write ``tiles`` of images (n, c, h, w) uint8 as a PNG, whole or not at all."""
    from PIL import Image
    picture = Image.fromarray(tiles(images))
    write_atomically(path, lambda file: picture.save(file, format="png", optimize=True))


def save_gif(frames: Iterable[np.ndarray], path: str | os.PathLike[str]) -> None:
    """Write frames, all (h, w) or all (h, w, 3) uint8, as a GIF that repeats for ever, whole or not at all.

    All share one palette, without dither: the 256 greys, or 256 colours chosen from every eighth frame.
    """
    from PIL import Image
    pictures = [Image.fromarray(frame) for frame in frames]
    if pictures[0].mode == "L":
        first, *others = (picture.convert("P") for picture in pictures)
    else:
        some = Image.fromarray(np.concatenate([np.asarray(picture) for picture in pictures[::8]]))
        palette = some.quantize(256, Image.Quantize.FASTOCTREE)  # keeps white and the grey lines
        first, *others = (picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures)
    write_atomically(path, lambda file: first.save(file, format="gif", save_all=True, append_images=others, duration=80,
                                                   loop=0, palette=first.getpalette()))


# ------------------------------------------------------------------------------------------------ the parts


def _points(axes: Axes, data: DataSet, samples: Any, critic: Callable[[np.ndarray], Any] | None,
            all_samples: Any = None) -> Callable[[np.ndarray], Sequence[Artist]]:
    """Samples over real points, in a frame for ``all_samples``; returns what shows others instead, and their artists."""
    samples = np.asarray(backend.to_numpy(samples), np.float64)
    real = data.to_data_units(data.draw(np.random.default_rng(0), POINTS))
    labels, project = ["x1  [data units]", "x2  [data units]"], lambda points: points
    if data.dim > 2:
        labels, project = _principal_components(data, real)

    def finite(points: np.ndarray) -> np.ndarray:
        return project(points[np.isfinite(points).all(axis=1)][:POINTS])

    real, generated, main = project(real), finite(samples), finite(samples if all_samples is None else all_samples)
    limits = [_limits(real[:, k], main[:, k]) for k in range(real.shape[1])]
    outside = ~_within(generated, limits)
    notes = [f"{len(generated)} points"] + [f"{count} {what}" for count, what in (
        (np.sum(outside), "outside"), (np.sum(~np.isfinite(samples).all(axis=1)), "not finite")) if count]
    names = [f"real ({len(real)} points)", f"generated ({', '.join(notes)})"]
    axes.set(xlabel=labels[0])
    if data.dim == 1:
        show = _densities(axes, data, real[:, 0], generated[:, 0], limits[0], names, critic)
        _heading(axes, "Real and generated points", "Good: the two outlines cover each other.")
        return lambda others: show(finite(others)[:, 0])
    low, high = limits[1]
    limits[1] = (low, high + 0.12 * (high - low))  # room for the legend
    if data.dim > 2 or (data.scale == data.scale[0]).all():  # both axes in the same unit
        _widen(limits)
        axes.set_aspect("equal", anchor="N")
    drawn = critic is not None and data.dim == 2 and _level_sets(axes, data, limits, critic)
    for points, color, size, name in ((real, REAL, 28, names[0]), (generated[~outside], GENERATED, 7, names[1])):
        # Small on large: neither hides the other.
        cloud = axes.scatter(points[:, 0], points[:, 1], s=size, c=color, alpha=0.8, linewidths=0)
        axes.scatter([], [], s=40, c=color, label=name)
    axes.set(xlim=limits[0], ylim=limits[1], ylabel=labels[1])
    axes.legend(loc="upper center", framealpha=0.9, fontsize=9, ncols=2)
    _heading(axes, "Real and generated points" + " over the critic's level sets" * drawn,
             "Good: purple covers all of the green, evenly, and nothing lies beside it.")

    def move(others: np.ndarray) -> list[Artist]:
        points = finite(others)
        cloud.set_offsets(points[_within(points, limits)])
        return [cloud]

    return move


def _densities(axes: Axes, data: DataSet, real: np.ndarray, generated: np.ndarray, limits: tuple[float, float],
               names: list[str], critic: Callable[[np.ndarray], Any] | None) -> Callable[[np.ndarray], Sequence[Artist]]:
    edges = np.linspace(*limits, 61)

    def density(values: np.ndarray) -> np.ndarray:
        return np.histogram(values, edges)[0] / (max(1, len(values)) * (edges[1] - edges[0]))

    for values, color, name in ((real, REAL, names[0]), (generated, GENERATED, names[1])):
        outlines = [axes.stairs(density(values), edges, color=color, alpha=0.25, fill=True),
                    axes.stairs(density(values), edges, color=color, linewidth=1.8, label=name)]
    axes.set(xlim=limits, ylabel="density  [1 / data unit]")
    axes.margins(y=0.2)
    if critic is not None:
        line = np.linspace(*limits, 400)[:, None]
        right = axes.twinx()
        right.plot(line[:, 0], _scored(critic, data, line), color=THIRD, linestyle="--", linewidth=1.2)
        right.set_ylabel("critic's score  (dashed; higher: looks more real to it)", color=THIRD)
    axes.legend(loc="upper right", framealpha=0.9, fontsize=9)

    def move(others: np.ndarray) -> list[Artist]:
        for outline in outlines:
            outline.set_data(density(others))
        return list(outlines)

    return move


def _scored(critic: Callable[[np.ndarray], Any], data: DataSet, places: np.ndarray) -> np.ndarray:
    """The critic's scores at places (n, d) in data units, (n,) float64, NaN where they are not finite."""
    scores = np.asarray(backend.to_numpy(critic(data.to_network_units(places))), np.float64).reshape(-1)
    return np.where(np.isfinite(scores), scores, np.nan)


def _level_sets(axes: Axes, data: DataSet, limits: list[tuple[float, float]],
                critic: Callable[[np.ndarray], Any]) -> bool:
    """Fill the plane by the critic's score; False if it is not finite, or the same everywhere."""
    from matplotlib import colormaps
    from matplotlib.colors import LinearSegmentedColormap
    x, y = (np.linspace(*limit, 128) for limit in limits)
    places = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    scores = _scored(critic, data, places).reshape(128, 128)
    if np.isnan(scores).any() or np.ptp(scores) == 0:
        return False
    pale = LinearSegmentedColormap.from_list("pale PRGn", colormaps["PRGn"](np.linspace(0.22, 0.78, 64)))
    filled = axes.contourf(x, y, scores, levels=14, cmap=pale, zorder=0)
    axes.contour(x, y, scores, levels=filled.levels, colors="white", linewidths=0.5, zorder=0)
    bar = axes.figure.colorbar(filled, cax=axes.inset_axes((1.02, 0, 0.035, 1)))
    bar.set_label("critic's score  (greener: looks more real to it)")
    return True


def _principal_components(data: DataSet, real: np.ndarray) -> tuple[list[str], Callable[[np.ndarray], np.ndarray]]:
    """(labels, projection) of the two directions of largest variance of the real points, every column in its own scale."""
    scaled = (real - data.mean) / data.scale
    center = scaled.mean(axis=0)
    _, lengths, directions = np.linalg.svd(scaled - center, full_matrices=False)
    directions = directions[:2] * np.sign(directions[:2].sum(axis=1, keepdims=True) + 1e-30)  # a sign of its own choice
    share = np.square(lengths) / max(float(np.square(lengths).sum()), 1e-30)
    labels = [f"principal component {k + 1}  [sd; {share[k]:.0%} of variance]" for k in (0, 1)]
    return labels, lambda points: ((points - data.mean) / data.scale - center) @ directions.T


def _losses(part: SubFigure, history: Mapping[str, np.ndarray]) -> None:
    wasserstein = _measured(history, "w_estimate")
    axes, *others = part.subplots(1 + wasserstein, 1, sharex=True, squeeze=False)[:, 0]
    _curves(axes, history, "loss", [("critic_loss", REAL, "critic"), ("generator_loss", GENERATED, "generator")])
    if wasserstein:
        others[0].axhline(0, color=FAINT, linewidth=1, linestyle=":")
        _curves(others[0], history, "W estimate  [score]", [("w_estimate", THIRD, "W estimate")])
        _heading(axes, "Losses and Wasserstein estimate",
                 "Good: the W estimate (real minus generated score) falls to 0; losses need not.")
    elif _measured(history, "critic_loss"):
        _heading(axes, "Losses", "Good: neither wins for long. Critic's loss near 0: it beats the generator.")
    else:
        _heading(axes, "Loss", "Good: it falls and stays low. There is no opponent: lower is better here.")


def _gradient_norms(axes: Axes, norms: Any | None, penalized: bool, wasserstein: bool) -> None:
    values = np.asarray(backend.to_numpy(norms if norms is not None else []), np.float64).reshape(-1)
    values = values[np.isfinite(values)]
    target = penalized and wasserstein  # 1 is what WGAN-GP asks for; other penalties pull to 0, and at the data
    caption = ("No slopes were measured (a method without a critic has none)." if not len(values) else
               "Good: bars gather around the dashed line, the slope that the penalty asks for." if target else
               "The penalty pulls slopes to 0; the dashed line, 1, is there to compare." if penalized else
               "This method has no penalty: nothing pulls the slope to 1 (the dashed line).")
    _heading(axes, "Slope of the critic between real and generated points", caption)
    if not len(values):
        axes.set_axis_off()
        _sentence(axes, "no gradient norms were measured")
        return
    if np.median(values) > 0.04 and values.max() < 25:
        edges = np.linspace(0, max(1.5, values.max()), 51)
    else:  # only a logarithmic axis shows both the norms and 1
        edges = np.geomspace(max(min(values.min(), 1) / 2, 1e-9), 2 * max(values.max(), 1), 51)
        axes.set_xscale("log")
    count = np.histogram(np.maximum(values, edges[0]), edges)[0]
    axes.stairs(count, edges, color=GENERATED, alpha=0.65, fill=True,
                label=f"{len(values)} interpolates: mean {values.mean():.3g}, sd {values.std():.3g}")
    axes.axvline(1, color="black", linestyle="--", linewidth=1.4, label="1, the target" if target else "1")
    axes.set(xlabel="norm of the critic's gradient at the interpolates  [score / networks' unit]",
             ylabel="number of interpolates", xlim=(edges[0], edges[-1]))
    axes.margins(y=0.2)
    axes.legend(loc="upper right", framealpha=0.9, fontsize=9)
    axes.grid(alpha=0.25)


def _scores(part: SubFigure, data: DataSet, history: Mapping[str, np.ndarray], yardstick: Mapping[str, Any]) -> None:
    if data.centers is None:
        axes = part.add_subplot()
        _band(axes, yardstick.get("sliced_wasserstein"))
        _curves(axes, history, "sliced Wasserstein distance  [networks' units]",
                [("sliced_wasserstein", GENERATED, "generated against real")])
        high = axes.get_ylim()[1]
        if 0 < np.nanmin(_column(history, "sliced_wasserstein"), initial=np.inf) < high / 30:
            axes.set_yscale("log")
        else:
            axes.set_ylim(0, high)
        _heading(axes, "Distance to the real distribution",
                 "Good: down into the green band, the distance of real data to real data.")
        return
    upper, lower = part.subplots(2, 1, sharex=True)
    upper.axhline(len(data.centers), color=REAL, linewidth=1.4, linestyle=":", label=f"all {len(data.centers)} modes")
    _curves(upper, history, "modes captured", [("modes", GENERATED, "generated")])
    upper.set_ylim(-0.05 * len(data.centers), 1.12 * len(data.centers))
    upper.locator_params(axis="y", integer=True)
    _band(lower, yardstick.get("high_quality"), percent=True)
    _curves(lower, history, "high quality  [% of samples]", [("high_quality", GENERATED, "generated")], percent=True)
    lower.set_ylim(-5, 106)
    _heading(upper, "Modes captured and high-quality samples",
             "Good: every mode, and up into the green band, the score of real points.")


# -------------------------------------------------------------------------------------------------- helpers


def _zoom(shape: Sequence[int]) -> int:
    """How often an image (c, h, w) is enlarged: a whole number."""
    return max(1, TILE // max(shape[1:]))


def _nearest(images: np.ndarray, data: DataSet) -> tuple[np.ndarray, np.ndarray]:
    """The training image (c, h, w) nearest to each of n images, and the root mean square difference (n,), in 255 levels."""
    assert data.pixels is not None and data.split is not None
    seen = data.pixels[data.split["train"]]
    some = max(1, NEIGHBOURS // data.dim)  # at a time
    flat = images.reshape(len(images), -1)
    parts = [metrics.nearest(flat, seen[i:i + some].reshape(-1, data.dim)) for i in range(0, len(seen), some)]
    indices, distances = (np.concatenate(both, axis=1) for both in zip(*parts))
    best = distances.argmin(axis=1)
    return (seen[best * some + indices[np.arange(len(best)), best]],
            distances.min(axis=1) / math.sqrt(data.dim))


def _figure(size: tuple[float, float], title: str) -> Figure:
    from matplotlib.figure import Figure
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.15, h_pad=0.15)  # type: ignore[union-attr,call-arg]
    if title:
        figure.suptitle(title, fontsize=14, weight="bold", parse_math=False)
    return figure


def _measured(history: Mapping[str, np.ndarray], name: str) -> bool:
    return bool(np.isfinite(_column(history, name)).any())


def _column(history: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """A column of the history in float64; all NaN if it is not there. Beyond 1e30 nothing can be told from a picture."""
    if name not in history:
        return np.full(len(next(iter(history.values()), ())), np.nan)
    values = np.asarray(backend.to_numpy(history[name]), np.float64)
    return np.where(np.isfinite(values), np.clip(values, -1e30, 1e30), np.nan)


def _curves(axes: Axes, history: Mapping[str, np.ndarray], ylabel: str, columns: list[tuple[str, str, str]],
            percent: bool = False) -> None:
    """Columns (name, color, label) over the steps, in a frame that a few spikes do not blow up.

    A long curve is drawn pale and thinned out, with the medians of 100 parts of it bold.
    """
    steps, drawn, xlabel = _column(history, "step"), [], "step  [generator updates]"
    for name, color, label in columns:
        values = _column(history, name) * (100 if percent else 1)
        finite = np.isfinite(steps) & np.isfinite(values)
        step, values = steps[finite], values[finite]
        if not len(values):
            continue
        drawn.append(_most(values))
        if len(values) >= 400:
            xlabel = "step  [generator updates; bold: medians over 1 % of the run]"
            thin = np.linspace(0, len(values) - 1, 1000).astype(int)
            axes.plot(step[thin], values[thin], color=color, linewidth=0.6, alpha=0.35)
            step, values = (np.array([np.median(part) for part in np.array_split(x, 100)]) for x in (step, values))
        axes.plot(step, values, color=color, linewidth=1.8, label=label, marker="o" if len(values) <= 60 else "",
                  markersize=4)
    axes.set(xlabel=xlabel, ylabel=ylabel, xlim=(0, 1.02 * np.nanmax(steps, initial=1)))
    axes.label_outer()
    axes.grid(alpha=0.25)
    if not drawn:
        _sentence(axes, "nothing measured yet")
        return
    axes.set_ylim(*_limits(np.concatenate(drawn)))
    axes.legend(loc="best", framealpha=0.9, fontsize=9, ncols=2)


def _band(axes: Axes, band: Any, percent: bool = False) -> None:
    if band is not None:
        low, high = (float(edge) * (100 if percent else 1) for edge in band)
        axes.axhspan(low, high, color=REAL, alpha=0.25, linewidth=0, label="real against real")


def _most(values: np.ndarray) -> np.ndarray:
    """The quantiles 0.01 and 0.99 (two of the values)."""
    return np.quantile(values, [0.01, 0.99], method="closest_observation")


def _limits(main: np.ndarray, others: np.ndarray = np.empty(0)) -> tuple[float, float]:
    """A frame that holds the main values and the most of the others, at most three times as wide as the main ones."""
    low, high = float(main.min()), float(main.max())
    width = (high - low) or 1.0
    if len(others):
        first, last = _most(others)
        low, high = max(min(low, first), low - width), min(max(high, last), high + width)
    margin = 0.08 * (high - low) or 0.5
    return low - margin, high + margin


def _within(points: np.ndarray, limits: list[tuple[float, float]]) -> np.ndarray:
    """Which of the points (n, k) lie in the frame (k limits)."""
    low, high = np.transpose(limits)
    return ((points >= low) & (points <= high)).all(axis=1)


def _widen(limits: list[tuple[float, float]]) -> None:
    """Make two limits, in place, those of a frame 1.5 times as wide as high."""
    middles, halves = [sum(limit) / 2 for limit in limits], [(high - low) / 2 for low, high in limits]
    half = max(halves[1], halves[0] / 1.5)
    limits[:] = [(middles[0] - 1.5 * half, middles[0] + 1.5 * half), (middles[1] - half, middles[1] + half)]


def _heading(axes: Axes, title: str, caption: str) -> None:
    """A bold title and, under it, one line that says what to look for."""
    axes.set_title(title, loc="left", fontsize=12, weight="bold", pad=24)
    axes.annotate(caption, (0, 1), (0, 7), "axes fraction", "offset points", fontsize=9.5, color="#333333"
                  ).set_in_layout(False)


def _sentence(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=FAINT, fontsize=11)
