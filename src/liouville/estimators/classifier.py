"""A Hamiltonian network as a scikit-learn classifier."""

from __future__ import annotations

__all__ = ["HamiltonianClassifier"]

from typing import Any, Self

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import column_or_1d

from liouville.estimators.base import HamiltonianEstimator, checked
from liouville.task import Task, scores_for
from liouville.train import tabular

_Array = np.ndarray[Any, np.dtype[Any]]


class HamiltonianClassifier(ClassifierMixin, HamiltonianEstimator):
    r"""Classes from a table, by a Hamiltonian network between a learned linear map and a linear head.

    Numbers are standardised, words and categories one-hot, missing values filled and noted; all of it is learned in
    `fit` and kept with the estimator. The mean log loss is minimised.

    Args:
        model: a name of ``liouville.zoo.MODELS``.
        features: width of the flow; even for models with two halves.
        layers, T: steps of the flow, and its final time.
        activation: of the flow.
        input_dropout: share of the inputs that a training step does not see.
        learning_rate: the highest one of Adam's one-cycle schedule.
        batch_size: rows of a step.
        max_iter: passes over the rows; None takes 40, but from 300 to 1,000 steps.
        early_stopping: whether ``validation_fraction`` of the rows, the same share of every class, are held out. The
            weights are returned that are best there, and their scores are multiplied by the factor that is. Below 1,000
            rows, unless ``max_iter`` is given, they choose the number of steps and the factor for a second training, on
            all rows. What is validated, and returned, is an average of the weights over the last steps.
        validation_fraction: see there.
        n_iter_no_change: stop after so many looks at the validation rows without a better loss; None goes on to the
            end. There is a look after every ``max_iter`` pass, or 20 in all.
        ensemble: how many networks to train, each with validation rows of its own; probabilities are averaged.
        categorical_features: columns to take as categories whatever their dtype, by name or place; ``"from_dtype"``
            takes those of strings, of categories and of objects that are words.
        class_weight: weights of classes, a dictionary or ``"balanced"``.
        label_smoothing: probability that is spread over all classes in training.
        warm_start: whether `fit` goes on from the weights that there are; columns and classes stay as they were.
        device: where to train, ``"cpu"`` or ``"cuda"``.
        random_state: of the initial weights, the held-out rows, and the order of batches.
        n_jobs: processes that train an ensemble.
        verbose: whether to show progress.

    Attributes:
        classes_: the classes; for several labels of a sample 0, 1, ..., their places.
        networks_: the trained networks; histories_ what happened in their last training, n_iter_ its passes over the
            rows.
        columns_: what becomes of the table's columns; n_features_in_, feature_names_in_ their number and names.

    Rows are a weighted set: neither their order nor whether a row stands there twice or has a weight of 2 changes what
    is learned. A matrix y of 0 and 1 holds labels of which several may be true.

    Examples:
        >>> import numpy as np
        >>> X = np.array([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0]] * 5)
        >>> y = np.array(["same", "other", "other", "same"] * 5)
        >>> model = HamiltonianClassifier(early_stopping=False, max_iter=60, random_state=0).fit(X, y)
        >>> model.predict([[0.0, 1.0], [1.0, 1.0]]).tolist(), model.predict_proba(X).shape
        (['same', 'other'], (20, 2))
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
        class_weight: Any = None,
        label_smoothing: float = tabular.LABEL_SMOOTHING,
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
        self.class_weight = class_weight
        self.label_smoothing = label_smoothing

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Learn classes from rows.

        Args:
            X: rows of numbers, words and categories; a DataFrame or an array.
            y: a class for each, numbers or words; or 0 and 1 (rows, labels).
            sample_weight: a number >= 0 for each row; only how they compare counts.

        Raises:
            ValueError: one class only, rows or targets that cannot be used, or a parameter out of range.
            TypeError: sparse matrices, and cells that are neither numbers nor words.
        """
        return self._fit(X, y, sample_weight)

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """One more pass, over these rows only, at a constant rate and with nothing held out.

        Args:
            X, y, sample_weight: as for `fit`; the first call decides what the columns become.
            classes: all that there will be; in the first call.

        Raises:
            ValueError: the first call names no classes, or y has others.
        """
        if classes is None and not hasattr(self, "networks_"):
            raise ValueError("classes must be passed on the first call to partial_fit.")
        return self._fit_part(X, y, sample_weight, classes)

    def predict(self, X: Any) -> _Array:
        """The class of each row, or its labels (rows, labels)."""
        decision = self.decision_function(X)
        if self._kind == "multilabel":
            return (decision > 0).astype(np.int64)
        places = (decision > 0).astype(np.int64) if decision.ndim == 1 else decision.argmax(1)
        return self.classes_[places]

    def predict_proba(self, X: Any) -> _Array:
        """(rows, classes), or the probability of each label; the mean over the networks."""
        task = self._task()
        probabilities = [task.probabilities(scores) for scores in self._outputs(X)]
        return torch.stack(probabilities).mean(0).numpy()

    def predict_log_proba(self, X: Any) -> _Array:
        """The logarithm of `predict_proba`."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def decision_function(self, X: Any) -> _Array:
        """Scores of the classes, (rows,) for two; of several networks the logits of their mean probability."""
        outputs, task = self._outputs(X), self._task()
        if len(outputs) == 1:
            scores = outputs[0]
        else:
            tiny = torch.finfo(torch.float64).tiny
            p = torch.stack([task.probabilities(scores) for scores in outputs]).mean(0).clamp_min(tiny)
            scores = p.log() if task.kind == "softmax" else p.log() - (1 - p).clamp_min(tiny).log()
            scores = scores[:, 1:] if task.kind == "logistic" else scores
        return (scores.squeeze(1) if task.kind == "logistic" else scores).numpy()

    def _task(self) -> Task:
        if not hasattr(self, "networks_"):
            from sklearn.exceptions import NotFittedError

            raise NotFittedError(f"This {type(self).__name__} instance is not fitted yet; call fit first.")
        return Task(self._kind, len(self.classes_))  # type: ignore[arg-type]

    def _answers(self) -> dict[str, Any]:
        if self._kind == "multilabel":
            raise ValueError(
                "a network that answers raw rows names one class for each, and this classifier has several labels of "
                "a sample; save the estimator itself, or use networks_ with inputs from columns_.transform."
            )
        return {"classes": len(self.classes_), "label_names": tuple(str(name) for name in self.classes_.tolist())}

    def _smoothing(self) -> float:
        if not isinstance(self.label_smoothing, int | float) or not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must lie in [0, 1), got {self.label_smoothing!r}.")
        return self.label_smoothing

    def _checked_targets(self, y: Any) -> _Array:
        y = checked(y)
        check_classification_targets(y)
        found = type_of_target(y)
        if found == "multiclass-multioutput":
            raise ValueError(
                "Unknown label type: classes in several columns, which may be more than two; fit one at a time."
            )
        return y if found == "multilabel-indicator" else column_or_1d(y, warn=True)

    def _class_weighted(self, weight: _Array | None, y: _Array) -> _Array | None:
        if self.class_weight is None:
            return weight
        own = compute_sample_weight(self.class_weight, y)
        if not np.all((own >= 0) & np.isfinite(own)):
            raise ValueError(f"class_weight must be finite numbers >= 0, got {self.class_weight!r}.")
        return own if weight is None else own * weight

    def _targets(self, y: _Array, weight: _Array | None, fresh: bool, classes: Any) -> tuple[_Array, _Array | None]:
        if y.ndim == 2:
            return self._labels(y, fresh)
        if fresh:
            found = np.unique(y if classes is None else np.asarray(classes))
            if len(found) < 2:
                raise ValueError(f"y has one class only, {str(found[0])!r}; a classifier needs at least two.")
            self.classes_ = found
            self._kind = "logistic" if len(self.classes_) == 2 else "softmax"
        elif self._kind == "multilabel":
            raise ValueError("y has one class a sample, and the classifier was fitted to several labels a sample.")
        elif classes is not None and not np.array_equal(self.classes_, np.unique(classes)):
            raise ValueError(
                f"classes must be those of the first call to partial_fit, {self.classes_.tolist()}, got "
                f"{np.unique(classes).tolist()}; leave them out, or fit anew."
            )
        known = np.isin(y, self.classes_)
        if not known.all():
            unknown = str(y[~known][0])
            raise ValueError(f"y has the class {unknown!r}, which is none of the {len(self.classes_)} that are known.")
        codes = np.searchsorted(self.classes_, y)
        return codes[:, None].astype(np.float64), codes

    def _labels(self, y: _Array, fresh: bool) -> tuple[_Array, _Array | None]:
        if fresh:
            self.classes_, self._kind = np.arange(y.shape[1]), "multilabel"
        elif self._kind != "multilabel" or y.shape[1] != len(self.classes_):
            raise ValueError(f"y has {y.shape[1]} labels a sample, and the classifier was fitted to other targets.")
        return y.astype(np.float64), None

    def _encoded(self, targets: _Array) -> torch.Tensor:
        codes = torch.as_tensor(targets).long()
        return codes if self._kind == "multilabel" else codes[:, 0]

    def _outputs_of(self, y: torch.Tensor) -> int:
        return len(self.classes_) if self._kind == "multilabel" else scores_for(len(self.classes_))
