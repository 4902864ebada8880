r"""The learning problem of both papers: a mean loss over the samples, by the kind of target."""

from __future__ import annotations

__all__ = ["Task", "require_trainable", "task_of"]

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from liouville.data import Split
from liouville.network import evaluation_mode
from liouville.precision import in_working_precision


@dataclass(frozen=True)
class Task:
    """What is minimised and what is reported.

    Args:
        kind: ``"logistic"``: two classes, one score; ``"softmax"``: K classes, K scores; ``"least-squares"``:
            real-valued targets.
        classes: number of classes; 0 for real-valued targets.

    Examples:
        >>> task = Task("logistic", 2)
        >>> round(float(task.loss(torch.zeros(4, 1), torch.tensor([0, 1, 0, 1]))), 4)
        0.6931
    """

    kind: Literal["logistic", "softmax", "least-squares"]
    classes: int

    @property
    def score_name(self) -> str:
        """``accuracy`` for classes, ``r2`` (the share of the variance explained) for real targets."""
        return "accuracy" if self.classes else "r2"

    def loss(self, scores: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy, or half the mean squared error summed over outputs; in float32 for scores of 16 bits."""
        scores = in_working_precision(scores)
        if self.kind == "logistic":
            return F.binary_cross_entropy_with_logits(scores.squeeze(-1), y.to(scores.dtype))
        if self.kind == "softmax":
            return F.cross_entropy(scores, y)
        return 0.5 * (scores - y.view_as(scores)).square().flatten(1).sum(1).mean()

    def gradient(self, scores: Tensor, y: Tensor) -> Tensor:
        r"""L'(scores), the derivative of `loss` in closed form.

        Per sample p - y with p = sigmoid(score) (logistic), p - e_y with p = softmax(scores), and score - y (least
        squares), each divided by the number of samples.

        Args:
            scores: (samples, outputs).
            y: targets.

        Examples:
            >>> Task("logistic", 2).gradient(torch.zeros(2, 1), torch.tensor([0, 1]))
            tensor([[ 0.2500],
                    [-0.2500]])
        """
        if self.kind == "logistic":
            return (scores.sigmoid() - y.view_as(scores)) / len(scores)
        if self.kind == "softmax":
            return (scores.softmax(-1) - F.one_hot(y, scores.shape[-1])) / len(scores)
        return (scores - y.view_as(scores)) / len(scores)

    def curvature(self, scores: Tensor, v: Tensor) -> Tensor:
        r"""L''(scores) v, the positive semidefinite second derivative of `loss` in closed form; it knows no targets.

        Per sample p (1 - p) v with p = sigmoid(score) (logistic), p v - p (p^T v) with p = softmax(scores), and v
        (least squares), each divided by the number of samples.

        Args:
            scores, v: (samples, outputs).

        Examples:
            >>> Task("logistic", 2).curvature(torch.zeros(1, 1), torch.ones(1, 1))
            tensor([[0.2500]])
        """
        if self.kind == "logistic":
            p = scores.sigmoid()
            return p * (1 - p) * v / len(scores)
        if self.kind == "softmax":
            pv = scores.softmax(-1) * v
            return (pv - scores.softmax(-1) * pv.sum(-1, keepdim=True)) / len(scores)
        return v / len(scores)

    def labels(self, scores: Tensor) -> Tensor:
        """The predicted class: score >= 0 for two classes, the largest score for more."""
        return (scores.squeeze(-1) >= 0).long() if self.kind == "logistic" else scores.argmax(-1)

    def probabilities(self, scores: Tensor) -> Tensor:
        """(samples, classes), rows that add up to 1."""
        if self.kind == "softmax":
            return scores.softmax(-1)
        p = scores.sigmoid().reshape(-1, 1)
        return torch.cat((1 - p, p), 1)

    def score(self, scores: Tensor, y: Tensor) -> float:
        """Accuracy in [0, 1], or r2 <= 1."""
        if self.classes:
            return float((self.labels(scores) == y).double().mean())
        scores, y = in_working_precision(scores), y.view_as(scores)
        return float(1 - (scores - y).square().sum() / (y - y.mean(0)).square().sum())


def require_trainable(network: nn.Module) -> None:
    """Raise a `ValueError` if no weight of the network can be trained."""
    if not any(p.requires_grad for p in network.parameters()):
        raise ValueError("every weight of the network is frozen; let some require a gradient (requires_grad_()).")


def task_of(network: nn.Module, split: Split) -> Task:
    """The task that a split poses, checked against what the network puts out for one sample.

    Raises:
        ValueError: if the network does not accept the inputs, its output does not fit the targets, or the inputs or
            targets require a gradient.
    """
    for what, data in (("inputs", split.x_train), ("targets", split.y_train)):
        if data.requires_grad:
            raise ValueError(f"the {what} of {split.name} require a gradient; call .detach() on them first.")
    sample = split.x_train[:1].to(next(network.parameters()))
    try:
        with torch.no_grad(), evaluation_mode(network):
            scores = network(sample)
    except RuntimeError as error:
        shape = tuple(split.x_train.shape[1:])
        raise ValueError(
            f"the network does not accept the inputs of {split.name}, of shape {shape}: {error}"
        ) from error
    if not isinstance(scores, Tensor) or scores.dim() < 2 or len(scores) != 1:
        found = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise ValueError(
            f"the network must put out a row of numbers for each sample, (samples, outputs), and gives {found} for one "
            "sample; end it with nn.Linear and without squeeze."
        )
    outputs = scores.shape[-1]
    if not split.classes:
        expected = 1 if split.y_train.dim() == 1 else split.y_train.shape[-1]
        if outputs != expected:
            raise ValueError(f"the targets have {expected} real value(s) a sample, but the network puts out {outputs}.")
        return Task("least-squares", 0)
    if split.classes == 2 and outputs == 1:
        return Task("logistic", 2)
    if outputs != split.classes:
        raise ValueError(
            f"{split.name} has {split.classes} classes, but the network puts out {outputs} score(s); build it with "
            f"classes={split.classes}."
        )
    return Task("softmax", split.classes)
