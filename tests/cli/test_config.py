"""``--print-config`` and ``--config``: the same plan again; the command line, then the file, then the recipe."""

import json

import pytest

pytest.importorskip("ruamel.yaml", reason="files of settings need ruamel.yaml")

from liouville.runs import Run

TABLE = "a,b,id,y\n" + "\n".join(f"{k % 7},{'uvw'[k % 3]},{k},{'no' if k % 5 else 'yes'}" for k in range(60)) + "\n"


@pytest.fixture
def file(tmp_path):
    return tmp_path / "my.yaml"


@pytest.fixture
def plan_of(liouville):
    """What a command line asks for, as text."""

    def printed(*words):
        result = liouville("train", *words, "--print-config")
        assert (result.code, result.err) == (0, ""), result.err
        return result.out

    return printed


@pytest.mark.parametrize(
    "words",
    [
        "",
        "--data double-circles --preset h1-64",
        "--data mnist -d train=500 --features 8,16 --layers 2,4",
        "--model antisymmetric --gamma 0.25 --steps 30 --lr 1e-3 -d points=200 -d noise=0.5",
        "--optimizer gauss-newton -g products=7 --head joint --init normal",
        "--data {table} --target y --id id --category a --header yes -d test_fraction=0.3",
    ],
)
def test_what_is_printed_is_the_plan_again(plan_of, file, tmp_path, words):
    (tmp_path / "table.csv").write_text(TABLE)
    first = plan_of(*words.format(table=tmp_path / "table.csv").split())
    file.write_text(first)
    assert plan_of("--config", file) == first


def _settings(text):
    return dict(line.split(": ", 1) for line in text.splitlines() if ": " in line and not line.startswith(("#", " ")))


def test_the_command_line_comes_before_the_file_and_the_file_before_the_recipe(plan_of, file):
    file.write_text("data: wine\nmodel: H1\nlr: 1e-3\nbatch-size: 20\nepochs: 7\npatience: null\n")
    found = _settings(plan_of("--config", file, "--lr", 0.25, "--seed", 3))
    recipe = _settings(plan_of("--data", "wine"))
    expected = {"data": "wine", "model": "h1", "lr": "0.25", "batch_size": "20", "epochs": "7", "seed": "3"}
    assert expected.items() <= found.items()
    assert found["decay"] == recipe["decay"] and recipe["epochs"] != "7"
    assert _settings(plan_of("--config", file, "--data", "iris"))["data"] == "iris"
    file.write_text("data: swiss-roll\ndata_options: {points: 300}\npreset: h1-64\n")
    assert "points: 300" in plan_of("--config", file) and _settings(plan_of("--config", file))["model"] == "h1"
    assert "points: 400" in plan_of("--config", file, "-d", "points=400")
    assert "points" not in plan_of("--config", file, "--data", "double-moons", "--preset", "default")


def test_a_table_is_named_in_the_file_as_in_the_command(plan_of, file, tmp_path):
    table, moved = tmp_path / "table.csv", tmp_path / "moved.csv"
    table.write_text(TABLE), moved.write_text(TABLE)
    file.write_text(f"data: {table}\ntarget: y\nid: id\ncategory: [a]\ndata_options: {{test_fraction: 0.3}}\n")
    typed = plan_of("--data", table, "--target", "y", "--id", "id", "--category", "a", "-d", "test_fraction=0.3")
    assert plan_of("--config", file) == typed
    file.write_text(typed)
    assert plan_of("--config", file, "--data", moved) == typed.replace(str(table), str(moved))


def test_a_run_s_config_json_is_taken(plan_of, trained, file):
    folder, _ = trained
    found = plan_of("--config", folder / "config.json")
    assert found == plan_of("--like", folder)
    file.with_suffix(".json").write_text(json.dumps({"data": "wine", "epochs": 3}))
    assert _settings(plan_of("--config", file.with_suffix(".json")))["epochs"] == "3"


def test_a_file_trains(train, file, tmp_path):
    file.write_text("lr: 0.125\nschedule: constant\n")
    assert train("--config", file).code == 0
    assert Run.open(tmp_path / "run").plan.settings.lr == 0.125


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("layer: 3", "there is no setting 'layer'; did you mean 'layers'?"),
        ("lr: fast", 'lr must be a number, got "fast".'),
        ("data: swiss-rol", "unknown data set 'swiss-rol'; did you mean 'swiss-roll'?"),
        ("target: y", "--target is for a table of your own"),
        ("a: 1\na: 2", 'is not YAML; line 2: found duplicate key "a" with value "2" (original value: "1").'),
        ("lr: [1", "is not YAML; line 1: expected ',' or ']'"),
        ("lr: !!python/object:os.system 1", "is not YAML; line 1: could not determine a constructor"),
        ("- 1\n- 2", "must have lines NAME: VALUE"),
        ("", "must have lines NAME: VALUE"),
        ("1: 2", "must have lines NAME: VALUE"),
        ("out: runs/x", "there is no setting 'out'"),
        ("data: null\ntable: null", "is of a run on data of one's own, which no name loads: give --data."),
        ("table: {path: x.csv}", "table.target must be"),
        ("preset: 3", "preset must be text"),
        ("model: [h1]", "model must be text"),
        ("\x00", "is not YAML"),
    ],
)
def test_a_wrong_file_is_one_sentence(liouville, file, text, sentence):
    file.write_text(text)
    result = liouville("train", "--config", file)
    assert result.code == 2 and result.err.count("\n") == 1 and sentence in result.err, result.err


def test_a_long_file_is_refused_before_it_is_parsed(liouville, file):
    file.write_text("layers: " + "[" * 10_000_000)
    result = liouville("train", "--config", file)
    assert result.code == 2 and "10,000,008 bytes; settings have at most 100,000" in result.err, result.err
    assert result.err.count("\n") == 1


def test_wrong_words_are_one_sentence(liouville, trained, tmp_path, file):
    file.write_bytes(b"lr: \xff")
    for words, sentence in (
        (("--config", tmp_path / "none.yaml"), "none.yaml: No such file or directory."),
        (("--config", trained[0]), "is a folder; give its config.json, or --like"),
        (("--config", file), "is not text in UTF-8"),
        (("--config", file, "--like", trained[0]), "--like and --config both say where to start from"),
        (("--config", file, "--resume", trained[0]), "leave --out, --like, --preset and --config out"),
    ):
        result = liouville("train", *words)
        assert result.code == 2 and result.err.count("\n") == 1 and sentence in result.err, result.err
