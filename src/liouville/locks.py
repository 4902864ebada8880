"""A lock on a folder that one process writes: held for as long as that process lives, and no longer."""

from __future__ import annotations

__all__ = ["Lock", "LockedError", "holder"]

import contextlib
import errno
import fcntl
import json
import os
import socket
from pathlib import Path
from typing import Any

_NONE = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)  # file systems that know no locks


class LockedError(OSError):
    """Another process, that is still there, holds the lock."""


class Lock:
    """Hold a lock file, until `release` or the end of the process.

    The file names process and host. The operating system takes its lock back when the process ends, however it ends,
    so a file that was left behind by a process of this host holds nothing up; that of another host does, since
    nobody here can know.

    Args:
        path: of the file; it is made, and removed by `release`.
        what: what an error calls that which is locked.

    Raises:
        LockedError: it is held; the message says by whom.
        OSError: the file cannot be written.

    Examples:
        >>> import tempfile
        >>> lock = Lock(Path(tempfile.mkdtemp()) / "lock", "the folder")
        >>> holder(lock.path)["process"] == os.getpid()
        True
        >>> lock.release()
        >>> holder(lock.path) is None
        True
    """

    def __init__(self, path: Path, what: str) -> None:
        self.path, self._handle = path, -1
        while self._handle < 0:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
            try:
                free = _locked(handle)
                owner = _owner(handle)
                if not free or (owner and not _gone(owner)):
                    raise LockedError(_refusal(what, path, owner))
                if _same(handle, path):  # else its holder removed it, and it is nobody's file any more
                    self._handle = handle
            finally:
                if self._handle != handle:
                    os.close(handle)
        os.ftruncate(self._handle, 0)
        mine = {"process": os.getpid(), "host": socket.gethostname(), "started": _started(os.getpid())}
        os.pwrite(self._handle, json.dumps(mine).encode(), 0)

    def release(self) -> None:
        """Give the lock back; calling it twice does no harm."""
        if self._handle < 0:
            return
        with contextlib.suppress(OSError):
            if _same(self._handle, self.path):
                self.path.unlink()
        os.close(self._handle)
        self._handle = -1

    def __del__(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def holder(path: Path) -> dict[str, Any] | None:
    """Who holds a lock file; None where nobody does."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        free, owner = _locked(handle), _owner(handle)
    finally:
        os.close(handle)
    return (owner or {}) if not free or (owner and not _gone(owner)) else None


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NONE:
            raise
    return True


def _owner(handle: int) -> dict[str, Any]:
    try:
        owner = json.loads(os.pread(handle, 4096, 0) or b"{}")
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _gone(owner: dict[str, Any]) -> bool:
    """Whether the process that wrote the file has ended: it was of this host, and its number is free or another's."""
    process = owner.get("process")
    if owner.get("host") != socket.gethostname() or not isinstance(process, int):
        return False
    if process == os.getpid():
        return True  # this process asks, so it does not hold it
    return _started(process) is None or _started(process) != owner.get("started")


def _started(process: int) -> str | None:
    """When a process of this machine started, in ticks since the machine did; None where there is none."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return None
        except OSError:
            pass
        return ""
    return stat.rpartition(")")[2].split()[19]


def _same(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False


def _refusal(what: str, path: Path, owner: dict[str, Any]) -> str:
    who = f"process {owner.get('process', '?')} on {owner.get('host', '?')}"
    if owner and owner.get("host") != socket.gethostname():
        return f"{what} is being written by {who}, which cannot be seen from here; if it has ended, remove {path}."
    return f"{what} is being written by {who}; wait for it or end it, or choose another --out."
