"""MNIST from files whose checksum is verified: from your folder, from the cache, or downloaded once.

The four IDX files are looked for, gzipped or not, in the folder that ``root`` or else the environment
variable LIOUVILLE_DATA names (or in its subfolder ``mnist``), then in liouville's own cache folder; what is
found nowhere is downloaded into the cache. A file counts only if the MD5 sum of its uncompressed bytes is
right; a broken one is refused, never read in part.
"""

from __future__ import annotations

__all__ = ["MIRRORS", "mnist"]

import dataclasses
import gzip
import hashlib
import os
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from liouville.data.split import Split, whole_number

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
VARIABLE = "LIOUVILLE_DATA"
_MEAN, _STD = 0.1307, 0.3081  # of the training images' grey values / 255


@dataclasses.dataclass(frozen=True)
class _IdxFile:
    """One IDX file of unsigned bytes: its name, its MD5 sum when uncompressed, and the shape of its array."""

    name: str
    md5: str
    shape: tuple[int, ...]

    @property
    def header(self) -> bytes:
        """Two zero bytes, type 8 (unsigned byte), number of axes, then each size as 4 bytes, big-endian."""
        return bytes((0, 0, 8, len(self.shape))) + b"".join(size.to_bytes(4, "big") for size in self.shape)


_FILES = {
    "x_train": _IdxFile("train-images-idx3-ubyte", "6bbc9ace898e44ae57da46a324031adb", (60000, 28, 28)),
    "y_train": _IdxFile("train-labels-idx1-ubyte", "a25bea736e30d166cdddb491f175f624", (60000,)),
    "x_test": _IdxFile("t10k-images-idx3-ubyte", "2646ac647ad5339dbf082846283269ea", (10000, 28, 28)),
    "y_test": _IdxFile("t10k-labels-idx1-ubyte", "27ae3e4e09519cfbb04c329615203637", (10000,)),
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
        root: folder with the files, or with a subfolder ``mnist`` that has them; None takes LIOUVILLE_DATA,
            if set.
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
    raw = {part: _load(file, folders)[: rows[part]] for part, file in _FILES.items()}
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
    """The user's folders: ``root``, or else LIOUVILLE_DATA, and its subfolder mnist; none if not given."""
    given, source = (root, "root") if root is not None else (os.environ.get(VARIABLE), VARIABLE)
    if not given:
        return []
    folder = Path(given).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"{source} names {folder}, which is not a folder; correct it, or leave it out.")
    return [folder, folder / "mnist"]


def _load(file: _IdxFile, folders: list[Path]) -> Tensor:
    """One file's array, uint8: from the first folder that has it, else from the cache, else downloaded."""
    if (path := _find(file, folders)) is not None:
        return _decode(path, file)
    pooch = _pooch(file, folders)
    cache = Path(pooch.os_cache("liouville")) / "mnist"
    if (path := _find(file, [cache])) is not None:
        return _decode(path, file)
    return _download(file, cache, folders, pooch)


def _find(file: _IdxFile, folders: list[Path]) -> Path | None:
    candidates = (folder / (file.name + ending) for folder in folders for ending in (".gz", ""))
    return next((path for path in candidates if path.is_file()), None)


def _decode(path: Path, file: _IdxFile) -> Tensor:
    """Uncompress, check header, length and MD5 sum, and view the rest as an array of ``file.shape``."""
    advice = "delete it, and it is downloaded again, or put a good copy in its place."
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(
                f"{path} is truncated or corrupted: its gzip data does not unpack ({error}); {advice}"
            ) from error
    header, size = file.header, len(file.header) + torch.Size(file.shape).numel()
    if data[: len(header)] != header[: len(data)] or not data:
        raise ValueError(f"{path} is not MNIST's {file.name}: it does not start with that file's IDX header; {advice}")
    if len(data) != size:
        state = "truncated" if len(data) < size else "too long"
        raise ValueError(f"{path} is {state}: {len(data)} bytes uncompressed, expected {size}; {advice}")
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if md5 != file.md5:
        raise ValueError(
            f"{path} is corrupted: the MD5 sum of its uncompressed bytes is {md5}, expected {file.md5}; {advice}"
        )
    return torch.frombuffer(bytearray(data), dtype=torch.uint8, offset=len(header)).reshape(file.shape)


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
