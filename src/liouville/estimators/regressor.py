"""A Hamiltonian network as a scikit-learn regressor."""

from __future__ import annotations

__all__ = ["HamiltonianRegressor"]

from typing import Any, Self

import numpy as np
import torch
from sklearn.base import RegressorMixin

from liouville.estimators.base import HamiltonianEstimator, checked
from liouville.train import tabular
from liouville.train.losses import Huber, Loss, Quantile

_Array = np.ndarray[Any, np.dtype[Any]]
_LOSSES = ("squared_error", "absolute_error", "huber", "quantile")


class HamiltonianRegressor(RegressorMixin, HamiltonianEstimator):
    r"""Real targets from a table, by a Hamiltonian network between a learned linear map and a linear head.

    Targets are standardised in training; everything else is as for `HamiltonianClassifier`.

    Args:
        model, features, layers, T, activation: of the network.
        input_dropout, learning_rate, batch_size, max_iter: of its training.
        early_stopping, validation_fraction, n_iter_no_change: what is held out, and what it decides.
        ensemble: how many networks to train; their predictions are averaged.
        categorical_features: columns to take as categories.
        loss: ``"squared_error"``, ``"absolute_error"``, ``"huber"`` (errors of one standard deviation of the targets
            and more count linearly) or ``"quantile"``.
        quantile: which one ``loss="quantile"`` predicts, between 0 and 1.
        warm_start, device, random_state, n_jobs, verbose: as for the classifier.

    Attributes:
        networks_, histories_, n_iter_, columns_, n_features_in_, feature_names_in_: as for the classifier.

    Examples:
        >>> import numpy as np
        >>> X = np.linspace(-1, 1, 60)[:, None]
        >>> model = HamiltonianRegressor(random_state=0, max_iter=100).fit(X, np.abs(X[:, 0]))
        >>> model.predict([[-0.5], [0.5]]).shape, model.score(X, np.abs(X[:, 0])) > 0.5
        ((2,), True)
    """

    def __init__(
        self,
        model: str = tabular.MODEL,
        *,
        features: int = tabular.FEATURES,
        layers: int = tabular.LAYERS,
        T: float = tabular.T,
        activation: str = tabular.ACTIVATION,
        input_dropout: float = tabular.INPUT_DROPOUT,
        learning_rate: float = tabular.SETTINGS.lr,
        batch_size: int = tabular.SETTINGS.batch_size,
        max_iter: int | None = None,
        early_stopping: bool = True,
        validation_fraction: float = tabular.SETTINGS.validation,
        n_iter_no_change: int | None = None,
        ensemble: int = 1,
        categorical_features: Any = "from_dtype",
        loss: str = "squared_error",
        quantile: float | None = None,
        warm_start: bool = False,
        device: str = "cpu",
        random_state: Any = None,
        n_jobs: int | None = None,
        verbose: bool = False,
    ) -> None:
        super().__init__(
            model,
            features=features,
            layers=layers,
            T=T,
            activation=activation,
            input_dropout=input_dropout,
            learning_rate=learning_rate,
            batch_size=batch_size,
            max_iter=max_iter,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            ensemble=ensemble,
            categorical_features=categorical_features,
            warm_start=warm_start,
            device=device,
            random_state=random_state,
            n_jobs=n_jobs,
            verbose=verbose,
        )
        self.loss = loss
        self.quantile = quantile

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Learn real targets from rows.

        Args:
            X: rows of numbers, words and categories; a DataFrame or an array.
            y: a number for each, or (rows, targets).
            sample_weight: a number >= 0 for each row; only how they compare counts.

        Raises:
            ValueError: rows or targets that cannot be used, or a parameter out of range.
            TypeError: sparse matrices, and cells that are neither numbers nor words.
        """
        return self._fit(X, y, sample_weight)

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """One more pass, over these rows only, at a constant rate and with nothing held out.

        Args:
            X, y, sample_weight: as for `fit`; the first call decides what columns and targets become.
        """
        return self._fit_part(X, y, sample_weight)

    def predict(self, X: Any) -> _Array:
        """(rows,), or (rows, targets): the mean over the networks, in the targets' unit."""
        outputs = torch.stack(self._outputs(X)).mean(0).numpy() * self._target_scale + self._target_offset
        return outputs[:, 0] if self._flat else outputs

    def _loss(self) -> Loss | None:
        if self.loss not in _LOSSES:
            raise ValueError(f"loss must be one of {', '.join(map(repr, _LOSSES))}, got {self.loss!r}.")
        if (self.loss == "quantile") != (self.quantile is not None):
            raise ValueError(
                f"loss='quantile' and quantile= belong together, got loss={self.loss!r}, quantile={self.quantile!r}."
            )
        if self.quantile is not None:
            if not isinstance(self.quantile, int | float) or not 0 < self.quantile < 1:
                raise ValueError(f"quantile must be a number between 0 and 1, got {self.quantile!r}.")
            return Quantile((self.quantile,))
        if self.loss == "absolute_error":
            return Quantile((0.5,))
        return Huber(1.0) if self.loss == "huber" else None

    def _answers(self) -> dict[str, Any]:
        offset, scale = self._target_offset, self._target_scale
        return {
            "classes": 0,
            "outputs": len(offset),
            "target_offset": tuple(offset.tolist()),
            "target_scale": tuple(scale.tolist()),
        }

    def _checked_targets(self, y: Any) -> _Array:
        y = checked(y)
        try:
            y = y.astype(np.float64)
        except ValueError as error:
            raise ValueError(f"y must be numbers ({error}); classes are for HamiltonianClassifier.") from None
        if y.ndim > 2 or 0 in y.shape[1:]:
            raise ValueError(f"y must be (rows,) or (rows, targets), got the shape {y.shape}.")
        if y.ndim == 2 and y.shape[1] > 1 and isinstance(self._loss(), Quantile):
            raise ValueError(f"loss={self.loss!r} takes one target, got {y.shape[1]}; fit one column at a time.")
        return y

    def _targets(self, y: _Array, weight: _Array | None, fresh: bool, classes: Any) -> tuple[_Array, _Array | None]:
        columns = y[:, None] if y.ndim == 1 else y
        if fresh:
            self._flat = y.ndim == 1
        elif columns.shape[1] != len(self._target_scale):
            raise ValueError(f"y has {columns.shape[1]} targets, and the regressor was fitted to others.")
        return columns, None

    def _learn_targets(self, y: _Array, weight: _Array | None) -> None:
        columns = y[:, None] if y.ndim == 1 else y
        self._target_offset = np.average(columns, axis=0, weights=weight)
        with np.errstate(over="ignore", invalid="ignore"):
            spread = np.sqrt(np.average((columns - self._target_offset) ** 2, axis=0, weights=weight))
        if not np.isfinite(spread).all():
            raise ValueError(
                f"y has numbers up to {np.abs(columns).max():.3g}, whose spread is too large to compute; take their "
                "logarithm, or another unit."
            )
        tiny = 10 * np.finfo(np.float64).eps * np.abs(self._target_offset)
        self._target_scale = np.where(spread > tiny, spread, 1.0)

    def _encoded(self, targets: _Array) -> torch.Tensor:
        scaled = (targets - self._target_offset) / self._target_scale
        return torch.as_tensor(scaled, dtype=torch.float32)

    def _outputs_of(self, y: torch.Tensor) -> int:
        return y.shape[1]
