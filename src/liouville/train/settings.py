"""Settings of a training run, of first or second order: frozen records, so that a run can be repeated."""

from __future__ import annotations

__all__ = ["GaussNewton", "Settings"]

import math
from dataclasses import dataclass, field
from numbers import Real
from typing import ClassVar, Literal

from liouville.names import lookup
from liouville.renamed import fields_renamed
from liouville.train.regularisers import Penalty

OPTIMIZERS = ("adam", "adamw", "sgd")
RATES = ("scaled", "share", "plain")
SCHEDULES = ("one-cycle", "cosine", "step", "constant", "epoch-count")
HEADS = ("eliminated", "eliminated-simple", "joint", "alternating")
SAFEGUARDS = ("armijo", "trust-region")
SOLVER = ("products", "tolerance", "tries", "decrease", "max_step", "atol", "rtol", "ridge", "head_steps", "curvature")
_REALS = (
    "lr",
    "head_lr",
    "weight_decay",
    "beta2",
    "warmup",
    "validation",
    "target_score",
    "max_grad_norm",
    "ema_decay",
    "warp",
    "label_smoothing",
)


@fields_renamed(batch="batch_size", clip="max_grad_norm", average="ema_decay", target="target_score")
@dataclass(frozen=True)
class Settings:
    """How `fit` trains.

    Args:
        epochs: make this many passes over the training part; ignored where ``steps`` says how many there are.
        batch_size: take this many samples for each step.
        lr: set the learning rate, the highest of the schedule.
        head_lr: set the learning rate of the head; ``lr``, or the rate of a share, if None.
        optimizer: choose how steps follow from gradients, ``"sgd"`` with momentum 0.9.
        beta2: let Adam keep this share of its mean squared gradient in each step; 0.95 made deep flows train far more
            reliably than torch's 0.999.
        weight_decay: shrink the weights by this times the learning rate in each step, with ``"adamw"`` only; such a
            decay is decoupled, and one that is part of the objective is in ``penalty``.
        schedule: choose how the learning rate changes; ``"one-cycle"`` (up over the first ``warmup`` of the steps,
            then down to nothing), ``"cosine"`` (down to nothing), ``"step"`` (times 0.8 after every epoch, the papers'
            MNIST), ``"constant"``, or ``"epoch-count"`` (what Adam's rate becomes if its bias correction counts epochs,
            as in a public script).
        warmup: let ``"one-cycle"`` rise over this share of the steps.
        penalty: add these regularisers to the loss; smoothness in depth, decay and head decay among them.
        alternate: train a fresh, zero head by this many Adam steps on every batch, 0 for none; the papers' alternation:
            the features are held fixed until the one step on the other weights.
        validation: hold out this share of the training part to choose the best epoch; in [0, 1), with 0 the last epoch
            is returned.
        patience: stop after this many epochs without a better validation loss; None runs all epochs.
        target_score: stop once the validation score (accuracy, or r2) is at least this; those weights are returned, and
            None never stops for it.
        max_grad_norm: shorten longer gradients to this norm; None leaves them as they are.
        ema_decay: average the weights over the steps, with this factor for each step into the past, 0 for none; this
            exponential moving average is what is validated and returned.
        shift: shift every training image at random by up to this many pixels.
        warp: turn, stretch, shear and shift every training image at random, this strongly, 0 for none; 1 is up to
            10 degrees, 10 % and a fourteenth of the width, 2 twice as much.
        bfloat16: run the network under autocast in bfloat16; weights and optimiser keep their precision.
        capture: on CUDA, record the step once as a graph and repeat it (`liouville.train.capture`); for engines that do
            not make the host wait, `Stored` above all. Never run on a GPU so far.
        seed: draw the held-out part, the order of the batches, shifts and dropout from this seed.
        rates: choose how learning rates and penalties are counted; ``"scaled"``: those of weights in the units of their
            network (`liouville.units`), so that one rate serves every final time. ``"share"``: as scaled, but ``lr`` is
            how far the first step of the highest rate would move y_N, relative to its size. That is measured before
            training, and the rate is 0.1 at most. ``"plain"``: those of the weights as they are. This is the same as
            scaled where no unit is set: for flows of your own, and for weights that no final time has scaled.
        steps: make this many steps, in place of ``epochs``; the last pass may end within the training part. A stream
            without a length needs it, and its epochs are ``steps / epochs`` batches.
        label_smoothing: spread this share of the probability over all classes in training, 0 for none; validation and
            test losses are without it.
        stratified: hold out the same share of every class.

    Raises:
        ValueError: if a value is out of range or a name unknown.

    Examples:
        >>> Settings(epochs=10).batch_size
        125
    """

    epochs: int = 40
    batch_size: int = 125
    lr: float = 0.02
    head_lr: float | None = None
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    beta2: float = 0.95
    weight_decay: float = 0.0
    schedule: Literal["one-cycle", "cosine", "step", "constant", "epoch-count"] = "one-cycle"
    warmup: float = 0.1
    penalty: Penalty = field(default_factory=Penalty)
    alternate: int = 0
    validation: float = 0.1
    patience: int | None = None
    target_score: float | None = None
    max_grad_norm: float | None = None
    ema_decay: float = 0.0
    shift: int = 0
    warp: float = 0.0
    bfloat16: bool = False
    capture: bool = False
    seed: int = 0
    rates: Literal["scaled", "share", "plain"] = "scaled"
    steps: int | None = None
    label_smoothing: float = 0.0
    stratified: bool = False

    def __post_init__(self) -> None:
        lookup(dict.fromkeys(OPTIMIZERS, 0), self.optimizer, "optimizer")
        lookup(dict.fromkeys(SCHEDULES, 0), self.schedule, "schedule")
        lookup(dict.fromkeys(RATES, 0), self.rates, "rate")
        if self.rates == "share" and self.alternate and self.head_lr is None:
            raise ValueError("rates='share' measures no rate for a fresh head; give head_lr beside alternate.")
        if self.rates == "share" and self.optimizer == "sgd":
            raise ValueError("rates='share' measures a step of Adam, got optimizer='sgd'; use rates='scaled'.")
        for name, low in (("epochs", 1), ("batch_size", 1), ("alternate", 0), ("shift", 0), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value < 2**63:
                raise ValueError(f"{name} must be a whole number of at least {low} (and below 2^63), got {value!r}.")
        if self.steps is not None and (
            not isinstance(self.steps, int) or isinstance(self.steps, bool) or self.steps < 1
        ):
            raise ValueError(f"steps must be a whole number of at least 1, or None, got {self.steps!r}.")
        for name in _REALS:
            if not isinstance(value := getattr(self, name), Real | None):
                raise ValueError(f"{name} must be a number, got {value!r}.")
        if self.patience is not None and (not isinstance(self.patience, int) or self.patience < 1):
            raise ValueError(f"patience must be at least 1 epoch, a whole number, got {self.patience}.")
        if self.patience is not None and not self.validation:
            raise ValueError("patience waits for a better validation loss; give validation a share above 0.")
        if self.target_score is not None and not (self.validation and self.target_score <= 1):
            raise ValueError(
                "target_score is a validation score of at most 1, and needs a validation share above 0; got "
                f"{self.target_score} with validation={self.validation}."
            )
        for name in ("lr", "head_lr", "max_grad_norm"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {value}.")
        for name in ("weight_decay", "warp"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}.")
        if self.weight_decay and self.optimizer != "adamw":
            raise ValueError(
                f"weight_decay belongs to optimizer='adamw', got {self.optimizer!r}; use Penalty(decay=...)."
            )
        for name in ("warmup", "validation", "ema_decay", "beta2", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}.")


@fields_renamed(batch="batch_size", target="target_score")
@dataclass(frozen=True)
class GaussNewton:
    """How `gauss_newton` trains. But for ``ridge`` the defaults are those of the first paper's code for its Swiss roll.

    Args:
        iterations: make at most this many outer iterations.
        head: choose how Gauss-Newton treats the head; ``"eliminated"``: variable projection, the head at its optimum
            and differentiated with the rest (GNvpro), ``"eliminated-simple"``: without that derivative, ``"joint"``:
            one vector of all weights, ``"alternating"``: the first paper's block coordinate descent on batches.
        safeguard: choose how Gauss-Newton limits its steps; ``"armijo"``: a line search, ``"trust-region"``:
            Steihaug's.
        products: Gauss-Newton products of one iteration, at most.
        tolerance: of the conjugate gradients, relative to the gradient.
        tries: of the line search or trust region.
        decrease: share of the predicted decrease that a step must achieve, in [0, 1).
        max_step: the largest entry of the line search's direction.
        atol, rtol: stop where the gradient norm is at most atol + rtol times the first one; not when alternating.
        ridge: of the preconditioner, > 0 (`DepthPreconditioner`).
        penalty: the regularisers; elimination and alternation need a decay of the head.
        head_steps: Newton steps of the head in one alternation; an eliminated head is solved to rounding.
        batch_size: samples of one alternation; all if None, and always all in the other methods.
        curvature: share of the batch that products use when alternating.
        validation: share of the training part held out to choose the best iteration; with 0 the last is returned.
        patience: stop after this many iterations without a better validation score, or loss at an equal score.
        target_score: stop once the validation score is at least this.
        seed: of the held-out part and the batches.

    Raises:
        ValueError: if a value is out of range or a name unknown.

    Reference: Haber & Ruthotto 2017 (1705.03341), the learning method; Meganet.m, newton.m and its Swiss-roll drivers.

    Examples:
        >>> GaussNewton(iterations=20, head="joint").products
        20
    """

    optimizer: ClassVar[str] = "gauss-newton"

    iterations: int = 100
    head: Literal["eliminated", "eliminated-simple", "joint", "alternating"] = "eliminated"
    safeguard: Literal["armijo", "trust-region"] = "armijo"
    products: int = 20
    tolerance: float = 0.01
    tries: int = 10
    decrease: float = 1e-3
    max_step: float = 1.0
    atol: float = 1e-16
    rtol: float = 1e-3
    ridge: float = 1.0
    penalty: Penalty = field(default_factory=lambda: Penalty(smoothness=5e-3, head_decay=1e-3))
    head_steps: int = 4
    batch_size: int | None = None
    curvature: float = 1.0
    validation: float = 0.1
    patience: int | None = None
    target_score: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        lookup(dict.fromkeys(HEADS, 0), self.head, "treatment of the head")
        lookup(dict.fromkeys(SAFEGUARDS, 0), self.safeguard, "safeguard")
        for name in ("iterations", "products", "tries", "head_steps", "batch_size", "patience"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ValueError(f"{name} must be a whole number of at least 1, got {value}.")
        for name in ("max_step", "ridge"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)}.")
        for name in ("tolerance", "decrease", "atol", "rtol", "validation"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}.")
        if not 0 < self.curvature <= 1:
            raise ValueError(f"curvature must be a share of the batch in (0, 1], got {self.curvature}.")
        if self.head != "joint" and not self.penalty.head_decay:
            raise ValueError(
                f"head={self.head!r} solves for the head, which has a solution for sure only with a decay; give "
                "Penalty(head_decay=1e-3), say, or head='joint'."
            )
        if self.head != "alternating" and (self.batch_size is not None or self.curvature < 1):
            raise ValueError(
                "batch_size and curvature belong to head='alternating'; the other methods use every sample."
            )
