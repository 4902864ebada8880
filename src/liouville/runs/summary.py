"""A plan in words: what steps through what, and how it is trained."""

from __future__ import annotations

__all__ = ["flow_in_words", "training_in_words"]

from liouville.analysis.proofs.assumptions import activation_of
from liouville.budget import BudgetedField
from liouville.fields.wrapped import unwrapped
from liouville.flow import Flow
from liouville.train import GaussNewton, Settings


def flow_in_words(flow: Flow) -> str:
    """Its layers, scheme, step and field."""
    name = type(flow.scheme).__name__
    field, sigma = unwrapped(flow.field), activation_of(flow.field)
    return (
        f"{flow.layers} layers of {name}, step h = {flow.h:.4g} (T = {flow.T:g}), through "
        f"{type(field).__name__} with {field.features} features"
        + (f" and {sigma.name}" if sigma is not None else "")
        + (f", singular values bounded by {flow.field.budget:g}" if isinstance(flow.field, BudgetedField) else "")
    )


def training_in_words(s: Settings | GaussNewton) -> str:
    """How long, in which steps and at which rates."""
    if isinstance(s, GaussNewton):
        return f"{s.iterations} iterations of Gauss-Newton, head {s.head}, {s.safeguard}"
    of = {
        "scaled": "in units of the weights",
        "share": "of y_N in the first step",
        "plain": "of the weights as they are",
    }
    rates = f"lr {s.lr:g} {of[s.rates]}" + (f" (head {s.head_lr:g})" if s.head_lr is not None else "")
    length = f"{s.epochs} epochs" if s.steps is None else f"{s.steps} steps"
    return f"{length} in batches of {s.batch_size}, {s.optimizer}, {s.schedule}, {rates}"
