"""Preprocessing of a table, fitted by scikit-learn; what it found is kept as `liouville.preprocessing` has it, as data.

Numbers: the median for missing values, then mean 0 and standard deviation 1. Categories: one output for each level.
"""

from __future__ import annotations

__all__ = ["MOST_LEVELS", "fitted", "transformer"]

from collections.abc import Mapping, Sequence
from typing import Any

from liouville.preprocessing import Categorical, Column, Numeric, Preprocessing

MOST_LEVELS = 100  # of one column; rarer ones share an output
_MISSING = "\0missing"  # no level has it


def transformer(numeric: Sequence[Any], categorical: Sequence[Any], most_levels: int = MOST_LEVELS) -> Any:
    """The unfitted `ColumnTransformer` of some columns of numbers (NaN: missing) and of text (None: missing).

    Args:
        numeric, categorical: what scikit-learn calls the columns: names, or positions.
        most_levels: more levels of one column share an output, the rarest of them.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    levels = OneHotEncoder(
        handle_unknown="infrequent_if_exist", max_categories=most_levels, sparse_output=False, dtype=float
    )
    words = make_pipeline(FunctionTransformer(_filled), levels)
    return ColumnTransformer([("numbers", numbers, list(numeric)), ("levels", words, list(categorical))])


def fitted(columns: Mapping[str, Any], most_levels: int = MOST_LEVELS) -> Preprocessing:
    """The preprocessing of some columns, without those that have no two different values.

    Args:
        columns: by name, an array of numbers in float64 (NaN: missing), or a list of text (None: missing).
        most_levels: as for `transformer`.

    Raises:
        ImportError: scikit-learn or pandas is not installed.
        ValueError: no column has two different values, or numbers so large that their spread is not finite.

    Examples:
        >>> import numpy
        >>> found = fitted({"age": numpy.array([20.0, 40.0, numpy.nan]), "city": ["Bonn", "Rome", "Bonn"]})
        >>> found.columns[0].fill, found.columns[0].missing, found.names
        (30.0, True, ('age', 'age is missing', 'city=Bonn', 'city=Rome'))
    """
    try:
        import numpy
        import pandas
        import sklearn  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "preprocessing a table needs pandas and scikit-learn: pip install 'liouville[data]'"
        ) from error
    names = [name for name, cells in columns.items() if _varies(cells)]
    numeric = [name for name in names if not isinstance(columns[name], list)]
    words = [name for name in names if isinstance(columns[name], list)]
    if not names:
        raise ValueError(
            f"none of the columns {', '.join(columns)} has two different values; there is nothing to learn."
        )
    frame = pandas.DataFrame(
        {name: pandas.Series(columns[name], dtype=None if name in numeric else object) for name in names}
    )
    with numpy.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused below
        made = transformer(numeric, words, most_levels).fit(frame)
    found: dict[str, Column] = {}
    if numeric:
        found |= _numbers(made.named_transformers_["numbers"], numeric, frame)
    if words:
        found |= _words(made.named_transformers_["levels"], words)
    return Preprocessing(tuple(found[name] for name in names))


def _varies(cells: Any) -> bool:
    """Whether there are two different values, a missing one among them."""
    if isinstance(cells, list):
        return len(set(cells)) > 1
    known = cells[cells == cells]
    return bool(len(known)) and bool(len(known) < len(cells) or (known != known[0]).any())


def _numbers(pipeline: Any, names: Sequence[str], frame: Any) -> dict[str, Column]:
    import numpy

    imputer, scaler = pipeline[0], pipeline[1]
    found: dict[str, Column] = {}
    for name, fill, mean, scale in zip(names, imputer.statistics_, scaler.mean_, scaler.scale_, strict=True):
        if not numpy.isfinite([fill, mean, scale]).all():
            raise ValueError(
                f"column {name!r} has numbers up to {numpy.nanmax(numpy.abs(frame[name])):.3g}, whose spread is too "
                "large to compute; take their logarithm, or another unit."
            )
        found[name] = Numeric(name, float(mean), float(scale), float(fill), bool(frame[name].isna().any()))
    return found


def _words(pipeline: Any, names: Sequence[str]) -> dict[str, Column]:
    encoder = pipeline[1]
    found: dict[str, Column] = {}
    for name, levels, rare in zip(names, encoder.categories_, encoder.infrequent_categories_, strict=True):
        shared = set() if rare is None else set(rare)
        kept = [one for one in levels if one not in shared and one != _MISSING]
        found[name] = Categorical(
            name, tuple(map(str, kept)), _MISSING in levels and _MISSING not in shared, bool(shared)
        )
    return found


def _filled(frame: Any) -> Any:
    """Missing values as a level, the first one in the order of text; `Categorical` has it after the others."""
    return frame.astype(object).where(frame.notna(), _MISSING)
