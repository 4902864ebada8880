r"""Starts the processes of one machine, waits for them, and ends them together."""

from __future__ import annotations

__all__ = ["launch"]

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from liouville.environment import LAUNCHER, RENDEZVOUS
from liouville.processes.rendezvous import keep_store, private_folder

_ENDING = 30.0  # seconds that a process has to come to the end of its step, and to save


def launch(words: Sequence[str], processes: int, host: str | None = None, grace: float = 60.0) -> int:
    """Run ``python -m liouville`` with these words in several processes; the first exit code that is not 0 comes back.

    When one process fails, the others find out by themselves; what still runs after ``grace`` seconds is killed.

    Args:
        words: the command line.
        processes: how many.
        host: address that the rendezvous listens on; None meets in a folder that no other user can enter.
        grace: seconds.
    """
    with _rendezvous(host, grace) as where:
        common = {name: value for name, value in os.environ.items() if name not in _ADDRESS} | {
            "WORLD_SIZE": str(processes),
            "LOCAL_WORLD_SIZE": str(processes),
            LAUNCHER: str(os.getpid()),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
            **where,
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


_ADDRESS = ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_USE_AGENT_STORE", RENDEZVOUS)


@contextlib.contextmanager
def _rendezvous(host: str | None, timeout: float) -> Iterator[dict[str, str]]:
    """The variables that say where to meet; it belongs to the launcher, not to a process, and outlives any of them."""
    if host is None:
        with private_folder() as folder:
            yield {RENDEZVOUS: str(folder)}
        return
    store = keep_store(host, timeout)
    yield {"MASTER_ADDR": host, "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    del store


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
