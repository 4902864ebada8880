"""MNIST from files whose checksum is verified: from your folder, from the cache, or downloaded once.

The four IDX files are looked for, gzipped or not, in the folder that ``root`` or else the environment
variable LIOUVILLE_DATA names, then in liouville's own cache folder; what is found nowhere is downloaded into the
cache. In your folder, the names and places of other programs are known: ``train-images-idx3-ubyte`` and
``train-images.idx3-ubyte``, the subfolders ``mnist``, ``MNIST``, ``raw`` and ``MNIST/raw`` (torchvision), and
``mnist.npz`` (Keras). A file counts only if the MD5 sum of its uncompressed bytes is right; a broken one is passed
over for a sound copy, or refused, never read in part.
"""

from __future__ import annotations

__all__ = ["MIRRORS", "mnist"]

import dataclasses
import gzip
import hashlib
import math
import os
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from liouville.data.numbers import whole_number
from liouville.data.split import Split

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
VARIABLE = "LIOUVILLE_DATA"
_PLACES = ("MNIST/raw", "MNIST", "raw", "mnist/raw")  # of torchvision, in or above the folder
_KERAS = "mnist.npz"
_MORE = 4096  # bytes that are read beyond the right length, to say that a file is too long
_REPLACE = "delete it, and it is downloaded again, or put a good copy in its place."
_MOVE = "move or rename it, or give another folder."
_MEAN, _STD = 0.1307, 0.3081  # of the training images' grey values / 255


@dataclasses.dataclass(frozen=True)
class _IdxFile:
    """One IDX file of unsigned bytes: its name, its MD5 sum when uncompressed, its array's shape and mean."""

    name: str
    md5: str
    shape: tuple[int, ...]
    mean: float | None = None

    @property
    def size(self) -> int:
        """Bytes when uncompressed."""
        return len(self.header) + math.prod(self.shape)

    @property
    def header(self) -> bytes:
        """Two zero bytes, type 8 (unsigned byte), number of axes, then each size as 4 bytes, big-endian."""
        return bytes((0, 0, 8, len(self.shape))) + b"".join(size.to_bytes(4, "big") for size in self.shape)


_FILES = {
    "x_train": _IdxFile("train-images-idx3-ubyte", "6bbc9ace898e44ae57da46a324031adb", (60000, 28, 28), 33.3184),
    "y_train": _IdxFile("train-labels-idx1-ubyte", "a25bea736e30d166cdddb491f175f624", (60000,), 4.45393),
    "x_test": _IdxFile("t10k-images-idx3-ubyte", "2646ac647ad5339dbf082846283269ea", (10000, 28, 28), 33.7912),
    "y_test": _IdxFile("t10k-labels-idx1-ubyte", "27ae3e4e09519cfbb04c329615203637", (10000,), 4.4434),
}


def mnist(
    *,
    train: int | None = None,
    test: int | None = None,
    normalise: bool = True,
    root: str | os.PathLike[str] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Split:
    """The MNIST handwritten digits: 60,000 training and 10,000 test images of shape (1, 28, 28), 10 classes.

    A grey value g in 0 ... 255 becomes g / 255, and with ``normalise`` (g / 255 - 0.1307) / 0.3081, mean and
    standard deviation of the training images. The order is that of the files.

    Args:
        train: take the first ``train`` training images; None takes all.
        test: take the first ``test`` test images; None takes all.
        normalise: subtract 0.1307 and divide by 0.3081, as the public code of Galimberti et al. does.
        root: folder with the files, or with a subfolder ``mnist`` or ``MNIST/raw`` that has them; None takes
            LIOUVILLE_DATA, if set.
        dtype: of the images.

    Raises:
        FileNotFoundError: ``root`` or LIOUVILLE_DATA is not a folder, or a file is nowhere and cannot be
            downloaded.
        ImportError: a file must be downloaded and pooch is not installed.
        ValueError: a file is truncated, corrupted or another file; it is named.

    Reference: Y. LeCun, C. Cortes, C. Burges, *The MNIST database of handwritten digits*.
    """
    n_train = whole_number("train", _rows("train") if train is None else train, low=1, high=_rows("train"))
    n_test = whole_number("test", _rows("test") if test is None else test, low=1, high=_rows("test"))
    rows = {"x_train": n_train, "y_train": n_train, "x_test": n_test, "y_test": n_test}
    folders = _folders(root)
    raw = {part: _load(part, file, folders)[: rows[part]] for part, file in _FILES.items()}
    x_train, x_test = (_grey(raw[part], normalise, dtype) for part in ("x_train", "x_test"))
    mean, std = (_MEAN, _STD) if normalise else (0.0, 1.0)
    return Split(
        x_train,
        raw["y_train"].long(),
        x_test,
        raw["y_test"].long(),
        "mnist",
        10,
        offset=torch.tensor(255 * mean, dtype=torch.float64),
        scale=torch.tensor(255 * std, dtype=torch.float64),
    )


def _rows(part: str) -> int:
    return _FILES[f"x_{part}"].shape[0]


def _grey(images: Tensor, normalise: bool, dtype: torch.dtype) -> Tensor:
    x = images.unsqueeze(1).to(dtype).div_(255)
    return x.sub_(_MEAN).div_(_STD) if normalise else x


def _folders(root: str | os.PathLike[str] | None) -> list[Path]:
    """The user's folders: ``root``, or else LIOUVILLE_DATA, and places in it where others keep the files; else none."""
    given, source = (root, "root") if root is not None else (os.environ.get(VARIABLE), VARIABLE)
    if not given:
        return []
    folder = Path(given).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"{source} names {folder}, which is not a folder; correct it, or leave it out.")
    return [folder, folder / "mnist", *(folder / name for name in _PLACES if (folder / name).is_dir())]


def _load(part: str, file: _IdxFile, folders: list[Path]) -> Tensor:
    """One file's array, uint8: from the first folder that has it, else from the cache, else downloaded."""
    if (array := _find(part, file, folders)) is not None:
        return array
    pooch = _pooch(file, folders)
    cache = Path(pooch.os_cache("liouville")) / "mnist"
    if (array := _find(part, file, [cache])) is not None:
        return array
    return _download(file, cache, folders, pooch)


def _find(part: str, file: _IdxFile, folders: list[Path]) -> Tensor | None:
    """The first sound copy, under any of its names; None if there is none.

    Raises:
        ValueError: there are copies, and none is sound; the first is named.
    """
    dotted = file.name.replace("-idx", ".idx")
    names = (f"{file.name}.gz", file.name, f"{dotted}.gz", dotted, f"{file.name}/{file.name}", f"{dotted}/{dotted}")
    broken = None
    for folder in folders:
        for path in (*(folder / name for name in names), folder / _KERAS):
            if path.is_file():
                try:
                    return (
                        _checked(_keras(path, part, file), path, file) if path.name == _KERAS else _decode(path, file)
                    )
                except ValueError as error:
                    broken = broken or error
    if broken is not None:
        raise broken
    return None


def _keras(path: Path, part: str, file: _IdxFile) -> bytes:
    """What the IDX file would hold, from the archive in which Keras keeps all four arrays."""
    try:
        import numpy

        with numpy.load(path, allow_pickle=False) as arrays:
            if (size := arrays.zip.getinfo(f"{part}.npy").file_size) > file.size + _MORE:
                raise ValueError(f"it has {size:,} bytes when unpacked")
            return file.header + arrays[part].tobytes()
    except Exception as error:  # zip files, headers and fields may be damaged in many ways
        raise ValueError(f"{path} has no array {part} that can be read ({error}); {_REPLACE}") from error


def _decode(path: Path, file: _IdxFile) -> Tensor:
    """The array in an IDX file, gzipped or not; no more of it is unpacked than the right file has."""
    with path.open("rb") as packed:
        data = packed.read(file.size + _MORE)
        if data[:2] == b"\x1f\x8b":
            packed.seek(0)
            try:
                data = gzip.GzipFile(fileobj=packed).read(file.size + _MORE)
            except (EOFError, OSError, zlib.error) as error:
                raise ValueError(
                    f"{path} is truncated or corrupted: its gzip data does not unpack ({error}); {_REPLACE}"
                ) from error
    return _checked(data, path, file)


def _checked(data: bytes, path: Path, file: _IdxFile) -> Tensor:
    """Check header, length and MD5 sum, and view the rest as an array of ``file.shape``."""
    header = file.header
    if data[: len(header)] != header[: len(data)] or not data:
        if (sizes := _sizes(data, file.size + _MORE)) is not None:
            raise ValueError(
                f"{path} is not MNIST's {file.name}: it is an IDX file of {_times(sizes)} bytes, not "
                f"{_times(file.shape)}; {_MOVE}"
            )
        raise ValueError(
            f"{path} is not MNIST's {file.name}: it does not start with that file's IDX header; {_REPLACE}"
        )
    if len(data) != file.size:
        state = "truncated" if len(data) < file.size else "too long"
        some = "at least " if len(data) == file.size + _MORE else ""
        raise ValueError(f"{path} is {state}: {some}{len(data)} bytes uncompressed, expected {file.size}; {_REPLACE}")
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    array = torch.frombuffer(bytearray(data), dtype=torch.uint8, offset=len(header)).reshape(file.shape)
    if md5 == file.md5:
        return array
    if file.mean is not None and abs(array.double().mean() / file.mean - 1) < 0.002:
        raise ValueError(
            f"{path} is corrupted: the MD5 sum of its uncompressed bytes is {md5}, expected {file.md5}; {_REPLACE}"
        )
    raise ValueError(
        f"{path} is a sound IDX file, but not MNIST's (its MD5 sum is {md5}, expected {file.md5}); Fashion-MNIST, "
        f"KMNIST and EMNIST have files of this name: {_MOVE}"
    )


def _sizes(data: bytes, limit: int) -> tuple[int, ...] | None:
    """The sizes in the header of a sound IDX file of unsigned bytes, of which ``limit`` bytes were read at most."""
    axes = data[3] if data[:3] == b"\0\0\x08" and len(data) > 3 else 0
    sizes = tuple(int.from_bytes(data[4 + 4 * k : 8 + 4 * k], "big") for k in range(axes))
    return sizes if axes and len(data) == min(4 + 4 * axes + math.prod(sizes), limit) else None


def _times(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes))


def _download(file: _IdxFile, cache: Path, folders: list[Path], pooch: Any) -> Tensor:
    """Try the mirrors in turn; what passes `_decode` gets its final name, what does not leaves no trace."""
    failures = []
    try:
        cache.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=cache, prefix=file.name, suffix=".part")
    except OSError as error:
        raise OSError(f"cannot write to the cache folder {cache} ({error}); {_advice(file)}") from error
    os.close(handle)
    part = Path(name)
    try:
        for mirror in MIRRORS:
            try:
                _retrieve(mirror + file.name + ".gz", part, pooch)
                array = _decode(part, file)
            except OSError as error:  # the errors of requests are OSErrors
                failures.append(f"{mirror}: {type(error).__name__}")
            except ValueError:
                failures.append(f"{mirror}: a broken file")
            else:
                part.replace(cache / (file.name + ".gz"))
                return array
    finally:
        part.unlink(missing_ok=True)
    looked = ", ".join(str(folder) for folder in [*folders, cache])
    raise FileNotFoundError(
        f"MNIST's {file.name} is not in {looked}, and no mirror gave it ({'; '.join(failures)}); {_advice(file)}"
    )


def _advice(file: _IdxFile) -> str:
    return f"set {VARIABLE}, or the option root, to a folder that has {file.name}.gz."


def _retrieve(url: str, path: Path, pooch: Any) -> None:
    """Download ``url`` to ``path``, with a progress bar on a terminal and one line elsewhere."""
    pooch.HTTPDownloader(progressbar=_Progress(url), chunk_size=2**16, timeout=30)(url, str(path), None)


def _pooch(file: _IdxFile, folders: list[Path]) -> Any:
    """pooch, which knows the cache folder and downloads; needed only where the user's folders lack a file."""
    try:
        import pooch
    except ImportError as error:
        looked = f"is not in {', '.join(map(str, folders))}" if folders else "is not given"
        raise ImportError(
            f"MNIST's {file.name} {looked}, and downloading it needs pooch: pip install 'liouville[data]', "
            f"or {_advice(file)}"
        ) from error
    return pooch


class _Progress:
    """What pooch asks of a progress bar (total, update, reset, close), on standard error."""

    def __init__(self, url: str) -> None:
        self.url, self.total, self.done = url, 0, 0
        self.terminal = sys.stderr.isatty()
        if not self.terminal:
            sys.stderr.write(f"downloading {url}\n")

    def update(self, count: int) -> None:
        self.done += count
        if self.terminal and self.total:
            sys.stderr.write(f"\rdownloading {self.url}: {min(100, 100 * self.done // self.total):3d} %")
            sys.stderr.flush()

    def reset(self) -> None:
        self.done = 0

    def close(self) -> None:
        if self.terminal:
            sys.stderr.write("\n")
