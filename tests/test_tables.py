"""Tables: names, whole numbers and constants come back; columns are chosen; text is refused."""

import builtins
import csv
import io
import json
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinygan import GAN, data, metrics
from tinygan.app import page
from tinygan.app.cli import main
from tinygan.data import DataError
from tinygan.testing import assert_gradients
from tinygan.training import METHODS, checkpoint, evaluation, networks, samples

SMALL = dict(steps=2, batch=8, width=8, depth=1, n_critic=1)
RNG = np.random.default_rng(0)
TABLE = np.column_stack([RNG.normal(1.7e9, 0.01, 40), RNG.integers(0, 9, 40), np.full(40, 0.1),
                         RNG.normal(0, 1e-5, 40)])
NAMES = ["time", "rooms", "rate", "größe, in m"]


def write(path, names, rows=TABLE, ending="\n", encoding="utf-8", quoting=csv.QUOTE_MINIMAL):
    """A table as a file, by Python's own writer; ``quoting`` is that of its header."""
    with open(path, "w", encoding=encoding, newline="") as file:
        csv.writer(file, lineterminator=ending, quoting=quoting).writerow(names)
        csv.writer(file, lineterminator=ending).writerows(np.asarray(rows).tolist())
    return str(path)


def written(x, columns):
    """The text that is written for samples."""
    file = io.BytesIO()
    data.write_table(file, x, columns)
    return file.getvalue().decode()


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A function that trains on a file for two steps, samples, and gives (header, columns)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tinygan.app.report.write_pictures", lambda *arguments: None)
    monkeypatch.setattr("tinygan.app.report.try_report", lambda *arguments: None)
    small = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]

    def trained(path, *options, sample=()):
        assert main(["train", path, *small, "--out", "run", *options]) == 0
        assert main(["sample", "run", "-n", "50", "-o", "new.csv", *sample]) == 0
        names, *rows = csv.reader(open("new.csv", encoding="utf-8", newline=""))
        return names, list(zip(*rows))

    return trained


# ------------------------------------------------------------------------------ what comes back


def test_a_table_comes_back_with_its_header_whole_numbers_constants_and_digits(run, tmp_path):
    names, (time, rooms, rate, size) = run(write(tmp_path / "t.csv", NAMES))
    assert names == NAMES
    assert len(set(time)) > 40, "all digits, not 1.7e9 again and again"
    assert all(word.lstrip("-").isdigit() for word in rooms) and set(rate) == {"0.1"}
    made = GAN.load("run/checkpoint.npz").sample(50)
    assert [[float(x) for x in column] for column in (time, rooms, rate, size)] == made.T.tolist()


def test_what_was_sampled_can_be_trained_on_and_sampled_again(run, tmp_path):
    run(write(tmp_path / "t.csv", NAMES))
    again = data.load("new.csv")
    assert again.table.names == tuple(NAMES) and again.table.whole.tolist() == [0, 1, 0, 0]
    assert again.table.low[2] == again.table.high[2] == 0.1


def test_bounded_samples_stay_within_the_training_part(run, tmp_path, capsys):
    x = np.column_stack([RNG.exponential(1, 300), RNG.integers(0, 2, 300)])
    path = write(tmp_path / "t.csv", ["a", "b"], x)
    _, (a, b) = run(path, sample=["--bounded"])
    assert "within the range of the training data" in capsys.readouterr().out
    seen = x[data.load(path).split["train"]]
    assert seen[:, 0].min() <= min(map(float, a)) and max(map(float, a)) <= seen[:, 0].max()
    assert set(b) <= {"0", "1"}
    gan = GAN.load("run/checkpoint.npz")
    free, kept = gan.sample(3000), gan.sample(3000, bounded=True)
    assert free[:, 0].min() < seen[:, 0].min(), "untrained samples go beyond it"
    np.testing.assert_array_equal(kept, np.clip(free, seen.min(axis=0), seen.max(axis=0)))


def test_what_has_no_columns_has_no_bounds(tmp_path, monkeypatch, capsys):
    for X in ("ring", RNG.integers(0, 255, (30, 8, 8)).astype(np.uint8)):
        gan = GAN(**SMALL).fit(X)
        for option in ("bounded", "as_frame"):
            with pytest.raises(ValueError, match="not for images, toy data or files of earlier"):
                gan.sample(3, **{option: True})
    monkeypatch.chdir(tmp_path)
    gan.save("images.npz")
    assert main(["sample", "images.npz", "-o", "x.npy", "--bounded"]) == 2
    assert "leave them out" in capsys.readouterr().err


def test_a_file_of_an_earlier_version_loads_and_samples_without_a_header(run, tmp_path):
    run(write(tmp_path / "t.csv", NAMES))
    header, arrays = checkpoint.load("run/checkpoint.npz")
    before = GAN.load("run/checkpoint.npz").sample(9)
    del header["data"]["columns"], header["sha256"]
    for name in ("names", "whole", "low", "high"):
        del arrays[f"data/{name}"]
    checkpoint.save("old.npz", header, arrays)
    made = GAN.load("old.npz").sample(9)
    np.testing.assert_array_equal(made[:, [0, 3]], before[:, [0, 3]])
    assert main(["sample", "old.npz", "-n", "9", "-o", "old.csv"]) == 0
    np.testing.assert_array_equal(np.loadtxt("old.csv", delimiter=","), made)
    assert GAN.load("old.npz", X=str(tmp_path / "t.csv")).data_.table.names == tuple(NAMES)


HOSTILE = {
    "duplicates": ["a", "a", "a", "a"], "unicode": ["größe", "長さ", "🙂", "\u202e"],
    "commas": ["a,b", 'say "so"', "a;b", "tab\there"], "lines": ["a\nb", "c\r\nd", "e\rf", "g"],
    "numbers": ["2019", "2020", "2021", "2022"], "some numbers": ["name", "2020", "nan", "-inf"],
    "empty": ["a", "", "", "d"], "first empty": ["", "b", "c", "d"],
    "first lines": ["1\n2", "3", "4", "5"], "spaces": [" a", "b ", " c ", "d"],
    "formulas": ["=1+1", "# b", "../c", "'"], "long": ["x" * 1000, "y" * 70_000, "z", "w"]}


@pytest.mark.parametrize("names", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("ending, encoding", [("\n", "utf-8"), ("\r\n", "utf-8-sig")])
def test_every_name_comes_back(tmp_path, names, ending, encoding):
    path = write(tmp_path / "t.csv", names, TABLE, ending, encoding, csv.QUOTE_ALL)
    found = data.load(path)
    assert found.dim == 4 and found.table.names == tuple(names)
    (tmp_path / "new.csv").write_text(written(TABLE, found.table), "utf-8", newline="")
    again = data.load(tmp_path / "new.csv")
    assert again.table.names == tuple(names)
    for part in found.split:
        np.testing.assert_array_equal(again.part(part, 99, RNG), found.part(part, 99, RNG))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
                        max_size=5), min_size=1, max_size=4))
@example(["", "x"])
def test_any_names_come_back(names):
    x = np.arange(3.0 * len(names)).reshape(3, -1) + 0.5
    text = io.StringIO(written(x, data.points(x, names=names).table), newline="")
    header, *rows = csv.reader(text)
    assert header == names and np.array_equal(np.array(rows, float), x)


@pytest.mark.parametrize("name, line", [
    ("a header of nothing", '""\n'), ("of nothings", '"",""\n'), ("blank lines", "\n \n")])
def test_a_header_without_names_costs_no_row(tmp_path, name, line):
    columns = max(line.count('"') // 2, 1)
    rows = "\n".join(",".join(map(str, row)) for row in np.arange(2.0 * columns).reshape(2, -1))
    (tmp_path / "t.csv").write_text(line + rows)
    found = data.load(tmp_path / "t.csv")
    assert found.dim == columns and len(found.split["train"]) == 2


@pytest.mark.parametrize("values", [
    [-0.0, 0.0, 1.0], [1e300, 2e300, -1e300], [2.0**53, 2.0**60, 0.0], [5e-324, 0.0, 1e-320],
    [1e17, 123456789012345680.0, 3.0], [1.7e9 + 1e-6, 1.7e9, 1.7e9 - 1e-6], [-1.0, -2.0, -3.0]])
def test_numbers_of_every_size_are_written_with_all_their_digits(values):
    x = np.array(values)[:, None]
    table = data.points(x).table
    text = written(table.rows(x), table)
    assert np.array_equal(np.loadtxt(io.StringIO(text)), x[:, 0]) and "-0\n" not in text
    whole = "." not in text and "e" not in text
    assert whole == (np.equal(np.mod(x, 1), 0).all() and np.abs(x).max() < 2**53)


def test_samples_of_a_whole_column_are_rounded_not_cut_off():
    table = data.points(np.array([[1.0, 7.0], [5.0, 7.0]])).table
    made = table.rows(np.array([[2.6, 6.9], [-0.4, 7.2], [-2.5, 7.0]]))
    assert made.tolist() == [[3, 7], [0, 7], [-2, 7]] and not np.signbit(made[1, 0])
    assert table.rows(np.array([[-2.5, 7.0], [9.0, 7.0]]), True).tolist() == [[1, 7], [5, 7]]


def test_a_thousand_columns_keep_their_names(tmp_path):
    names = [f"column number {k} has a name that is long, as sensors' are" for k in range(1000)]
    x = RNG.normal(size=(30, 1000))
    gan = GAN(**SMALL).fit(write(tmp_path / "t.csv", names, x))
    gan.save(tmp_path / "g.npz")
    assert GAN.load(tmp_path / "g.npz").data_.table.names == tuple(names)
    wide = data.points(np.zeros((2, 20_000)), names=["x" * 100] * 20_000)  # 2 MB of names
    assert len(written(np.zeros((1, 20_000)), wide.table)) > 2_000_000


# -------------------------------------------------------------------------------------- choosing


FLOWERS = ('"id","when","kind","width","2","width 3"\n' + "".join(
    f"{k},2024-01-{k % 28 + 1:02},{'ab'[k % 2]}{k % 3},{k / 7},{k * k},{-k}\n" for k in range(40)))


@pytest.mark.parametrize("asked, names", [
    ("width", ["width"]), ("width,id", ["width", "id"]), ("2", ["2"]), ("4,1", ["width", "id"]),
    ("4-6", ["width", "2", "width 3"]), (" width , 6", ["width", "width 3"]),
    ('"width"', ["width"]), ("1-1", ["id"])])
def test_columns_are_chosen_by_name_or_number_or_range(tmp_path, asked, names):
    (tmp_path / "t.csv").write_text(FLOWERS)
    found = data.load(tmp_path / "t.csv", columns=asked)
    assert found.table.names == tuple(names) and found.reading == f"{len(names)} of 6 columns"
    text = list(csv.reader(FLOWERS.splitlines()))
    right = np.array([[row[text[0].index(name)] for name in names] for row in text[1:]], float)
    rows = found.to_data_units(found.at(np.arange(40)))
    np.testing.assert_allclose(rows, right, atol=1e-4)


@pytest.mark.parametrize("asked, says", [
    ("height", "no column 'height'; choose by name or from 1 to 6: id, when, kind, width, 2, wid"),
    ("0", "no column '0'"), ("7", "no column '7'"), ("4-7", "no column '4-7'"), ("6-4", "'6-4'"),
    ("-1", "no column '-1'"), ("9" * 5000, "no column '999"), ("4,4", "names a column twice"),
    ("width,4-5", "a column twice"), ("width,", "no column ''"), ("", "names no column"),
    ("٤", "no column"), ("when", "line 2, column 2: '2024-01-01' is not a finite number"),
    ("id,when", "does 'when' hold categories; leave out such columns: --columns 1$")])
def test_a_choice_that_is_none_is_refused(tmp_path, asked, says):
    (tmp_path / "t.csv").write_text(FLOWERS)
    with pytest.raises(DataError, match=says) as caught:
        data.load(tmp_path / "t.csv", columns=asked)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < len(str(tmp_path)) + 250


def test_columns_of_one_name_are_chosen_by_number(tmp_path):
    path = write(tmp_path / "t.csv", ["a", "b", " a", "c"])
    with pytest.raises(DataError, match="2 columns are called 'a'; choose by number, counted fr"):
        data.load(path, columns="a")
    assert data.load(path, columns="3,2").table.names == (" a", "b")


def test_a_table_without_a_header_is_chosen_from_by_numbers(tmp_path):
    np.savetxt(tmp_path / "t.csv", TABLE, delimiter=",")
    found = data.load(tmp_path / "t.csv", columns="2-3")
    assert found.table.names is None and found.table.whole.tolist() == [True, False]
    assert written(TABLE[:1, 1:3], found.table).count("\n") == 1  # no header
    with pytest.raises(DataError, match="no column 'a'; choose by name or from 1 to 4$"):
        data.load(tmp_path / "t.csv", columns="a")


@pytest.mark.parametrize("source", ["ring", "x.npy", "folder", "t.csv/"])
def test_only_tables_have_columns_to_choose(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", TABLE)
    (tmp_path / "folder").mkdir()
    (tmp_path / "t.csv").mkdir()
    with pytest.raises(DataError, match="--columns is for tables"):
        data.load(source, columns="1")


def test_text_is_refused_by_name_with_the_choice_that_leaves_it_out(tmp_path):
    (tmp_path / "t.csv").write_text(FLOWERS)
    with pytest.raises(DataError, match="column 2: '2024-01-01' is not a finite number, nor does "
                       "'when' hold categories; leave out such columns: --columns 3-6$"):
        data.load(tmp_path / "t.csv")
    assert data.load(tmp_path / "t.csv", columns="3-6").dim == 3 + 6
    lines = FLOWERS.splitlines()[1:]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    with pytest.raises(DataError, match="column 2 hold categories; .* --columns 1,3-6$"):
        data.load(tmp_path / "t.csv")
    lines[9] = lines[9].replace("2024-01-10", "7")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    with pytest.raises(DataError, match="line 1, column 2: '2024-01-01' is not a finite number; f"):
        data.load(tmp_path / "t.csv")


def test_many_text_columns_make_no_long_message(tmp_path):
    names = [f"a rather long name of a column, {k}" for k in range(1000)]
    lines = [",".join(f"{line}" + "x" * 99 if k % 2 else "1" for k in range(1000))
             for line in range(3)]
    header = io.StringIO()
    csv.writer(header).writerow(names)
    (tmp_path / "t.csv").write_text(header.getvalue() + "\n".join(lines))
    with pytest.raises(DataError, match="and 498 more hold .*: --columns NAMES") as caught:
        data.load(tmp_path / "t.csv")
    assert len(str(caught.value)) < len(str(tmp_path)) + 260


@pytest.mark.parametrize("words", [
    [f"text {k}" for k in range(40)], [f"2024-01-{k // 2 + 1:02}" for k in range(39)] + ["x"],
    ["1,5", "2,5"] * 20, ["1.234,5", "7"] * 20, ["1,000"] * 40, [f"{k % 65}x" for k in range(400)]])
def test_text_that_is_no_category_is_refused(tmp_path, words):
    rows = [[word, k] for k, word in enumerate(words)]
    with open(tmp_path / "t.csv", "w") as file:
        csv.writer(file).writerows([["a", "b"], *rows])
    with pytest.raises(DataError, match="nor does 'a' hold categories; leave|number; fill"):
        data.load(tmp_path / "t.csv")


@pytest.mark.parametrize("cell, says", [
    ("", "line 12, column 1: is empty; .* such lines: 'a' lacks 3 of 20 values"),
    ("nan", "line 12, column 1: 'nan' in a column of text .line 2 has 'b'.; .*: 'a' lacks 3 of 20"),
    ("7", "line 2, column 1: 'b' is not a finite number; fill or remove such lines [(]")])
def test_a_hole_in_a_column_of_text_is_refused(tmp_path, cell, says):
    rows = [f"{'bc'[k % 2]},{k}" for k in range(20)]
    for k in (10, 11, 19):
        rows[k] = f" {cell},3"
    (tmp_path / "t.csv").write_text("a,b\n" + "\n".join(rows))
    with pytest.raises(DataError, match=says):
        data.load(tmp_path / "t.csv")


@pytest.mark.parametrize("words, lacks", [
    (["", "b", "c"] * 10, 10), (["nan", "b", "", "c"] * 10, 20), (["b", "c", "c", ""] * 10, 10),
    (["b"] * 29 + [" NaN "], 1), (["1.5", "2", ""] * 10, 10), (["", "nan", "2"] * 10, 20),
    (["1", "?", "2"] * 10, 10), (["1", "2", "inf"] * 10, 10)])
def test_the_first_hole_its_column_and_how_many_there_are_is_said_of_files_and_frames(
        tmp_path, words, lacks):
    """The same of a label. A frame has None, NaN or NA where a file has nothing or a word."""
    holes = [word.strip() in ("", "nan", "NaN", "?", "inf") for word in words]
    n, first, number = len(words), holes.index(True), "2" in words
    lines = ["x,größe", *(f"{k % 7},{word}" for k, word in enumerate(words))]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    says = f"'größe' lacks {lacks} of {n} values"
    missing = f"column 'größe': {lacks} of {n} labels are missing, the first in row {first} .*0."
    with pytest.raises(DataError, match=f"line {first + 2}, column 2: .* such lines: {says} "):
        data.load(tmp_path / "t.csv")
    if "?" in words:
        return
    with pytest.raises(DataError, match=f"t.csv: {missing}, line {first + 2}; fill them"):
        data.load(tmp_path / "t.csv", label="größe", conditional=True)
    for hole in (None, math.nan, None if number else " "):
        cells = [[k % 7, hole if lacking else float(word) if number else word]
                 for k, (word, lacking) in enumerate(zip(words, holes))]
        frame = Frame(["x", "größe"], np.array(cells, object))
        with pytest.raises(DataError, match=f"row {first}, column 1 .* is (nan|' '); .*: {says}$"):
            GAN(**SMALL).fit(frame)
        with pytest.raises(DataError, match=f"^y: {missing}; fill them"):
            GAN(**SMALL, conditional=True).fit(TABLE[:n], Column(frame.array[:, 1], "größe"))


def test_numbers_that_a_frame_lacks_are_named():
    x = TABLE.copy()
    x[[5, 7], 3] = np.nan
    x[9, 0] = np.inf
    for frame, says in ((Frame(NAMES, x), "'größe, in m'"), (x, "column 3")):
        with pytest.raises(DataError, match=f"row 5, column 3 .* is nan; .*: {says} lacks 2 of 40"):
            GAN(**SMALL).fit(frame)


def test_a_frame_that_counts_its_rows_is_told_so(recwarn):
    x = np.column_stack([np.arange(40), TABLE])
    assert GAN(**SMALL).fit(Frame(["Unnamed: 0", *NAMES], x)).sample(2).shape == (2, 5)
    (warning,) = recwarn
    assert "column 0 (counted from 0), 'Unnamed: 0', only counts the rows" in str(warning.message)
    assert warning.filename == __file__
    GAN(**SMALL).fit(Frame(["time 0", *NAMES], x)), GAN(**SMALL).fit(x)
    assert len(recwarn) == 1


@pytest.mark.parametrize("cell", ["nan", "inf", "", "1e999", "NaN"])
def test_cells_without_a_finite_number_are_refused_unless_not_chosen(tmp_path, cell):
    (tmp_path / "t.csv").write_text(f"a,b\n1,2\n{cell},3\n4,5\n")
    with pytest.raises(DataError, match="line 3, column 1"):
        data.load(tmp_path / "t.csv")
    assert data.load(tmp_path / "t.csv", columns="b").dim == 1


def test_the_header_of_a_run_says_what_was_chosen_and_resuming_keeps_it(run, tmp_path, capsys):
    (tmp_path / "t.csv").write_text(FLOWERS)
    names, _ = run("t.csv", "--columns", "width,2")
    assert names == ["width", "2"] and "2 of 6 columns" in capsys.readouterr().out.splitlines()[0]
    assert main(["train", "--resume", "run", "--steps", "4"]) == 0
    assert main(["evaluate", "run"]) == 0
    assert main(["train", "--resume", "run", "--columns", "id"]) == 2
    assert "--columns cannot change" in capsys.readouterr().err
    header, _ = checkpoint.load("run/checkpoint.npz")
    assert header["data"]["columns"] == "width,2"
    assert "--columns width,2" in page.command(GAN.load("run/checkpoint.npz"))


# ------------------------------------------------------------------------------------ DataFrames


class Column(np.ndarray):
    """What a GAN sees of a pandas Series."""

    def __new__(cls, values, name):
        made = np.asarray(values).view(cls)
        made.name = name
        return made


class Frame:
    """What a GAN sees of a DataFrame."""

    def __init__(self, columns, array=TABLE):
        self.columns, self.array = columns, array

    def __array__(self, dtype=None, copy=None):
        return np.array(self.array, dtype)


class FakeFrame:
    """What ``sample`` asks of pandas."""

    columns = None

    def __init__(self, columns):
        assert list(columns) == list(range(len(columns)))

    def set_axis(self, names, axis):
        self.columns = names
        return self


@pytest.mark.parametrize("columns, names", [
    (NAMES, NAMES), (range(4), None), ([2019, 2020, 2021, 2022], [2019, 2020, 2021, 2022]),
    (list(np.arange(1, 5)), [1, 2, 3, 4]), ([("a", 1), ("a", 2), ("b", 1), ("b", 2)],
                                            ["('a', 1)", "('a', 2)", "('b', 1)", "('b', 2)"])])
def test_a_frame_keeps_its_names_through_a_file(tmp_path, columns, names):
    gan = GAN(**SMALL).fit(Frame(columns))
    gan.save(tmp_path / "g.npz")
    for trained in (gan, GAN.load(tmp_path / "g.npz")):
        table = trained.data_.table
        assert table.names == (names and tuple(names)) and table.whole.tolist() == [0, 1, 0, 0]
    assert main(["sample", str(tmp_path / "g.npz"), "-n", "5", "-o", str(tmp_path / "x.csv")]) == 0
    again = data.load(tmp_path / "x.csv").table.names
    assert again == (names and tuple(map(str, names)))


@pytest.mark.parametrize("named", [("x", "sort", "b"), ("x", " sort ", "b"), ("x", "2", "b"),
                                   ("x", "a, b", "b"), ("x", "", "b"), ("b", "b", "b"), None])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_a_column_of_labels_keeps_its_name_however_it_was_chosen(tmp_path, monkeypatch, named, bom):
    text = io.StringIO(newline="")
    if named:
        csv.writer(text, quoting=csv.QUOTE_ALL).writerow(named)
    csv.writer(text).writerows([k % 7, "uvw"[k % 3], k % 5] for k in range(40))
    (tmp_path / "t.csv").write_bytes(bom + text.getvalue().encode())
    fakes = SimpleNamespace(DataFrame=FakeFrame, Series=lambda values, name: Column(values, name))
    monkeypatch.setitem(sys.modules, "pandas", fakes)
    monkeypatch.chdir(tmp_path)
    by_name = [named[1], named[1].strip()] if named and named[1] not in ("", "b") else []
    for label in ["2", *by_name]:
        gan = GAN(**SMALL, conditional=True)
        gan.prepare(str(tmp_path / "t.csv"), label=label)
        gan.save("g.npz")
        for made in (gan, GAN.load("g.npz")):
            frame, labels = made.sample(9, as_frame=True, return_labels=True)
            assert labels.name == (named and named[1]) and set(labels) <= set("uvw")
            assert frame.columns == (named and ["x" if named[0] == "x" else "b", "b"])
        assert main(["sample", "g.npz", "-n", "9", "-o", "new.csv"]) == 0
        rows = list(csv.reader(open("new.csv", encoding="utf-8", newline="")))
        assert [row[2] for row in rows[-9:]] == labels.tolist() and len(rows) == 9 + bool(named)
        assert not named or rows[0] == [named[0], named[2], named[1]]
        again = data.load("new.csv", label="3", conditional=True)
        assert again.table.label == (named and named[1]) and again.dim == 2


def test_labels_that_are_a_column_of_a_frame_come_back_under_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    y = np.array(list("uvwx") * 10)
    for labels, name in ((Column(y, "sort"), "sort"), (Frame([2020], y[:, None]), 2020),
                         (Column(y, np.int64(7)), 7), (y, None), (Column(y, None), None),
                         (Column(y, ("a", 1)), "('a', 1)")):
        gan = GAN(**SMALL, conditional=True).fit(Frame(NAMES), labels)
        gan.save("g.npz")
        assert gan.data_.table.label == GAN.load("g.npz").data_.table.label == name
        assert main(["sample", "g.npz", "-n", "9", "-o", "new.csv"]) == 0
        header = next(csv.reader(open("new.csv", encoding="utf-8", newline="")))
        assert header == [*NAMES, str(name or "label")]


def test_files_of_earlier_versions_keep_the_name_that_was_asked_for(tmp_path):
    (tmp_path / "t.csv").write_text("x,sort\n" + "\n".join(f"{k},{'uv'[k % 2]}" for k in range(40)))
    for label, name in (("sort", "sort"), ("2", None)):
        gan = GAN(**SMALL, conditional=True)
        gan.prepare(str(tmp_path / "t.csv"), label=label)
        gan.save(tmp_path / "g.npz")
        header, arrays = checkpoint.load(tmp_path / "g.npz")
        del header["sha256"], arrays["data/label"]
        checkpoint.save(tmp_path / "old.npz", header, arrays)
        assert GAN.load(tmp_path / "old.npz").data_.table.label == name
    arrays["data/label"] = np.frombuffer(b"[1]", np.uint8)
    checkpoint.save(tmp_path / "bad.npz", header, arrays)
    with pytest.raises(checkpoint.CheckpointError, match="name of its labels"):
        GAN.load(tmp_path / "bad.npz")


def test_without_pandas_a_frame_is_refused_in_one_line(monkeypatch):
    true_import = builtins.__import__

    def without(name, *rest):
        if name == "pandas":
            raise ImportError(name)
        return true_import(name, *rest)

    gan = GAN(**SMALL).fit(TABLE)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match="pandas, which is not installed: pip install pandas"):
        gan.sample(3, as_frame=True)


def test_a_pandas_frame_comes_back_as_one(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(TABLE, columns=NAMES).astype({"rooms": int})
    gan = GAN(**SMALL).fit(frame)
    made = gan.sample(7, as_frame=True)
    assert list(made.columns) == NAMES == list(gan.feature_names_in_)
    assert made.dtypes.tolist() == [float, np.int64, float, float] and len(made) == 7
    np.testing.assert_array_equal(made.to_numpy(), gan.sample(7))
    gan.fit(made)
    assert GAN(**SMALL).fit(TABLE).sample(2, as_frame=True).columns.tolist() == [0, 1, 2, 3]
    twins = frame.set_axis(["a", "a", "", 7], axis=1).set_axis([3, 3, 4, 5], axis=1)
    assert list(GAN(**SMALL).fit(twins).sample(2, as_frame=True).columns) == [3, 3, 4, 5]
    mixed = pandas.DataFrame({"x": [1.5, 2.5] * 10, "flag": [True, False] * 10})
    assert GAN(**SMALL).fit(mixed).data_.table.whole.tolist() == [False, True]
    frame.to_csv(tmp_path / "t.csv")
    assert data.load(tmp_path / "t.csv").table.names == tuple(NAMES)
    with pytest.raises(DataError, match="column 'who': could not convert .*: '0'|.*leave out"):
        GAN(**SMALL).fit(frame.assign(who=[f"person {k}" for k in range(40)]))
    with pytest.raises(TypeError, match="column 'day': objects that are no numbers"):
        GAN(**SMALL).fit(frame.assign(day=pandas.Timestamp("2024-01-01"), kind="red"))
    colours = frame.assign(kind=["red", "green"] * 20)
    made = GAN(**SMALL).fit(colours).sample(30, as_frame=True)
    assert list(made.columns) == [*NAMES, "kind"] and set(made["kind"]) <= {"red", "green"}
    assert made.dtypes.iloc[:4].tolist() == [float, np.int64, float, float]
    again = GAN(**SMALL).fit(colours.astype({"kind": "category"})).sample(30, as_frame=True)
    pandas.testing.assert_frame_equal(made, again)


@pytest.mark.parametrize("change, says", [
    ({"names": [1.5] * 4}, "names"), ({"names": ["a"]}, "names"), ({"names": {"a": 1}}, "names"),
    ({"low": np.full(4, 9e99)}, "columns"), ({"high": np.full(4, np.nan)}, "columns"),
    ({"whole": np.zeros(3, bool)}, "columns"), ({"whole": np.zeros(4)}, "columns")])
def test_a_file_with_impossible_columns_is_refused(tmp_path, change, says):
    GAN(**SMALL).fit(Frame(NAMES)).save(tmp_path / "g.npz")
    header, arrays = checkpoint.load(tmp_path / "g.npz")
    del header["sha256"]
    for name, value in change.items():
        if name == "names":
            value = np.frombuffer(json.dumps(value).encode(), np.uint8)
        arrays[f"data/{name}"] = value
    checkpoint.save(tmp_path / "bad.npz", header, arrays)
    with pytest.raises(checkpoint.CheckpointError, match=f"the {says} of its data|the names of it"):
        GAN.load(tmp_path / "bad.npz")


# ------------------------------------------------------------------------------------ categories


WORDS = ["plain", "größe 長さ", "a,b", 'say "so"', "two\nlines", "a;b", "tab\tthere", "cr\rcr", "'"]
SHARES = np.array([30, 20, 15, 10, 8, 6, 5, 4, 2]) / 100


def mixed(n=200):
    """Rows of a number, a category, a whole number and a category of two."""
    kinds = RNG.choice(len(WORDS), n, p=SHARES)
    return [[0.5 * k + x, WORDS[k], int(m), "yn"[m % 2]] for k, x, m in
            zip(kinds.tolist(), RNG.normal(size=n).tolist(), RNG.integers(0, 9, n).tolist())]


def mixed_file(path, rows, names=("x", "kind", "count", "flag")):
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_NONNUMERIC).writerows([names, *rows])
    return str(path)


@pytest.mark.parametrize("names", [("x", "kind", "count", "flag"), ("2019", "kind", "1", "flag"),
                                   ("", "kind", "c;d", "flag")])
def test_text_becomes_categories_and_comes_back_as_text(run, tmp_path, capsys, names):
    rows = mixed()
    path = mixed_file(tmp_path / "t.csv", rows, names)
    header, (x, kind, count, flag) = run(path)
    assert "2 columns of text as 11 categories" in capsys.readouterr().out.splitlines()[0]
    assert header == list(names) and set(kind) <= set(WORDS) and set(flag) <= {"y", "n"}
    found = data.load(path)
    assert found.dim == 1 + 9 + 1 + 2 and found.table.names == tuple(names)
    points = found.to_data_units(found.at(np.arange(200)))
    assert set(np.unique(points[:, 1:10])) == {0, 1} and (points[:, 1:10].sum(axis=1) == 1).all()
    back = found.table.rows(points)
    assert [row[1:] for row in back.tolist()] == [row[1:] for row in rows]
    np.testing.assert_allclose(back[:, 0].astype(float), [row[0] for row in rows], atol=1e-6)
    np.testing.assert_allclose(found.table.points(back), points, atol=1e-6)
    again = data.load("new.csv").table.rows(data.load("new.csv").to_data_units(
        data.load("new.csv").at(np.arange(50))))
    assert again[:, 1].tolist() == list(kind) and again[:, 3].tolist() == list(flag)


def test_rows_with_text_are_written_as_csv_alone(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(evaluation, "HALVES", 2)
    names = ("x", "\x1b[2Jkind", "count", "flag")
    run(mixed_file(tmp_path / "t.csv", mixed(60), names), sample=["--bounded"])
    for name, code in (("a.npy", 2), ("a.npz", 2), ("a.png", 0), ("a.csv", 0)):
        assert main(["sample", "run", "-n", "9", "-o", name]) == code
    assert "columns of text go into .csv" in capsys.readouterr().err
    assert main(["evaluate", "run"]) == 0
    assert "TV of column 2 \\x1b[2Jkind" in capsys.readouterr().out
    assert main(["report", "run"]) == 0


CHECKED = ("wgan-gp", "vae", "mixture")


@pytest.mark.parametrize("method", [name if name in CHECKED else
                                    pytest.param(name, marks=pytest.mark.thorough)
                                    for name in METHODS])
def test_every_method_makes_categories_replayed_resumed_and_in_parts(tmp_path, method):
    path = mixed_file(tmp_path / "t.csv", mixed(60))
    own = {name: value for name, value in SMALL.items() if name not in METHODS[method].without}
    own |= {"steps": 4, "width": 8 if method == "mixture" else 16}
    whole = GAN(method, **own).fit(path)
    eager = GAN(method, **own, eager=True).fit(path)
    half = GAN(method, **own)
    for _ in half.prepare(path).train():
        if half.run_.step == 2:
            half.run_.stop = 1
    half.save(tmp_path / "half.npz")
    resumed = GAN.load(tmp_path / "half.npz", X=path)
    for _ in resumed.run_.train():
        pass
    for other in (eager, resumed):
        arrays, same = (gan.run_.state_dict()[0] for gan in (whole, other))
        for name in arrays.keys() - {"history"}:
            np.testing.assert_array_equal(arrays[name], same[name], name)
    rows = whole.sample(50)
    assert set(rows[:, 1]) <= set(WORDS) and set(rows[:, 3]) <= {"y", "n"}
    assert np.isfinite(whole.score(path)) and whole.n_features_in_ == 4
    assert GAN(method, **own | {"batch": 4}, accumulate=2).fit(path).sample(3).shape == (3, 4)


def test_labels_and_columns_of_text_go_together(run, tmp_path):
    path = mixed_file(tmp_path / "t.csv", mixed(60))
    names, (*_, flag) = run(path, "--label", "flag", "--conditional", sample=["--label", "n"])
    assert names == ["x", "kind", "count", "flag"] and set(flag) == {"n"}
    assert main(["sample", "run", "-n", "50", "-o", "new.csv", "--bounded"]) == 0
    _, *rows = csv.reader(open("new.csv", encoding="utf-8", newline=""))
    _, kind, count, flag = zip(*rows)
    assert set(kind) <= set(WORDS) and set(flag) == {"y", "n"} and set(count) <= set("012345678")


def test_categories_are_drawn_with_the_probabilities_of_a_softmax():
    logits = np.array([[0.3, 1.0, -1.0, 0.5, 7.0, 2.0, -2.0]], np.float32)
    table = data.points(np.zeros((2, 4)), categories={1: ["a", "b", "c"], 3: ["d", "e"]}).table
    made = networks.Categories(lambda z: z[:, :1] * 0 + logits, table, 2)
    n = 40_000
    z = np.random.default_rng(0).standard_normal((n, 2 + 10), np.float32)
    y = made(z)
    assert y.dtype == np.float32 and y.shape == (n, 7)
    assert (y[:, 0] == logits[0, 0]).all() and (y[:, 4] == 7).all(), "numbers are left alone"
    for block in (slice(1, 4), slice(5, 7)):
        shares = np.exp(logits[0, block]) / np.exp(logits[0, block]).sum()
        np.testing.assert_allclose(y[:, block].sum(axis=1), 1, rtol=1e-5)
        found = np.bincount(y[:, block].argmax(axis=1), minlength=len(shares)) / n
        assert (np.abs(found - shares) < 5 * np.sqrt(shares * (1 - shares) / n)).all()
        assert (y[:, block].max(axis=1) > 0.9).mean() > 0.7, "nearly one-hot"
    chosen = y[:, 1:4].argmax(axis=1) * 2 + y[:, 5:].argmax(axis=1)
    both = np.bincount(chosen, minlength=6).reshape(3, 2) / n
    independent = both.sum(axis=1, keepdims=True) * both.sum(axis=0)
    assert np.abs(both - independent).max() < 5 / np.sqrt(n), "each column has noise of its own"


def test_shares_of_categories_have_the_gradient_that_is_measured():
    table = data.points(np.zeros((2, 3)), categories={0: ["a", "b", "c"]}).table
    z = np.random.default_rng(0).standard_normal((4, 2 + 6))

    def output(y):
        made = networks.Categories(lambda z: y, table, 2)
        return made(z)

    assert_gradients(output, np.random.default_rng(1).standard_normal((4, 5)) * 0.1, orders=2)


def test_a_column_that_cannot_be_standardized_is_counted_in_the_table(tmp_path):
    rows = [["ab"[k % 2], k, (-1) ** k * 1e308, "xyz"[k % 3]] for k in range(40)]
    with pytest.raises(DataError, match="column 2 .counted from 0. holds numbers too large"):
        data.load(mixed_file(tmp_path / "t.csv", rows))
    rows = [["ab"[k % 2], k, 1e300 + k * 1e299, "only one"] for k in range(40)]
    made = GAN(**SMALL).fit(mixed_file(tmp_path / "t.csv", rows)).sample(9)
    assert set(made[:, 3]) == {"only one"} and all(np.isfinite(x) for x in made[:, 2])


def test_noise_of_zeros_gives_finite_shares():
    table = data.points(np.zeros((2, 1)), categories={0: ["a", "b"]}).table
    made = networks.Categories(lambda z: z[:, :2], table, 2)
    for z in (np.zeros((1, 6), np.float32), np.full((1, 6), 1e19, np.float32)):
        assert np.isfinite(made(z)).all()


def test_a_trained_generator_gets_shares_and_what_depends_on_them(tmp_path):
    path = mixed_file(tmp_path / "t.csv", mixed(1000))
    gan = GAN(steps=400, width=32, n_critic=2, lr=4e-3, seed=0).fit(path)
    rows = gan.sample(4000)
    shares = np.array([(rows[:, 1] == word).mean() for word in WORDS])
    assert np.abs(shares - SHARES).sum() / 2 < 0.25
    means = [rows[rows[:, 1] == word, 0].astype(float).mean() for word in WORDS[:4]]
    assert np.corrcoef(means, np.arange(4))[0, 1] > 0.8


@pytest.mark.parametrize("change", [
    [[1, ["a", "a"]]], [[9, ["a", "b"]]], [[-1, ["a", "b"]]], [[1, ["a", 7]]], [[1, []]],
    [[1, "ab"]], {"1": ["a"]}, None, 7, [[1]], [[True, ["a", "b"]]], [[[1], ["a", "b"]]]])
def test_a_file_with_impossible_categories_is_refused(tmp_path, change):
    GAN(**SMALL).fit(mixed_file(tmp_path / "t.csv", mixed(60))).save(tmp_path / "g.npz")
    header, arrays = checkpoint.load(tmp_path / "g.npz")
    del header["sha256"]
    arrays["data/categories"] = np.frombuffer(json.dumps(change).encode(), np.uint8)
    checkpoint.save(tmp_path / "bad.npz", header, arrays)
    with pytest.raises(checkpoint.CheckpointError):
        GAN.load(tmp_path / "bad.npz")


def test_a_score_needs_the_categories_of_the_fit(tmp_path):
    rows = mixed(60)
    gan = GAN(**SMALL).fit(mixed_file(tmp_path / "t.csv", rows))
    others = [[x, kind, count, {"y": "yes", "n": "no"}[flag]] for x, kind, count, flag in rows]
    with pytest.raises(ValueError, match="categories than the data of the fit: column 3 .*'no'"):
        gan.score(mixed_file(tmp_path / "u.csv", others))
    numbers = [[x, kind, count, count % 2] for x, kind, count, flag in rows]
    with pytest.raises(ValueError, match="than the data of the fit: column 3 .* holds numbers"):
        gan.score(mixed_file(tmp_path / "u.csv", numbers))
    with pytest.raises(ValueError, match="X has 3 features, but GAN is expecting 4 features"):
        gan.score(mixed_file(tmp_path / "u.csv", [row[:3] for row in rows], ("x", "kind", "count")))


def test_a_score_does_not_need_all_categories_of_the_fit(tmp_path):
    rows = mixed(200)
    gan = GAN(**SMALL).fit(mixed_file(tmp_path / "t.csv", rows))
    few = [row for row in rows if row[1] in WORDS[:2] and row[3] == "n"]
    held = data.load(mixed_file(tmp_path / "u.csv", few))
    assert held.dim == 1 + 2 + 1 + 1
    points = gan.data_.table.points(np.array(few, object))
    recoded = gan.data_.table.recoded(held.to_data_units(held.at(np.arange(len(few)))), held.table)
    np.testing.assert_allclose(recoded, points, atol=1e-6)
    expected = metrics.sliced_wasserstein(
        gan.data_.to_network_units(points), samples.sample(gan.run_.game, samples.SCORED),
        np.random.default_rng(0), 64)
    assert gan.score(str(tmp_path / "u.csv")) == pytest.approx(-expected, rel=1e-5)


# ------------------------------------------------------------------------------------ evaluation


@pytest.mark.parametrize("rows, real, step", [
    (499, (0.01, 0.02), 4),  # too few to choose: the last
    (500, (0.01, 0.02), 2),  # the nearest
    (500, (0.01, 0.1), 2), (500, (0.01, 0.12), 4),  # the last that does not differ from it
    (500, (0.15, 0.17), 2), (500, (0.15, 0.21), 4)])  # nor from real data
def test_the_best_state_is_chosen_by_validation(tmp_path, monkeypatch, capsys, rows, real, step):
    monkeypatch.setattr(evaluation, "HALVES", 2)
    monkeypatch.setattr("tinygan.app.report.write_pictures", lambda *arguments: None)
    monkeypatch.chdir(tmp_path)
    scores = iter([0.5, 0.1, 0.3, 0.2])
    true_score = samples.score
    monkeypatch.setattr(samples, "score", lambda *arguments: {
        **true_score(*arguments), "sliced_wasserstein": next(scores)})
    write("t.csv", ["a", "b"], RNG.normal(size=(rows, 2)))
    monkeypatch.setattr("tinygan.app.commands.yardstick", lambda data: {
        "sliced_wasserstein": real})
    assert main(["train", "t.csv", "--steps", "4", "--width", "8", "--out", "run"]) == 0
    assert GAN.load("run/best.npz").run_.step == step
    said = "closer to the data before: 0.1 at step 2" in open("run/report.html").read()
    assert said == (step == 2)
    assert main(["evaluate", "run"]) == 0
    assert ("chosen by validation" in capsys.readouterr().out) == (rows == 500)


def test_marginals_are_the_distance_of_every_column_alone():
    a, b = RNG.normal(size=(2, 60, 3))
    expected = [metrics.wasserstein(a[:, k:k + 1], b[:, k:k + 1]) for k in range(3)]
    np.testing.assert_allclose(metrics.marginal_wasserstein(a, b), expected)
    shuffled = np.stack([RNG.permutation(column) for column in a.T], axis=1)
    np.testing.assert_array_equal(metrics.marginal_wasserstein(a, shuffled), 0)
    assert metrics.correlation_error(a, shuffled) > 0.05, "which only pairs of columns show"
    with pytest.raises(ValueError, match="60 and 59 points"):
        metrics.marginal_wasserstein(a, b[1:])


def test_the_largest_error_of_a_correlation_is_that_of_the_worst_pair():
    a, b = RNG.normal(size=(2, 80, 4))
    b[:, 3] = -b[:, 1] * 1e6
    a[:, 3] = a[:, 1] + 1e9
    error = np.abs(np.corrcoef(a.T) - np.corrcoef(b.T)).max()
    assert metrics.correlation_error(a, b) == pytest.approx(error) == pytest.approx(2, abs=0.01)
    assert metrics.correlation_error(a, a[:7]) == metrics.correlation_error(a[:7], a)
    a[:, 3] = 5
    constant = np.abs(np.corrcoef(b.T)[3, :3]).max()
    assert metrics.correlation_error(a[:, 2:3], b[:, 2:3]) < 1e-12
    others = np.abs(np.corrcoef(a[:, :3].T) - np.corrcoef(b[:, :3].T)).max()
    assert metrics.correlation_error(a, b) == pytest.approx(max(constant, others))


@pytest.mark.parametrize("score", [metrics.marginal_wasserstein, metrics.correlation_error])
def test_scores_of_columns_check_what_they_are_given(score):
    x = RNG.normal(size=(9, 2))
    for bad in (x[:, :1], x[0], x.astype(complex), x[:0]):
        with pytest.raises((ValueError, TypeError)):
            score(x, bad)
    for value in (np.nan, np.inf):
        assert np.isnan(score(x, np.where(x == x[0], value, x))).all()


@pytest.mark.parametrize("columns, rows", [(1, 1), (2, 4), (12, 14), (13, 14), (40, 14)])
def test_a_table_is_evaluated_column_by_column(monkeypatch, columns, rows):
    monkeypatch.setattr(evaluation, "HALVES", 2)
    names = [f"a\nlong name, {k}" for k in range(columns)]
    gan = GAN(**SMALL).fit(Frame(names, RNG.normal(size=(200, columns)) ** 2 + 7))
    table = {row.name: row for row in evaluation.rows(gan.run_.game)}
    own = [row for name, row in table.items() if "column" in name or "correlation" in name]
    assert len(own) == rows and all(row.n == 20 for row in own)
    assert all("\n" not in name and len(name) < 34 for name in table)
    shown = [row.generated for name, row in table.items() if name.startswith("W1 of column")]
    assert len(shown) == min(columns, 12)
    if columns == 1:
        return
    mean = table[f"mean of {columns} columns"]
    assert mean.real < mean.generated < 3 and mean.low <= mean.generated <= mean.high
    if columns > 12:
        assert mean.generated < np.mean(shown), "those farthest away are shown"
    else:
        assert mean.generated == pytest.approx(np.mean(shown))


def test_samples_are_evaluated_as_they_are_written(monkeypatch):
    monkeypatch.setattr(evaluation, "HALVES", 2)
    x = np.column_stack([RNG.integers(0, 2, 300), np.full(300, 0.3), RNG.normal(size=300)])
    gan = GAN(**SMALL).fit(Frame("abc", x))
    table = {row.name: row for row in evaluation.rows(gan.run_.game)}
    constant = table["W1 of column 2 b"]
    assert constant.generated == constant.low == constant.high == constant.real == 0
    assert table["W1 of column 3 c"].generated > 0


def test_total_variation_of_categories_is_that_of_their_shares(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "HALVES", 2)
    gan = GAN(**SMALL).fit(mixed_file(tmp_path / "t.csv", mixed(300)))
    row = {row.name: row for row in evaluation.rows(gan.run_.game)}["TV of column 4 flag"]
    test = gan.data_.table.rows(gan.data_.to_data_units(gan.data_.part("test", 99, RNG)))
    made = gan.sample(len(test))
    share = [np.mean(rows[:, 3] == "y") for rows in (test, made)]
    assert row.generated == pytest.approx(abs(share[0] - share[1]), abs=1e-6)
