"""Errors at the door: one clear line on standard error and an exit code, a traceback only on request."""

from __future__ import annotations

__all__ = ["DEBUG", "guarded"]

import os
import traceback
import warnings
from collections.abc import Callable, Collection
from typing import Any

import click

from liouville.cli import parallel
from liouville.cli.exits import BadInput, Interrupted
from liouville.cli.wording import in_options
from liouville.names import suggestion
from liouville.terminal import printable

DEBUG = "LIOUVILLE_DEBUG"
_EXPECTED = (ValueError, OSError, ImportError, ArithmeticError, NotImplementedError)


def guarded(command: Callable[[], object], options: Collection[str] = ()) -> int:
    """Call ``command``; return its exit code, or report what went wrong and return that code.

    ``options`` are names that the library's sentences may have as arguments, and the command line as options.
    """

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        _show_warning(in_options(str(message), options), category)

    try:
        with warnings.catch_warnings():
            warnings.showwarning = show
            code = command()
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "liouville"
        return _report(f"error: {_usage(error)} Try `{where} --help`.", error.exit_code)
    except Interrupted as error:
        return _report(error.format_message(), error.exit_code)
    except click.ClickException as error:
        return _report(f"error: {error.format_message()}", error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return _report("interrupted.", Interrupted.exit_code)
    except Exception as error:
        if os.environ.get(DEBUG):
            traceback.print_exc()
        if isinstance(error, MemoryError) or "not enough memory" in str(error) or "out of memory" in str(error):
            return _report(
                "error: the memory is exhausted; use fewer samples, a smaller --batch-size, or --engine checkpointed.",
                2,
            )
        if isinstance(error, _EXPECTED):
            return _report(f"error: {in_options(_text(error), options)}", BadInput.exit_code)
        return _report(
            f"error: this is a defect of liouville ({type(error).__name__}: {error}). Run the same command with "
            f"{DEBUG}=1 in the environment and report what it prints.",
            70,
        )
    return code if isinstance(code, int) else 0


def _show_warning(text: str, category: type[Warning]) -> None:
    """One line, of the first process only; what a library below deprecates concerns nobody who types a command."""
    if not issubclass(category, DeprecationWarning) and os.environ.get("RANK", "0") == "0":
        click.echo(printable(f"liouville: warning: {' '.join(text.split())}"), err=True)


def _text(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}."
    if isinstance(error, OSError) and error.strerror:
        return f"a file cannot be read or written: {error.strerror}."
    return str(error) or type(error).__name__


def _report(message: str, code: int) -> int:
    return parallel.report(f"liouville: {printable(' '.join(message.split()))}\n", code)


def _usage(error: click.UsageError) -> str:
    if isinstance(error, click.NoSuchOption) and error.ctx is not None:
        known = [name[2:] for option in error.ctx.command.params for name in option.opts if name.startswith("--")]
        near = suggestion(error.option_name.lstrip("-"), known).replace("'", "'--", 1).strip()
        return f"there is no option {error.option_name!r}" + (f"; {near}" if near else ".")
    text = error.format_message()
    return text if text.endswith((".", "?", "!")) else text + "."
