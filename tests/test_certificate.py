"""The certificate: its table, its exit code, and docs/gradients.md, which must be up to date."""

from pathlib import Path

import pytest

from tinygan import PRIMITIVES
from tinygan.testing import certificate
from tinygan.testing.mutants import KINDS, planted

PAGE = Path(__file__).parents[1] / "docs" / "gradients.md"
OLD = "out of date: python -m tinygan.testing.certificate > docs/gradients.md"


def rows():
    table = PAGE.read_text().split("```")[1].removeprefix("text").strip("\n").splitlines()[1:]
    return {line[:44].rstrip(): line for line in table}


def stable(line):
    """A row without the measured error, whose last digits depend on the machine."""
    return line[:63] + line[74:]


def test_page_has_every_row_and_every_row_passed():
    assert list(rows()) == certificate.names_of(None), OLD
    for name, line in rows().items():
        killed, live = map(int, line[75:86].split("/"))
        assert killed == live and (live > 0 or name not in PRIMITIVES) and "FAILED" not in line
    assert f"Into each primitive {len(KINDS)} kinds" in PAGE.read_text(), OLD


@pytest.mark.parametrize("name", ["tanh", "layers.Dense", "losses.wasserstein_critic"])
def test_page_says_what_is_measured(name):
    assert stable(rows()[name]) == stable(str(certificate.certify(name))), OLD


@pytest.mark.thorough
def test_the_whole_page():
    lines = [line for line in certificate.page().splitlines() if line in rows().values()]
    assert len(lines) >= 0.9 * len(rows())


def test_table_and_exit_codes(capsys):
    assert certificate.main(["exp", "losses.wasserstein_critic"], order=2) == 0
    out = capsys.readouterr().out
    assert "exp  " in out and "1-2" in out and "2 of 2 passed" in out
    with planted(PRIMITIVES["exp"], 0, KINDS["times 1.0000001"]):
        assert certificate.main(["exp"], order=1) == 1
    assert "FAILED" in capsys.readouterr().out
    with pytest.raises(ValueError, match="unknown name 'nothing'"):
        certificate.main(["nothing"])
