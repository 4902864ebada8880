"""Small real data sets that come with scikit-learn: no file, no network.

Each is divided once, at random from ``seed``, into training and test samples; classes keep their proportions.
Standardising is x -> (x - mean) / std, feature by feature, with mean and std of the *training* samples only,
so that nothing of the test samples reaches the training.
"""

from __future__ import annotations

__all__ = ["breast_cancer", "diabetes", "digits", "iris", "wine"]

import dataclasses
from typing import Any

import torch
from torch import Tensor

from liouville.data.numbers import real_number, whole_number
from liouville.data.split import Split


def digits(
    *, image: bool = False, test_fraction: float = 0.2, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Split:
    """Handwritten digits, 1,797 images of 8 x 8 pixels, grey values 0 ... 16 scaled to [0, 1].

    Args:
        image: inputs of shape (samples, 1, 8, 8) instead of (samples, 64).
        test_fraction: share of the samples in the test part.
        seed: of the division into training and test samples.
        dtype: of the inputs.

    Raises:
        ImportError: scikit-learn is not installed.

    Reference: E. Alpaydin, C. Kaynak, *Optical Recognition of Handwritten Digits*, UCI Machine Learning
    Repository, 1998 (its test part).
    """
    split = _split("load_digits", "digits", 10, test_fraction, False, seed, dtype, scale=16.0)
    if not image:
        return split
    x_train, x_test = (x.reshape(-1, 1, 8, 8) for x in (split.x_train, split.x_test))
    return dataclasses.replace(split, x_train=x_train, x_test=x_test, column_names=None)


def breast_cancer(
    *, standardise: bool = True, test_fraction: float = 0.2, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Split:
    """Breast cancer (Wisconsin, diagnostic): 569 samples, 30 features, 2 classes (0 malignant, 1 benign).

    Args:
        standardise: mean 0 and standard deviation 1 in every feature, measured on the training samples.
        test_fraction: share of the samples in the test part.
        seed: of the division into training and test samples.
        dtype: of the inputs.

    Raises:
        ImportError: scikit-learn is not installed.

    Reference: W. Wolberg, O. Mangasarian, N. Street, W. Street, UCI Machine Learning Repository, 1995.
    """
    return _split("load_breast_cancer", "breast-cancer", 2, test_fraction, standardise, seed, dtype)


def wine(
    *, standardise: bool = True, test_fraction: float = 0.2, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Split:
    """Wine recognition: 178 samples, 13 features, 3 classes.

    Args:
        standardise: mean 0 and standard deviation 1 in every feature, measured on the training samples.
        test_fraction: share of the samples in the test part.
        seed: of the division into training and test samples.
        dtype: of the inputs.

    Raises:
        ImportError: scikit-learn is not installed.

    Reference: S. Aeberhard, M. Forina, UCI Machine Learning Repository, 1991.
    """
    return _split("load_wine", "wine", 3, test_fraction, standardise, seed, dtype)


def iris(
    *, standardise: bool = True, test_fraction: float = 0.2, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Split:
    """Iris flowers: 150 samples, 4 features, 3 classes.

    Args:
        standardise: mean 0 and standard deviation 1 in every feature, measured on the training samples.
        test_fraction: share of the samples in the test part.
        seed: of the division into training and test samples.
        dtype: of the inputs.

    Raises:
        ImportError: scikit-learn is not installed.

    Reference: R. A. Fisher, *The Use of Multiple Measurements in Taxonomic Problems*, Annals of Eugenics 7 (1936).
    """
    return _split("load_iris", "iris", 3, test_fraction, standardise, seed, dtype)


def diabetes(
    *, standardise: bool = True, test_fraction: float = 0.2, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Split:
    """Diabetes progression in one year: 442 samples, 10 features, one real target (regression, classes = 0).

    Targets have shape (samples, 1), like the output of a network with one output.

    Args:
        standardise: mean 0 and standard deviation 1 in every feature and *in the target*, measured on the
            training samples. A test error of 1 is then roughly that of always predicting the mean; errors are
            in standard deviations.
        test_fraction: share of the samples in the test part.
        seed: of the division into training and test samples.
        dtype: of the inputs and targets.

    Raises:
        ImportError: scikit-learn is not installed.

    Reference: B. Efron, T. Hastie, I. Johnstone, R. Tibshirani, *Least Angle Regression*, Annals of
    Statistics 32 (2004).
    """
    return _split("load_diabetes", "diabetes", 0, test_fraction, standardise, seed, dtype)


def _split(
    loader: str,
    name: str,
    classes: int,
    test_fraction: float,
    standardise: bool,
    seed: int,
    dtype: torch.dtype,
    scale: float = 1.0,
) -> Split:
    """Load one of scikit-learn's sets, divide it, standardise with the training samples' statistics."""
    datasets, train_test_split = _sklearn()
    fraction = real_number("test_fraction", test_fraction, low=0.0, high=1.0)
    seed = whole_number("seed", seed, low=0, high=2**32 - 1)
    bunch = getattr(datasets, loader)()
    samples, parts = len(bunch.target), max(classes, 1)
    number = round(fraction * samples)
    if not parts <= number <= samples - parts:
        raise ValueError(
            f"test_fraction {test_fraction} of {samples} samples gives {number} test and {samples - number} "
            f"training samples, and each part needs at least {parts}; the default is 0.2."
        )
    train, test = train_test_split(
        range(samples), test_size=number, random_state=seed, stratify=bunch.target if classes else None
    )
    x = torch.as_tensor(bunch.data, dtype=torch.float64)
    y = torch.as_tensor(bunch.target)
    y = y.long() if classes else y.to(torch.float64)[:, None]
    x_train, x_test, y_train, y_test = x[train], x[test], y[train], y[test]
    maps: dict[str, Any] = {"offset": None, "scale": None}
    if standardise:
        maps = dict(zip(("offset", "scale"), _statistics(x_train), strict=True))
    elif scale != 1:
        maps = {"offset": torch.zeros((), dtype=x.dtype), "scale": torch.tensor(scale, dtype=x.dtype)}
    x_train, x_test = (_scaled(part, maps["offset"], maps["scale"]) for part in (x_train, x_test))
    if standardise and not classes:
        maps |= dict(zip(("target_offset", "target_scale"), _statistics(y_train), strict=True))
        y_train, y_test = (_scaled(part, maps["target_offset"], maps["target_scale"]) for part in (y_train, y_test))
    if not classes:
        y_train, y_test = y_train.to(dtype), y_test.to(dtype)
    names = tuple(str(n) for n in bunch.target_names) if classes else None
    columns = tuple(str(n) for n in bunch.feature_names)
    x_train, x_test = x_train.to(dtype), x_test.to(dtype)
    return Split(x_train, y_train, x_test, y_test, name, classes, label_names=names, column_names=columns, **maps)


def _statistics(train: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every feature; 1 for a constant one, which is then only centred."""
    std, mean = torch.std_mean(train, dim=0, correction=0)
    return mean, torch.where(std > 0, std, torch.ones_like(std))


def _scaled(raw: Tensor, offset: Tensor | None, scale: Tensor | None) -> Tensor:
    return raw if offset is None or scale is None else (raw - offset) / scale


def _sklearn() -> tuple[Any, Any]:
    """scikit-learn's ``datasets`` and ``train_test_split``, imported only when a table is loaded."""
    try:
        from sklearn import datasets
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise ImportError("this data set comes with scikit-learn; install it: pip install 'liouville[data]'") from error
    return datasets, train_test_split
