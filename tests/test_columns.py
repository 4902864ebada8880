"""Tables as features: what scikit-learn's own transformers give, whatever the dtypes, and the same from a document."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from liouville.columns import Category, Columns, Number
from liouville.table import Table

pd = pytest.importorskip("pandas")


def frame(rows: int = 50, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "age": rng.normal(40, 10, rows),
            "town": rng.choice(["Oslo", "Rome", "Bonn"], rows).astype(object),
            "grade": pd.Categorical(rng.integers(1, 4, rows)),
            "ill": rng.random(rows) < 0.3,
            "kids": pd.array(rng.integers(0, 4, rows), dtype="Int64"),
            "word": pd.array(rng.choice(["a", "b"], rows), dtype="string"),
        }
    )
    table.loc[::7, "age"] = np.nan
    table.loc[3, "kids"] = pd.NA
    table.loc[::9, "town"] = None
    return table


def test_features_are_those_of_scikit_learns_transformers() -> None:
    """Medians and a second feature for missing numbers, one-hot words: an oracle for all columns but missing words."""
    pytest.importorskip("sklearn")
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    table, later = frame(), frame(20, seed=1)
    later.loc[0, "town"] = "Paris"
    numbers = ["age", "ill", "kids"]
    as_floats = [t.assign(**{n: t[n].astype(float) for n in numbers}) for t in (table, later)]
    words = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    oracle = ColumnTransformer(
        [(n, make_pipeline(SimpleImputer(strategy="median", add_indicator=True)), [n]) for n in numbers]
        + [(w, words, [w]) for w in ("town", "grade", "word")]
    ).fit(as_floats[0])
    columns = Columns.fit(Table(table))
    names = columns.features()
    found, expected = columns.transform(later), oracle.transform(as_floats[1])
    at = 0
    for n in numbers:
        k = names.index(n)
        known = as_floats[0][[n]].dropna()
        scaled = StandardScaler().fit(known.to_numpy()).transform(expected[:, [at]])
        np.testing.assert_allclose(found[:, [k]], scaled, rtol=1e-12, atol=1e-12)
        at += 1
        if f"{n} is missing" in names:
            np.testing.assert_array_equal(found[:, k + 1], expected[:, at])
            at += 1
    for w in ("town", "grade", "word"):
        k = next(i for i, name in enumerate(names) if name.startswith(f"{w} = "))
        width = sum(name.startswith((f"{w} = ", f"{w} is")) for name in names)
        np.testing.assert_array_equal(found[:, k : k + width], expected[:, at : at + width])
        at += width
    assert at == expected.shape[1] == len(names) == found.shape[1]
    paris = [i for i, name in enumerate(names) if name.startswith("town")]
    assert not found[0, paris].any(), "a word that was not there has zeros"


def test_a_document_holds_all_of_it() -> None:
    columns = Columns.fit(Table(frame()))
    again = Columns.from_dict(json.loads(json.dumps(columns.as_dict(), allow_nan=False)))
    assert again == columns
    np.testing.assert_array_equal(again.transform(frame(9, 2)), columns.transform(frame(9, 2)))


def test_weights_are_copies() -> None:
    """Means and spreads, to rounding: sums of 100 numbers differ by 100 eps of them."""
    table, weight = Table(frame(30)), np.arange(30) % 3
    kept, copies = np.flatnonzero(weight), np.repeat(np.arange(30), weight)
    weighted = Columns.fit(table.take(kept), weight[kept].astype(float))
    repeated = Columns.fit(table.take(copies))
    for one, other in zip(weighted.columns, repeated.columns, strict=True):
        if isinstance(one, Number) and isinstance(other, Number):
            assert (one.offset, one.scale) == pytest.approx((other.offset, other.scale), rel=1e-13)
        else:
            assert one == other


def test_arrays_lists_and_forced_categories() -> None:
    numbers = Columns.fit(Table(np.array([[1.0, 5.0], [2.0, 5.0]])))
    assert numbers.transform([[1.5, 5.0]]).tolist() == [[0.0, 0.0]], "a constant column is 0"
    forced = Columns.fit(Table(np.array([[1.0], [2.0], [np.nan]]), categorical=[0]))
    assert forced.features() == ["x0 = 1.0", "x0 = 2.0", "x0 is missing"]
    assert forced.transform([[2.0], [7.0]]).tolist() == [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    many = Columns.fit(Table(np.array([[f"w{k}"] for k in (*range(150), 149)], dtype=object)))
    assert len(many.features()) == 100 and "x0 = w149" in many.features(), "the most frequent ones"
    empty = Columns.fit(Table(np.full((2, 1), np.nan)))
    assert empty.transform([[np.nan], [3.0]])[:, 1].tolist() == [1.0, 0.0]


WRONG = [
    ({"when": pd.to_datetime(["2020-01-01", "2021-01-01"])}, "column 'when' holds dates"),
    ({"a": [1, "x"]}, "column 'a' has numbers and words such as 'x'"),
    ({"a": [1.0, np.inf]}, "column 'a' contains infinity, first in row 1"),
    ({"a": [1, {"b": 2}]}, "column 'a': float"),
    ({"a": [1j, 2]}, "Complex data not supported: column 'a'"),
]


@pytest.mark.parametrize(("content", "sentence"), WRONG, ids=lambda v: v if isinstance(v, str) else "")
def test_what_is_no_table_is_refused_in_a_sentence(content: dict[str, Any], sentence: str) -> None:
    with pytest.raises((TypeError, ValueError), match=sentence) as raised:
        Table(pd.DataFrame(content))
    assert "\n" not in str(raised.value) and str(raised.value).endswith(".")


def test_other_tables_and_damaged_documents_are_refused_in_a_sentence() -> None:
    columns = Columns.fit(Table(frame()))
    with pytest.raises(ValueError, match="expected 6 columns, got 5"):
        columns.transform(frame().drop(columns="age"))
    with pytest.raises(ValueError, match="column 'age' was of numbers in training, and now has words"):
        columns.transform(frame().assign(age="old"))
    with pytest.raises(ValueError, match="column 'town' was of words in training, and now has numbers"):
        columns.transform(frame().assign(town=3))
    with pytest.raises(ValueError, match="there is no column 'twn'; there are 6: age"):
        Table(frame(), categorical=["twn"])
    for change, sentence in (
        ({"named": 1}, "columns.named must be"),
        ({"columns": [{"kind": "date"}]}, "kind must be 'number' or 'category'"),
        ({"columns": [Number("a", 0.0, 0.0, 0.0).__dict__ | {"kind": "number"}]}, "a scale of 0"),
        ({"columns": [{"kind": "category", "name": "a"}]}, r"columns.columns\[0\]"),
    ):
        with pytest.raises(ValueError, match=sentence):
            Columns.from_dict(columns.as_dict() | change)
    assert Category("a", ("x",)).features() == ["a = x"]
