"""Who wants to know how training goes: told of the start, of every step and epoch, and of the end."""

from __future__ import annotations

__all__ = ["Callback", "require_callbacks"]

from collections.abc import Sequence
from typing import Any

from torch import nn

from liouville.renamed import methods_renamed
from liouville.train.history import History

_FORMER = {
    "on_start": "on_train_start",
    "on_step": "on_train_batch_end",
    "on_epoch": "on_train_epoch_end",
    "on_end": "on_train_end",
}


class Callback:
    """What `fit` tells its callbacks, by the names that Lightning has; override what you need.

    A callback must not change the network.

    Examples:
        >>> import liouville as lv
        >>> class Count(Callback):
        ...     steps = 0
        ...     def on_train_batch_end(self, loss):
        ...         self.steps += 1
        >>> network, count = lv.classifier("h2", inputs=2, classes=2, features=4, layers=4, T=1.0), Count()
        >>> settings = lv.train.Settings(epochs=1, batch_size=90)
        >>> history = lv.train.fit(network, lv.data.load("double-moons", points=200), settings, callbacks=[count])
        >>> count.steps
        1
    """

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        methods_renamed(cls, **_FORMER)

    def on_train_start(self, network: nn.Module) -> None:
        """Before the first step."""

    def on_train_batch_end(self, loss: float) -> None:
        """After every step, with the mean loss of its batch."""

    def on_train_epoch_end(self, history: History) -> None:
        """After every epoch, with the history so far."""

    def on_train_end(self) -> None:
        """When training has ended, by an error too."""


methods_renamed(Callback, **_FORMER)


def require_callbacks(callbacks: Any) -> None:
    """See before the first step that callbacks can be told.

    Raises:
        ValueError: they are no list, or one of them is no `Callback`.
    """
    if isinstance(callbacks, Callback) or not isinstance(callbacks, Sequence):
        raise ValueError(f"callbacks must be a list of them, got {type(callbacks).__name__}; write callbacks=[...].")
    for callback in callbacks:
        if not isinstance(callback, Callback):
            shown = f"the class {callback.__name__}" if isinstance(callback, type) else repr(callback)[:60]
            raise ValueError(
                f"a callback must be an object of a subclass of liouville.train.Callback, such as CSVLogger(FILE), "
                f"got {shown}."
            )
