"""`liouville check`: 0 for a network that keeps its promises, 1 for one that does not, 2 where there is none."""

import json
import math
import re
import shutil

import pytest
import torch
from torch import nn

import liouville as lv
from liouville.runs import Run


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the tiny run that a test may damage."""
    return shutil.copytree(trained[0], tmp_path / "run")


def certificate(folder):
    return json.loads((folder / "certificate.json").read_text())


def statuses(value):
    return {c["name"]: c["status"] for c in value["claims"]}


def resave(run, change):
    """Change the network of a run and write it as `liouville.save` does, hash and all."""
    network = Run.open(run).network()
    with torch.no_grad():
        network = change(network) or network
    lv.save(network, run / "model.safetensors")


def test_a_trained_network_passes_and_leaves_its_certificate(liouville, run):
    result = liouville("check", run)
    assert (result.code, result.err) == (0, "")
    for word in ("lower bound", "symplectic", "upper bound", "singular values", "robustness radius", "pass"):
        assert word in result.out
    found = statuses(certificate(run))
    del found["step size"]  # advice, and these steps are long
    assert set(found.values()) == {"pass"}
    assert {"robustness radius", "file", "label", "finite", "lower bound", "layers", "inverse"} <= found.keys()


def test_json_is_the_certificate_and_nothing_else(liouville, run):
    result = liouville("check", run, "--json")
    assert result.code == 0 and json.loads(result.out) == certificate(run)
    assert json.loads(result.out)["holds"] is True


def test_a_model_file_alone_is_measured_at_probes_and_over_a_data_set(liouville, run, tmp_path):
    shutil.copy(run / "model.safetensors", tmp_path / "alone.safetensors")
    result = liouville("check", tmp_path / "alone.safetensors", "--json")
    found = statuses(json.loads(result.out))
    assert result.code == 0 and "label" not in found and "robustness radius" not in found
    result = liouville("check", tmp_path / "alone.safetensors", "--json", "--data", "double-moons", "-d", "points=200")
    assert result.code == 0 and statuses(json.loads(result.out))["robustness radius"] == "pass"
    assert not (tmp_path / "certificate.json").exists()


def test_other_data_leave_the_certificate_of_the_run_alone(liouville, run):
    liouville("check", run)
    before = (run / "certificate.json").read_bytes()
    result = liouville("check", run, "--data", "double-moons", "-d", "points=200", "--json")
    assert result.code == 0 and "samples of double-moons" in json.loads(result.out)["subject"]
    assert (run / "certificate.json").read_bytes() == before


def test_the_model_file_of_a_run_is_the_run(liouville, run):
    assert liouville("check", run / "model.safetensors").code == 0
    assert "label" in statuses(certificate(run))


def test_a_flow_alone_can_be_checked(liouville, tmp_path):
    lv.save(lv.zoo.ms2(4, 3, 1.0), tmp_path / "flow.safetensors")
    assert liouville("check", tmp_path / "flow.safetensors").code == 0
    result = liouville("check", tmp_path / "flow.safetensors", "--data", "swiss-roll")
    assert result.code == 2 and "a file of a flow" in result.err


def flip(run):
    path = run / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def edit_description(run):
    path = run / "model.safetensors"
    content = path.read_bytes()
    assert content.count(b'\\"T\\\\\\": 2.0') or content.count(b"2.0")
    path.write_bytes(content.replace(b"2.0", b"3.0", 1))


def poison(run):
    resave(run, lambda network: network.body.field.K_q.data.view(-1)[3:4].fill_(math.nan) and None)


def mislabel(run):
    """A residual network in the folder of a Hamiltonian one."""
    resave(run, lambda n: lv.Network(n.lift, lv.zoo.resnet(4, 4, 2.0), n.head))


def longer(run):
    resave(run, lambda n: lv.Network(n.lift, lv.zoo.h2(4, 4, 3.0, backprop=lv.Stored()), n.head))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (flip, "file: .* was changed after it was written"),
        (edit_description, "file: .* was changed after it was written"),
        (poison, "finite: not finite: field.K_q"),
        (
            mislabel,
            r"label: network.body.field is ResidualField in the model file, SeparableHamiltonianField in config.json",
        ),
        (longer, r"label: network.body.T is 3.0 in the model file, 2.0 in config.json"),
    ],
)
def test_what_is_not_what_it_claims_to_be_is_broken(liouville, run, damage, sentence):
    damage(run)
    result = liouville("check", run)
    assert result.code == 1
    assert len(result.err.splitlines()) == 1 and result.err.startswith(f"liouville: error: {run} is not what it claims")
    assert re.search(sentence, result.err), result.err
    assert certificate(run)["holds"] is False
    assert json.loads(liouville("check", run, "--json").out)["holds"] is False


@pytest.mark.parametrize(
    ("name", "value"), [("label_names", ["inner", "outer"]), ("classes", 7), ("scale", [3.0, 1.0]), ("shape", [3])]
)
def test_data_in_the_configuration_that_are_not_the_plan_s_are_broken(liouville, run, name, value):
    config = json.loads((run / "config.json").read_text())
    config["data"][name] = value
    (run / "config.json").write_text(json.dumps(config))
    result = liouville("check", run)
    assert result.code == 1 and re.search(rf"data\.{name} is .* in config\.json, .* in the model file", result.err)


def test_data_of_an_earlier_run_that_are_not_the_plan_s_are_broken(liouville, run, before):
    before(run)
    assert liouville("check", run).code == 0
    config = json.loads((run / "config.json").read_text())
    config["data"]["label_names"] = ["inner", "outer"]
    (run / "config.json").write_text(json.dumps(config))
    result = liouville("check", run)
    assert result.code == 1 and "data.label_names in config.json is not that of the plan's data set" in result.err


def test_a_J_that_is_no_longer_skew_is_broken(liouville, tmp_path):
    network = lv.classifier("h1", 2, 2, 4, 3, 1.0)
    network.body.field.J[0, 2] += 0.01
    lv.save(network, tmp_path / "canonical.safetensors")
    result = liouville("check", tmp_path / "canonical.safetensors")
    assert result.code == 1 and "lower bound: not true that J is skew" in result.err


def test_a_description_that_does_not_fit_its_weights_is_broken(liouville, tmp_path, monkeypatch):
    """A file whose hash is right, but which says antisymmetric over Hamiltonian weights."""
    from liouville import checkpoint

    network = lv.classifier("h1", 2, 2, 4, 3, 1.0)
    described = checkpoint.describe(lv.classifier("ms2", 2, 2, 4, 3, 1.0))
    monkeypatch.setattr(checkpoint, "describe", lambda *_: described)
    monkeypatch.setattr(checkpoint, "_require_loadable", lambda *_: None)
    lv.save(network, tmp_path / "wrong.safetensors")
    monkeypatch.undo()
    result = liouville("check", tmp_path / "wrong.safetensors")
    assert result.code == 1 and "does not fit its weights" in result.err


def test_networks_without_a_proof_are_not_broken(liouville, train, tmp_path):
    for words in (("--model", "resnet"), ("--model", "ms2", "--gamma", "0.2"), ("--scheme", "RK4")):
        folder = tmp_path / "-".join(words)
        assert train(*words, "--epochs", "1", out=folder.name).code == 0
        assert liouville("check", folder).code == 0
        assert statuses(certificate(folder))["lower bound"] == "not applicable"


def test_a_budget_reaches_the_certificate(liouville, train, tmp_path):
    assert train("--budget", "3", "--epochs", "1").code == 0
    assert liouville("check", tmp_path / "run").code == 0
    (claim,) = [c for c in certificate(tmp_path / "run")["claims"] if c["name"] == "budget"]
    assert claim["status"] == "pass" and claim["bound"] == {"C": 3.0} and claim["measured"]["U"] <= 3.0
    assert train("--soft-budget", "3", "--epochs", "1", out="soft").code == 0
    assert train("--budget", "0.5", out="low").code == 2


def test_train_with_force_removes_an_old_certificate(liouville, train, tmp_path):
    assert train("--epochs", "1").code == 0
    assert liouville("check", tmp_path / "run").code == 0
    assert train("--epochs", "1", "--force").code == 0
    assert not (tmp_path / "run" / "certificate.json").exists()


def test_a_folder_that_cannot_be_written_is_a_note(liouville, run):
    (run / "certificate.json").mkdir()
    result = liouville("check", run)
    assert result.code == 0 and "could not be written" in result.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("nowhere",), "there is no run folder or model file nowhere"),
        (("{tmp}",), "is not a run: it has no config.json"),
        (("{tmp}/text.safetensors",), "is not a readable model file"),
        (("{run}", "--data", "swissroll"), "did you mean 'swiss-roll'"),
        (("{run}", "--data", "wine"), "does not accept the inputs of wine"),
        (("{run}", "-d", "points=3"), "-d belongs to --data"),
        ((), "Missing argument"),
    ],
)
def test_bad_input_exits_with_2(liouville, trained, tmp_path, words, sentence):
    (tmp_path / "text.safetensors").write_text("no model")
    if "wine" in words:
        pytest.importorskip("sklearn")
    result = liouville("check", *(word.format(tmp=tmp_path, run=trained[0]) for word in words))
    assert result.code == 2 and sentence in result.err and len(result.err.splitlines()) == 1


def test_a_run_without_a_model_exits_with_2(liouville, run):
    (run / "model.safetensors").unlink()
    assert liouville("check", run).code == 2


def test_classes_of_users_must_be_registered(liouville, tmp_path):
    from liouville.registry import _REGISTRY, register

    @register
    class Scale(nn.Module):
        def forward(self, x):
            return 2 * x

    lv.save(lv.Network(lv.Lift(4, 2), lv.zoo.h2(4, 2, 1.0), nn.Sequential(Scale(), nn.Linear(4, 1))), tmp_path / "m")
    del _REGISTRY["Scale"]
    result = liouville("check", tmp_path / "m")
    assert result.code == 2 and "not registered" in result.err
