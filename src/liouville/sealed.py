r"""State in one file: tensors and a JSON record, sealed by a SHA-256 hash over both; nothing in it is executed.

The file is a safetensors file whose metadata has one entry, the record as text beside the hash. A state is a tree of
dictionaries, lists, tuples, numbers, texts and tensors; its tensors are kept as they are and every float to its last
bit, so that what is opened equals what was sealed.
"""

from __future__ import annotations

__all__ = ["DamagedFileError", "opened", "record_of", "sealed"]

import ctypes
import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from liouville.documents import parse

_HEADER = 100 << 20  # bytes: the most that safetensors admits


class DamagedFileError(ValueError):
    """A sealed file that was changed after it was written, or is not one."""


def sealed(state: Mapping[str, Any], entry: str) -> bytes:
    """The bytes of a file that holds ``state``; ``entry`` says of what kind it is.

    Raises:
        TypeError: something in the state is neither plain data nor a tensor.

    Examples:
        >>> state = {"lr": 0.1, "betas": (0.9, float("inf")), "weights": [torch.ones(2)]}
        >>> opened(sealed(state, "example"), "example", "the bytes")["betas"]
        (0.9, inf)
    """
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {}
    record = json.dumps(_packed(state, tensors), allow_nan=False)
    metadata = json.dumps({"record": record, "sha256": _digest(record, tensors)})
    return save(tensors, metadata={entry: metadata})


def opened(content: bytes, entry: str, name: object) -> dict[str, Any]:
    """The state in these bytes; ``name`` is what an error calls them.

    Raises:
        DamagedFileError: they are not what `sealed` made of a state of this kind.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    record, digest = _entry(content, entry, name)
    try:
        tensors = load(content)
        if digest != _digest(record, tensors):
            raise ValueError("its hash does not match")
        return dict(_unpacked(parse(record, str(name)), tensors))
    except (SafetensorError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise DamagedFileError(f"{name} was changed after it was written ({error}).") from error


def record_of(path: str | os.PathLike[str], entry: str) -> Any:
    """The record of a sealed file without its tensors, which stand in it as their names; the hash is not checked.

    Raises:
        OSError: it cannot be read.
        DamagedFileError: it is not a sealed file of this kind.
    """
    with Path(path).open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        content = start + file.read(min(length, _HEADER))
    return parse(_entry(content, entry, path)[0], str(path))


def _entry(content: bytes, entry: str, name: object) -> tuple[str, str]:
    """The record's text, and the hash that it should have with its tensors."""
    length = int.from_bytes(content[:8], "little")
    try:
        if length > min(_HEADER, len(content) - 8):
            raise ValueError("it is cut short, or no safetensors file")
        metadata = json.loads(content[8 : 8 + length])["__metadata__"]
        inner = json.loads(metadata[entry])
        record, digest = inner["record"], inner["sha256"]
    except (LookupError, RecursionError, TypeError, ValueError) as error:
        raise DamagedFileError(f"{name} is damaged: it is no file of the kind {entry!r} ({error}).") from error
    if not isinstance(record, str) or not isinstance(digest, str):
        raise DamagedFileError(f"{name} is damaged: its record is not text.")
    return record, digest


def _digest(record: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(record.encode())
    for key in sorted(tensors):
        tensor = tensors[key].contiguous()
        digest.update(f"\0{key}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        if tensor.numel():
            digest.update((ctypes.c_char * tensor.nbytes).from_address(tensor.data_ptr()))
    return digest.hexdigest()


def _packed(value: Any, tensors: dict[str, Tensor]) -> Any:
    """JSON for a state; what JSON has no word for is an object of the one name ``$...``."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": str(value)}
    if isinstance(value, Tensor):
        key = f"{len(tensors)}"
        tensors[key] = value.detach().to("cpu", copy=True).contiguous()
        return {"$tensor": key}
    if isinstance(value, tuple):
        return {"$tuple": [_packed(part, tensors) for part in value]}
    if isinstance(value, list):
        return [_packed(part, tensors) for part in value]
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: _packed(part, tensors) for key, part in value.items()}
        return {"$pairs": [[_packed(k, tensors), _packed(v, tensors)] for k, v in value.items()]}
    raise TypeError(f"a state is plain data and tensors, got {type(value).__name__}.")


def _unpacked(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpacked(part, tensors) for part in value]
    if not isinstance(value, dict):
        return value
    match value:
        case {"$float": text}:
            return float(text)
        case {"$tensor": key}:
            return tensors[key]
        case {"$tuple": parts}:
            return tuple(_unpacked(part, tensors) for part in parts)
        case {"$pairs": pairs}:
            return {_unpacked(k, tensors): _unpacked(v, tensors) for k, v in pairs}
    return {key: _unpacked(part, tensors) for key, part in value.items()}
