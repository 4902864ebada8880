"""A damaged run folder is refused in one sentence, or answers as before, or says that it was changed."""

import importlib.util
import json
import random
import shutil
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import liouville as lv
from liouville.runs import Plan, Run, certifying

SWEEPS = Path(__file__).parents[2] / "benchmarks" / "sweeps"


@pytest.fixture(scope="module")
def runfiles():
    """The sweep over damaged folders, whose long form is ``python benchmarks/sweeps/runfiles.py``."""
    sys.path.insert(0, str(SWEEPS))
    try:
        spec = importlib.util.spec_from_file_location("runfiles", SWEEPS / "runfiles.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(SWEEPS))
    return module


@pytest.fixture
def folder(trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / "run")
    (tmp_path / "points.csv").write_text("0.1,0.2\n-0.5,0.5\n")
    return tmp_path


def edit(folder, *path_and_value):
    *path, value = path_and_value
    file = folder / "run" / "config.json"
    config = json.loads(file.read_text())
    inside = config
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = value
    file.write_text(json.dumps(config))


def test_mutated_files_never_end_in_a_defect(runfiles, folder, liouville):
    sound = liouville("predict", folder / "run", folder / "points.csv", "--probabilities").out
    for k in range(24):
        draw = random.Random(f"ci/{k}")
        name = draw.choice(("config.json", "config.json", "metrics.json", "history.jsonl", "model.safetensors"))
        shutil.copytree(folder / "run", folder / f"{k}" / "run")
        shutil.copy(folder / "points.csv", folder / f"{k}")
        words = runfiles.damage(draw, folder / f"{k}" / "run" / name)
        result = liouville("predict", folder / f"{k}" / "run", folder / f"{k}" / "points.csv", "--probabilities")
        assert result.code in (0, 2), (k, name, words, result)
        assert result.code == 0 or (result.err.count("\n") == 1 and result.err.startswith("liouville: error: "))
        assert result.code == 2 or result.out == sound or "was changed after it was written" in result.err


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("data", "label_names"), 5, "data.label_names must be a list or null, got 5."),
        (("data", "label_names"), ["a"], "data: 1 label_names for 2 classes."),
        (("data", "label_names"), ["\x1b[2J", "b"], "data.label_names[0] must be text of printable characters"),
        (("data", "classes"), -1, "data.classes must be 0 for a regression, or a number of classes, got -1."),
        (("data", "classes"), True, "data.classes must be"),
        (("data", "shape"), [10**12], "data.shape[0] must be a whole number from 1 to 2^31, got 1000000000000."),
        (("data", "shape"), [], "data.shape must be the sizes of one sample, 1 to 4 of them, got a list of 0."),
        (("data", "offset"), "word", 'data.offset must be a number, or a list of numbers or null, got "word".'),
        (("data", "offset"), [1.0, 2.0], "data: offset and scale belong together, one is null."),
        (("data",), [], "data must be an object, got a list of 0."),
        (("format",), "liouville-run-9", "has the format 'liouville-run-9'"),
    ],
    ids=str,
)
def test_predict_names_what_is_wrong_in_config_json(folder, liouville, place, value, message):
    edit(folder, *place, value)
    result = liouville("predict", folder / "run", folder / "points.csv")
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1) and message in result.err, result


@pytest.mark.parametrize(
    ("offset", "scale", "message"),
    [
        ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], "data: offset must be a number, or numbers for samples of 2, got 3."),
        ([0.0, 0.0], [1.0, 0.0], "data: scale has a 0, and inputs are divided by it."),
        ([[1.0], [1.0]], [1.0, 1.0], "data: offset must be a number, or numbers for samples of 2, got 2 x 1."),
    ],
)
def test_a_transform_that_does_not_fit_the_samples_is_refused(folder, liouville, offset, scale, message):
    edit(folder, "data", "offset", offset)
    edit(folder, "data", "scale", scale)
    result = liouville("predict", folder / "run", folder / "points.csv")
    assert result.code == 2 and message in result.err, result


@pytest.mark.parametrize(
    "changes",
    [
        {"offset": 1.0, "scale": 2.0},
        {"label_names": ["inner spiral", "outer spiral"]},
        {"column_names": ["y", "x"]},
        {"classes": 0, "outputs": 1, "label_names": None},
        {"fingerprint": None},
    ],
    ids=str,
)
def test_what_was_edited_is_found_without_data_and_the_model_file_is_followed(folder, liouville, monkeypatch, changes):
    def load(*words, **options):
        raise AssertionError("data were loaded")

    run = folder / "run"
    sound = liouville("predict", run, folder / "points.csv")
    for name, value in changes.items():
        edit(folder, "data", name, value)
    with monkeypatch.context() as patch:
        patch.setattr(lv.data, "load", load)
        result = liouville("predict", run, folder / "points.csv")
    names = ", ".join(name for name in Run.open(run).network().facts.as_dict() if name in changes)
    assert (result.code, result.out) == (0, sound.out)
    assert f"says of the data ({names}) was changed after it was written; the answers follow the mod" in result.err
    result = liouville("check", run)
    assert result.code == 1 and "in config.json, " in result.err and "in the model file" in result.err


def test_of_an_earlier_version_an_edited_transform_is_followed_and_said(folder, liouville, before):
    opened = Run.open(before(folder / "run"))
    assert not opened.edited(opened.network())
    edit(folder, "data", "offset", 1.0)
    edit(folder, "data", "scale", 2.0)
    result = liouville("predict", folder / "run", folder / "points.csv")
    assert result.code == 0 and "was changed after it was written; the answers follow what it says now" in result.err


@pytest.mark.parametrize(
    ("offset", "scale"),
    [(0.0, [1.0, 2.0]), ([[1.0], [2.0]], 1.0), ([0.0, 1.0, 2.0], [1.0]), (1.79e308, 1.79e308), ([[[0.0]]], 1.0)],
)
def test_a_target_transform_gives_one_finite_number_for_each_output(folder, liouville, before, offset, scale):
    before(folder / "run")
    values = {"classes": 0, "label_names": None, "target_offset": offset, "target_scale": scale}
    for name, value in values.items():
        edit(folder, "data", name, value)
    result = liouville("predict", folder / "run", folder / "points.csv")
    assert (result.code, result.out) == (2, "") and "do not give 1 finite value(s) for a row." in result.err, result


def test_a_run_of_levels_and_one_of_an_earlier_version_are_what_they_claim_to_be(tmp_path, liouville, before):
    words = "--data iris --layers 2 --levels 2 --epochs 1 --quiet --no-figures --no-report"
    assert liouville("train", *words.split(), "--out", tmp_path / "run").code == 0
    assert label(tmp_path / "run").status == "pass"
    before(tmp_path / "run")
    assert label(tmp_path / "run").status == "pass"
    file = tmp_path / "run" / "config.json"
    config = json.loads(file.read_text())
    del config["data"]["column_names"], config["data_sha256"]  # as it was written before there were any
    file.write_text(json.dumps(config))
    assert label(tmp_path / "run").status == "pass"
    config["data"]["scale"][0] *= 2
    file.write_text(json.dumps(config))
    assert label(tmp_path / "run").note == "data.scale in config.json is not that of the plan's data set"


def test_the_layout_of_images_in_memory_is_no_claim():
    """Which earlier versions changed behind the first convolution; a part that computes is missed as before."""
    images = torch.randn(20, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    facts = lv.data.Split(images, torch.arange(20) % 10, images[:5], torch.arange(5), "mnist", 10).facts()
    plan = Plan.of("mnist").changed(features=(4, 6), layers=(1, 1))
    network = plan.network(facts)
    last, convolution, pool = network.lift

    def status(*lift):
        found = lv.Network(nn.Sequential(*lift), network.body, network.head)
        return certifying.label(plan, facts.as_dict(), found, None).status

    assert status(last, convolution, pool) == status(convolution, pool, last) == "pass"
    assert status(last, convolution) == status(last, pool, convolution) == "broken"


def label(run):
    (claim,) = [claim for claim in Run.open(run).certificate().claims if claim.name == "label"]
    return claim


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("plan", "layers"), 10**12, "of memory, and "),
        (("plan", "layers"), 4.5, "plan.layers must be a whole number or a list, got 4.5."),
        (("plan", "data_options"), {"points": "many"}, "plan.data_options.points must be a whole number or null"),
        (("plan", "options"), {"activation": 3}, "plan.options.activation must be text or an object, got 3."),
        (("plan", "settings"), {}, "plan.settings.optimizer must be text of printable characters, got nothing."),
        (("plan", "more"), 1, "plan.more is unknown."),
        (("plan", "levels"), 10**9, "levels must be at most 60"),
        (("plan", "T"), None, "plan.T must be a number, got null."),
        (("plan", "layers"), [], "layers must be a number, or one for each flow, got none."),
        (("plan", "features"), [], "features must be a number, or one for each flow, got none."),
        (("plan", "data_options"), {"dtype": "x"}, 'plan.data_options.dtype must be left out, got "x".'),
        (("plan", "options"), {"operator": {"x": 1}}, "plan.options.operator.x must be left out, got 1."),
        (("plan",), {}, "is missing."),
    ],
    ids=str,
)
def test_like_names_what_is_wrong_in_a_plan(folder, liouville, place, value, message):
    edit(folder, *place, value)
    result = liouville("train", "--like", folder / "run", "--out", folder / "new")
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1) and message in result.err, result
    assert not (folder / "new").exists()


@pytest.mark.parametrize(
    "text", ['{"epoch": 1, "loss": "low"}', "[1]", '{"epoch": 1, "epoch": 2}', "{" * 10_000, "NaN"]
)
def test_a_history_that_is_none_is_refused_by_line(folder, text):
    path = folder / "run" / "history.jsonl"
    path.write_text(path.read_text() + text + "\n")
    with pytest.raises(ValueError, match=r"^line 3 of .*history\.jsonl is damaged: "):
        Run.open(folder / "run").history()
