r"""Network = lift -> flows and connectors -> head: what it computes, answers, and becomes."""

from __future__ import annotations

__all__ = ["Network"]

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from liouville.answering import Answering, evaluation_mode
from liouville.backprop import Backprop, Stored
from liouville.display import table
from liouville.fields.hooks import hook_of
from liouville.flow import Flow, flows_of, require_untraced
from liouville.nodes import Placement
from liouville.plain import Raw, plain


class Network(Answering):
    r"""x -> head(body(lift(x))).

    Args:
        lift: x -> y_0; `Lift`, or a learned map such as ``nn.Linear`` or ``nn.Conv2d``.
        body: a `Flow`, or several with `Connector` between them in an ``nn.Sequential``.
        head: y_N -> scores or predictions; linear in both papers.

    ``network(x, mask=mask)`` gives further arguments to all flows of the body, as `Flow` describes.

    ``facts`` describe the network's data (``split.facts()``), or are None. They are saved with the network and let
    `transform` and `predict` take raw inputs; ``network(x)`` takes inputs scaled as in training. ``placement``, of a
    network on the nodes of a graph, says who talks to whom, and is saved as well.

    Examples:
        >>> import liouville as lv
        >>> net = lv.Network(lv.Lift(4), lv.zoo.h2(4, layers=8, T=1.0), nn.Linear(4, 1))
        >>> net(torch.randn(10, 2)).shape
        torch.Size([10, 1])
    """

    placement: Placement | None = None

    def __init__(self, lift: nn.Module, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.lift = lift
        self.body = body
        self.head = head

    def features(self, x: Tensor, *args: Any, **context: Any) -> Tensor:
        """y_N, the input of the head; further arguments go to the flows."""
        y = self.lift(x)
        return _through(self.body, y, args, context) if args or context else self.body(y)

    def forward(self, x: Tensor, *args: Any, **context: Any) -> Tensor:
        """Scores (classification) or predictions (regression)."""
        require_untraced(x)
        return self.head(self.features(x, *args, **context))

    def with_backprop(self, engine: Backprop) -> Network:
        """The same network with another engine in every flow, including flows in the lift and the head. It shares all
        modules except the flows and their containers, and so all weights.

        Raises:
            ValueError: if the engine cannot run one of the flows.

        Examples:
            >>> import liouville as lv
            >>> net = lv.classifier("h2", inputs=2, classes=2, features=4, layers=8, T=1.0, backprop=lv.Auto())
            >>> [flow.backprop for flow in net.with_backprop(lv.Stored()).flows()]
            [Stored()]
        """
        return _with_backprop(self, engine, {})

    def to_plain(self, x: Tensor | None = None, *, raw: bool = False) -> GraphModule:
        """The network's operations in evaluation mode, with copies of its weights: a module that needs torch only.

        Where this library is not installed, ``torch.load(file, weights_only=False)`` reads what ``torch.save`` wrote of
        it. It takes batches of any size; its parameters have the names that they have here, and can be trained.

        Args:
            x: an example input, such as one sample in a batch; None takes the shape from `facts`.
            raw: whether it takes raw inputs and answers in the unit of the targets (`liouville.plain.Raw`).

        Raises:
            ValueError: a shape or raw inputs are asked for that this network, without `facts`, does not know.
            NotImplementedError: for an implicit scheme, whose operations depend on the numbers.

        Examples:
            >>> import liouville as lv
            >>> net = lv.classifier("h2", inputs=2, classes=2, features=4, layers=8, T=1.0)
            >>> x = torch.randn(5, 2)
            >>> bool(torch.allclose(net.to_plain(x)(x), net(x), atol=1e-6))
            True
        """
        like = next(self.parameters())
        if x is None and self.facts is None:
            raise ValueError("to_plain needs the shape of an input: give an example, network.to_plain(x).")
        module: Any = self.with_backprop(Stored())
        if raw:
            module = Raw(module, self._known())
        if x is None:
            columns = self._known().preprocessing if raw else None
            shape = self._known().shape if columns is None else (len(columns.columns),)
            x = torch.zeros(1, *shape, dtype=torch.float64 if raw else like.dtype, device=like.device)
        with evaluation_mode(module):
            return plain(module, x)

    def flows(self) -> Iterator[Flow]:
        """The flows of the body, in order."""
        return iter(flows_of(self.body))

    def _repr_html_(self) -> str:
        """A small table for notebooks."""
        rows = [("lift", _line(self.lift)), *((f"flow {k}", _in_short(f)) for k, f in enumerate(self.flows()))]
        weights = sum(p.numel() for p in self.parameters())
        rows += [("head", _line(self.head)), ("weights", f"{weights:,}")]
        data = () if self.facts is None else (("data", self.facts.name),)
        return table(type(self).__name__, (), [*rows, *data])


def _line(module: nn.Module) -> str:
    text = " ".join(repr(module).split())
    return text if len(text) <= 100 else f"{text[:96]} ..."


def _in_short(flow: Flow) -> str:
    scheme, field = type(flow.scheme).__name__, type(flow.field).__name__
    return f"{flow.layers} layers of {scheme} through {field}, T = {flow.T:g}, h = {flow.h:.4g}, {flow.backprop!r}"


def _through(module: nn.Module, y: Tensor, args: Sequence[Any], context: Mapping[str, Any]) -> Tensor:
    """The module's output, with the arguments passed to its flows and to user-defined modules that contain flows."""
    if not any(isinstance(part, Flow) for part in module.modules()):
        return module(y)
    if type(module) is not nn.Sequential:
        return module(y, *args, **context)
    if hook_of(module) is not None:
        raise ValueError(
            f"the {hook_of(module)} on the body would be skipped, since an nn.Sequential takes no arguments; put it "
            "on one of its parts."
        )
    for part in module:
        y = _through(part, y, args, context)
    return y


def _with_backprop(module: Any, engine: Backprop, made: dict[nn.Module, nn.Module]) -> Any:
    """The module if it has no flow; else a copy of it, in which only the containers of its flows are copied."""
    if module in made or not flows_of(module):
        return made.get(module, module)
    if isinstance(module, Flow):
        made[module] = module.with_backprop(engine)
        return made[module]
    made[module] = twin = copy.copy(module)
    twin._modules = {name: part and _with_backprop(part, engine, made) for name, part in module._modules.items()}
    return twin
