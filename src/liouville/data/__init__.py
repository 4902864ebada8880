"""Data sets by name: ``load(name) -> Split``, training and test part, generated or checked before use.

Generated in the plane (`liouville.data.planar`), real tables that come with scikit-learn
(`liouville.data.tables`), and MNIST (`liouville.data.images`). A data set is a function of its options and
its seed alone: the same call gives the same bits.
"""

from __future__ import annotations

__all__ = ["SOURCES", "Holdout", "Sequences", "Source", "Split", "TableFile", "check", "load", "names"]

import dataclasses
import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any

import torch

from liouville.data import images, planar, tables
from liouville.data.checks import check
from liouville.data.own import TableFile
from liouville.data.split import Holdout, Split
from liouville.names import lookup, suggestion
from liouville.sequences import Sequences

_COMMON = ("seed", "dtype", "root")


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a data set comes from: its loader, and one line that says what it is.

    Args:
        loader: function of keyword options only, which returns a `Split`.
        description: one line for ``liouville list``.
        self_contained: whether it reads neither files of the user's nor the network.
    """

    loader: Callable[..., Split]
    description: str
    self_contained: bool = True

    @property
    def options(self) -> dict[str, Any]:
        """The loader's own options and their default values, without those that `load` names itself."""
        parameters = inspect.signature(self.loader).parameters
        return {name: p.default for name, p in parameters.items() if name not in _COMMON}


SOURCES: Mapping[str, Source] = {
    "swiss-roll": Source(planar.swiss_roll, "two interleaved spirals, 2 features, 2 classes (generated)"),
    "double-moons": Source(planar.double_moons, "two pairs of half circles, 2 features, 2 classes (generated)"),
    "double-circles": Source(planar.double_circles, "four concentric rings, 2 features, 2 classes (generated)"),
    "ellipses": Source(planar.ellipses, "an ellipse in an annulus, 2 features, 2 classes (generated)"),
    "peaks": Source(planar.peaks, "level sets of MATLAB's peaks, 2 features, 5 classes (generated)"),
    "digits": Source(tables.digits, "handwritten digits, 8 x 8 pixels, 10 classes (scikit-learn)"),
    "breast-cancer": Source(tables.breast_cancer, "tumours, 30 features, 2 classes (scikit-learn)"),
    "wine": Source(tables.wine, "wines, 13 features, 3 classes (scikit-learn)"),
    "iris": Source(tables.iris, "flowers, 4 features, 3 classes (scikit-learn)"),
    "diabetes": Source(tables.diabetes, "disease progression, 10 features, regression (scikit-learn)"),
    "mnist": Source(
        images.mnist, "handwritten digits, 1 x 28 x 28 pixels, 10 classes (files or download, 11 MB)", False
    ),
}


def names() -> tuple[str, ...]:
    """The names that `load` knows."""
    return tuple(SOURCES)


def load(
    name: str,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    root: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Split:
    """Load a data set.

    Args:
        name: one of `names()`.
        seed: of everything random in the data set: its points, or its division into training and test part.
            MNIST has nothing random and does not read it.
        dtype: floating-point type of the inputs.
        root: folder with the files of a data set that is made of files (mnist); None takes LIOUVILLE_DATA,
            then the cache, then the network. The other data sets read no file.
        options: the loader's own options, listed with their defaults in ``SOURCES[name].options``.

    Raises:
        ValueError: an unknown name or option, or an option's value that does not fit.
        ImportError: the data set needs a package that is not installed.
        FileNotFoundError: the data set's files are nowhere.

    Examples:
        >>> load("double-moons", seed=1, noise=0.1)
        Split('double-moons', 4000 training and 4000 test samples of shape (2,), 2 classes, float32, cpu)
    """
    source = lookup(SOURCES, name, "data set")
    valid = source.options
    for option in options:
        if option not in valid:
            raise ValueError(
                f"unknown option {option!r} of data set {name!r}; {suggestion(option, valid)}"
                f"Valid options: {', '.join([*valid, *_COMMON])}."
            )
    common = {"seed": seed, "dtype": dtype, "root": root}
    asked = inspect.signature(source.loader).parameters
    return source.loader(**options, **{key: value for key, value in common.items() if key in asked})
