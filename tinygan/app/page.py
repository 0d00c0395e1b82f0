"""report.html: the film of a run, its curves, scores and settings, in a file for any browser.

The words and tables are made here; ``page.html`` is the frame around them, and ``page.js`` draws
the film and the curves from numbers, which the page holds as JSON. Whatever a user named is
escaped.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from importlib import resources
from typing import Any

import numpy as np

from .. import metrics
from ..training import GAN, Config, Run, record, samples
from . import plots
from .advice import advice, mode_shares
from .cli import printable

Bands = Mapping[str, tuple[float, float]]  # scores of real data: the lowest and highest of a few

SIDE, OUT = 10_000, -32_768  # of the frame of the film in whole numbers; what is not finite
BINS = 60  # of histograms
WALK, PAIRS = 4, 10  # paths of the walk, samples beside their nearest training images
NAMES = {"step": "step", "seconds": "seconds", "critic_loss": "critic's loss",
         "generator_loss": "generator's loss", "w_estimate": "W estimate", "penalty": "penalty",
         "gradient_norm": "slope of the critic", "modes": "modes captured",
         "high_quality": "high quality (share)", "reverse_kl": "reverse KL (nats)",
         "sliced_wasserstein": "sliced Wasserstein", "label_accuracy": "accuracy of labels"}


def page(gan: GAN, about: Mapping[str, Any], bands: Bands, live: bool = False) -> str:
    """The report of a run as HTML.

    about: what run.json holds. bands: the scores of real data; empty if the data are not at hand.
    live: whether the page asks for a newer one every two seconds, and leaves out what takes long.
    """
    run, data = gan.run_, gan.data_
    script = resources.files(__package__).joinpath("page.js").read_text("utf-8")
    title = f"{run.game.method.title} on {data.name}"
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = {
        "hash": f"sha256-{digest}", "live": "data-live" if live else "",
        "title": _text(title), "lead": _text(_lead(run, about, live)),
        "advice": _advice(advice(run, bands, not live, diverged(about))),
        "scores": _scores(run, bands), "about": _about(gan, about),
        "data": json.dumps(content(gan, bands, live), separators=(",", ":"), allow_nan=False
                           ).replace("<", "\\u003c"),
        "script": script}
    whole = resources.files(__package__).joinpath("page.html").read_text("utf-8")
    first, *rest = whole.split("{{")
    pieces = [first]
    for piece in rest:
        name, _, after = piece.partition("}}")
        pieces += [parts[name], after]
    return "".join(pieces)


# -------------------------------------------------------------------------------------- words


def _text(value: Any) -> str:
    """As text of the page."""
    return html.escape(printable(str(value)))


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Rows of a name and values."""
    top = "".join(f'<th scope="col">{_text(cell)}</th>' for cell in head)
    body = "".join(f'<tr><th scope="row">{_text(name)}</th>'
                   + "".join(f"<td>{_text(value)}</td>" for value in values) + "</tr>"
                   for name, *values in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def diverged(about: Mapping[str, Any]) -> bool:
    """Whether this is how the run ended."""
    return str(about.get("exit")).startswith("training diverged")


def _lead(run: Run, about: Mapping[str, Any], live: bool) -> str:
    ended, last = about.get("exit"), about.get("steps_done")
    if ended not in (None, "done"):
        how = f"ended by: {ended}"
    elif ended or run.step == run.config.steps:
        how = "done"
    else:
        how = f"in training; written {about.get('written', 'just now')}" if live else "unfinished"
    if isinstance(last, int) and last != run.step:
        how = f"of a run that came to step {last:,}, {how}"
    return (f"Seed {run.config.seed}, step {run.step:,} of {run.config.steps:,}, "
            f"{run.seconds:.0f} s of training, {how}.")


def _advice(lines: Sequence[tuple[bool, str, str]]) -> str:
    if not lines:
        return "<p>No rule has anything to say about this run.</p>"
    items = []
    for good, words, then in lines:
        mark = "✓ Good:" if good else "! Not yet:"
        items.append(f'<li class="{"good" if good else "bad"}"><b>{mark}</b>{_text(words)}'
                     + (f"<br>To try next: {_text(then)}" if then else "") + "</li>")
    return f"<ul>{''.join(items)}</ul>"


def _scores(run: Run, bands: Bands) -> str:
    """The last value of every score, beside real data's."""
    blind = " For images it is a distance of pixels, blind to what they show: look at the samples."
    rows = []
    for name in ("modes", "high_quality", "reverse_kl", "sliced_wasserstein", "gradient_norm",
                 "label_accuracy"):
        column = run.columns().get(name, np.zeros(0))
        known = column[~np.isnan(column)]
        if len(known):
            low, high = bands.get(name, (math.nan, math.nan))
            real = f"{low:.4g} to {high:.4g}" if low < high else f"{low:.4g}" if low == low else "–"
            rows.append((NAMES[name], f"{known[-1]:.4g}", real))
    if not rows:
        return "<p>Nothing was measured yet.</p>"
    return (_table(("score", "this run", "real data"), rows) +
            '<p class="faint">Scores are those of 2,500 samples against the validation part of the '
            "data. Real data: training points in the place of samples, the lowest and highest of "
            "five draws; a perfect generator scores like that. tinygan evaluate has the last word, "
            f"on the test part.{blind * bool(run.game.data.shape)}</p>")


def _about(gan: GAN, about: Mapping[str, Any]) -> str:
    """The command that repeats the run, and what else is known of it."""
    left_out = ("config", "last", "arguments", "exit", "steps_done")
    rows = [(name, value) for name, value in asdict(gan.run_.config).items()
            if value is not None and value is not False]
    for name, value in about.items():
        if name not in left_out and value not in (None, {}, []):
            rows.append((name, _words(value)))
    list_of = "".join(f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>"
                      for name, value in rows)
    words = about.get("arguments")
    resumed = isinstance(words, list) and any(str(word).startswith("--r") for word in words)
    but = ", if --steps stayed the same when it was resumed" * resumed
    return f"<p>To repeat it{but}: <code>{_text(command(gan))}</code></p><dl>{list_of}</dl>"


def _words(value: Any) -> str:
    """A value of run.json."""
    if isinstance(value, dict):
        value = [f"{name}={own}" for name, own in value.items()]
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def command(gan: GAN) -> str:
    """The command, or the line of Python, that repeats a run."""
    config = gan.run_.config
    default = Config(method=config.method, net=config.net).resolved(gan.data_)
    own = {f.name: getattr(config, f.name) for f in fields(Config)
           if f.name in ("method", "seed") or getattr(config, f.name) != getattr(
               Config if f.name == "net" else default, f.name)}
    if gan.source_ is None:
        settings = ", ".join(f"{name}={value!r}" for name, value in own.items())
        return f"GAN({settings}).fit(X{', y' * config.conditional})"
    images = {name: value for name, value in gan.images_.items() if value is not None}
    words = [gan.source_]
    for name, value in (own | images).items():
        words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return f"tinygan train {shlex.join(words)}"


# ---------------------------------------------------------------------------------- the film


def content(gan: GAN, bands: Bands, live: bool = False) -> dict[str, Any]:
    """All that ``page.js`` draws."""
    run, moments = gan.run_, list(gan.run_.record.moments)
    if bands and not live and (not moments or moments[-1]["steps"] != run.step):
        moments.append(run.record.look(run.step))  # the state in which it was stopped
    seen = {name: np.array([moment[name] for moment in moments]) for name in run.record.kinds}
    log = {name: [_digits(x) for x in column] for name, column in run.columns().items()}
    names = {name: NAMES[name] for name in log if any(x is not None for x in log[name])}
    whole = {"kind": None, "caption": "There is none: this run has kept no moments.",
             "total": run.config.steps, "steps": seen["steps"].tolist(), "log": log, "names": names,
             "charts": charts(gan, bands, seen)}
    if moments:
        whole |= _images(gan, seen) if gan.data_.shape else _points(gan, seen)
    if gan.data_.shape and not live:
        whole |= _walk(gan) | (_nearest(gan) if bands else {})
    return whole


def _points(gan: GAN, seen: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The film of points in a plane or on a line."""
    data, constants = gan.data_, gan.run_.record.constants
    real, points = constants["real"].astype(float), seen["points"].astype(float)
    box = record.frame(real)
    plane = len(box) == 2
    counts = {"points": record.POINTS, "arrows": record.ARROWS, "cells": record.CELLS,
              "grid": [record.GRID, record.GRID if gan.run_.game.latent_dim > 1 else 1]}
    film = {"kind": "plane" if plane else "line", "axes": _axes(gan, box), "counts": counts,
            "told": _told(gan, points, box), "real": _coded(_placed(real, box)),
            "points": _coded(_placed(points, box))}
    layers = [("real", f"real points ({len(real)})", "real", True),
              ("generated", f"generated points ({record.POINTS})", "made", True)]
    caption = ["The same latents and real points at every moment."]
    if "scores" in seen:
        layers.append(("levels", f"critic's score ({'greener' if plane else 'higher'}: looks more "
                       "real to it)", "high" if plane else "third", True))
        caption.append("Scores are differences from the median of their moment; the levels are the "
                       "same at every moment.")
        film |= _levels(seen)
    if "arrows" in seen and plane:
        arrows = seen["arrows"].astype(float)
        lengths = np.linalg.norm(arrows, axis=-1, keepdims=True)
        finite = lengths[np.isfinite(lengths)]
        unit = float(np.median(finite)) or 1.0 if len(finite) else 1.0
        arrows *= 0.1 / unit * np.minimum(1, 2 * unit / np.maximum(lengths, 1e-30))
        film["arrows"] = _coded(_whole(arrows * SIDE))
        layers.append(("arrows", "where the critic pushes 60 of them", "third", True))
        caption.append(f"An arrow over a tenth of the frame is a slope of {unit:.2g}; the longest "
                       "are cut at two tenths.")
    if "manifold" in seen:
        film["manifold"] = _coded(_placed(seen["manifold"].astype(float), box))
        layers.append(("manifold", "where a grid of latents lands (its cells are equally likely)",
                       "made", False))
    if gan.conditional:
        caption.append("Scores are means over the classes; the grid of latents is of the first.")
    if data.centers is not None and data.dim == 2:
        film["modes"] = _coded(_placed(data.centers, box))
    if not plane:
        film["bins"] = _bins(real, points, box)
    return film | {"caption": " ".join(caption), "layers": [
        dict(zip(("name", "title", "color", "on"), layer)) for layer in layers]}


def _axes(gan: GAN, box: np.ndarray) -> list[dict[str, Any]]:
    """The label of each axis of the film, and the ends of the frame in its unit."""
    data, shares = gan.data_, gan.run_.record.constants["shares"]
    if data.dim > 2:
        return [{"label": f"principal component {k + 1} [sd; {shares[k]:.0%} of the variance]",
                 "low": low, "high": high} for k, (low, high) in enumerate(box.tolist())]
    ends = box * data.scale[:, None] + data.mean[:, None]
    return [{"label": f"x{k + 1} [data units]", "low": low, "high": high}
            for k, (low, high) in enumerate(ends.tolist())]


def _told(gan: GAN, points: np.ndarray, box: np.ndarray) -> list[str]:
    """Each moment of the points (moments, n, k) in words."""
    data, real = gan.data_, gan.run_.record.constants["real"].astype(float)
    told, ways = [], [""] if len(box) == 1 else [" across", " up"]
    for x in points:
        finite = x[np.isfinite(x).all(axis=1)]
        if data.centers is not None and data.sigma is not None:
            found = metrics.mode_coverage(x, data.centers, data.sigma)
            words = (f"{found.captured} of {len(data.centers)} modes have points, "
                     f"{found.high_quality:.0%} of the points lie within 3 sd of one")
        elif len(finite):
            spread = ", ".join(f"{of_made / of_real:.0%}{way}" for of_made, of_real, way in zip(
                finite.std(axis=0), real.std(axis=0), ways) if of_real > 1e-6)
            words = (f"the points spread over {spread} of the real ones' standard deviation"
                     if spread else "the real points are all the same")
        else:
            words = "no point is finite"
        outside = np.sum((finite < box[:, 0]).any(axis=1) | (finite > box[:, 1]).any(axis=1))
        told.append(words + f", {outside} outside the frame" * bool(outside) + ".")
    return told


def _levels(seen: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The critic's scores as differences from the median of each moment, and how large they are."""
    low, high = (seen["range"][:, k, None].astype(float) for k in (0, 1))
    values = low + (high - low) / 255 * seen["scores"].reshape(len(low), -1)
    middle = np.median(values, axis=1, keepdims=True)
    most = np.quantile(np.abs(values - middle), 0.98, axis=1)  # of each moment
    most = most[np.isfinite(most) & (most > 0)]
    edges = np.nan_to_num(np.hstack([low - middle, high - middle]), posinf=0, neginf=0)
    return {"scores": _coded(seen["scores"]), "range": [[_digits(x) for x in row] for row in edges],
            "most": float(np.median(most)) if len(most) else 1.0}


def _bins(real: np.ndarray, points: np.ndarray, box: np.ndarray) -> dict[str, Any]:
    """Histograms of points on a line, as densities over the frame."""
    edges = np.linspace(box[0, 0], box[0, 1], BINS + 1)

    def density(x: np.ndarray) -> list[float]:
        counts = np.histogram(x[np.isfinite(x)], edges)[0]
        return [_digits(share) for share in counts / max(len(x), 1)]

    heights = density(real)
    return {"real": heights, "generated": [density(x) for x in points], "most": 1.5 * max(heights)}


def _images(gan: GAN, seen: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The film of images: a sheet with a row for each moment."""
    assert gan.data_.shape is not None
    images = seen["images"].reshape(-1, record.PICTURES, *gan.data_.shape)
    differ = images.std(axis=1).reshape(len(images), -1)
    told = [f"the {record.PICTURES} images differ by {x:.0f} of 255 grey levels from their mean."
            for x in np.sqrt(np.square(differ).mean(axis=1))]
    return {"kind": "images", "told": told, "layers": [], "images": {
        **_sheet(images), "columns": 5, "rows": record.PICTURES // 5},
        "caption": "Images of the same ten latents at every moment. Good: shapes settle. "
                   "Bad: they become alike."}


def _walk(gan: GAN) -> dict[str, Any]:
    """Images along closed paths through latent space."""
    own = gan.run_.record.classes(WALK)
    path = gan.data_.to_images(samples.walk(gan.run_.game, 5, 12, WALK, 0, *own))
    return {"walk": {**_sheet(path), "columns": WALK, "places": len(path)}}


def _nearest(gan: GAN) -> dict[str, Any]:
    """Samples above the training images nearest to them."""
    asked = gan.sample(PAIRS)
    found, distances = plots.nearest_images(asked, gan.data_)
    tiles = plots.tiles(np.concatenate([asked, found]), PAIRS)
    return {"nearest": {"source": _png(tiles), "note": (
        "Above: samples; below: the training images nearest to them. Good: similar, not identical. "
        f"Here they differ by {distances.min():.0f} to {distances.max():.0f} of 255 grey levels "
        "(root mean square).")}}


def _sheet(images: np.ndarray) -> dict[str, Any]:
    """Images (rows, columns, c, h, w) as one picture, and the size of each."""
    rows, columns, channels, h, w = images.shape
    sheet = images.transpose(0, 3, 1, 4, 2).reshape(rows * h, columns * w, channels)
    return {"source": _png(sheet[..., 0] if channels == 1 else sheet), "width": w, "height": h}


def _png(pixels: np.ndarray) -> str:
    return "data:image/png;base64," + base64.b64encode(plots.encoded(pixels)).decode()


# ------------------------------------------------------------------------------------- curves


def charts(gan: GAN, bands: Bands, seen: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """What each curve and histogram over time shows."""
    run, data = gan.run_, gan.data_
    columns = run.columns()

    def line(name: str, words: str, color: str = "made") -> dict[str, str]:
        return {"column": name, "name": words, "color": color}

    one = np.isfinite(columns["w_estimate"]).any() and np.isfinite(columns["penalty"]).any()
    k = 0 if data.centers is None else len(data.centers)
    generated = "generated"
    asked: list[tuple[str, str, list[dict[str, str]], float | None]] = [
        ("Losses", "They show trouble, not quality.",
         [line("critic_loss", "critic", "real"), line("generator_loss", "generator")], None),
        ("Wasserstein estimate", "Good: it falls towards 0.",
         [line("w_estimate", "W", "third")], 0),
        ("Penalty", "Without its weight.", [line("penalty", "penalty", "third")], None),
        ("Slope of the critic", "Good: near 1, the penalty's target." if one else
         "The mean between real and generated points.",
         [line("gradient_norm", "mean slope")], 1 if one else None),
        ("Modes captured", f"Good: all {k}, the dashed line.", [line("modes", generated)], k),
        ("High quality", "The share of samples within 3 sd of a mode. Good: in the green band.",
         [line("high_quality", generated)], None),
        ("Reverse KL", "0: all modes have equal shares. Good: in the green band.",
         [line("reverse_kl", generated)], None),
        ("Sliced Wasserstein distance", "To the data. Good: in the green band.",
         [line("sliced_wasserstein", generated)], None),
        ("Accuracy of labels", "The share of samples whose nearest training example has the label "
         "that was asked for. Good: in the green band.", [line("label_accuracy", generated)], None)]
    made = []
    for title, note, lines, mark in asked:
        lines = [own for own in lines
                 if np.isfinite(columns.get(own["column"], np.nan)).any()]
        if not lines:
            continue
        band = bands.get(lines[0]["column"]) if lines[0]["column"] != "modes" else None
        known = [columns[own["column"]] for own in lines]
        known = [values[np.isfinite(values)] for values in known]
        limits, log = _limits(known, [*(band or []), *([] if mark is None else [mark]),
                                            *[0] * (title == "Modes captured")],
                              lines[0]["column"] == "sliced_wasserstein")
        summary = " ".join(
            f"{own['name']}: first {x[0]:.3g}, last {x[-1]:.3g}, lowest {x.min():.3g}, highest "
            f"{x.max():.3g}." for own, x in zip(lines, known))
        if band:
            summary += f" Real data: {band[0]:.3g} to {band[1]:.3g}."
        made.append({"title": title, "note": note, "summary": summary, "lines": lines, "log": log,
                     "limits": limits, "band": band and list(band), "mark": mark})
    if len(seen["steps"]) and "slopes" in seen and np.isfinite(seen["slopes"]).any():
        made.append(_slopes(seen, 1 if one else None))
    if len(seen["steps"]) and data.centers is not None and data.dim == 2:
        made.append(_shares(seen, data.centers))
    return made


def _limits(known: Sequence[np.ndarray], others: Sequence[float], may_be_log: bool
            ) -> tuple[list[float], bool]:
    """The frame of curves, which a few spikes do not blow up, and whether it is logarithmic."""
    most = np.concatenate([np.quantile(x, [0.01, 0.99]) for x in known] + [np.array(others)])
    most = np.clip(most, -1e30, 1e30)
    low, high = float(most.min()), float(most.max())
    if may_be_log and 0 < low < high / 30:
        return [0.8 * low, 1.25 * high], True
    margin = 0.08 * (high - low) or 0.5
    return [low - margin, high + margin], False


def _over_time(steps: np.ndarray) -> list[float]:
    """The edges between moments, so that each reaches half-way to its neighbours."""
    between = (steps[1:] + steps[:-1]) / 2
    return [float(steps[0]), *between.tolist(), float(max(steps[-1], 1))]


def _slopes(seen: Mapping[str, np.ndarray], mark: float | None) -> dict[str, Any]:
    """The histogram of the critic's slopes at each moment."""
    slopes = seen["slopes"].astype(float)
    finite = slopes[np.isfinite(slopes)]
    high = float(np.quantile(finite, 0.99))
    log = not (np.median(finite) > 0.04 and high < 25)
    if log:
        low = max(float(np.quantile(finite, 0.01)), 1e-9)
        edges = np.geomspace(low / 2, 2 * max(high, low, mark or 0), 41)
    else:
        edges = np.linspace(0, max(1.1 * high, 1.5), 41)
    shades, told = [], []
    for values in slopes:
        values = values[np.isfinite(values)]
        count = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0]
        shades.append((100 * count / max(count.max(), 1)).astype(int).tolist())
        low, middle, top = np.quantile(values, [0.05, 0.5, 0.95]) if len(values) else [math.nan] * 3
        told.append(f"median {middle:.3g}, nine tenths from {low:.3g} to {top:.3g}")
    return {"title": "Slopes of the critic over time",
            "note": "At 256 places between real and generated points; darker: more of them."
                    + " Good: they gather at the dashed line." * (mark is not None),
            "summary": f"First: {told[0]}. Last: {told[-1]}.", "log": log, "mark": mark,
            "limits": [float(edges[0]), float(edges[-1])],
            "heat": {"steps": _over_time(seen["steps"]), "edges": edges.tolist(), "shades": shades,
                     "told": told}}


def _shares(seen: Mapping[str, np.ndarray], centers: np.ndarray) -> dict[str, Any]:
    """The modes' shares of the points at each moment."""
    k = len(centers)
    shares = np.array([mode_shares(points, centers) for points in seen["points"]])
    told = [f"from {row.min():.0%} (mode {row.argmin() + 1}) to {row.max():.0%} "
            f"(mode {row.argmax() + 1})" for row in shares]
    return {"title": "Modes' shares over time",
            "note": "Of 500 points, each counted for the nearest mode (numbers as in the film). "
                    f"Good: all of one shade, {1 / k:.3g} each; empty: lost.",
            "summary": f"First: {told[0]}. Last: {told[-1]}.", "log": False, "limits": [0, k],
            "heat": {"steps": _over_time(seen["steps"]), "edges": list(range(k + 1)),
                     "names": list(range(1, k + 1)), "told": told,
                     "shades": np.minimum(50 * k * shares, 100).astype(int).tolist()}}


# ------------------------------------------------------------------------------------- numbers


def _placed(x: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Points (..., k) in whole numbers of the frame (k, 2)."""
    return _whole((x - box[:, 0]) / (box[:, 1] - box[:, 0]) * SIDE)


def _whole(x: np.ndarray) -> np.ndarray:
    """Vectors (..., k) rounded to int16; OUT in every place of one that is not finite."""
    finite = np.isfinite(x).all(axis=-1, keepdims=True)
    return np.where(finite, np.rint(np.clip(np.nan_to_num(x), -32_767, 32_767)), OUT).astype("<i2")


def _coded(numbers: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(numbers).tobytes()).decode()


def _digits(x: float) -> Any:
    """A number to five digits; None for one that is not finite."""
    if not math.isfinite(x):
        return None
    return int(x) if x == int(x) and abs(x) < 1e15 else float(f"{x:.5g}")
