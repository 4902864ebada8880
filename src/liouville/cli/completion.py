"""Names for a shell's tab key, read from the source of the tables: it must not wait for torch.

click writes the shell's part: ``_LIOUVILLE_COMPLETE=bash_source liouville``, or ``zsh_source``, ``fish_source``.
"""

from __future__ import annotations

__all__ = ["names", "names_of", "statements"]

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

import liouville

_PACKAGE = Path(liouville.__file__).parent


def names(file: str, table: str) -> list[str]:
    """The keys of a table of the library.

    Args:
        file: within the package.
        table: a dict, with its keys, or made from named things: ``{f.__name__: f for f in (h1, h2)}``.

    Examples:
        >>> names("zoo/papers.py", "MODELS")[:3], names("data/__init__.py", "SOURCES")[0]
        (['h1', 'h2', 'ms1'], 'swiss-roll')
    """
    for node in ast.parse((_PACKAGE / file).read_text(encoding="utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = getattr(node, "value", None)
        if table not in [target.id for target in targets if isinstance(target, ast.Name)]:
            continue
        if isinstance(value, ast.Dict):
            return [ast.literal_eval(key) for key in value.keys if key is not None]
        if isinstance(value, ast.DictComp):
            made = value.generators[0].iter
            return [item.id for item in getattr(made, "elts", []) if isinstance(item, ast.Name)]
    raise KeyError(table)


def statements() -> list[str]:
    """The names of `liouville.verify`, as ``@statement`` registers them."""
    found: list[str] = []
    for file in sorted((_PACKAGE / "verify").glob("*.py")):
        found += re.findall(r'^@statement\(\s*"([^"]+)"', file.read_text(encoding="utf-8"), re.MULTILINE)
    return found


def names_of(*known: Callable[[], list[str]], files: bool = False) -> dict[str, Any]:
    """``shell_complete`` of a parameter: names that begin like the word, or else files."""

    def complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        found = [name for each in known for name in each() if name.lower().startswith(incomplete.lower())]
        return [CompletionItem(name) for name in found] or [CompletionItem(incomplete, type="file")] * files

    return {"shell_complete": complete}


def data() -> list[str]:
    return names("data/__init__.py", "SOURCES")


def models() -> list[str]:
    return names("zoo/papers.py", "MODELS")


def schemes() -> list[str]:
    return names("schemes/__init__.py", "SCHEMES")


def presets() -> list[str]:
    return names("runs/recipes.py", "PRESETS")


def activations() -> list[str]:
    return names("activations.py", "ACTIVATIONS")


def experiments() -> list[str]:
    return names("experiments/__init__.py", "EXPERIMENTS")
