"""Damaged and hostile files of every kind: the right data or one clear error, at little cost.

A process of its own, under an address-space limit, an alarm and an audit hook, mutates valid files
and reads them. What is read is compared with what another reader makes of the same bytes. By hand:
``python tests/test_fuzz.py CASES SEED``.
"""

import contextlib
import gzip
import io
import json
import os
import re
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinygan import data
from tinygan.training.checkpoint import CheckpointError
from tinygan.app.cli import main
from tinygan.data import DataError, files
from tinygan.data.images import ENDINGS
from tinygan.training.estimator import GAN

MEMORY = 2**28  # bytes that reading a file of some kilobytes may add
SECONDS = 5  # of computing for one file, which takes a millisecond as a rule; of waiting, a minute
RNG = np.random.default_rng(7)
POINTS, PIXELS = RNG.normal(size=(12, 3)), RNG.integers(0, 256, (5, 9, 8), np.uint8)


def written(save, *arguments, **named):
    stream = io.BytesIO()
    save(stream, *arguments, **named)
    return stream.getvalue()


def picture(mode, ending, **how):
    wide = {"RGBA": 4, "LA": 2, "RGB": 3}.get(mode)
    pixels = RNG.integers(0, 256, (9, 12, wide) if wide else (9, 12), np.uint8)
    converted = mode in ("P", "I;16")
    made = Image.fromarray(pixels).convert(mode) if converted else Image.fromarray(pixels, mode)
    return written(made.save, ending, **how)


def idx(pixels):
    return struct.pack(">4B3I", 0, 0, 8, 3, *pixels.shape) + pixels.tobytes()


def table(separator, *lines, **how):
    rows = [separator.join(f"{x:.6g}" for x in row) for row in POINTS]
    return "\n".join([*lines, *rows]).encode(**how)


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Pillow's, of the modes
    FILES = {  # name -> valid contents
        "f4.npy": written(np.save, POINTS.astype("f4")),
        "big.npy": written(np.save, POINTS.astype(">f8")),
        "fortran.npy": written(np.save, np.asfortranarray(POINTS)),
        "i2.npy": written(np.save, (POINTS * 99).astype("i2")),
        "images.npy": written(np.save, PIXELS),
        "v2.npy": written(np.lib.format.write_array, POINTS, version=(2, 0)),
        "v3.npy": written(np.lib.format.write_array, POINTS[:, 0], version=(3, 0)),
        "one.npz": written(np.savez, POINTS),
        "two.npz": written(np.savez, samples=POINTS, more=PIXELS),
        "packed.npz": written(np.savez_compressed, X=POINTS),
        "images.npz": written(np.savez_compressed, PIXELS), "plain.csv": table(","),
        "named.csv": table(",", "a,b,c"), "semicolon.csv": table(";"), "tab.csv": table("\t"),
        "bom.csv": table(",", encoding="utf-8-sig"),
        "quoted.csv": table(",", '"a","b","c"', '"1","2","3"'),
        "years.csv": table(",", '"2019","2020","2021"'), "tab.tsv": table("\t"),
        "named.txt": table(";", "a;b;c"),
        "packed.csv.gz": gzip.compress(table(",", "a,b,c"), mtime=0), "raw-idx3-ubyte": idx(PIXELS),
        "packed-idx3-ubyte.gz": gzip.compress(idx(PIXELS), mtime=0),
        "grey.png": picture("L", "png"), "colour.png": picture("RGB", "png"),
        "alpha.png": picture("RGBA", "png"), "palette.png": picture("P", "png", transparency=3),
        "deep.png": picture("I;16", "png"), "grey.gif": picture("L", "gif"),
        "grey.bmp": picture("L", "bmp"), "deep.tif": picture("I;16", "tiff"),
        "packed.tiff": picture("RGB", "tiff", compression="tiff_lzw"),
        "colour.webp": picture("RGB", "webp"), "grey.jpg": picture("L", "jpeg"),
        "colour.jpeg": picture("RGB", "jpeg", quality=20, progressive=True),
        "turned.jpg": picture("RGB", "jpeg",
                              exif=b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6" + bytes(7))}


def trained():
    """The bytes of a small checkpoint, and of one of images."""
    made = []
    for X in (POINTS, PIXELS[:, :8]):
        with tempfile.TemporaryDirectory() as folder:
            gan = GAN(steps=1, width=4, depth=1, batch=4, n_critic=1)
            gan.prepare(X)
            gan.save(Path(folder) / "x.npz")
            made.append((Path(folder) / "x.npz").read_bytes())
    return made


# ---------------------------------------------------------------------------------------- mutations

NUMBERS = [0, 1, 2, 127, 128, 255, 256, 10**4, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1,
           2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
TOKENS = [b"1e999", b"-1e999", b"nan", b"inf", b"", b"-1", b"0", b"1_0", b"0x10", b"1e-400",
          b"9" * 30, b"1" * 5000, b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b'"', b"'", b",", b";",
          b"\t", b"\r", b"\n", b"\n\n", b",,,,", b"\xd9\xa1", b"True", b"|O", b"<c8", b"V8", b"S9",
          b"<U1000000000", b"(('a','<f4'),)", b"{", b"(" * 200, b"\\x41", b"1if 1else 2", b"..",
          b"/etc/passwd", b"IHDR", b"IDAT", b"IEND", b"zTXt", b"PK\1\2", b"PK\5\6", b"\xff\xd8",
          b"\xff\xd9", b"\xff\xc2", b"\x1f\x8b"]


def mutated(content, other, rng):
    """One to three changes of a file's bytes, and sometimes of what a checksum says about them."""
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        length = max(1, len(content))
        at, to = sorted(int(x) for x in rng.integers(0, length, 2))
        if rng.random() < 0.5:  # headers are at the front, a zip's at the end too
            at = int(rng.choice([at % 200, max(0, len(content) - 1 - at % 200)]))
        match int(rng.integers(9)):
            case 0:
                content = content[:at]
            case 1:
                flipped = bytes(byte ^ 1 << int(rng.integers(8)) for byte in content[at:at + 1])
                content = content[:at] + flipped + content[at + 1:]
            case 2:
                size, order = int(rng.choice([1, 2, 4, 8])), str(rng.choice(["little", "big"]))
                number = (NUMBERS[rng.integers(len(NUMBERS))] % 256**size).to_bytes(size, order)
                content = content[:at] + number + content[at + size:]
            case 3:
                content = content[:at] + content[to:]
            case 4:
                content = content[:at] + content[at:to] * int(rng.integers(2, 5)) + content[to:]
            case 5:
                start = int(rng.integers(len(other)))
                end = start + int(rng.integers(1, 200))
                content = content[:at] + other[start:end] + content[to:]
            case 6:
                content = content[:at] + TOKENS[rng.integers(len(TOKENS))] + content[at:]
            case 7:  # a number or a word in the place of another
                words = list(re.finditer(rb"-?\d[\d.e-]*|'[^']*'|\w{3,}", content[:4000]))
                if words:
                    word = words[rng.integers(len(words))]
                    token = TOKENS[rng.integers(len(TOKENS))]
                    content = content[:word.start()] + token + content[word.end():]
            case 8:
                content = content[:at] + rng.bytes(int(rng.integers(1, 20))) + content[to:]
    return repaired(content) if rng.random() < 0.5 else content


def repaired(content):
    """PNG chunks with the right CRC-32, so that damage gets past it."""
    if content[:8] != b"\x89PNG\r\n\x1a\n":
        return content
    pieces, at = [content[:8]], 8
    while at + 8 <= len(content):
        length = int.from_bytes(content[at:at + 4], "big")
        chunk = content[at + 4:at + 8 + length]
        pieces += [content[at:at + 4], chunk, zipfile.crc32(chunk).to_bytes(4, "big")]
        at += 12 + length
    return b"".join(pieces)


# ------------------------------------------------------------------------ what another reader finds


def other_array(path):
    if path.suffix == ".npy":
        return np.load(path, allow_pickle=False)
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".npy")]
        name = next((name for name in names if name in ("samples.npy", "X.npy")), names[0])
        return np.lib.format.read_array(io.BytesIO(archive.read(name)), allow_pickle=False)


def other_numbers(path):
    text = content(path).decode("utf-8-sig")
    lines = [line for line in re.split("[\r\n]+", text) if line.strip('" ,;\t')]
    mark = next(mark for mark in ("\t", ";", ",", None) if mark is None or mark in lines[0])
    quoted = all(x.strip().startswith('"') for x in lines[0].split(mark)) and '"' not in lines[1]
    lines = [[x.replace('"', "").strip() for x in line.split(mark)] for line in lines]
    number = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
    header = quoted or not any(map(number.fullmatch, lines[0])) or not lines[0][0]
    numbers = np.array([[float(x) for x in line] for line in lines[header:]])
    index = np.arange(len(numbers)) + int(numbers[0, 0] == 1)
    return numbers[:, int(header and not lines[0][0] and (numbers[:, 0] == index).all()):]


def other_pixels(path):
    whole = content(path)
    shape = struct.unpack(f">{whole[3]}I", whole[4:4 + 4 * whole[3]])
    return np.frombuffer(whole[4 + 4 * whole[3]:], np.uint8).reshape(shape)


def content(path):
    """The bytes of a file, unpacked."""
    whole = path.read_bytes()
    return gzip.decompress(whole) if whole[:2] == b"\x1f\x8b" else whole


def read_and_compare(path):
    """Load it or raise its error; AssertionError if another reader finds other data in it."""
    told = []
    if path.suffix == ".npz" and path.stem.startswith("checkpoint"):
        GAN.load(path)
        raise AssertionError("a changed checkpoint is loaded")
    if path.parent.name == "pictures":
        loaded = data.load(path.parent, size=8, report=told.append)
        assert loaded.pixels.shape in ((2, 1, 8, 8), (3, 1, 8, 8))
        assert len(told) == 3 - len(loaded.pixels)
        assert all("\n" not in line and line.count("skipped 1 of 3") for line in told), told
        if told:
            raise DataError(told[0])
        return
    loaded = data.load(path)
    assert np.isfinite(loaded.mean).all() and np.isfinite(loaded.scale).all()
    assert (loaded.scale > 0).all()
    assert np.isfinite(loaded.draw(np.random.default_rng(0), 4)).all()
    if path.suffix in (".npy", ".npz"):
        with warnings.catch_warnings():
            # Of the other reader's, about headers that Python 2 wrote
            warnings.simplefilter("ignore")
            array = other_array(path)
        np.testing.assert_array_equal(files.read(path), array)
        assert loaded.dim == int(np.prod(array.shape[1:]))
    elif files.kind(path) in (".csv", ".tsv", ".txt"):
        np.testing.assert_array_equal(files.read(path), other_numbers(path))
    else:
        np.testing.assert_array_equal(loaded.pixels[:, 0], other_pixels(path))


# -------------------------------------------------------------------------------------- the process


def audit(forbidden, event, arguments):
    """Note whatever could run code, start a process or write a file."""
    if event in ("exec", "pickle.find_class", "os.system", "subprocess.Popen", "os.exec",
                 "os.posix_spawn", "os.fork", "marshal.loads", "socket.connect", "ctypes.dlopen"):
        forbidden.append(f"{event} {str(arguments)[:80]}")
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & writing:
        forbidden.append(f"open {arguments}")


def ring(signum, frame):
    raise TimeoutError("takes too long")


def command(path, forbidden):
    """The exit code of ``tinygan train FILE`` or ``sample FILE``: one line, nothing else."""
    out, err = io.StringIO(), io.StringIO()
    arguments = ["train", str(path)]
    if path.stem.startswith("checkpoint"):
        arguments = ["sample", str(path), "-o", "new.npy"]
    before = os.listdir(".")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    assert out.getvalue() == "" and os.listdir(".") == before, (out.getvalue(), os.listdir("."))
    told = err.getvalue()
    assert told.startswith("tinygan: ") and told[:-1].isprintable() and told[-1] == "\n", told
    assert len(told) < 1000, told
    return code


def guard():
    """Little memory and no warnings from now on; (what the audit hook notes, [does it listen?])."""
    forbidden, listening = [], [False]
    sys.addaudithook(lambda event, arguments: audit(forbidden, event, arguments)
                     if listening[0] else None)
    signal.signal(signal.SIGALRM, ring)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    try:
        bytes(2 * MEMORY)
        raise SystemExit("there is no limit")
    except MemoryError:
        pass
    warnings.simplefilter("error")
    return forbidden, listening


def work(cases, seed):
    """Mutate and read; {kind: [read, refused]}, the longest time, the failures."""
    os.chdir(tempfile.mkdtemp())
    os.mkdir("pictures")
    contents = FILES | dict(zip(("checkpoint-points.npz", "checkpoint-images.npz"), trained()))
    for name in ("a.png", "b.png"):
        Path("pictures", name).write_bytes(FILES["colour.png"])
    paths = {name: Path("pictures" if name.endswith(ENDINGS) else ".", name).absolute()
             for name in contents}
    # The valid ones: a proof that they are, and whatever is loaded late is loaded now
    for name, path in paths.items():
        path.write_bytes(contents[name])
        refused = AssertionError if name.startswith("checkpoint") else ()
        with contextlib.suppress(refused):
            read_and_compare(path)
        path.unlink()
        command(path.with_name("nowhere.csv"), [])
        command(path.with_name("checkpoint-nowhere.npz"), [])
    forbidden, listening = guard()
    rng, counts, failures, longest, names = np.random.default_rng(seed), {}, [], 0.0, list(contents)
    for case in range(cases):
        name, other = names[case % len(names)], names[rng.integers(len(names))]
        path = paths[name]
        content = mutated(contents[name], contents[other], rng)
        if content == contents[name]:
            continue
        path.write_bytes(content)
        kind = "checkpoint" if name.startswith("checkpoint") else path.suffix.lstrip(".") or "idx"
        count, started = counts.setdefault(kind, [0, 0]), time.process_time()
        signal.alarm(60)
        listening[0] = True
        try:
            read_and_compare(path)
            count[0] += 1
        except (DataError, CheckpointError) as fault:
            count[1] += 1
            picture = path.parent.name == "pictures"
            said = str(fault)
            if "\n" in said or len(said) > 700 or "fit into memory" in said and not picture:
                failures.append([case, name, said])
            elif case % 4 == 0 and not picture:
                with np.errstate(all="raise"):
                    code = command(path, forbidden)
                if code != (4 if kind == "checkpoint" else 2):
                    failures.append([case, name, f"exit code {code}"])
        except BaseException as fault:
            failures.append([case, name, f"{type(fault).__name__}: {fault}"[:500],
                             repr(content)[:1000]])
        listening[0] = False
        signal.alarm(0)
        longest = max(longest, time.process_time() - started)
        failures += [[case, name, event] for event in forbidden]
        forbidden.clear()
        path.unlink()
    return {"counts": counts, "longest": longest, "failures": failures}


def started(*arguments):
    """What this file prints as JSON, run in a process of its own."""
    done = subprocess.run([sys.executable, __file__, *map(str, arguments)], capture_output=True,
                          text=True, env=os.environ
                          | {"PYTHONPATH": os.getcwd(), "OPENBLAS_NUM_THREADS": "1"})
    # Lines of libtiff's and Pillow's
    own = re.compile("_?TIFF|LZW|tempfile.tif|More samples per pixel")
    told = [line for line in done.stderr.splitlines() if not own.match(line)]
    assert done.returncode == 0 and told == [], done.stderr
    return json.loads(done.stdout)


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs RLIMIT_AS and /proc")


@linux
@pytest.mark.parametrize("cases", [1000, pytest.param(30_000, marks=pytest.mark.thorough)])
def test_damaged_files_give_the_right_data_or_one_clear_error(cases):
    found = started(cases, np.random.SeedSequence().entropy if cases > 1000 else 0)
    print(found)
    assert found["failures"] == [] and found["longest"] < SECONDS
    assert sum(map(sum, found["counts"].values())) > 0.95 * cases
    for kind, (read, refused) in found["counts"].items():
        assert refused > 0 and (read > 0 or kind in ("checkpoint", "gz")), found["counts"]


# ------------------------------------------------------------------------------------- made by hand


def header(text, version=1):
    """An .npy file's beginning with any text for its header."""
    text = text.encode()
    length = len(text).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + text


def claim(shape, descr="<f8", version=1):
    return header(f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}\n", version)


def zipped(*members, how=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", how) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of double names
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()


def lying(content, size):
    """A zip archive of one member whose directory says another size."""
    at = content.rindex(b"PK\1\2")
    return content[:at + 20] + struct.pack("<2I", size, size) + content[at + 28:]


def png(width, height, content=b"", more=b""):
    """A PNG of any size with any compressed content."""
    def chunk(name, content):
        checksum = zipfile.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)

    head = struct.pack(">2I5B", width, height, 8, 6, 0, 0, 0)
    chunks = chunk(b"IHDR", head) + more + chunk(b"IDAT", content) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def patched(name, place, content):
    """A valid file with other bytes in one place."""
    return FILES[name][:place] + content + FILES[name][place + len(content):]


def canary(path):
    """A pickle that makes a file when it is read."""
    return b"cbuiltins\nopen\n(V" + str(path).encode() + b"\nVw\ntR."


def hostile(folder):
    """{name: (contents, what is said)}."""
    zeros = bytes(17 * 2**20)
    objects = claim((2,), "|O") + canary(folder / "canary")
    good = claim((2, 2)) + bytes(32)
    return {
        "pickle.npy": (canary(folder / "canary"), "damaged"),
        "objects.npy": (objects, "Python objects"),
        "objects.npz": (zipped(("X.npy", objects)), "Python objects"),
        "pickle.csv": (canary(folder / "canary"), "line"),
        "huge.npy": (claim((2**40, 2)), "cut off"),
        "overflow.npy": (claim((2**62, 2**62)), "cut off"),
        "digits.npy": (claim("(" + "9" * 5000 + ",)"), "damaged"),
        "negative.npy": (claim((-1, 2)), "damaged"),
        "twice.npy": (claim((-2, -2)) + bytes(32), "damaged"),
        "nothing.npy": (claim((2**62, 2), "|V0"), "damaged"),
        "void.npy": (claim((2**40, 0)), "expected shape"),
        "many.npy": (claim((1,) * 70) + bytes(8), "damaged"),
        "text.npy": (claim((1,), "<U500000000"), "cut off"),
        "time.npy": (claim((2,), "<M8[s]") + bytes(16), "dtype"),
        "complex.npy": (claim((2,), "<c16") + bytes(32), "dtype"),
        "extra.npy": (good + b"x", "more than one array"),
        "struct.npy": (claim((2,), [("a", "<f4")]) + bytes(8), "dtype"),
        "subarray.npy": (claim((2,), ("<f4", (2**20,))), "cut off"),
        "deep.npy": (header("(" * 3000 + ")" * 3000), "damaged"),
        "code.npy": (header("open('canary', 'w')"), "damaged"),
        "escape.npy": (header("{'descr': '\\d', 'fortran_order': False, 'shape': (1if 1else 2,)}"),
                       "damaged"),
        "python2.npy": (header("{'descr': '<f8', 'fortran_order': False, 'shape': (2L, 2L)}")
                        + bytes(32), ""),
        "long.npy": (header(" " * 2**24, 2), "damaged"),
        "version.npy": (header("{}", 9), "damaged"),
        "long.npz": (zipped(("X.npy", header(" " * 2**24, 2)), how=zipfile.ZIP_DEFLATED),
                     "inflate|damaged"),
        "bomb.npz": (zipped(("X.npy", claim((len(zeros) // 8,)) + zeros), how=zipfile.ZIP_DEFLATED),
                     "inflate"),
        "bzip2.npz": (zipped(("X.npy", good), how=zipfile.ZIP_BZIP2), "does not write"),
        "lzma.npz": (zipped(("X.npy", good), how=zipfile.ZIP_LZMA), "does not write"),
        "double.npz": (zipped(("X.npy", good), ("X.npy", good)), ""),
        "path.npz": (zipped(("../../X.npy", good)), ""),
        "absolute.npz": (zipped(("/etc/X.npy", good)), ""),
        "members.npz": (zipped(*((f"{i}.npy", b"") for i in range(5000))), "one array"),
        "lying.npz": (lying(zipped(("X.npy", claim((2**28,)))), 2**31 + 80), "cut off|damaged"),
        "short.npz": (lying(zipped(("X.npy", good)), 2**20), "cut off|damaged"),
        "line.csv": (b"1," * 200_000 + b"1\n" + b"2," * 200_000 + b"2\n", ""),
        "field.csv": (b"1" * 2**21, "damaged"), "blank.csv": (b"\n" * 2**19, "is empty"),
        "commas.csv": (b"," * 2**20, "no points|empty"),
        "nul.csv": (b"1,2\n3,\0\n", "line|damaged"),
        "quote.csv": (b'1,2\n"' + b"3,4\n" * 10**5, "damaged|line"),
        "utf16.csv": ("1,2\n3,4\n".encode("utf-16"), "save it as CSV in UTF-8"),
        "latin.csv": (b"caf\xe9,2\n3,4\n", "save it as CSV in UTF-8"),
        "overflow.csv": (b"1,2\n1e999,3\n", "1e999"), "large.csv": (b"1e308,2\n-1e308,3\n", ""),
        "under.csv": (b"1_0,2\n3,4\n", "1_0"), "escape.csv": (b"1,2\n\x1b[2J,3\n", "x1b"),
        "ragged.csv": (b"1,2\n3\n", "line 2"), "nan.csv": (b"nan,2\n3,4", "nan"),
        "magic-idx": (b"\0\0\x08\x03" + b"\xff" * 12, "at most"),
        "cut-idx": (b"\0\0\x08", "not an IDX"),
        "bomb-idx.gz": (gzip.compress(struct.pack(">4B3I", 0, 0, 8, 3, 2**20, 8, 8) + zeros, 1),
                        "inflate"),
        "endless-idx.gz": (gzip.compress(struct.pack(">4B3I", 0, 0, 8, 3, 2, 8, 8) + zeros, 1),
                           "more"),
        "name-idx.gz": (b"\x1f\x8b\x08\x08" + bytes(6) + b"x" * 2**20, "damaged"),
        "large.png": (png(2**31 - 1, 2**31 - 1), "pixels"), "wide.png": (png(10**8, 1), "pixels"),
        "bomb.png": (png(7000, 7000, gzip.zlib.compress(bytes(10**6))), ""),
        "empty.png": (b"", "PNG"), "zero.png": (png(0, 0), ""),
        "text.png": (png(8, 8, more=struct.pack(">I", 2**31 - 1) + b"zTXt"), ""),
        "script.png": (b"%!PS\n(x) run", "not a PNG, JPEG, WEBP, BMP, GIF or TIFF picture"),
        "text.csv.gz": (gzip.compress(b"1,2\n" * 2), ""),
        "bomb.csv.gz": (gzip.compress(zeros, 1), "inflate"),
        "bomb.csv": (gzip.compress(b"1,2\n" * 2**23), "inflate"),
        "large.gif": (patched("grey.gif", 6, b"\xff" * 4), "exceeds limit"),
        "large.bmp": (patched("grey.bmp", 18, b"\0\0\0\x40" * 2), "pixels"),
        "entries.tif": (b"II*\0\x08\0\0\0\xff\xff" + bytes(2**16), ""),
        "claim.tif": (b"II*\0\x08\0\0\0\1\0" + struct.pack("<2H2I", 273, 4, 2**31, 8) + bytes(9),
                      "")}


def meet(folder):
    """Of each hostile file what is said, what should be, how long it takes, and what it did."""
    folder = Path(folder)
    contents = hostile(folder)
    (folder / "pictures").mkdir()
    for name in ("a.png", "b.jpg", "c.webp"):  # Pillow and its readers are loaded now
        same = ("colour" if name == "c.webp" else "grey") + name[1:]
        (folder / "pictures" / name).write_bytes(FILES[same])
    data.load(folder / "pictures")
    for ending in (".npz", "-idx.gz"):
        array = zipped(("X.npy", claim((2, 2)) + bytes(32)))
        content = array if ending == ".npz" else gzip.compress(idx(PIXELS))
        (folder / f"valid{ending}").write_bytes(content)
        data.load(folder / f"valid{ending}")
        (folder / f"valid{ending}").unlink()
    for name, (content, _) in contents.items():
        place = folder / f"in {name}" if name.endswith(ENDINGS) else folder
        place.mkdir(exist_ok=True)
        (place / name).write_bytes(content)
    told, (forbidden, listening) = {}, guard()
    for name in contents:
        begun = time.process_time()
        signal.alarm(60)
        listening[0] = True
        try:
            data.load(folder / (f"in {name}" if name.endswith(ENDINGS) else name), report=str)
            said = "read"
        except BaseException as fault:
            said = f"{type(fault).__name__}: {fault}"
        listening[0] = False
        told[name] = said, contents[name][1], time.process_time() - begun, list(forbidden)
        forbidden.clear()
    signal.alarm(0)
    return told


@linux
def test_hostile_files_are_refused_at_once_within_little_memory_and_nothing_in_them_runs(tmp_path):
    for name, (said, says, seconds, forbidden) in started(tmp_path).items():
        assert seconds < 2 and forbidden == [], (name, said, seconds, forbidden)
        assert said.isprintable() and len(said) < 400, (name, said, seconds, forbidden)
        assert said.startswith("DataError: ") or said == "read" and not says, (name, said)
        assert "fit into memory" not in said and re.search(says, said), (name, said)
    assert not (tmp_path / "canary").exists()


@linux
def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path, capsys):
    """Pipes, devices, folders and links in a circle, by the names of every reader."""
    def refused(path, code=2):
        for arguments in (["train", str(path)], ["train", "mnist", "--data-dir", str(path)]):
            assert main(arguments) == code
            out, err = capsys.readouterr()
            assert out == "" and err.startswith("tinygan: ") and err.count("\n") == 1
            assert str(path) in err

    signal.signal(signal.SIGALRM, ring)
    signal.alarm(60)
    try:
        for ending in (".npy", ".npz", ".csv", "-idx", ".gz"):
            os.mkfifo(tmp_path / f"pipe{ending}")
            os.symlink("/dev/zero", tmp_path / f"zero{ending}")
            os.symlink(f"loop{ending}", tmp_path / f"loop{ending}")
            os.mkdir(tmp_path / f"folder{ending}")
            for name in ("pipe", "zero", "loop", "folder", "nowhere"):
                refused(tmp_path / f"{name}{ending}")
        os.mkdir(tmp_path / "mnist")
        os.mkfifo(tmp_path / "mnist/train-images-idx3-ubyte")
        assert main(["train", "mnist", "--data-dir", str(tmp_path)]) == 2
        assert "not a regular file" in capsys.readouterr().err
        os.mkdir(tmp_path / "pictures")
        os.mkfifo(tmp_path / "pictures/pipe.png")
        os.symlink("/dev/zero", tmp_path / "pictures/zero.jpg")
        os.symlink("loop.png", tmp_path / "pictures/loop.png")
        assert main(["train", str(tmp_path / "pictures")]) == 2
        assert "not a regular file" in capsys.readouterr().err
    finally:
        signal.alarm(0)


@linux
def test_files_that_may_not_be_read_say_so(capsys):
    root = os.geteuid() == 0  # whom permissions do not bind
    with tempfile.TemporaryDirectory() as outside:  # one that everybody may enter
        os.chmod(outside, 0o755)
        for name in ("x.npy", "x.npz", "x.csv", "x-idx"):
            Path(outside, name).write_bytes(FILES.get(name, FILES["raw-idx3-ubyte"]))
            os.chmod(Path(outside, name), 0)
        os.mkdir(Path(outside, "closed"), 0)
        try:
            if root:
                os.seteuid(65534)
            for name in ("x.npy", "x.npz", "x.csv", "x-idx", "closed", "closed/x.npy"):
                assert main(["train", str(Path(outside, name))]) == 2
                err = capsys.readouterr().err
                assert err.count("\n") == 1, err
                assert ("Permission denied" in err or name == "closed"), err
            for name in ("x.npz", "closed", "closed/x.npz"):
                assert main(["sample", str(Path(outside, name)), "-o", "new.npy"]) == 4
                assert "not a usable tinygan checkpoint" in capsys.readouterr().err
        finally:
            if root:
                os.seteuid(0)


if __name__ == "__main__":
    found = work(*map(int, sys.argv[1:])) if len(sys.argv) > 2 else meet(sys.argv[1])
    json.dump(found, sys.stdout)
