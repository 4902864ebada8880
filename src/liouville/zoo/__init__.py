"""The papers' networks by name, and the classifiers and regressors around them."""

from liouville.zoo.networks import Images, classifier, regressor
from liouville.zoo.papers import (
    MODELS,
    antisymmetric,
    h1,
    h2,
    leapfrog,
    midpoint,
    ms1,
    ms2,
    ms3,
    resnet,
    verlet,
)
from liouville.zoo.start import scaled_start

__all__ = [
    "MODELS",
    "Images",
    "antisymmetric",
    "classifier",
    "h1",
    "h2",
    "leapfrog",
    "midpoint",
    "ms1",
    "ms2",
    "ms3",
    "regressor",
    "resnet",
    "scaled_start",
    "verlet",
]
