"""`liouville predict` on tables: one answer for every row, or a sentence that names the row, the line or the column."""

import csv
import gzip
import io
import shutil
import sys
import zipfile

import pytest
import torch

import liouville as lv
from liouville.runs import Run

pytest.importorskip("pandas")
numpy = pytest.importorskip("numpy")

VALUES = [[0.1, 0.2], [-0.5, 1.0], [0.9, 0.0]]
BODY = "0.1,0.2\n-0.5,1.0\n0.9,0\n"


@pytest.fixture(scope="module")
def iris(liouville, tmp_path_factory):
    pytest.importorskip("sklearn")
    folder = tmp_path_factory.mktemp("runs") / "iris"
    words = ("--layers", 2, "--epochs", 1, "--threads", 1, "--no-figures", "--no-report", "--quiet")
    assert liouville("train", "--data", "iris", *words, "--out", folder).code == 0
    return folder


@pytest.fixture
def predict(liouville, trained, tmp_path):
    """Predict a table with the run on the Swiss roll, or another."""

    def call(content, *words, run=trained[0]):
        path = tmp_path / "in.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return liouville("predict", run, path, *words)

    return call


def refused(result):
    """The one sentence."""
    assert (result.code, result.out) == (2, "") and result.err.count("\n") == 1
    assert result.err.startswith("liouville: error: ")
    return result.err


SOUND = {
    "header": "x,y\n" + BODY,
    "semicolons": BODY.replace(",", ";"),
    "tabs": "x\ty\n" + BODY.replace(",", "\t"),
    "vertical bars": BODY.replace(",", "|"),
    "blanks": "x   y\n" + BODY.replace(",", "   "),
    "commas within quoted names of a ;-table": '"a, cm";"b, cm"\n' + BODY.replace(",", ";"),
    "commas within names of a ;-table": "a, cm;b, cm\n" + BODY.replace(",", ";"),
    "the separator is said": "sep=;\nx;y\n" + BODY.replace(",", ";"),
    "CR": ("x,y\n" + BODY).replace("\n", "\r"),
    "CR and LF mixed": "x,y\r0.1,0.2\n-0.5,1.0\r\n0.9,0",
    "mark": "\ufeffx,y\n" + BODY,
    "UTF-16": ("x\ty\n" + BODY.replace(",", "\t")).encode("utf-16"),
    "UTF-16 BE without a mark": ("x,y\n" + BODY).encode("utf-16-be"),
    "UTF-32": ("x,y\n" + BODY).encode("utf-32"),
    "quotes": '"x","y"\n"0.1","0.2"\n"-0.5", "1.0"\n"0.9" ,"0"',
    "a line end within a name": '"x\n(m)",y\n' + BODY,
    "blanks around": " x , y \n 0.1 ,\t0.2 \n-0.5 ,1.0\n0.9,0  ",
    "lines at the end": BODY + "\n \n\n",
    "lines at the start": "\n\nx,y\n" + BODY,
    "Ctrl-Z at the end": BODY + "\x1a",
    "separators after all lines": "x,y,\n0.1,0.2,\n-0.5,1.0,\n0.9,0,\n",
    "separators and blanks after all lines": "0.1, 0.2, \n-0.5, 1.0, \n0.9, 0, \n",
    "savetxt": "# x,y\n" + BODY,
    "gzip in two members": gzip.compress(b"0.1,0.2\n-0.5,1.0\n") + gzip.compress(b"0.9,0\n"),
    "gzip padded with zeros": gzip.compress(BODY.encode()) + bytes(512),
    "exponents": "1e-1,+2E-01\n-.5,1.\n9.0e-1,0e0\n",
}


@pytest.mark.parametrize("name", SOUND)
def test_a_table_in_any_dialect_has_the_same_answers(predict, trained, name):
    result = predict(SOUND[name], "--probabilities")
    assert (result.code, result.err) == (0, "")
    with torch.no_grad():
        inner = Run.open(trained[0]).network()(torch.tensor(VALUES)).sigmoid().squeeze(-1)
    answers = [float(row["p(inner spiral)"]) for row in csv.DictReader(io.StringIO(result.out))]
    assert torch.allclose(torch.tensor(answers), inner, atol=1e-5)


NOTED = {
    "0, 1 as pandas names columns": ("0,1\n" + BODY, "row 1 (line 1): 0, 1 is taken for a header"),
    "blank lines": ("0.1,0.2\n\n-0.5,1.0\n\n0.9,0\n", "has blank lines, which are no rows: lines 2, 4."),
    "the index of pandas": (",x,y\n0,0.1,0.2\n1,-0.5,1.0\n2,0.9,0\n", "the first column has no name, and is left out"),
    "its index without names": (",0,1\n0,0.1,0.2\n1,-0.5,1.0\n2,0.9,0\n", "the first column has no name"),
    "the names of rows of R": ('"x" "y"\n"1" 0.1 0.2\n"2" -0.5 1.0\n"3" 0.9 0\n', "the first column has no name"),
    "Windows-1252": ("größe,höhe\n".encode("cp1252") + BODY.encode(), "is not UTF-8 (line 1)"),
}


@pytest.mark.parametrize("name", NOTED)
def test_what_is_guessed_is_said_on_standard_error(predict, name):
    content, note = NOTED[name]
    result = predict(content, "--probabilities")
    assert result.code == 0 and result.out == predict(BODY, "--probabilities").out
    assert result.err.startswith("liouville: note: ") and note in result.err and result.err.count("\n") == 1


def workbook():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("xl/workbook.xml", "")
    return file.getvalue()


ROW = "in.csv, row {} (line {}): "
SPELLED = "0,1 \u22121 \u0661 1e 0x1F $5 5€ 1'000 (5) 5- O.5 12:30 \uff11 1.000,5 ½ #1"
NO_HEADER = ROW.format(1, 1) + "{!r} is neither a number nor clearly the name of a column"
BROKEN = {
    "a row of separators": ("x,y\n0.1,0.2\n,\n0.9,0\n", ROW.format(2, 3) + "column 1 is empty."),
    "a row of separators at the end": ("x,y\n0.1,0.2\n,\n", ROW.format(2, 3) + "column 1 is empty."),
    "a row of quotes": ('x;y\n0.1;0.2\n"";""\n', ROW.format(2, 3) + "column 1 is empty."),
    "a row of tabs": ("x\ty\n0.1\t0.2\n\t\n", ROW.format(2, 3) + "column 1 is empty."),
    "a row of tabs and blanks": ("0.1\t 0.2\n\t \n", ROW.format(2, 2) + "column 1 is empty."),
    "a row of blanks": ("0.1 0.2\n   \n0.9 0\n", "in.csv, line 2: the line is blank"),
    "tabs only": ("\t\n", ROW.format(1, 1) + "all cells are empty"),
    "separators only": (",\n,\n", ROW.format(1, 1) + "all cells are empty"),
    **{
        f"a first row of {word}": (f"{word},{word}\n{BODY}", NO_HEADER.format(word))
        for word in ("NA", "NaN", "nan", "null", "None", "#N/A", "N/A", "-", "?", "inf", "missing", "true", "<NA>")
    },
    **{
        f"a first row of {a}": (f"{a},{b}\n{BODY}", NO_HEADER.format(a))
        for a, b in (("k. A.", "n.v."), ("#WERT!", "#BEZUG!"), ("nan(ind)", "x"), ("WAHR", "FALSCH"), ("Feb-01", "x"))
    },
    **{
        f"a first row of {cell}": (f"{cell};{cell}\n" + BODY.replace(",", ";"), NO_HEADER.format(cell))
        for cell in (*SPELLED.split(), "5 %", "5 kg")
    },
    "an underscore": ("x,y\n1_0,2\n", ROW.format(1, 2) + "column 1 is not a number: '1_0' (an underscore"),
    "Indian thousands": (
        "x;y\n1,00,000;2\n",
        ROW.format(1, 2) + "column 1 is not a number: '1,00,000' (commas between",
    ),
    "a no-break space in a cell": (
        "x;y\n0.1\u00a0;0.2\n",
        ROW.format(1, 2) + "column 1 is not a number: '0.1' (a no-break space or another invisible character",
    ),
    "decimal commas": ("x;y\n0,1;0,2\n", ROW.format(1, 2) + "column 1 is not a number: '0,1' (a comma in it"),
    "decimal commas between commas": ("0,1,0,2\n", ROW.format(1, 1) + "expected 2 values, got 4; decimal commas must"),
    "a word for missing": ("x,y\n0.1,N/A\n", ROW.format(1, 2) + "column 2 is missing ('N/A'); remove or fill"),
    "too large": ("x,y\n0.1,1e999\n", ROW.format(1, 2) + "column 2 is '1e999', too large for a number"),
    "after a cell of two lines": ('"x\nm",y\n0.1,0.2\nz,1\n', ROW.format(2, 4) + "column 1 is not a number: 'z'"),
    "after blank lines": ("x,y\n\n0.1,0.2\n\nz,1\n", ROW.format(2, 5) + "column 1 is not a number: 'z'"),
    "an open quote": ('x,y\n"0.1,0.2\n0.3,0.4\n', "in.csv, line 2: a quote is opened and never closed."),
    "an open quote, long": (
        'x,y\n"0.1,0.2\n' + "1,2\n" * 50_000,
        "in.csv, line 2: a quote is opened and never closed.",
    ),
    "a quote within a cell": ('x,y\n0.1,5"\n', "in.csv, line 2: a quote stands within a cell"),
    "a long cell": ("1,2\n" + "x" * 140_000 + ",3\n", ROW.format(2, 2) + "column 1 is not a number: 'xxx"),
    "a NUL": ("x,y\n0.1,\0 0.2\n", "in.csv, line 2: there is a NUL character"),
    "an escape": ("x,y\n\x1b[2J,0.2\n", "in.csv, line 2: there is the control character U+001B"),
    "half of UTF-16": (b"\xff\xfex\0,\0y", "in.csv begins like UTF-16, but its byte 7 does not fit"),
    "a mark only": ("\ufeff", "in.csv is empty; expected one row for each sample."),
    "a no-break space": ("\u00a0\n", "in.csv is empty; expected one row for each sample."),
    "names twice": ("x,x\n" + BODY, "in.csv: the header (x, x) names 'x' twice"),
    "names in another order": ("y,x\n" + BODY, "in.csv has its columns in the order y, x;"),
    "axes within names in another order": ("pos_y (m),pos_x (m)\n" + BODY, "in.csv has its columns in the order pos_y"),
    "a name that is no input's": ("id,x\n7,0.1\n", "in.csv: column 1 of the header (id, x) is no input by its name"),
    "an index in place of an input": (
        ",x\n7,0.1\n",
        "in.csv: expected 2 columns besides the first, which has no name, got 1",
    ),
    "a separator that no line has": (
        "sep=,\nx;y\n0.1;0.2\n",
        "in.csv: the first line says that ',' separates the cells",
    ),
    "numbered names in another order": ("x10,x9\n" + BODY, "in.csv has its columns in the order x10, x9;"),
    "a name too few": ("x\n" + BODY, "in.csv: the header (line 1) names 1 of 2 columns (x)"),
    "a line of words above": (
        "made by me\nx,y\n" + BODY,
        "in.csv: the header (line 1) names 1 of 2 columns (made by me)",
    ),
    "a header again": ("x,y\n0.1,0.2\nx,y\n", ROW.format(2, 3) + "column 1 is not a number: 'x'."),
    "rows or numbers of columns": ("0,1\n1,0\n", ROW.format(1, 1) + "0, 1 may be a row, or the numbers of columns"),
    "rows or numbers of columns from 1": ("1,2\n" + BODY, ROW.format(1, 1) + "1, 2 may be a row, or the numbers"),
    "rows or years": ("2019,2020\n" + BODY, ROW.format(1, 1) + "2019, 2020 may be a row, or years"),
    "a column too many": (
        "id,x,y\n7,0.1,0.2\n",
        "in.csv: expected 2 columns, got 3 (id, x, y); a column that is no input",
    ),
    "an index without a header": ("0,0.1,0.2\n", ROW.format(1, 1) + "expected 2 values, got 3; a column that is no"),
    "separators after some lines": ("x,y\n0.1,0.2,\n", "in.csv: the header (line 1) names 2 of 3 columns"),
    "cut gzip": (gzip.compress(BODY.encode() * 50)[:-6], "in.csv is truncated or corrupted: its gzip data"),
    "gzip and more": (gzip.compress(BODY.encode()) + b"more", "in.csv is truncated or corrupted: its gzip data"),
    "gzip twice": (gzip.compress(gzip.compress(BODY.encode())), "in.csv is a gzip file within a gzip file"),
    "a workbook": (workbook(), "in.csv is an Excel workbook (.xlsx); expected a table of text"),
    "Parquet": (b"PAR1\0\0", "in.csv is a Parquet file; expected a table of text"),
    "HTML": ("\n<!DOCTYPE html>\n<html>", "in.csv is a page of HTML"),
    "JSON": ('{"x": 1}\n{"x": 2}\n', "in.csv is JSON"),
    "deep JSON": ("[" * 100_000, "in.csv is JSON"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_read_is_refused_where_it_is(predict, name):
    content, message = BROKEN[name]
    assert message in refused(predict(content))


def test_a_table_of_one_column_has_no_blank_lines(predict, tmp_path):
    network = lv.classifier("h2", inputs=1, classes=2, features=2, layers=2, T=1.0)
    lv.save(network, tmp_path / "one.safetensors")
    for text, rows in (("0.1\n0.2\n", 2), ("x\n0.1\n0.2\n\n", 2), ("a b, c\n0.1\n0.2\n", 2), ('"0.1"\r0.2', 2)):
        assert predict(text, run=tmp_path / "one.safetensors").out.count("\n") == rows + 1
    for text, message in (
        ("0.1\n\n0.2\n", "line 2: the line is blank, which may be a missing value"),
        ("\n0.1\n", "line 1: the line is blank"),
        ("0\n1\n", "row 1 (line 1): 0 may be a row, or the numbers of columns"),
        ('x\n""\n', "row 1 (line 2): column 1 is empty."),
        ("0,5\n1,5\n", "expected 1 values, got 2; decimal commas must be points"),
    ):
        result = predict(text, run=tmp_path / "one.safetensors")
        assert result.code == 2 and message in result.err


def test_the_header_can_be_said(predict):
    assert predict("0,1\n" + BODY, "--header", "no").out.count("\n") == 5
    assert predict("0,1\n1,0\n", "--header", "yes").out.count("\n") == 2
    assert predict("1,2\n3,4\n").out.count("\n") == 3
    assert predict("NA,K\n" + BODY, "--header", "yes").out.count("\n") == 4
    assert "column 1 is not a number: 'x'." in refused(predict("x,y\n" + BODY, "--header", "no"))


NAMES = ["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"]


def flowers(names, *rows):
    return "\n".join([",".join(names), *(rows or ("5.1,3.5,1.4,0.2", "6.0,3.0,4.0,1.0"))]) + "\n"


def test_names_that_the_run_knows_are_compared(predict, iris):
    assert Run.open(iris).config["data"]["column_names"] == NAMES
    answer = predict("5.1,3.5,1.4,0.2\n6.0,3.0,4.0,1.0\n", run=iris).out
    assert predict(flowers(NAMES), run=iris).out == answer
    assert predict(flowers("1234"), "--header", "yes", run=iris).out == answer
    assert "1, 2, 3, 4 may be a row" in refused(predict(flowers("1234"), run=iris))
    assert predict(flowers(["", "1", "2", "3", "4"], "a,5.1,3.5,1.4,0.2", "b,6,3,4,1"), run=iris).out == answer
    assert predict(flowers([name.upper().replace(" ", "_") for name in NAMES]), run=iris).out == answer
    message = refused(predict(flowers([NAMES[1], NAMES[0], *NAMES[2:]]), run=iris))
    assert "another order: sepal width (cm), sepal length (cm)," in message and "are sepal length (cm), sep" in message
    assert f"lacks {NAMES[3]} and has foo besides" in refused(predict(flowers([*NAMES[:3], "foo"]), run=iris))
    assert f"lacks {', '.join(NAMES)}" in refused(predict(flowers("abcd"), run=iris))
    assert f"lacks {NAMES[3]};" in refused(predict(flowers(NAMES[:3], "1,2,3"), run=iris))
    more = flowers([*NAMES, "species"], "5.1,3.5,1.4,0.2,setosa")
    assert "has species besides" in (message := refused(predict(more, run=iris))) and "--id" in message
    assert predict(more, "--id", "species", run=iris).out.splitlines()[0] == "species,prediction"


IDS = {
    "by name": ("id,x,y\na,0.1,0.2\nb,-0.5,1.0\n", ("id",), "id", "ab"),
    "by number": ("x,id,y\n0.1,a,0.2\n-0.5,b,1.0\n", ("2",), "id", "ab"),
    "without a header": ("a,0.1,0.2\nb,-0.5,1.0\n", ("1",), "column_1", "ab"),
    "numbers of columns": ("id,0,1\na,0.1,0.2\nb,-0.5,1.0\n", ("1",), "id", "ab"),
    "an input": ("x,y\n0.1,0.2\n-0.5,1.0\n", ("x",), "x", ["0.1", "-0.5"]),
    "an index": (",x,y\n7,0.1,0.2\n8,-0.5,1.0\n", ("1",), "column_1", "78"),
    "quoted": (
        'x,y,"a, b"\n0.1,0.2,"say ""so"""\n-0.5,1.0,"two\nlines"\n',
        ("a, b",),
        "a, b",
        ['say "so"', "two\nlines"],
    ),
    "formulas": ("id,x,y\n=1+1,0.1,0.2\n@a,-0.5,1.0\n", ("id",), "id", ["'=1+1", "'@a"]),
    "negative numbers": ("id,x,y\n-7,0.1,0.2\n+8,-0.5,1.0\n", ("id",), "id", ["-7", "+8"]),
}


@pytest.mark.parametrize("name", IDS)
def test_columns_are_copied_beside_the_answers(predict, name):
    text, ids, head, cells = IDS[name]
    result = predict(text, *(word for k in ids for word in ("--id", k)))
    table = list(csv.reader(io.StringIO(result.out)))
    assert result.code == 0 and table[0] == [head, "prediction"] and [row[0] for row in table[1:]] == list(cells)
    plain = predict("0.1,0.2\n-0.5,1.0\n").out.split()[-4:]
    assert " ".join(row[1] for row in table[1:]).split() == plain
    assert all(line.startswith("liouville: note: ") for line in result.err.splitlines())


def test_a_column_that_is_not_there_and_a_header_that_is_overlooked_are_said(predict):
    assert "has no column 'z' for --id; its columns are id, x, y." in refused(predict("id,x,y\na,0,1\n", "--id", "z"))
    assert "has no column '9' for --id; it has 2 columns" in refused(predict(BODY, "--id", "9"))
    for text in ("id,2019,2020\n7,0.1,0.2\n", "id,0.5,1.5\n7,0.1,0.2\n"):
        assert "--header yes" in refused(predict(text, "--id", "1"))
    array = io.BytesIO()
    numpy.save(array, numpy.array(VALUES))
    assert "--id copies a column of a table" in refused(predict(array.getvalue(), "--id", "1"))


def npy(array, **options):
    file = io.BytesIO()
    numpy.save(file, array, **options)
    return file.getvalue()


ARRAYS = {
    "text": (npy(numpy.array([["1", "2"]])), "(it holds text)."),
    "dates": (npy(numpy.array([["2020-01-01", "2020-01-02"]], dtype="M8[D]")), "(it holds dates)."),
    "fields": (npy(numpy.array([(1, 2)], dtype=[("a", int), ("b", int)])), "(it holds records with fields)."),
    "objects": (npy(numpy.array([[1, None]], dtype=object), allow_pickle=True), "(its values are Python objects)."),
    "a number": (npy(numpy.float64(3)), "in.csv"),
    "two arrays": (npy(numpy.array(VALUES)) * 2, "after its array, another array perhaps"),
    "a broken header": (b'\x93NUMPY\x01\x00\x10\x00{"descr": (((  \n', "(its header is damaged)."),
    "a deep header": (b"\x93NUMPY\x01\x00\x10\x27" + b"(" * 10_000, "is not an array of numbers that can be read"),
    "an archive": (b"PK\x03\x04 x.npy", "in.csv is a NumPy archive (.npz)"),
    "three bytes of IDX": (b"\0\0\x08", "is an IDX file of no axis"),
    "IDX of floats": (
        b"\0\0\x0d\x02" + b"\0\0\0\1" * 2 + bytes(4),
        "is an IDX file of 32-bit floats; expected unsigned",
    ),
    "IDX that lies": (b"\0\0\x08\x03" + b"\xff" * 12, "is damaged: 0 bytes of pixels"),
    "IDX cut in its sizes": (b"\0\0\x08\x03\0\0\0\1\0\0", "is damaged"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_that_hold_no_samples_are_refused(predict, name):
    content, message = ARRAYS[name]
    assert message in refused(predict(content))


@pytest.mark.parametrize("kind", [">f8", "<f4", "f2", "i2", "u1", "?"])
def test_arrays_of_any_real_type_are_read(predict, kind):
    assert predict(npy(numpy.array([[1, 0], [0, 1]], dtype=kind))).out == predict("1,0\n0.0,1\n").out


def test_a_gzip_file_that_unpacks_to_very_much_is_refused_before_it_does(predict, monkeypatch):
    monkeypatch.setattr("liouville.data.content._SMALL", 2**16)
    packed = gzip.compress(b"1,2\n" * 2**16)
    assert "20 times its own size" in refused(predict(packed))
    assert len(predict(packed, "--unpack", "2000").out.splitlines()) == 1 + 2**16


def test_without_pandas_the_extra_is_named_and_arrays_are_still_read(predict, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert "reading a table of text needs pandas: pip install 'liouville[data]'." in refused(predict(BODY))
    assert predict(npy(numpy.array(VALUES))).code == 0


def test_names_of_classes_cannot_command_a_spreadsheet(predict, trained, tmp_path, before):
    before(shutil.copytree(trained[0], tmp_path / "run"))
    config = (tmp_path / "run" / "config.json").read_text()
    config = config.replace('"outer spiral"', '"=cmd()"')
    (tmp_path / "run" / "config.json").write_text(config)
    out = predict(BODY, "--probabilities", run=tmp_path / "run").out
    assert "p('=cmd())" in out


def test_standard_input_that_is_closed_is_said(liouville, trained, monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    assert "standard input is closed" in refused(liouville("predict", trained[0], "-"))
