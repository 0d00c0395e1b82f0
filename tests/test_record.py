"""The record of a run: it holds what the networks did, stays small, and changes nothing."""

import numpy as np
import pytest

from tinygan import GAN, data
from tinygan.training import (METHODS, CheckpointError, Config, Run, checkpoint, new_game, record,
                              samples)
from tinygan.training import run as runs

SMALL = dict(steps=6, batch=8, width=8, depth=1, seed=5)


def pictures(side, channels=1, n=20):
    shape = (n, side, side) if channels == 1 else (n, side, side, channels)
    return data.image_array(np.random.default_rng(0).integers(0, 256, shape, np.uint8))


def cloud(d):
    return data.points(np.random.default_rng(0).gamma(2, size=(60, d)) * np.arange(1, d + 1) + 100)


def run_of(method="wgan-gp", source=None, **options):
    return Run(new_game(Config(method=method, **(SMALL | options)), source or data.ring()))


def train(run, until=None):
    for row in run.train():
        run.stop = row["step"] == until
    run.stop = False
    return run


def steps(run):
    return [int(moment["steps"]) for moment in run.record.moments]


# ---------------------------------------------------------------------------- what is recorded


@pytest.fixture(autouse=True)
def quickly_scored(monkeypatch):
    monkeypatch.setattr(samples, "SCORED", 20)


SOURCES = {"ring": data.ring, "line": lambda: cloud(1), "five": lambda: cloud(5),
           "images": lambda: pictures(8)}


PAIRS = [pytest.param(method, source, marks=[pytest.mark.thorough] if (i + j) % 4 else [])
         for i, method in enumerate(METHODS) for j, source in enumerate(SOURCES)]


@pytest.mark.parametrize("method, source", PAIRS)
def test_a_run_with_a_record_is_the_run_without_one(method, source, monkeypatch):
    """Its weights, the random numbers it has drawn and its log, whatever the networks."""
    def made():
        run = train(run_of(method, SOURCES[source](), steps=3))
        arrays, values = run.state_dict()
        arrays["history"] = np.delete(arrays["history"], runs.COLUMNS.index("seconds"), axis=1)
        return {name: a.tobytes() for name, a in arrays.items() if "moments/" not in name}, values

    (arrays, values), taken = made(), []
    monkeypatch.setattr(record.Record, "take", lambda self, step: taken.append(step))
    others, plain = made()
    assert arrays == others and values["rng"] == plain["rng"] and taken == [0, 1, 2, 3]


@pytest.mark.parametrize("method, source", [
    *(("wgan-gp", source) for source in SOURCES), ("sngan", "images"), ("sngan", "five"),
    ("vae", "ring"), ("vae", "images"), ("mixture", "line"), ("mixture", "five")])
def test_a_moment_holds_what_the_networks_do(method, source):
    """As other functions of the library compute it."""
    run = train(run_of(method, SOURCES[source]()))
    kept, game, seen = run.record, run.game, run.record.moments[-1]
    assert steps(run) == list(range(7)) and set(seen) == set(kept.kinds)
    if game.data.shape:
        expected = game.data.to_images(samples.sample(game, record.PICTURES))
        np.testing.assert_array_equal(seen["images"].reshape(expected.shape), expected)
        assert ("slopes" in seen) == bool(game.critic) and len(seen) == 2 + bool(game.critic)
        return
    axes = kept.constants["axes"]
    points = samples.sample(game, record.POINTS) @ axes
    np.testing.assert_allclose(seen["points"], points, rtol=2e-3, atol=1e-6)
    z = record.latent_grid(game.latent_dim)
    if game.data.dim > 1:
        np.testing.assert_allclose(seen["manifold"], samples.generate(game, z) @ axes, rtol=2e-3,
                                   atol=2e-3)
    real = game.data.draw(np.random.default_rng(0), record.POINTS) @ axes
    np.testing.assert_allclose(kept.constants["real"], real, rtol=2e-3, atol=1e-6)
    if not game.critic:
        assert not {"slopes", "arrows", "scores"} & set(seen)
        return
    critic = samples.frozen_critic(game)
    norms = samples.gradient_norms(game, record.SLOPES)
    np.testing.assert_allclose(seen["slopes"], norms, rtol=2e-3, atol=1e-6)
    x = samples.sample(game, record.ARROWS)
    uphill = seen["arrows"].astype(np.float32) @ axes.T
    ahead = (critic(x + 1e-2 * uphill).data - critic(x).data)[:, 0] / 1e-2
    expected = np.square(uphill).sum(axis=1)
    assert game.data.dim > 2 or np.median(np.abs(ahead / expected - 1)) < 0.05
    assert (ahead > 0).mean() > 0.9
    if game.data.dim < 3:
        low, high = seen["range"]
        found = low + seen["scores"].reshape(-1) / 255.0 * (high - low)
        scores = critic(kept.places()).data[:, 0]
        np.testing.assert_allclose(found, scores, atol=(high - low) / 500)
        assert (high - low) > 0


def test_the_grid_of_latents_is_normal_and_lies_in_the_first_two_dimensions():
    z = record.latent_grid(5)
    assert z.shape == (record.GRID ** 2, 5) and (z[:, 2:] == 0).all()
    below = [(z[:, 0] < edge).mean() for edge in (-1, 0, 1)]
    np.testing.assert_allclose(below, [0.159, 0.5, 0.841], atol=0.05)
    assert record.latent_grid(1).shape == (record.GRID, 1)


def test_the_principal_axes_are_those_of_most_variance():
    x = np.random.default_rng(0).normal(size=(400, 4)) * [1, 5, 2, 0.1]
    axes, shares = record.principal_axes(x)
    assert axes.shape == (4, 2) and abs(axes[1, 0]) > 0.99 and abs(axes[2, 1]) > 0.99
    np.testing.assert_allclose(shares, [25 / 30, 4 / 30], atol=0.05)
    np.testing.assert_allclose(axes.T @ axes, np.eye(2), atol=1e-6)
    for d in (1, 2):
        axes, shares = record.principal_axes(x[:, :d])
        assert np.array_equal(axes, np.eye(d)) and shares.sum() == pytest.approx(1)


def test_odd_numbers_are_kept_as_such_or_within_range():
    """And no warning is given; a frame of equal points has a width."""
    run = run_of(source=cloud(2))
    run.record.take(0)
    for value in (np.nan, np.inf, 1e30):
        for p in run.game.average.network.parameters() + run.game.critic.parameters():
            p.assign(np.full(p.shape, value))
        with np.errstate(all="ignore"):
            run.record.take(1)
        seen = run.record.moments[-1]
        assert not np.isinf(seen["points"].astype(float)).any()
        run.record.state_dict()
    assert (np.diff(record.frame(np.ones((9, 2)))) > 0).all()


# ----------------------------------------------------------------------------------- how much


@pytest.mark.parametrize("n", [1, 2, 59, 60, 61, 499, 501, 5000, 10**9])
def test_moments_are_bounded_close_together_at_first_and_rows_of_the_log(n):
    every = max(1, n // runs.ROWS)
    for source in (data.ring(), pictures(8), pictures(64, 3)):
        kept = run_of(source=source).record
        due = sorted(kept.schedule(n, every))
        assert due[0] == 0 and due[-1] == n and len(due) <= kept.most <= record.MOMENTS
        assert all(step % every == 0 for step in due[:-1])
        gaps = np.diff(due)
        assert n < 99 or gaps[:len(gaps) // 2].sum() < 0.4 * n
        assert len(due) == min(kept.most, n + 1) and (gaps > 0).all()


@pytest.mark.parametrize("source", [*SOURCES.values(), lambda: cloud(300), lambda: pictures(28),
                                    lambda: pictures(64), lambda: pictures(64, 3)])
def test_a_record_takes_half_a_megabyte(source):
    run = run_of("gan", source())
    run.record.take(0)
    one = sum(a.nbytes for a in run.record.state_dict().values())
    assert one * run.record.most < 1.05e6
    assert run.record.most == 60 or one * run.record.most < 1.5 * record.MOST_BYTES or (
        run.record.most == 8)


def test_a_run_that_is_made_longer_keeps_as_many_moments():
    run = run_of("gan", width=1, depth=0, batch=1)
    for step in sorted(run.record.schedule(1000, 1) | run.record.schedule(10**6, 1)):
        run.record.take(step)
        kept = steps(run)
        assert len(kept) <= record.MOMENTS and kept[0] == 0 and kept[-1] == step
    times = np.sqrt(kept)
    assert np.diff(times).max() < 5 * np.median(np.diff(times))


@pytest.mark.parametrize("source, n, taken", [
    ("images", 3, [0, 1, 2, 3]), ("ring", 70, [0, 1, 2, 3, 4, 5])])
def test_a_run_takes_its_moments_while_it_trains(source, n, taken, monkeypatch):
    monkeypatch.setattr(samples, "evaluate", lambda game, step: {})
    run = train(run_of("gan", SOURCES[source](), steps=n))
    assert steps(run)[:len(taken)] == taken and steps(run)[-1] == n
    assert steps(run) == sorted(run.record.schedule(n, 1))


# ------------------------------------------------------------------------------ kept and loaded


@pytest.mark.parametrize("source", SOURCES)
def test_a_run_that_is_stopped_and_resumed_has_the_same_record(source, tmp_path):
    whole = train(run_of(source=SOURCES[source]()))
    stopped = train(run_of(source=SOURCES[source]()), until=3)
    arrays, values = stopped.state_dict()
    checkpoint.save(tmp_path / "a.npz", values, arrays)
    values, arrays = checkpoint.load(tmp_path / "a.npz")
    resumed = run_of(source=SOURCES[source]())
    resumed.load_state_dict(arrays, values)
    train(resumed)
    expected = whole.record.state_dict()
    for name, a in resumed.record.state_dict().items():
        assert a.dtype == expected[name].dtype and a.tobytes() == expected[name].tobytes(), name


def test_a_run_that_diverges_keeps_the_moments_before(monkeypatch):
    run = run_of(steps=9)
    play = run.play
    monkeypatch.setattr(runs, "KEEP_EVERY", 1e9)  # it goes back to its start

    def broken():
        columns = play()
        return columns | {"critic_loss": columns["critic_loss"] * np.nan} if run.step == 5 else (
            columns)

    run.play = broken
    with pytest.raises(runs.Diverged):
        train(run)
    assert steps(run) == [0, 1, 2, 3, 4, 5] and run.step == 5


@pytest.mark.parametrize("source", ["ring", "images"])
def test_checkpoints_of_earlier_versions_have_a_shorter_record(source):
    """They kept images at eight moments, and none of points; training goes on with a record."""
    run = train(run_of(source=SOURCES[source]()), until=3)
    arrays, values = run.state_dict()
    images = arrays.get("moments/images", np.zeros((0, record.PICTURES, 2), np.uint8))
    taken = arrays["moments/steps"][:len(images)]
    arrays = {name: a for name, a in arrays.items() if "moments/" not in name}
    arrays |= {"moments/steps": taken, "moments/images": images}
    resumed = run_of(source=SOURCES[source]())
    resumed.load_state_dict(arrays, values)
    assert steps(resumed) == taken.tolist()
    train(resumed)
    assert steps(resumed)[-3:] == [4, 5, 6]
    if source == "images":
        kept = resumed.record.state_dict()
        assert np.isnan(kept["slopes"][:3]).all() and np.isfinite(kept["slopes"][-3:]).all()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "a.npz"
    GAN(**SMALL).fit("ring").save(path)
    return path


@pytest.mark.parametrize("change", [
    lambda a: a["moments/steps"].__setitem__(0, -1), lambda a: a["moments/steps"].__setitem__(2, 1),
    lambda a: a["moments/steps"].__setitem__(-1, 99),
    lambda a: a.update({"moments/points": a["moments/points"][1:]}),
    lambda a: a.update({"moments/real": a["moments/real"][:0]}),
    lambda a: a.update({"moments/axes": a["moments/axes"][:1]}),
    lambda a: a.update({"moments/slopes": a["moments/slopes"].astype(np.float32)}),
    lambda a: a.pop("moments/scores"),
    lambda a: a.update({name: np.repeat(x, 20, axis=0) for name, x in a.items()
                        if name.split("/")[1:] and name[8:] not in ("real", "axes", "shares")
                        and name.startswith("moments/")}
                       | {"moments/steps": np.arange(140)})])
def test_a_record_that_is_none_is_refused(change, saved, tmp_path):
    header, arrays = checkpoint.load(saved)
    header.pop("sha256")
    change(arrays)
    checkpoint.save(tmp_path / "b.npz", header, arrays)
    with pytest.raises(CheckpointError, match="moments/"):
        GAN.load(tmp_path / "b.npz")
