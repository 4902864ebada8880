"""The memory that a run holds, to the storage."""

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Live(TorchDispatchMode):
    """Counts the storages of at least ``size`` bytes that came up inside and are alive, but for those of ``known``:
    now (`count`, `bytes`) and at most (``peak``, ``most``)."""

    def __init__(self, size, known=()):
        super().__init__()
        self.size, self.made, self.peak, self.most = size, {}, 0, 0
        self.known = {x.untyped_storage().data_ptr() for x in known}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out, new = func(*args, **(kwargs or {})), False
        for tensor in tree_leaves(out):
            storage = tensor.untyped_storage() if isinstance(tensor, torch.Tensor) else ()
            if len(storage) >= self.size and storage.data_ptr() not in self.known:
                ref = StorageWeakRef(storage)
                new = new or ref.cdata not in self.made
                self.made[ref.cdata] = ref, len(storage)
        if new:
            self.peak = max(self.peak, self.count())
            self.most = max(self.most, self.bytes())
        return out

    def count(self):
        self.made = {key: (ref, size) for key, (ref, size) in self.made.items() if not ref.expired()}
        return len(self.made)

    def bytes(self):
        self.count()
        return sum(size for _, size in self.made.values())
