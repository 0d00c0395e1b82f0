"""Pictures of a run: real points green, generated ones purple, which colour-blind eyes tell apart.

Images are enlarged by whole numbers and shown pixel for pixel. Figures are made without pyplot: no
window, no global state. Matplotlib is imported when the first picture is made, and its defaults
hold whatever the user's matplotlibrc says. Real points are drawn with a fixed seed, so that the
pictures of several runs can be compared.
"""

from __future__ import annotations

import functools
import io
import math
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

from .. import backend, metrics
from ..data import DataSet
from ..training import checkpoint, record

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

P = ParamSpec("P")
T = TypeVar("T")
History = Mapping[str, np.ndarray]  # the columns of log.csv; NaN where there is no value
Critic = Callable[[np.ndarray], Any]  # (n, d) float32 in the networks' units -> (n,) scores
Limits = tuple[float, float]
Show = Callable[[np.ndarray], Sequence["Artist"]]  # shows other points; gives what it changed

REAL, GENERATED, THIRD, FAINT = "#1b7837", "#762a83", "#b35806", "#666666"
POINTS = 1000  # of each kind in a picture
TILE = 64  # pixels: images whose longer side is at most half of this are enlarged
GAP = 6  # pixels between images
LINE = 192  # their grey: not black, not white, not what an untrained generator makes
NEIGHBOURS = 2**22  # pixels of training images searched at a time, in float64


def default_style(draw: Callable[P, T]) -> Callable[P, T]:
    """Run ``draw`` under Matplotlib's defaults, so that no picture depends on a matplotlibrc."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> T:
        from matplotlib import style
        with style.context([], after_reset=True), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph")  # the font lacks a letter of a file's name
            return draw(*args, **kwargs)

    return drawn


@default_style
def panel(
    data: DataSet,
    samples: Any,
    history: History,
    gradient_norms: Any | None,
    critic: Critic | None = None,
    title: str = "",
    yardstick: Mapping[str, Any] | None = None,
) -> Figure:
    """One picture of a run: points over the critic's level sets, losses, slopes, scores over time.

    samples: (n, d) generated points in data units. gradient_norms: (n,) norms of the critic's
    gradient at the interpolates. yardstick: the scores of real data against real data, (low, high)
    for ``high_quality`` and ``sliced_wasserstein``.
    """
    figure = _figure((14, 10.4), title)
    parts: Any = figure.subfigures(2, 2)
    _points(parts[0, 0].add_subplot(), data, samples, critic)
    _losses(parts[0, 1], history)
    _slopes(parts[1, 0].add_subplot(), gradient_norms, history)
    _scores(parts[1, 1], data, history, yardstick or {})
    return figure


@default_style
def scatter(data: DataSet, samples: Any, title: str = "") -> Figure:
    """Generated points (n, d), in data units, over real ones.

    Histograms for d = 1, the two principal components for d > 2.
    """
    figure = _figure((9, 6.8), title)
    _points(figure.add_subplot(), data, samples)
    return figure


@default_style
def image_panel(
    data: DataSet,
    samples: np.ndarray,
    snapshots: Sequence[tuple[int, np.ndarray]],
    paths: np.ndarray,
    history: History,
    title: str = "",
    yardstick: Mapping[str, Any] | None = None,
    rows: Sequence[str] = (),
) -> Figure:
    """One picture of a run on images: samples, snapshots, paths, nearest training images, curves.

    Images are uint8, (c, h, w) or flat. samples: (n, ...), n >= 1. snapshots: (step, images
    (k, ...) of the same k latents then). paths: (p, steps, ...), images along p paths through
    latent space. history, yardstick: those of ``panel``. rows: names of the rows of samples.
    """
    assert data.shape is not None
    samples = samples.reshape(-1, *data.shape)
    sheet = _Sheet(data.shape, title)
    columns = sheet.most_columns
    first = samples[:8 * columns]
    sheet.show(sheet.LEFT, sheet.TOP, first, columns, "Samples",
               f"The first {len(first)}, not cherry-picked. "
               "Good: like the training images, and as varied.",
               [name if len(name) <= 4 else name[:3] + "…" for name in rows])
    _snapshots(sheet, snapshots)
    sheet.show(sheet.LEFT, sheet.middle, paths, paths.shape[1], "Paths through latent space",
               "Each row goes from one latent to another. "
               "Good: every image could be a sample. Bad: jumps.")
    _neighbours(sheet, samples, data)
    parts: Any = sheet.figure.subfigures(1, 2)
    _losses(parts[0], history)
    _scores(parts[1], data, history, yardstick or {})
    return sheet.figure


def sheet_columns(shape: Sequence[int]) -> int:
    """How many images (c, h, w) stand in a row of samples of ``image_panel``."""
    return _Sheet(shape, "").most_columns


def tiles(images: np.ndarray, columns: int | None = None, labels: Any = None) -> np.ndarray:
    """Images (n, c, h, w) uint8 side by side: (height, width), in colour (height, width, 3).

    Small ones are enlarged by a whole number. Without ``columns`` the whole is about square. With
    ``labels`` (n,) each of them has rows of its own, if there are at least four images for each.
    """
    n, c, h, w = images.shape
    zoom = _zoom(images.shape[1:])
    tall, wide = zoom * h + GAP, zoom * w + GAP
    columns = columns or math.ceil(math.sqrt(n * tall / wide))
    places, rows = np.arange(n), math.ceil(n / columns)
    if labels is not None and n >= 4 * len(kinds := list(dict.fromkeys(labels))):
        most = max(np.sum(labels == kind) for kind in kinds)
        of_each = math.ceil(most / max(16, columns))
        columns, rows = math.ceil(most / of_each), of_each * len(kinds)
        for k, kind in enumerate(kinds):
            own = labels == kind
            places[own] = k * of_each * columns + np.arange(own.sum())
    cells = np.full((rows * columns, tall, wide, c), LINE, np.uint8)
    enlarged = images.transpose(0, 2, 3, 1).repeat(zoom, axis=1).repeat(zoom, axis=2)
    cells[places, GAP:, GAP:] = enlarged
    grid = cells.reshape(rows, columns, tall, wide, c).swapaxes(1, 2)
    whole = grid.reshape(rows * tall, columns * wide, c)
    whole = np.pad(whole, ((0, GAP), (0, GAP), (0, 0)), constant_values=LINE)
    return whole[..., 0] if c == 1 else whole


@default_style
def point_frames(data: DataSet, points: np.ndarray, title: str = "") -> list[np.ndarray]:
    """A picture (h, w, 3) uint8 of each frame of points (frames, n, d), in data units.

    They lie over real points, all in one scale, so that only the generated ones move.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    figure = _figure((8, 6.2), title)
    every = points.swapaxes(0, 1).reshape(-1, data.dim)
    show = _points(figure.add_subplot(), data, points[0], framed=every)
    for artist in show(points[0]):
        artist.set_animated(True)  # so it is left out of the background, which is drawn once
    canvas = FigureCanvasAgg(figure)
    figure.draw_without_rendering()  # the layout settles in two rounds
    canvas.draw()
    background: Any = canvas.copy_from_bbox(figure.bbox)
    frames = []
    for samples in points:
        canvas.restore_region(background)
        for artist in show(samples):
            artist.axes.draw_artist(artist)  # type: ignore[union-attr]
        frames.append(np.array(canvas.buffer_rgba())[..., :3])
    return frames


@default_style
def png(figure: Figure) -> bytes:
    """The figure as a PNG file of 256 colours, or of all where it shows colour images."""
    from matplotlib.image import AxesImage
    from PIL import Image
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png")
    picture = Image.open(drawn).convert("RGB")
    shown: list[Any] = figure.findobj(AxesImage)
    if all(np.ndim(image.get_array()) == 2 for image in shown):
        picture = picture.quantize(256, dither=Image.Dither.NONE)  # a third of the bytes
    picture.save(small, format="png")
    return small.getvalue()


def encoded(pixels: np.ndarray) -> bytes:
    """Pixels (h, w) or (h, w, 3) uint8 as a PNG file."""
    from PIL import Image
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="png", optimize=True)
    return content.getvalue()


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a PNG, whole or not at all: an old file stays until the new one is complete."""
    content = png(figure)
    checkpoint.write_atomically(path, lambda file: file.write(content))


def save_images(images: np.ndarray, path: str | os.PathLike[str], labels: Any = None) -> None:
    """Write ``tiles`` of images (n, c, h, w) uint8 as a PNG, whole or not at all."""
    content = encoded(tiles(images, labels=labels))
    checkpoint.write_atomically(path, lambda file: file.write(content))


def save_gif(frames: Iterable[np.ndarray], path: str | os.PathLike[str]) -> None:
    """Write frames, all (h, w) or all (h, w, 3) uint8, as a GIF that loops, whole or not at all.

    They share a palette, without dither: 256 greys, or 256 colours chosen from every eighth frame.
    """
    from PIL import Image
    pictures = [Image.fromarray(frame) for frame in frames]
    if pictures[0].mode == "L":
        first, *others = (picture.convert("P") for picture in pictures)
    else:
        some = Image.fromarray(np.concatenate([np.asarray(picture) for picture in pictures[::8]]))
        palette = some.quantize(256, Image.Quantize.FASTOCTREE)  # keeps white and the grey lines
        first, *others = (picture.quantize(palette=palette, dither=Image.Dither.NONE)
                          for picture in pictures)
    used = 1 + max(int(np.asarray(picture).max()) for picture in (first, *others))
    palette_used = (first.getpalette() or [])[:3 * used]
    checkpoint.write_atomically(path, lambda file: first.save(  # slow with colours that repeat
        file, format="gif", save_all=True, append_images=others, duration=80, loop=0,
        palette=palette_used))


# ------------------------------------------------------------------------------------- points


@default_style
def film(kept: record.Record, steps: int) -> list[np.ndarray]:
    """Frames (h, w, 3) uint8 of a run on points in a plane: critic's levels and pushes, points."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 4.4), dpi=100)
    canvas, axes, frames = FigureCanvasAgg(figure), figure.add_axes((0.01, 0.01, 0.98, 0.935)), []
    real = kept.constants["real"].astype(float)
    box = record.frame(real)
    colors = LinearSegmentedColormap.from_list("levels", ["#c9a8d1", "#f7f7f7", "#a2d3a0"])
    scores = [low + moment["scores"] / 255 * (high - low) for moment in kept.moments
              if "scores" in moment for low, high in [moment["range"].astype(float)]]
    scores = [own - np.median(own) for own in scores]
    most = np.median([np.quantile(np.abs(own), 0.98) for own in scores] or [1.0]) or 1.0
    middles = (np.arange(record.CELLS) + 0.5) / record.CELLS  # of cells
    places = [low + middles * (high - low) for low, high in box]
    for k, moment in enumerate(kept.moments):
        axes.clear()
        made, arrows = moment["points"].astype(float), moment.get("arrows")
        if scores:
            axes.contourf(*places, np.clip(scores[k] / most, -1, 1), np.linspace(-1, 1, 14),
                          cmap=colors)
        axes.scatter(real[:, 0], real[:, 1], s=22, c=REAL, alpha=0.8, linewidths=0)
        if arrows is not None:
            axes.quiver(*made[:len(arrows)].T, *arrows.astype(float).T, color=THIRD, width=0.004,
                        scale=25, scale_units="width")
        axes.scatter(made[:, 0], made[:, 1], s=5, c=GENERATED, linewidths=0)
        axes.set(xlim=box[0], ylim=box[1], xticks=[], yticks=[], aspect="equal",
                 title=f"step {int(moment['steps']):,} of {steps:,}")
        canvas.draw()
        frames.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    return frames + frames[-1:] * 20  # the end stays a while


def _points(axes: Axes, data: DataSet, samples: Any, critic: Critic | None = None,
            framed: np.ndarray | None = None) -> Show:
    """Samples over real points, in a frame made for the samples or for the points ``framed``."""
    samples = np.asarray(backend.to_numpy(samples), np.float64)
    real = data.to_data_units(data.draw(np.random.default_rng(0), POINTS))
    labels, project = ["x1  [data units]", "x2  [data units]"], lambda points: points
    if data.dim > 2:
        labels, project = _principal_components(data, real)

    def shown(points: np.ndarray) -> np.ndarray:
        return project(points[np.isfinite(points).all(axis=1)][:POINTS])

    real, generated = project(real), shown(samples)
    main = generated if framed is None else shown(framed)
    limits = [_limits(real[:, k], main[:, k]) for k in range(real.shape[1])]
    outside = np.sum(~_within(generated, limits))
    broken = np.sum(~np.isfinite(samples).all(axis=1))
    names = [f"real ({len(real)} points)",
             f"generated ({len(generated)} points" + f", {outside} outside" * bool(outside)
             + f", {broken} not finite" * bool(broken) + ")"]
    draw = _densities if data.dim == 1 else _clouds
    show = draw(axes, data, real, generated, limits, names, critic)
    axes.set_xlabel(labels[0])
    if data.dim > 1:
        axes.set_ylabel(labels[1])
    return lambda others: show(shown(others))


def _clouds(axes: Axes, data: DataSet, real: np.ndarray, generated: np.ndarray,
            limits: list[Limits], names: list[str], critic: Critic | None) -> Show:
    """Points in a plane, over the critic's level sets where the plane is all of the space."""
    low, high = limits[1]
    frame = [limits[0], (low, high + 0.12 * (high - low))]  # room for the legend
    if data.dim > 2 or (data.scale == data.scale[0]).all():  # both axes are in the same unit
        frame = _widened(frame)
        axes.set_aspect("equal", anchor="N")
    filled = critic is not None and data.dim == 2 and _level_sets(axes, data, frame, critic)
    inside = generated[_within(generated, limits)]
    for points, color, size, name in ((real, REAL, 28, names[0]), (inside, GENERATED, 7, names[1])):
        # Small on large: neither hides the other.
        cloud = axes.scatter(points[:, 0], points[:, 1], s=size, c=color, alpha=0.8, linewidths=0)
        axes.scatter([], [], s=40, c=color, label=name)
    axes.set(xlim=frame[0], ylim=frame[1])
    axes.legend(loc="upper center", framealpha=0.9, fontsize=9, ncols=2)
    _heading(axes, "Real and generated points" + " over the critic's level sets" * filled,
             "Good: purple covers all the green, evenly, and little purple lies elsewhere.")

    def show(others: np.ndarray) -> list[Artist]:
        cloud.set_offsets(others[_within(others, limits)])
        return [cloud]

    return show


def _densities(axes: Axes, data: DataSet, real: np.ndarray, generated: np.ndarray,
               limits: list[Limits], names: list[str], critic: Critic | None) -> Show:
    """Histograms of points on a line, and the critic's score along it."""
    edges = np.linspace(*limits[0], 61)

    def density(points: np.ndarray) -> np.ndarray:
        return np.histogram(points, edges)[0] / (max(1, len(points)) * (edges[1] - edges[0]))

    for points, color, name in ((real, REAL, names[0]), (generated, GENERATED, names[1])):
        values = density(points)
        outlines = [axes.stairs(values, edges, color=color, alpha=0.25, fill=True),
                    axes.stairs(values, edges, color=color, linewidth=1.8, label=name)]
    axes.set(xlim=limits[0], ylabel="density  [1 / data unit]")
    axes.margins(y=0.25)
    top = axes
    if critic is not None:
        line = np.linspace(*limits[0], 400)[:, None]
        top = axes.twinx()  # type: ignore[assignment]
        scores = _scored(critic, data, line)
        top.plot(line[:, 0], scores, color=THIRD, linestyle="--", linewidth=1.2)
        top.set_ylabel("critic's score  (dashed; higher: looks more real to it)", color=THIRD)
        top.margins(y=0.25)
    top.legend(*axes.get_legend_handles_labels(), loc="upper right", framealpha=0.9, fontsize=9)
    _heading(axes, "Real and generated points", "Good: the two outlines coincide.")

    def show(others: np.ndarray) -> list[Artist]:
        values = density(others)
        for outline in outlines:
            outline.set_data(values)
        return list(outlines)

    return show


def _scored(critic: Critic, data: DataSet, places: np.ndarray) -> np.ndarray:
    """The critic's scores (n,) at places (n, d) in data units; NaN where they are not finite."""
    scores = backend.to_numpy(critic(data.to_network_units(places)))
    scores = np.asarray(scores, np.float64).reshape(-1)
    return np.where(np.isfinite(scores), scores, np.nan)


def _level_sets(axes: Axes, data: DataSet, limits: list[Limits], critic: Critic) -> bool:
    """Fill the plane by the critic's score; False if it is not finite, or the same everywhere."""
    from matplotlib import colormaps
    from matplotlib.colors import LinearSegmentedColormap
    x, y = (np.linspace(*limit, 128) for limit in limits)
    places = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    scores = _scored(critic, data, places).reshape(128, 128)
    if np.isnan(scores).any() or np.ptp(scores) == 0:
        return False
    shades = colormaps["PRGn"](np.linspace(0.22, 0.78, 64))
    pale = LinearSegmentedColormap.from_list("pale PRGn", shades)
    filled = axes.contourf(x, y, scores, levels=14, cmap=pale, zorder=0)
    axes.contour(x, y, scores, levels=filled.levels, colors="white", linewidths=0.5, zorder=0)
    bar = axes.figure.colorbar(filled, cax=axes.inset_axes((1.02, 0, 0.035, 1)))
    bar.set_label("critic's score  (greener: looks more real to it)")
    return True


def _principal_components(
    data: DataSet, real: np.ndarray
) -> tuple[list[str], Callable[[np.ndarray], np.ndarray]]:
    """(labels, projection) of the two directions in which standardized real points vary most."""
    scaled = (real - data.mean) / data.scale
    center = scaled.mean(axis=0)
    axes, share = record.principal_axes(scaled)
    labels = [f"principal component {k + 1}  [sd; {share[k]:.0%} of the variance]" for k in (0, 1)]
    return labels, lambda points: ((points - data.mean) / data.scale - center) @ axes


# ------------------------------------------------------------------------------------- images


class _Sheet:
    """Two columns of blocks of images, pixel for pixel, above a strip for curves; in pixels."""

    LEFT, RIGHT, TOP, WIDTH, STRIP = 40, 810, 112, 1540, 430

    def __init__(self, shape: Sequence[int], title: str) -> None:
        self.shape = shape
        self.tall, self.wide = (GAP + _zoom(shape) * side for side in shape[1:])
        self.middle = self.TOP + 8 * self.tall + 75
        self.height = self.middle + 4 * self.tall + 25 + self.STRIP
        self.most_columns = (self.RIGHT - self.LEFT - 70) // self.wide
        self.figure = _figure((self.WIDTH / 100, self.height / 100), title)
        strip = (0, 0, 1, self.STRIP / self.height)
        self.figure.get_layout_engine().set(rect=strip)  # type: ignore[union-attr,call-arg]
        for text in self.figure.texts:  # the title, which is above the strip
            text.set_in_layout(False)

    def show(self, x: int, y: int, images: np.ndarray, columns: int, title: str, caption: str,
             labels: Sequence[str] = ()) -> None:
        """A block of images whose upper left corner is at (x, y); ``labels`` name its rows."""
        block = tiles(np.reshape(images, (-1, *self.shape)), columns)
        h, w = block.shape[:2]
        width, height = self.WIDTH, self.height
        axes = self.figure.add_axes((x / width, 1 - (y + h) / height, w / width, h / height))
        axes.imshow(block, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        rows = self.tall * (np.arange(len(labels)) + 0.5) + GAP / 2
        axes.set(xticks=[], yticks=rows, yticklabels=labels)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        _heading(axes, title, caption)


def _snapshots(sheet: _Sheet, snapshots: Sequence[tuple[int, np.ndarray]]) -> None:
    """At most eight rows, the first and the last snapshot among them."""
    place, title = (sheet.RIGHT, sheet.TOP), "The same latents over time"
    if not snapshots:
        sheet.show(*place, np.zeros((0, *sheet.shape), np.uint8), 1, title, "No snapshots yet.")
        return
    chosen = np.unique(np.linspace(0, len(snapshots) - 1, 8).round().astype(int))
    steps, images = zip(*(snapshots[i] for i in chosen))
    sheet.show(*place, np.array(images), len(images[0]), title,
               "Rows are training steps. Good: shapes settle. Bad: the columns become alike.",
               [f"{step:,}" for step in steps])


def _neighbours(sheet: _Sheet, samples: np.ndarray, data: DataSet) -> None:
    """One or two rows of samples, each above the training images nearest to them."""
    columns = min(10, len(samples))
    asked = samples[:columns * min(2, len(samples) // columns)]
    found, distances = nearest_images(asked, data)
    pairs = np.stack([x.reshape(-1, columns, *sheet.shape) for x in (asked, found)], axis=1)
    sheet.show(sheet.RIGHT, sheet.middle, pairs, columns, "Nearest training images",
               f"Good: similar, not identical. Here they differ by {distances.min():.0f} to "
               f"{distances.max():.0f} of 255 grey levels (root mean square).",
               ["sample", "nearest"] * len(pairs))


def nearest_images(images: np.ndarray, data: DataSet) -> tuple[np.ndarray, np.ndarray]:
    """The training image nearest to each of n images, and its root mean square difference (n,)."""
    assert data.pixels is not None and data.split is not None
    training = data.pixels[data.split["train"]]
    size = max(1, NEIGHBOURS // data.dim)  # images at a time
    flat = images.reshape(len(images), -1)
    parts = [metrics.nearest(flat, training[i:i + size].reshape(-1, data.dim))
             for i in range(0, len(training), size)]
    indices, distances = (np.concatenate(both, axis=1) for both in zip(*parts))
    best = distances.argmin(axis=1)  # the part, as each part gives its one nearest
    found = best * size + indices[np.arange(len(best)), best]
    return training[found], distances.min(axis=1) / math.sqrt(data.dim)


def _zoom(shape: Sequence[int]) -> int:
    """By how much an image (c, h, w) is enlarged: a whole number."""
    return max(1, TILE // max(shape[1:]))


# ------------------------------------------------------------------------------------- curves


def _losses(part: SubFigure, history: History) -> None:
    wasserstein = _measured(history, "w_estimate")
    axes, *others = part.subplots(1 + wasserstein, 1, sharex=True, squeeze=False)[:, 0]
    _curves(axes, history, "loss", [("critic_loss", REAL, "critic"),
                                    ("generator_loss", GENERATED, "generator")])
    if wasserstein:
        others[0].axhline(0, color=FAINT, linewidth=1, linestyle=":")
        _curves(others[0], history, "W estimate  [score]", [("w_estimate", THIRD, "W estimate")])
        _heading(axes, "Losses and Wasserstein estimate",
                 "Good: the W estimate (real minus generated score) falls to 0; losses need not.")
    elif _measured(history, "critic_loss"):
        _heading(axes, "Losses", "Good: neither player wins for long. "
                                 "A critic loss near 0 means that the critic wins.")
    else:
        _heading(axes, "Loss", "Good: it falls and stays low. "
                               "There is no opponent, so lower is better here.")


def _slopes(axes: Axes, norms: Any | None, history: History) -> None:
    """A histogram of the norms of the critic's gradient."""
    values = np.asarray(backend.to_numpy([] if norms is None else norms), np.float64).reshape(-1)
    values = values[np.isfinite(values)]
    title = "Slope of the critic between real and generated points"
    if not len(values):
        _heading(axes, title, "")
        axes.set_axis_off()
        _sentence(axes, "No slopes were measured: a method without a critic has none.")
        return
    # WGAN-GP's penalty asks for slope 1; other penalties pull towards 0, and at the data.
    penalized = _measured(history, "penalty")
    target = penalized and _measured(history, "w_estimate")
    _heading(axes, title,
             "Good: the bars gather around the dashed line, the slope that the penalty aims for."
             if target else
             "The penalty pulls slopes towards 0. The dashed line at 1 is for comparison."
             if penalized else
             "This method has no gradient penalty. The dashed line at 1 is for comparison.")
    if np.median(values) > 0.04 and values.max() < 25:
        edges = np.linspace(0, max(1.5, values.max()), 51)
    else:  # only a logarithmic axis shows both the norms and 1
        low = max(min(values.min(), 1) / 2, 1e-9)
        edges = np.geomspace(low, 2 * max(values.max(), 1), 51)
        axes.set_xscale("log")
    count = np.histogram(np.maximum(values, edges[0]), edges)[0]
    axes.stairs(count, edges, color=GENERATED, alpha=0.65, fill=True,
                label=f"{len(values)} interpolates: "
                      f"mean {values.mean():.3g}, sd {values.std():.3g}")
    axes.axvline(1, color="black", linestyle="--", linewidth=1.4,
                 label="1, the target" if target else "1")
    axes.set(xlabel="norm of the critic's gradient at the interpolates  [score / network unit]",
             ylabel="number of interpolates", xlim=(edges[0], edges[-1]))
    axes.margins(y=0.2)
    axes.legend(loc="upper right", framealpha=0.9, fontsize=9)
    axes.grid(alpha=0.25)


def _scores(part: SubFigure, data: DataSet, history: History, yardstick: Mapping[str, Any]) -> None:
    if data.centers is None:
        _distances(part.add_subplot(), history, yardstick)
        return
    modes = len(data.centers)
    upper, lower = part.subplots(2, 1, sharex=True)
    upper.axhline(modes, color=REAL, linewidth=1.4, linestyle=":", label=f"all {modes} modes")
    _curves(upper, history, "modes captured", [("modes", GENERATED, "generated")])
    upper.set_ylim(-0.05 * modes, 1.12 * modes)
    upper.locator_params(axis="y", integer=True)
    _band(lower, yardstick.get("high_quality"), 100)
    high_quality = [("high_quality", GENERATED, "generated")]
    _curves(lower, history, "high quality  [% of samples]", high_quality, 100)
    lower.set_ylim(-5, 106)
    _heading(upper, "Modes captured and high-quality samples",
             "High quality: within 3 sd of a mode. Good: all modes, and up in the green band.")


def _distances(axes: Axes, history: History, yardstick: Mapping[str, Any]) -> None:
    """The sliced Wasserstein distance over time, from 0, or logarithmic if it falls by much."""
    name = "sliced_wasserstein"
    _band(axes, yardstick.get(name))
    _curves(axes, history, "sliced Wasserstein distance  [network units]",
            [(name, GENERATED, "generated vs. real")])
    high = axes.get_ylim()[1]
    if 0 < np.nanmin(_column(history, name), initial=np.inf) < high / 30:
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, high)
    _heading(axes, "Distance to the real distribution",
             "Good: it falls into the green band, the distance of real data to real data.")


def _measured(history: History, name: str) -> bool:
    return bool(np.isfinite(_column(history, name)).any())


def _column(history: History, name: str) -> np.ndarray:
    """A column in float64, clipped to +-1e30, NaN where it is not finite or not there."""
    if name not in history:
        return np.full(len(next(iter(history.values()), ())), np.nan)
    values = np.asarray(backend.to_numpy(history[name]), np.float64)
    return np.where(np.isfinite(values), np.clip(values, -1e30, 1e30), np.nan)


def _curves(axes: Axes, history: History, ylabel: str, columns: list[tuple[str, str, str]],
            factor: float = 1) -> None:
    """Columns (name, colour, label) over the steps, in a frame that a few spikes do not blow up.

    A long curve is thinned out and drawn pale, under the medians of 100 parts of it.
    """
    steps, drawn, xlabel = _column(history, "step"), [], "step  [generator updates]"
    for name, color, label in columns:
        values = factor * _column(history, name)
        finite = np.isfinite(steps) & np.isfinite(values)
        x, y = steps[finite], values[finite]
        if not len(y):
            continue
        drawn.append(_most(y))
        if len(y) >= 400:
            xlabel = "step  [generator updates; bold: the median of each 1 % of the run]"
            thin = np.linspace(0, len(y) - 1, 1000).astype(int)
            axes.plot(x[thin], y[thin], color=color, linewidth=0.6, alpha=0.35)
            x, y = (np.array([np.median(part) for part in np.array_split(a, 100)]) for a in (x, y))
        marker = "o" if len(y) <= 60 else ""
        axes.plot(x, y, color=color, linewidth=1.8, label=label, marker=marker, markersize=4)
    axes.set(xlabel=xlabel, ylabel=ylabel, xlim=(0, 1.02 * np.nanmax(steps, initial=1)))
    axes.label_outer()
    axes.grid(alpha=0.25)
    if not drawn:
        _sentence(axes, "Nothing measured yet.")
        return
    axes.set_ylim(*_limits(np.concatenate(drawn)))
    axes.legend(loc="best", framealpha=0.9, fontsize=9, ncols=2)


def _band(axes: Axes, band: Any, factor: float = 1) -> None:
    """The (low, high) scores of real data, with a margin of a pixel, as they may be equal."""
    if band is not None:
        low, high = (factor * float(edge) for edge in band)
        axes.axhspan(low, high, color=REAL, alpha=0.25, linewidth=2, label="real vs. real")


# ------------------------------------------------------------------------- frames and text


def _figure(size: tuple[float, float], title: str) -> Figure:
    from matplotlib.figure import Figure
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.15, h_pad=0.15)  # type: ignore[union-attr,call-arg]
    if title:
        title = title.encode(errors="backslashreplace").decode()  # file names hold any byte
        figure.suptitle(title, fontsize=14, weight="bold", parse_math=False)
    return figure


def _most(values: np.ndarray) -> np.ndarray:
    """The quantiles 0.01 and 0.99 (two of the values)."""
    return np.quantile(values, [0.01, 0.99], method="closest_observation")


def _limits(main: np.ndarray, others: np.ndarray = np.empty(0)) -> Limits:
    """A frame for the main values and most of the others, at most three times theirs in width."""
    low, high = float(main.min()), float(main.max())
    width = (high - low) or 1.0
    if len(others):
        first, last = _most(others)
        low, high = max(min(low, first), low - width), min(max(high, last), high + width)
    margin = 0.08 * (high - low) or 0.5
    return low - margin, high + margin


def _within(points: np.ndarray, limits: list[Limits]) -> np.ndarray:
    """Which of the points (n, k) lie in the frame (k limits)."""
    low, high = np.transpose(limits)
    return ((points >= low) & (points <= high)).all(axis=1)


def _widened(limits: list[Limits]) -> list[Limits]:
    """The smallest limits around those given whose frame is 1.5 times as wide as high."""
    (x, y), (dx, dy) = np.mean(limits, axis=1), np.ptp(limits, axis=1) / 2
    half = max(dy, dx / 1.5)
    return [(x - 1.5 * half, x + 1.5 * half), (y - half, y + half)]


def _heading(axes: Axes, title: str, caption: str) -> None:
    """A bold title and, under it, one line that says what to look for."""
    axes.set_title(title, loc="left", fontsize=12, weight="bold", pad=24)
    note = axes.annotate(caption, (0, 1), (0, 7), "axes fraction", "offset points", fontsize=9.5,
                         color="#333333")
    note.set_in_layout(False)


def _sentence(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=FAINT,
              fontsize=11)
