"""A benchmark that needs other libraries says so, and finds what it should."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "benchmarks" / "in_the_wild.py"
BARE = ("import importlib.util, runpy, sys; importlib.util.find_spec = lambda name: None; "
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')")


def run(*arguments):
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_in_the_wild_explains_itself_without_the_libraries():
    code, out, _ = run(str(SCRIPT), "--help")
    assert code == 0 and "mpmath" in out and "--libraries" in out


def test_in_the_wild_names_what_is_missing():
    code, out, err = run("-c", BARE, str(SCRIPT), "--libraries", "torch")
    assert code == 2 and not out
    assert "not installed: mpmath, torch. pip install mpmath torch" in err


def test_in_the_wild_finds_the_third_derivative_of_batch_norm():
    pytest.importorskip("torch")
    pytest.importorskip("mpmath")
    code, out, err = run(str(SCRIPT), "--libraries", "torch", "--functions", "_norm(x)")
    assert code == 0, err
    assert "| `batch_norm(x)` | 0 | 3 |" in out and "group_norm(x)" not in out
