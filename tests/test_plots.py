"""Pictures: what stands in them, and that odd runs do not break them."""

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.text import Text
from PIL import Image

from tinygan import data
from tinygan.app import plots


def dataset(dim):
    if dim == 2:
        return data.ring()
    return data.points(np.random.default_rng(0).gamma(2, size=(200, dim)), "mine")


def history(rows=30, evaluated=10):
    step = np.arange(1.0, rows + 1)
    seldom = np.where(np.arange(rows) % evaluated == 0, 1.0, np.nan)
    return {"step": step, "critic_loss": -1 / step, "generator_loss": np.sin(step),
            "w_estimate": 1 / step, "penalty": 0.1 / step, "gradient_norm": np.ones(rows),
            "modes": 8 * seldom, "high_quality": 0.9 * seldom,
            "reverse_kl": 0.01 * seldom, "sliced_wasserstein": 0.1 * seldom / step}


def critic(x):
    assert x.dtype == np.float32
    return np.square(x).sum(axis=1)


def text(figure):
    """Everything that is written in a figure, line by line."""
    return "\n".join(item.get_text() for item in figure.findobj(Text))


def draw(figure):
    """Draw, but in no file, and without laying out, which takes most of the time."""
    figure.set_layout_engine("none")
    figure.draw_without_rendering()


YARDSTICK = {"high_quality": (0.983, 0.993), "modes": 8, "sliced_wasserstein": (0.01, 0.03)}
NORMS = np.linspace(0.5, 1.5, 64)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_a_panel_names_its_axes_and_units_and_says_what_is_good(dim):
    d = dataset(dim)
    samples = d.to_data_units(d.draw(np.random.default_rng(1), 300))
    before = samples.copy()
    figure = plots.panel(d, samples, history(), NORMS, critic, "my run", YARDSTICK)
    np.testing.assert_array_equal(samples, before)
    assert isinstance(figure, Figure)
    written = text(figure)
    for words in ("my run", "real (1000 points)", "generated (300 points)", "loss",
                  "W estimate  [score]", "step  [generator updates]", "1, the target",
                  "norm of the critic's gradient at the interpolates",
                  f"64 interpolates: mean 1, sd {NORMS.std():.3g}", "real vs. real"):
        assert words in written
    assert written.count("Good: ") == 4
    place = {1: "density  [1 / data unit]", 2: "x2  [data units]", 3: "principal component 2"}[dim]
    scores = ["sliced Wasserstein distance  [network units]", "high quality  [% of samples]"]
    assert place in written and scores[dim == 2] in written
    assert ("critic's score" in written) == (dim < 3)
    assert ("all 8 modes" in written) == (dim == 2)


@pytest.mark.parametrize("dim", [1, 2, 3, 300])
def test_a_scatter_shows_real_points_beneath(dim):
    d = dataset(dim)
    figure = plots.scatter(d, d.to_data_units(d.draw(np.random.default_rng(1), 20)), "20 samples")
    written = text(figure)
    assert all(words in written
               for words in ("20 samples", "real (1000 points)", "generated (20 points)"))


def test_a_method_without_penalty_and_estimate_says_so():
    without = history() | {"w_estimate": np.full(30, np.nan), "penalty": np.full(30, np.nan)}
    written = text(plots.panel(dataset(2), np.zeros((5, 2)), without, NORMS))
    assert "This method has no gradient penalty" in written and "64 interpolates" in written
    assert "W estimate" not in written and "critic's score" not in written
    no_critic = plots.panel(dataset(2), np.zeros((5, 2)), without, None)
    assert "No slopes were measured" in text(no_critic)


def test_a_panel_says_what_to_look_for_whatever_the_method():
    def written(norms, *missing):
        columns = history() | {name: np.full(30, np.nan) for name in missing}
        return text(plots.panel(dataset(2), np.zeros((5, 2)), columns, norms))

    one_centred = written(NORMS)
    assert "1, the target" in one_centred and "the penalty aims for" in one_centred
    zero_centred = written(NORMS, "w_estimate")
    assert "pulls slopes towards 0" in zero_centred and "target" not in zero_centred
    assert "neither player wins" in zero_centred
    alone = written(None, "w_estimate", "critic_loss")
    assert "no opponent" in alone and "neither player wins" not in alone
    assert "No slopes were measured" in alone


def test_level_sets_follow_the_critic():
    figure = plots.panel(dataset(2), np.zeros((5, 2)), history(), NORMS, critic)
    bar = next(axes for axes in figure.findobj(Axes) if "greener" in axes.get_ylabel())
    low, high = bar.get_ylim()
    assert low <= 0 and 4 < high < 40  # x1^2 + x2^2 over a frame that holds the ring of radius 1.4


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dim, rows, change", [
    (1, 0, {}), (2, 1, {"critic_loss": np.full(1000, np.nan), "modes": np.full(1000, np.nan)}),
    (2, 1000, {"critic_loss": np.full(1000, np.nan), "generator_loss": np.full(1000, np.inf),
               "modes": np.full(1000, np.nan), "high_quality": np.full(1000, np.nan)}),
    (1, 1000, {"critic_loss": np.where(np.arange(1000) == 3, 1e300, 1.0),
               "w_estimate": np.full(1000, -np.inf), "sliced_wasserstein": np.full(1000, np.nan)}),
    *(pytest.param(*case, {}, marks=pytest.mark.thorough)
      for case in [(2, 0), (1, 1), (2, 1), (2, 2)]),
    *(pytest.param(1, 1000, {"sliced_wasserstein": column}, marks=pytest.mark.thorough)
      for column in (np.zeros(1000), np.geomspace(1e3, 1e-3, 1000))),
])
def test_odd_histories_make_a_picture(dim, rows, change):
    columns = {name: column[:rows] for name, column in (history(1000) | change).items()}
    plots.panel(dataset(dim), np.zeros((5, dim)), columns, NORMS[:rows]).draw_without_rendering()


def test_spikes_do_not_blow_up_the_frame():
    columns = history(1000)
    columns["critic_loss"][5] = -1e9
    figure = plots.panel(dataset(2), np.zeros((5, 2)), columns, NORMS)
    losses = next(axes for axes in figure.findobj(Axes) if axes.get_ylabel() == "loss")
    assert -10 < losses.get_ylim()[0] < losses.get_ylim()[1] < 10


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, 1e6, -1e300])
def test_odd_samples_make_a_picture(dim, value):
    samples = np.full((50, dim), value)
    figure = plots.scatter(dataset(dim), samples)
    draw(figure)
    assert ("50 not finite" in text(figure)) == (not np.isfinite(value))
    assert ("50 outside" in text(figure)) == (abs(value) >= 1e6 and np.isfinite(value))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dim, score, norms", [
    (1, np.nan, np.zeros(9)), (2, np.nan, np.full(9, np.nan)),
    (2, 0.0, np.geomspace(1e-30, 1e30, 9)),
    *(pytest.param(dim, np.inf, np.full(9, norm), marks=pytest.mark.thorough)
      for dim, norm in [(1, 1e-6), (2, 1e6)]),
])
def test_odd_critics_make_a_picture(dim, score, norms):
    figure = plots.panel(dataset(dim), np.zeros((5, dim)), history(), norms,
                         lambda x: np.full(len(x), score))
    draw(figure)
    assert "greener" not in text(figure)


@pytest.mark.parametrize("dim", [2, 3])
def test_points_outside_the_frame_are_counted_and_not_drawn(dim):
    d = dataset(dim)
    far = d.mean + np.geomspace(0.1, 1000, 50)[:, None] * d.scale
    figure = plots.scatter(d, far)
    generated = figure.axes[0].collections[2]
    outside = 50 - len(generated.get_offsets())
    assert 5 < outside < 45 and f"generated (50 points, {outside} outside)" in text(figure)
    legend = figure.axes[0].get_legend()
    figure.draw_without_rendering()
    covered = legend.get_window_extent().y0
    assert generated.get_offset_transform().transform(generated.get_offsets())[:, 1].max() < covered


def test_identical_real_points_make_a_picture():
    for dim in (1, 2, 3):
        same = data.points(np.full((10, dim), 3.0))
        draw(plots.scatter(same, np.full((4, dim), 3.0)))


def test_a_long_run_is_thinned_out():
    figure = plots.panel(dataset(2), np.zeros((5, 2)), history(100_000, 50), NORMS)
    lengths = [len(line.get_xdata()) for line in figure.findobj(Line2D)]
    assert max(lengths) <= 1000


def test_a_saved_panel_is_a_small_png_1400_pixels_wide(tmp_path):
    rng = np.random.default_rng(0)
    noisy = {name: column + 0.1 * rng.standard_normal(3000)
             for name, column in history(3000).items()}
    figure = plots.panel(dataset(2), rng.standard_normal((2500, 2)), noisy, NORMS, critic,
                         "$ never _mathtext", YARDSTICK)
    plots.save(figure, tmp_path / "panel.png")
    with Image.open(tmp_path / "panel.png") as picture:
        assert picture.format == "PNG" and picture.size[0] == 1400
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 50
    assert (tmp_path / "panel.png").stat().st_size < 400_000
    assert [path.name for path in tmp_path.iterdir()] == ["panel.png"]


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    (tmp_path / "panel.png").write_bytes(b"old")

    def full(source, target):
        raise OSError("no space left")

    monkeypatch.setattr(plots.os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        plots.save(plots.scatter(dataset(1), np.zeros((5, 1))), tmp_path / "panel.png")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


PICTURES = """
import os, sys, numpy as np
from tinygan import data
from tinygan.app import plots
os.chdir(sys.argv[1])
d, images = data.ring(), data.image_array(np.arange(640).reshape(10, 8, 8) % 256)
points = np.random.default_rng(0).normal(size=(2, 50, 2))
log = {"step": np.arange(9.0), "critic_loss": np.arange(9.0)}
plots.save(plots.panel(d, points[0], log, points[0, :, 0] ** 2, lambda x: x[:, 0]), "panel.png")
plots.save(plots.scatter(d, points[0], "a title"), "scatter.png")
shown = images.pixels
plots.save(plots.image_panel(images, shown, [(1, shown)], shown[None], log), "images.png")
plots.save_gif(plots.point_frames(d, points, "frames"), "frames.gif")
"""


def under_two_settings(folder):
    for name, settings in (("defaults", ""), ("own", (
            "text.usetex: True\naxes.facecolor: black\nlines.linewidth: 9\nfont.size: 30\n"
            "savefig.dpi: 20\nsavefig.bbox: tight\nimage.interpolation: bilinear\n"))):
        (folder / name).mkdir()
        (folder / name / "matplotlibrc").write_text(settings)
    return [([sys.executable, "-c", PICTURES, name], {"MATPLOTLIBRC": str(folder / name)})
            for name in ("defaults", "own")]


@pytest.mark.processes(commands=under_two_settings)
def test_a_matplotlibrc_changes_no_picture(ran):
    """Nor breaks one: ``text.usetex`` without LaTeX would."""
    folder, results = ran
    assert [done.stderr for done in results if done.returncode] == []
    made = [{path.name: path.read_bytes() for path in (folder / name).iterdir()
             if path.name != "matplotlibrc"} for name in ("defaults", "own")]
    assert made[0] == made[1] and len(made[0]) == 4


def test_drawing_leaves_the_settings_of_the_process_alone():
    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"text.usetex": True}):
        plots.png(plots.scatter(dataset(2), np.zeros((5, 2)), "title"))
        assert matplotlib.rcParams["text.usetex"]
    assert dict(matplotlib.rcParams) == before


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("title", ["图像 Ελλάδα", "a\udcffb", "$x_1 % \\frac", "line\nbreak"])
def test_any_name_of_a_file_can_be_a_title(title):
    assert plots.png(plots.scatter(dataset(2), np.zeros((5, 2)), title)).startswith(b"\x89PNG")


def test_pictures_need_no_pyplot_and_importing_them_no_matplotlib():
    code = """
import sys, numpy as np
from tinygan import data
from tinygan.app import plots
assert 'matplotlib' not in sys.modules
plots.scatter(data.ring(), np.zeros((5, 2)))
assert 'matplotlib.pyplot' not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# ----------------------------------------------------------------------------------------- images

SHAPES = [(1, 8, 8), (3, 8, 8), (1, 28, 28), (3, 32, 32), (1, 35, 35), (3, 64, 64), (1, 9, 30),
          (3, 64, 8)]


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def cell(image, zoom):
    """An image (c, h, w) as it is seen: (h, w) or (h, w, 3), enlarged."""
    seen = np.kron(image.transpose(1, 2, 0), np.ones((zoom, zoom, 1), np.uint8))
    return seen[..., 0] if len(image) == 1 else seen


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n, columns", [(1, None), (2, None), (7, 3), (64, None)])
def test_tiles_hold_every_image_in_its_place(shape, n, columns):
    images = noise(n, *shape)
    before = images.copy()
    whole = plots.tiles(images, columns)
    np.testing.assert_array_equal(images, before)
    c, h, w = shape
    zoom = {8: 8, 28: 2, 32: 2, 35: 1, 64: 1, 30: 2}[max(h, w)]
    tall, wide = zoom * h + 6, zoom * w + 6
    across = (whole.shape[1] - 6) // wide
    rows = -(-n // across)
    assert whole.dtype == np.uint8
    assert whole.shape == (rows * tall + 6, across * wide + 6) + (3,) * (c == 3)
    assert across == columns if columns else n == 1 or 0.4 < whole.shape[0] / whole.shape[1] < 2.5
    left = whole.copy()
    for i, image in enumerate(images):
        y, x = i // across * tall + 6, i % across * wide + 6
        np.testing.assert_array_equal(whole[y:y + zoom * h, x:x + zoom * w], cell(image, zoom))
        left[y:y + zoom * h, x:x + zoom * w] = 192
    assert (left == 192).all()  # lines, and cells without an image


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 12, 20)])
@pytest.mark.parametrize("n", [1, 10])
def test_saved_images_are_their_tiles(shape, n, tmp_path):
    (tmp_path / "grid.png").write_bytes(b"old")
    plots.save_images(noise(n, *shape), tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.format == "PNG" and picture.mode == ("L" if shape[0] == 1 else "RGB")
        np.testing.assert_array_equal(np.asarray(picture), plots.tiles(noise(n, *shape)))
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]


def palettes(content):
    """(number of frames, how many have a palette of their own) of a GIF, by its blocks."""
    def chain(at):
        while content[at]:
            at += content[at] + 1
        return at + 1

    assert content[:6] == b"GIF89a" and content[10] & 0x80
    at, frames, own = 13 + 3 * 2 ** (content[10] % 8 + 1), 0, 0
    while content[at] != 0x3B:
        if content[at] == 0x21:
            at = chain(at + 2)
            continue
        assert content[at] == 0x2C
        frames, flags = frames + 1, content[at + 9]
        own += flags >> 7
        at = chain(at + 11 + (3 * 2 ** (flags % 8 + 1) if flags & 0x80 else 0))
    return frames, own


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8)])
@pytest.mark.parametrize("count", [1, 20])
def test_a_gif_has_one_palette_and_repeats_for_ever(shape, count, tmp_path):
    # Of 4 levels, in colour 64 colours
    frames = [plots.tiles(noise(4, *shape, seed=i)) // 64 * 64 for i in range(count)]
    plots.save_gif(iter(frames), tmp_path / "walk.gif")
    assert palettes((tmp_path / "walk.gif").read_bytes()) == (count, 0)
    with Image.open(tmp_path / "walk.gif") as moving:
        assert moving.n_frames == count and moving.info.get("loop", 0) == 0
        assert count == 1 or moving.info["duration"] == 80
        for number, frame in enumerate(frames):
            moving.seek(number)
            shown = np.asarray(moving.convert("L" if shape[0] == 1 else "RGB"))
            np.testing.assert_array_equal(shown, frame)
    assert count == 1 or b"NETSCAPE2.0\x03\x01\0\0" in (tmp_path / "walk.gif").read_bytes()


def test_a_failed_gif_leaves_the_old_file(tmp_path, monkeypatch):
    (tmp_path / "walk.gif").write_bytes(b"old")

    def full(source, target):
        raise OSError("no space left")

    monkeypatch.setattr(plots.os, "replace", full)
    for save, what in ((plots.save_gif, [plots.tiles(noise(1, 1, 8, 8))]),
                       (plots.save_images, noise(1, 1, 8, 8))):
        with pytest.raises(OSError, match="no space"):
            save(what, tmp_path / "walk.gif")
        assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def purple(frame):
    """Where generated points are drawn."""
    r, g, b = (frame[..., i].astype(int) for i in range(3))
    return (r - g > 30) & (b - g > 30)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_frames_of_points_differ_in_the_generated_points_alone(dim):
    d = dataset(dim)
    real = d.to_data_units(d.draw(np.random.default_rng(1), 100))
    points = np.stack([real, np.roll(real, 1, axis=1) if dim > 1 else real[::-1] * 0.5, real])
    points[1, :50], points[1, 50] = np.nan, 1e300
    first, second, third = plots.point_frames(d, points, "a walk")
    assert first.dtype == np.uint8 and first.shape == (620, 800, 3)
    np.testing.assert_array_equal(first, third)
    changed = (first != second).any(axis=2)
    assert 100 < changed.sum() < 0.3 * changed.size
    rows, columns = np.nonzero(changed)  # within the axes: nothing of their frame moves
    assert rows.min() > 100 and rows.max() < 570 and columns.min() > 50
    inside = np.s_[150:560, 70:780]  # below the legend
    assert purple(first[inside]).sum() > 1.2 * purple(second[inside]).sum() > 0
    assert not (purple(second) & ~changed & ~purple(first)).any()


def image_data(shape, n=30):
    return data.image_array(noise(n, *shape, seed=1), "mine")


def panel_of(shape, n=200, snapshots=9, rows=30):
    d = image_data(shape)
    samples = noise(n, *shape, seed=2)
    samples[:2] = d.pixels[d.split["train"][[7, 20]]]  # copies ...
    samples[2] = d.pixels[d.split["test"][0]]  # ... one of them of a held-out image
    kept = [(10 * (i + 1), noise(10, d.dim, seed=10 + i)) for i in range(snapshots)]
    paths = noise(4, 10, d.dim, seed=3)
    figure = plots.image_panel(d, samples, kept, paths, history(rows), "my images", YARDSTICK)
    return d, samples, kept, paths, figure


def titled(figure, title):
    """The axes under a heading."""
    (axes,) = [axes for axes in figure.findobj(Axes) if axes.get_title("left") == title]
    return axes


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 64, 64), (1, 9, 30)])
def test_an_image_panel_shows_its_parts_pixel_for_pixel(shape, tmp_path):
    d, samples, kept, paths, figure = panel_of(shape)
    plots.save(figure, tmp_path / "panel.png")
    with Image.open(tmp_path / "panel.png") as picture:
        seen = np.asarray(picture.convert("RGB")).astype(int)
    assert seen.shape[1] == 1540 and seen.shape[0] == round(figure.bbox.height)
    parts = {"The same latents over time": [kept[i][1] for i in (0, 1, 2, 3, 5, 6, 7, 8)],
             "Paths through latent space": paths}
    for title, images in parts.items():
        box = titled(figure, title).get_window_extent()
        part = seen[round(seen.shape[0] - box.y1):round(seen.shape[0] - box.y0),
                    round(box.x0):round(box.x1)]
        expected = plots.tiles(np.reshape(images, (-1, *shape)), 10)
        if shape[0] == 1:
            expected = np.repeat(expected[..., None], 3, axis=2)
        assert part.shape == expected.shape
        # Grey panels have 256 colours in all.
        assert np.abs(part - expected).max() <= (0 if shape[0] == 3 else 6)
    labels = titled(figure, "The same latents over time").get_yticklabels()
    assert [label.get_text() for label in labels] == "10 20 30 40 60 70 80 90".split()


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 64, 64)])
def test_nearest_training_images_stand_below_the_samples(shape, monkeypatch):
    """And none that were held out, a copy of which stands beside another image."""
    d, samples, _, _, figure = panel_of(shape)
    axes = titled(figure, "Nearest training images")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["sample", "nearest"] * 2
    flat = lambda x: x.reshape(len(x), -1).astype(float)  # noqa: E731
    seen = d.pixels[d.split["train"]]
    distance = np.sqrt(np.square(flat(samples[:20])[:, None] - flat(seen)).mean(axis=2))
    assert (distance[:2].min(axis=1) == 0).all() and distance[2].min() > 0
    near = seen[distance.argmin(axis=1)]
    expected = np.concatenate([samples[:10], near[:10], samples[10:20], near[10:]])
    np.testing.assert_array_equal(axes.images[0].get_array(), plots.tiles(expected, 10))
    assert f"differ by 0 to {distance.min(axis=1).max():.0f} of 255 grey levels" in text(figure)
    found, differences = plots.nearest_images(samples[:20], d)
    monkeypatch.setattr(plots, "NEIGHBOURS", 7 * d.dim)  # the same in parts
    for whole, parts in zip((found, differences), plots.nearest_images(samples[:20], d)):
        np.testing.assert_array_equal(whole, parts)


def test_an_image_panel_names_its_parts_and_says_what_is_good():
    figure = panel_of((1, 28, 28))[-1]
    written = text(figure)
    for words in ("my images", "Samples", "The first 88, not cherry-picked",
                  "The same latents over time", "Paths through latent space",
                  "Nearest training images", "loss", "W estimate  [score]", "real vs. real",
                  "sliced Wasserstein distance  [network units]", "step  [generator updates]"):
        assert words in written
    assert written.count("Good: ") == 6
    assert len(figure.findobj(AxesImage)) == 4


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape, n, snapshots, rows", [
    ((1, 8, 8), 1, 0, 0), ((3, 64, 8), 1, 1, 1), ((3, 8, 64), 9, 2, 1), ((1, 8, 8), 15, 3, 2),
    ((3, 35, 33), 21, 30, 1000)])
def test_odd_image_runs_make_a_picture(shape, n, snapshots, rows):
    samples = np.zeros((n, *shape), np.uint8)
    d = image_data(shape, 2)
    kept = [(i + 1, samples[:1]) for i in range(snapshots)]
    figure = plots.image_panel(d, samples, kept, np.zeros((1, 2, d.dim), np.uint8), history(rows))
    draw(figure)
    assert ("No snapshots yet" in text(figure)) == (snapshots == 0)
    assert len(titled(figure, "The same latents over time").get_yticks()) == min(snapshots, 8)
    assert len(titled(figure, "Nearest training images").get_yticks()) == (4 if n > 20 else 2)


def test_numbers_that_are_not_finite_are_black():
    d = image_data((1, 8, 8))
    x = np.linspace(-1, 1, 3 * 64, dtype=np.float32).reshape(3, 64)
    x[1, :4] = np.nan, np.inf, -np.inf, 5
    images = d.to_images(x)
    assert images.shape == (3, 1, 8, 8) and images.dtype == np.uint8
    assert images[1].reshape(64)[:4].tolist() == [0, 255, 0, 255]
    np.testing.assert_array_equal(images[[0, 2]].reshape(2, 64),
                                  np.rint((x[[0, 2]].astype(float) + 1) * 127.5))
    assert d.to_images(x.reshape(3, 1, 64)).shape == (3, 1, 1, 8, 8)
