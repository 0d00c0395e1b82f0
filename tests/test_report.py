"""report.html without a browser: its numbers are the record's, its words those of the rules."""

import base64
import hashlib
import html.parser
import http.client
import io
import json
import math
import os
import re
import shlex
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from tinygan import GAN, data, metrics
from tinygan.app import advice, commands, live, page, plots, report
from tinygan.app.cli import main
from tinygan.training import METHODS, Diverged, checkpoint, record, samples, yardstick

SMALL = dict(width=8, depth=1, batch=16, n_critic=1, steps=12)
PICTURES = np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8)
COLOURS = np.random.default_rng(0).integers(0, 256, (40, 8, 9, 3), np.uint8)
VOID = {"meta", "link", "img", "input", "br", "hr"}


def cloud(d):
    return np.random.default_rng(0).gamma(2, size=(60, d)) * np.arange(1, d + 1) + 100


SOURCES = {"ring": "ring", "line": cloud(1), "plane": cloud(2), "five": cloud(5),
           "grey": PICTURES, "colour": COLOURS}


@pytest.fixture(scope="module")
def trained():
    """A run of each kind of data, made when it is asked for."""
    made = {}

    def run(source, **options):
        key = source, *options.items()
        if key not in made:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(samples, "SCORED", 100)
                made[key] = GAN(**(SMALL | options)).fit(SOURCES[source])
        return made[key]

    return run


@pytest.fixture(autouse=True)
def quickly_scored(monkeypatch, tmp_path):
    monkeypatch.setattr(samples, "SCORED", 100)
    monkeypatch.chdir(tmp_path)


def content(gan, bands=None):
    """What a page holds as JSON, as a browser reads it."""
    return json.loads(json.dumps(page.content(gan, yardstick(gan.data_) if bands is None
                                              else bands), allow_nan=False))


def whole(text, *shape):
    """Coordinates of the film, from 0 to 1 in its frame, NaN for those that are not finite."""
    found = np.frombuffer(base64.b64decode(text), "<i2").reshape(*shape).astype(float)
    return np.where(found == page.OUT, np.nan, found / page.SIDE)


def picture(source):
    head, _, code = source.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(code))))


class Reader(html.parser.HTMLParser):
    """The tags of a page, each closed in its turn, and its text."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.open, self.text, self.data = [], [], "", ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, words):
        inside = self.open[-1] if self.open else ("", {})
        if inside == ("script", {"type": "application/json", "id": "data"}):
            self.data += words
        elif inside[0] not in ("script", "style"):
            self.text += words

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


# ------------------------------------------------------------------------------------ the film


@pytest.mark.parametrize("source", ["ring", "plane", "five"])
def test_the_film_of_points_is_the_record(trained, source):
    """Real and generated points, manifold and modes, to a ten thousandth of the frame."""
    gan = trained(source)
    found, kept = content(gan), gan.run_.record
    m = len(kept.moments)
    assert found["kind"] == "plane" and found["steps"] == list(range(13)) and m == 13
    low, high = record.frame(kept.constants["real"].astype(float)).T

    def expected(points):
        return (np.asarray(points, float) - low) / (high - low)

    for name, shape in (("real", (record.POINTS, 2)), ("points", (m, record.POINTS, 2)),
                        ("manifold", (m, record.GRID**2, 2))):
        points = kept.constants[name] if name == "real" else [mo[name] for mo in kept.moments]
        np.testing.assert_allclose(whole(found[name], *shape), np.clip(
            expected(points), -3.2767, 3.2767), atol=6e-5)
    if source == "ring":
        np.testing.assert_allclose(whole(found["modes"], 8, 2), expected(gan.data_.centers),
                                   atol=6e-5)
    assert ("modes" in found) == (source == "ring")
    assert [layer["name"] for layer in found["layers"]] == [
        "real", "generated", *["levels"] * (source != "five"), "arrows", "manifold"]
    shares = np.round(100 * kept.constants["shares"])
    for k, axis in enumerate(found["axes"]):
        ends = [low[k], high[k]]
        if source == "five":
            assert f"principal component {k + 1} [sd; {shares[k]:.0f}% of" in axis["label"]
        else:
            ends = np.array(ends) * gan.data_.scale[k] + gan.data_.mean[k]
            assert axis["label"] == f"x{k + 1} [data units]"
        np.testing.assert_allclose([axis["low"], axis["high"]], ends)


def test_arrows_keep_their_directions_and_up_to_a_limit_their_lengths(trained):
    gan = trained("ring")
    found = content(gan)
    kept = np.array([moment["arrows"] for moment in gan.run_.record.moments], float)
    drawn = whole(found["arrows"], *kept.shape)
    lengths, shown = (np.linalg.norm(a, axis=-1) for a in (kept, drawn))
    unit = np.median(lengths)
    np.testing.assert_allclose(shown, np.minimum(0.1 * lengths / unit, 0.2), atol=2e-4)
    np.testing.assert_allclose(drawn * lengths[..., None], kept * shown[..., None], atol=3e-4)
    assert f"a tenth of the frame is a slope of {unit:.2g}" in found["caption"]


@pytest.mark.parametrize("source", ["ring", "line"])
def test_levels_are_differences_from_the_median_on_one_scale(trained, source):
    gan = trained(source)
    found, cells = content(gan), record.CELLS**gan.data_.dim
    scores = np.frombuffer(base64.b64decode(found["scores"]), np.uint8).reshape(13, cells)
    largest = []
    for moment, own, (low, high) in zip(gan.run_.record.moments, scores, found["range"]):
        bottom, top = moment["range"].astype(float)
        values = bottom + own / 255 * (top - bottom)
        assert np.array_equal(own, moment["scores"].reshape(-1))
        np.testing.assert_allclose([low, high], np.array([bottom, top]) - np.median(values),
                                   rtol=1e-4, atol=1e-9)
        largest.append(np.quantile(np.abs(values - np.median(values)), 0.98))
    assert found["most"] == pytest.approx(np.median(largest))


def test_points_on_a_line_are_histograms(trained):
    gan = trained("line")
    found, kept = content(gan), gan.run_.record
    assert found["kind"] == "line" and "manifold" not in found and "arrows" not in found
    low, high = record.frame(kept.constants["real"].astype(float))[0]
    for points, heights in [(kept.constants["real"], found["bins"]["real"]),
                            *zip([moment["points"] for moment in kept.moments],
                                 found["bins"]["generated"])]:
        inside = ((points >= low) & (points <= high)).mean()
        assert len(heights) == page.BINS and sum(heights) == pytest.approx(inside, abs=1e-3)
    assert max(found["bins"]["real"]) < found["bins"]["most"]


@pytest.mark.parametrize("source, shape", [("grey", (1, 8, 8)), ("colour", (3, 8, 9))])
def test_the_film_of_images_is_a_sheet_of_the_record(trained, source, shape):
    gan = trained(source)
    found, (c, h, w) = content(gan), shape
    assert found["kind"] == "images" and not found["layers"]
    sheet = picture(found["images"]["source"]).reshape(13, h, record.PICTURES, w, c)
    for row, moment in zip(sheet, gan.run_.record.moments):
        np.testing.assert_array_equal(row.transpose(1, 3, 0, 2).reshape(record.PICTURES, -1),
                                      moment["images"])
    path = picture(found["walk"]["source"])
    assert path.shape[:2] == (found["walk"]["places"] * h, page.WALK * w)
    expected = gan.data_.to_images(samples.walk(gan.run_.game, n=page.WALK))
    first = path[:h, :w].reshape(h, w, c).transpose(2, 0, 1)
    np.testing.assert_array_equal(first, expected[0, 0])
    pairs = picture(found["nearest"]["source"])
    assert pairs.shape[1] > pairs.shape[0] > 2 * h and "of 255 grey levels" in (
        found["nearest"]["note"])


def test_the_state_in_which_a_run_was_stopped_ends_the_film():
    gan = GAN(**SMALL | dict(steps=2000))
    run = gan.prepare("ring")
    for row in run.train():
        run.stop = row["step"] not in run.record.schedule(2000, 4)
    kept = [int(moment["steps"]) for moment in run.record.moments]
    assert kept[-1] == run.step - 4 and content(gan)["steps"] == [*kept, run.step]
    assert len(run.record.moments) == len(kept)  # and not in the record, so as to resume the same


def test_moments_are_told_in_words(trained):
    gan = trained("ring")
    told = content(gan)["told"]
    for words, moment in zip(told, gan.run_.record.moments):
        found = metrics.mode_coverage(moment["points"], gan.data_.centers, gan.data_.sigma)
        assert words.startswith(f"{found.captured} of 8 modes have points, "
                                f"{found.high_quality:.0%} of the points")
    assert re.match(r"the points spread over \d+% across, \d+% up of the real ones' standard "
                    r"deviation[,.]", content(trained("plane"))["told"][0])
    assert "differ by" in content(trained("grey"))["told"][0]


@pytest.mark.parametrize("kept, words", [
    ([1, 0], r"over \d+% across of"), ([0, 1], r"over \d+% up of"), ([1], r"over \d+% of"),
    ([0, 0], "points are all the same"), ([0], "points are all the same"),
    ([1, 0, 0], r"over \d+% across of")])
def test_columns_that_do_not_vary_are_no_measure(kept, words):
    told = content(GAN(**SMALL).fit(0.1 + cloud(len(kept)) * kept))["told"]
    assert all(re.search(rf"the (real )?points (spread )?{words}|{words}", text) for text in told)
    assert max(map(len, told)) < 120


# ----------------------------------------------------------------------------------- the curves


@pytest.mark.parametrize("source, method", [("ring", "wgan-gp"), ("five", "gan"), ("ring", "vae"),
                                            ("line", "mixture"), ("grey", "r1")])
def test_curves_are_the_columns_of_the_log_that_were_measured(trained, source, method):
    gan = trained(source, method=method)
    found, columns = content(gan), gan.run_.columns()
    for name, column in columns.items():
        known = np.array([math.nan if x is None else x for x in found["log"][name]])
        np.testing.assert_allclose(known, column, rtol=1e-4, atol=1e-12)
    drawn = {line["column"] for chart in found["charts"] for line in chart.get("lines", ())}
    measured = {name for name, column in columns.items() if np.isfinite(column).any()}
    assert drawn == measured - {"step", "seconds"}
    assert set(found["names"]) == measured
    bands = yardstick(gan.data_)
    for chart in found["charts"]:
        low, high = chart["limits"]
        assert low < high and chart["summary"] and chart["note"]
        for line in chart.get("lines", ()):
            values = columns[line["column"]]
            middle = np.nanmedian(values)
            assert low <= middle <= high and f"last {values[~np.isnan(values)][-1]:.3g}" in (
                chart["summary"])
            if line["column"] in bands and line["column"] != "modes":
                assert chart["band"] == pytest.approx(bands[line["column"]])


def test_slopes_and_shares_over_time_are_those_of_the_record(trained):
    gan = trained("ring")
    *_, slopes, shares = content(gan)["charts"]
    moments = gan.run_.record.moments
    edges = np.array(slopes["heat"]["edges"])
    for i, moment in enumerate(moments):
        values = moment["slopes"].astype(float)
        count = np.histogram(values[values <= edges[-1]], edges)[0]
        count[-1] += (values > edges[-1]).sum()
        np.testing.assert_allclose(slopes["heat"]["shades"][i], 100 * count / count.max(), atol=1)
        assert f"median {np.median(values):.3g}" in slopes["heat"]["told"][i]
        near = np.square(moment["points"].astype(float)[:, None] - gan.data_.centers).sum(axis=2)
        share = np.bincount(near.argmin(axis=1), minlength=8) / record.POINTS
        np.testing.assert_allclose(shares["heat"]["shades"][i], np.minimum(400 * share, 100),
                                   atol=1)
        assert f"to {share.max():.0%} (mode {share.argmax() + 1})" in shares["heat"]["told"][i]
    for heat in (slopes["heat"], shares["heat"]):
        assert len(heat["steps"]) == len(heat["shades"]) + 1 and heat["steps"][-1] == 12


# --------------------------------------------------------------------------------- words, files


def test_a_page_stands_alone_and_says_what_each_part_is(trained):
    for source in ("ring", "grey"):
        gan = trained(source)
        text = page.page(gan, {"exit": "done", "numpy": np.__version__}, yardstick(gan.data_))
        read = Reader(text)
        assert read.open == [] and json.loads(read.data) == content(gan)
        assert not re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?!data:)[\w/.]""", re.sub(
            r"<script>.*</script>", "", text, flags=re.S))  # nothing is loaded from anywhere
        assert "//" not in re.sub(r"//.*", "", re.search(
            r"<script>(.*)</script>", text, re.S)[1]).replace("http:", "")
        script = re.search(r"<script>(.*)</script>", text, re.S)[1]
        code = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        (policy,) = (tag["content"] for tag in read.all("meta") if "http-equiv" in tag)
        assert f"script-src 'sha256-{code}'" in policy and "default-src 'none'" in policy
        assert read.all("html") == [{"lang": "en"}]
        ids = [tag["id"] for _, tag in read.tags if "id" in tag]
        assert len(ids) == len(set(ids))
        for section in read.all("section"):
            assert section["aria-labelledby"] in ids
        assert all(tag.get("aria-label") for tag in read.all("canvas") + read.all("input"))
        assert all(tag.get("alt") for tag in read.all("img"))
        used = set(re.findall(r'\$\("([\w-]+)"\)', script))
        assert {name for name in used if not name.endswith("-")} <= set(ids)
        assert f"numpy{np.__version__}" in read.text and "Seed 0, step 12 of 12" in read.text


@pytest.mark.parametrize("about, live, words", [
    ({}, False, "done"), ({"exit": None}, True, "done"), ({"exit": "done"}, False, "done"),
    ({"exit": "SIGINT", "steps_done": 12}, False, "ended by: SIGINT"),
    ({"exit": "done", "steps_done": 1500}, False, "of a run that came to step 1,500, done"),
    ({"steps_done": "x"}, False, "done"), ({"step": 9}, False, "unfinished"),
    ({"step": 9, "written": "today"}, True, "in training; written today")])
def test_a_page_says_how_the_run_stands(trained, about, live, words, monkeypatch):
    run = trained("ring").run_
    monkeypatch.setattr(run, "step", about.pop("step", 12))
    assert page._lead(run, about, live).endswith(f" s of training, {words}.")


def test_what_is_known_of_a_run_is_shown_as_words(trained):
    assert "To repeat it: tinygan" in Reader(page.page(trained("ring"), {"arguments": 1}, {})).text
    about = {"arguments": ["train", "--resume", "x"], "blas": ["one 1", "two 2"], "empty": [],
             "environment": {"A": "1", "B": "x y"}, "ranks": 2, "speed": "fast"}
    text = Reader(page.page(trained("ring"), about, {})).text
    assert "To repeat it, if --steps stayed the same when it was resumed: tinygan" in text
    assert "seed0blasone 1, two 2environmentA=1, B=x yranks2speedfast\n" in text


HOSTILE = ['</script><script>alert(1)</script>', '<img src=x onerror=alert(1)>', '"&\'<b>',
           "{{data}}", "a\nb\x1b[31m\u202e", "\udcff", "]]><!--"]


@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_user_named_stays_text(trained, name):
    gan = trained("plane")
    named = data.points(cloud(2), name)
    gan = GAN(**SMALL)
    gan.prepare(named)
    gan.run_.record.take(0)
    gan.source_ = f"/tmp/{name}.csv"
    about = {"exit": name, "machine": name, "arguments": [name], name: name, "blas": [name]}
    text = page.page(gan, about, yardstick(named))
    text.encode()
    read = Reader(text)
    shown = page.printable(name)
    assert read.text.count(shown) >= 6 and "alert" not in str(read.tags)
    assert len(read.all("script")) == 2 and json.loads(read.data)["kind"] == "plane"


def test_the_command_repeats_the_run(trained):
    gan = GAN(method="gan", lr=0.5, **SMALL)
    gan.prepare("grid")
    words = shlex.split(page.command(gan))
    assert words[:3] == ["tinygan", "train", "grid"]
    from tinygan.app.cli import parser
    options = parser().parse_args(words[1:])
    given = {name: value for name, value in vars(options).items() if hasattr(gan, name)}
    again = GAN(**{name: value for name, value in given.items() if value is not None})
    assert again.prepare("grid").config == gan.run_.config
    assert eval(page.command(trained("five")).removesuffix(".fit(X)")).prepare(  # noqa: S307
        SOURCES["five"]).config == trained("five").run_.config


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("net, source", [("mlp", "plane"), ("conv", "colour")])
def test_the_command_repeats_whatever_was_chosen(net, source, method):
    """By the line of Python, and by that of the shell, of the defaults and of each other choice."""
    from tinygan.app.cli import parser
    for options in ({}, dict(steps=3), dict(batch=5, accumulate=2), dict(width=4), dict(latent=3),
                    dict(lr=0.125), dict(n_critic=4), dict(penalty=0.5), dict(depth=2)):
        gan = GAN(method, net=net, **{"width": 4} | options)
        try:
            gan.prepare(COLOURS if source == "colour" else cloud(2))
        except ValueError:  # a choice that the method does not have
            continue
        line = page.command(gan).removesuffix(".fit(X)")
        assert eval(line)._config().resolved(gan.data_) == gan.run_.config  # noqa: S307
        gan.source_ = "a b.npy"
        given = vars(parser().parse_args(shlex.split(page.command(gan))[1:]))
        chosen = {name: value for name, value in given.items() if name in gan.get_params()}
        again = GAN(**{name: value for name, value in chosen.items() if value is not None})
        assert given["data"] == "a b.npy"
        assert again._config().resolved(gan.data_) == gan.run_.config


@pytest.mark.parametrize("source", SOURCES)
def test_a_report_is_below_a_megabyte(trained, source):
    """Of a full record, and of images as large as they may be elsewhere."""
    gan = trained(source)
    full = list(gan.run_.record.moments)
    gan.run_.record.moments = [moment | {"steps": np.array(i)} for i in range(5)
                               for moment in full[:12]][:60]
    try:
        assert len(page.page(gan, {}, yardstick(gan.data_))) < 1.1e6
    finally:
        gan.run_.record.moments = full


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("source", ["ring", "line", "five", "grey"])
@pytest.mark.parametrize("value", [np.nan, 0.0, 6e4])
def test_odd_records_make_a_page(trained, source, value):
    gan = trained(source)
    run = gan.run_
    kept = run.record.moments, run.history
    run.record.moments = [{name: np.full_like(a, value) if a.dtype.kind == "f" else a
                           for name, a in moment.items()} for moment in kept[0]]
    run.history = [(row[0], *[value] * (len(row) - 1)) for row in run.history]
    try:
        with np.errstate(all="ignore"):
            Reader(page.page(gan, {}, yardstick(gan.data_)))
    finally:
        run.record.moments, run.history = kept


def test_a_run_without_a_log_or_data_makes_a_page(tmp_path):
    gan = GAN(**SMALL)
    gan.prepare(cloud(3))
    read = Reader(page.page(gan, {}, {}))
    assert "Nothing was measured yet" in read.text and json.loads(read.data)["kind"] is None
    gan.fit(cloud(3)).save("gan.npz")
    without = GAN.load("gan.npz")  # its data were an array
    assert content(without, {})["points"] == content(gan)["points"]


# -------------------------------------------------------------------------------------- advice


def good_facts(**changes):
    """The facts of a run in which all is well, as far as they are measured."""
    found = dict(step=100, steps=100, broken=0.0, distance=0.03, best=0.03, best_step=90,
                 real_high=0.04, times=0.75, slope=1.0, critic_loss=-0.1,
                 wasserstein=0.1, earlier=0.2, target=True, entropy=False, modes=8, found=8,
                 lost="", high_quality=0.98, real_quality=0.985, kl=0.001, least=0.12, most=0.13,
                 equal=0.125, spread=1.0, copies=1.1,
                 diverged=False)
    return SimpleNamespace(**found | changes)


BAD = [("the state of step 60 of 100", dict(step=60)),
       ("diverged. This is the state of step 60", dict(step=60, diverged=True)),
       ("lost: 3", dict(found=7, lost="3")),
       ("uneven", dict(kl=0.3, least=0.01)), ("50.0% of the samples", dict(high_quality=0.5)),
       ("is 5 times", dict(distance=0.2, best=0.2, times=5.0)),
       ("closer to the data before", dict(distance=0.07, best=0.02)),
       ("less varied", dict(spread=0.3)), ("copies", dict(copies=0.1)),
       ("slope is 3.00, not 1", dict(slope=3.0)),
       ("slope is 1e-05: it is flat", dict(slope=1e-5)), ("has grown", dict(wasserstein=0.9)),
       ("is -0.6, below 0", dict(wasserstein=-0.6)),
       ("tells nearly all", dict(entropy=True, critic_loss=0.01, target=False)),
       ("not finite", dict(broken=0.5))]


def told(found):
    return [(rule.good, rule.words.format(**vars(found))) for rule in advice.RULES
            if rule.when(found)]


def test_a_good_run_is_praised_and_nothing_else():
    lines = told(good_facts())
    assert [good for good, _ in lines] == [True] * len(lines) and len(lines) == 4


@pytest.mark.parametrize("words, changes", BAD)
def test_each_fault_has_its_rule(words, changes):
    bad = [line for good, line in told(good_facts(**changes)) if not good]
    assert len(bad) == 1 and words in bad[0]


def test_every_rule_that_finds_a_fault_is_tested_and_says_what_to_try():
    bad = [rule for rule in advice.RULES if not rule.good]
    assert len(bad) == len(BAD) and all(rule.then for rule in bad)
    options = set(re.findall(r"--[\w-]+", " ".join(rule.then for rule in bad)))
    from tinygan.app.cli import TRAIN
    assert options <= {name for names, _ in TRAIN for name in names}


def test_what_was_not_measured_is_not_judged():
    found = good_facts(**{name: math.nan for name, value in vars(good_facts()).items()
                          if isinstance(value, float)} | dict(found=math.nan, modes=math.nan,
                                                              broken=0.0))
    assert told(found) == []


@pytest.mark.parametrize("source, method", [("ring", "wgan-gp"), ("plane", "gan"),
                                            ("grey", "vae"), ("line", "mixture")])
def test_facts_are_measured_on_runs(trained, source, method):
    gan = trained(source, method=method)
    bands = yardstick(gan.data_)
    found = advice.facts(gan.run_, bands, True, False)
    assert found.distance == gan.run_.columns()["sliced_wasserstein"][-1]
    assert found.spread > 0 and found.copies != found.copies
    assert (found.modes == 8) == (source == "ring") and found.broken == 0
    without = advice.facts(gan.run_, {}, True, False)
    assert math.isnan(without.spread) and math.isnan(without.real_high)
    assert advice.advice(gan.run_, bands)
    assert vars(found).keys() | {"lost"} == vars(good_facts()).keys()


def test_copies_of_training_data_are_found():
    points = np.random.default_rng(0).normal(size=(300, 2))
    gan = GAN(**SMALL).fit(points)
    given = gan.data_
    train = given.part("train", 1000, np.random.default_rng(0))

    def copier(game, n, seed=0):
        return np.resize(train, (n, 2)) + np.float32(1e-4)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples, "sample", copier)
        lines = advice.advice(gan.run_, yardstick(given))
    assert any("many are copies" in words for _, words, _ in lines)
    assert not any("copies" in words for _, words, _ in advice.advice(gan.run_, yardstick(given)))


def test_an_estimate_below_zero_is_no_distance_and_one_from_there_has_not_grown():
    assert not any("has grown" in words for _, words in told(good_facts(earlier=-0.2)))
    assert "of a distance" in str(told(good_facts()))
    assert "of a distance" not in str(told(good_facts(wasserstein=-0.6)))


def test_lost_modes_are_named_by_their_numbers(monkeypatch):
    gan = GAN(**SMALL).fit("ring")
    centers = gan.data_.centers

    def collapsed(game, n, seed=0):
        return np.resize(centers[[0, 2, 3, 5]], (n, 2)).astype(np.float32)

    monkeypatch.setattr(samples, "sample", collapsed)
    (words,) = [words for _, words, _ in advice.advice(gan.run_, yardstick(gan.data_))
                if "lost" in words]
    assert words == "4 of 8 modes have samples of high quality; lost: 2, 5, 7, 8."


# ------------------------------------------------------------------------------- the commands


@pytest.fixture
def plain(monkeypatch):
    """Draw no panel."""
    monkeypatch.setattr(plots, "panel", lambda *arguments: Figure())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a small run, made by the command line."""
    here = tmp_path_factory.mktemp("report")
    np.savetxt(here / "mine.csv", cloud(2), delimiter=",")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples, "SCORED", 100)
        patch.setattr(plots, "panel", lambda *arguments: Figure())
        assert main(["train", str(here / "mine.csv"), "--width", "8", "--depth", "1", "--batch",
                     "16", "--n-critic", "1", "--steps", "8", "--out", str(here / "run")]) == 0
    return here / "run"


def test_a_run_leaves_its_report_and_the_command_writes_it_again(folder, capsys):
    first = Reader((folder / "report.html").read_text())
    assert "done" in first.text and "started" in first.text and "ended" in first.text
    assert main(["report", str(folder), "-o", "again.html"]) == 0
    assert "again.html" in capsys.readouterr().out
    again = Reader(open("again.html").read())
    assert again.data == first.data
    assert main(["report", str(folder), "-o", "film.gif"]) == 0
    assert main(["report", str(folder), "-o", "again.gif"]) == 0
    assert Path("film.gif").read_bytes() == Path("again.gif").read_bytes()
    assert Image.open("film.gif").n_frames == 9 and Path("film.gif").stat().st_size < 1.5e6
    for wrong in ("x.png", "x", ""):
        assert main(["report", str(folder), "-o", wrong]) == 2
    assert main(["report", "nothing"]) == 4


@pytest.mark.parametrize("source", SOURCES)
def test_a_film_alone_is_of_points_in_a_plane(trained, source, capsys):
    trained(source).save("gan.npz")
    plane = source in ("ring", "plane", "five")
    assert main(["report", "gan.npz", "-o", "film.gif"]) == (0 if plane else 2)
    assert Path("film.gif").exists() == plane
    assert ("points in a plane" in capsys.readouterr().err) == (not plane)


def test_a_report_without_the_data_says_what_is_missing(folder, capsys, tmp_path):
    for name in ("checkpoint.npz", "run.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    header, arrays = checkpoint.load("checkpoint.npz")
    header["data"]["source"] = "/nowhere/mine.csv"
    del header["sha256"]
    checkpoint.save("checkpoint.npz", header, arrays)
    assert main(["report", "."]) == 0
    assert "without the data" in capsys.readouterr().err
    assert json.loads(Reader(open("report.html").read()).data)["kind"] == "plane"
    for broken in ("", "[1]", "{", '{"exit": {"a": 1}, "steps_done": "9"}', "[" * 10**5):
        (tmp_path / "run.json").write_text(broken)
        assert main(["report", "checkpoint.npz"]) == 0


def test_the_report_of_a_run_that_diverged_is_of_the_state_before(folder, tmp_path):
    """Of the folder; of a file that was named, of that file."""
    for name in ("checkpoint.npz", "run.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    gan = GAN.load("checkpoint.npz", X=str(folder.parent / "mine.csv"), steps=9)
    list(gan.run_.train())
    gan.save("diverged.npz")
    (tmp_path / "run.json").write_text('{"exit": "training diverged at step 10: x"}')
    for path, step in (".", 9), ("checkpoint.npz", 8):
        assert main(["report", path, "-o", "a.html"]) == 0
        text = Reader(open("a.html").read()).text
        assert f"step {step} of {step}" in text and "ended by: training diverged at" in text
        assert "The training diverged" in text and "tinygan explain" in text
        assert "--steps" not in re.search("(?s)What is good.*Film", text)[0]


@pytest.mark.parametrize("name", ["path-length-images", "wgan-gp-ring", "wgan-points"])
def test_runs_of_earlier_versions_have_a_report_as_far_as_their_record_goes(name, tmp_path):
    old = os.path.join(os.path.dirname(__file__), "data", f"{name}.npz")
    assert main(["report", old, "-o", "old.html"]) == 0
    found = json.loads(Reader(open("old.html").read()).data)
    assert found["charts"] and bool(found["steps"]) == (name != "wgan-points")
    assert (found["kind"] is None) == ("no moments" in found["caption"]) == (not found["steps"])


@pytest.mark.parametrize("fault", [ZeroDivisionError("x"), MemoryError(), PermissionError("x")])
def test_a_report_that_cannot_be_made_costs_the_run_a_note(fault, folder, plain, capsys,
                                                           monkeypatch):
    def fails(*arguments):
        raise fault

    monkeypatch.setattr(page, "content", fails)
    assert main(["train", "--steps", "2", "--out", "run", "--width", "8", "--depth", "1"]) == 0
    assert f"the report could not be made: {type(fault).__name__}" in capsys.readouterr().err
    assert {path.name for path in Path("run").iterdir()} == {
        "best.npz", "checkpoint.npz", "log.csv", "panel.png", "run.json", "samples.npz"}
    assert json.loads(Path("run/run.json").read_text())["exit"] == "done"
    assert main(["report", str(folder), "-o", "no.html"]) != 0 and not Path("no.html").exists()


@pytest.mark.parametrize("display, started, said", [
    ({}, True, "no display here"), ({"DISPLAY": ":0"}, False, "no browser could be started"),
    ({"WAYLAND_DISPLAY": "x"}, True, ""), ({"BROWSER": "x"}, True, "")])
def test_a_report_is_shown_where_there_is_a_display(display, started, said, monkeypatch, capsys):
    import webbrowser
    opened = []
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in display.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or started)
    report.show("file:///x")
    err = capsys.readouterr().err
    assert said in err and bool(said) == bool(err) and len(opened) == bool(display)


def test_train_shows_the_report_at_its_end(plain, monkeypatch, capsys):
    shown = []
    monkeypatch.setattr(report, "show", shown.append)
    small = ["--width", "8", "--depth", "1", "--batch", "16", "--n-critic", "1"]
    assert main(["train", "--steps", "2", "--out", "a b", *small, "--show"]) == 0
    assert shown == [f"file://{os.getcwd()}/a%20b/report.html"]
    assert main(["train", "--resume", "a b", "--steps", "3", "--show"]) == 0 and len(shown) == 2


# ----------------------------------------------------------------------------------- in Python


@pytest.mark.parametrize("source", ["ring", "grey"])
def test_a_gan_draws_its_picture_and_writes_its_report(trained, source):
    gan = trained(source)
    figure = gan.plot()
    assert isinstance(figure, Figure) and f"{gan.data_.name}, seed 0, step 12" in (
        figure.get_suptitle() or " ".join(text.get_text() for text in figure.texts))
    gan.report(Path("own.html"))
    assert json.loads(Reader(Path("own.html").read_text()).data) == content(gan)
    html = gan._repr_html_()
    code = re.fullmatch(r'<code>GAN\(.*\)</code><br><img alt="[^"]+" src="data:image/png;base64,'
                        r'([^"]+)">', html)[1]
    assert Image.open(io.BytesIO(base64.b64decode(code))).size > (500, 300)


def test_a_gan_that_diverged_says_so_in_its_report():
    gan = GAN(**SMALL | dict(lr=1e9, steps=100))
    with np.errstate(all="ignore"), pytest.raises(Diverged):
        gan.fit(cloud(2))
    gan.report("own.html")
    text = Reader(Path("own.html").read_text()).text
    assert "ended by: training diverged at step" in text and "The training diverged." in text
    assert "Let the run go to its end" not in text


def test_what_a_gan_without_data_can_show(trained):
    with pytest.raises(ValueError, match="not fitted"):
        GAN().plot()
    with pytest.raises(ValueError, match="not fitted"):
        GAN().report("no.html")
    assert GAN(method="<b>")._repr_html_() == "<code>GAN(method=&#x27;&lt;b&gt;&#x27;)</code>"
    trained("plane").save("gan.npz")
    gan = GAN.load("gan.npz")
    with pytest.raises(data.DataError, match="without its training data"):
        gan.plot()
    gan.report("own.html")
    assert json.loads(Reader(Path("own.html").read_text()).data)["kind"] == "plane"
    assert "img" not in gan._repr_html_() and not Path("no.html").exists()


def test_fit_shows_its_progress_where_it_is_asked_to(monkeypatch, capsys):
    GAN(**SMALL).fit("ring")
    assert capsys.readouterr() == ("", "")
    rows = []
    silent = GAN(**SMALL).fit("ring", verbose=rows.append)
    assert capsys.readouterr() == ("", "")
    assert [row["step"] for row in rows] == silent.history_["step"].tolist()
    gan = GAN(**SMALL)
    gan.fit("ring", verbose=lambda row: setattr(gan.run_, "stop", row["step"] >= 3))
    assert gan.run_.step == 3
    GAN(**SMALL).fit("ring", verbose=True)
    out, err = capsys.readouterr()
    assert out == "" and "step 12/12" in err and "\r" not in err
    notebook = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})()
    monkeypatch.setattr(sys, "stderr", notebook)
    GAN(**SMALL).fit("ring", verbose=True)
    lines = notebook.getvalue()
    assert lines.startswith("\rstep ") and lines.count("\n") == 1 and lines.endswith("\n")


# ------------------------------------------------------------------------------------ the server


def ask(port, method="GET", path="/", host=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path, headers={"Host": host or f"127.0.0.1:{port}"})
    answer = connection.getresponse()
    return answer.status, answer.read().decode(), answer


@pytest.fixture
def served():
    pages = iter(["one", "two", OSError("gone"), data.DataError("other"), MemoryError()])

    def render():
        found = next(pages)
        if isinstance(found, Exception):
            raise found
        return found

    with live.server(render) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made.server_port
        made.shutdown()


def test_the_server_shows_one_page_to_this_machine_alone(served):
    for host in ("evil.example", f"evil.example:{served}", "127.0.0.1", "127.0.0.1:1",
                 f"127.0.0.1.evil.example:{served}", f"[::1]:{served}", "localhost"):
        assert ask(served, host=host)[0] == 403
    assert ask(served)[:2] == (200, "one")
    assert ask(served, host=f"localhost:{served}")[:2] == (200, "two")
    assert ask(served)[:2] == (503, "gone")
    assert ask(served)[:2] == (503, "other")
    assert ask(served)[:2] == (503, "MemoryError")
    for path in ("/x", "/../run.json", "/checkpoint.npz", "/?a", "http://other/"):
        assert ask(served, path=path)[0] == 404
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"):
        assert ask(served, method)[0] == 501
    status, _, answer = ask(served, host="x")
    assert answer.getheader("X-Content-Type-Options") == "nosniff"
    assert answer.getheader("Access-Control-Allow-Origin") is None
    assert answer.getheader("Cross-Origin-Resource-Policy") == "same-origin"


def test_a_browser_that_goes_leaves_no_word_on_the_terminal(capfd):
    def render():
        asked.wait(10)
        return "x" * 10**7

    asked = threading.Event()
    with live.server(render) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        for text in (b"GET / HTTP/1.0\r\nHost: localhost:%d\r\n\r\n" % made.server_port, b"GE"):
            gone = socket.create_connection(("127.0.0.1", made.server_port))
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            gone.sendall(text)
            time.sleep(0.1)
            gone.close()  # by a reset
        asked.set()
        made.shutdown()
    assert capfd.readouterr() == ("", "")


def test_the_server_is_not_reached_from_other_machines(monkeypatch):
    with live.server(str) as made:
        assert made.server_address[0] == "127.0.0.1"


def test_a_growing_report_is_made_anew_when_the_run_has_moved_on(tmp_path):
    gan = GAN(**SMALL).fit(cloud(2))
    gan.save("checkpoint.npz")
    (tmp_path / "run.json").write_text('{"exit": null}')
    growing = live.Growing(tmp_path, gan.data_, yardstick(gan.data_))
    first = growing()
    assert growing() is first and "<body data-live>" in first and not growing.done
    gan.fit(cloud(2)[::-1])
    gan = GAN(**SMALL | dict(seed=1)).fit(cloud(2))
    gan.save("checkpoint.npz")
    second = growing()
    assert second != first and "data-live>" in second
    (tmp_path / "run.json").write_text('{"exit": "done"}')
    os.utime("run.json", ns=(1, 1))
    assert "data-live>" not in growing() and growing.done


def test_watch_serves_until_what_started_it_ends(folder):
    """And a run that is over needs nobody to fetch it."""
    child = subprocess.Popen([sys.executable, "-m", "tinygan", "watch", folder], text=True,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    line = child.stdout.readline()
    port = int(re.search(r"http://127.0.0.1:(\d+)/", line)[1])
    status, text, _ = ask(port)
    assert status == 200 and json.loads(Reader(text).data)["kind"] == "plane"
    child.communicate(timeout=30)
    assert child.returncode == 0
    assert main(["watch", "nothing"]) == 2


def test_a_live_run_is_watched_by_another_process(plain, monkeypatch):
    """With a checkpoint every two seconds; the process gets the folder and --show."""
    seen = []

    class Child:
        def __init__(self, command, **settings):
            seen.append((command, settings))

        def communicate(self):
            seen.append("ended")

    monkeypatch.setattr(live.subprocess, "Popen", Child)
    monkeypatch.setattr(report, "show", lambda address: seen.append(address))
    assert commands.LIVE_EVERY < commands.SAVE_EVERY / 10
    assert main(["train", "--steps", "2", "--out", "run", "--width", "8", "--depth", "1",
                 "--live", "--show"]) == 0
    (command, settings), end = seen
    assert command[-3:] == ["watch", os.path.abspath("run"), "--show"] and end == "ended"
    assert settings == {"stdin": subprocess.PIPE, "start_new_session": True}
