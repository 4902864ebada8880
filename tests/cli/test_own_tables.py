"""`liouville train --data FILE --target COLUMN`, and what follows it; a wrong table is refused in one sentence."""

import io
import itertools
import json

import pytest

from liouville.runs import Run

pandas = pytest.importorskip("pandas")
pytest.importorskip("sklearn")

ROWS = [(k, f"{k % 7}.5", "abc"[k % 3], "yes" if k % 7 + k % 3 > 4 else "no") for k in range(60)]
TINY = ("--features", 4, "--layers", 2, "--epochs", 2, "--threads", 1, "--no-figures", "--no-report", "--quiet")


def table(rows=ROWS, header="id,x,c,y", separator=","):
    lines = [header.replace(",", separator), *(separator.join(map(str, row)) for row in rows)]
    return "\n".join(lines) + "\n"


def with_column(values):
    return table([(*row[:-1], value, row[-1]) for row, value in zip(ROWS, itertools.cycle(values))], "id,x,c,z,y")


@pytest.fixture
def fit(liouville, tmp_path, monkeypatch):
    """Train on a table, in a folder of the test; the run is in ``run``."""
    monkeypatch.chdir(tmp_path)

    def call(content, *words, name="mine.csv", target="y"):
        if content is not None:
            (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        target = () if target is None else ("--target", target)
        return liouville("train", "--data", name, *target, *TINY, "--out", "run", *words)

    return call


@pytest.fixture
def run(fit, tmp_path):
    assert fit(table(), "--id", "id").code == 0
    return Run.open("run")


FAULTS = {
    "empty": ("", "mine.csv is empty; expected a table with a row for each sample."),
    "a header only": ("x,y\n", "mine.csv has a header and no rows; expected one row for each sample."),
    "one row": (table(ROWS[:1]), "mine.csv has 1 row; training, validation and test part need at least 10."),
    "no other column": ("y\n" + "a\nb\n" * 9, "mine.csv has no column besides y; there is nothing to learn from."),
    "two columns of one name": (table(header="id,x,x,y"), "mine.csv: the header names 'x' twice"),
    "ragged": (table() + "1,2\n", "mine.csv, row 61 (line 62): expected 4 values, got 2."),
    "wrong target": (table(header="id,x,c,why"), "mine.csv has no column 'y' for --target; did you mean 'why'?"),
    "constant target": (table([(*r[:3], 3) for r in ROWS]), "mine.csv: the target 'y' has one value only, 3;"),
    "one class": (table([(*r[:3], "a") for r in ROWS]), "mine.csv: the target 'y' has one class only, 'a';"),
    "a class of one row": (
        table([(*r[:3], "rare" if r[0] == 3 else r[3]) for r in ROWS]),
        "mine.csv: the target 'y' has the class rare in one row only",
    ),
    "no target": (
        table([(*r[:3], "" if r[0] == 4 else r[3]) for r in ROWS]),
        "mine.csv: the target 'y' is missing in 1 of 60 rows, the first is row 5 (line 6);",
    ),
    "a name as target": (
        table([(*r[:3], f"n{r[0]}") for r in ROWS]),
        "mine.csv: the target 'y' has 60 different texts in 60 rows, too many for classes;",
    ),
    "mixed target": (
        table([(*r[:3], r[0] if r[0] % 9 else "x") for r in ROWS]),
        "mine.csv: column 'y' mixes 53 numbers with text ('x' in row 1 (line 2)); correct it, or name another target.",
    ),
    "mixed": (
        with_column(["abc", *range(9)]),
        "mine.csv: column 'z' mixes 54 numbers with text ('abc' in row 1 (line 2)); correct the text, leave the column "
        "out with --id COLUMN, or take it as categories with --category COLUMN.",
    ),
    "dates": (
        with_column(["2020-01-31", "2020-02-01"]),
        "mine.csv: column 'z' has dates or times ('2020-01-31'",
    ),
    "dates, read by people": (
        with_column(["31.1.2020"]),
        "mine.csv: column 'z' has dates or times ('31.1.2020'",
    ),
    "decimal commas": (
        table([(r[0], r[1].replace(".", ","), *r[2:]) for r in ROWS], separator=";"),
        "mine.csv: column 'x' has numbers with a comma in it ('0,5' in row 1 (line 2)); write numbers like -1234.5.",
    ),
    "per cent": (with_column(["5 %", "6 %"]), "mine.csv: column 'z' has numbers with a per cent sign ('5 %' in row 1"),
    "names": (
        with_column([f"n{k}" for k in range(60)]),
        "mine.csv: column 'z' has 60 different texts in 60 rows; leave it out with --id COLUMN, or say --category",
    ),
    "infinite": (with_column([1, "inf"]), "mine.csv: column 'z' has 'inf' in row 2 (line 3), infinite or too large;"),
    "400 digits": (with_column([1, "9" * 400]), "mine.csv: column 'z' has '99999999"),
    "1e300": (
        with_column(["1e300", "-1e300"]),
        "mine.csv: column 'z' has numbers up to 1e+300, whose spread is",
    ),
    "unprintable": (
        with_column(["a", "b\u200b"]),
        "mine.csv: column 'z' has text that cannot be printed ('b",
    ),
    "encoding": (table().encode().replace(b"abc"[:1], b"\x81", 3), "mine.csv is neither UTF-8 nor Windows-1252;"),
    "NUL": (table().replace("a", "\0", 1), "mine.csv, line 2: there is a NUL character;"),
    "JSON": ('[{"y": 1}]', "mine.csv is JSON; expected a table of text (CSV) or a Parquet file."),
    "Excel": (b"PK\x03\x04xl/workbook", "mine.csv is an Excel workbook (.xlsx); expected a table of text (CSV) or"),
    "no header": (table().split("\n", 1)[1], "mine.csv has no header, and no column 'y' for --target; its columns are"),
    "nothing varies": (table([(1, 2, "a", r[3]) for r in ROWS]), "mine.csv: no column besides the target has two"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_table_that_cannot_be_learned_from_is_one_sentence(fit, tmp_path, fault):
    content, sentence = FAULTS[fault]
    result = fit(content)
    assert result.code == 2 and result.out == "" and result.err.startswith(f"liouville: error: {sentence}"), result.err
    assert result.err.count("\n") == 1 and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--data", "missing.csv", "--target", "y"), "there is no file missing.csv."),
        (("--data", "mien", "--target", "y"), "unknown data set 'mien'; known data sets:"),
        (
            ("--data", "mine.csv"),
            "say which column of mine.csv to predict: --target COLUMN; its columns",
        ),
        (
            ("--data", "mine.csv", "--target", "y", "--id", "idd"),
            "mine.csv has no column 'idd' for --id; did you mean",
        ),
        (
            ("--data", "mine.csv", "--target", "y", "--id", "y"),
            "'y' is the target, and --id leaves it out; name",
        ),
        (("--data", "mine.csv", "--target", "y", "-d", "noise=1"), "a table has no data option 'noise'; -d takes"),
        (
            ("--data", "mine.csv", "--target", "y", "-d", "test_fraction=0.99"),
            "test_fraction 0.99 of the 60 rows",
        ),
        (
            ("--data", "mine.csv", "--target", "y", "--preset", "hdnn"),
            "the preset 'hdnn' is not for a table of your",
        ),
        (
            ("--data", "iris", "--target", "0.9"),
            "--target is for a table of your own, --data FILE.csv --target COLUMN;",
        ),
        (
            ("--data", "iris", "--category", "x"),
            "--category is for a table of your own, --data FILE.csv --target",
        ),
        (("--data", "iris", "--target", ""), "--target is for a table of your own"),
        (("--data", ".", "--target", "y"), "unknown data set '.'"),
        (("--data", "./", "--target", "y"), ". is a folder; expected a table of text (CSV) or a Parquet file."),
    ],
)
def test_words_of_the_command_that_do_not_fit(liouville, tmp_path, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.csv").write_text(table())
    result = liouville("train", *words, *TINY)
    assert result.code == 2 and result.err.startswith(f"liouville: error: {sentence}"), result.err
    assert result.err.count("\n") == 1


def test_an_unknown_data_set_says_how_to_bring_ones_own(liouville):
    assert liouville("train", "--data", "unknown").err.endswith(
        "A table of your own is --data FILE.csv --target COLUMN.\n"
    )


def test_without_pyarrow_a_parquet_file_is_one_sentence(fit, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    assert fit(b"PAR1", name="mine.parquet").err.endswith(
        "mine.parquet is a Parquet file, which needs pyarrow: pip install 'liouville[parquet]'.\n"
    )


def test_predict_reads_raw_rows_and_says_which_columns(run, liouville, tmp_path):
    expected = [row["prediction"] for row in answers(liouville("predict", "run", "mine.csv"))]
    assert expected == run.network().predict(pandas.read_csv("mine.csv"))
    (tmp_path / "new.csv").write_text(table([(r[3], r[2], "", r[0], r[1]) for r in ROWS], "y,C,more,id,x"))
    result = liouville("predict", "run", "new.csv", "--id", "id", "--id", "x")
    found = answers(result)
    assert [row["prediction"] for row in found] == expected and [row["x"] for row in found] == [r[1] for r in ROWS]
    assert result.err == "liouville: note: new.csv: used 2 columns x, c; left aside y (the target), more.\n"
    assert "left aside id" in liouville("predict", "run/model.safetensors", "mine.csv").err  # the file knows as much


def test_predict_notes_what_training_did_not_have(run, liouville, tmp_path):
    (tmp_path / "new.csv").write_text("x,c\n1,a\n2,new\n3,\n,new\n")
    result = liouville("predict", "run", "new.csv", "--probabilities")
    assert result.code == 0 and len(answers(result)) == 4
    assert "column 'x' has values that the network does not know: missing in 1 row." in result.err
    assert "column 'c' has values that the network does not know: 'new' in 2 rows, missing in 1 row." in result.err


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("x,d\n1,a\n", "new.csv lacks c; its columns are x, d, and the network reads x, c."),
        ("x,c\nlots,a\n", "new.csv, row 1 (line 2): column 'x' has numbers, got 'lots'; correct or empty it."),
        ('x,c\n"0,5",a\n', "new.csv, row 1 (line 2): column 'x' has numbers, got '0,5' (a comma in it; write it like"),
        ("x,c\ninf,a\n", "new.csv, row 1 (line 2): column 'x' has numbers, got 'inf'; correct or empty it."),
        ("1,a,2\n", "new.csv has no header and 3 columns; the network reads 2: give a header with their names, x, c,"),
    ],
)
def test_rows_that_cannot_be_predicted_are_one_sentence(run, liouville, tmp_path, content, sentence):
    (tmp_path / "new.csv").write_text(content)
    result = liouville("predict", "run", "new.csv")
    assert result.code == 2 and result.err.startswith(f"liouville: error: {sentence}") and not result.out, result.err


def test_rows_without_a_header_have_the_columns_in_order(run, liouville, tmp_path):
    rows = [f"{r[1]},{r[2]}" for r in ROWS]
    (tmp_path / "new.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "named.csv").write_text("\n".join(["x,c", *rows]) + "\n")
    assert liouville("predict", "run", "new.csv").out == liouville("predict", "run", "named.csv").out


def test_whole_numbers_are_a_quantity_unless_they_are_called_categories(fit, liouville):
    content = table([(*r[:3], r[0] % 2) for r in ROWS])
    assert fit(content, "--id", "id").code == 0 and Run.open("run").facts.classes == 0
    result = fit(content, "--id", "id", "--category", "y", "--force")
    assert result.code == 0 and Run.open("run").facts.label_names == ("0", "1")
    assert {row["prediction"] for row in answers(liouville("predict", "run", "mine.csv"))} <= {"0", "1"}


def test_notes_on_what_may_be_meant_otherwise(liouville, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.csv").write_text(table([(*r[:2], "", r[0] % 2) for r in ROWS]))
    told = liouville("train", "--data", "mine.csv", "--target", "y", *TINY[:-1]).err
    assert "the target 'y' has 2 different whole numbers, and is taken as a quantity (regression); --category y" in told
    assert "column 'id' counts the rows, and is an input; --id id leaves it out." in told
    assert "left out, as nothing varies in it in the training part: c." in told


def test_check_and_like_work_on_a_run_of_a_table(run, liouville, tmp_path):
    assert liouville("check", "run").code == 0
    over = liouville("check", "run", "--data", "mine.csv")
    assert over.code == 0 and "48 training samples of mine" in over.out
    (tmp_path / "other.csv").write_text(table([(r[0], r[1], r[2], "no" if r[0] == 11 else r[3]) for r in ROWS]))
    assert "other.csv is not the table that run was trained on: its fingerprint differs." in (
        liouville("check", "run", "--data", "other.csv").err
    )
    assert liouville("train", "--like", "run", "--out", "again", "--quiet", "--no-figures", "--no-report").code == 0
    assert Run.open("again").facts == run.facts and Run.open("again").plan == run.plan
    assert (
        liouville(
            "train", "--like", "run", "--data", "other.csv", "--out", "more", "--quiet", "--no-figures", "--no-report"
        ).code
        == 0
    )
    assert Run.open("more").plan.table.target == "y"


def test_a_run_does_not_have_its_table_read_because_its_folder_names_one(run, liouville, tmp_path):
    """Only what is trained reads it: check, predict and sensitivities do not."""
    (tmp_path / "mine.csv").rename(tmp_path / "moved.csv")
    assert liouville("check", "run").code == 0
    assert liouville("predict", "run", "moved.csv").code == 0
    assert str(tmp_path) not in (tmp_path / "run" / "model.safetensors").read_bytes().decode("latin-1")


def test_resume_names_a_table_that_is_moved_or_changed(run, liouville, tmp_path):
    """A run that never ended: its metrics and its model are not there yet."""
    config = tmp_path / "run" / "config.json"
    expected = json.loads((tmp_path / "run" / "metrics.json").read_text())
    (tmp_path / "run" / "metrics.json").unlink()
    (tmp_path / "mine.csv").rename(tmp_path / "moved.csv")
    result = liouville("train", "--resume", "run", "--no-figures", "--no-report", "--quiet")
    missing = f"the table of run, {tmp_path / 'mine.csv'}, is not there any more; move it"
    assert result.code == 2 and missing in result.err
    (tmp_path / "changed.csv").write_text(table([(r[0], r[1], r[2], "no" if r[0] == 11 else r[3]) for r in ROWS]))
    result = liouville("train", "--resume", "run", "--data", "changed.csv", "--no-figures", "--no-report", "--quiet")
    assert result.code == 2 and "is not the table that its training began with, as its fingerprint" in result.err
    before = config.read_bytes()
    assert (
        liouville("train", "--resume", "run", "--data", "moved.csv", "--no-figures", "--no-report", "--quiet").code == 0
    )
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert config.read_bytes() == before and Run.open("run").network().facts == Run.open("run").facts
    assert {k: v for k, v in found.items() if "loss" in k} == {k: v for k, v in expected.items() if "loss" in k}


def answers(result):
    assert result.code == 0, result.err
    return pandas.read_csv(io.StringIO(result.out), dtype=str, keep_default_na=False).to_dict("records")


def test_several_targets_are_refused_and_do_not_become_inputs(fit):
    result = fit(table(), "--target", "x")
    assert result.code == 2 and "--target names 2 columns (y, x), and train predicts one" in result.err
