"""Recipes of the toy data, and what becomes of good and bad arrays and files."""

import copy
import csv
import gzip
import io
import pickle
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from tinygan import data
from tinygan.data import DataError

N = 40_000  # draws; tolerances below are at least five standard errors


@pytest.fixture
def rng():
    return np.random.default_rng(7)


# --------------------------------------------------------------------------------------------- toys


@pytest.mark.parametrize("name", data.TOYS)
def test_toys_draw_float32_rows_in_their_own_units_from_the_generator_alone(name):
    toy = data.load(name)
    a, b = (toy.draw(np.random.default_rng(3), 100) for _ in range(2))
    assert toy.name == name and a.shape == (100, toy.dim) == (100, 2) and a.dtype == np.float32
    np.testing.assert_array_equal(a, b)
    assert toy.draw(np.random.default_rng(0), 0).shape == (0, 2)
    assert (toy.mean == 0).all() and (toy.scale == 1).all()
    np.testing.assert_array_equal(toy.to_data_units(a), a)
    np.testing.assert_array_equal(toy.to_network_units(a), a)


@pytest.mark.parametrize("toy, modes, sigma",
                         [(data.ring(), 8, 0.02 / 1.414), (data.grid(), 25, 0.05 / 2.828)])
def test_mixtures_have_the_published_modes(toy, modes, sigma, rng):
    assert toy.centers.shape == (modes, 2) and toy.sigma == pytest.approx(sigma)
    x = toy.draw(rng, N)
    nearest = np.linalg.norm(x[:, None] - toy.centers, axis=2).argmin(axis=1)
    share = np.bincount(nearest, minlength=modes) / N
    np.testing.assert_allclose(share, 1 / modes, atol=5 * np.sqrt(1 / modes / N))
    noise = x - toy.centers[nearest]
    np.testing.assert_allclose(noise.mean(axis=0), 0, atol=5 * sigma / np.sqrt(N))
    np.testing.assert_allclose(noise.std(axis=0), sigma, rtol=5 / np.sqrt(2 * N))
    assert abs(np.corrcoef(noise.T)[0, 1]) < 5 / np.sqrt(N)


def test_geometry_of_ring_and_grid():
    np.testing.assert_allclose(np.linalg.norm(data.ring().centers, axis=1), 2 / 1.414)
    angles = np.sort(np.arctan2(*data.ring().centers.T[::-1]) % (2 * np.pi))
    np.testing.assert_allclose(np.diff(angles), np.pi / 4)
    np.testing.assert_allclose(np.unique(data.grid().centers.round(6)),
                               np.arange(-2, 3) * 2 / 2.828, atol=1e-6)
    assert len(np.unique(data.grid().centers.round(6), axis=0)) == 25


def test_swissroll_follows_its_spiral(rng):
    x = 7.5 * data.swissroll().draw(rng, N).astype(np.float64)
    t = 1.5 * np.pi * (1 + 2 * (np.arange(20_000) + 0.5) / 20_000)
    spiral = np.stack([t * np.cos(t), t * np.sin(t)], axis=1)
    np.testing.assert_allclose(x.mean(axis=0), spiral.mean(axis=0),
                               atol=5 * spiral.std(axis=0).max() / np.sqrt(N))
    np.testing.assert_allclose(x.var(axis=0), spiral.var(axis=0) + 0.25**2, rtol=0.03)
    # |x|^2 = t^2 + 2 t e + |e|^2 with e ~ N(0, 0.25^2): its mean has a closed form
    squares = np.square(x).sum(axis=1)
    expected = 1.5**2 * np.pi**2 * (1 + 2 + 4 / 3) + 2 * 0.25**2
    assert squares.mean() == pytest.approx(expected, abs=5 * squares.std() / np.sqrt(N))
    distance = np.abs(np.linalg.norm(x[:2000, None] - spiral[::20], axis=2)).min(axis=1)
    # The noise across the curve
    assert np.sqrt(np.mean(distance**2)) == pytest.approx(0.25, rel=0.1)


# ------------------------------------------------------------------------------------------- arrays


def test_points_are_standardized_and_drawn_with_replacement(rng):
    x = rng.normal([5, -1e6], [0.01, 300], (50, 2))
    before = x.copy()
    d = data.points(x, "mine")
    drawn = d.draw(rng, 1000)
    np.testing.assert_array_equal(x, before)
    assert (d.name, d.dim, d.centers, d.sigma) == ("mine", 2, None, None)
    assert drawn.shape == (1000, 2) and drawn.dtype == np.float32
    seen = x[d.split["train"]]
    np.testing.assert_allclose(d.mean, seen.mean(axis=0))
    np.testing.assert_allclose(d.scale, seen.std(axis=0))
    # Each of 40 rows is missed with probability 1e-11
    assert len(np.unique(drawn, axis=0)) == len(seen) == 40
    np.testing.assert_allclose(d.to_network_units(seen).std(axis=0), 1, rtol=1e-5)
    rows = np.abs(d.to_data_units(drawn)[:, None] - seen).max(axis=2).min(axis=1)
    assert rows.max() < 1e-3  # every draw is one of the training rows


@pytest.mark.parametrize("n, held", [(2, 0), (19, 0), (20, 2), (57, 5), (1000, 100)])
def test_finite_data_are_split_into_three_parts_always_the_same(n, held, rng):
    d = data.points(rng.standard_normal((n, 2)))
    again = data.points(rng.standard_normal((n, 2)))
    parts = [d.split[name] for name in ("train", "validation", "test")]
    assert all(np.array_equal(part, again.split[name]) for name, part in d.split.items())
    if held:
        assert [len(part) for part in parts] == [n - 2 * held, held, held]
        assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(n))
    else:
        assert all(np.array_equal(part, np.arange(n)) for part in parts)


def through_pickle(dataset):
    return pickle.loads(pickle.dumps(dataset))


PICTURES = np.arange(24 * 64, dtype=np.uint8).reshape(24, 8, 8)


@pytest.mark.parametrize("travel", [through_pickle, copy.deepcopy])
@pytest.mark.parametrize("make", [
    data.ring, data.grid, data.swissroll, lambda: data.points(np.arange(60.0).reshape(30, 2)),
    lambda: data.points(np.arange(4.0)), lambda: data.image_array(PICTURES)])
def test_a_data_set_can_be_pickled_and_copied(make, travel):
    dataset = make()
    other = travel(dataset)
    assert other.name == dataset.name and other.all_seen == dataset.all_seen
    for part in ("train", "validation", "test"):
        rows, same = (d.part(part, 9, np.random.default_rng(3)) for d in (dataset, other))
        np.testing.assert_array_equal(rows, same)
    drawn, again = (d.draw(np.random.default_rng(4), 50) for d in (dataset, other))
    np.testing.assert_array_equal(drawn, again)
    np.testing.assert_array_equal(dataset.to_data_units(drawn), other.to_data_units(again))


def test_every_name_of_a_data_set_can_be_pickled():
    for name, make in (data.TOYS | data.IMAGES).items():
        assert callable(pickle.loads(pickle.dumps(make))), name


def test_a_part_gives_different_points_at_most_all_it_has(rng):
    d = data.points(rng.standard_normal((100, 2)))
    for name, size in (("train", 80), ("validation", 10), ("test", 10)):
        some, whole = d.part(name, 7, rng), d.part(name, 1000, rng)
        assert len(np.unique(some, axis=0)) == 7 and np.array_equal(whole, d.at(d.split[name]))
        assert len(whole) == size
        assert {tuple(p) for p in some} <= {tuple(p) for p in whole}
        np.testing.assert_array_equal(d.part(name, size, rng), whole)
    assert d.part("train", 1, rng).dtype == np.float32
    ring = data.ring()
    assert ring.split is None and ring.part("test", 3, rng).shape == (3, 2)


def test_what_is_held_out_has_no_part_in_the_standardization(rng):
    x = rng.standard_normal((100, 1))
    held = np.concatenate([data.points(x).split[name] for name in ("validation", "test")])
    other = x.copy()
    other[held] += 1000
    assert data.points(other).mean == data.points(x).mean
    assert data.points(other).scale == data.points(x).scale


def test_a_constant_column_is_only_centred():
    d = data.points(np.array([[0.1, 1.0], [0.1, 2.0], [0.1, 3.0]]))
    assert d.scale[0] == 1 and (d.to_network_units([[0.1, 2.0]]) == 0).all()


@pytest.mark.parametrize("size", [1e-300, 1e-30, 1e30, 1e300])
def test_columns_whose_variance_leaves_the_range_of_float64_are_standardized(size):
    d = data.points(size * np.array([[1.0], [2.0], [3.0]]))
    np.testing.assert_allclose(d.to_network_units(size * np.array([[1.0], [3.0]])),
                               [[-1.5**0.5], [1.5**0.5]], rtol=1e-6)


def test_numbers_in_one_dimension_are_points_of_one_column():
    assert data.points(np.arange(5)).dim == 1
    assert data.points([1.0, 2.0]).draw(np.random.default_rng(0), 3).shape == (3, 1)
    assert data.points(np.array([[True, False], [False, True]])).dim == 2


@given(npst.arrays(np.float64, npst.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=6),
                   elements=st.floats(-1e12, 1e12)))
def test_units_go_there_and_back(x):
    d = data.points(x)
    assert d.to_network_units(x).dtype == np.float32
    assert np.isfinite(d.to_network_units(x)).all() and (d.scale > 0).all()
    error = np.abs(d.to_data_units(d.to_network_units(x)) - x)
    assert (error <= 2e-7 * np.ptp(x, axis=0) + 1e-15 * np.abs(x).max() + 1e-300).all()


@pytest.mark.parametrize("array, says", [
    (np.zeros((2, 2, 2)), r"shape \(2, 2, 2\)"),
    (np.float32(3), r"shape \(\)"),
    (np.zeros((0, 2)), r"shape \(0, 2\)"),
    (np.zeros((5, 0)), r"shape \(5, 0\)"),
    (np.zeros((1, 2)), "at least two points"),
    (np.zeros((3, 2), complex), "complex"),
    (np.array(["a", "b"]), "dtype <U1"),
    (np.array([1, None]), "dtype object"),
    (np.array(["2020-01-01", "2020-01-02"], "datetime64[D]"), "datetime64"),
    ([[1, 2], [3]], "unequal length"),
    (np.array([[1, 2], [3, np.nan], [np.inf, 0]]), "row 1, column 1 .* is nan"),
    (np.array([[1.0], [2.0], [-np.inf]]), "row 2, column 0 .* is -inf"),
    (np.array([[1.0, 1.7e308], [1.0, 1.7e308], [1.0, 0]]), "column 1 .* too large"),
    (np.array([[1.7e308], [1.7e308], [0.0]]), "column 0 .* too large"),
])
def test_arrays_that_are_no_points_are_refused_in_one_line(array, says):
    with pytest.raises(DataError, match=f"^mine: .*{says}") as caught:
        data.points(array, "mine")
    assert "\n" not in str(caught.value)


# -------------------------------------------------------------------------------------------- files


def npy_bytes(array, allow_pickle=False):
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=allow_pickle)
    return stream.getvalue()


def npz_bytes(**arrays):
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def lying_header(version=(1, 0), shape=(2**32, 1)):
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}"
    header = text.encode().ljust(117) + b"\n"
    size = struct.pack("<H" if version == (1, 0) else "<I", len(header))
    return b"\x93NUMPY" + bytes(version) + size + header


X = np.array([[1.0, 2.0], [3.0, 5.0], [7.0, 8.0]])


@pytest.mark.parametrize("name, content", [
    ("x.npy", npy_bytes(X)), ("x.NPY", npy_bytes(X.astype(">f4"))),
    ("x.npy", npy_bytes(np.asfortranarray(X))), ("x.npy", npy_bytes(X.astype(int))),
    ("x.npz", npz_bytes(anything=X)), ("x.npz", npz_bytes(samples=X, more=X[0])),
    ("x.npz", npz_bytes(X=X, y=np.arange(3))), ("x.csv", b"1,2\n3,5\n7,8\n"),
    ("x.csv", b"a,b\n1,2\n3,5\n7,8"), ("x.csv", b"\xef\xbb\xbfa;b\r\n1;2\r\n3;5\r\n7;8\r\n"),
    ("x.csv", b"\n 1.0 \t2e0\n3\t5\n\n7\t8\n\n"),
    ("x.csv", b'"a","b"\n"1","2"\n"3","5"\n"7","8"\n'), ("x.csv", b"\xef\xbb\xbf1,2\n3,5\n7,8"),
    ("x.csv", b"# a, b\n1, 2\n3, 5\n7, 8\n"),
    ("x.csv", b'"2019","2020"\n1,2\n3,5\n7,8\n'), ("x.csv", b'"1","2"\n"3","5"\n"7","8"\n'),
    ("x.tsv", b"a\tb\n1\t2\n3\t5\n7\t8\n"), ("x.txt", b"1;2\n3;5\n7;8\n"),
    ("x.csv.gz", gzip.compress(b"a,b\n1,2\n3,5\n7,8\n")),
    ("x.csv", gzip.compress(b"1,2\n3,5\n7,8")),
    ("x.TSV.GZ", gzip.compress(b'"2019"\t"2020"\n1\t2\n3\t5\n7\t8\n')),
])
def test_files_are_read(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    d = data.load(str(tmp_path / name))
    assert d.name == "x" and d.dim == 2
    np.testing.assert_allclose(d.mean, X.mean(axis=0))
    np.testing.assert_allclose(d.scale, X.std(axis=0))


@pytest.mark.parametrize("content", [
    b",a,b\n0,1,2\n1,3,5\n2,7,8\n", b'"","a","b"\n"1",1,2\n"2",3,5\n"3",7,8\n',
    b"\ta\tb\n0\t1\t2\n1\t3\t5\n2\t7\t8\n", b";a;b\r\n0;1;2\r\n1;3;5\r\n2;7;8",
    b"\xef\xbb\xbf ,a,b\n0,1,2\n1.0,3,5\n2,7,8\n", b",0,1\n0,1,2\n1,3,5\n2,7,8\n",
    b",2019,2020\n1,1,2\n2,3,5\n3,7,8\n", gzip.compress(b",a,b\n0,1,2\n1,3,5\n2,7,8\n")],
    ids=["pandas", "R", "tabs", "semicolons", "mark", "names of numbers", "years", "gzip"])
def test_the_index_of_a_table_is_left_out_and_this_is_said(tmp_path, content):
    (tmp_path / "x.csv").write_bytes(content)
    d = data.load(str(tmp_path / "x.csv"))
    assert d.dim == 2 and d.reading == "index column without a name left out"
    np.testing.assert_allclose(d.mean, X.mean(axis=0))


@pytest.mark.parametrize("header, said", [
    ("id,a,b", ["'id'"]), (" ID ,a,b", ["'ID'"]), ("a,Index,b", ["'Index'"]),
    ("a,b,", ["without a name"]), ('"Unnamed: 0","a","b"', ["'Unnamed: 0'"]),
    ("rownames,a,b", ["'rownames'"]),
    (",Unnamed: 0,Unnamed: 0.1,a,b", ["without a name", "'Unnamed: 0'", "'Unnamed: 0.1'"])])
@pytest.mark.parametrize("start", [0, 1])
def test_an_index_is_known_by_its_name_and_by_what_it_holds(tmp_path, header, said, start):
    names = next(csv.reader([header]))
    columns = {"a": X[:, 0], "b": X[:, 1]}
    rows = np.column_stack([columns.get(name, np.arange(start, start + 3)) for name in names])
    lines = [header, *(",".join(map(str, row)) for row in rows.tolist())]
    (tmp_path / "x.csv").write_text("\n".join(lines))
    d = data.load(tmp_path / "x.csv")
    assert d.table.names == ("a", "b") and d.reading.count("index column") == len(said)
    assert all(f"index column {name}" in d.reading for name in said) and "left out" in d.reading
    np.testing.assert_allclose(d.mean, X.mean(axis=0))
    asked = data.load(tmp_path / "x.csv", columns=f"1-{len(names)}")
    assert asked.dim == len(names), "what is asked for stays"


def test_an_index_beside_text_labels_and_a_choice(tmp_path):
    rows = [f"{k},{'xy'[k % 2]},{k * k},t{k}" for k in range(40)]
    (tmp_path / "x.csv").write_text("id,kind,a,text\n" + "\n".join(rows))
    with pytest.raises(data.DataError, match="does 'text' hold categories; .*: --columns 2-3$"):
        data.load(tmp_path / "x.csv")
    rows = [row[:row.rindex(",")] for row in ["id,kind,a,", *rows]]
    (tmp_path / "x.csv").write_text("\n".join(rows))
    d = data.load(tmp_path / "x.csv")
    assert d.reading == "index column 'id' left out, 1 column of text as 2 categories"
    assert d.dim == 3
    labelled = data.load(tmp_path / "x.csv", label="2", conditional=True)
    assert labelled.table.names == ("a",) and labelled.classes == ("x", "y")


@pytest.mark.parametrize("content, dim", [
    (b"day,a,b\n0,1,2\n1,3,5\n2,7,8\n", 3), (b",a,b\n0,1,2\n1,3,5\n3,7,8\n", 3),
    (b"id,a,b\n0,1,2\n1,3,5\n3,7,8\n", 3), (b"id\n0\n1\n2\n", 1),
    (b",id\n0,1\n1,2\n2,3\n", 2),
    (b",a,b\n2,1,2\n3,3,5\n4,7,8\n", 3), (b"0,1,2\n1,3,5\n2,7,8\n", 3),
    (b"a,b,id 2\n1,2,0\n3,5,1\n7,8,2\n", 3), (b"x\n0\n1\n2\n", 1),
    (b",a,b\n1,1,2\n0,3,5\n2,7,8\n", 3)])
def test_other_columns_stay(tmp_path, content, dim):
    """Under another name, a shuffled or interrupted index, the only columns, without a header."""
    (tmp_path / "x.csv").write_bytes(content)
    d = data.load(str(tmp_path / "x.csv"))
    assert d.dim == dim and d.reading == ""


def test_a_compressed_npz_and_a_csv_of_one_column_are_read(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", X)
    assert data.load(tmp_path / "a.npz").dim == 2
    (tmp_path / "b.csv").write_text("height\n1.5\n1.75\n")
    assert data.load(tmp_path / "b.csv").mean == pytest.approx([1.625])


def test_small_data_may_inflate_more_than_a_hundredfold(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", np.eye(2, 1000).repeat(50, axis=0))
    assert (tmp_path / "a.npz").stat().st_size < 8 * 100 * 1000 / 200
    assert data.load(tmp_path / "a.npz").dim == 1000
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(b"1,2\n" * 50_000))
    assert len(data.load(tmp_path / "b.csv.gz").split["train"]) == 40_000


def test_a_file_called_like_a_toy_does_not_take_its_name(tmp_path):
    (tmp_path / "ring.csv").write_text("1,2\n3,5\n")
    assert data.load(tmp_path / "ring.csv").name == "ring.csv"


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was executed",))


BAD = [
    ("empty.npy", b"", "empty"),
    ("garbage.npy", b"not numpy at all, but long enough", "damaged"),
    ("cut.npy", npy_bytes(X)[:-1], "cut off"),
    ("cut-header.npy", npy_bytes(X)[:40], "damaged"),
    ("lie.npy", lying_header(), "cut off"),
    ("lie2.npy", lying_header((2, 0)), "cut off"),
    ("huge.npy", lying_header(shape=(2**70, 3)), "cut off"),
    ("negative.npy", lying_header(shape=(-1, 2)), "damaged|expected shape"),
    ("version.npy", lying_header((9, 9)), "cut off|damaged"),
    ("objects.npy", npy_bytes(np.array([Trap(), 1]), allow_pickle=True), "Python objects"),
    ("pickle.npy", b"\x80\x04\x95\x00.", "damaged"),
    ("text.npy", npy_bytes(np.array(["a", "b"])), "dtype <U1"),
    ("structured.npy", npy_bytes(np.zeros(3, [("a", "f4"), ("b", "i4")])), "real numbers"),
    ("complex.npy", npy_bytes(X + 1j), "complex"),
    ("nan.npy", npy_bytes(np.where(X == 5, np.nan, X)), "row 1, column 1"),
    ("images.npy", npy_bytes(np.zeros((4, 7, 8))), "images of 7 x 8 pixels"),
    ("cube.npy", npy_bytes(np.zeros((4, 8, 8, 8, 8))), r"shape \(4, 8, 8, 8, 8\)"),
    ("empty.npz", b"", "damaged"),
    ("garbage.npz", b"PK\x03\x04 and so on", "damaged"),
    ("cut.npz", npz_bytes(a=X)[:-30], "damaged"),
    ("two.npz", npz_bytes(train=X, test=X), "holds train, test"),
    ("both.npz", npz_bytes(X=X, samples=X), "holds X, samples"),
    ("none.npz", npz_bytes(), "holds none"),
    ("many.npz", npz_bytes(**{f"a{k}": X for k in range(20)}), r"a7, \.\.\.$"),
    ("nan.npz", npz_bytes(samples=X * np.nan), "row 0, column 0"),
    ("empty.csv", b"", "is empty"),
    ("blank.csv", b"\n \n,\n", "is empty"),
    ("header.csv", b"a,b\n", "header but no points"),
    ("one.csv", b"1,2\n", "at least two points"),
    ("quoted.csv", b'"1","2"\n', "at least two points"),
    ("word.csv", b"a,b\n1,2\n\n3,five\n", "line 4, column 2: 'five' is not a finite number"),
    ("first.csv", b"1,two\n3,4\n", "line 1, column 2: 'two'"),
    ("ragged.csv", b"1,2\n3,4\n5,6,7\n", "line 3 has 3 values, the lines before have 2"),
    ("header-ragged.csv", b"a,b,c\n1,2\n", "line 2 has 2 values"),
    ("missing.csv", b"1,2\n3,\n", "line 2, column 2: is empty"),
    ("hole.csv", b",2\n3,4\n5,6\n", "line 1, column 1: is empty"),
    ("holes.csv", b",,2\n0,3,4\n1,5,6\n", "line 1, column 1: is empty"),
    ("only-index.csv", b",a\n0,\n1,\n", "line 2, column 2: is empty"),
    ("nan.csv", b"1,2\n3,nan\n", "line 2, column 2: 'nan'"),
    ("inf.csv", b"1,2\n-inf,4\n", "line 2, column 1: '-inf'"),
    ("comma.csv", b"1,5;2,5\n3,5;4,5\n", "line 2, column 1: '3,5'"),
    ("spaces.csv", b"1 2\n3 4\n", "line 2, column 1: '3 4'"),
    ("long.csv", b"1\n" + b"x" * 100_000, "line 2"),
    ("field.csv", b"1\n" + b"x" * 1_000_000, "damaged"),
    ("binary.csv", npy_bytes(X), "damaged"),
    ("utf16.csv", "1,2\n3,4\n".encode("utf-16"), "UTF-16.*; save it as CSV in UTF-8"),
    ("latin1.csv", "größe,2\n3,4\n".encode("latin-1"), "Latin-1.*; save it as CSV in UTF-8"),
    ("table.xlsx", b"PK\3\4", "a spreadsheet; save it as CSV in UTF-8"),
    ("table.xls", b"", "a spreadsheet"), ("table.ods", b"", "a spreadsheet"),
    ("cut.csv.gz", gzip.compress(b"1,2\n3,4\n")[:-6], "damaged"),
    ("notes.txt", b"hello", "header but no points"), ("notes.md", b"hello", "not an IDX file"),
]


@pytest.mark.parametrize("name, content, says", BAD, ids=[name for name, _, _ in BAD])
def test_bad_files_are_refused_in_one_short_line(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=says) as caught:
        data.load(str(tmp_path / name))
    message = str(caught.value)
    assert message.startswith(str(tmp_path / name)) and "\n" not in message
    assert "pickle=" not in message
    assert len(message) < len(str(tmp_path / name)) + 200


@pytest.mark.parametrize("name", ["d.csv", "d.npy", "d.npz", "d"])
def test_directories_are_searched_for_pictures(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(DataError, match="expected at least two pictures .*, found 0"):
        data.load(tmp_path / name)


def test_arrays_are_points_or_images_by_their_dimensions(tmp_path):
    images = np.arange(4 * 8 * 9, dtype=np.uint8).reshape(4, 8, 9)
    np.save(tmp_path / "a.npy", images)
    np.savez(tmp_path / "b.npz", X=images.reshape(4, -1))
    a, b = data.load(tmp_path / "a.npy", channels=1), data.load(tmp_path / "b.npz")
    assert (a.name, a.dim, a.shape) == ("a", 72, (1, 8, 9))
    assert (b.name, b.dim, b.shape) == ("b", 72, None)
    np.testing.assert_array_equal(a.pixels[:, 0], images)
    with pytest.raises(DataError, match="asked for size 8 and 3 channel"):
        data.load(tmp_path / "a.npy", channels=3)


@pytest.mark.parametrize("options", [{"size": 28}, {"channels": 1}, {"data_dir": "."}])
def test_points_have_no_image_options(options, tmp_path):
    np.save(tmp_path / "a.npy", X)
    for source in ("ring", tmp_path / "a.npy"):
        option = next(iter(options)).replace("_", "-")
        with pytest.raises(DataError, match=f"--{option} are for images"):
            data.load(source, **options)


@pytest.mark.parametrize("source, says", [
    ("rings", "^unknown data 'rings' .*no such file.* ring, grid, swissroll"),
    ("", "unknown data ''"), ("nowhere/x.npy", "^nowhere/x.npy: No such file"),
    ("x.npz", "No such file"), ("x.csv", "No such file"), ("x" * 5000 + ".csv", "too long"),
    ("x" * 5000, "unknown data"), ("a\0b", "unknown data"),
])
def test_unknown_names_and_missing_files_are_refused(source, says):
    with pytest.raises(DataError, match=says):
        data.load(source)


def test_an_array_in_an_npz_whose_header_lies_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "lie.npz", "w") as archive:
        archive.writestr("samples.npy", lying_header())
    with pytest.raises(DataError, match=r"lie.npz\[samples\]: cut off"):
        data.load(tmp_path / "lie.npz")


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=300, deadline=None)
@given(st.sampled_from([("x.npy", npy_bytes(X)), ("x.npz", npz_bytes(a=X)),
                        ("x.csv", b"a,b\n1,2.5\n3,4\n")]),
       st.lists(st.tuples(st.integers(0, 500), st.binary(max_size=4)), max_size=4),
       st.integers(0, 500))
def test_a_damaged_file_is_read_or_refused_with_a_data_error(tmp_path_factory, file, changes,
                                                             length):
    name, content = file
    for place, patch in changes:
        content = content[:place] + patch + content[place + len(patch):]
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(content[:length] if length < 250 else content)
    try:
        assert np.isfinite(data.load(path).scale).all()
    except DataError as error:
        assert "\n" not in str(error)
