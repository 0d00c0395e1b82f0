"""README and docs are true: their Python runs, sessions print what they show, quotations match.

A fenced block marked ``python`` is run (with ``gpu`` only where there is one, with ``torch`` or
``jax`` where that is installed, with ``network`` never), one of ``>>>`` lines is run and its output
compared, and ``py FILE`` quotes a file of the repository. The blocks of a page run in order, in one
namespace and in a folder of their own.
"""

import doctest
import re
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

from tinygan import PRIMITIVES

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^(?P<fence>`{3,})(?P<info>[^`\n]*)\n(?P<body>.*?)^(?P=fence)$",
                   re.MULTILINE | re.DOTALL)
LINK = re.compile(r"""
    \] \( (?P<target> [^)#\s]* ) (?: \#[^)\s]* )? \)  # [text](target#heading)
    | <img [^>]* \ src="(?P<image> [^"]+ )"
    """, re.VERBOSE)
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class Block(NamedTuple):
    """A fenced block of a page."""

    page: Path
    line: int  # the number of its first line, from 1
    info: list[str]  # the words after the fence
    body: str

    @property
    def place(self):
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def runs(self):
        return bool({"python", "pycon"} & set(self.info[:1]))

    @property
    def special(self):
        return set(self.info) & set(MARKS)


def blocks_of(page):
    text = page.read_text(encoding="utf-8")
    return [Block(page, text.count("\n", 0, m.start()) + 2, m["info"].split(), m["body"])
            for m in FENCE.finditer(text)]


def run_block(block, namespace):
    """Run a block, comparing a session with its output; errors name the page's own lines."""
    if ">>>" in block.body:
        test = doctest.DocTestParser().get_doctest(
            block.body, namespace, block.place, str(block.page), block.line - 1)
        runner, report = doctest.DocTestRunner(optionflags=OPTIONS), []
        result = runner.run(test, out=report.append, clear_globs=False)
        assert result.attempted and not result.failed, "".join(report)
        namespace.update(test.globs)
    else:
        exec(compile("\n" * (block.line - 1) + block.body, str(block.page), "exec"), namespace)


MARKS = {"gpu": pytest.mark.gpu, "network": pytest.mark.skip(reason="needs a network")}
for library in ("torch", "jax"):
    MARKS[library] = pytest.mark.skipif(not find_spec(library), reason=f"needs {library}")
BLOCKS = [block for page in PAGES for block in blocks_of(page)]
PLAIN = [page for page in PAGES if any(b.runs and not b.special for b in blocks_of(page))]
MARKED = [pytest.param(block, id=block.place, marks=[MARKS[word] for word in block.special])
          for block in BLOCKS if block.runs and block.special]
QUOTATIONS = [pytest.param(block, id=block.place) for block in BLOCKS if block.info[:1] == ["py"]]


@pytest.fixture
def namespace(tmp_path, monkeypatch):
    """A fresh one, in an empty folder, without windows; primitives a page registers go again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    known = dict(PRIMITIVES)
    yield {"__name__": "__main__"}
    PRIMITIVES.clear()
    PRIMITIVES.update(known)


@pytest.mark.parametrize("page", PLAIN, ids=lambda page: page.name)
def test_the_python_of_a_page_runs_as_shown(page, namespace):
    for block in blocks_of(page):
        if block.runs and not block.special:
            run_block(block, namespace)


@pytest.mark.parametrize("block", MARKED)
def test_a_block_that_needs_more_than_a_cpu_runs_where_it_can(block, namespace):
    for earlier in blocks_of(block.page):
        if earlier.runs and earlier.line < block.line and not earlier.special:
            run_block(earlier, namespace)
    run_block(block, namespace)


@pytest.mark.parametrize("block", QUOTATIONS)
def test_a_quotation_is_the_source(block):
    """Whole lines in a row, whatever the indentation; a line of dots stands for an omission."""
    def plain(text):
        return [line.strip() for line in text.splitlines() if line.strip()]

    source = plain((ROOT / block.info[1]).read_text(encoding="utf-8"))
    pieces = [[]]
    for line in plain(block.body):
        if line in ("...", "# ..."):
            pieces.append([])
        else:
            pieces[-1].append(line)
    for piece in filter(None, pieces):
        found = any(source[i:i + len(piece)] == piece for i in range(len(source)))
        assert found, f"not in {block.info[1]}: {piece}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_links_of_a_page_lead_somewhere(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    targets = [m["target"] or m["image"] for m in LINK.finditer(text)]
    broken = [t for t in targets if t and "://" not in t and not (page.parent / t).exists()]
    assert broken == []


def page_with(body, folder):
    page = folder / "page.md"
    page.write_text(body)
    return [Block(ROOT / "page.md", b.line, b.info, b.body) for b in blocks_of(page)]


def test_what_is_wrong_on_a_page_is_found(tmp_path, namespace):
    """The tests above can fail: a false assertion, a wrong output, an invented line."""
    wrong, session, right = page_with(
        "a\n```python\nassert 1 == 2\n```\n```pycon\n>>> 1 + 1\n3\n```\n"
        "```pycon\n>>> x = 2\n>>> x\n2\n```\n", tmp_path)
    with pytest.raises(AssertionError):
        run_block(wrong, namespace)
    with pytest.raises(AssertionError, match=r"Expected:\s+3\s+Got:\s+2"):
        run_block(session, namespace)
    run_block(right, namespace)
    assert namespace["x"] == 2 and wrong.line == 3
    invented = Block(ROOT / "page.md", 1, ["py", "tinygan/ops.py"], "return np.nonsense(x)\n")
    with pytest.raises(AssertionError, match="not in tinygan/ops.py"):
        test_a_quotation_is_the_source(invented)


def test_no_fence_is_left_open_or_without_a_kind():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"^```", FENCE.sub("", text), re.MULTILINE), page.name
    assert [block.place for block in BLOCKS if not block.info] == []
    assert [block.place for block in BLOCKS if ">>>" in block.body and not block.runs] == []
