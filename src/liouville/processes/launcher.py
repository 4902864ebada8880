r"""Processes that find each other: started here, or by torchrun; on loopback unless told otherwise.

The store that processes meet in belongs to the launcher, not to a node, so that it outlives any of them. Nothing of the
transport is encrypted or authenticated: whoever can connect can read, and can send.
"""

from __future__ import annotations

__all__ = ["LOOPBACK", "connect", "keep_store", "launch"]

import ipaddress
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from datetime import timedelta

import torch.distributed as dist

from liouville.environment import NEEDED

LOOPBACK = "127.0.0.1"
_ENDING = 30.0  # seconds that a process has to come to the end of its step, and to save
_LOOK = 0.2  # seconds between two looks at the launcher
_LAUNCHER = "LIOUVILLE_LAUNCHER"


def connect(timeout: float, backend: str = "gloo") -> dist.Store:
    """Join the process group that the environment describes; the store is what faults are agreed on in.

    Raises:
        ConnectionError: if the rendezvous or a process does not answer in time.
    """
    end_with_launcher()
    rank, size, host, port = (os.environ[name] for name in NEEDED)
    if _is_loopback(host) or os.environ.get("LOCAL_WORLD_SIZE") == size:  # torchrun, on one machine
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    wait = timedelta(seconds=timeout)
    hosted = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # torchrun's agent, or `launch`, keeps the store
    try:
        if not hosted and rank == "0":
            store = keep_store(host, timeout, int(port))
        else:
            store = dist.TCPStore(host, int(port), None, False, timeout=wait, wait_for_workers=False)
        prefixed = dist.PrefixStore(f"liouville/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
        dist.init_process_group(backend, store=prefixed, rank=int(rank), world_size=int(size), timeout=wait)
    except RuntimeError as error:
        raise ConnectionError(
            f"process {rank} of {size} found no rendezvous at {host}:{port}, or not all others there, within "
            f"{timeout:g} s ({str(error).splitlines()[0][:120]})."
        ) from error
    return prefixed


def launch(words: Sequence[str], processes: int, host: str = LOOPBACK, grace: float = 60.0) -> int:
    """Run ``python -m liouville`` with these words in several processes; the first exit code that is not 0 comes back.

    When one process fails, the others find out by themselves; what still runs after ``grace`` seconds is killed.

    Args:
        words: the command line.
        processes: how many.
        host: address that the rendezvous listens on; loopback by default.
        grace: seconds.
    """
    store = keep_store(host, grace)
    common = os.environ | {
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": host,
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        _LAUNCHER: str(os.getpid()),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
    }
    command = [sys.executable, "-m", "liouville", *words]
    children: list[subprocess.Popen[bytes]] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)  # who launches ends with what it launched
    try:
        for rank in range(processes):
            children.append(subprocess.Popen(command, env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}))
        return _watch(children, grace)
    except KeyboardInterrupt:
        return 130
    finally:
        _end(children)
        for number, handler in before.items():
            signal.signal(number, handler)
        del store  # which must outlive the children


def end_with_launcher() -> None:
    """In a process that `launch` started: when the launcher is gone, ask this one to end, then make it."""
    launcher = os.environ.get(_LAUNCHER, "")
    if launcher.isdigit() and not any(thread.name == _LAUNCHER for thread in threading.enumerate()):
        threading.Thread(target=_outlive, args=(int(launcher),), name=_LAUNCHER, daemon=True).start()


def _outlive(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(_LOOK)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_ENDING)
    os._exit(128 + signal.SIGTERM)


def keep_store(host: str, timeout: float, port: int = 0) -> dist.TCPStore:
    """The rendezvous, kept by this process for as long as it keeps the object; it listens on ``host`` alone.

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


def _watch(children: Sequence[subprocess.Popen[bytes]], grace: float) -> int:
    deadline = None
    while True:
        codes = [child.poll() for child in children]
        failed = [code for code in codes if code]
        if None not in codes:
            return _exit_code(failed)
        if failed and deadline is None:
            deadline = time.monotonic() + grace
        if deadline is not None and time.monotonic() > deadline:
            return _exit_code(failed)
        time.sleep(0.05)


def _end(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ask those that still run to end, which lets them save what they have; then make them."""
    try:
        for child in children:
            child.terminate()
        deadline = time.monotonic() + _ENDING
        for child in children:
            child.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        pass
    finally:
        for child in children:
            child.kill()
            child.wait()


def _exit_code(failed: Sequence[int]) -> int:
    """A process's own word first; a signal is 1."""
    own = [code for code in failed if code > 0]
    if any(code == -signal.SIGINT for code in failed):
        return 130
    return own[0] if own else int(bool(failed))


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
