"""Checkpoints: what is saved is loaded, all else is refused, and no failure costs a file."""

import errno
import io
import json
import os
import pickle
import re
import stat
import struct
import subprocess
import sys
import tempfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinygan import GAN
from tinygan.training import checkpoint
from tinygan.training.checkpoint import CheckpointError

HEADER = {"tinygan": "0.1.0", "state": 2**127 + 1}
ARRAYS = {"net/weight": np.arange(6, dtype=np.float32).reshape(2, 3), "net/bias": np.array(0.5),
          "empty": np.zeros((0, 2))}
DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "checkpoint-format.md"
EARLIER = Path(__file__).resolve().parent / "data"
DTYPES = ["?", "i1", "u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8"]
EVERY = pytest.param(True, marks=pytest.mark.thorough)


def same(content, header=HEADER, arrays=ARRAYS):
    found, members = content
    return ({k: v for k, v in found.items() if k not in ("format", "sha256")} == header
            and list(members) == list(arrays)
            and all(a.dtype == arrays[k].dtype and a.shape == arrays[k].shape
                    and a.tobytes() == arrays[k].tobytes() for k, a in members.items()))


@pytest.fixture
def file(tmp_path):
    checkpoint.save(tmp_path / "x.npz", HEADER, ARRAYS)
    return tmp_path / "x.npz"


def refused(path, says="."):
    """The reason of the CheckpointError: one line of reasonable length."""
    with pytest.raises(CheckpointError, match=says) as fault:
        checkpoint.load(path)
    assert fault.value.path == Path(path) and str(path) in str(fault.value)
    assert 0 < len(fault.value.reason) < 300 and fault.value.reason.isprintable()
    return fault.value.reason


def document_reader():
    """``read_checkpoint`` of docs/checkpoint-format.md."""
    block = re.search(r"```python\n(import hashlib.*?)```", DOCUMENT.read_text(), re.DOTALL)[1]
    assert "tinygan" not in block
    namespace = {}
    exec(block, namespace)
    return namespace["read_checkpoint"]


# ----------------------------------------------------------------------------------- there and back


WORDS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,9}(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,9})?",
                      fullmatch=True).filter(lambda w: w != "header" and not w.endswith(".npy"))
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0)
NUMBERS = st.sampled_from(DTYPES).flatmap(lambda dtype: hnp.arrays(dtype, SHAPES))
KEYS = st.text(max_size=8).filter(lambda key: key not in ("format", "sha256", "arrays"))
VALUES = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False)


@given(arrays=st.dictionaries(WORDS, NUMBERS, max_size=5),
       header=st.dictionaries(KEYS, VALUES, max_size=4))
def test_what_is_saved_is_loaded_and_numpy_alone_reads_the_same(arrays, header, tmp_path_factory):
    path = tmp_path_factory.mktemp("any") / "x.npz"
    checkpoint.save(path, header, arrays)
    assert same(checkpoint.load(path), header, arrays)
    assert same(document_reader()(path),
                {**header, "arrays": [[k, a.dtype.str, list(a.shape)] for k, a in arrays.items()]},
                arrays)
    with zipfile.ZipFile(path) as archive:  # another reader, which checks every CRC-32
        assert archive.testzip() is None
        assert archive.namelist() == ["header.npy", *(f"{name}.npy" for name in arrays)]
        assert all(m.compress_type == zipfile.ZIP_STORED for m in archive.infolist())


def test_arrays_in_other_orders_are_stored_in_one_and_not_changed(tmp_path):
    arrays = {"big": np.arange(6, dtype=">f8"),
              "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
              "steps": np.arange(12)[::2]}
    before = {k: (a.dtype, a.strides, a.tobytes()) for k, a in arrays.items()}
    checkpoint.save(tmp_path / "x.npz", {2: (1, 2), 10: None}, arrays)
    header, loaded = checkpoint.load(tmp_path / "x.npz")
    assert header["2"] == [1, 2] and header["10"] is None
    assert all(np.array_equal(loaded[k], a) and loaded[k].flags.c_contiguous
               for k, a in arrays.items())
    assert loaded["big"].dtype == "<f8"
    assert before == {k: (a.dtype, a.strides, a.tobytes()) for k, a in arrays.items()}


def test_the_same_content_is_the_same_file(file):
    checkpoint.save(file.with_name("y.npz"), *checkpoint.load(file))
    assert file.read_bytes() == file.with_name("y.npz").read_bytes()
    assert checkpoint.load(file)[0]["sha256"] == checkpoint.digest(*checkpoint.load(file))


NAMES = ["", "header", "/x", "../x", "a/../b", "a//b", "a/", "x\0", "x\n", "a\\b", "C:x", "é",
         "x" * 201, ".x", "-x", "a b"]


@pytest.mark.parametrize("name, array", [*((name, np.ones(1)) for name in NAMES),
                                         ("x", np.array([None])), ("x", np.array(["a"])),
                                         ("x", np.ones(1, complex)),
                                         ("x", np.ones(1, np.longdouble)),
                                         ("x", np.ones(1, "f4,f4"))],
                         ids=lambda x: repr(x)[:20])
def test_what_could_not_be_loaded_is_not_saved(name, array, file):
    with pytest.raises(ValueError, match="cannot hold array"):
        checkpoint.save(file, {}, {name: array})
    assert same(checkpoint.load(file)) and os.listdir(file.parent) == ["x.npz"]


def test_what_is_too_large_is_neither_saved_nor_loaded(file, monkeypatch):
    with pytest.raises(ValueError, match="could not be read again"):
        checkpoint.save(file, {"x": "x" * 2**20}, {})
    monkeypatch.setattr(checkpoint, "MOST_BYTES", file.stat().st_size - 1)
    refused(file, "more than")
    with pytest.raises(ValueError, match="could not be read again"):
        checkpoint.save(file, HEADER, ARRAYS)


# ------------------------------------------------------------------------------------------ bit rot


def damaged(path, content, what):
    path.write_bytes(content)
    try:
        checkpoint.load(path)
    except CheckpointError:
        return
    raise AssertionError(f"{what}: loaded")


@pytest.mark.parametrize("thorough", [False, EVERY])
def test_every_flipped_bit_and_truncation_of_a_small_file_is_refused(thorough, file, tmp_path):
    """The plain test flips at least one bit of every byte, and cuts after every fourth byte."""
    whole, path = file.read_bytes(), tmp_path / "damaged.npz"
    for place in range(0, 8 * len(whole), 1 if thorough else 7):
        content = bytearray(whole)
        content[place // 8] ^= 1 << place % 8
        damaged(path, content, f"bit {place}")
    for length in range(0, len(whole), 1 if thorough else 4):
        damaged(path, whole[:length], f"{length} bytes")
    for extra in (b"\0", b"PK", whole):
        damaged(path, whole + extra, "bytes at the end")
        damaged(path, extra + whole, "bytes at the start")


@pytest.mark.parametrize("thorough", [False, EVERY])
def test_random_damage_of_a_large_file_is_refused(thorough, tmp_path):
    rng, path = np.random.default_rng(), tmp_path / "x.npz"
    checkpoint.save(path, HEADER, {"w": rng.standard_normal(2**20 if thorough else 2**16),
                                   **ARRAYS})
    with open(path, "r+b") as file:
        for _ in range(2000 if thorough else 200):
            place, bit = int(rng.integers(path.stat().st_size)), 1 << int(rng.integers(8))
            file.seek(place)
            byte = file.read(1)[0]
            for value in (byte ^ bit, byte):
                file.seek(place)
                file.write(bytes([value]))
                file.flush()
                if value != byte:
                    refused(path)
    assert len(checkpoint.load(path)[1]) == 4


def test_a_stretch_of_zeros_or_garbage_is_refused(file, tmp_path):
    whole, rng = file.read_bytes(), np.random.default_rng()
    for _ in range(300):
        start, length = int(rng.integers(len(whole))), int(rng.integers(1, 64))
        stretch = bytes(length) if rng.random() < 0.5 else rng.bytes(length)
        content = whole[:start] + stretch + whole[start + length:]
        if content != whole:
            damaged(tmp_path / "y.npz", content, f"{length} bytes at {start}")


# ------------------------------------------------------------------------------- files of strangers


class Canary:
    """Pickled, it makes a file when it is read."""

    path = ""

    def __reduce__(self):
        return (open, (self.path, "w"))


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def claim(shape, descr="<f8", payload=b""):
    """An .npy file that promises a dtype and a shape."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream,
                                         {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue() + payload


def layout(text, arrays):
    """``checkpoint._layout`` of a header of any size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "MOST_HEADER", 2**30)
        return checkpoint._layout(text, arrays)


def forged(header=(), listed=None, arrays=ARRAYS, text=None):
    """A file laid out by tinygan's own rules around any header, with the right digest."""
    header = {**HEADER, "format": checkpoint.FORMAT, **dict(header)}
    header.setdefault("sha256", checkpoint.digest(header, arrays))
    truly = [[k, a.dtype.str, list(a.shape)] for k, a in arrays.items()]
    header["arrays"] = truly if listed is None else listed
    text = json.dumps(header, sort_keys=True).encode() if text is None else text
    return b"".join(b"".join(piece) for piece in layout(text, arrays))


def zipped(members, compress=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compress) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of double names
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=compress)
    return stream.getvalue()


def members_of(whole):
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        return [(m.filename, archive.read(m)) for m in archive.infolist()]


def local_sizes(whole, size):
    """The header's local zip header with other sizes."""
    return whole[:18] + struct.pack("<2I", size, size) + whole[26:]


@pytest.fixture(scope="module")
def strangers(tmp_path_factory):
    """{name: path} of hostile files."""
    folder = tmp_path_factory.mktemp("strangers")
    Canary.path = str(folder / "canary")
    whole = forged()
    members = members_of(whole)
    text = members[0][1][128:]  # of the header
    evil = npy(np.array([Canary()], dtype=object))
    weight, bias, empty = ([k, a.dtype.str, list(a.shape)] for k, a in ARRAYS.items())
    bomb = bytes(128 * 2**20)
    files = {
        "pickle in the header": zipped([("header.npy", evil), *members[1:]]),
        "pickle among the arrays": zipped([members[0], ("net/weight.npy", evil), *members[2:]]),
        "bare pickle": evil,
        "object array": forged(listed=[["net/weight", "|O", [1]], bias, empty]),
        "nested zip": zipped([("header.npy", whole)]),
        "zip in a zip in the place of an array": zipped([members[0], ("net/weight.npy", whole)]),
        "deflated bomb": zipped([("header.npy", claim((len(bomb),), "|u1") + bomb)],
                                zipfile.ZIP_DEFLATED),
        "bomb among the arrays": zipped([*members, ("bomb.npy", bomb)], zipfile.ZIP_DEFLATED),
        "compressed": zipped(members, zipfile.ZIP_DEFLATED),
        "bzip2": zipped(members, zipfile.ZIP_BZIP2),
        "lzma": zipped(members, zipfile.ZIP_LZMA),
        "encrypted flag": whole[:6] + b"\1\0" + whole[8:],
        "zip64 sizes": local_sizes(whole, 2**32 - 1),
        "header of 2 GiB": local_sizes(whole, 2**31),
        "header of no bytes": local_sizes(whole, 0),
        "oversized header": forged({"x": "x" * 2**21}),
        "deep header": forged(text=b"[" * 2**19 + b"]" * 2**19),
        "wide header": forged(text=b"[" + b"[]," * 2**18 + b"0]"),
        "long number": forged(text=b"1" * 2**19),
        "long format": forged(text=b'{"format": 1' + b"0" * 4000 + b"}"),
        "header that is a list": forged(text=b"[1]"),
        "header that is no JSON": forged(text=b"hello"),
        "header that is not UTF-8": forged(text=b'{"format": 2, "x": "\xff"}'),
        "header that is empty": forged(text=b""),
        "header with a key twice": forged(text=text.replace(b'"format"', b'"format": 2, "format"')),
        "header with other spaces": forged(text=text + b" "),
        "no list": forged(text=b'{"format": 2}'),
        "list of nonsense": forged(listed=[1, None, "x"]),
        "list of short rows": forged(listed=[["x"]]),
        "shape of half a GiB": forged(listed=[["net/weight", "<f4", [2**27]], bias, empty]),
        "huge shape": forged(listed=[["net/weight", "<f4", [2**40]], bias, empty]),
        "shape that overflows": forged(listed=[["net/weight", "<f4", [2**62, 4]], bias, empty]),
        "shape beyond 64 bits": forged(listed=[["net/weight", "<f4", [10**300]], bias, empty]),
        "huge and empty shape": forged(listed=[weight, bias, ["empty", "<f8", [2**70, 0]]]),
        "negative shape": forged(listed=[["net/weight", "<f4", [-2, -3]], bias, empty]),
        "shape of booleans": forged(listed=[["net/weight", "<f4", [True, 6]], bias, empty]),
        "shape of floats": forged(listed=[["net/weight", "<f4", [2.0, 3.0]], bias, empty]),
        "many dimensions": forged(listed=[["net/weight", "<f4", [1] * 5000], bias, empty]),
        "other shape": forged(listed=[["net/weight", "<f4", [3, 2]], bias, empty]),
        "smaller shape": forged(listed=[["net/weight", "<f4", [2, 2]], bias, empty]),
        "other dtype": forged(listed=[["net/weight", "<i4", [2, 3]], bias, empty]),
        "other byte order": forged(listed=[["net/weight", ">f4", [2, 3]], bias, empty]),
        "array twice in the list": forged(listed=[weight, weight, bias, empty]),
        "member twice": zipped([*members, members[1]]),
        "header twice": zipped([members[0], *members]),
        "array called header": forged(listed=[["header", "|u1", [3]], weight, bias, empty]),
        "array missing": zipped(members[:-1]),
        "array missing from the list": forged(listed=[weight, bias]),
        "array in the list alone": forged(listed=[weight, bias, empty, ["more", "<f4", [1]]]),
        "arrays exchanged": forged(listed=[bias, weight, empty]),
        "additional member": zipped([*members, ("more.npy", npy(np.ones(1)))]),
        "overlapping members": overlapping(whole),
        "directory with a foreign name": b"other.npy".join(whole.rsplit(b"empty.npy", 1)),
        "comment at the end": whole[:-2] + b"\5\0hello",
        "zip with something before it": b"#!/bin/sh\nexit 1\n" + whole,
        "wrong digest": forged({"sha256": "0" * 64}),
        "no digest": forged({"sha256": None}),
        "newer format": forged({"format": checkpoint.FORMAT + 1, "tinygan": "9.1"}),
        "newer format from an attacker": forged({"format": 99, "tinygan": "\x1b[2J\n" * 1000}),
        "older format": forged({"format": 1}), "format zero": forged({"format": 0}),
        "format true": forged({"format": True}), "format as text": forged({"format": "2"}),
        "savez": zipped([("x.npy", npy(np.ones(3)))]), "npy": npy(np.ones(3)), "text": b"just text",
        "empty file": b"", "zeros": bytes(1000), "only an end record": b"PK\5\6" + bytes(18),
        "many members": many(60_000)}
    for number, name in enumerate(NAMES):
        files[f"name {number}"] = forged(listed=[[name, "<f4", [2, 3]], bias, empty])
        files[f"member name {number}"] = whole.replace(b"net/weight",
                                                       name.encode()[:10].ljust(10, b"x"))
    for number, (name, content) in enumerate(files.items()):
        (folder / f"{number}.npz").write_bytes(content)
    return {name: folder / f"{number}.npz" for number, name in enumerate(files)}


def overlapping(whole):
    """The directory says that the last array lies where the first one does."""
    ends = [m.header_offset for m in zipfile.ZipFile(io.BytesIO(whole)).infolist()]
    place = whole.rindex(b"empty.npy") - 4
    assert whole[place:place + 4] == struct.pack("<I", ends[-1])
    return whole[:place] + struct.pack("<I", ends[1]) + whole[place + 4:]


def many(n):
    """A directory of n entries, and nothing else."""
    entry = b"PK\1\2" + bytes(42)
    return entry * n + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, n, n, len(entry) * n, 0, 0)


SAYS = {
    "newer format": "written by tinygan '9.1', format 3; this version reads format 2: update",
    "newer format from an attacker": "format 99", "older format": "format 1; this version",
    "array missing from the list": "checksum", "array in the list alone": "checksum",
    "arrays exchanged": "checksum", "header of 2 GiB": "does not start with a header",
    "oversized header": "a header of 2097", "wrong digest": "checksum", "no digest": "checksum",
    "other shape": "checksum", "huge shape": "'net/weight' goes beyond the end of the file",
    "shape of half a GiB": "'net/weight' goes beyond the end of the file",
    "object array": "an array 'net/weight' of '|O', which no checkpoint holds",
    "array twice in the list": "checksum", "overlapping members": "changed or damaged",
    "empty file": "not a checkpoint", "savez": "not a checkpoint",
    "many members": "not a checkpoint", "array called header": "which no checkpoint holds",
    "name 3": r"\.\./x"}

LIMITED = """
import json, resource, sys, time
from tinygan.training import checkpoint
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
limit = used + 2**26  # 64 MiB more
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
results = {}
try:
    bytes(2**27)
except MemoryError:
    results[""] = limit
for path in json.load(sys.stdin):
    start = time.perf_counter()
    try:
        checkpoint.load(path)
        told = "loaded"
    except BaseException as fault:
        told = f"{type(fault).__name__}: {fault}"
    results[path] = [told, time.perf_counter() - start]
json.dump(results, sys.stdout)
"""


def child(script, given=None):
    """What a script prints as JSON, in a process of its own with one BLAS thread."""
    done = subprocess.run([sys.executable, "-c", script], input=json.dumps(given),
                          capture_output=True, text=True, timeout=300,
                          env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs RLIMIT_AS and /proc")
def test_a_strangers_file_is_refused_at_once_in_little_memory_and_nothing_runs(strangers, file):
    paths = [str(path) for path in strangers.values()]
    results = child(LIMITED, [*paths, str(file)])
    assert results.pop("") < 2**30 and results.pop(str(file))[0] == "loaded"
    for name, path in strangers.items():
        told, seconds = results[str(path)]
        assert told.startswith("CheckpointError: "), (name, told, seconds)
        assert "MemoryError" not in told and seconds < 1, (name, told, seconds)
        assert len(told) < 400 and told.isprintable(), (name, told)
        assert re.search(SAYS.get(name, ""), told), (name, told)
    assert not os.path.exists(Canary.path)


def test_the_canary_sings_where_pickles_are_allowed(strangers):
    np.load(strangers["pickle in the header"], allow_pickle=True)["header"]
    assert os.path.exists(Canary.path)
    os.unlink(Canary.path)


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path):
    refused(tmp_path / "x.npz", "no such file")
    refused(tmp_path / ("x" * 300), "File name too long")
    refused(tmp_path, "not a regular file")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "not a regular file")
    refused("/dev/zero", "not a regular file")
    os.symlink("loop", tmp_path / "loop")
    refused(tmp_path / "loop", "symbolic links")


def test_an_error_can_be_pickled_as_it_is_between_processes(tmp_path):
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(tmp_path / "x.npz")
    copied = pickle.loads(pickle.dumps(caught.value))
    assert str(copied) == str(caught.value) and copied.reason == "no such file"
    assert copied.path == tmp_path / "x.npz"


def test_a_file_that_cannot_be_held_says_so(file, monkeypatch):
    def full(*arguments):
        raise MemoryError

    monkeypatch.setattr(checkpoint.np, "empty", full)
    refused(file, "does not fit into memory")


def test_the_documents_reader_refuses_changed_numbers_too(file):
    arrays = {**ARRAYS, "net/bias": np.array(0.75)}
    file.write_bytes(forged({"sha256": checkpoint.load(file)[0]["sha256"]}, arrays=arrays))
    refused(file, "checksum")
    with pytest.raises(AssertionError):
        document_reader()(file)


# ------------------------------------------------------------------------------------------- faults


class Faults:
    """For ``open`` and ``os`` in ``checkpoint``: the n-th call that touches the disk fails."""

    TOUCHING = ("fsync", "replace", "chmod", "open", "stat", "listdir")

    def __init__(self, monkeypatch, nth, code):
        self.left, self.code, self.called = nth, code, []
        for name in self.TOUCHING:
            monkeypatch.setattr(checkpoint.os, name, self.counted(name, getattr(os, name)))
        monkeypatch.setattr(checkpoint, "open", self.opened, raising=False)

    def counted(self, name, call):
        def counting(*arguments, **options):
            self.count(name)
            return call(*arguments, **options)
        return counting

    def count(self, name):
        self.called.append(name)
        self.left -= 1
        if self.left == 0:
            raise OSError(self.code, os.strerror(self.code))

    def opened(self, *arguments):
        self.count("open file")
        return FaultyFile(open(*arguments), self)


class FaultyFile:
    def __init__(self, file, faults):
        self.file, self.faults = file, faults

    def write(self, content):
        try:
            self.faults.count("write")
        except OSError:
            # A disk fills in the middle of something
            self.file.write(bytes(content)[:len(content) // 2])
            raise
        self.file.write(content)

    def writelines(self, parts):
        for part in parts:
            self.write(part)

    def flush(self):
        self.faults.count("flush")
        self.file.flush()

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *fault):
        self.file.close()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
@pytest.mark.parametrize("fresh", [False, True])
def test_a_fault_at_any_call_costs_nothing(fresh, code, file, monkeypatch):
    arrays = {"net/weight": np.ones((5, 5)), "more": np.zeros(3)}
    nth, seen = 0, set()
    while True:
        nth += 1
        file.unlink() if fresh else checkpoint.save(file, HEADER, ARRAYS)
        with monkeypatch.context() as patch:
            faults = Faults(patch, nth, code)
            try:
                checkpoint.save(file, HEADER, arrays)
                failed = None
            except OSError as fault:
                failed = fault
        if failed is None:
            break
        assert failed.errno == code and failed.filename == str(file), faults.called
        seen.add(faults.called[-1])
        done = "replace" in faults.called[:-1]  # then only the folder was not flushed
        assert os.listdir(file.parent) == (["x.npz"] if done or not fresh else []), faults.called
        if file.exists():
            assert same(checkpoint.load(file), HEADER, arrays if done else ARRAYS), faults.called
        else:
            checkpoint.save(file, {}, {})
    assert {"open file", "write", "flush", "fsync", "replace", "open", "listdir"} <= seen
    assert faults.called.count("fsync") == 2  # of the file and of its folder
    assert fresh or {"chmod", "stat"} <= seen
    assert same(checkpoint.load(file), HEADER, arrays) and os.listdir(file.parent) == ["x.npz"]
    assert nth > 10


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EACCES])
def test_a_folder_that_cannot_be_flushed_is_no_fault(code, file, monkeypatch):
    real = os.fsync

    def fsync(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(code, os.strerror(code))
        real(handle)

    monkeypatch.setattr(checkpoint.os, "fsync", fsync)
    checkpoint.save(file, {}, {"new": np.ones(1)})
    assert "new" in checkpoint.load(file)[1]


FILE_SIZE = """
import json, os, resource, sys
import numpy as np
from tinygan.training import checkpoint
path = json.load(sys.stdin)
told = []
for limit in range(0, 60_000, 1500):  # bytes that a file may have: a real write fails
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        checkpoint.save(path, {"new": limit}, {"x": np.ones(5000), "y": np.ones(2000)})
        told.append("")
    except OSError as fault:
        told.append(fault.filename)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    names = os.listdir(os.path.dirname(path))
    header = checkpoint.load(path)[0]
    assert names == ["x.npz"], (limit, names)
    assert header["new"] == limit if told[-1] == "" else "state" in header, limit
json.dump(told, sys.stdout)
"""


@pytest.mark.skipif(os.name == "nt", reason="needs RLIMIT_FSIZE")
def test_a_file_that_may_not_grow_leaves_the_old_one(file):
    told = child(FILE_SIZE, str(file))
    assert told == [str(file)] * (told.index("")) + [""] * (len(told) - told.index(""))
    assert 30 < told.index("") < 40


def test_an_interrupted_write_leaves_the_old_file(file):
    def interrupted(stream):
        stream.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checkpoint.write_atomically(file, interrupted)
    assert same(checkpoint.load(file)) and os.listdir(file.parent) == ["x.npz"]


def test_a_read_only_and_a_vanished_folder(tmp_path):
    with tempfile.TemporaryDirectory() as outside:  # one that everybody may enter
        os.chmod(outside, 0o755)
        path = Path(outside) / "run" / "x.npz"
        with pytest.raises(FileNotFoundError) as fault:
            checkpoint.save(path, {}, {})
        assert fault.value.filename == str(path)
        path.parent.mkdir()
        checkpoint.save(path, HEADER, ARRAYS)
        path.parent.chmod(0o555)
        root = os.geteuid() == 0  # whom permissions do not bind
        if root:
            os.chmod(path, 0o644)
            os.seteuid(65534)
        try:
            with pytest.raises(PermissionError) as fault:
                checkpoint.save(path, {}, {})
            assert fault.value.filename == str(path) and same(checkpoint.load(path))
        finally:
            if root:
                os.seteuid(0)
            path.parent.chmod(0o755)
        assert os.listdir(path.parent) == ["x.npz"]


KILLED = """
import json, os, random, signal, sys, time
import numpy as np
from tinygan.training import checkpoint
path, kills = json.load(sys.stdin)
folder, left_behind, steps = os.path.dirname(path), 0, []
content = np.random.default_rng(0).random(2**18)
for kill in range(kills):
    reader, writer = os.pipe()
    loop = os.fork()
    if loop == 0:
        for step in range(10**9):
            arrays = {"x": content + step, "step": np.array(step)}
            checkpoint.save(path, {"kill": kill, "step": step}, arrays)
            if step == 0:
                os.write(writer, b"!")
    os.read(reader, 1)
    time.sleep(random.random() * 0.05)
    os.kill(loop, signal.SIGKILL)
    os.waitpid(loop, 0)
    os.close(reader), os.close(writer)
    header, arrays = checkpoint.load(path)
    step = header["step"]
    assert header["kill"] == kill and arrays["step"] == step
    assert np.array_equal(arrays["x"], content + step)
    left_behind += len(os.listdir(folder)) - 1
    checkpoint.save(path, {}, {})
    assert os.listdir(folder) == ["x.npz"], os.listdir(folder)
    steps.append(step)
json.dump([left_behind, steps], sys.stdout)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("thorough", [False, EVERY])
def test_a_process_killed_while_it_saves_leaves_a_whole_file(thorough, tmp_path):
    left_behind, steps = child(KILLED, [str(tmp_path / "x.npz"), 200 if thorough else 15])
    assert left_behind > 0 and len(set(steps)) > 1  # some died in the middle, at different moments


# ---------------------------------------------------------------------------------- beside the file


def test_what_dead_processes_left_is_removed_and_nothing_else(file):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    stale = [f".x.npz.{dead.pid}.tmp", f".x.npz.{os.getpid()}.tmp"]
    kept = [f".x.npz.{os.getppid()}.tmp", f".y.npz.{dead.pid}.tmp", f".x.npz.{dead.pid}.tmp2",
            f"x.npz.{dead.pid}.tmp", ".x.npz.tmp", f".xxnpz.{dead.pid}.tmp",
            ".x.npz.9999999999.tmp", "notes.txt"]
    for name in stale + kept:
        (file.parent / name).write_text("")
    checkpoint.save(file, HEADER, ARRAYS)
    assert sorted(os.listdir(file.parent)) == sorted(["x.npz", *kept])


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_permissions_are_kept_or_those_of_the_umask(tmp_path):
    before, modes = os.umask(0o027), []
    try:
        checkpoint.save(tmp_path / "x.npz", HEADER, ARRAYS)
        assert stat.S_IMODE((tmp_path / "x.npz").stat().st_mode) == 0o640
        for mode in (0o600, 0o664, 0o444):
            os.chmod(tmp_path / "x.npz", mode)
            checkpoint.write_atomically(tmp_path / "x.npz",
                                        lambda file: modes.append(os.fstat(file.fileno()).st_mode))
            assert stat.S_IMODE((tmp_path / "x.npz").stat().st_mode) == mode
            assert stat.S_IMODE(modes.pop()) == mode
    finally:
        os.umask(before)


def test_a_link_stays_a_link_and_a_pipe_a_pipe(file, tmp_path):
    (tmp_path / "there").mkdir()
    os.symlink("there/y.npz", tmp_path / "link.npz")  # to nothing yet
    for header in ({"step": 1}, {"step": 2}):
        checkpoint.save(tmp_path / "link.npz", header, {})
        assert checkpoint.load(tmp_path / "there" / "y.npz")[0]["step"] == header["step"]
    assert os.readlink(tmp_path / "link.npz") == "there/y.npz"
    assert os.listdir(tmp_path / "there") == ["y.npz"]
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path / "there"):
        with pytest.raises(OSError, match="not a regular file") as fault:
            checkpoint.save(path, HEADER, ARRAYS)
        assert fault.value.filename == str(path)
    assert sorted(os.listdir(tmp_path)) == ["link.npz", "pipe", "there", "x.npz"]


def test_a_planted_link_in_the_temporary_files_place_is_not_followed(file, tmp_path):
    (tmp_path / "victim").write_text("mine")
    os.symlink("victim", tmp_path / f".x.npz.{os.getpid()}.tmp")
    checkpoint.save(file, HEADER, ARRAYS)
    assert (tmp_path / "victim").read_text() == "mine" and same(checkpoint.load(file))
    assert sorted(os.listdir(tmp_path)) == ["victim", "x.npz"]


# ------------------------------------------------------------------------ files of earlier versions


@pytest.mark.parametrize("name", ["wgan-gp-ring", "wgan-points", "path-length-images"])
def test_a_file_of_version_0_1_0_loads_samples_and_goes_on_as_it_did_then(name):
    """Saved at step 6 of 12; ``expected.npz`` holds its samples then and after step 12."""
    with np.load(EARLIER / "expected.npz") as file:
        expected = {key.removeprefix(f"{name}/"): a
                    for key, a in file.items() if key.startswith(f"{name}/")}
    gan = GAN.load(EARLIER / f"{name}.npz", X=expected.get("data", "ring"))
    assert gan.run_.step == 6 and len(gan.history_["step"]) == 6
    for what, rounding in (("samples", 1e-5), ("after", 1e-3)):
        samples = gan.sample(5, seed=1)
        size = np.abs(expected[what]).max()
        assert samples.dtype == expected[what].dtype
        np.testing.assert_allclose(samples.astype(float), expected[what].astype(float), rtol=0,
                                   atol=1 if samples.dtype == np.uint8 else rounding * size)
        for _ in gan.run_.train():
            pass
    assert gan.run_.step == 12
    # The training does go on
    assert np.abs(expected["samples"] - 1.0 * expected["after"]).max() > 2e-3 * size


@pytest.mark.parametrize("path", sorted(EARLIER.glob("*-*.npz")), ids=lambda path: path.stem)
def test_a_file_of_version_0_1_0_is_written_again_byte_for_byte(path, tmp_path):
    header, arrays = checkpoint.load(path)
    assert header["sha256"] == checkpoint.digest(header, arrays)
    checkpoint.save(tmp_path / "again.npz", header, arrays)
    assert (tmp_path / "again.npz").read_bytes() == path.read_bytes()
