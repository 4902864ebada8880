"""What do `action` and `input_scale` of a recurrent cell do, on permuted MNIST?

The Hamiltonian layer of `liouville reproduce sequences` on 10,000 training images, two passes at a rate of 0.003, and
the accuracy on 2,000 other images of the training part; the test part is not read. One seed: a few points say nothing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

import tables
from liouville.experiments.beyond.sequence_data import TASKS, Sequences, load
from liouville.experiments.beyond.sequence_networks import build
from liouville.experiments.beyond.sequences import accuracy, train

TASK, IMAGES, HELD, PASSES, RATE = "permuted-mnist", 10_000, 2000, 2, 0.003
STARTS = ((20.0, 1.0), (100.0, 1.0), (20.0, 0.2), (60.0, 0.2), (100.0, 0.2), (200.0, 0.2), (100.0, 0.05))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", type=Path, help="write the table into this page")
    parser.add_argument("--images", type=int, default=IMAGES, help="training images")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data, rows = load(TASK), []
    for action, scale in STARTS:
        begun = time.process_time()
        score = trained(data, action, scale, arguments.images)
        rows.append([f"{action:g}", f"{scale:g}", score])
        print(*rows[-1], f"{time.process_time() - begun:.0f} s", flush=True)
    table = tables.markdown(["action", "input_scale", "accuracy on held-out images, percent"], rows)
    print(table)
    if arguments.page:
        tables.write(arguments.page, "starts over time", table)


def trained(data: Sequences, action: float, scale: float, images: int) -> str:
    """The accuracy of one network, in percent."""
    task = replace(TASKS[TASK], action=action, input_scale=scale)
    network, generator = build("h2", task, seed=0), torch.Generator().manual_seed(0)

    def batches() -> Iterator[tuple[Tensor, Tensor, None]]:
        for _ in range(PASSES):
            for rows in torch.randperm(images, generator=generator).split(task.batch):
                yield data.x_train[rows], data.y_train[rows], None

    try:
        train(network, batches(), PASSES * -(-images // task.batch), RATE, nn.functional.cross_entropy)
    except ArithmeticError:
        return "states ceased to be finite"
    return f"{100 * accuracy(network, data.x_train[-HELD:], data.y_train[-HELD:], None):.1f}"


if __name__ == "__main__":
    main()
