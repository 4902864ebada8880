"""What does the loss over a vocabulary cost, whole, in chunks, and in torch's own chunks?

Mean cross-entropy of hidden states (tokens, features) under a head (classes, features), forward and backward, the
gradients of both; one thread. Memory: the largest number of bytes alive that came up in the step. Time: CPU seconds,
all in turn in one process, medians. torch's own is ``F.linear_cross_entropy`` with its default options, where there is
one (2.13). Error: of the head's gradient against float64.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import tables
from liouville.experiments.beyond.step_costs import peak, timed
from liouville.train import linear_cross_entropy

SIZES = ((1024, 64, 8192, torch.float32), (1024, 256, 8192, torch.float32), (256, 64, 4096, torch.bfloat16))
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def losses() -> dict[str, Loss]:
    found: dict[str, Loss] = {
        "F.cross_entropy(F.linear)": lambda h, w, t: F.cross_entropy(F.linear(h, w), t),
        "linear_cross_entropy": lambda h, w, t: linear_cross_entropy(h, w, t),
    }
    if hasattr(F, "linear_cross_entropy"):
        options = torch.nn.LinearCrossEntropyOptions()
        found["torch's, chunked"] = lambda h, w, t: F.linear_cross_entropy(h, w, t, options=options)
    return found


def measure(tokens: int, features: int, classes: int, dtype: torch.dtype, repeats: int) -> list[list[str]]:
    """A row for each way."""
    torch.manual_seed(0)
    h, w = torch.randn(tokens, features).to(dtype), (torch.randn(classes, features) / features**0.5).to(dtype)
    t, wide = torch.randint(classes, (tokens,)), w.double().requires_grad_()
    (exact,) = torch.autograd.grad(F.cross_entropy(F.linear(h.double(), wide), t), wide)
    h.requires_grad_()
    w.requires_grad_()
    steps = {name: lambda loss=loss: torch.autograd.grad(loss(h, w, t), [h, w]) for name, loss in losses().items()}
    errors = {name: float((step()[1].double() - exact).norm() / exact.norm()) for name, step in steps.items()}
    memory = {name: peak(step) for name, step in steps.items()}
    seconds = timed(steps, repeats)
    size = f"{tokens}, {features}, {classes}, {str(dtype).removeprefix('torch.')}"
    first = next(iter(seconds))
    return [
        [size, name, f"{memory[name] / 1e6:.1f}", f"{seconds[name] / seconds[first]:.2f}", f"{errors[name]:.1e}"]
        for name in steps
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--page", type=Path, help="write the table into this page")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    head = ["tokens, features, classes", "", "MB alive", "time, over the first's", "error of the head's gradient"]
    text = tables.markdown(head, [row for size in SIZES for row in measure(*size, arguments.repeats)])
    print(text)
    if arguments.page:
        tables.write(arguments.page, "head", text)


if __name__ == "__main__":
    main()
