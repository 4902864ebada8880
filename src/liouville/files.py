"""What is written to files: whole or not at all, and as JSON that every reader understands."""

from __future__ import annotations

__all__ = ["atomic", "without_nan"]

import contextlib
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def atomic(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path; rename it to ``target`` when the block ends well, remove it when it does not.

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
        path.replace(target)
    finally:
        path.unlink(missing_ok=True)


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
