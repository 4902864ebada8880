"""The scikit-learn door: Hamiltonian networks as a classifier and a regressor for tables; extra ``sklearn``."""

from liouville.estimators.classifier import HamiltonianClassifier
from liouville.estimators.regressor import HamiltonianRegressor

__all__ = ["HamiltonianClassifier", "HamiltonianRegressor"]
