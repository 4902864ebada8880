"""``python -m liouville`` and the command ``liouville``."""

from __future__ import annotations

__all__ = ["main"]

import os
import sys

from liouville import door


def main(argv: list[str] | None = None) -> int:
    """Run the command with these arguments (by default those of the process); returns the exit code."""
    if argv is not None:
        return _run(argv)
    door.guard_interrupts()
    door.guard_streams()
    if sys.stdout is None:  # the next opened file would take its place
        sys.stderr.write("liouville: error: standard output is closed; send it to a file or to /dev/null.\n")
        return 2
    try:
        os.getcwd()  # noqa: PTH109 (pathlib imports slowly)
    except OSError:
        sys.stderr.write("liouville: error: the current folder no longer exists; change to one that exists.\n")
        return 2
    try:
        code = _run(None)
        sys.stdout.flush()
    except door.OutputError as error:
        sys.stderr.write(f"liouville: error: {error}\n")
        code = 2
    except KeyboardInterrupt:
        sys.stderr.write("liouville: interrupted.\n")
        code = door.INTERRUPTED
    door.ignore_interrupts()
    return door.exit_code(code)


def _run(argv: list[str] | None) -> int:
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
