r"""The learning problem of both papers: a mean loss over the samples, by the kind of target."""

from __future__ import annotations

__all__ = ["Classes", "Task", "in_words", "scores_for"]

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from liouville.precision import in_working_precision

Classes = int | tuple[int, ...]  # of a target, 0 if it is real; of several targets, each its own


def scores_for(classes: Classes) -> int:
    """The number of scores for this number of classes: one for two classes, whose sign decides, else one for each; for
    several targets, of all together.

    Examples:
        >>> scores_for(2), scores_for(3), scores_for((2, 3))
        (1, 3, 4)
    """
    if isinstance(classes, tuple):
        return sum(map(scores_for, classes))
    return 1 if classes == 2 else classes


@dataclass(frozen=True)
class Task:
    """The loss to minimise and the score to report.

    Args:
        kind: ``"logistic"``: two classes, one score; ``"softmax"``: K classes, K scores; ``"multilabel"``: K labels,
            any of which may hold, K scores; ``"several"``: several targets of classes, each with its own scores, side
            by side; ``"least-squares"``: real-valued targets.
        classes: number of classes or labels, of several targets together; 0 for real-valued targets.
        smoothing: s: a class is learned as its share 1 - s, the rest spread evenly over all classes; 0 for real-valued
            targets.
        parts: of several targets, the number of classes of each.
        share: of several targets, what the sum of their losses is multiplied by; 1 / their number.

    Examples:
        >>> task = Task("logistic", 2)
        >>> round(float(task.loss(torch.zeros(4, 1), torch.tensor([0, 1, 0, 1]))), 4)
        0.6931
    """

    kind: Literal["logistic", "softmax", "multilabel", "several", "least-squares"]
    classes: int
    smoothing: float = 0.0
    parts: tuple[int, ...] = field(default=(), repr=False)
    share: float = field(default=1.0, repr=False)

    @classmethod
    def of(cls, classes: Classes, outputs: int) -> Task:
        """The task for data with ``classes`` classes (0: real targets; a number for each of several targets) and a
        network with ``outputs`` outputs.

        Raises:
            ValueError: if they do not fit each other.

        Examples:
            >>> Task.of(2, outputs=1).kind, Task.of(2, outputs=2).kind, Task.of(0, outputs=3).kind
            ('logistic', 'softmax', 'least-squares')
            >>> Task.of((2, 3), outputs=4)
            Task(kind='several', classes=5, smoothing=0.0)
        """
        if isinstance(classes, tuple):
            if outputs != scores_for(classes):
                raise ValueError(f"targets of {in_words(classes)} classes, but a network of {outputs} output(s).")
            return cls("several", sum(classes), parts=classes, share=1 / len(classes))
        if not classes:
            return cls("least-squares", 0)
        if classes == 2 and outputs == 1:
            return cls("logistic", 2)
        if outputs != classes:
            raise ValueError(f"{classes} classes, but a network of {outputs} output(s).")
        return cls("softmax", classes)

    @property
    def score_name(self) -> str:
        """``accuracy`` for classes, ``r2`` (the fraction of the variance explained) for real targets."""
        return "accuracy" if self.classes else "r2"

    def each(self) -> list[tuple[slice, Task]]:
        """Of several targets, the scores of each and its own task.

        Examples:
            >>> [(at.start, at.stop, task.kind) for at, task in Task.of((2, 3), outputs=4).each()]
            [(0, 1, 'logistic'), (1, 4, 'softmax')]
        """
        found, first = [], 0
        for classes in self.parts:
            last = first + scores_for(classes)
            found.append((slice(first, last), replace(Task.of(classes, last - first), smoothing=self.smoothing)))
            first = last
        return found

    def some(self, targets: Sequence[int]) -> Task:
        """Of several targets the task of some, whose loss is their part of the loss of all.

        Examples:
            >>> task, scores, y = Task.of((2, 3), outputs=4), torch.zeros(5, 4), torch.zeros(5, 2).long()
            >>> parts = task.some([0]).loss(scores[:, :1], y[:, :1]) + task.some([1]).loss(scores[:, 1:], y[:, 1:])
            >>> bool(torch.isclose(parts, task.loss(scores, y)))
            True
        """
        parts = tuple(self.parts[k] for k in targets)
        return replace(self, classes=sum(parts), parts=parts)

    def loss(self, scores: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
        """Mean cross-entropy, or half the mean squared error; summed over labels or outputs, the mean over several
        targets of classes.

        Args:
            scores: (samples, outputs); 16 bits are computed in float32.
            y: targets.
            weight: (samples,): the mean is of weight x loss; 1 for all if None.

        Examples:
            >>> task, y = Task("logistic", 2), torch.tensor([0, 1])
            >>> scores, weight = torch.tensor([[-2.0], [3.0]]), torch.tensor([0.0, 2.0])
            >>> bool(task.loss(scores, y, weight) == task.loss(scores[1:], y[1:]))
            True
        """
        losses = self._losses(in_working_precision(scores), y, "mean" if weight is None else "none")
        return losses if losses.ndim == 0 else (losses if weight is None else weight * losses).mean()

    def _losses(self, scores: Tensor, y: Tensor, reduction: str) -> Tensor:
        """One loss for each sample; for ``"mean"`` their mean, where torch has it in one call."""
        if self.kind == "several":
            found = [task._losses(scores[:, at], y[:, k], reduction) for k, (at, task) in enumerate(self.each())]
            return self.share * torch.stack(found).sum(0)
        if self.kind == "logistic":
            return F.binary_cross_entropy_with_logits(
                scores.squeeze(-1), self._smoothed(y, scores), reduction=reduction
            )
        if self.kind == "softmax":
            return F.cross_entropy(scores, y, reduction=reduction, label_smoothing=self.smoothing)
        if self.kind == "multilabel":
            return F.binary_cross_entropy_with_logits(scores, self._smoothed(y, scores), reduction="none").sum(1)
        return 0.5 * (scores - y.view_as(scores)).square().flatten(1).sum(1)

    def _smoothed(self, y: Tensor, like: Tensor) -> Tensor:
        """The probability that is learned for each label that is 0 or 1."""
        y = y.to(like.dtype)
        return y * (1 - self.smoothing) + self.smoothing / 2 if self.smoothing else y

    def gradient(self, scores: Tensor, y: Tensor) -> Tensor:
        r"""L'(scores), the derivative of `loss` in closed form.

        Per sample p - y with p = sigmoid(score) (logistic, multilabel), p - e_y with p = softmax(scores), and score - y
        (least squares), each divided by the number of samples.

        Args:
            scores: (samples, outputs).
            y: targets.

        Examples:
            >>> Task("logistic", 2).gradient(torch.zeros(2, 1), torch.tensor([0, 1]))
            tensor([[ 0.2500],
                    [-0.2500]])
        """
        if self.kind == "several":
            parts = [task.gradient(scores[:, at], y[:, k]) for k, (at, task) in enumerate(self.each())]
            return self.share * torch.cat(parts, 1)
        if self.kind in ("logistic", "multilabel"):
            return (scores.sigmoid() - self._smoothed(y.view_as(scores), scores)) / len(scores)
        if self.kind == "softmax":
            K = scores.shape[-1]
            learned = F.one_hot(y, K).to(scores) * (1 - self.smoothing) + self.smoothing / K
            return (scores.softmax(-1) - learned) / len(scores)
        return (scores - y.view_as(scores)) / len(scores)

    def curvature(self, scores: Tensor, v: Tensor) -> Tensor:
        r"""L''(scores) v, the positive semidefinite second derivative of `loss` in closed form; it needs no targets.

        Per sample p (1 - p) v with p = sigmoid(score) (logistic, multilabel), p v - p (p^T v) with p = softmax(scores),
        and v (least squares), each divided by the number of samples.

        Args:
            scores, v: (samples, outputs).

        Examples:
            >>> Task("logistic", 2).curvature(torch.zeros(1, 1), torch.ones(1, 1))
            tensor([[0.2500]])
        """
        if self.kind == "several":
            return self.share * torch.cat([task.curvature(scores[:, at], v[:, at]) for at, task in self.each()], 1)
        if self.kind in ("logistic", "multilabel"):
            p = scores.sigmoid()
            return p * (1 - p) * v / len(scores)
        if self.kind == "softmax":
            pv = scores.softmax(-1) * v
            return (pv - scores.softmax(-1) * pv.sum(-1, keepdim=True)) / len(scores)
        return v / len(scores)

    def labels(self, scores: Tensor) -> Tensor:
        """The predicted class: score >= 0 for two classes, the largest score for more; for labels 0 or 1 for each, and
        for several targets (samples, targets)."""
        if self.kind == "several":
            return torch.stack([task.labels(scores[:, at]) for at, task in self.each()], 1)
        if self.kind == "multilabel":
            return (scores >= 0).long()
        return (scores.squeeze(-1) >= 0).long() if self.kind == "logistic" else scores.argmax(-1)

    def probabilities(self, scores: Tensor) -> Tensor:
        """(samples, classes), rows that add up to 1; for labels the probability of each, and for several targets the
        classes of each side by side."""
        if self.kind == "several":
            return torch.cat([task.probabilities(scores[:, at]) for at, task in self.each()], 1)
        if self.kind == "multilabel":
            return scores.sigmoid()
        if self.kind == "softmax":
            return scores.softmax(-1)
        p = scores.sigmoid().reshape(-1, 1)
        return torch.cat((1 - p, p), 1)

    def score(self, scores: Tensor, y: Tensor, weight: Tensor | None = None) -> float:
        """Accuracy in [0, 1], of all labels of a sample together, or r2 <= 1; over weighted samples where asked. Of
        several targets the mean accuracy.
        """
        return float(self.scored(scores, y, weight))

    def scored(self, scores: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
        """The same, still on its device."""
        if self.classes:
            hits = self.labels(scores) == y
            if self.kind == "several":
                hits = hits.double().mean(1)
            hits = (hits.all(1) if hits.ndim > 1 else hits).double()
            return hits.mean() if weight is None else (hits * weight).sum() / weight.sum()
        scores, y = in_working_precision(scores), y.view_as(scores)
        if weight is None:
            return 1 - (scores - y).square().sum() / (y - y.mean(0)).square().sum()
        w = (weight / weight.sum()).view(-1, *(1,) * (y.ndim - 1))
        return 1 - (w * (scores - y).square()).sum() / (w * (y - (w * y).sum(0)).square()).sum()


def in_words(classes: Classes) -> str:
    """The number of classes, or those of each target.

    Examples:
        >>> in_words(3), in_words((2, 3, 2))
        ('3', '2, 3 and 2')
    """
    if isinstance(classes, int):
        return str(classes)
    return " and ".join([", ".join(map(str, classes[:-1])), str(classes[-1])]) if len(classes) > 1 else str(classes[0])
