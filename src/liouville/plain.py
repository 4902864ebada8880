r"""A network without this library: its operations as a ``torch.fx.GraphModule``, with its raw inputs if asked for.

torch records the plain loop over the layers, for any batch. What is left needs torch only: `torch.save` and
`torch.load` move it to another process, and its parameters keep their names.
"""

from __future__ import annotations

__all__ = ["Raw", "plain"]

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

from liouville.facts import Facts

if TYPE_CHECKING:
    from liouville.columns import Category, Columns, Number

_CHECKS = (
    "_guards_fn",
    torch.ops.aten._assert_tensor_metadata.default,
)  # of shapes, dtypes and devices, by torch.export


def plain(module: nn.Module, example: Tensor) -> GraphModule:
    """The operations of a module of one argument, with copies of its weights.

    Args:
        module: in evaluation mode.
        example: an input; the first axis may have any length afterwards, the others keep theirs.

    Raises:
        NotImplementedError: the operations depend on the numbers (an implicit scheme).

    Examples:
        >>> twin = plain(nn.Linear(2, 1), torch.zeros(1, 2))
        >>> [name for name, _ in twin.named_parameters()], twin(torch.zeros(5, 2)).shape
        (['weight', 'bias'], torch.Size([5, 1]))
    """
    two = example[:1].expand(2, *example.shape[1:]).contiguous()  # torch takes a length of 1 for a fixed one
    shapes = ({0: torch.export.Dim("batch")},)
    recorded = torch.export.export(module, (two,), dynamic_shapes=shapes).module()
    made = copy.deepcopy(GraphModule(recorded, _bare(recorded.graph), type(module).__name__))
    for name in made.state_dict().keys() - module.state_dict().keys():  # numbers that stood in the code
        parent, _, leaf = name.rpartition(".")
        made.get_submodule(parent)._non_persistent_buffers_set.add(leaf)
    return made


def _bare(recorded: Graph) -> Graph:
    """The same operations without checks around them, on whichever device x is; they return a tensor, no tuple."""
    graph, known = Graph(), dict[Node, Node]()
    for node in recorded.nodes:
        if node.op == "output":
            (result,) = node.args[0]
            graph.output(known[result])
        elif node.target not in _CHECKS:
            known[node] = graph.node_copy(node, known.__getitem__)
            if "new_" in str(node.target):
                known[node].kwargs = {key: value for key, value in node.kwargs.items() if key == "dtype"}
    graph.eliminate_dead_code()
    return graph


class Raw(nn.Module):
    """A network that takes raw inputs, and answers a regression in the unit of its targets.

    Args:
        network: of inputs that are scaled as in training.
        facts: its `Network.facts`.

    Each row of a table has the columns of ``facts.preprocessing`` in order: a number, NaN where it is missing; of a
    category its place among `Category.values`, counted from 0, NaN where it is missing, and any other number where it
    was not there in training.

    Examples:
        >>> facts = Facts("line", (1,), classes=0, outputs=1, offset=(1.0,), scale=(2.0,))
        >>> Raw(nn.Identity(), facts)(torch.tensor([[5.0]]))
        tensor([[2.]])
    """

    def __init__(self, network: nn.Module, facts: Facts) -> None:
        super().__init__()
        self.network = network
        self.columns = _Encoder(facts.preprocessing) if facts.preprocessing is not None else nn.Identity()
        for name in ("offset", "scale", "target_offset", "target_scale"):
            self.register_buffer(name, facts.tensor(name), persistent=False)
        self.dtype = next((p.dtype for p in network.parameters()), torch.get_default_dtype())

    def forward(self, raw: Tensor) -> Tensor:
        """Scores, or targets in their unit."""
        x = self.columns(raw.to(torch.float64))
        if self.offset is not None:
            x = (x - self.offset) / self.scale
        outputs = self.network(x.to(self.dtype))
        if self.target_offset is None:
            return outputs
        return outputs * self.target_scale.to(outputs.dtype) + self.target_offset.to(outputs.dtype)


class _Encoder(nn.Module):
    """Numbers and places of categories -> features, as `Columns.transform` does it for the words themselves."""

    def __init__(self, columns: Columns) -> None:
        super().__init__()
        self.columns = columns.columns

    def forward(self, raw: Tensor) -> Tensor:
        parts = [self._features(column, value) for column, value in zip(self.columns, raw.unbind(-1), strict=True)]
        return torch.stack([feature for found in parts for feature in found], -1)

    @staticmethod
    def _features(column: Number | Category, value: Tensor) -> list[Tensor]:
        from liouville.columns import Category  # which needs numpy

        absent = value.isnan()
        if isinstance(column, Category):
            found = [value == k for k in range(len(column.values))]
        else:
            found = [(value.where(~absent, column.fill) - column.offset) / column.scale]
        return [feature.to(value.dtype) for feature in (*found, *([absent] if column.missing else []))]
