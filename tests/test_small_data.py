"""A handful of points: whatever can be trained on can be sampled, scored, evaluated and resumed."""

import math

import numpy as np
import pytest
from matplotlib.figure import Figure

from tinygan import GAN, data, metrics
from tinygan.app import plots
from tinygan.app.cli import main
from tinygan.training import evaluation

SMALL = dict(steps=1, batch=4, width=4, depth=1, n_critic=1, device="cpu")
SHARES = ("precision", "recall", "coverage", "high quality, 3 sigma", "nearer")
KINDS = {"normal": lambda x: x, "constant": lambda x: x * 0 + 3,
         "one column constant": lambda x: np.c_[x[:, :-1], np.ones(len(x))],
         "duplicates": lambda x: x[np.arange(len(x)) // 3],
         "whole numbers": lambda x: x.round().astype(int)}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(evaluation, "HALVES", 2)


def cloud(n, columns, kind):
    return KINDS[kind](np.random.default_rng(n).normal(size=(n, columns)))


def check(game):
    """Every row is a row: what is there is finite, what is not says so; shares are shares."""
    rows = evaluation.rows(game)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(evaluation, "rows", lambda game, seed: rows)
        report = evaluation.report(game).splitlines()
    names = [row.name for row in rows]
    assert len(set(names)) == len(names) and len(report) == len(rows) + 2
    for row, line in zip(rows, report[2:], strict=True):
        numbers, interval = [row.generated, row.real, row.broken], [row.low, row.high]
        assert line.startswith(row.name)
        if row.n < row.least:
            assert np.isnan(numbers + interval).all()
            assert line.endswith(f"{row.n}  takes at least {row.least} points")
            continue
        assert np.isfinite(numbers).all() and min(numbers) >= 0, row
        if row.n < 2 * row.least:
            assert np.isnan(interval).all() and f"takes {2 * row.least} points" in line
            continue
        assert 0 <= row.low <= row.generated <= row.high < math.inf, row
        assert "nan" not in line
        if row.name.startswith(SHARES):
            assert max(row.generated, row.high) <= 1
            assert row.high - row.low > 1.9 / (row.n + 4)  # at 0 and 1, too
    return rows


@pytest.mark.parametrize("turn, kind", list(enumerate(KINDS)))
def test_all_sizes_up_to_sixty_are_fitted_scored_and_evaluated(turn, kind):
    """Of one to five columns in turn; each kind takes every fifth size, and those at the edges."""
    for n in [2, 3, 19, 20, 39, *range(4 + turn, 61, 5)]:
        columns = 1 + n // 5 % 5
        x = cloud(n, columns, kind)
        gan = GAN(**SMALL).fit(x)
        assert gan.sample(3).shape == (3, columns) and np.isfinite(gan.sample(3)).all()
        assert -math.inf < gan.score(x) <= 0
        assert len(check(gan.run_.game)) == 8


@pytest.mark.parametrize("shape, test", [((8, 8), 0), ((3, 8, 9), 0), ((8, 8), 1)])
@pytest.mark.parametrize("n", [2, 19, 39])
def test_a_few_images_are_fitted_scored_and_evaluated(n, shape, test):
    images = data.image_array(np.random.default_rng(0).integers(0, 256, (n, *shape)), test=test)
    gan = GAN(**SMALL).fit(images)
    assert gan.sample(2).shape[0] == 2 and gan.score(images) < 0
    check(gan.run_.game)


@pytest.mark.parametrize("columns", [1, 2, 5])
def test_one_point_is_refused_in_one_line(columns):
    with pytest.raises(data.DataError, match="at least two points") as caught:
        GAN(**SMALL).fit(np.ones((1, columns)))
    assert "\n" not in str(caught.value)


def test_known_modes_have_intervals_within_their_range(monkeypatch):
    monkeypatch.setattr(evaluation, "N", 100)
    rows = {row.name: row for row in check(GAN(**SMALL).fit("ring").run_.game)}
    assert rows["modes captured, 3 sigma"].high <= 8
    assert rows["reverse KL [nats]"].high <= math.log(8)
    quality = rows["high quality, 3 sigma"]
    assert quality.generated == quality.low == 0 and 0.03 < quality.high < 0.04


@pytest.mark.parametrize("n, columns, kind", [
    (2, 1, "normal"), (39, 3, "one column constant")])
def test_every_command_takes_a_few_points(n, columns, kind, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plots, "panel", lambda *arguments: Figure())
    np.savetxt("x.csv", cloud(n, columns, kind), delimiter=",")
    small = ["--width", "4", "--batch", "4", "--steps", "2", "--device", "cpu"]
    assert main(["train", "x.csv", *small, "--out", "run"]) == 0
    for command in (["sample", "run", "-n", "1", "-o", "s.csv"], ["evaluate", "run"],
                    ["sample", "run", "-n", "1", "-o", "s.png"],
                    ["train", "--resume", "run", "--steps", "3"],
                    ["explain", "run/checkpoint.npz"]):
        assert main(command) == 0, command
    out, err = capsys.readouterr()
    assert "takes at least 6 points" in out and "tinygan: " not in err


def test_one_point_in_a_file_says_what_is_needed(tmp_path, capsys):
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    assert main(["train", str(tmp_path / "x.csv"), "--out", str(tmp_path / "run")]) == 2
    assert "at least two points" in capsys.readouterr().err and not (tmp_path / "run").exists()


# ------------------------------------------------------------------------------------- intervals


def test_the_interval_of_a_share_in_a_bootstrap_is_wilsons_for_the_effective_number():
    """0 and 1 have Wilson's interval of n; a share of independent trials has about that of n."""
    rng = np.random.default_rng(3)
    for ends in (0.0, 1.0):
        value, low, high = metrics.bootstrap(np.mean, [np.full((20, 1), ends)], rng, shares=True)
        assert (low, high) == metrics.share_interval(ends, 20) and value == ends
    x = (rng.random((400, 1)) < 0.3).astype(float)
    value, low, high = metrics.bootstrap(np.mean, [x], rng, 2000, shares=True)
    assert (low, high) == pytest.approx(metrics.share_interval(value, 400), abs=0.003)
    twins = np.repeat(x, 4, axis=0)  # halves see nothing of it: n is not above the rows
    wide = metrics.bootstrap(lambda x: x[:20].mean(), [twins], rng, 200, shares=True)
    n = wide.value * (1 - wide.value) / (((wide.high - wide.low) / 3.92)**2)
    assert 8 < n < 40  # the twenty that count, not 1,600


def test_shares_and_other_scores_stand_side_by_side():
    rng, x = np.random.default_rng(0), np.random.default_rng(1).normal(size=(30, 2))

    def score(x):
        return x.mean(), (x[:, 0] > 0).mean(), (x[:, 0] > 9).mean()

    mixed = metrics.bootstrap(score, [x], np.random.default_rng(2), shares=[False, True, True])
    plain = metrics.bootstrap(score, [x], np.random.default_rng(2))
    assert mixed.low[0] == plain.low[0] and mixed.high[0] == plain.high[0]
    assert mixed.low[1] > plain.low[1] - 0.1 and plain.high[2] == 0 < mixed.high[2] < 0.12
    assert math.isnan(metrics.bootstrap(lambda x: math.nan, [x], rng, shares=True).low)
    with pytest.raises(ValueError, match="share_interval: expected 0 <= share <= 1"):
        metrics.bootstrap(lambda x: 1.5, [x], rng, shares=True)


def test_intervals_of_shares_hold_the_truth_near_the_ends():
    """Of neighbours: no independent trials, and plain intervals hold it in about 80 %."""
    rng, k, n, shift = np.random.default_rng(1), 5, 20, 1.0

    def draw():
        return [rng.normal(size=(n, 2)), rng.normal(size=(n, 2)) + shift]

    def score(a, b):
        found = metrics.prdc(a, b, k=k)
        return found.precision, found.recall, found.coverage

    truth = np.mean([score(*draw()) for _ in range(200)], axis=0)
    holds = np.zeros(3)
    for _ in range(40):
        i = metrics.bootstrap(score, draw(), rng, 20, shares=True)
        assert np.all((0 <= i.low) & (i.low < i.high) & (i.high <= 1))
        holds += (i.low <= truth) & (truth <= i.high)
    assert np.all(holds / 40 >= 0.95 - 4 * math.sqrt(0.95 * 0.05 / 40)), holds
