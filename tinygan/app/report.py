"""What a run says and shows: its header, its pictures and samples, its results."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__, backend
from ..data import DataSet
from ..training import GAN, checkpoint, samples
from . import folder as files
from .cli import printable, say

Scores = dict[str, tuple[float, float]]  # of real data: the lowest and highest of a few draws


def note(text: str) -> None:
    """A line on stderr that is not an error."""
    say(f"tinygan: {printable(text)}", sys.stderr)


# ----------------------------------------------------------------------------------- header


def header(gan: GAN, folder: Path, speed: str) -> str:
    """What is about to be done, in four lines, folded to the width of a terminal."""
    run, game, config, data = gan.run_, gan.run_.game, gan.run_.config, gan.data_
    asked = gan.device or os.environ.get("TINYGAN_DEVICE") or "auto"
    fallback = asked == "auto" and game.device == "cpu"
    lines = [
        f"tinygan {__version__}  {game.method.title}  data {data.name}{_read(data)}"
        f"  seed {config.seed}",
        f"device {game.device}" + " (no GPU usable, see tinygan devices)" * fallback
        + _ranks(game.ranks, game.device)
        + f"  numpy {np.__version__}  {speed}  {'eager' if run.eager else 'replayed'} steps",
        _settings(gan),
        f"data: {_parts(data)}  steps {run.step} to {config.steps}  writing to {folder}"]
    width = shutil.get_terminal_size((10**6, 24)).columns  # a file's lines are not folded
    fold = textwrap.TextWrapper(width, subsequent_indent="    ", break_long_words=False,
                                break_on_hyphens=False)
    return "\n".join(fold.fill(printable(line)) for line in lines)


def _ranks(ranks: Any, device: str) -> str:
    """The processes of a run on several."""
    if ranks.size == 1:
        return ""
    through = "" if device == "cpu" else ", sums on GPUs" if ranks.on_gpus else ", sums on hosts"
    return f"  {ranks.size} ranks on {ranks.hosts} host{'s' * (ranks.hosts > 1)}{through}"


def _settings(gan: GAN) -> str:
    """The networks and how they are trained."""
    game, config = gan.run_.game, gan.run_.config
    words = [f"{name} {_shape(network, gan)}" for name, network in game.networks.items()]
    if config.conditional:
        words.append(f"conditional on {len(gan.data_.classes)} classes")
    batch = f"batch {config.batch}"
    if config.accumulate > 1:
        batch += f" x {config.accumulate} accumulated"
        if game.generator.couples_examples:
            batch += ", of which batch norm sees a part at a time"
    words.append(batch)
    if config.n_critic:
        words.append(f"critic steps {config.n_critic}")
    if config.penalty is not None:
        words.append(f"penalty {config.penalty:g}")
    if game.method.clip:
        words.append(f"weights within {game.method.clip:g}")
    return "  ".join([*words, f"lr {config.lr:g} falling to 0"])


def _shape(network: Any, gan: GAN) -> str:
    """The widths of a perceptron, the number of parameters of another network."""
    config = gan.run_.config
    if config.depth is None:
        size = sum(p.size for p in network.parameters())
        return f"{'conv' if config.net == 'conv' else config.method} ({size:,} parameters)"
    weights = [p for p in network.parameters() if p.ndim == 2][:config.depth + 1]
    return "-".join(str(n) for n in [weights[0].shape[0], *(w.shape[1] for w in weights)])


def _read(data: DataSet) -> str:
    """How many images of which size, and how data were read where that is not plain."""
    images = ""
    if data.pixels is not None:
        images = f" ({len(data.pixels):,} images {'x'.join(map(str, data.pixels.shape[1:]))})"
    return images + (f"  {data.reading}" if data.reading else "")


def _parts(data: DataSet) -> str:
    """The split of the data."""
    if data.split is None:
        return "fresh draws"
    if data.all_seen:
        return (f"{len(data.split['train'])} points, too few to hold any back: "
                "scores are of what was seen")
    parts = ("train", "validation", "test")
    return "  ".join(f"{part} {len(data.split[part]):,}" for part in parts)


# ------------------------------------------------------------------------ pictures, results


def write_pictures(gan: GAN, folder: Path, ideal: Scores) -> None:
    """samples.npz and panel.png; a picture that cannot be drawn costs the run a note, no more."""
    from . import plots

    made, labels = drawn(gan)
    arrays: dict[str, Any] = {"samples": made} | ({} if labels is None else {"labels": labels})
    checkpoint.write_atomically(folder / "samples.npz", lambda file: np.savez(file, **arrays))
    try:
        picture = plots.png(panel(gan, made, ideal))
    except Exception as error:
        note(f"the picture could not be drawn: {type(error).__name__}: {error}")
        return
    checkpoint.write_atomically(folder / "panel.png", lambda file: file.write(picture))


def write_report(gan: GAN, path: str | os.PathLike[str], about: dict[str, Any], ideal: Scores
                 ) -> None:
    """report.html, whole or not at all."""
    from . import page

    text = page.page(gan, about, ideal).encode()
    checkpoint.write_atomically(path, lambda file: file.write(text))


def try_report(gan: GAN, folder: Path, about: dict[str, Any], ideal: Scores) -> None:
    """The report of a run that has ended; one that cannot be made costs the run a note, no more."""
    try:
        from . import page

        text = page.page(gan, about, ideal).encode()
    except Exception as error:
        note(f"the report could not be made: {type(error).__name__}: {error}")
        return
    checkpoint.write_atomically(folder / "report.html", lambda file: file.write(text))


def show(address: str) -> None:
    """Open an address in a browser, or say that there is no display."""
    import webbrowser

    if not (sys.platform in ("win32", "darwin")
            or {"DISPLAY", "WAYLAND_DISPLAY", "BROWSER"} & os.environ.keys()):
        note(f"there is no display here; open {address} in a browser")
    elif not webbrowser.open(address):
        note(f"no browser could be started; open {address} in one")


def drawn(gan: GAN) -> tuple[np.ndarray, np.ndarray | None]:
    """The samples that a run leaves and its picture shows, and their labels."""
    n, labels = 1000 if gan.data_.shape else 2500, None
    made = gan.sample(n, return_labels=gan.conditional)
    if gan.conditional:
        made, labels = made
    return made if gan.data_.table is None else gan.data_.table.points(made), labels


def panel(gan: GAN, drawn: np.ndarray, ideal: Scores) -> Any:
    """The picture of a run, as a Figure."""
    run = gan.run_
    title = (f"{run.game.method.title}, {gan.data_.name}, seed {run.config.seed}, "
             f"step {run.step:,}")
    draw = _image_panel if gan.data_.shape else _point_panel
    return draw(gan, drawn, title, ideal)


def _image_panel(gan: GAN, drawn: np.ndarray, title: str, ideal: Scores) -> Any:
    from . import plots

    run = gan.run_
    own = run.record.classes(4)
    there = samples.walk(run.game, 2, 9, 4, 0, *own)[:10]  # and not back
    paths = gan.data_.to_images(there).swapaxes(0, 1)
    kept = [(int(moment["steps"]), moment["images"]) for moment in run.record.moments]
    if gan.conditional:  # the first samples are a row for each class
        rows = gan.data_.classes[:8]
        columns = plots.sheet_columns(paths.shape[2:])
        first = gan.sample(len(rows) * columns, label=list(rows))
        return plots.image_panel(gan.data_, first, kept, paths, run.columns(), title, ideal, rows)
    return plots.image_panel(gan.data_, drawn, kept, paths, run.columns(), title, ideal)


def _point_panel(gan: GAN, drawn: np.ndarray, title: str, ideal: Scores) -> Any:
    from . import plots

    run, game = gan.run_, gan.run_.game
    if not game.critic:
        return plots.panel(gan.data_, drawn, run.columns(), None, None, title, ideal)
    critic = samples.judge(game)
    slopes = samples.gradient_norms(game, 2048, run.step)

    def scores(points: np.ndarray) -> np.ndarray:
        return backend.to_numpy(critic(backend.to_device(points, game.device)).data)

    return plots.panel(gan.data_, drawn, run.columns(), slopes, scores, title, ideal)


def results(gan: GAN, folder: Path, ideal: Scores) -> str:
    """The last scores beside those of real data, and where the files are."""
    run, last = gan.run_, files.last_scores(gan)
    lines = [f"{run.step} of {run.config.steps} steps done in {run.seconds:.0f} s"]

    def beside(name: str, form: str) -> str:
        low, high = ideal[name]
        return f"{last[name]:{form}}   (real data: {low:{form}} to {high:{form}})"

    if "modes" in last and gan.data_.centers is not None:
        lines += [f"  modes captured      {last['modes']:.0f} of {len(gan.data_.centers)}",
                  f"  high quality        {beside('high_quality', '.1%')}",
                  f"  reverse KL          {beside('reverse_kl', '.4f')}"]
    if "sliced_wasserstein" in last:
        lines.append(f"  sliced Wasserstein  {beside('sliced_wasserstein', '.4f')}")
    if "label_accuracy" in last:
        lines.append(f"  accuracy of labels  {last['label_accuracy']:.1%}   "
                     f"(real data: {ideal['label_accuracy'][0]:.1%})")
    lines += [f"{kind}  {folder / name}" for kind, name in (("picture", "panel.png"),
                                                            ("report ", "report.html"),
                                                            ("samples", "samples.npz"))
              if (folder / name).exists()]
    more = "64 -o grid.png" if gan.data_.shape else "1000 -o samples.csv"
    lines.append(f"next     tinygan sample {shlex.quote(str(folder))} -n {more}")
    return "\n".join(map(printable, lines))
