"""``python -m liouville`` and the command ``liouville``."""

from __future__ import annotations

__all__ = ["main"]

import sys


def main(argv: list[str] | None = None) -> int:
    """Run the command with these words (those of the process by default); the exit code comes back."""
    try:
        import click  # noqa: F401
        import rich  # noqa: F401
    except ImportError as error:
        sys.stderr.write(
            f"liouville: error: the command needs click and rich ({error}); "
            "install them: pip install 'liouville[command]'\n"
        )
        return 2
    from liouville.cli import run

    return run(argv)


if __name__ == "__main__":
    sys.exit(main())
