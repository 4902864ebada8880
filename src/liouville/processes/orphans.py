"""A process that `launch` started ends when its launcher is gone, however that ended."""

from __future__ import annotations

__all__ = ["end_with_launcher"]

import os
import shutil
import signal
import threading
import time

from liouville.environment import LAUNCHER, RENDEZVOUS

_LOOK = 0.2  # seconds between two looks at the launcher
_ENDING = 30.0  # seconds that a step may take to its end


def end_with_launcher() -> None:
    """Watch the launcher from now on: when it is gone, ask this process to end with what it can save, then make it."""
    launcher = os.environ.get(LAUNCHER, "")
    if launcher.isdigit() and not any(thread.name == LAUNCHER for thread in threading.enumerate()):
        threading.Thread(target=_outlive, args=(int(launcher),), name=LAUNCHER, daemon=True).start()


def _outlive(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(_LOOK)
    if RENDEZVOUS in os.environ:  # the launcher's to remove, had it lived
        shutil.rmtree(os.environ[RENDEZVOUS], ignore_errors=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_ENDING)
    os._exit(128 + signal.SIGTERM)
