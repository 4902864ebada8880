"""Files appear whole or not at all: written under a temporary name beside the target, then renamed."""

from __future__ import annotations

__all__ = ["atomic"]

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path; rename it to ``target`` when the block ends well, remove it when it does not.

    Examples:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "note.txt"
        >>> with atomic(target) as path:
        ...     _ = path.write_text("whole")
        >>> target.read_text()
        'whole'
    """
    target = Path(target)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=target.suffix)
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
