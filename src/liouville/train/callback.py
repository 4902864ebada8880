"""Who wants to know how training goes: told of the start, of every step and epoch, and of the end."""

from __future__ import annotations

__all__ = ["Callback"]

from torch import nn

from liouville.train.history import History


class Callback:
    """What `fit` tells its callbacks; override what you need. A callback must not change the network.

    Examples:
        >>> import liouville as lv
        >>> class Count(Callback):
        ...     steps = 0
        ...     def on_step(self, loss):
        ...         self.steps += 1
        >>> network, count = lv.classifier("h2", inputs=2, classes=2, features=4, layers=4, T=1.0), Count()
        >>> settings = lv.train.Settings(epochs=1, batch=90)
        >>> history = lv.train.fit(network, lv.data.load("double-moons", points=200), settings, callbacks=[count])
        >>> count.steps
        1
    """

    def on_start(self, network: nn.Module) -> None:
        """Before the first step."""

    def on_step(self, loss: float) -> None:
        """After every step, with the mean loss of its batch."""

    def on_epoch(self, history: History) -> None:
        """After every epoch, with the history so far."""

    def on_end(self) -> None:
        """When training has ended, by an error too."""
