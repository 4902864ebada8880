r"""How processes find each other: a file in a folder of one's own on one machine, a TCP store across machines.

A file can be reached by its owner only, so nobody else joins. A TCP store answers whoever reaches its port, and lists
its keys, so it listens on loopback unless an address is named. Behind either, gloo's connections are neither encrypted
nor authenticated; what a stranger can do there is in SECURITY.md. Nothing that a peer sends is unpickled.
"""

from __future__ import annotations

__all__ = ["LOOPBACK", "connect", "keep_store", "meeting", "private_folder"]

import contextlib
import ipaddress
import os
import shutil
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist

from liouville.environment import RENDEZVOUS
from liouville.processes.orphans import end_with_launcher

LOOPBACK = "127.0.0.1"
_FILE = "store"


def connect(timeout: float, backend: str = "gloo") -> dist.Store:
    """Join the process group that the environment describes; the store is what faults are agreed on in.

    Raises:
        ConnectionError: if the rendezvous or a process does not answer in time.
    """
    end_with_launcher()
    rank, size = os.environ["RANK"], os.environ["WORLD_SIZE"]
    if _on_one_machine():
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    try:
        store = meeting(timeout, keep=rank == "0")
        dist.init_process_group(
            backend, store=store, rank=int(rank), world_size=int(size), timeout=timedelta(seconds=timeout)
        )
    except RuntimeError as error:
        where = os.environ.get(RENDEZVOUS) or f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise ConnectionError(
            f"process {rank} of {size} found no rendezvous at {where}, or not all others there, within "
            f"{timeout:g} s ({str(error).splitlines()[0][:120]})."
        ) from error
    return store


def meeting(timeout: float, keep: bool = False) -> dist.Store:
    """The store that the environment names: in a file where `launch` made one, else at an address, as torchrun does.

    Args:
        timeout: seconds that an answer may take.
        keep: keep the store at that address if nobody who started the processes does.

    Raises:
        RuntimeError: it does not answer in time.
        ValueError: it lies in a folder that is not of this user alone.
    """
    wait = timedelta(seconds=timeout)
    if name := os.environ.get(RENDEZVOUS):
        _require_private(Path(name))
        store: dist.Store = dist.FileStore(str(Path(name) / _FILE), -1)  # -1: whoever made the folder removes it
        store.set_timeout(wait)
    else:
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        kept = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # by torchrun's agent, or by `launch`
        if keep and not kept:
            store = keep_store(host, timeout, port)
        else:
            store = dist.TCPStore(host, port, None, False, timeout=wait, wait_for_workers=False)
    return dist.PrefixStore(f"liouville/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """A new folder for the processes of one machine to meet in, which no other user can enter; removed at the end.

    Examples:
        >>> with private_folder() as folder:
        ...     print(oct(folder.stat().st_mode & 0o777))
        0o700
    """
    folder = Path(tempfile.mkdtemp(prefix="liouville-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def keep_store(host: str, timeout: float, port: int = 0) -> dist.TCPStore:
    """A rendezvous for several machines, kept by this process for as long as it keeps the object; it listens on
    ``host`` only.

    Raises:
        ValueError: if that is no address of this machine, or the port is taken.
    """
    listener = _listener(host, port)
    port = listener.getsockname()[1]
    wait = timedelta(seconds=timeout)
    # Not libuv, which in torch 2.6 takes no socket that listens already.
    return dist.TCPStore(
        host, port, None, True, wait, wait_for_workers=False, master_listen_fd=listener.detach(), use_libuv=False
    )


def _require_private(folder: Path) -> None:
    try:
        found = folder.lstat()
    except OSError as error:
        raise RuntimeError(f"{folder}: {error.strerror}") from None  # whoever started the processes has ended
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise ValueError(
            f"{RENDEZVOUS} names {folder}, which other users can reach; expected a folder of yours with mode 0700. "
            "Unset the variable, or run chmod 700 on the folder."
        )


def _on_one_machine() -> bool:
    size = os.environ["WORLD_SIZE"]
    alone = RENDEZVOUS in os.environ or os.environ.get("LOCAL_WORLD_SIZE") == size  # torchrun, on one machine
    return alone or _is_loopback(os.environ["MASTER_ADDR"])


def _listener(host: str, port: int) -> socket.socket:
    """A socket that listens on this address: left to itself, the store would listen on all of them."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise ValueError(
            f"cannot listen on {host!r} ({error.strerror or error}); give a free address of this machine."
        ) from None
    listener.listen()
    return listener


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
