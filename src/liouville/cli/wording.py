"""The library's sentences at the command line: Python's spelling becomes that of the options."""

from __future__ import annotations

__all__ = ["in_options"]

import re
from collections.abc import Collection

_ENGINES = {
    "Stored": "stored",
    "Checkpointed": "checkpointed",
    "Reversible": "reversible",
    "Fused": "fused",
    "BatchLast": "batch-last",
    "Auto": "auto",
}
_ENGINE = rf"(?:lv\.)?({'|'.join(_ENGINES)})\(\)"
_VALUE = r"'([^']*)'|\"([^\"]*)\"|(\.{3}|[\w.+-]*\w)"


def in_options(text: str, options: Collection[str]) -> str:
    """The sentence with engines, lifts and arguments as the options that stand for them.

    Args:
        text: what an exception or a warning of the library says.
        options: names of the command's options, spelled as Python's.

    Examples:
        >>> in_options("use flow.with_backprop(lv.Stored()), or validation=0.1, or Lift(6).", {"validation"})
        'use --engine stored, or --validation 0.1, or --features 6.'
    """
    text = re.sub(r"(?:lv\.)?(?:Reversible|Fused)\([^()]+\), ", "", text)  # their arguments have no options
    text = re.sub(r"give HeadSmoothness\(shape=[^()]*\([^()]*\)\)", "leave --head-smoothness out", text)
    text = re.sub(rf"flow\.with_backprop\({_ENGINE}\)|{_ENGINE}", lambda m: _engine(m[1] or m[2]), text)
    text = re.sub(r"\bLift\((\d+)\)", r"--features \1", text)
    text = re.sub(r"\bgive p_features, or use AntisymmetricField", "or use --model antisymmetric", text)
    text = re.sub(rf"\bPenalty\((\w+)=(?:{_VALUE})\)", lambda m: _option(m[1], m), text)
    given = rf"(?<![\w/.=-])(\w+)=(?:{_VALUE})(?![\w(\[/=])"
    return re.sub(given, lambda m: _option(m[1], m) if m[1] in options else m[0], text)


def _engine(name: str) -> str:
    return f"--engine {_ENGINES[name]}"


def _option(name: str, found: re.Match[str]) -> str:
    value = next(group for group in found.groups()[1:] if group is not None)
    return f"--{name.replace('_', '-')} {value}"
