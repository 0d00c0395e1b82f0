"""A failed check as a script to paste: the function with all that it uses, the inputs, the call.

What is installed is imported; code of one's own is written out, and so are the numbers, containers
and arrays that it uses. What cannot be written, a trained model say, is named in a comment.
"""

from __future__ import annotations

import ast
import base64
import inspect
import symtable
import sys
import sysconfig
import textwrap
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from .. import backend
from ..tensor import Primitive, Tensor

FEW = 100  # arrays of more elements are written as compressed bytes
PACKAGE = __name__.partition(".")[0]
STANDARD = sysconfig.get_path("stdlib")


def reproduction(checker: Callable[..., Any], f: Callable[..., Any], inputs: Sequence[Any],
                 options: dict[str, Any]) -> str:
    """A script that calls ``checker(f, *inputs, **options)``; it may be pasted at a prompt too."""
    script = Script()
    names = {id(x): f"x{k}" for k, x in reversed(list(enumerate(inputs)))}
    for x in inputs:
        script.define(names[id(x)], x)
    arguments = [script.text(f, "f"), *(names[id(x)] for x in inputs),
                 *(f"{name}={script.text(x, name)}" for name, x in options.items())]
    call = f"{script.text(checker, 'checker')}({', '.join(arguments)})"
    return "\n".join([*sorted(script.imports), *script.lines, call])


class Script:
    """Lines that define names."""

    def __init__(self) -> None:
        self.imports: set[str] = set()
        self.lines: list[str] = []
        self.known: dict[str, Any] = {}  # what the names defined so far stand for
        self.written: set[int] = set()  # of the functions and classes written out

    def define(self, name: str, x: Any) -> None:
        """Add lines after which the name stands for x."""
        if self.is_new(name, x) and (text := self.text(x, name)) != name:
            self.lines.append(f"{name} = {text}")

    def is_new(self, name: str, x: Any) -> bool:
        """Whether a name is still to be defined; from now on it is not."""
        new = name not in self.known
        if self.known.setdefault(name, x) is not x:
            self.lines.append(f"# {name} stands for two things; rename one: {summary(x)}")
        return new

    def text(self, x: Any, name: str) -> str:
        """An expression for x, after lines for what it needs; ``name`` is what x is known as."""
        torch, jax = sys.modules.get("torch"), sys.modules.get("jax")
        if x is None or x is ... or type(x) in (bool, int, str, bytes):
            return repr(x)
        if type(x) is float:
            return self.numbers(x)
        if isinstance(x, ModuleType):
            self.imports.add(f"import {x.__name__} as {name}")
            return name
        if backend.is_array(x):
            return self.array(x, name)
        if isinstance(x, Tensor):
            return f"{self.text(Tensor, 'Tensor')}({self.text(x.data, name)})"
        if torch and isinstance(x, torch.Tensor):
            host = self.text(x.detach().cpu().numpy(), name)
            return f"{self.text(torch.from_numpy, 'from_numpy')}({host}).to({str(x.device)!r})"
        if jax and isinstance(x, jax.Array):
            double = f"jax.config.update('jax_enable_x64', {jax.config.jax_enable_x64})"
            self.imports |= {"import jax", double}
            return f"jax.numpy.asarray({self.text(np.array(x), name)})"
        if place := installed(x, name):
            module, _, path = place.partition(":")
            first = path.partition(".")[0]
            self.is_new(first, getattr(sys.modules[module], first))
            self.imports.add(f"from {module} import {first}")
            return path
        if type(x) in (tuple, list, dict, slice, partial):
            return self.container(x, name)
        if isinstance(x, np.dtype):
            return f"{self.text(np.dtype, 'dtype')}({x.str!r})"
        if isinstance(x, MethodType):
            return f"{self.text(x.__self__, name)}.{x.__name__}"
        if (node := syntax(inspect.unwrap(x))) is not None:
            return self.code(x, node)
        self.lines.append(f"# {name} is to be defined here: {summary(x)}")
        return name

    def numbers(self, x: Any) -> str:
        """A number, or a nested list of numbers."""
        if not np.isfinite(x).all():
            self.imports.add("from numpy import inf, nan")
        return repr(x)

    def container(self, x: Any, name: str) -> str:
        """A tuple, list, dict or slice, or the call of a partial."""
        def texts(items: Sequence[Any]) -> list[str]:
            return [self.text(item, f"{name}_{k}") for k, item in enumerate(items)]

        if isinstance(x, partial):
            by_name = [f"{key}={self.text(item, key)}" for key, item in x.keywords.items()]
            parts = [self.text(x.func, name), *texts(x.args), *by_name]
            return f"{self.text(partial, 'partial')}({', '.join(parts)})"
        if isinstance(x, slice):
            return f"slice({', '.join(texts((x.start, x.stop, x.step)))})"
        if isinstance(x, dict):
            pairs = zip(texts(list(x)), texts(list(x.values())))
            return "{" + ", ".join(map(": ".join, pairs)) + "}"
        inside = ", ".join(texts(x))
        return f"[{inside}]" if isinstance(x, list) else f"({inside}{',' * (len(x) == 1)})"

    def array(self, x: Any, name: str) -> str:
        """An array: its bits, its layout in memory, whether it may be written to, its device."""
        host, device = backend.to_numpy(x), backend.device_of(x)
        dtype = f"np.dtype({host.dtype.str!r})"
        self.imports.add("import numpy as np")
        if not host.size:
            values = f"np.zeros({host.shape}, {dtype})"
        elif host.size <= FEW and host.dtype.itemsize <= 8:
            numbers = f"np.array({self.numbers(host.tolist())}, {dtype})"
            values = "\n    ".join(textwrap.wrap(numbers, 92))
        else:
            self.imports |= {"import base64", "import zlib"}
            packed = base64.b64encode(zlib.compress(host.tobytes())).decode()
            pieces = "\n    ".join(map(repr, textwrap.wrap(packed, 92)))
            values = (f"np.frombuffer(bytearray(zlib.decompress(base64.b64decode(\n    {pieces}"
                      f"))), {dtype}).reshape({host.shape})")
        if device != "cpu":
            return f"{self.text(backend.to_device, 'to_device')}({values}, {device!r})"
        if isinstance(x, np.generic):
            return f"{values}[()]"
        if host.flags.c_contiguous and host.flags.writeable:
            return values
        if host.flags.c_contiguous:
            self.lines.append(f"{name} = {values}")
        else:
            ends = [(n - 1) * step for n, step in zip(host.shape, host.strides)]
            first = -sum(min(end, 0) for end in ends)
            length = first + sum(max(end, 0) for end in ends) + host.itemsize
            self.lines += [f"{name} = np.ndarray({host.shape}, {dtype}, bytearray({length}), "
                           f"{first}, {host.strides})", f"{name}[...] = {values}"]
        if not host.flags.writeable:
            self.lines.append(f"{name}.flags.writeable = False")
        return name

    def code(self, x: Any, node: Any) -> str:
        """A function or class of one's own, from its source."""
        inner = inspect.unwrap(x)
        if isinstance(node, ast.ClassDef):
            bases = [base for base in inner.__bases__ if base is not object]
            node.bases = [self.node(base, base.__name__) for base in bases]
        else:
            self.set_defaults(node.args, inner)
        if isinstance(node, ast.Lambda):
            self.define_used(node, inner)
            return f"({ast.unparse(node)})"
        if id(x) not in self.written:
            self.written.add(id(x))
            self.is_new(node.name, x)
            self.define_used(node, inner)
            self.lines += [*filter(str.strip, ast.unparse(node).splitlines()), ""]
            method, rules = rules_of(x)
            texts = [self.text(rule, f"{node.name}_rule_{k}") for k, rule in enumerate(rules)]
            if rules:
                self.lines.append(f"{node.name}.{method}({', '.join(texts)})")
        return node.name

    def set_defaults(self, parameters: ast.arguments, function: Any) -> None:
        """Write the values that the defaults have, in place of the expressions for them."""
        values, by_name = function.__defaults__ or (), function.__kwdefaults__ or {}
        parameters.defaults = [self.node(x, f"default_{k}") for k, x in enumerate(values)]
        parameters.kw_defaults = [self.node(by_name[p.arg], p.arg) if p.arg in by_name else None
                                  for p in parameters.kwonlyargs]

    def node(self, x: Any, name: str) -> ast.expr:
        """``text`` as a syntax tree."""
        return ast.parse(self.text(x, name), mode="eval").body

    def define_used(self, node: Any, inner: Any) -> None:
        """Define the names that a function or class uses and does not define."""
        values = sys.modules | surroundings(inner)
        for name in sorted(names_used(node) & set(values)):
            self.define(name, values[name])


def summary(x: Any) -> str:
    """The beginning of a repr, in one line."""
    return f"{' '.join(repr(x).split()):.60}"


def rules_of(x: Any) -> tuple[str, Sequence[Any]]:
    """The method that gave a function its derivative rules, and the rules."""
    jax = sys.modules.get("jax")
    if isinstance(x, Primitive):
        return "vjp", x.rules
    if jax and isinstance(x, jax.custom_vjp):
        return "defvjp", (x.fwd, x.bwd)
    if jax and isinstance(x, jax.custom_jvp):
        return "defjvp", (x.jvp,)
    return "", ()


def installed(x: Any, name: str) -> str:
    """"module:path" of what can be imported anywhere: from the standard library, an installed
    package or tinygan. "" for anything else."""
    inner = inspect.unwrap(x)
    own = getattr(inner, "__name__", name)
    parts = (getattr(inner, "__module__", None) or "").split(".")
    places = [(".".join(parts[:k + 1]), getattr(inner, "__qualname__", own))
              for k in range(len(parts))]
    places += [(module, own) for module in sorted(list(sys.modules), key=len)
               if vars(sys.modules[module]).get(own) is x]
    for module, path in places:
        value: Any = sys.modules.get(module)
        if value and is_installed(module):
            for part in path.split("."):
                value = getattr(value, part, None)
            if value is x:
                return f"{module}:{path}"
    return ""


def is_installed(module: str) -> bool:
    """Whether a module can be imported whatever the folder is."""
    file = getattr(sys.modules[module], "__file__", None) or STANDARD
    return module != "__main__" and (
        module.partition(".")[0] == PACKAGE or "site-packages" in file
        or "dist-packages" in file or file.startswith(STANDARD))


def syntax(x: Any) -> Any:
    """The definition of a function, lambda or class as a syntax tree, without docstrings and
    annotations; None if its source is not to be had."""
    try:
        node = definition(x)
    except (OSError, TypeError, SyntaxError):
        return None
    for part in ast.walk(node) if node else ():
        if isinstance(part, ast.arg):
            part.annotation = None
        if isinstance(part, ast.FunctionDef):
            part.returns = None
        if isinstance(part, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(part):
            part.body = part.body[1:] or [ast.Pass()]
    return node


def definition(x: Any) -> Any:
    """The syntax tree of a function, lambda or class. OSError, TypeError, SyntaxError or None."""
    source = inspect.getsource(x)
    indented = source[:1].isspace()
    if indented:
        source = "if True:\n" + source
    if isinstance(x, type) or x.__code__.co_name != "<lambda>":
        tree: Any = ast.parse(source)
        return tree.body[0].body[0] if indented else tree.body[0]
    lines, first = inspect.findsource(x)
    try:
        tree = ast.parse("".join(lines))
    except SyntaxError:  # a page with blocks of Python
        tree = ast.parse(source)
        ast.increment_lineno(tree, first - indented)
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Lambda)
             and node.lineno == x.__code__.co_firstlineno]
    if len(found) > 1:
        found = [node for node in found if position(node.body) in positions(x.__code__)]
    return found[0] if found else None


def position(node: Any) -> tuple[int, int, int, int]:
    """Lines and columns, first and last."""
    return node.lineno, node.end_lineno, node.col_offset, node.end_col_offset


def positions(code: Any) -> set[tuple[int, int, int, int]]:
    """Where the instructions of a code object stand; empty before Python 3.11."""
    return set(code.co_positions()) if hasattr(code, "co_positions") else set()


def surroundings(x: Any) -> dict[str, Any]:
    """What the names in a function or class stand for: its module's, and those it closes over."""
    members = vars(x).values() if isinstance(x, type) else [x]
    functions = [f for f in (getattr(m, "__func__", m) for m in members)
                 if isinstance(f, FunctionType)]
    values: dict[str, Any] = {}
    for f in functions:
        values |= f.__globals__
    for f in functions:
        values |= inspect.getclosurevars(f).nonlocals
    return values


def names_used(node: Any) -> set[str]:
    """The names that a definition uses and does not define itself."""
    tables = [symtable.symtable(ast.unparse(node), "", "exec")]
    for table in tables:
        tables += table.get_children()
    return {symbol.get_name() for table in tables for symbol in table.get_symbols()
            if symbol.is_global() and symbol.is_referenced()}
