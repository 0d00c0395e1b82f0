"""Images: arrays, IDX files, glyphs drawn from fonts, digits, a folder of pictures.

An image is a point like any other: a ``DataSet`` draws rows (n, c h w) in [-1, 1]. Sides are 8 to
64 pixels, channels 1 (grey) or 3 (red, green, blue). Nothing is downloaded.
"""

from __future__ import annotations

import io
import math
import os
import stat
import string
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .. import backend
from .dataset import DataSet, finite, split_of
from .files import DataError, guarded, interpreted, read, reason, refuse_bomb, unpacked
from .labels import considered, shown

SMALLEST, LARGEST = 8, 64  # pixels, of a side
SLACK = 1 / 510  # half a grey level: by as much may floats leave their range
MOST_BYTES = 2**30  # of an IDX file, inflated
MOST_PIXELS = 50_000_000  # of one picture of the user's
MNIST_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte",
               "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
ENDINGS = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff")
SLOPES = {"Sans": "Oblique", "SansMono": "Oblique", "Serif": "Italic"}
FACES = ([f"DejaVu{family}{style}" for family, slope in SLOPES.items()
          for style in ("", "-Bold", f"-{slope}", f"-Bold{slope}")]
         + [f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")]
         + ["cmr10", "cmb10", "cmmi10", "cmss10", "cmtt10"])
HEIGHTS = (17, 20, 23)  # of a face, in pixels
CHARACTERS = string.digits + string.ascii_letters


def image_array(array: Any, name: str = "images", test: int = 0, labels: Any = None) -> DataSet:
    """The data set of images (n, h, w), (n, c, h, w) or (n, h, w, c) with n >= 2 and c 1 or 3.

    Integers count from 0 to 255; floats run from 0 to 1, or from -1 to 1 if one is below -1 / 510,
    and are rounded to 256 levels; up to 1 / 510, half a level, beyond its range one counts as its
    end. The last ``test`` images are the test part, else a tenth (``split_of``). ``labels``, as
    ``labels_of`` gives them, make the data those of a conditional GAN. Data units are 0 ... 255,
    networks' units -1 ... 1. Raises DataError for anything else.
    """
    values = np.asarray(backend.to_numpy(array) if backend.is_array(array) else array)
    pixels, reading = _levels(_channels_first(values, name), name)
    shape, rows = pixels.shape[1:], partial(_rows, pixels)
    split = split_of(len(pixels), test, labels and labels[0])
    middle = np.full(math.prod(shape), 127.5)
    return finite(name, middle.size, split, rows, middle, middle, labels, shape=shape,
                  pixels=pixels, reading=reading)


def labelled_images(array: Any, y: Any, name: str, conditional: bool, test: int = 0) -> DataSet:
    """``image_array`` with its labels, or where they are not used with a word that they are there.
    """
    labels, found = considered(y, len(array), name, conditional)
    if labels and test:  # a part of its own, which has no say in who can be learned
        numbers, classes = labels
        few = np.flatnonzero(np.bincount(numbers[:-test], None, len(classes)) < 2)
        if len(few):
            raise DataError(f"{name}: fewer than 2 training images of {len(few)} of {len(classes)} "
                            f"classes ({shown([classes[k] for k in few])})")
    made = image_array(array, name, test, labels)
    return replace(made, reading="  ".join(filter(None, [made.reading, found])))


def _rows(pixels: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The chosen images as rows (n, c h w) from -1 to 1."""
    return pixels[chosen].reshape(len(chosen), -1) / np.float32(127.5) - np.float32(1)


def _channels_first(values: np.ndarray, name: str) -> np.ndarray:
    shape = values.shape
    if values.ndim == 3:
        values = values[:, None]
    elif values.ndim == 4 and shape[1] not in (1, 3):
        values = values.transpose(0, 3, 1, 2)
    if values.ndim != 4 or len(values) < 2 or values.shape[1] not in (1, 3):
        raise DataError(f"{name}: expected at least two images, (n, h, w), (n, c, h, w) or "
                        f"(n, h, w, c) with c 1 or 3, got shape {shape}")
    height, width = values.shape[2:]
    if not (SMALLEST <= height <= LARGEST and SMALLEST <= width <= LARGEST):
        raise DataError(f"{name}: images of {height} x {width} pixels; "
                        f"sides of {SMALLEST} to {LARGEST} are possible")
    return values


def _levels(values: np.ndarray, name: str) -> tuple[np.ndarray, str]:
    """((n, c, h, w) uint8 in C order, checked; what floats were taken for)."""
    reading = ""
    if values.dtype.kind not in "fiub":
        raise DataError(f"{name}: expected real numbers, got dtype {values.dtype}")
    values = values.astype(np.float32) if values.dtype.kind == "b" else values
    with np.errstate(invalid="ignore"):
        low, high = values.min(), values.max()  # NaN if there is one
    if values.dtype.kind == "f":
        if not -1 - SLACK <= low <= high <= 1 + SLACK:
            raise DataError(f"{name}: brightness runs from {low:.4g} to {high:.4g}; scale it to "
                            "0 ... 1 or -1 ... 1, or give integers from 0 to 255")
        signed = low < -SLACK
        reading = f"floats read as {'-1' if signed else '0'} to 1"
        values = np.clip(np.rint((values + 1) * 127.5 if signed else values * 255.0), 0, 255)
    elif not 0 <= low <= high <= 255:
        raise DataError(f"{name}: integers from {low} to {high}; brightness runs from 0 to 255")
    return np.array(values, dtype=np.uint8, order="C"), reading


def load_images(source: str | os.PathLike[str], data_dir: str | os.PathLike[str] | None = None,
                size: int | None = None, channels: int | None = None,
                report: Callable[[str], Any] = warnings.warn, conditional: bool = False) -> DataSet:
    """The images of a name (``IMAGES``), a folder of pictures, a .npy, .npz or IDX file.

    ``data_dir`` is the folder with the files of mnist and fashion-mnist. ``size`` (28) and
    ``channels`` (1) are what a folder's pictures are converted to; other images have to have them
    if they are given. ``report`` gets one line about the files of a folder that were left out.
    ``conditional`` uses the labels: the names of a folder's subfolders, the IDX file of labels
    beside one of images, an array of them in a .npz (see ``load``).
    Raises DataError for anything unusable.
    """
    name, path = os.fspath(source), Path(source)
    if name in IMAGES:
        made = partial(IMAGES[name], conditional=conditional)
        data = made(data_dir) if "mnist" in name else made()
    elif os.path.isdir(name):
        side = 28 if size is None else size
        return folder(name, side, 1 if channels is None else channels, report, conditional)
    elif os.path.exists(name):
        if path.suffix.lower() in (".npy", ".npz"):
            read = interpreted(path)
            array, y = read.array, read.labels
        else:
            array, y = guarded(read_idx, path), _labels_beside(path, conditional)
        data = labelled_images(array, y, str(path), conditional)
    else:
        raise DataError(f"unknown images {name!r} (and no such file exists); choose "
                        f"{', '.join(IMAGES)}, a folder, a .npy, .npz or IDX file")
    return as_asked(data, size, channels)


def as_asked(data: DataSet, size: int | None, channels: int | None) -> DataSet:
    """The same data set; DataError if its images have another size or other channels."""
    assert data.shape is not None
    c, h, w = data.shape
    if size not in (None, h, w) or channels not in (None, c):
        raise DataError(f"{data.name}: images of {h} x {w} pixels with {c} channel(s), asked for "
                        f"size {size or h} and {channels or c} channel(s); "
                        "only pictures of a folder are converted")
    return data


def read_idx(path: Path) -> np.ndarray:
    """The array of bytes in an IDX file, raw or gzipped.

    It holds 0, 0, 8, the number of dimensions, each of them as a big-endian uint32, then the bytes.
    Raises DataError for another magic number, and if there are more or fewer bytes than that.
    """
    stream, packed = unpacked(path)
    with stream:
        magic = stream.read(4)
        if len(magic) < 4 or magic[:3] != b"\0\0\x08" or not 1 <= magic[3] <= 3:
            twice = " (gzipped twice? unpack it once)" if magic[:2] == b"\x1f\x8b" else ""
            raise DataError(f"{path}: not an IDX file of bytes: "
                            f"it starts with {magic.hex(' ') or 'nothing'}{twice}")
        header = stream.read(4 * magic[3])
        if len(header) < 4 * magic[3]:
            raise DataError(f"{path}: cut off within the header; get the file again")
        shape = tuple(int(side) for side in np.frombuffer(header, ">u4"))
        promised, held = math.prod(shape), path.stat().st_size
        if promised > MOST_BYTES:
            raise DataError(f"{path}: promises {promised} bytes; at most {MOST_BYTES} are read")
        if packed:
            refuse_bomb(path, promised, held)
        content = stream.read(promised + 1) if packed or promised <= held else b""
    if len(content) != promised:
        much = "more" if len(content) > promised else "fewer"
        raise DataError(f"{path}: shape {shape} takes {promised} bytes, the file holds {much}; "
                        "get the file again")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _labels_beside(images: Path, needed: bool) -> np.ndarray | None:
    """The labels of an IDX file of images, from the file with "labels" and "idx1" in its name.

    None if there is no such file; of a damaged one, unless the labels are ``needed``.
    """
    name = images.name.removesuffix(".gz").replace("images", "labels").replace("idx3", "idx1")
    found = _find(name, [images.parent]) if "images" in images.name else None
    try:
        return None if found is None else guarded(read_idx, found)
    except DataError:
        if needed:
            raise
        return None


def _mnist(name: str, data_dir: str | os.PathLike[str] | None = None,
           conditional: bool = False) -> DataSet:
    """The 60,000 training images and, if they are there, the 10,000 others for testing."""
    folders = [cache_directory() / name]
    if data_dir is not None:
        folders = [Path(data_dir) / name, Path(data_dir)]
    train, test = (_find(file, folders) for file in MNIST_FILES[::2])
    if train is None:
        raise DataError(f"{name}: no {MNIST_FILES[0]} in {folders[-1]}; put the four files "
                        f"{', '.join(MNIST_FILES)} there, raw or gzipped (.gz), or name another "
                        "folder as the data directory; nothing is downloaded")
    images, y = guarded(read_idx, train), _labels_beside(train, conditional)
    if test is None:
        return labelled_images(images, y, name, conditional)
    last = guarded(read_idx, test)
    if images.shape[1:] != last.shape[1:]:
        raise DataError(f"{name}: {train} holds images of shape {images.shape[1:]}, {test} of "
                        f"{last.shape[1:]}; get the files again")
    others = _labels_beside(test, conditional)
    y = None if y is None or others is None else np.concatenate([y, others])
    return labelled_images(np.concatenate([images, last]), y, name, conditional, len(last))


def _find(file: str, folders: list[Path]) -> Path | None:
    """The first that exists of a file and its gzipped form in some folders."""
    paths = (folder / (file + ending) for folder in folders for ending in ("", ".gz"))
    return next((path for path in paths if path.exists()), None)


def cache_directory() -> Path:
    """``$TINYGAN_CACHE``, or ``~/.cache/tinygan``."""
    return Path(os.environ.get("TINYGAN_CACHE") or "~/.cache/tinygan").expanduser()


def glyphs(conditional: bool = False) -> DataSet:
    """3,906 white letters and digits on black, 28 x 28: 62 characters in 21 faces and 3 sizes.

    Drawn from matplotlib's fonts the first time, then cached. Face f, size s and character k have
    the index (3 f + s) 62 + k; the characters are the labels.
    """
    path = cache_directory() / "glyphs-1.npy"  # another number for another drawing
    try:
        pixels = read(path)
    except DataError:  # not there, or damaged: it is only a copy
        pixels = np.empty(0)
    if pixels.shape != (3906, 28, 28) or pixels.dtype != np.uint8:
        pixels = _drawn()
        _keep(path, pixels)
    y = np.tile(list(CHARACTERS), len(pixels) // len(CHARACTERS))
    return labelled_images(pixels, y, "glyphs", conditional)


def _drawn() -> np.ndarray:
    """All glyphs, the box of each one's ink centred."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont
    folder, drawn = Path(matplotlib.get_data_path()) / "fonts" / "ttf", []
    for face in FACES:
        for height in HEIGHTS:
            try:  # by its bytes: for a missing path, Pillow searches the system's fonts
                stream = io.BytesIO((folder / f"{face}.ttf").read_bytes())
                font = ImageFont.truetype(stream, height, layout_engine=ImageFont.Layout.BASIC)
            except (OSError, ImportError) as error:
                raise DataError(f"glyphs: {folder / face}.ttf: {reason(error)}; "
                                "install matplotlib and Pillow again") from error
            for character in CHARACTERS:
                left, top, right, bottom = font.getbbox(character)
                image = Image.new("L", (28, 28))
                place = (28 - (left + right)) // 2, (28 - (top + bottom)) // 2
                ImageDraw.Draw(image).text(place, character, fill=255, font=font)
                drawn.append(np.asarray(image))
    return np.stack(drawn)


def _keep(path: Path, pixels: np.ndarray) -> None:
    """Write the whole file or nothing; that a cache cannot be written is no error."""
    import tempfile  # slow to load
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            part = Path(folder, path.name)
            with part.open("wb") as stream:
                np.save(stream, pixels)
            os.replace(part, path)


def digits(conditional: bool = False) -> DataSet:
    """1,797 handwritten digits, 8 x 8 (Alpaydin & Kaynak 1998); DataError without scikit-learn."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError("digits: scikit-learn is not installed: pip install scikit-learn, "
                        "or use glyphs") from error
    loaded = load_digits()
    pixels = np.rint(loaded.images * (255 / 16)).astype(np.uint8)
    return labelled_images(pixels, getattr(loaded, "target", None), "digits", conditional)


IMAGES: dict[str, Callable[..., DataSet]] = {
    "glyphs": glyphs, "digits": digits,
    "mnist": partial(_mnist, "mnist"), "fashion-mnist": partial(_mnist, "fashion-mnist")}


def folder(path: str | os.PathLike[str], size: int = 28, channels: int = 1,
           report: Callable[[str], Any] = warnings.warn, conditional: bool = False) -> DataSet:
    """The pictures (``ENDINGS``) in a folder and below it, in grey (1 channel) or colour (3).

    The middle square of each is resized to ``size`` pixels, what is transparent becomes white, and
    of an animation the first picture counts. ``report`` gets one line that counts what is left out:
    hidden, other and damaged files. The labels are the names of the subfolders, and there are none
    if a picture lies beside them. Raises DataError if fewer than two pictures can be read.
    """
    if not SMALLEST <= size <= LARGEST or channels not in (1, 3):
        raise DataError(f"{path}: size {size} with {channels} channel(s) is not possible; sizes "
                        f"are {SMALLEST} to {LARGEST}, channels 1 (grey) or 3 (colour)")
    files, others = _pictures_in(path)
    pixels, errors, y = [], [], []
    for file in files:
        try:
            if not stat.S_ISREG(os.stat(file).st_mode):
                raise ValueError("not a regular file")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's, about what it refuses or repairs
                pixels.append(_picture(file, size, channels))
            first, *below = os.path.relpath(file, path).split(os.sep)
            y.append(first if below else "")
        except Exception as error:  # Pillow may raise anything on a damaged picture
            errors.append(f"{os.path.relpath(file, path)} ({reason(error)})")
    notes = []
    if errors:
        notes.append(f"skipped {len(errors)} of {len(files)} pictures that cannot be read: "
                     + ", ".join(errors[:3]) + (", ..." if len(errors) > 3 else ""))
    if others:
        notes.append("left out " + ", ".join(f"{n} {kind}" for kind, n in others.most_common(8))
                     + (", ..." if len(others) > 8 else ""))
    if len(pixels) < 2:
        found = "; ".join([f"found {len(pixels)}", *notes])
        raise DataError(f"{path}: expected at least two pictures ({' '.join(ENDINGS)}), {found}")
    if notes:
        report(f"{path}: {'; '.join(notes)}")
    if conditional and "" in y and any(y):
        raise DataError(f"{path}: {y.count('')} of {len(y)} pictures lie beside the folders of the "
                        "classes; move them into one, or away")
    labels = None if "" in y else np.array(y)
    return labelled_images(np.stack(pixels), labels, Path(path).resolve().name, conditional)


def _pictures_in(path: str | os.PathLike[str]) -> tuple[list[str], Counter[str]]:
    """(the pictures' paths in order, the number of other files by kind)."""
    files, others = [], Counter[str]()
    for place, folders, names in os.walk(path):
        for name in names:
            ending = os.path.splitext(name)[1].lower()
            if name.startswith("."):
                others["hidden"] += 1
            elif ending in ENDINGS:
                files.append(os.path.join(place, name))
            else:
                others[ascii(ending).strip("'")[:12] or "without an ending"] += 1
        for name in [name for name in folders if name.startswith(".")]:
            others["hidden"] += 1
            folders.remove(name)  # os.walk does not enter it
    return sorted(files), others


def _picture(file: str, size: int, channels: int) -> np.ndarray:
    """(c, size, size) uint8."""
    from PIL import Image, ImageOps, UnidentifiedImageError
    mode = "L" if channels == 1 else "RGB"
    try:
        picture: Any = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError as error:
        raise ValueError(f"not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} picture") from error
    with picture:
        if picture.width * picture.height > MOST_PIXELS:
            raise ValueError(f"{picture.width} x {picture.height} pixels, at most {MOST_PIXELS}")
        picture.draft(mode, (2 * size, 2 * size))  # a large JPEG is decoded at a fraction
        whole = ImageOps.exif_transpose(picture)
        if whole.mode == "F":
            raise ValueError("pixels of floating point; save it with 8 or 16 bits")
        if whole.mode.startswith("I"):  # 16 bits
            levels = np.clip(np.asarray(whole), 0, 65535) // 257
            whole = Image.fromarray(levels.astype(np.uint8))
        if "A" in whole.mode or "transparency" in whole.info:
            whole = whole.convert("RGBA")
            whole = Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole)
        side = min(whole.size)
        left, top = (whole.width - side) // 2, (whole.height - side) // 2
        square = whole.convert(mode).crop((left, top, left + side, top + side))
        square = square.resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(square).reshape(size, size, channels).transpose(2, 0, 1)
