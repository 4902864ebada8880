"""A table of one's own as data: what its columns become, and that raw rows go the same way afterwards."""

import csv
import dataclasses
import json

import pytest
import torch

import liouville as lv
from liouville.data import TableFile
from liouville.facts import Facts
from liouville.runs import Plan

numpy = pytest.importorskip("numpy")
pandas = pytest.importorskip("pandas")
pytest.importorskip("sklearn")
columns_of = pytest.importorskip("liouville.columns")
table_of = pytest.importorskip("liouville.table")

CITIES, SIZES = ("Bonn", "Rome", "Oslo"), ("s", "m", "l")


def frame(rows=120, seed=0, gaps=0.1):
    """Two columns of numbers and two of categories, some cells of each missing, and classes that depend on them."""
    random = numpy.random.default_rng(seed)
    found = pandas.DataFrame(
        {
            "age": random.integers(18, 80, rows).astype(float),
            "city": random.choice(CITIES, rows),
            "income": random.normal(3000, 500, rows).round(2),
            "size": random.choice(SIZES, rows),
        }
    )
    sold = found.age / 40 + (found.city == "Rome") > 1.5
    for name in found:
        found.loc[random.random(rows) < gaps, name] = None
    return found.assign(sold=numpy.where(sold, "yes", "no"))


@pytest.fixture
def written(tmp_path):
    def write(table, name="mine.csv", **more):
        table.to_csv(tmp_path / name, index=False, **more)
        return str(tmp_path / name)

    return write


@pytest.fixture
def network(written):
    """An untrained network that knows its table, and the table's file."""
    file = TableFile(written(frame()), "sold")
    split = file.load(torch.float64)
    plan = Plan.of(file).changed(dtype="float64", layers=2, features=8)
    return plan.network(split.facts()).eval(), split  # without dropout of inputs


def test_columns_are_those_of_scikit_learn(written):
    """Numbers standardised and then filled, with a mark; categories one-hot, unknown ones all zero."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    train, new = frame(seed=1).drop(columns="sold"), frame(40, seed=2).drop(columns="sold")
    new.loc[3, "city"] = "Lima"
    numbers = make_pipeline(StandardScaler(), SimpleImputer(strategy="median", add_indicator=True))
    levels = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    theirs = ColumnTransformer([("n", numbers, ["age", "income"]), ("c", levels, ["city", "size"])])
    expected = theirs.fit(train).transform(new)
    ours = columns_of.Columns.fit(table_of.Table(train))
    order = ["age", "income", "age is missing", "income is missing"]
    order += [f"city = {c}" for c in sorted(CITIES)] + ["city is missing"]
    order += [f"size = {s}" for s in sorted(SIZES)] + ["size is missing"]
    found = ours.transform(ours.by_name(new))[:, [ours.features().index(name) for name in order]]
    scale = 1 + numpy.abs(train[["age", "income"]]).max().max() / min(train.age.std(), train.income.std())
    assert numpy.abs(found - expected).max() <= 8 * numpy.finfo(float).eps * len(train) * scale


def test_raw_rows_are_answered_as_their_preprocessed_ones(network):
    net, split = network
    raw = frame(30, seed=3)
    x = torch.from_numpy(split.preprocessing.transform(split.preprocessing.by_name(raw)))
    expected = [split.label_names[k] for k in (net(x).squeeze(-1) >= 0).long().tolist()]
    assert torch.equal(net.transform(raw), x) and torch.equal(split.transformed(raw), x)
    assert net.predict(raw) == expected and {"yes", "no"} >= {*expected}


def test_the_order_of_columns_and_other_columns_do_not_matter(network):
    net, _ = network
    raw = frame(30, seed=4)
    x = net.transform(raw)
    mixed = raw[["size", "sold", "income", "age", "city"]].assign(other=1)
    records = json.loads(mixed.to_json(orient="records"))  # missing cells are None
    text = [{k: "" if v is None else str(v) for k, v in row.items()} for row in records]
    in_order = raw[["age", "city", "income", "size"]].astype(object)
    for same in (mixed, {n: raw[n].tolist() for n in mixed if n in raw}, records, text, in_order.values.tolist()):
        assert torch.equal(net.transform(same), x)
    with pytest.raises(ValueError, match="the table lacks 'city'; the inputs are age, city, income, size"):
        net.transform(raw.drop(columns="city"))


def test_what_training_did_not_have_is_zeros_or_the_median_and_is_told(written):
    split = TableFile(written(frame(gaps=0.0)), "sold").load(torch.float64)
    columns = split.preprocessing
    row = {"age": None, "city": "Lima", "income": 3000.0, "size": None}
    age = next(c for c in columns.columns if c.name == "age")
    x = dict(zip(columns.features(), split.transformed([row])[0].tolist(), strict=True))
    assert x["age"] == (age.fill - age.offset) / age.scale
    assert {v for name, v in x.items() if name.startswith(("city", "size"))} == {0.0}
    assert columns.unseen(columns.by_name([row])) == {"age": [None], "city": ["Lima"], "size": [None]}


def test_only_the_training_part_is_learned_from(written):
    """Other numbers and categories in the rows of the test part leave the training part as it was, to the bit."""
    table = frame(gaps=0.0).assign(row=lambda t: range(len(t)))
    whole = TableFile(written(table), "sold").load(torch.float64)
    place = next(c for c in whole.preprocessing.columns if c.name == "row")
    column = whole.preprocessing.features().index("row")
    rows = (whole.x_test[:, column] * place.scale + place.offset).round().long().tolist()
    changed = table.copy()
    changed.loc[rows, ["age", "city"]] = [1e6, "Lima"]
    other = TableFile(written(changed, "other.csv"), "sold").load(torch.float64)
    assert torch.equal(other.x_train, whole.x_train) and other.preprocessing == whole.preprocessing
    assert not torch.equal(other.x_test, whole.x_test)


def test_classes_keep_their_proportions_and_their_order(written):
    table = frame(100).assign(sold=[("10", "9", "b")[min(k % 10 // 4, 2)] for k in range(100)])
    split = TableFile(written(table), "sold", categories=("sold",)).load()
    assert split.label_names == ("9", "10", "b")
    assert split.y_train.bincount().tolist() == [32, 32, 16] and split.y_test.bincount().tolist() == [8, 8, 4]


def test_real_targets_are_answered_in_their_unit(written):
    table = frame(100).assign(price=lambda t: t.income.fillna(0) * 1000.0 + 5e6).drop(columns="sold")
    split = TableFile(written(table), "price").load(torch.float64)
    y = torch.cat((split.y_train, split.y_test)) * split.target_scale + split.target_offset
    expected = torch.tensor(sorted(table.price.tolist()), dtype=torch.float64)
    assert (y.flatten().sort()[0] - expected).abs().max() <= 4 * torch.finfo(torch.float64).eps * expected.max()
    assert split.classes == 0 and abs(float(split.y_train.mean())) < 1e-12


def test_columns_travel_in_the_model_file_under_its_hash(network, tmp_path):
    net, _ = network
    path = lv.save(net, tmp_path / "net.safetensors")
    again = lv.load(path)
    raw = frame(30, seed=5)
    assert again.facts == net.facts and again.facts.target == "sold"
    assert torch.equal(again.transform(raw), net.transform(raw)) and again.predict(raw) == net.predict(raw)
    content = path.read_bytes()
    assert b"Bonn" in content and b"mine.csv" not in content  # names no file
    path.write_bytes(content.replace(b"Bonn", b"Born"))
    with pytest.raises(lv.checkpoint.DamagedModelError, match="its hash does not match"):
        lv.load(path)


def test_facts_with_columns_are_json_and_back(network):
    facts = network[0].facts
    assert Facts.from_dict(json.loads(json.dumps(facts.as_dict()))) == facts
    damaged = facts.as_dict()
    damaged["preprocessing"]["columns"][0]["scale"] = 0.0
    with pytest.raises(ValueError, match="a scale of 0"):
        Facts.from_dict(damaged)
    escaping = facts.as_dict() | {"column_names": None}
    escaping["preprocessing"]["columns"][1]["values"][0] = "\x1b[2J"
    with pytest.raises(ValueError, match="must be text of printable characters"):
        Facts.from_dict(escaping)
    with pytest.raises(ValueError, match=r"columns that become \d+ features are for samples of that shape"):
        dataclasses.replace(facts, shape=(3,), column_names=None)


def test_a_plan_of_a_table_is_json_and_back(written):
    file = TableFile(written(frame()), "sold", ids=("age",), test_fraction=0.3, seed=2)
    plan = Plan.of(file)
    assert Plan.from_dict(json.loads(json.dumps(plan.as_dict()))) == plan
    assert plan.settings.label_smoothing == 0.05 and plan.settings.steps == 300
    assert plan.changed(epochs=3).settings.steps is None  # else they would not count
    assert plan.changed(data="iris").table is None and Plan.of("iris").changed(table=file).data is None
    with pytest.raises(ValueError, match="one source of data"):
        dataclasses.replace(plan, data="iris")
    with pytest.raises(ValueError, match="the preset 'hdnn' is not for a table of your own"):
        Plan.of(file, "hdnn")


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_files_of_another_spelling_are_the_same_data(written, separator, tmp_path):
    table = frame()
    expected = TableFile(written(table), "sold").load()
    files = [written(table, "other.csv", sep=separator, encoding="utf-16")]
    files.append(written(table, "quoted.csv", quoting=csv.QUOTE_ALL, lineterminator="\r\n", encoding="utf-8-sig"))
    for file in files:
        found = TableFile(file, "sold").load()
        assert torch.equal(found.x_train, expected.x_train) and torch.equal(found.y_test, expected.y_test)
        assert found.preprocessing == expected.preprocessing


def test_parquet_is_the_same_data(written, tmp_path):
    pytest.importorskip("pyarrow")
    table = frame()
    table.to_parquet(tmp_path / "mine.parquet")
    found, expected = TableFile(str(tmp_path / "mine.parquet"), "sold").load(), TableFile(written(table), "sold").load()
    assert found.facts().fingerprint == expected.facts().fingerprint


def test_rare_categories_are_zeros(written):
    """A column has at most 100 features; the rarest of its categories have none."""
    values = [f"c{k % 150}" for k in range(300)] + [f"c{k}" for k in range(100)] * 2
    table = pandas.DataFrame({"x": range(500), "code": values, "y": [k % 2 for k in range(500)]})
    split = TableFile(written(table), "y", test_fraction=0.1).load(torch.float64)
    code = next(c for c in split.preprocessing.columns if isinstance(c, columns_of.Category))
    assert len(code.values) == 100 and isinstance(split.preprocessing.columns[0], columns_of.Number)
    x = split.transformed([{"x": 0, "code": "c149"}, {"x": 0, "code": code.values[7]}])
    assert x[0, 1:].sum() == 0 and x[1, 1:].sum() == 1


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("others", [0, 3])
@pytest.mark.parametrize("notes", ["text {}", "{} times", "none, {} times", "of {}; late", "{},5"])
def test_what_divides_every_line_alike_separates_the_cells(separator, notes, others):
    """Blanks, commas or semicolons in the text of every row, which the header has not, do not."""
    from liouville.data.raw import read_raw

    letters = {name: list("abcdefgh") for name in "uvw"[:others]}
    table = pandas.DataFrame({"notes": [notes.format(k) for k in range(8)], **letters, "y": list("nm") * 4})
    for order in (list(table), list(table)[::-1]):
        raw = read_raw(table[order].to_csv(sep=separator, index=False).encode(), "rows.csv")
        assert list(raw.names) == order and raw.cells(["notes"])[0] == table.notes.tolist()
