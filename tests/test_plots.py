"""Pictures: what stands in them, and that odd runs do not break them."""

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from PIL import Image

from tinygan import data, plots


def dataset(dim):
    return data.ring() if dim == 2 else data.points(np.random.default_rng(0).gamma(2, size=(200, dim)), "mine")


def history(rows=30, evaluated=10):
    step = np.arange(1.0, rows + 1)
    seldom = np.where(np.arange(rows) % evaluated == 0, 1.0, np.nan)
    return {"step": step, "critic_loss": -1 / step, "generator_loss": np.sin(step), "w_estimate": 1 / step,
            "penalty": 0.1 / step, "gradient_norm": np.ones(rows), "modes": 8 * seldom, "high_quality": 0.9 * seldom,
            "reverse_kl": 0.01 * seldom, "sliced_wasserstein": 0.1 * seldom / step}


def critic(x):
    assert x.dtype == np.float32
    return np.square(x).sum(axis=1)


def text(figure):
    """Everything that is written in a figure, line by line."""
    return "\n".join(item.get_text() for item in figure.findobj(Text))


YARDSTICK = {"high_quality": (0.983, 0.993), "modes": 8, "sliced_wasserstein": (0.01, 0.03)}
NORMS = np.linspace(0.5, 1.5, 64)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_a_panel_names_its_axes_and_units_and_says_what_is_good(dim):
    d = dataset(dim)
    samples = d.to_data_units(d.draw(np.random.default_rng(1), 300))
    before = samples.copy()
    figure = plots.panel(d, samples, history(), NORMS, critic, "my run", YARDSTICK)
    figure.draw_without_rendering()
    np.testing.assert_array_equal(samples, before)
    assert isinstance(figure, Figure)
    written = text(figure)
    for words in ("my run", "real (1000 points)", "generated (300 points)", "loss", "W estimate  [score]",
                  "step  [generator updates]", "norm of the critic's gradient at the interpolates", "1, the target",
                  f"64 interpolates: mean 1, sd {NORMS.std():.3g}", "real against real"):
        assert words in written
    assert written.count("Good: ") == 4
    place = {1: "density  [1 / data unit]", 2: "x2  [data units]", 3: "principal component 2"}[dim]
    score = "high quality  [% of samples]" if dim == 2 else "sliced Wasserstein distance  [networks' units]"
    assert place in written and score in written
    assert ("critic's score" in written) == (dim < 3)
    assert ("all 8 modes" in written) == (dim == 2)


@pytest.mark.parametrize("dim", [1, 2, 3, 300])
def test_a_scatter_shows_real_points_beneath(dim):
    d = dataset(dim)
    figure = plots.scatter(d, d.to_data_units(d.draw(np.random.default_rng(1), 20)), "20 samples")
    figure.draw_without_rendering()
    written = text(figure)
    assert all(words in written for words in ("20 samples", "real (1000 points)", "generated (20 points)"))


def test_a_method_without_penalty_and_estimate_says_so():
    without = history() | {"w_estimate": np.full(30, np.nan), "penalty": np.full(30, np.nan)}
    written = text(plots.panel(dataset(2), np.zeros((5, 2)), without, NORMS))
    assert "This method has no penalty" in written and "64 interpolates" in written
    assert "W estimate" not in written and "critic's score" not in written
    assert "no gradient norms were measured" in text(plots.panel(dataset(2), np.zeros((5, 2)), without, None))


def test_level_sets_follow_the_critic():
    figure = plots.panel(dataset(2), np.zeros((5, 2)), history(), NORMS, critic)
    bar = next(axes for axes in figure.findobj(Axes) if "greener" in axes.get_ylabel())
    low, high = bar.get_ylim()
    assert low <= 0 and 4 < high < 40  # x1^2 + x2^2 over a frame that holds the ring of radius 1.4


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dim, rows, change", [
    (1, 0, {}), (2, 0, {}), (1, 1, {}), (2, 1, {}), (2, 2, {}),
    (2, 1000, {"critic_loss": np.full(1000, np.nan), "generator_loss": np.full(1000, np.inf)}),
    (2, 1, {"critic_loss": np.full(1000, np.nan), "modes": np.full(1000, np.nan)}),
    (1, 1000, {"critic_loss": np.where(np.arange(1000) == 3, 1e300, 1.0), "w_estimate": np.full(1000, -np.inf)}),
    (2, 1000, {name: np.full(1000, np.nan) for name in ("modes", "high_quality")}),
    (1, 1000, {"sliced_wasserstein": np.full(1000, np.nan)}), (1, 1000, {"sliced_wasserstein": np.zeros(1000)}),
    (1, 1000, {"sliced_wasserstein": np.geomspace(1e3, 1e-3, 1000)}),
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
    figure.draw_without_rendering()
    assert ("50 not finite" in text(figure)) == (not np.isfinite(value))
    assert ("50 outside" in text(figure)) == (abs(value) >= 1e6 and np.isfinite(value))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dim, score, norms", [
    (1, np.nan, np.zeros(9)), (2, np.nan, np.full(9, np.nan)), (2, 0.0, np.geomspace(1e-30, 1e30, 9)),
    (1, np.inf, np.full(9, 1e-6)), (2, np.inf, np.full(9, 1e6)),
])
def test_odd_critics_make_a_picture(dim, score, norms):
    figure = plots.panel(dataset(dim), np.zeros((5, dim)), history(), norms, lambda x: np.full(len(x), score))
    figure.draw_without_rendering()
    assert "greener" not in text(figure)


def test_identical_real_points_make_a_picture():
    for dim in (1, 2, 3):
        same = data.points(np.full((10, dim), 3.0))
        plots.scatter(same, np.full((4, dim), 3.0)).draw_without_rendering()


def test_a_long_run_is_thinned_out():
    figure = plots.panel(dataset(2), np.zeros((5, 2)), history(100_000, 50), NORMS)
    lengths = [len(line.get_xdata()) for line in figure.findobj(Line2D)]
    assert max(lengths) <= 1000


def test_a_saved_panel_is_a_small_png_1400_pixels_wide(tmp_path):
    rng = np.random.default_rng(0)
    noisy = {name: column + 0.1 * rng.standard_normal(3000) for name, column in history(3000).items()}
    figure = plots.panel(dataset(2), rng.standard_normal((2500, 2)), noisy, NORMS, critic, "$ never _mathtext", YARDSTICK)
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


def test_pictures_need_no_pyplot_and_importing_them_no_matplotlib():
    code = ("import sys, numpy as np; from tinygan import data, plots; assert 'matplotlib' not in sys.modules; "
            "plots.scatter(data.ring(), np.zeros((5, 2))); assert 'matplotlib.pyplot' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True)
