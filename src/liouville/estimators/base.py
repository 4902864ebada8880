"""What the two estimators share: their parameters, tables as features, weights of rows, the members."""

from __future__ import annotations

__all__ = ["HamiltonianEstimator"]

import copy
import dataclasses
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from joblib import Parallel, delayed
from sklearn.base import BaseEstimator
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data
from torch import nn

from liouville.answering import outputs_of
from liouville.columns import Columns
from liouville.estimators.member import Recipe, Rows, built, trained, trained_on
from liouville.estimators.rows import distinct, require_weights
from liouville.facts import Facts
from liouville.network import Network
from liouville.table import Table
from liouville.train import Terminal, tabular
from liouville.train.losses import Loss
from liouville.train.progress import silent

_Array = np.ndarray[Any, np.dtype[Any]]


class HamiltonianEstimator(BaseEstimator):
    """The base of the classifier and the regressor; see there."""

    networks_: list[Network]

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
        warm_start: bool = False,
        device: str = "cpu",
        random_state: Any = None,
        n_jobs: int | None = None,
        verbose: bool = False,
    ) -> None:
        self.model = model
        self.features = features
        self.layers = layers
        self.T = T
        self.activation = activation
        self.input_dropout = input_dropout
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.ensemble = ensemble
        self.categorical_features = categorical_features
        self.warm_start = warm_start
        self.device = device
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        return tags

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the fitted estimator to a file that holds no code: weights, columns, names and parameters.

        Raises:
            ValueError: a parameter that JSON cannot hold.
            OSError: the file cannot be written.
        """
        from liouville.estimators.saved import save

        check_is_fitted(self, "networks_")
        return save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read an estimator back from what `save` wrote; nothing in the file is executed.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is damaged, or holds another estimator.
        """
        from liouville.estimators.saved import load

        return load(cls, path)

    def to_network(self, member: int = 0) -> Network:
        """A trained network by itself, which answers raw rows: for `liouville.save`, the command and other targets.

        Args:
            member: which one of an ensemble; its answers are not the mean of all.

        Returns:
            A `Network` of its own, with what the columns become, and the names of the classes or the scale of the
            targets, as its facts.

        Raises:
            ValueError: there is no such member, or the labels of a sample are several.

        Examples:
            >>> import liouville as lv
            >>> from liouville.estimators import HamiltonianRegressor
            >>> X = np.linspace(-1, 1, 40)[:, None]
            >>> model = HamiltonianRegressor(max_iter=5, random_state=0).fit(X, 3 * X[:, 0])
            >>> network = model.to_network()
            >>> lv.save(network, "line.safetensors").name, network.predict([[0.5]]).shape
            ('line.safetensors', torch.Size([1, 1]))
        """
        check_is_fitted(self, "networks_")
        if not 0 <= member < len(self.networks_):
            raise ValueError(f"member must be one of 0 to {len(self.networks_) - 1}, got {member}.")
        network = copy.deepcopy(self.networks_[member]).cpu().eval()
        network.facts = Facts("table", (self.columns_.width,), preprocessing=self.columns_, **self._answers())
        return network

    def _answers(self) -> dict[str, Any]:
        """What facts say of the targets."""
        raise NotImplementedError

    def _recipe(self) -> Recipe:
        """The parameters, checked."""
        for name, low in (("features", 1), ("layers", 1), ("batch_size", 1), ("ensemble", 1)):
            _require_whole(name, getattr(self, name), low)
        for name in ("max_iter", "n_iter_no_change"):
            if getattr(self, name) is not None:
                _require_whole(name, getattr(self, name), 1)
        for name in ("input_dropout", "validation_fraction"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {value!r}.")
        if not isinstance(self.learning_rate, int | float) or not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be a positive number, got {self.learning_rate!r}.")
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, TypeError, AssertionError) as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise ValueError(f"device={self.device!r} cannot be used here ({reason}); use 'cpu'.") from error
        return Recipe(
            model=self.model,
            features=int(self.features),
            layers=int(self.layers),
            T=self.T,
            activation=self.activation,
            input_dropout=self.input_dropout,
            learning_rate=self.learning_rate,
            batch_size=int(self.batch_size),
            max_iter=None if self.max_iter is None else int(self.max_iter),
            validation_fraction=self.validation_fraction if self.early_stopping else 0.0,
            patience=None if self.n_iter_no_change is None else int(self.n_iter_no_change),
            label_smoothing=self._smoothing(),
            loss=self._loss(),
            device=self.device,
        )

    def _smoothing(self) -> float:
        return 0.0

    def _loss(self) -> Loss | None:
        return None

    def _table(self, X: Any, fresh: bool) -> Table:
        """The rows of X, whose number and names of columns are noted when fresh and compared else."""
        chosen = self.categorical_features if fresh else self.columns_.categorical()
        framed = hasattr(X, "columns")
        if framed or _has_words(X):
            X = X if framed else np.asarray(X, dtype=object)
            validate_data(self, X, reset=fresh, skip_check_array=True)
            if not all(X.shape):
                raise ValueError(f"X has the shape {X.shape}; it needs at least 1 sample and 1 column.")
            return Table(X, chosen)
        X = validate_data(self, X, reset=fresh, dtype=np.float64, ensure_all_finite="allow-nan")
        return Table(X, chosen)

    def _prepared(self, X: Any, y: Any, sample_weight: Any, fresh: bool, classes: Any = None) -> tuple[Rows, int]:
        """Encoded rows, each once, and how many outputs the network has."""
        if y is None:
            raise ValueError(f"This {type(self).__name__} estimator requires y to be passed, but the target y is None.")
        table = self._table(X, fresh)
        y = self._checked_targets(y)
        check_consistent_length(table.columns[0], y)
        weight = require_weights(sample_weight, len(table))
        weight = self._class_weighted(weight, y)
        if weight is not None:
            kept = np.flatnonzero(weight)
            table, y, weight = table.take(kept), y[kept], weight[kept]
        targets, strata = self._targets(y, weight, fresh, classes)
        rows, weight = distinct(np.column_stack([table.keys(), targets]), weight)
        if fresh:
            self._learn_targets(y[rows], weight)
            self.columns_ = Columns.fit(table.take(rows), weight)
        x = self.columns_.transform(table.take(rows))
        encoded = Rows(
            torch.as_tensor(x, dtype=torch.float32, device=self.device),
            self._encoded(targets[rows]).to(self.device),
            None if weight is None else torch.as_tensor(weight / weight.mean(), dtype=torch.float32),
            None if strata is None else torch.as_tensor(strata[rows]),
        )
        return encoded, self._outputs_of(encoded.y)

    def _fit(self, X: Any, y: Any, sample_weight: Any) -> Self:
        recipe = self._recipe()
        again = self.warm_start and hasattr(self, "networks_") and len(self.networks_) == self.ensemble
        rows, outputs = self._prepared(X, y, sample_weight, not again)
        starts: Sequence[Any] = self.networks_ if again else [None] * self.ensemble
        seeds = self._seeds()
        progress = Terminal() if self.verbose else silent
        jobs = self.n_jobs if self.ensemble > 1 else None
        members = Parallel(n_jobs=jobs)(
            delayed(trained)(recipe, rows, outputs, seed, start, progress)
            for seed, start in zip(seeds, starts, strict=True)
        )
        self.networks_ = [member.network for member in members]
        self.histories_ = [member.history for member in members]
        self.n_iter_ = max(member.passes for member in members)
        self._optimizers: list[torch.optim.Optimizer | None] = [None] * self.ensemble
        return self

    def _fit_part(self, X: Any, y: Any, sample_weight: Any, classes: Any = None) -> Self:
        recipe = dataclasses.replace(self._recipe(), max_iter=1, validation_fraction=0.0)
        fresh = not hasattr(self, "networks_")
        rows, outputs = self._prepared(X, y, sample_weight, fresh, classes)
        if fresh:
            seeds = self._seeds()
            self.networks_ = [built(recipe, rows.x.shape[1], outputs, seed) for seed in seeds]
            self.histories_, self.n_iter_ = [], 0
            self._optimizers = [None] * self.ensemble
        done = [
            trained_on(recipe, rows, network, optimizer, self.n_iter_ + k)
            for k, (network, optimizer) in enumerate(zip(self.networks_, self._optimizers, strict=True))
        ]
        self.histories_ = [history for history, _ in done]
        self._optimizers = [optimizer for _, optimizer in done]
        self.n_iter_ += 1
        return self

    def _seeds(self) -> list[int]:
        return [int(seed) for seed in check_random_state(self.random_state).randint(2**31 - 1, size=self.ensemble)]

    def _outputs(self, X: Any) -> list[torch.Tensor]:
        """What each member puts out, (rows, outputs) in float64: a row's answer does not depend on those beside it."""
        check_is_fitted(self, "networks_")
        x = torch.as_tensor(self.columns_.transform(self._table(X, fresh=False)))
        return [outputs_of(_exact(network), x).cpu() for network in self.networks_]

    def _checked_targets(self, y: Any) -> _Array:
        raise NotImplementedError

    def _class_weighted(self, weight: _Array | None, y: _Array) -> _Array | None:
        return weight

    def _targets(self, y: _Array, weight: _Array | None, fresh: bool, classes: Any) -> tuple[_Array, _Array | None]:
        """Targets as numbers (samples, k), and classes by which to divide the rows."""
        raise NotImplementedError

    def _learn_targets(self, y: _Array, weight: _Array | None) -> None:
        """What of the targets is kept: their scale."""

    def _encoded(self, targets: _Array) -> torch.Tensor:
        raise NotImplementedError

    def _outputs_of(self, y: torch.Tensor) -> int:
        raise NotImplementedError


def _exact(network: nn.Module) -> nn.Module:
    return copy.deepcopy(network).double()


def _has_words(X: Any) -> bool:
    """Whether an array, or a list of rows, holds words."""
    if hasattr(X, "toarray") or (not isinstance(X, list | tuple) and not hasattr(X, "dtype")):
        return False
    try:
        found = np.asarray(X)
    except ValueError:
        return False
    if found.ndim != 2 or found.dtype.kind not in "OUS":
        return False
    return found.dtype.kind != "O" or any(isinstance(cell, str) for cell in found.flat)


def _require_whole(name: str, value: Any, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < low:
        raise ValueError(f"{name} must be a whole number of at least {low}, got {value!r}.")


def checked(y: Any, **more: Any) -> _Array:
    """Targets as an array without missing or infinite values."""
    y = y.toarray() if hasattr(y, "toarray") else y
    return np.asarray(check_array(y, ensure_2d=False, dtype=None, input_name="y", **more))
