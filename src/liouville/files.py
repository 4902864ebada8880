"""What is written to files: whole or not at all, and as JSON that every reader understands."""

from __future__ import annotations

__all__ = ["append_whole", "atomic", "remove_left_over", "reserve", "without_nan"]

import contextlib
import errno
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def atomic(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path; rename it to ``target`` when the block ends well, remove it when it does not.

    What ``target`` then names is on the disk, also where the power fails.

    Raises:
        OSError: the folder is not there, or cannot be written to; it names ``target``.

    Examples:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "note.txt"
        >>> with atomic(target) as path:
        ...     _ = path.write_text("whole")
        >>> target.read_text()
        'whole'
    """
    target = Path(target)
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=target.suffix)
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(target)) from None
    os.close(handle)
    path = Path(name)
    try:
        yield path
        umask = os.umask(0)
        os.umask(umask)
        path.chmod(0o666 & ~umask)
        _flushed(path)
        path.replace(target)
        _flushed(target.parent)
    finally:
        path.unlink(missing_ok=True)


def remove_left_over(folder: Path, *targets: str) -> None:
    """Remove what `atomic` left in a folder when the process that wrote one of these files was killed."""
    for target in targets:
        name = Path(target)
        for left in folder.glob(f".{name.name}.*{name.suffix}"):
            left.unlink(missing_ok=True)


def append_whole(path: Path, content: bytes) -> None:
    """Append all of it, or nothing."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
    try:
        size, written = os.fstat(handle).st_size, 0
        try:
            while written < len(content):
                written += os.write(handle, content[written:])
        except OSError:
            os.ftruncate(handle, size)
            raise
    finally:
        os.close(handle)


def reserve(path: Path, size: int) -> None:
    """Keep room on the disk; where a file system cannot, nothing is kept."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o666)
    try:
        os.posix_fallocate(handle, 0, size)
    except (AttributeError, OSError) as error:
        path.unlink()
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
    finally:
        os.close(handle)


def _flushed(path: Path) -> None:
    """Have the disk keep a file's bytes, or a folder's names; not every file system can."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:  # a folder that may be written and not be read
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EROFS):
            raise
    finally:
        os.close(handle)


def without_nan(value: Any) -> Any:
    """The same for JSON, which has no NaN and no infinity: what is not finite becomes null.

    Examples:
        >>> without_nan({"loss": float("nan"), "layers": (2, 4)})
        {'loss': None, 'layers': [2, 4]}
    """
    if isinstance(value, Mapping):
        return {key: without_nan(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
