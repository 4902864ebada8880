"""A run on data of one's own: written, opened, checked, asked and measured without the data; never run as another's."""

import json
import shutil

import pytest
import torch

import liouville as lv
from liouville import runs
from liouville.runs import Plan, Run
from runs import own

pytest.importorskip("click", reason="the command needs click")

from cli.conftest import call


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("own")
    for kind in ("classes", "targets"):
        runs.train(own.PLAN, own.split(kind), root / kind)
    (root / "raw.csv").write_text("a,b,c\n" + "".join(",".join(map(str, row)) + "\n" for row in own.RAW.tolist()))
    return root


@pytest.fixture
def elsewhere(monkeypatch):
    """No data set can be loaded."""
    monkeypatch.setattr(lv.data, "load", lambda *words, **options: pytest.fail("data were loaded"))


def test_the_plan_says_that_no_name_loads_the_data(folders):
    """Whatever data the given plan named."""
    run = Run.open(folders / "classes")
    assert own.PLAN.data == "swiss-roll" and run.plan.data is None
    assert run.config["data"]["name"] == "mine" and run.facts == own.split().facts()
    assert run.network().facts == run.facts


@pytest.mark.parametrize("kind", ["classes", "targets"])
def test_it_is_what_it_claims_to_be_without_its_data(folders, elsewhere, kind):
    result = call("check", folders / kind, "--json")
    claims = {claim["name"]: claim["status"] for claim in json.loads(result.out)["claims"]}
    assert result.code == 0 and claims["file"] == claims["label"] == claims["lower bound"] == "pass"
    assert "measured over probes" in json.loads(result.out)["subject"]
    assert Run.open(folders / kind).certificate().as_dict() == json.loads(result.out)


@pytest.mark.parametrize(
    ("name", "value"),
    [("label_names", ["high", "middle", "low"]), ("scale", [1.0, 10.0, 99.0]), ("classes", 4), ("fingerprint", "0")],
)
def test_an_edited_configuration_is_broken_without_its_data(folders, tmp_path, elsewhere, name, value):
    file = shutil.copytree(folders / "classes", tmp_path / "run") / "config.json"
    config = json.loads(file.read_text())
    config["data"][name] = value
    file.write_text(json.dumps(config))
    result = call("check", tmp_path / "run")
    assert result.code == 1 and f"label: data.{name} is " in result.err and result.err.count("\n") == 1


def test_another_network_in_the_folder_is_broken(folders, tmp_path, elsewhere):
    run = shutil.copytree(folders / "classes", tmp_path / "run")
    other = own.PLAN.changed(T=1.0).network(own.split().facts())
    lv.save(other, run / "model.safetensors")
    result = call("check", run)
    assert result.code == 1 and "network.body.T is 1.0 in the model file, 2.0 in config.json" in result.err


@pytest.mark.parametrize("file", ["", "/model.safetensors"])
def test_raw_rows_get_names_or_targets_in_their_unit(folders, elsewhere, tmp_path, file):
    for kind in ("classes", "targets"):
        split, network = own.split(kind), Run.open(folders / kind).network()
        assert torch.equal(network.transform(own.RAW), split.transformed(own.RAW))
        outputs = network(split.transformed(own.RAW)).double()
        result = call("predict", f"{folders / kind}{file}", folders / "raw.csv")
        assert (result.code, result.err) == (0, "")
        rows = result.out.splitlines()[1:]
        answers = network.predict(own.RAW)
        if kind == "classes":
            assert answers == rows == [split.label_names[k] for k in outputs.argmax(-1)]
        else:
            expected = outputs * split.target_scale + split.target_offset
            assert torch.allclose(answers, expected, rtol=1e-6)
            assert rows == [",".join(f"{v:.6g}" for v in row) for row in answers.tolist()]
    shutil.copy(folders / "classes" / "model.safetensors", tmp_path / "alone")
    assert call("predict", tmp_path / "alone", folders / "raw.csv").out.splitlines()[1:] == Run.open(
        folders / "classes"
    ).network().predict(own.RAW)


def test_a_table_with_other_names_is_refused(folders, tmp_path):
    (tmp_path / "other.csv").write_text("a,c,b\n1,2,3\n")
    result = call("predict", folders / "classes", tmp_path / "other.csv")
    assert result.code == 2 and "b" in result.err


def test_sensitivities_are_measured_at_probes_and_say_so(folders, elsewhere):
    result = call("sensitivities", folders / "classes", "--json", "--samples", 5)
    assert result.code == 0 and "normally distributed inputs" in result.err and result.err.count("\n") == 1
    norms = torch.tensor(json.loads(result.out)["norms"])
    assert norms.shape == (5, 5) and (norms >= 1 - 1e-6).all()  # never contracts every direction


def test_it_is_not_run_again_on_other_data_without_a_word(folders, tmp_path):
    result = call("train", "--like", folders / "classes", "--epochs", 1, "--out", tmp_path / "again")
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert "was trained on data of one's own, which no name loads" in result.err
    assert not (tmp_path / "again").exists()


def test_its_plan_is_for_other_data_where_they_are_named(folders, tmp_path):
    words = ("--data", "double-moons", "-d", "points=80", "--epochs", 1, "--no-figures", "--no-report", "--quiet")
    assert call("train", "--like", folders / "classes", *words, "--out", tmp_path / "moons").code == 0
    plan = Run.open(tmp_path / "moons").plan
    assert plan.data == "double-moons" and plan.changed(epochs=3, data_options={}).settings == own.PLAN.settings


def test_the_run_can_be_run_again_on_its_data(folders, tmp_path):
    run = Run.open(folders / "classes")
    again = runs.train(run.plan, own.split(), tmp_path / "again")
    assert again.plan == run.plan and again.metrics["test_accuracy"] == run.metrics["test_accuracy"]
    with pytest.raises(ValueError, match="which no name loads"):
        runs.train(run.plan)


def test_names_that_could_not_be_read_back_are_refused_before_training(tmp_path):
    split = own.split()
    object.__setattr__(split, "label_names", ("low", "mid\ndle", "high"))
    with pytest.raises(ValueError, match=r"label_names\[1\] must be text of printable characters"):
        runs.train(Plan(layers=2, features=4), split, tmp_path / "run")
    assert not (tmp_path / "run").exists()
