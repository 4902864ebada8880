"""The origin of a file: versions of the libraries, and the commit of the code in a checkout."""

from __future__ import annotations

__all__ = ["commit", "versions"]

import platform
import subprocess
import sys
from pathlib import Path

import torch

from liouville.version import __version__


def versions() -> dict[str, str]:
    """Versions of liouville, torch, Python and the platform.

    Examples:
        >>> sorted(versions())
        ['liouville', 'platform', 'python', 'torch']
    """
    return {
        "liouville": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": f"{sys.platform} {platform.machine()}",
    }


def commit() -> str:
    """The commit of the package's folder, with a + where its files differ from it; ``"none"`` outside a checkout."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head, changed = (
            subprocess.run([*git, *words], capture_output=True, text=True, timeout=10, check=True).stdout.strip()
            for words in (["rev-parse", "--short=10", "HEAD"], ["status", "--porcelain", "--", "."])
        )
    except (OSError, subprocess.SubprocessError):
        return "none"
    return head + ("+" if changed else "")
