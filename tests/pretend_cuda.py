"""A CUDA device that is none: tensors that say they are on cuda:0, and compute on the CPU.

Inside `pretending`, what mixes devices raises as CUDA would, and every wait of the host for the device, and every copy
to it, is counted by the line of liouville that asked for it. Numbers are real, so whole trainings go through. It does
not see CUDA's own rounding, streams, operations that CUDA lacks, nor speed. A recorded graph repeats what it recorded
by running it again, with waits refused, as while it is recorded.
"""

import collections
import contextlib
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from liouville.analysis.proofs.untouched import _PLAIN

CUDA = torch.device("cuda", 0)
MEMORY = 2**34
_HOME = "/liouville/"
# what CUDA's versions of these make the host wait for: a number, a size that depends on numbers, whether LAPACK worked
_WAITS = frozenset(
    ("_local_scalar_dense", "equal", "is_nonzero", "nonzero", "_unique2", "unique_dim", "bincount", "item")
)
_WAITS |= {"masked_select", "_linalg_check_errors", "linalg_inv_ex", "_linalg_svd", "_linalg_eigh", "linalg_eig"}
_WAITS |= {"linalg_qr", "linalg_lu_factor_ex", "_linalg_solve_ex", "linalg_cholesky_ex", "linalg_eigvals"}
_HOST_NUMBERS = frozenset(("_local_scalar_dense", "equal", "is_nonzero"))
_BETWEEN = frozenset(("_to_copy", "copy_", "set_", "lift_fresh", "_fused_adam_"))  # these take tensors of two devices


class Counts:
    """Waits and copies to the device, by line of liouville."""

    def __init__(self):
        self.waits, self.copies = collections.Counter(), collections.Counter()
        self.refused = False  # as by torch.cuda.set_sync_debug_mode("error")

    def wait(self, what):
        if self.refused:
            raise RuntimeError(f"called a synchronizing CUDA operation ({what} at {_line()})")
        self.waits[f"{_line()} {what}"] += 1

    def clear(self):
        self.waits.clear()
        self.copies.clear()

    @property
    def total(self):
        return sum(self.waits.values())


counts = Counts()


def _line():
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if _HOME in name and Path(name).parent.name != "tests":
            return f"{name.split(_HOME)[-1]}:{frame.f_lineno}"
        frame = frame.f_back
    return "torch"


class Pretend(torch.Tensor):
    """A tensor that says it is on cuda:0; ``elem`` has its numbers. Torch's C++ takes it for one of the meta device."""

    @staticmethod
    def __new__(cls, elem, requires_grad=False):
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            elem.shape,
            strides=elem.stride(),
            storage_offset=elem.storage_offset(),
            dtype=elem.dtype,
            device="meta",
            requires_grad=requires_grad,
        )
        made.elem = elem
        return made

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)
    is_meta = property(lambda self: False)

    @property
    def data(self):
        return torch.Tensor.data.__get__(self)

    @data.setter
    def data(self, value):
        self.elem = value.elem
        torch.Tensor.data.__set__(self, value)

    def data_ptr(self):
        return self.elem.data_ptr()

    def __deepcopy__(self, memo):
        if id(self) not in memo:
            made = memo[id(self)] = Pretend(self.elem.clone(), self.requires_grad)
            made.grad = None if self.grad is None else self.grad.clone()
            if getattr(self, "_is_param", False):
                made._is_param = True
        return memo[id(self)]

    def __repr__(self):
        return f"Pretend({self.elem})"

    def numpy(self, *args, **more):
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")

    def __array__(self, *args, **more):
        return self.numpy()

    def tolist(self):
        counts.wait("tolist")
        return self.elem.tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


def _run(func, args, kwargs):
    name = func._schema.name.split("::")[1]
    leaves = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    ours = [t for t in leaves if isinstance(t, Pretend)]
    plain = [t for t in leaves if not isinstance(t, Pretend)]
    device = kwargs.get("device")
    device = torch.device(device) if isinstance(device, str) else device
    there = device.type in ("cuda", "meta") if device is not None else bool(ours)
    if ours:
        _note(name, args, leaves, plain, device)
    elif name == "_to_copy" and there:
        counts.copies[_line()] += 1
    if name == "_efficientzerotensor":  # which has no memory, and forward mode makes one for each missing tangent
        func = torch.ops.aten.zeros.default
    kwargs = {k: torch.device("cpu") if k == "device" and v is not None else v for k, v in kwargs.items()}
    kwargs |= {"pin_memory": False} if "pin_memory" in kwargs else {}
    out = func(*tree_map(_inside, args), **tree_map(_inside, kwargs))
    if not there or name in _HOST_NUMBERS:
        return out
    changed = {id(t.elem): t for t in ours}  # what works in place gives the tensor that it was given
    return tree_map(lambda t: changed[id(t)] if id(t) in changed else _outside(t), out)


def _note(name, args, leaves, plain, device):
    """Raise for tensors of two devices; count a wait or a copy."""
    if name in _WAITS:
        counts.wait(name)
    indexing = name.startswith("index") and name != "index_select"  # with indices on the CPU, which are copied
    if indexing and any(t.dtype is torch.bool for t in leaves if t is not args[0]):
        counts.wait("boolean index")
    if name not in _BETWEEN and not indexing and any(t.dim() > 0 for t in plain):
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! ({name} "
            f"at {_line()})"
        )
    if name == "_to_copy" and device is not None and device.type == "cpu":
        counts.wait("to cpu")
    if indexing and plain:
        counts.copies[f"{_line()} index"] += 1
    if name == "copy_" and plain:
        if isinstance(args[1], Pretend):
            counts.wait("copy_ to cpu")
        else:
            counts.copies[f"{_line()} copy_"] += 1


def _inside(t):
    return t.elem if isinstance(t, Pretend) else t


def _outside(t):
    return Pretend(t) if isinstance(t, torch.Tensor) else t


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class _Names(TorchFunctionMode):
    """cuda, wherever it is named, becomes meta before torch's C++ sees it, which knows that it has no CUDA."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in ("__get__", "device"):
            return func(*args, **kwargs)
        generator, on = kwargs.get("generator"), kwargs.get("device")
        if generator is not None and on is not None and generator.pretended != torch.device(on).type:
            raise RuntimeError(
                f"Expected a '{torch.device(on).type}' device type for generator but found '{generator.pretended}'"
            )
        if func is torch.tensor and on is not None and torch.device(on).type == "cuda":
            counts.copies[_line()] += 1
            return torch.tensor(*args, **{**kwargs, "device": "cpu"}).to("meta")  # which `_Mode` makes ours
        if func is torch.Tensor.new_tensor and isinstance(args[0], Pretend):
            counts.copies[_line()] += 1
            return torch.tensor(args[1], dtype=kwargs.get("dtype", args[0].dtype), device="cpu").to("meta")
        return func(*map(_renamed, args), **{k: _renamed(v) for k, v in kwargs.items()})


def _renamed(value):
    if isinstance(value, torch.device) and value.type == "cuda":
        return torch.device("meta")
    return "meta" if isinstance(value, str) and value.split(":")[0] == "cuda" else value


class _Generator(torch.Generator):
    """A CPU generator that says where it was asked for."""

    def __new__(cls, device="cpu"):
        made = super().__new__(cls)
        made.pretended = torch.device(device).type
        return made


class _Recording:
    on = False


def _recorder(step):
    """In place of `liouville.train.capture.record`: repeating is running again, as a recording runs."""

    def again():
        _Recording.on = counts.refused = True
        copies = counts.copies.copy()
        try:
            step()
        finally:
            _Recording.on = counts.refused = False
        if counts.copies != copies:
            raise RuntimeError(f"a recorded step copies from the host: {counts.copies - copies}")

    return again


class _Stream:
    def wait_stream(self, other):
        pass


def _set_sync_debug_mode(mode):
    counts.refused = mode == "error"


@contextlib.contextmanager
def pretending(devices=1):
    """As if there were so many CUDA devices; the counts begin at 0."""
    counts.clear()
    patches = {
        (torch.cuda, "_lazy_init"): lambda: None,
        (torch.cuda, "is_available"): lambda: True,
        (torch.cuda, "is_initialized"): lambda: True,
        (torch.cuda, "is_current_stream_capturing"): lambda: _Recording.on,
        (torch.cuda, "device_count"): lambda: devices,
        (torch.cuda, "current_device"): lambda: 0,
        (torch.cuda, "get_device_properties"): lambda *_: SimpleNamespace(total_memory=MEMORY),
        (torch.cuda, "get_rng_state"): lambda *_: torch.zeros(16, dtype=torch.uint8),
        (torch.cuda, "set_rng_state"): lambda *_: None,
        (torch.cuda, "default_generators"): [torch._C.Generator()],
        (torch.cuda, "synchronize"): lambda *_: None,
        (torch.cuda, "Stream"): _Stream,
        (torch.cuda, "current_stream"): _Stream,
        (torch.cuda, "stream"): lambda *_: contextlib.nullcontext(),
        (torch.cuda, "set_sync_debug_mode"): _set_sync_debug_mode,
        (torch, "Generator"): _Generator,
    }
    with contextlib.ExitStack() as stack:
        for (target, name), value in patches.items():
            stack.enter_context(mock.patch.object(target, name, value))
        stack.enter_context(mock.patch("liouville.train.capture.record", _recorder))
        stack.enter_context(mock.patch("liouville.analysis.proofs.untouched._PLAIN", (*_PLAIN, Pretend)))
        # nobody looks on but the pretence itself
        stack.enter_context(mock.patch("liouville.compilers._dispatch_modes", lambda: 0))
        stack.enter_context(mock.patch("liouville.compilers._function_modes", lambda: 0))
        stack.enter_context(_Mode())
        stack.enter_context(_Names())
        yield counts
