"""Images: glyphs drawn from fonts, bundled digits, IDX files, arrays, and a folder of the user's own pictures.

An image is a point like any other: a ``DataSet`` draws rows (n, c h w) in [-1, 1]; its ``shape`` says (c, h, w) and its
``pixels`` holds all images. Sides are 8 to 64 pixels, channels 1 (grey) or 3 (red, green, blue). Nothing is downloaded.
"""

from __future__ import annotations

import io
import math
import os
import stat
import string
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .. import backend
from .files import READERS, DataError, guarded, reason, refuse_bomb
from .toy import DataSet, finite, split_of

SMALLEST, LARGEST = 8, 64  # pixels, of a side
MOST_BYTES = 2**30  # of an IDX file, inflated
MOST_PIXELS = 50_000_000  # of one picture of the user's
MNIST_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def image_array(array: Any, name: str = "images", test: int = 0) -> DataSet:
    """The data set of an array of images: (n, h, w), (n, c, h, w) or (n, h, w, c) with n >= 2 and c 1 or 3.

    Whole numbers count from 0 to 255; floats run from 0 to 1, or from -1 to 1 if some are negative, and are rounded to
    256 levels. Data units are 0 ... 255, the networks' units -1 ... 1. The last ``test`` images are the test part, if it is
    given, else a tenth of them all (``toy.split_of``). Raises DataError for anything else.
    """
    values = np.asarray(backend.to_numpy(array) if backend.is_array(array) else array)
    pixels = _levels(_channels_first(values, name), name)
    shape = pixels.shape[1:]
    dim = math.prod(shape)

    def at(chosen: np.ndarray) -> np.ndarray:
        return pixels[chosen].reshape(-1, dim) / np.float32(127.5) - np.float32(1)

    middle = np.full(dim, 127.5)
    return finite(name, dim, split_of(len(pixels), test), at, middle, middle, shape=shape, pixels=pixels)


def _channels_first(values: np.ndarray, name: str) -> np.ndarray:
    shape = values.shape
    if values.ndim == 3:
        values = values[:, None]
    elif values.ndim == 4 and shape[1] not in (1, 3):
        values = values.transpose(0, 3, 1, 2)
    if values.ndim != 4 or len(values) < 2 or values.shape[1] not in (1, 3):
        raise DataError(f"{name}: expected at least two images, (n, h, w), (n, c, h, w) or (n, h, w, c) with c 1 or 3, "
                        f"got shape {shape}")
    if not all(SMALLEST <= side <= LARGEST for side in values.shape[2:]):
        raise DataError(f"{name}: images of {values.shape[2]} x {values.shape[3]} pixels; "
                        f"sides of {SMALLEST} to {LARGEST} are possible")
    return values


def _levels(values: np.ndarray, name: str) -> np.ndarray:
    """(n, c, h, w) uint8 in C order, checked."""
    if values.dtype.kind not in "fiub":
        raise DataError(f"{name}: expected real numbers, got dtype {values.dtype}")
    values = values.astype(np.float32) if values.dtype.kind == "b" else values
    with np.errstate(invalid="ignore"):
        low, high = values.min(), values.max()  # NaN if there is one
    if values.dtype.kind == "f":
        if not -1 <= low <= high <= 1:
            raise DataError(f"{name}: brightness runs from {low:.4g} to {high:.4g}; scale it to 0 ... 1 or -1 ... 1, or "
                            "give whole numbers from 0 to 255")
        values = np.rint((values + 1) * 127.5 if low < 0 else values * 255.0)
    elif not 0 <= low <= high <= 255:
        raise DataError(f"{name}: whole numbers from {low} to {high}; brightness runs from 0 to 255")
    return np.array(values, dtype=np.uint8, order="C")


def load_images(source: str | os.PathLike[str], data_dir: str | os.PathLike[str] | None = None, size: int | None = None,
                channels: int | None = None, report: Callable[[str], Any] = warnings.warn) -> DataSet:
    """The images of a name (``IMAGES``), a folder of PNG and JPEG pictures, a .npy or .npz array, or an IDX file.

    ``data_dir`` is where the files of mnist and fashion-mnist lie. ``size`` (28) and ``channels`` (1) say what to make of
    a folder's pictures; images from elsewhere are as they are, and DataError is raised if they differ from what is asked
    for. ``report`` is told in one line which pictures were skipped. Raises DataError for all that cannot be used.
    """
    name = os.fspath(source)
    if name in ("mnist", "fashion-mnist"):
        data = _mnist(name, data_dir)
    elif name in IMAGES:
        data = IMAGES[name]()
    elif name and os.path.isdir(name):
        return folder(name, 28 if size is None else size, 1 if channels is None else channels, report)
    else:
        data = _file(name)
    return as_asked(data, size, channels)


def as_asked(data: DataSet, size: int | None, channels: int | None) -> DataSet:
    """The same data set; DataError if its images have another size, or other channels, than asked for."""
    assert data.shape is not None
    c, h, w = data.shape
    if size not in (None, h, w) or channels not in (None, c):
        raise DataError(f"{data.name}: images of {h} x {w} pixels with {c} channel(s), asked for size {size or h} and "
                        f"{channels or c} channel(s); only pictures of a folder are converted")
    return data


def _file(name: str) -> DataSet:
    path = Path(name)
    if not name or not os.path.exists(path):
        raise DataError(f"unknown images {name!r} (and no such file exists); choose {', '.join(IMAGES)}, a folder of "
                        "pictures, a .npy or .npz array, or an IDX file")
    read = READERS[path.suffix.lower()] if path.suffix.lower() in (".npy", ".npz") else read_idx
    return image_array(guarded(read, path), str(path))


# --------------------------------------------------------------------------------------------------- IDX files


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """The array of bytes in an IDX file, raw or gzipped: 0, 0, 8, the number of dimensions, each as a big-endian uint32.

    Raises DataError for another magic number, and if there are fewer or more bytes than the dimensions say.
    """
    import gzip

    path, held = Path(path), os.path.getsize(path)
    with open(path, "rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        if not packed:
            return _idx(raw, held, packed, path)
        with gzip.GzipFile(fileobj=raw) as stream:
            return _idx(stream, held, packed, path)


def _idx(stream: Any, held: int, packed: bool, path: Path) -> np.ndarray:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:3] != b"\0\0\x08" or not 1 <= magic[3] <= 3:
        twice = " (packed twice? unpack it once)" if magic[:2] == b"\x1f\x8b" else ""
        raise DataError(f"{path}: not an IDX file of bytes: it starts with {magic.hex(' ') or 'nothing'}{twice}")
    header = stream.read(4 * magic[3])
    if len(header) < 4 * magic[3]:
        raise DataError(f"{path}: cut off within the header; get the file again")
    shape = tuple(int(side) for side in np.frombuffer(header, ">u4"))
    promised = math.prod(shape)
    if promised > MOST_BYTES:
        raise DataError(f"{path}: says that it holds {promised} bytes, shape {shape}; at most {MOST_BYTES} are read")
    if packed:
        refuse_bomb(path, promised, held)
    content = stream.read(promised + 1) if packed or promised <= held else b""
    if len(content) != promised:
        much = "more" if len(content) > promised else "fewer"
        raise DataError(f"{path}: shape {shape} takes {promised} bytes, the file holds {much}; get the file again")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _mnist(name: str, data_dir: str | os.PathLike[str] | None) -> DataSet:
    """The 60,000 training images, a tenth of them for validation, and, if they are there, the 10,000 others for testing."""
    places = [cache_directory() / name] if data_dir is None else [Path(data_dir) / name, Path(data_dir)]
    train, test = (next((path for place in places for ending in ("", ".gz") if (path := place / (file + ending)).exists()),
                        None) for file in MNIST_FILES[::2])
    if train and not test:
        return image_array(guarded(read_idx, train), name)
    if train and test:
        images, last = guarded(read_idx, train), guarded(read_idx, test)
        if images.shape[1:] != last.shape[1:]:
            raise DataError(f"{name}: {train} holds images of shape {images.shape[1:]}, {test} of {last.shape[1:]}; get the "
                            "files again")
        return image_array(np.concatenate([images, last]), name, len(last))
    raise DataError(f"{name}: no {MNIST_FILES[0]} in {places[-1]}; put the four files {', '.join(MNIST_FILES)} there, raw "
                    "or gzipped (.gz), or name another folder as the data directory; nothing is downloaded")


# ------------------------------------------------------------------------------------------- bundled images

SLOPES = {"Sans": "Oblique", "SansMono": "Oblique", "Serif": "Italic"}
FACES = ([f"DejaVu{family}{style}" for family, slope in SLOPES.items()
          for style in ("", "-Bold", f"-{slope}", f"-Bold{slope}")]
         + [f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")]
         + ["cmr10", "cmb10", "cmmi10", "cmss10", "cmtt10"])
HEIGHTS = (17, 20, 23)  # of a face, in pixels
CHARACTERS = string.digits + string.ascii_letters


def cache_directory() -> Path:
    """``$TINYGAN_CACHE``, or ``~/.cache/tinygan``."""
    return Path(os.environ.get("TINYGAN_CACHE") or "~/.cache/tinygan").expanduser()


def glyphs() -> DataSet:
    """3,906 white letters and digits on black, 28 x 28: 62 characters in 21 faces and 3 sizes.

    Drawn from the fonts that matplotlib ships; the first time takes about half a second, then they are in the cache.
    Image (f, s, k), of face f, size s and character k, has the index (3 f + s) 62 + k.
    """
    path = cache_directory() / "glyphs-1.npy"  # another number for another drawing
    shape = (len(FACES) * len(HEIGHTS) * len(CHARACTERS), 28, 28)
    try:
        pixels = guarded(READERS[".npy"], path)
    except Exception:  # not there, or damaged: it is only a copy
        pixels = np.empty(0)
    if pixels.shape != shape or pixels.dtype != np.uint8:
        pixels = _drawn()
        _keep(path, pixels)
    return image_array(pixels, "glyphs")


def _drawn() -> np.ndarray:
    """All glyphs, each with the middle of its ink box in the middle of the image."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    folder, drawn = Path(matplotlib.get_data_path()) / "fonts" / "ttf", []
    for face in FACES:
        for height in HEIGHTS:
            try:  # by its bytes: given a path that does not exist, Pillow looks for such a name in the system's fonts
                stream = io.BytesIO((folder / f"{face}.ttf").read_bytes())
                font = ImageFont.truetype(stream, height, layout_engine=ImageFont.Layout.BASIC)
            except (OSError, ImportError) as error:
                raise DataError(f"glyphs: {folder / face}.ttf: {reason(error)}; install matplotlib and Pillow "
                                "again") from error
            for character in CHARACTERS:
                left, top, right, bottom = font.getbbox(character)
                image = Image.new("L", (28, 28))
                place = (28 - (left + right)) // 2, (28 - (top + bottom)) // 2
                ImageDraw.Draw(image).text(place, character, fill=255, font=font)
                drawn.append(np.asarray(image))
    return np.stack(drawn)


def _keep(path: Path, pixels: np.ndarray) -> None:
    """Write the file at once or not at all; a cache that cannot be written to is no fault."""
    import tempfile

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    except OSError:
        return
    try:
        with open(descriptor, "wb") as stream:
            np.save(stream, pixels, allow_pickle=False)
        os.replace(part, path)
    except OSError:
        os.unlink(part)


def digits() -> DataSet:
    """1,797 handwritten digits, 8 x 8 (Alpaydin & Kaynak 1998), those that scikit-learn ships. DataError without it."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError("digits: they come with scikit-learn, which is not installed: pip install scikit-learn "
                        "(or use glyphs, which need nothing)") from error
    return image_array(np.rint(load_digits().images * (255 / 16)).astype(np.uint8), "digits")


def _named(name: str) -> Callable[[], DataSet]:
    return lambda: _mnist(name, None)


IMAGES: dict[str, Callable[[], DataSet]] = {"glyphs": glyphs, "digits": digits, "mnist": _named("mnist"),
                                            "fashion-mnist": _named("fashion-mnist")}


# --------------------------------------------------------------------------------- a folder of pictures


def folder(path: str | os.PathLike[str], size: int = 28, channels: int = 1,
           report: Callable[[str], Any] = warnings.warn) -> DataSet:
    """The PNG and JPEG pictures in a folder and below it: the middle square of each, resized, grey (1) or colour (3).

    What is transparent becomes white. Pictures that cannot be read are skipped, and ``report`` is told so in one line.
    Raises DataError if fewer than two can be read.
    """
    if not SMALLEST <= size <= LARGEST or channels not in (1, 3):
        raise DataError(f"{path}: size {size} with {channels} channel(s) is not possible; sizes are {SMALLEST} to "
                        f"{LARGEST}, channels 1 (grey) or 3 (colour)")
    files = sorted(os.path.join(place, file) for place, _, names in os.walk(path) for file in names
                   if file.lower().endswith((".png", ".jpg", ".jpeg")) and not file.startswith("."))
    pixels, faults = [], []
    for file in files:
        try:
            if not stat.S_ISREG(os.stat(file).st_mode):
                raise ValueError("not a regular file")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of Pillow's, about what is refused or repaired
                pixels.append(_picture(file, size, channels))
        except Exception as error:  # what a damaged picture makes Pillow raise is no closed list
            faults.append(f"{os.path.relpath(file, path)} ({reason(error)})")
    some = ", ".join(faults[:3]) + (", ..." if len(faults) > 3 else "")
    if len(pixels) < 2:
        raise DataError(f"{path}: expected at least two PNG or JPEG pictures, {len(pixels)} of {len(files)} can be read"
                        + (f": {some}" if faults else ""))
    if faults:
        report(f"{path}: skipped {len(faults)} of {len(files)} pictures that cannot be read: {some}")
    return image_array(np.stack(pixels), Path(path).resolve().name)


def _picture(file: str, size: int, channels: int) -> np.ndarray:
    """(c, size, size) uint8."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    mode = "L" if channels == 1 else "RGB"
    try:
        picture: Any = Image.open(file, formats=("PNG", "JPEG"))
    except UnidentifiedImageError as error:
        raise ValueError("not a PNG or JPEG picture") from error
    with picture:
        if picture.width * picture.height > MOST_PIXELS:
            raise ValueError(f"{picture.width} x {picture.height} pixels, at most {MOST_PIXELS} are read")
        picture.draft(mode, (2 * size, 2 * size))  # a large JPEG is decoded at a fraction of its size
        whole = ImageOps.exif_transpose(picture)
        if whole.mode.startswith("I"):  # 16 bits
            whole = Image.fromarray((np.asarray(whole) // 257).astype(np.uint8))
        if "A" in whole.mode or "transparency" in whole.info:
            whole = whole.convert("RGBA")
            whole = Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole)
        side = min(whole.size)
        left, top = (whole.width - side) // 2, (whole.height - side) // 2
        square = whole.convert(mode).crop((left, top, left + side, top + side))
        square = square.resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(square).reshape(size, size, channels).transpose(2, 0, 1)
