r"""Save and load networks: one safetensors file that holds the weights and a JSON description of what they belong to.

The description is data: names of a registry and numbers. Loading builds the objects that it names and copies the
weights into them; nothing in a file is executed. Beside it stand the `Facts` of the data, where they are known. A
SHA-256 hash over description, facts and every tensor ties them together, so an edited description, another name of a
class or a flipped bit is refused.
"""

from __future__ import annotations

__all__ = ["DamagedModelError", "describe", "load", "register", "save"]

import ctypes
import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import liouville.registered  # noqa: F401 (the classes that files may name)
from liouville.documents import parse
from liouville.facts import Facts
from liouville.files import atomic
from liouville.randomness import seeded
from liouville.registry import ARGUMENT, UnregisteredError, build, describe, register
from liouville.sketch import Sketch, TooLargeError

FORMAT = "liouville-1"
WITH_FACTS = "liouville-2"  # a format of its own, so that earlier versions say what they lack
WITH_PREPROCESSING = "liouville-3"
# What loading may take beside the file: the network, and what its constructors draw or try on the way.
_SPARE, _FACTOR, _OBJECT = 1 << 25, 6, 1 << 12  # bytes; per byte of the file; bytes of a module without weights
_FLOATS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
_UNFIT = (ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError, RuntimeError, TypeError)


class DamagedModelError(ValueError):
    """A model file that was changed after it was written, or whose description and weights are not of one network."""


class _Content(NamedTuple):
    """What a file holds; texts as they were hashed."""

    description: str
    tensors: dict[str, Tensor]
    facts: str | None = None


def save(network: nn.Module, path: str | os.PathLike[str], *, facts: Facts | None = None) -> Path:
    """Write a network, or any registered part of one, to ``path``, whole or not at all.

    Args:
        network: what to write.
        path: the file.
        facts: of the data it was trained on, ``split.facts()``, so that the loaded network answers raw inputs;
            ``network.facts`` if None.

    Raises:
        ValueError: if a part is not registered, or its description does not lead back to its weights.
        OSError: if the file cannot be written; nothing is left behind then.

    Examples:
        >>> import tempfile, liouville as lv
        >>> network = lv.classifier("h2", inputs=2, classes=2, features=4, layers=8, T=1.0)
        >>> path = save(network, Path(tempfile.mkdtemp()) / "model.safetensors")
        >>> x = torch.randn(3, 2)
        >>> bool((load(path)(x) == network(x)).all())
        True
    """
    from safetensors.torch import save as serialised

    arguments: dict[str, Tensor] = {}
    text = json.dumps(describe(network, arguments), sort_keys=True)
    tensors = arguments | {k: v.detach().cpu().contiguous().clone() for k, v in network.state_dict().items()}
    known = facts or getattr(network, "facts", None)
    said = json.dumps(known.as_dict(), sort_keys=True) if isinstance(known, Facts) else None
    content = _Content(text, tensors, said)
    header = {"format": FORMAT, "description": text, "sha256": _digest(*content)}
    if content.facts is not None:
        prepared = isinstance(known, Facts) and known.preprocessing is not None
        header |= {"format": WITH_PREPROCESSING if prepared else WITH_FACTS, "facts": content.facts}
    metadata = {"liouville": json.dumps(header, sort_keys=True)}  # one entry: safetensors does not keep their order
    _require_loadable(content)
    with atomic(path) as temporary:
        temporary.write_bytes(serialised(tensors, metadata=metadata))  # an OSError where the disk is full
    return Path(path)


def load(path: str | os.PathLike[str]) -> Any:
    """Read a network back, in evaluation mode; nothing in the file is executed.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedModelError: (a `ValueError`) if it was changed after it was written, or describes another network than
            its weights belong to.
        ValueError: if the file is not a liouville model, or names classes that are not registered.
    """
    content = _read(Path(path))
    try:
        _require_fits(content)
        return _assembled(content).eval()
    except _UNFIT as error:
        why = str(error).strip().partition("\n")[0].rstrip(".:")  # torch goes on with lists of what it would take
        raise DamagedModelError(f"{path}: its description does not fit its weights ({why}).") from error
    except UnregisteredError as error:
        raise ValueError(f"{path}: {error}") from error
    except ValueError as error:
        raise DamagedModelError(f"{path}: {error}") from error


def read_description(path: str | os.PathLike[str]) -> Any:
    """The description inside a model file, checked against the hash, without building anything."""
    return parse(_read(Path(path)).description, f"{path}: its description")


def _read(path: Path) -> _Content:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"there is no model file {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            header = dict(parse((file.metadata() or {}).get("liouville", "{}"), "its header"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is not a readable model file ({error}); expected a file written by liouville.save."
        ) from error
    facts = header.get("facts")
    known = header.get("format") in ((FORMAT,) if facts is None else (WITH_FACTS, WITH_PREPROCESSING))
    if not known or not isinstance(header.get("description"), str) or not isinstance(facts, str | None):
        raise ValueError(
            f"{path} is a safetensors file, but not a liouville model (format {header.get('format')!r}, expected "
            f"{FORMAT!r}, {WITH_FACTS!r} or {WITH_PREPROCESSING!r}); expected a file written by liouville.save."
        )
    content = _Content(header["description"], tensors, facts)
    if header.get("sha256") != _digest(*content):
        raise DamagedModelError(
            f"{path} was changed after it was written: its hash does not match; restore or retrain it."
        )
    return content


def _digest(description: str, tensors: dict[str, Tensor], facts: str | None = None) -> str:
    digest = hashlib.sha256(description.encode())
    if facts is not None:
        digest.update(f"\0facts\0{facts}".encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        tensor = tensor.contiguous()
        digest.update(ctypes.string_at(tensor.data_ptr(), tensor.nbytes) if tensor.numel() else b"")
    return digest.hexdigest()


def _assembled(content: _Content) -> nn.Module:
    with seeded(0):  # initial weights are drawn, and overwritten at once
        network = build(parse(content.description, "its description"), content.tensors)
    if not isinstance(network, nn.Module):
        raise TypeError(f"it describes a {type(network).__name__}, not a module")
    _fill(network, {k: v for k, v in content.tensors.items() if not k.startswith(ARGUMENT)})
    if content.facts is not None:
        network.facts = Facts.from_dict(parse(content.facts, "its facts"), "facts")  # type: ignore[assignment]
    return network


def _require_fits(content: _Content) -> None:
    """Raise where the description is of another network than the weights, before memory is taken for it."""
    state = {k: v for k, v in content.tensors.items() if not k.startswith(ARGUMENT)}
    size = len(content.description) + len(content.facts or "") + sum(v.nbytes for v in content.tensors.values())
    allowance = _SPARE + _FACTOR * size
    objects = content.description.count('"type"')
    if objects * _OBJECT > allowance:
        raise TooLargeError(f"it describes {objects:,} parts, and has {size:,} bytes")
    with Sketch(allowance, strict=True), seeded(0):
        network = build(parse(content.description, "its description"), content.tensors)
    if not isinstance(network, nn.Module):
        raise TypeError(f"it describes a {type(network).__name__}, not a module")
    planned = network.state_dict()
    for name in sorted(planned.keys() ^ state.keys()):
        raise TypeError(f"{name} is {'not in the file' if name in planned else 'no weight of this network'}")
    for name, tensor in state.items():
        if planned[name].shape != tensor.shape:
            was, is_ = tuple(planned[name].shape), tuple(tensor.shape)
            raise TypeError(f"{name} has shape {is_} in the file, and {was} in the network that it describes")
        known = planned[name].dtype
        if tensor.dtype not in (_FLOATS if known in _FLOATS else {known}):
            raise TypeError(f"{name} has the dtype {tensor.dtype} in the file, expected {known}")


def _require_loadable(content: _Content) -> None:
    try:
        _assembled(content)
    except Exception as error:
        raise ValueError(
            f"cannot save this network: rebuilt from its description it would not take its own weights ({error}). "
            "Register its parts with the arguments that rebuild them, liouville.checkpoint.register(kind, arguments)."
        ) from error


def _fill(network: nn.Module, state: dict[str, Tensor]) -> None:
    """Copy the weights in: their dtype wins, the network's memory layout stays."""
    own = dict(network.named_parameters()) | dict(network.named_buffers())
    for name, tensor in state.items():
        if name in own:
            own[name].data = torch.empty_like(own[name].data, dtype=tensor.dtype)
    network.load_state_dict(state, strict=True)
