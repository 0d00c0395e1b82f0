"""The shape of the house: imports point one way, nothing goes around them, data stay data."""

import ast
import re
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import tinygan
from tinygan import Tensor

PACKAGE = Path(tinygan.__file__).parent
DEMOS = PACKAGE.parent / "demos"
SOURCES = {".".join(p.relative_to(PACKAGE).with_suffix("").parts): p
           for p in sorted(PACKAGE.rglob("*.py"))}
FILES = [*SOURCES.values(), *sorted(DEMOS.glob("*.py"))]

# Files at the top and folders: each may import those before it, unless STANDS_ON says less.
ORDER = ["backend", "tensor", "ops", "conv", "backprop", "functional", "init", "layers", "losses",
         "optim", "program", "data", "metrics", "training", "testing", "app", "__main__"]
CORE = ORDER[:10]
STANDS_ON = {"losses": set(ORDER[:7]), "optim": {"backend", "tensor"},
             "program": {"backend", "tensor"}, "data": {"backend"}, "metrics": {"backend"},
             "testing": set(CORE)}
ROOMS = {  # the files of each folder, likewise
    "data": ["dataset", "toy", "files", "labels", "tables", "images", "sources"],
    "training": ["checkpoint", "distributed", "networks", "game", "likelihood", "methods",
                 "samples", "record", "run", "evaluation", "diagnosis", "estimator"],
    "testing": ["report", "ridders", "rounding", "problem", "slopes", "explain", "check", "orders",
                "adapters", "reproduction", "assertion", "samplers", "strategies", "compositions",
                "mutants", "certificate"],
    "app": ["process", "plots", "demo", "cli", "advice", "page", "progress", "folder", "report",
            "live", "commands"]}
LATE = {("app.cli", "app.commands"),  # loads what a command does when the command is given
        ("training.estimator", "app.report"), ("training.estimator", "app.plots"),  # GAN.plot
        ("training.estimator", "app.progress")}  # fit(verbose=True)
DOORS = {("__main__", "app.cli"), ("app.commands", "testing.certificate")}  # open when needed
OUTSIDE = {"cupy": {"backend"}, "threadpoolctl": {"app.process"},
           "matplotlib": {"app.plots", "data.images"}, "PIL": {"app.plots", "data.images"},
           "sklearn": {"data.images", "training.estimator"}, "hypothesis": {"testing.strategies"},
           "mpi4py": {"training.distributed"}, "torch": {"testing.adapters"},
           "jax": {"testing.adapters"}, "pandas": {"data.tables"}}
# (numpy and the standard library may be anywhere)


def part(module):
    """The row of ORDER that a module belongs to: "data.files" is part of "data"."""
    return module.split(".")[0]


# ----------------------------------------------------------------------------- imports


class Import(NamedTuple):
    """``from module import name``, or ``import module``; ``when`` is loading, late or typing."""

    module: str  # of tinygan: its path below the package, "" for the package itself
    name: str
    when: str
    outside: bool


def imports(module, tree):
    """Every Import of a file."""
    package = module.split(".")[:-1]  # for ``__init__`` too, which is a module of its folder here

    def walk(node, when):
        for child in ast.iter_child_nodes(node):
            now = when
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                now = "late"
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                now = "typing"
            if isinstance(child, ast.Import):
                yield from (Import(alias.name, "", now, True) for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and not child.level:
                yield Import(child.module, "", now, True)
            elif isinstance(child, ast.ImportFrom):
                base = [*package[:len(package) - child.level + 1], *(child.module or "").split(".")]
                yield from (Import(".".join(filter(None, base)), alias.name, now, False)
                            for alias in child.names)
            yield from walk(child, now)

    return list(walk(tree, "loading"))


def target(found):
    """The module that is imported from: ``from . import ops`` means ops, not the package."""
    below = ".".join(filter(None, [found.module, found.name]))
    return below if below in SOURCES or f"{below}.__init__" in SOURCES else found.module


def public(folder):
    """The names in ``__all__`` of a folder's ``__init__``."""
    for node in ast.parse(SOURCES[f"{folder}.__init__"].read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def upward(module, name):
    """Is a module not before another: in their folder's order, or in ORDER?"""
    mine, theirs, order = part(module), part(name), ORDER
    if mine == theirs:
        order, mine, theirs = ROOMS[mine], module.partition(".")[2], name.partition(".")[2]
    elif theirs not in STANDS_ON.get(mine, ORDER):
        return True
    return theirs not in order or order.index(theirs) >= order.index(mine)


def past_the_door(found):
    """Does an import from another folder take what its ``__init__`` does not name in __all__?"""
    folder = part(target(found))
    if folder not in ROOMS or found.module == "":  # a file, or ``from .. import data``
        return False
    return found.module != folder or found.name not in public(folder)


def trespass(module, found):
    """Is an import against the order of the house?"""
    name, neighbours = target(found), part(target(found)) == part(module)
    if found.outside:
        package = part(found.module)
        if package == "numpy" or package in sys.stdlib_module_names or found.when == "typing":
            return False
        loaded = found.when == "loading" and package != "hypothesis"
        return module not in OUTSIDE.get(package, ()) or loaded
    if module == "__init__" or name == "" or neighbours and module.endswith(".__init__"):
        return False  # a table of contents; ``__version__``
    if (module, name) in DOORS or (module, name) in LATE and found.when == "late":
        return False
    if neighbours:
        return upward(module, name) and found.when != "typing"
    return upward(module, name) or past_the_door(found)


def trespasses(module, source):
    return [found for found in imports(module, ast.parse(source)) if trespass(module, found)]


@pytest.mark.parametrize("module", SOURCES)
def test_imports_point_one_way_and_go_through_doors(module):
    assert part(module) in [*ORDER, "__init__"], "a new file has a place in ORDER"
    room = module.partition(".")[2]
    assert room in ["", "__init__", *ROOMS.get(part(module), [])], "and one in ROOMS"
    assert trespasses(module, SOURCES[module].read_text()) == []


@pytest.mark.parametrize("module, line", [
    ("tensor", "from . import ops"), ("tensor", "from .ops import add"),
    ("losses", "from . import layers"), ("optim", "from .layers import Dense"),
    ("program", "from .ops import add"), ("data.files", "from ..tensor import Tensor"),
    ("metrics", "from . import ops"), ("backprop", "from .functional import mean"),
    ("data.files", "from ..training import Run"),
    ("training.run", "from ..testing import gradcheck"),
    ("testing.check", "from ..program import Program"), ("testing.check", "from .. import metrics"),
    ("training.game", "from .run import Run"), ("training.game", "from . import run"),
    ("data.dataset", "def f():\n    from . import files"), ("data.toy", "from . import ring"),
    ("training.game", "from ..data.dataset import DataSet"),
    ("app.report", "from ..data.images import IMAGES"),
    ("app.report", "from ..training import METHODS, limits"),
    ("app.cli", "from . import commands"), ("app.cli", "from .commands import train"),
    ("ops", "import cupy"), ("layers", "def f():\n    import cupy"), ("backend", "import cupy"),
    ("app.plots", "import matplotlib.pyplot as plt"), ("optim", "import scipy"),
    ("training.run", "def f():\n    import matplotlib"), ("testing.check", "import hypothesis"),
    ("optim", "import tinygan"), ("optim", "from tinygan import ops")])
def test_the_search_finds_an_import_against_the_order(module, line):
    assert len(trespasses(module, line)) == 1


@pytest.mark.parametrize("module, line", [
    ("ops", "from . import backend, tensor"), ("training.estimator", "from .. import __version__"),
    ("data.files", "from .. import backend"), ("data.files", "from .toy import TOYS"),
    ("program", "from .tensor import Tensor"), ("training.game", "from ..data import DataSet"),
    ("training.game", "from .. import data, losses"),
    ("data.__init__", "from .files import points"),
    ("training.diagnosis", "from . import game"), ("app.report", "from ..training import Run"),
    ("training.game", "if TYPE_CHECKING:\n    from .run import Run"),
    ("__main__", "from .app.cli import main"), ("backend", "def f():\n    import cupy"),
    ("app.cli", "def f():\n    from . import commands"),
    ("testing.strategies", "import hypothesis"),
    ("app.plots", "def f():\n    from matplotlib.figure import Figure"),
    ("app.demo", "if TYPE_CHECKING:\n    from matplotlib.axes import Axes")])
def test_the_search_lets_the_rest_pass(module, line):
    assert trespasses(module, line) == []


def test_the_core_is_reached_by_importing_the_package_and_nothing_else():
    found = imports("__init__", ast.parse(SOURCES["__init__"].read_text()))
    loaded = {part(target(f)) for f in found if not f.outside and f.when == "loading"}
    assert loaded <= set(CORE)


# ------------------------------------------------------------------- ways around the imports

PRIVATE = {*Tensor.__slots__, "touch"}  # what nothing but a Tensor has
FRAMES = {"_getframe", "_current_frames", "currentframe", "f_back", "f_code", "f_globals",
          "f_locals", "tb_frame", "walk_stack", "walk_tb"}
PLACE = {"_getframe", "f_back", "f_code"}  # of the user's line in an error of ``program.py``
ABSENT = {"OutOfMemoryError"}  # CuPy's, which may not be there to be asked
CLASSES = {node.name for path in SOURCES.values() for node in ast.walk(ast.parse(path.read_text()))
           if isinstance(node, ast.ClassDef)}
GUESSED = PRIVATE | CLASSES


def strings(node):
    return {n.value for n in ast.walk(node)
            if isinstance(n, ast.Constant) and isinstance(n.value, str)}


def attribute_name(node):
    """The expression for the name in ``getattr(x, name)``, ``vars(x)[name]`` and the like."""
    if isinstance(node, ast.Subscript):
        return node.slice if re.search(r"vars\(.*\)$|__dict__$", ast.unparse(node.value)) else None
    function = ast.unparse(node.func).rpartition(".")[2] if isinstance(node, ast.Call) else ""
    if function in ("getattr", "setattr", "hasattr", "delattr"):
        return node.args[1]
    return node.args[0] if function in ("attrgetter", "methodcaller") else None


def detours(module, source):
    """Where a file gets at what it does not import, or guesses what it could be told.

    A variable may name an attribute, as where settings are copied field by field. A name that is
    put together may not, since no search finds it, nor one that only a Tensor or class of ours has.
    """
    for node in ast.walk(ast.parse(source)):
        text = ast.unparse(node) if isinstance(node, ast.expr) else ""
        name = attribute_name(node)
        if re.fullmatch(r"(\w+\.)*PRIMITIVES(\['\w+'\]|\.(get|pop)\('.*\))", text):
            yield text
        elif isinstance(node, ast.Attribute) and node.attr in FRAMES:
            if module != "program" or node.attr not in PLACE:
                yield text
        elif isinstance(name, (ast.JoinedStr, ast.BinOp, ast.Call)):
            yield text
        elif name is not None and part(module) not in CORE and strings(name) & GUESSED:
            yield text
        elif re.fullmatch(r"(globals|locals)\(\)|.*\.__subclasses__\(\)", text):
            yield text
        elif isinstance(node, ast.Compare) and re.search(r"\.__(qual)?name__\b", text):
            if strings(node) - ABSENT:
                yield text


@pytest.mark.parametrize("module", SOURCES)
def test_nothing_goes_around_the_imports(module):
    assert list(detours(module, SOURCES[module].read_text())) == []


@pytest.mark.parametrize("line", [
    "PRIMITIVES['sum_to'](g, shape)", "tensor.PRIMITIVES['add']", "PRIMITIVES.get('add')",
    "hasattr(x, '_data')", "hasattr(x, 'touch')", "getattr(x, '_serial', 0)",
    "attrgetter('_data')", "frame.f_locals['self']", "frame.f_globals",
    "traceback.walk_tb(tb)", "tb.tb_frame", "inspect.currentframe()",
    "setattr(Traced, f'__{name}__', read)", "getattr(self, 'loss_' + name)",
    "getattr(self, '{}_step'.format(name))", "getattr(self, name.lower())",
    "vars(self)[f'{name}_optimizer']", "self.__dict__['a' + name]", "methodcaller(f'{x}_step')",
    "type(x).__name__ == 'Tensor'", "type(x).__name__ in ('Adam', 'SGD')",
    "cls.__qualname__ != 'Game.draw'", "getattr(layers, 'Dense')", "globals()[kind]",
    "Module.__subclasses__()"])
def test_the_search_finds_a_way_around_the_imports(line):
    assert len(list(detours("training.run", line))) == 1


@pytest.mark.parametrize("module, line", [
    ("tensor", "PRIMITIVES[made.name] = made"), ("testing.mutants", "PRIMITIVES[name]"),
    ("program", "sys._getframe(1).f_back.f_code.co_filename"), ("program", "frame.f_lineno"),
    ("training.estimator", "setattr(self, name, value)"), ("app.cli", "getattr(options, f.name)"),
    ("ops", "getattr(x, 'dtype', None)"), ("ops", "hasattr(x, 'shape')"),
    ("program", "attrgetter('array')"), ("training.diagnosis", "del vars(layer)['forward']"),
    ("training.diagnosis", "traceback.extract_tb(error.__traceback__)"),
    ("app.cli", "type(error).__name__ == 'OutOfMemoryError'"),
    ("layers", "f'expected a layer, got {type(x).__name__}'"),
    ("app.cli", "type(x).__name__"), ("__main__", "__name__ == '__main__'"),
    ("layers", "unexpected('Dense', x)")])
def test_the_search_lets_its_neighbours_pass(module, line):
    assert list(detours(module, line)) == []


def test_the_frames_that_a_program_may_look_at_are_allowed_to_no_other_file():
    for name in PLACE:
        assert list(detours("training.diagnosis", f"frame.{name}"))
        assert not list(detours("program", f"frame.{name}"))


# ----------------------------------------------- data is data, randomness is explicit

EXECUTING = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib",
             "runpy", "code", "yaml", "subprocess", "multiprocessing", "imp", "pty", "socket",
             "urllib", "http", "ftplib", "requests"}
NAMES = {"eval", "exec", "compile", "__import__", "breakpoint"}  # they run what they are given
CALLS = re.compile(r"os\.(system|popen|exec|spawn|posix_spawn|fork|startfile)\w*"
                   rf"|_*builtins_*\.({'|'.join(NAMES)})")


# Starts tinygan itself, by a list of arguments, and serves one page that nothing can be sent to.
ALLOWED = ["subprocess", "http.server"]


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
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            if ast.unparse(node.value) != "False":
                yield ast.unparse(node)
        elif isinstance(node, ast.Attribute):
            if ast.unparse(node.value) in ("np.random", "numpy.random"):
                if node.attr not in ("default_rng", "Generator", "SeedSequence"):
                    yield ast.unparse(node)


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_nothing_is_executed_as_data_and_no_generator_is_global(path):
    allowed = ALLOWED if path == PACKAGE / "app/live.py" else []
    assert list(executes(path.read_text())) == allowed


@pytest.mark.parametrize("line", [
    "import pickle", "from pickle import loads", "x = eval('1')", "exec(text)",
    "np.load(f, allow_pickle=True)", "np.load(f, allow_pickle=flag)", "f = __import__('os')",
    "import marshal", "import subprocess", "from urllib.request import urlopen", "os.system('ls')",
    "os.popen('ls')", "os.execv(a, b)", "os.posix_spawn(a, b)", "builtins.eval(x)",
    "np.random.seed(0)", "x = np.random.normal(size=3)"])
def test_the_search_finds_what_executes(line):
    assert len(list(executes(line))) == 1


def test_the_search_lets_harmless_calls_pass():
    assert not list(executes("np.load(f, allow_pickle=False); np.random.default_rng(0); "
                             "re.compile('x'); os.replace(a, b)"))


def test_there_is_something_to_search():
    assert set(CORE) <= set(SOURCES) and len(list(DEMOS.glob("*.py"))) >= 3
    for folder, files in ROOMS.items():
        assert {f"{folder}.{file}" for file in files} <= set(SOURCES)
        assert public(folder) or folder == "app"  # the last room: nothing imports from it
