r"""Rows as a weighted set: what is fitted depends on which rows there are and how often, not on how they are listed.

A row that is there twice is one row of weight 2, a row of weight 0 is none, and their order is made the same. So a
weight w of a row and w copies of it give the same training to the last bit; and no row can be learned from and held out
at once.
"""

from __future__ import annotations

__all__ = ["distinct", "require_weights"]

from typing import Any

import numpy as np

_Array = np.ndarray[Any, np.dtype[Any]]


def distinct(keys: _Array, weight: _Array | None) -> tuple[_Array, _Array | None]:
    """The place of each different row, in an order of their own, and its weight; None where all weigh the same.

    Args:
        keys: (rows, k) numbers; equal rows are the same row.
        weight: (rows,), or None for 1.

    Examples:
        >>> distinct(np.array([[2.0], [1.0], [2.0]]), None)
        (array([1, 0]), array([1., 2.]))
    """
    rows = np.ascontiguousarray(keys, dtype=np.float64) + 0.0
    whole = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    _, first, place = np.unique(whole, return_index=True, return_inverse=True)
    order = np.lexsort(rows[first].T[::-1])  # by value: bytes have an order of the machine
    total = np.bincount(place.ravel(), weights=weight)[order].astype(np.float64)
    return first[order], None if (total == total[0]).all() else total


def require_weights(sample_weight: Any, rows: int) -> _Array | None:
    """Weights in float64; None for None.

    Raises:
        ValueError: another shape, a negative weight, one that is not finite, or no weight above 0.
    """
    if sample_weight is None:
        return None
    weight = np.asarray(sample_weight, dtype=np.float64)
    weight = np.full(rows, float(weight)) if weight.ndim == 0 else weight
    if weight.shape != (rows,):
        raise ValueError(f"sample_weight must be one number for each of {rows} samples, got the shape {weight.shape}.")
    if not np.isfinite(weight).all() or (weight < 0).any():
        raise ValueError("Negative values in data passed to `sample_weight`, or some that are not finite; use >= 0.")
    if not weight.any():
        raise ValueError("all sample weights are zero, so nothing can be learned; give some a weight above zero.")
    return weight
