"""The shape of the house: imports point one way, outside packages stay where they belong, nothing is executed as data."""

import ast
import re
import sys
from pathlib import Path

import pytest

import tinygan

PACKAGE = Path(tinygan.__file__).parent
DEMOS = PACKAGE.parent / "demos"
SOURCES = {".".join(p.relative_to(PACKAGE).with_suffix("").parts): p for p in sorted(PACKAGE.rglob("*.py"))}
FILES = [*SOURCES.values(), *sorted(DEMOS.glob("*.py"))]

# A file at the top or a folder, each may import those before it. ``functional`` to ``optim`` are the rest of the core.
ORDER = ["backend", "tensor", "ops", "conv", "backprop", "functional", "init", "layers", "losses", "optim", "program",
         "data", "metrics", "training", "testing", "app", "__main__"]
CORE = ORDER[:10]
ROOMS = {"training": ["checkpoint", "networks", "game", "likelihood", "methods", "samples", "run", "evaluation", "diagnosis",
                      "estimator"],
         "app": ["process", "plots", "demo", "cli", "progress", "folder", "report", "commands"], "data": ["dataset", "toy", "files", "images", "sources"]}  # in their order
FORBIDDEN = {("losses", "layers"), ("optim", "layers"), *(("testing", room) for room in ("training", "data", "metrics"))}
LATE = {("app.cli", "app.commands")}  # the command line loads what a command does when the command is given
OUTSIDE = {"cupy": {"backend"}, "threadpoolctl": {"app.process"}, "matplotlib": {"app.plots", "data.images"},
           "PIL": {"app.plots", "data.images"}, "sklearn": {"data.images"}, "hypothesis": {"testing.strategies"}}
# (numpy and the standard library may be anywhere)
EXECUTING = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "runpy", "code", "yaml",
             "subprocess", "multiprocessing", "imp", "pty", "socket", "urllib", "http", "ftplib", "requests"}
NAMES = {"eval", "exec", "compile", "__import__", "breakpoint"}  # of functions that run what they are given
CALLS = re.compile(rf"os\.(system|popen|exec|spawn|posix_spawn|fork|startfile)\w*|_*builtins_*\.({'|'.join(NAMES)})")


def part(module):
    """The row of ORDER that a module belongs to: "data.files" is part of "data"."""
    return module.split(".")[0]


def imports(module, tree):
    """(imported module, name of the package or None for tinygan's own, is it done when the file is loaded?)"""
    package = module.split(".") if SOURCES[module].name == "__init__.py" else module.split(".")[:-1]
    package = [p for p in package if p != "__init__"]

    def walk(node, loading):
        for child in ast.iter_child_nodes(node):
            now = loading and not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
                now = False
            if isinstance(child, ast.Import):
                yield from ((alias.name, alias.name.split(".")[0], now) for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and not child.level:
                yield child.module, child.module.split(".")[0], now
            elif isinstance(child, ast.ImportFrom):
                base = package[:len(package) - child.level + 1]
                if child.module:
                    yield ".".join([*base, child.module]), None, now
                else:
                    yield from ((".".join([*base, alias.name]), None, now) for alias in child.names
                                if (PACKAGE.joinpath(*base, alias.name)).with_suffix(".py").exists()
                                or PACKAGE.joinpath(*base, alias.name).is_dir())
            yield from walk(child, now)

    return list(walk(tree, True))


def trespasses(module, source):
    """What a file imports against the order of the house."""
    for name, outside, loading in imports(module, ast.parse(source)):
        mine = part(module)
        if outside is None:
            theirs = part(name)
            edge = (mine, theirs)
            if mine == theirs or mine == "__init__":
                continue
            upward = theirs not in ORDER or ORDER.index(theirs) > ORDER.index(mine)
            if upward and not (edge in LATE and not loading) or edge in FORBIDDEN:
                yield f"{module} imports {name}"
            if theirs == "testing" and mine not in ("cli", "commands"):
                yield f"{module} imports {name}"
        elif outside == "tinygan":
            yield f"{module} imports {name} absolutely"
        elif outside not in sys.stdlib_module_names and outside != "numpy":
            if module not in OUTSIDE.get(outside, ()) or loading and outside != "hypothesis":
                yield f"{module} imports {name}"


@pytest.mark.parametrize("module", SOURCES)
def test_imports_point_one_way(module):
    assert part(module) in [*ORDER, "__init__"], "a new file has a place in ORDER"
    assert list(trespasses(module, SOURCES[module].read_text())) == []


@pytest.mark.parametrize("module, line", [
    ("tensor", "from . import ops"), ("tensor", "from .ops import add"), ("losses", "from . import layers"),
    ("optim", "from .layers import Dense"), ("program", "from .tensor import Tensor"), ("ops", "import cupy"),
    ("layers", "def f():\n    import cupy"), ("backend", "import cupy"), ("plots", "import matplotlib.pyplot as plt"),
    ("training", "def f():\n    import matplotlib"), ("training", "from .testing import gradcheck"),
    ("data.files", "from ..training import Trainer"), ("cli", "from . import commands"), ("gan", "import scipy"),
    ("testing.check", "import hypothesis"), ("gan", "import tinygan"), ("gan", "from tinygan import ops")])
def test_the_search_finds_an_import_against_the_order(module, line):
    assert len(list(trespasses(module, line))) >= 1


@pytest.mark.parametrize("module, line", [
    ("ops", "from . import backend, tensor"), ("gan", "from . import __version__"), ("data.files", "from .. import backend"),
    ("data.files", "from .toy import TOYS"), ("backend", "def f():\n    import cupy"),
    ("plots", "def f():\n    from matplotlib.figure import Figure"), ("cli", "def f():\n    from . import commands"),
    ("plots", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from matplotlib.axes import Axes")])
def test_the_search_lets_the_rest_pass(module, line):
    assert list(trespasses(module, line)) == []


def test_the_core_is_reached_by_importing_the_package_and_nothing_else():
    tree = ast.parse(SOURCES["__init__"].read_text())
    assert {part(name) for name, outside, loading in imports("__init__", tree) if outside is None and loading} <= set(CORE)


# ---------------------------------------------------------------------------- data is data, randomness is explicit


def executes(source):
    """What could run a file's or a string's content, and what draws from a global generator."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] in EXECUTING)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in EXECUTING:
            yield node.module
        elif isinstance(node, ast.Name) and node.id in NAMES:
            yield node.id
        elif isinstance(node, ast.Attribute) and CALLS.fullmatch(ast.unparse(node)):
            yield ast.unparse(node)
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
            yield ast.unparse(node)
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("np.random", "numpy.random"):
            if node.attr not in ("default_rng", "Generator", "SeedSequence"):
                yield ast.unparse(node)


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_nothing_is_executed_as_data_and_no_generator_is_global(path):
    assert list(executes(path.read_text())) == []


@pytest.mark.parametrize("line", ["import pickle", "from pickle import loads", "x = eval('1')", "exec(text)",
                                  "np.load(f, allow_pickle=True)", "np.load(f, allow_pickle=flag)", "f = __import__('os')",
                                  "import marshal", "import subprocess", "from urllib.request import urlopen",
                                  "os.system('ls')", "os.popen('ls')", "os.execv(a, b)", "os.posix_spawn(a, b)",
                                  "builtins.eval(x)", "np.random.seed(0)", "x = np.random.normal(size=3)"])
def test_the_search_finds_what_executes(line):
    assert len(list(executes(line))) == 1
    assert not list(executes("np.load(f, allow_pickle=False); np.random.default_rng(0); re.compile('x'); os.replace(a, b)"))


def test_there_is_something_to_search():
    assert set(CORE) <= set(SOURCES) and len(list(DEMOS.glob("*.py"))) >= 3
