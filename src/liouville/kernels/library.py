r"""The native library: found, loaded by ctypes, and declared as in ``native/problem.h``."""

from __future__ import annotations

__all__ = [
    "Array",
    "EulerRun",
    "Forced",
    "Image",
    "Part",
    "SequenceRun",
    "Series",
    "ShearRun",
    "Stage",
    "Traced",
    "Velocity",
    "is_built",
    "isa",
    "library",
]

import ctypes
import functools
import os
import sys
from ctypes import POINTER, Structure, c_char_p, c_double, c_int64, c_uint64, c_void_p
from pathlib import Path

import torch

_VERSION = 6
_MISSING = (
    "the native kernel is missing: liouville was installed without a C++ compiler or with LIOUVILLE_KERNEL=OFF, or "
    "runs from a source tree where it was not built; with GCC or Clang run `pip install` again, or `make kernel` in "
    "the tree; every engine except lv.Fused() works without it."
)


class Array(Structure):
    """``lv_array``."""

    _fields_ = (("source", c_void_p), ("stride", c_int64), ("out", c_void_p))


class Part(Structure):
    """``lv_part``."""

    _fields_ = (("width", c_int64), ("value", Array), ("costate", Array), ("grid", Array), ("start", Array))


class Velocity(Structure):
    """``lv_velocity``."""

    _fields_ = (
        *((name, c_int64) for name in ("kind", "rows", "columns")),
        *((name, c_void_p) for name in ("K", "b")),
        *((name, c_int64) for name in ("K_stride", "b_stride")),
        *((name, c_void_p) for name in ("K_gradient", "b_gradient")),
    )


class Image(Structure):
    """``lv_image``."""

    _fields_ = tuple((name, c_int64) for name in ("height", "width", "planes", "taps"))


class Stage(Structure):
    """``lv_stage``."""

    _fields_ = (("moved", c_int64), ("factor", c_double))


class ShearRun(Structure):
    """``lv_shear_run``."""

    _fields_ = (
        *((name, c_int64) for name in ("type", "activation", "threads", "batch", "layers", "stages")),
        ("parts", Part * 2),
        ("velocities", Velocity * 2),
        ("image", Image),
        ("stage", POINTER(Stage)),
        *((name, c_double) for name in ("spacing", "limit")),
        ("left_range", c_int64),
        ("checksum", c_uint64),
        *((name, c_double) for name in ("error", "size")),
    )


class EulerRun(Structure):
    """``lv_euler_run``."""

    _fields_ = (
        *((name, c_int64) for name in ("type", "activation", "threads", "batch", "layers", "width", "segment")),
        ("step", c_double),
        ("value", Array),
        ("costate", Array),
        ("weights", Velocity * 2),
        ("kept", c_void_p),
    )


class Series(Structure):
    """``lv_series``."""

    _fields_ = (("source", c_void_p), ("out", c_void_p), ("time", c_int64), ("sample", c_int64))


class Forced(Structure):
    """``lv_forced``."""

    _fields_ = (
        *((name, c_int64) for name in ("kind", "rows", "columns")),
        *((name, c_void_p) for name in ("K", "G", "b", "W")),
        *((name, c_void_p) for name in ("K_gradient", "G_gradient", "b_gradient", "W_gradient")),
    )


class Traced(Structure):
    """``lv_traced``."""

    _fields_ = (
        ("width", c_int64),
        *((name, Array) for name in ("value", "costate", "grid", "start")),
        *((name, Series) for name in ("output", "given")),
    )


class SequenceRun(Structure):
    """``lv_sequence_run``."""

    _fields_ = (
        *((name, c_int64) for name in ("type", "activation", "threads", "batch", "steps", "stages", "parts", "inputs")),
        ("part", Traced * 2),
        ("velocity", Forced * 2),
        ("stage", POINTER(Stage)),
        ("tau", c_void_p),
        ("tau_time", c_int64),
        ("tau_sample", c_int64),
        ("input", Series),
        ("input_time", c_int64),
        ("input_sample", c_int64),
        ("segment", c_int64),
        ("kept", c_void_p),
        *((name, c_double) for name in ("spacing", "limit")),
        ("left_range", c_int64),
        ("checksum", c_uint64),
        *((name, c_double) for name in ("error", "size")),
    )


def is_built() -> bool:
    """Whether the native library is available."""
    return _path() is not None


@functools.cache
def library() -> ctypes.CDLL:
    """The loaded library.

    Raises:
        RuntimeError: if it is missing, or belongs to another version of the package.
    """
    path = _path()
    if path is None:
        raise RuntimeError(_MISSING)
    kernel = ctypes.CDLL(str(path))
    kernel.lv_isa.restype = c_char_p
    kernel.lv_version.restype = c_int64
    is_ours = kernel.lv_version() == _VERSION
    runs = {"shear": ShearRun, "euler": EulerRun, "sequence": SequenceRun}
    for kind, run in runs.items() if is_ours else ():
        size = getattr(kernel, f"lv_{kind}_run_size")
        size.restype = c_int64
        is_ours = is_ours and size() == ctypes.sizeof(run)
        for way in ("forward", "backward"):
            getattr(kernel, f"lv_{kind}_{way}").argtypes = [POINTER(run)]
            getattr(kernel, f"lv_{kind}_{way}").restype = c_int64
            getattr(kernel, f"lv_{kind}_{way}").errcheck = _outcome
    kernel.lv_activation.argtypes = [c_int64, c_int64, c_int64, c_void_p, c_void_p]
    kernel.lv_activation.restype = None
    if not is_ours:
        raise RuntimeError(
            f"the native kernel at {path.name} was built from another version of liouville; run `pip install` again, "
            "or `make kernel` in a source tree."
        )
    kernel.lv_use_openmp.argtypes = [c_void_p]
    kernel.lv_use_openmp.restype = None
    kernel.lv_use_openmp(_torchs_threads())
    return kernel


def _outcome(code: int, *_: object) -> None:
    """What the C interface returns, as Python says it."""
    if code:
        raise torch.OutOfMemoryError(
            "the native kernel is out of memory: it could not allocate what it works in; take fewer features, a "
            "smaller batch, or fewer threads."
        )


def _torchs_threads() -> int | None:
    """The address of GOMP_parallel in the OpenMP runtime that torch has loaded, from GNU, LLVM or Intel."""
    try:
        loaded = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        return ctypes.cast(loaded.GOMP_parallel, c_void_p).value
    except (OSError, AttributeError):
        return None


def isa() -> str:
    """The instruction set that the kernel uses here: ``"avx512"``, ``"avx2"`` or ``"portable"``."""
    return library().lv_isa().decode()


def _path() -> Path | None:
    """The path of the library; found once, kept in a list since torch.compile warns about functools.cache."""
    if not _found:
        _found.append(_look_for_it())
    return _found[0]


_found: list[Path | None] = []


def _look_for_it() -> Path | None:
    """Search any folder of this package: an editable install has sources and build products in different folders.

    The folder that the environment variable LIOUVILLE_KERNEL names comes first: a build with sanitizers, for example.
    """
    folders = [Path(folder) / "native" for folder in sys.modules[__package__].__path__]
    if "LIOUVILLE_KERNEL" in os.environ:
        folders.insert(0, Path(os.environ["LIOUVILLE_KERNEL"]))
    found = (folder / f"libliouville_kernel.{end}" for folder in folders for end in ("so", "dylib"))
    return next((path for path in found if path.exists()), None)
