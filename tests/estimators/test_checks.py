"""scikit-learn's own checks of an estimator, all of them and without exemptions; some, on small networks, at once."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("sklearn", minversion="1.6")

from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

from liouville.estimators import HamiltonianClassifier, HamiltonianRegressor

SMALL: dict[str, Any] = {"features": 8, "layers": 2, "max_iter": 3}
QUICK = (
    "check_no_attributes_set_in_init",
    "check_n_features_in_after_fitting",
    "check_sample_weight_equivalence_on_dense_data",
    "check_sample_weights_not_overwritten",
    "check_dict_unchanged",
    "check_fit2d_1sample",
    "check_methods_subset_invariance",
    "check_methods_sample_order_invariance",
    "check_dtype_object",
    "check_estimators_unfitted",
    "check_requires_y_none",
    "check_dataframe_column_names_consistency",
    "check_estimator_sparse_tag",
)


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("kind", [HamiltonianClassifier, HamiltonianRegressor])
def test_a_small_network_passes(kind: type, name: str) -> None:
    getattr(estimator_checks, name)(kind.__name__, kind(**SMALL))


@pytest.mark.slow
@parametrize_with_checks([HamiltonianClassifier(), HamiltonianRegressor()])
def test_the_default_passes(estimator: Any, check: Any) -> None:
    check(estimator)
