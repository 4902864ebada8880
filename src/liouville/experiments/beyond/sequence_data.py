"""Sequences to classify, and the adding problem.

Digits of scikit-learn (8 x 8) and MNIST (28 x 28), read pixel by pixel: 64 and 784 steps of one number; the pixels of
MNIST in one random order for all images. The adding problem (Hochreiter & Schmidhuber 1997): of T pairs (number in
[0, 1], mark), two are marked, one in each half; the answer is the sum of their numbers, and always answering 1 has a
squared error of 1/6. Four sets of the UCR and UEA archives are in the package aeon, as text files.
"""

from __future__ import annotations

__all__ = ["ARCHIVE", "TASKS", "Sequences", "Task", "adding", "has_archive", "load"]

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from liouville.data import load as load_split


@dataclass(frozen=True)
class Sequences:
    """x (samples, steps, inputs), y (samples,) classes, lengths (samples,) or None; a training and a test part."""

    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    lengths_train: Tensor | None = None
    lengths_test: Tensor | None = None


@dataclass(frozen=True)
class Task:
    """A data set and how networks are trained on it.

    Args:
        steps, inputs, classes: shape; one class stands for a number to predict.
        weights: number of weights that all networks have, about; 0: as they are.
        epochs: passes over the training part; of the adding problem, which has no end, steps of training.
        batch: its size.
        rates: learning rates, of which one is chosen on a fifth of the training part, if there are several.
        seeds: most seeds.
        action, input_scale: of this library's cells (`liouville.recurrent.HamiltonianRNNCell`); 20 and 1 are defaults.
    """

    steps: int
    inputs: int
    classes: int
    weights: int
    epochs: int
    batch: int
    rates: tuple[float, ...]
    seeds: int
    action: float = 20.0
    input_scale: float = 1.0


ARCHIVE = ("ACSF1", "OSULeaf", "BasicMotions", "JapaneseVowels")
TASKS = {
    "digits": Task(64, 1, 10, 5000, 20, 64, (0.003, 0.01), 5),
    "JapaneseVowels": Task(29, 12, 9, 5000, 40, 25, (0.003, 0.01), 3),
    "BasicMotions": Task(100, 6, 4, 5000, 60, 10, (0.003, 0.01), 3),
    "adding-1000": Task(1000, 2, 1, 5000, 400, 50, (0.01,), 1),
    "permuted-mnist": Task(784, 1, 10, 0, 5, 64, (0.002,), 1, action=60.0, input_scale=0.2),
    "OSULeaf": Task(427, 1, 6, 5000, 60, 25, (0.01,), 1),
    "ACSF1": Task(1460, 1, 10, 5000, 60, 25, (0.01,), 1),
    "adding-5000": Task(5000, 2, 1, 5000, 250, 50, (0.01,), 1),
}


def has_archive() -> bool:
    """Whether aeon is there, with its data."""
    return find_spec("aeon") is not None


def load(name: str, seed: int = 0) -> Sequences:
    """A data set of `TASKS`; ``seed`` draws the division of digits, and never the order of MNIST's pixels."""
    if name == "digits":
        split = load_split("digits", seed=seed)
        return Sequences(split.x_train[..., None], split.y_train, split.x_test[..., None], split.y_test)
    if name == "permuted-mnist":
        split = load_split("mnist")
        order = torch.randperm(784, generator=torch.Generator().manual_seed(0))
        x_train, x_test = (x.reshape(len(x), 784, 1)[:, order] for x in (split.x_train, split.x_test))
        return Sequences(x_train, split.y_train, x_test, split.y_test)
    return _archived(name)


def adding(steps: int, samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Sequences (samples, steps, 2) and their sums (samples, 1).

    Examples:
        >>> x, y = adding(10, 3, torch.Generator().manual_seed(0))
        >>> bool(torch.allclose(y[:, 0], (x[..., 0] * x[..., 1]).sum(1))), x[..., 1].sum(1).tolist()
        (True, [2.0, 2.0, 2.0])
    """
    numbers = torch.rand(samples, steps, generator=generator)
    marks, rows, half = torch.zeros(samples, steps), torch.arange(samples), steps // 2
    marks[rows, torch.randint(half, (samples,), generator=generator)] = 1
    marks[rows, half + torch.randint(steps - half, (samples,), generator=generator)] = 1
    return torch.stack((numbers, marks), -1), (numbers * marks).sum(1, keepdim=True)


def _archived(name: str) -> Sequences:
    spec = find_spec("aeon")
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"{name} is in the package aeon, which is not installed; run pip install --no-deps aeon.")
    folder = Path(next(iter(spec.submodule_search_locations))) / "datasets" / "data" / name
    (a, classes), (b, _) = (_read(folder / f"{name}_{part}.ts") for part in ("TRAIN", "TEST"))
    everything = torch.cat([x for x, _ in a])
    mean, size = everything.mean(0), everything.std(0)
    steps = max(len(x) for x, _ in (*a, *b))

    def padded(rows: list[tuple[Tensor, str]]) -> tuple[Tensor, Tensor, Tensor]:
        x = torch.stack([torch.cat(((x - mean) / size, x.new_zeros(steps - len(x), x.shape[1]))) for x, _ in rows])
        return x, torch.tensor([classes.index(y) for _, y in rows]), torch.tensor([len(x) for x, _ in rows])

    (x_train, y_train, n_train), (x_test, y_test, n_test) = padded(a), padded(b)
    unequal = bool((n_train != steps).any() or (n_test != steps).any())
    return Sequences(x_train, y_train, x_test, y_test, n_train if unequal else None, n_test if unequal else None)


def _read(path: Path) -> tuple[list[tuple[Tensor, str]], list[str]]:
    """Series (steps, inputs) with their classes, and the names of the classes, from a file in the archives' format."""
    rows, classes = [], []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.lower().startswith("@classlabel"):
            classes = line.split()[2:]
        if line.startswith(("#", "@")) or not line.strip():
            continue
        *dimensions, label = line.strip().split(":")
        x = torch.tensor([[float(v) for v in values.split(",")] for values in dimensions]).T.contiguous()
        rows.append((x, label))
    return rows, classes
