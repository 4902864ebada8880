"""`liouville predict`: raw inputs go the way of the training data, and every broken input is named."""

import csv
import gzip
import io
import json
import shutil

import pytest
import torch

import liouville as lv
from liouville.runs import Run

numpy = pytest.importorskip("numpy")


def rows(text):
    return list(csv.reader(io.StringIO(text)))


def idx(images):
    sizes = b"".join(n.to_bytes(4, "big") for n in images.shape)
    return bytes((0, 0, 8, images.ndim)) + sizes + images.astype(numpy.uint8).tobytes()


@pytest.fixture(scope="module")
def tables(liouville, tmp_path_factory):
    """Tiny runs on tables: a classifier, one on images, a regressor."""
    pytest.importorskip("sklearn")
    root = tmp_path_factory.mktemp("tables")
    words = ("--layers", 2, "--epochs", 1, "--threads", 1, "--no-figures", "--no-report", "--quiet")
    for name, data in (
        ("wine", ("wine",)),
        ("digits", ("digits", "-d", "image=yes", "--features", 4)),
        ("diabetes", ("diabetes",)),
    ):
        assert liouville("train", "--data", *data, *words, "--out", root / name).code == 0
    return root


@pytest.fixture
def points(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("x,y\n0.1,0.2\n-0.5,1.0\n0.9,0\n")
    return path


def test_a_csv_gives_a_row_for_each_sample_with_label_names(liouville, trained, points):
    result = liouville("predict", trained[0], points, "--probabilities")
    header, *body = rows(result.out)
    assert (result.code, result.err) == (0, "")
    assert header == ["prediction", "p(outer spiral)", "p(inner spiral)"] and len(body) == 3
    network = Run.open(trained[0]).network()
    with torch.no_grad():
        p = network(torch.tensor([[0.1, 0.2], [-0.5, 1.0], [0.9, 0.0]])).sigmoid().squeeze(-1)
    for row, inner in zip(body, p.tolist(), strict=True):
        assert float(row[2]) == pytest.approx(inner, abs=1e-5) and float(row[1]) == pytest.approx(1 - inner, abs=1e-5)
        assert row[0] == ("inner spiral" if inner >= 0.5 else "outer spiral")
    assert rows(liouville("predict", trained[0], points).out) == [row[:1] for row in (header, *body)]


@pytest.mark.parametrize(
    "text",
    [
        "0.1,0.2\n-0.5,1.0\n0.9,0\n",
        "\ufeffa;b\n0.1;0.2\n\n-0.5;1.0\n0.9;0",
        "0.1 0.2\n-0.5  1.0\n0.9 0\n",
        "0.1, 0.2\r\n-0.5, 1.0\r\n0.9, 0\r\n",
    ],
    ids=["no header", "semicolons and a byte-order mark", "spaces", "windows"],
)
def test_a_table_may_be_written_in_several_ways(liouville, trained, points, tmp_path, text):
    (tmp_path / "other.csv").write_bytes(text.encode())
    expected = liouville("predict", trained[0], points).out
    assert liouville("predict", trained[0], tmp_path / "other.csv").out == expected


def test_npy_gzip_standard_input_and_an_output_file(liouville, trained, points, tmp_path, monkeypatch):
    expected = liouville("predict", trained[0], points).out
    numpy.save(tmp_path / "points.npy", numpy.array([[0.1, 0.2], [-0.5, 1.0], [0.9, 0.0]]))
    (tmp_path / "points.csv.gz").write_bytes(gzip.compress(points.read_bytes()))
    for name in ("points.npy", "points.csv.gz"):
        assert liouville("predict", trained[0], tmp_path / name).out == expected
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(points.read_bytes())))
    assert liouville("predict", trained[0], "-").out == expected
    result = liouville("predict", trained[0], points, "--out", tmp_path / "answer.csv")
    assert (result.code, result.out) == (0, "") and (tmp_path / "answer.csv").read_text() == expected


def test_raw_tables_are_standardised_as_in_training(liouville, tables, tmp_path):
    raw = lv.data.load("wine", standardise=False, dtype=torch.float64).x_test
    numpy.savetxt(tmp_path / "wine.csv", raw.numpy(), delimiter=",")
    split, network = lv.data.load("wine"), Run.open(tables / "wine").network()
    assert torch.allclose(split.transformed(raw), split.x_test, atol=1e-6)
    with torch.no_grad():
        labels = network(split.x_test).argmax(-1)
    result = rows(liouville("predict", tables / "wine", tmp_path / "wine.csv").out)
    assert [row[0] for row in result[1:]] == [split.label_names[k] for k in labels]


def test_grey_values_in_an_idx_file_are_scaled_as_in_training(liouville, tables, tmp_path):
    split = lv.data.load("digits", image=True)
    raw = (split.x_test * 16).round().numpy()
    (tmp_path / "images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(raw[:, 0])))
    numpy.save(tmp_path / "flat.npy", raw.reshape(len(raw), -1))
    with torch.no_grad():
        p = Run.open(tables / "digits").network()(split.x_test).softmax(-1)
    header, *body = rows(
        liouville("predict", tables / "digits", tmp_path / "images-idx3-ubyte.gz", "--probabilities").out
    )
    assert header == ["prediction", *(f"p({k})" for k in range(10))]
    assert torch.allclose(torch.tensor([[float(v) for v in row[1:]] for row in body]), p, atol=1e-5)
    assert [int(row[0]) for row in body] == p.argmax(-1).tolist()
    flat = rows(liouville("predict", tables / "digits", tmp_path / "flat.npy").out)
    assert [row[0] for row in flat[1:]] == [row[0] for row in body]


def test_regression_answers_in_the_units_of_the_targets(liouville, tables, tmp_path):
    split = lv.data.load("diabetes")
    raw = lv.data.load("diabetes", standardise=False, dtype=torch.float64)
    numpy.save(tmp_path / "x.npy", raw.x_test.numpy())
    with torch.no_grad():
        expected = (
            Run.open(tables / "diabetes").network()(split.x_test).double() * split.target_scale + split.target_offset
        )
    header, *body = rows(liouville("predict", tables / "diabetes", tmp_path / "x.npy").out)
    assert header == ["prediction"]
    assert torch.allclose(torch.tensor([[float(v)] for (v,) in body], dtype=torch.float64), expected, rtol=1e-4)
    assert 100 < expected.mean() < 200  # the mean target is 152
    result = liouville("predict", tables / "diabetes", tmp_path / "x.npy", "--probabilities")
    assert result.code == 2 and "is a regression; there are no probabilities." in result.err


def test_a_model_file_answers_as_its_run_does_and_without_facts_gives_raw_outputs(liouville, trained, points, tmp_path):
    model, alone = trained[0] / "model.safetensors", tmp_path / "alone.safetensors"
    shutil.copy(model, alone)
    answers = liouville("predict", trained[0], points, "--probabilities")
    for file in (model, alone):
        assert liouville("predict", file, points, "--probabilities") == answers
    network = lv.load(model)
    network.facts = None
    lv.save(network, alone)
    result = liouville("predict", alone, points)
    assert result.code == 0 and rows(result.out)[0] == ["output_0"] and "does not know its data" in result.err
    result = liouville("predict", alone, points, "--probabilities")
    assert result.code == 2 and "give a run" in result.err


BROKEN = {
    "nan": ("x,y\n1,2\n3,nan\n", "row 2 (line 3): column 2 is nan; remove or fill this row."),
    "infinite": ("1,2\n-inf,1\n", "row 2 (line 2): column 1 is -inf; remove or fill this row."),
    "wide": (
        "1,2,3\n",
        "row 1 (line 1): expected 2 values, got 3; a column that is no input is numbered with --id, and copied.",
    ),
    "ragged": ("1,2\n3\n", "row 2 (line 2): expected 2 values, got 1."),
    "word": ("1,2\n3,x\n", "row 2 (line 2): column 2 is not a number: 'x'."),
    "gap": ("1,2\n3,\n", "row 2 (line 2): column 2 is empty."),
    "half a header": ("1,y\n3,4\n", "row 1 (line 1): column 2 is not a number: 'y'."),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_row_is_named(liouville, trained, tmp_path, name):
    text, message = BROKEN[name]
    path = tmp_path / "points.csv"
    path.write_text(text)
    result = liouville("predict", trained[0], path)
    assert (result.code, result.out, result.err) == (2, "", f"liouville: error: {path}, {message}\n")


def npy(rows):
    file = io.BytesIO()
    numpy.save(file, numpy.array(rows))
    return file.getvalue()


FILES = {
    "empty": (b"", "{} is empty; expected one row for each sample."),
    "header": (b"x,y\n", "{} has a header and no rows; expected one row for each sample."),
    "binary": (b"\x89PNG\xff\x00", "{} is neither text nor .npy nor an IDX file of unsigned bytes."),
    "cut gzip": (gzip.compress(b"1,2\n" * 99)[:20], "{} is truncated or corrupted: its gzip data does not unpack"),
    "cut npy": (b"\x93NUMPY\x01", "{} is not an array of numbers that can be read"),
    "complex npy": (npy([[1j, 2.0]]), "{} is not an array of numbers that can be read (its numbers are complex)."),
    "labels": (
        b"\x00\x00\x08\x01\x00\x00\x00\x01\x05",
        "{} is an IDX file of 1 axis, labels perhaps;",
    ),
    "cut idx": (b"\x00\x00\x08\x03" + b"\x00\x00\x00\x02" * 3, "{} is damaged: 0 bytes of pixels, expected 8."),
    "images": (idx(numpy.zeros((2, 3, 3))), "{} has samples of shape (3, 3), expected (2)."),
}


@pytest.mark.parametrize("name", FILES)
def test_a_broken_file_is_named(liouville, trained, tmp_path, name):
    content, message = FILES[name]
    path = tmp_path / "input"
    path.write_bytes(content)
    result = liouville("predict", trained[0], path)
    assert result.code == 2 and result.out == "" and result.err.count("\n") == 1
    assert result.err.startswith("liouville: error: " + message.format(path))


def test_a_broken_array_names_its_shape_or_row(liouville, trained, tmp_path):
    path = tmp_path / "x.npy"
    for array, message in (
        (numpy.zeros((4, 3)), "has samples of shape (3), expected (2)."),
        (numpy.zeros((0, 2)), "is empty; expected one row for each sample."),
        (
            numpy.array([[0, 1], [numpy.nan, 1], [numpy.inf, 0]]),
            "has NaN or infinite values in 2 of 3 rows, the first is row 2 (counted from 1); remove or fill these",
        ),
        (numpy.array(["a", "b"]), "is not an array of numbers that can be read"),
    ):
        numpy.save(path, array)
        result = liouville("predict", trained[0], path)
        assert result.code == 2 and result.err.startswith(f"liouville: error: {path} {message}")


def test_what_is_not_a_run_is_refused_by_name(liouville, trained, points, tmp_path):
    def error(run):
        result = liouville("predict", run, points)
        assert result.code == 2 and result.out == "" and result.err.count("\n") == 1
        return result.err.removeprefix("liouville: error: ").strip()

    assert error(tmp_path / "no") == f"there is no run folder or model file {tmp_path / 'no'}."
    assert error(tmp_path).startswith(f"{tmp_path} is not a run: it has no config.json;")
    (tmp_path / "foreign").write_text("hello")
    assert error(tmp_path / "foreign").startswith(f"{tmp_path / 'foreign'} is not a readable model file")
    run = tmp_path / "copy"
    shutil.copytree(trained[0], run)
    (run / "model.safetensors").write_bytes((run / "model.safetensors").read_bytes()[:-1])
    assert f"{run / 'model.safetensors'} is not a readable model file" in error(run)
    (run / "model.safetensors").unlink()
    assert error(run) == (
        f"{run} has no model.safetensors: its training did not come to an end; "
        f"`liouville train --resume {run}` goes on with it."
    )


def test_a_model_of_another_shape_in_the_run_is_noticed(liouville, trained, points, tmp_path):
    run = tmp_path / "copy"
    shutil.copytree(trained[0], run)
    lv.save(lv.classifier("h2", inputs=3, classes=2, features=4, layers=2, T=1.0), run / "model.safetensors")
    assert "expected 3 inputs on axis -1, got 2" in liouville("predict", run, points).err
    lv.save(lv.classifier("h2", inputs=2, classes=3, features=4, layers=2, T=1.0), run / "model.safetensors")
    result = liouville("predict", run, points)
    assert result.code == 2 and f"{run} does not fit together: 2 classes, but a network of 3 output(s)." in result.err


def test_an_output_that_cannot_be_written_is_one_sentence(liouville, trained, points, tmp_path):
    (tmp_path / "file").write_text("")
    result = liouville("predict", trained[0], points, "--out", tmp_path / "file" / "x.csv")
    assert (result.code, result.err) == (2, f"liouville: error: cannot write {tmp_path}/file/x.csv: Not a directory.\n")
    result = liouville("predict", trained[0], points, "--out", tmp_path)
    assert (result.code, result.err) == (2, f"liouville: error: cannot write {tmp_path}: it is a folder.\n")
    for name in ("x.parquet", "x.CSV.GZ"):
        result = liouville("predict", trained[0], points, "--out", tmp_path / name)
        assert result.code == 2 and "--out writes CSV" in result.err and not (tmp_path / name).exists()


def test_the_transform_of_an_earlier_run_is_read_from_config_json(liouville, trained, points, tmp_path, before):
    run = before(shutil.copytree(trained[0], tmp_path / "copy"))
    config = json.loads((run / "config.json").read_text())
    config["data"] |= {"offset": [10.0, 0.0], "scale": [2.0, 1.0]}
    (run / "config.json").write_text(json.dumps(config))
    (tmp_path / "moved.csv").write_text("10.2,0.2\n9,1.0\n11.8,0\n")
    moved = liouville("predict", run, tmp_path / "moved.csv", "--probabilities").out
    assert moved == liouville("predict", trained[0], points, "--probabilities").out
