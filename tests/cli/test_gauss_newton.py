"""`liouville train --optimizer gauss-newton`: the same run folder, its own settings, the same errors."""

import json

import pytest

from liouville.runs import Plan, Run
from liouville.train import GaussNewton, Settings

WORDS = ("train", "--layers", 4, "--T", 2, "-d", "points=200", "--threads", 1, "--no-figures", "--no-report", "--quiet")
NEWTON = (*WORDS, "--optimizer", "gauss-newton", "--epochs", 3)


@pytest.mark.parametrize("head", ["eliminated", "eliminated-simple", "joint", "alternating"])
def test_the_run_folder_is_that_of_any_run(liouville, tmp_path, head):
    assert liouville(*NEWTON, "--head", head, "--smoothness", 0.01, "--out", tmp_path / "run").code == 0
    run = Run.open(tmp_path / "run")
    records = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert [r["epoch"] for r in records] == [1, 2, 3] and 0 < sum(r["work"] for r in records) < run.metrics["work"]
    assert all({"loss", "accuracy", "validation_accuracy", "gradient_norm", "products"} <= r.keys() for r in records)
    assert run.plan.settings == GaussNewton(
        iterations=3, head=head, penalty=Plan().changed(optimizer="gauss-newton", smoothness=0.01).settings.penalty
    )
    assert run.plan.dtype == "float64" and run.metrics["stopped"] == "all iterations done"


def test_the_numbers_of_the_solver_are_options(liouville, tmp_path):
    numbers = {"products": 5, "rtol": 1e-4, "max_step": 0.5}
    words = [word for name, value in numbers.items() for word in ("-g", f"{name.replace('_', '-')}={value}")]
    assert liouville(*NEWTON, *words, "--out", tmp_path / "run").code == 0
    settings = Run.open(tmp_path / "run").plan.settings
    assert {name: getattr(settings, name) for name in numbers} == numbers


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("products", "-g expects NAME=VALUE, got 'products'; for example -g products=40."),
        ("product=5", "gauss-newton has no number 'product'; -g takes products, tolerance,"),
        ("products=few", "the gauss-newton option products expects a whole number, got 'few'."),
    ],
)
def test_a_number_that_does_not_fit_is_answered_in_one_sentence(liouville, pair, message):
    done = liouville(*NEWTON, "-g", pair)
    assert done.code == 2 and message in done.err


def test_the_plan_repeats_the_run(liouville, tmp_path):
    assert liouville(*NEWTON, "--safeguard", "trust-region", "--out", tmp_path / "a").code == 0
    words = ("train", "--like", tmp_path / "a", "--no-figures", "--no-report", "--quiet", "--out", tmp_path / "b")
    assert liouville(*words).code == 0
    a, b = (Run.open(tmp_path / name) for name in "ab")
    assert a.plan == b.plan and a.plan.settings.safeguard == "trust-region"
    assert (a.path / "model.safetensors").read_bytes() == (b.path / "model.safetensors").read_bytes()


def test_levels_end_with_the_depth_that_was_asked_for(liouville, tmp_path):
    assert liouville(*NEWTON, "--T", 0.5, "--levels", 2, "--out", tmp_path / "run").code == 0
    run = Run.open(tmp_path / "run")
    assert [level["layers"] for level in run.metrics["levels"]] == [[2], [4]]
    assert run.metrics["work"] == sum(level["work"] for level in run.metrics["levels"])
    assert run.network().body.layers == 4


def test_from_one_optimiser_to_the_other_settings_start_afresh():
    first = Plan.of("swiss-roll").changed(lr=0.5)
    second = first.changed(optimizer="gauss-newton", epochs=7, head_decay=0.5)
    assert second.settings == GaussNewton(iterations=7, penalty=second.settings.penalty) and second.epochs == 7
    assert (second.settings.penalty.smoothness, second.settings.penalty.head_decay) == (5e-3, 0.5)
    assert second.changed(optimizer="adam", epochs=2).settings == Settings(epochs=2)
    assert first.changed(optimizer="gauss-newton", dtype="float32").dtype == "float32"
    assert second.changed(dtype="float32").changed(T=1.0).dtype == "float32"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--lr", 0.1), "lr is no setting of the optimizer 'gauss-newton'; it has"),
        (("--head", "none"), "unknown treatment of the head 'none'"),
        (("--batch-size", 10), "batch_size and curvature belong to --head alternating"),
        (("--head-decay", 0), "has a solution for sure only with a decay"),
        (("--optimizer", "gaus-newton"), "did you mean 'gauss-newton'?"),
        (("--optimizer", "adam", "--safeguard", "armijo"), "safeguard is no setting of the optimizer 'adam'"),
        (("--epochs", 0), "iterations must be a whole number of at least 1"),
        (("--dtype", "bfloat16"), "gauss-newton needs float32 or float64"),
        (("--levels", 2, "--validation", 0), "a level ends by its validation loss"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_refusals_are_one_line(liouville, tmp_path, words, message):
    result = liouville(*NEWTON, *words, "--out", tmp_path / "run")
    assert result.code == 2 and message in result.err and result.err.count("\n") == 1
    assert not (tmp_path / "run").exists()
