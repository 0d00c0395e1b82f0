"""The failure gallery: each failure happens, at a small scale too, and its cure cures it."""

import operator
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "demos"))
import failures  # noqa: E402

LESS, MORE = operator.lt, operator.gt
CASES = {  # steps, a limit between the numbers, one between the signs, the failed one's side
    "collapse": (2500, 0.5, 3, LESS),
    "early-winner": (300, 0.05, 0.5, LESS),
    "saturated-generator": (150, 1, 0.1, LESS),
    "clipped-probabilities": (150, 6, 17, LESS),  # -log(1e-7) = 16.1
    "two-sided-smoothing": (150, 1, 5, LESS),
    "constant-noise": (1000, 0.25, 1.3, MORE),
    "oscillation": (250, 0.1, 0.01, MORE),
    "narrow-clip": (100, 0.4, 0.01, LESS),
    "wide-clip": (100, None, 10, MORE),  # the samples are no worse
    "divergence": (250, 200, 100, MORE),
    "high-rate": (250, 0.5, None, None),  # the sign comes later
    "small-penalty": (250, 0.25, 10, MORE),
    "large-penalty": (125, 0.5, 0, LESS),
    "batch-norm": (150, 0.5, 6, MORE),
    "constant-penalty": (250, 0.25, 1, MORE),
    "wrong-axes": (125, 0.5, 0.2, LESS),
    "shared-epsilon": (125, None, 0.1, MORE),  # the samples are no worse
    "forgotten-stop-gradient": (125, 0.6, 1, LESS),
    "lagging-average": (125, 0.45, None, None),  # the sign is the same number of the last weights
    "memorization": (150, 3, 1.5, MORE),
    "small-latent": (125, 0.5, 0.2, MORE),
    "unscaled-data": (250, 1, 100, MORE)}


QUICK = ["saturated-generator", "clipped-probabilities", "oscillation", "divergence",
         "narrow-clip", "forgotten-stop-gradient"]


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[] if name in QUICK else [pytest.mark.thorough])
    for name in failures.FAILURES])
def test_a_failure_happens_and_its_cure_cures_it(name, few_scored):
    steps, number, sign, side = CASES[name]
    kind = failures.FAILURES[name]
    failed, cured = (kind.run(cured, 0, "cpu", steps=steps) for cured in (False, True))
    if number is not None:
        assert kind.worse(failed.number, number) and kind.worse(number, cured.number)
    if sign is not None:
        assert side(abs(failed.sign), sign) if name == "unscaled-data" else side(failed.sign, sign)
        assert side(sign, cured.sign)
    if name == "lagging-average":
        assert failed.number > 2 * failed.sign


def test_a_failure_is_the_same_for_the_same_seed():
    runs = [failures.FAILURES["oscillation"].run(False, seed, "cpu") for seed in (1, 1, 2)]
    assert runs[0][:2] == runs[1][:2] != runs[2][:2]


def test_the_page_has_a_row_and_a_picture_of_each_and_no_others():
    page = (ROOT / "docs/failures.md").read_text()
    assert re.findall(r"^\| ([a-z-]+) \|", page, re.MULTILINE)[1:] == list(failures.FAILURES)
    shown = re.findall(r"images/failures/([a-z-]+)\.png", page)
    assert sorted(shown) == sorted(failures.FAILURES) == sorted(CASES)
    assert failures.TABLE in page


@pytest.mark.processes(commands=lambda folder: [
    ([sys.executable, str(ROOT / "demos/failures.py"), "oscillation", "shared-eps"], {})])
def test_an_unknown_failure_is_refused_with_the_names_of_the_known_ones(ran):
    folder, (done,) = ran
    assert done.returncode == 2 and not done.stdout
    assert "unknown name 'shared-eps'; choose collapse, " in done.stderr
    assert not list(folder.iterdir())
