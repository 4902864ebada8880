"""Arguments that many functions share: explained once, in the module's docstring, and shown in the help of each."""

from __future__ import annotations

__all__ = ["explained"]

import inspect
import re
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T", bound=Callable[..., object])


def explained(shared: str | None) -> Callable[[T], T]:
    """Decorate a function whose arguments are explained under "Args:" in its own docstring or in ``shared``.

    A documentation generator reads files and runs no decorator, so it finds them in the module's docstring.

    Examples:
        >>> @explained("Networks.\\n\\nArgs:\\n    features: n.\\n    layers: N.\\n")
        ... def net(features, gamma, layers):
        ...     '''A network.
        ...
        ...     Args:
        ...         gamma: damping.
        ...     '''
        >>> net.__doc__
        'A network.\\n\\nArgs:\\n    features: n.\\n    gamma: damping.\\n    layers: N.'
    """
    known = _sections(shared)[1]

    def decorated(build: T) -> T:
        text, own, examples = _sections(inspect.getdoc(build))
        entries = "".join((known | own)[name] for name in inspect.signature(build).parameters)
        build.__doc__ = f"{text}\n\nArgs:\n{entries}{examples}".rstrip() if text else None
        return build

    return decorated


def _sections(doc: str | None) -> tuple[str, dict[str, str], str]:
    """The text before "Args:", the entry of each argument, and the examples."""
    text, heading, examples = inspect.cleandoc(doc or "").partition("\n\nExamples:\n")
    text, _, arguments = text.partition("\n\nArgs:\n")
    entries = re.finditer(r"^    (\w+):.*\n(?:     .*\n)*", f"{arguments.partition(chr(10) * 2)[0]}\n", re.M)
    return text, {entry[1]: entry[0] for entry in entries}, heading and f"\nExamples:\n{examples}"
