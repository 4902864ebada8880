r"""Network = lift -> flows and connectors -> head: the modules around the integrator."""

from __future__ import annotations

__all__ = ["ChannelsLast", "Connector", "Half", "Lift", "Network", "evaluation_mode", "outputs_of"]

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule

from liouville.answering import Answering, evaluation_mode, outputs_of
from liouville.backprop import Backprop, Stored
from liouville.display import table
from liouville.fields.hooks import hook_of
from liouville.flow import Flow, flows_of, require_tensor, require_untraced
from liouville.nodes import Placement
from liouville.plain import Raw, plain

Place = Literal["front", "ends", "p", "q"]
_PLACES = ("front", "ends", "p", "q")
_AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_LEARNED = {0: nn.Linear, 1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class Lift(nn.Module):
    r"""Zero padding of the features: x -> y_0. It has no weights.

    Args:
        features: n, the width of y_0.
        inputs: width of x; with it, an input of any other width is refused.
        place: position of the data. ``"front"`` or ``"p"``: [x, 0], the order of 2104.13166; ``"ends"``: the first
            half of x at the front and the rest at the end, [x1, 0, 0, x2], the order of the authors' code, so that both
            halves of y = (p, q) hold data; ``"q"``: the second half, [0, x], as in the first paper's Verlet network; or
            the feature of each input, counted from 0, such as (0, 12).
        axis: the feature axis, -1 for vectors, -3 for images.
        scale: y_0 = scale * [x, 0]; positive and finite.

    Raises:
        ValueError: if x does not fit, or a scale that is not positive.

    Examples:
        >>> Lift(4, place="ends")(torch.tensor([1.0, 2.0]))
        tensor([1., 0., 0., 2.])
    """

    def __init__(
        self,
        features: int,
        inputs: int | None = None,
        *,
        place: Place | Sequence[int] = "front",
        axis: int = -1,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0 < scale < math.inf:
            raise ValueError(f"scale must be positive and finite, got {scale}.")
        if not isinstance(place, str):
            inputs, place = _require_places(place, features, inputs), tuple(place)
        elif place not in _PLACES:
            raise ValueError(f"place must be one of {', '.join(map(repr, _PLACES))}, got {place!r}.")
        room = features - features // 2 if place == "q" else features
        if inputs is not None and not 0 < inputs <= room:
            raise ValueError(
                f"{inputs} inputs do not fit into {room} features (features={features}, place={place!r}); "
                "take more features or a learned lift."
            )
        self.features, self.inputs, self.place, self.axis = features, inputs, place, axis
        self.scale = float(scale)

    def forward(self, x: Tensor) -> Tensor:
        """x -> y_0."""
        require_tensor(x)
        width = x.shape[self.axis]
        if self.inputs is not None and width != self.inputs:
            raise ValueError(
                f"expected {self.inputs} inputs on axis {self.axis}, got {width} (shape {tuple(x.shape)})."
            )
        if self.scale != 1.0:
            x = self.scale * x
        if isinstance(self.place, tuple):
            shape = list(x.shape)
            shape[self.axis] = self.features
            places = torch.tensor(self.place, device=x.device)
            return x.new_zeros(shape).index_copy(self.axis, places, x)
        first = self.features // 2 if self.place == "q" else 0
        rest = self.features - first - width
        if rest < 0:
            raise ValueError(f"an input of width {width} does not fit into {self.features - first} features.")
        behind = (0, 0) * ((-1 - self.axis) % x.dim())
        if self.place == "ends":
            front = (width + 1) // 2
            x, end = x.split((front, width - front), self.axis)
            return torch.cat((F.pad(x, (*behind, 0, rest)), end), self.axis)
        return F.pad(x, (*behind, first, rest))

    def extra_repr(self) -> str:
        return f"features={self.features}, inputs={self.inputs}, place={self.place!r}, axis={self.axis}" + (
            f", scale={self.scale:g}" if self.scale != 1.0 else ""
        )


def _require_places(place: Sequence[int], features: int, inputs: int | None) -> int:
    """The number of inputs, after a check that each has its own feature."""
    if len(set(place)) != len(place) or not all(0 <= int(k) < features for k in place):
        raise ValueError(f"place must name different features from 0 to {features - 1}, one per input; got {place}.")
    if inputs not in (None, len(place)):
        raise ValueError(f"place names {len(place)} features for {inputs} inputs; name one for each.")
    return len(place)


class Connector(nn.Module):
    r"""Between two flows: pooling, then more (or fewer) features.

    Args:
        inputs: features before.
        outputs: features after.
        pool: pooling window and stride; 1 keeps the resolution.
        learned: a learned linear map; else zero features are appended to each half of y = (p, q), as in
            1709.03698, and ``outputs`` must not be less than ``inputs``.
        kernel: odd width of the learned stencil on images.
        average: average pooling; else the largest value of each window.
        dims: 0 for vectors, 2 for images.

    Raises:
        ValueError: if zero padding would have to remove features, or ``kernel`` is even.

    Examples:
        >>> Connector(8, 16, pool=2, dims=2)(torch.randn(5, 8, 14, 14)).shape
        torch.Size([5, 16, 7, 7])
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        pool: int = 1,
        learned: bool = True,
        kernel: int = 1,
        average: bool = True,
        dims: int = 0,
    ) -> None:
        super().__init__()
        if pool > 1 and dims == 0:
            raise ValueError(f"vectors have no resolution to pool (pool={pool}); give dims=2 for images.")
        if not learned and (outputs < inputs or (outputs - inputs) % 2):
            raise ValueError(
                f"zero padding of both halves needs outputs - inputs even and >= 0, got {inputs} -> {outputs}; "
                "use learned=True."
            )
        if kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, so that the padding keeps the size, got {kernel}.")
        self.inputs, self.outputs, self.pool, self.learned, self.dims = inputs, outputs, pool, learned, dims
        self.kernel, self.average = kernel, average
        self.map: nn.Module = nn.Identity()
        if learned:
            stencil = {"kernel_size": kernel, "padding": kernel // 2} if dims else {}
            self.map = _LEARNED[dims](inputs, outputs, **stencil)

    def forward(self, y: Tensor) -> Tensor:
        """Pool, then map or pad."""
        if self.pool > 1:
            y = (_AVERAGE if self.average else _MAX)[self.dims](y, self.pool)
        if self.learned:
            return self.map(y)
        extra = (self.outputs - self.inputs) // 2
        pad = (0, 0) * self.dims + (0, extra)
        return torch.cat([F.pad(half, pad) for half in y.chunk(2, -1 - self.dims)], -1 - self.dims)

    def extra_repr(self) -> str:
        return f"{self.inputs} -> {self.outputs}, pool={self.pool}, learned={self.learned}"


class ChannelsLast(nn.Module):
    """Images (B, C, H, W) with the channels innermost in memory: the same numbers, and few channels run up to twice
    as fast on a CPU. Later layers keep this layout.

    Examples:
        >>> ChannelsLast()(torch.zeros(1, 2, 3, 3)).stride()
        (18, 1, 6, 2)
    """

    def forward(self, x: Tensor) -> Tensor:
        """x in another memory layout."""
        return x.contiguous(memory_format=torch.channels_last)


class Half(nn.Module):
    """One half of y = (p, q): the head of the first paper's Verlet network reads only q.

    Args:
        part: ``"p"`` or ``"q"``.
        axis: the feature axis.

    Examples:
        >>> Half("q")(torch.tensor([1.0, 2.0]))
        tensor([2.])
    """

    def __init__(self, part: Literal["p", "q"], *, axis: int = -1) -> None:
        super().__init__()
        if part not in ("p", "q"):
            raise ValueError(f'part must be "p" or "q", got {part!r}.')
        self.part, self.axis = part, axis

    def forward(self, y: Tensor) -> Tensor:
        """p or q."""
        return y.chunk(2, self.axis)["pq".index(self.part)]


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
