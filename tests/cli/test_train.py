"""`liouville train`: what the run folder holds, that it repeats bit for bit, and that explicit options win."""

import dataclasses
import json
import re
import subprocess
import sys

import pytest
import torch

import liouville as lv
from liouville.cli.train import train as command
from liouville.runs import Plan, Run, Writer
from liouville.runs.choices import DEVICES, DTYPES, INITS, LIFTS
from liouville.train import settings


def test_the_run_folder_is_complete(trained):
    folder, result = trained
    assert result.code == 0
    files = {"config.json", "history.jsonl", "metrics.json", "model.safetensors", "figures", "report.html"}
    assert {p.name for p in folder.iterdir()} == files
    assert {p.name for p in (folder / "figures").iterdir()} == {"training.png", "regions.png", "features.png"}
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in history] == [1, 2]
    metrics = json.loads((folder / "metrics.json").read_text())
    for name in ("train", "validation", "test"):
        assert 0 <= metrics[f"{name}_accuracy"] <= 1 and metrics[f"{name}_loss"] > 0
    assert metrics["seconds"] > 0 and metrics["best_epoch"] in (1, 2) and metrics["stopped"] == "all epochs done"
    config = json.loads((folder / "config.json").read_text())
    assert config["versions"]["torch"] == torch.__version__ and config["versions"]["liouville"] == lv.__version__
    assert config["data"]["label_names"] == ["outer spiral", "inner spiral"] and config["data"]["shape"] == [2]
    assert config["plan"]["data_options"] == {"points": 200} and config["plan"]["threads"] == 1
    network = lv.load(folder / "model.safetensors")
    assert network.body.layers == 4 and metrics["parameters"] == sum(p.numel() for p in network.parameters())


def test_what_is_printed_names_the_network_the_scores_the_folder_and_the_next_command(trained):
    folder, result = trained
    assert "100 training samples, of which 10% are held out for validation, 100 test samples" in result.out
    assert "h2: 4 layers of SymplecticEuler, step h = 0.5 (T = 2), through SeparableHamiltonianField" in result.out
    assert re.search(r"test +\d+\.\d\d % .* read once, now", result.out)
    assert re.search(r"\(import \d+\.\d, data \d+\.\d, train \d+\.\d, figures \d+\.\d, report \d+\.\d\)", result.out)
    assert f"run: {folder}\n" in result.out and f"{folder / 'figures' / 'regions.png'}" in result.out
    assert result.out.endswith(f"next: liouville predict {folder} POINTS.csv\n")
    assert "epoch    2/2" in result.err


def test_the_test_score_is_that_of_the_saved_network(trained):
    folder, _ = trained
    run = Run.open(folder)
    split, network = run.plan.load(), run.network()
    right = ((network(split.x_test).squeeze(-1) >= 0).long() == split.y_test).double().mean()
    assert float(right) == run.metrics["test_accuracy"]


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(train, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert train("--seed", seed, out=name).code == 0
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b != c


def test_config_json_suffices_to_repeat_a_run(train, liouville, tmp_path):
    words = ("--model", "ms2", "--gamma", 0.1, "--lr", 0.01, "--smoothness", 1e-3, "--init", "normal", "--dropout", 0.1)
    assert train(*words, "--dtype", "float64", "--optimizer", "sgd", "--seed", 5).code == 0
    again = tmp_path / "again"
    assert (
        liouville("train", "--like", tmp_path / "run", "--out", again, "--no-figures", "--no-report", "--quiet").code
        == 0
    )
    one, two = (json.loads((folder / "config.json").read_text())["plan"] for folder in (tmp_path / "run", again))
    assert one == two
    assert (again / "model.safetensors").read_bytes() == (tmp_path / "run" / "model.safetensors").read_bytes()


def test_explicit_options_win_over_recipe_preset_and_earlier_run(train, liouville, tmp_path):
    assert train("--preset", "hdnn", "--T", 1.5, "--J", "full", "--head-decay", 0.25).code == 0
    plan = Run.open(tmp_path / "run").plan
    assert (plan.model, plan.T, dict(plan.options), plan.layers) == ("h1", 1.5, {"activation": "tanh", "J": "full"}, 4)
    preset = Plan.of("swiss-roll", "hdnn").settings
    assert plan.settings.penalty == dataclasses.replace(preset.penalty, head_decay=0.25)
    assert (plan.settings.alternate, plan.settings.schedule) == (preset.alternate, preset.schedule)
    words = (
        "--like",
        tmp_path / "run",
        "--T",
        0.5,
        "--model",
        "h2",
        "--scheme",
        "Verlet",
        "--no-figures",
        "--no-report",
        "--quiet",
    )
    assert liouville("train", *words, "--epochs", 1, "--out", tmp_path / "next").code == 0
    run = Run.open(tmp_path / "next")
    assert (run.plan.T, run.plan.model, dict(run.plan.options)) == (0.5, "h2", {"activation": "tanh"})
    assert run.network().body.scheme == lv.Verlet() and run.plan.settings.alternate == preset.alternate


@pytest.mark.parametrize(
    "words",
    [
        ("--engine", "checkpointed", "--dtype", "bfloat16"),
        ("--model", "verlet", "--shared", "--activation", "relu"),
        ("--model", "leapfrog", "--lift", "linear", "--features", "6"),
        (
            "--data",
            "double-moons",
            "--batch-size",
            "20",
            "--patience",
            "1",
            "--max-grad-norm",
            "1",
            "--ema-decay",
            "0.9",
        ),
    ],
    ids=lambda words: words[1],
)
def test_options_reach_the_network_and_its_training(train, words):
    assert train(*words).code == 0


def test_the_engines_agree(train, tmp_path):
    for engine in ("stored", "checkpointed", "reversible"):
        assert train("--engine", engine, "--dtype", "float64", out=engine).code == 0
    losses = [Run.open(tmp_path / e).metrics["test_loss"] for e in ("stored", "checkpointed", "reversible")]
    assert losses[1:] == pytest.approx([losses[0]] * 2, rel=1e-10)


def test_real_valued_targets_train_a_regressor_and_draw_predictions(liouville, tmp_path):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    words = ("train", "--data", "diabetes", "--layers", 2, "--epochs", 2, "--threads", 1, "--out", tmp_path / "run")
    result = liouville(*words)
    assert result.code == 0 and re.search(r"test +-?\d\.\d{4} ", result.out)
    assert "test_r2" in Run.open(tmp_path / "run").metrics
    assert {p.name for p in (tmp_path / "run" / "figures").iterdir()} == {"training.png", "predictions.png"}


def test_without_out_the_next_free_folder_is_taken(liouville, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("train", "--layers", 2, "--epochs", 1, "-d", "points=100", "--no-figures", "--no-report", "--quiet")
    assert [liouville(*words).out for _ in range(2)] == ["runs/swiss-roll-h2-1\n", "runs/swiss-roll-h2-2\n"]
    assert not (tmp_path / "runs" / "swiss-roll-h2-1" / "figures").exists()


def test_force_replaces_a_run_and_leaves_what_is_not_its_own(train, tmp_path):
    assert train("--svg").code == 0
    (tmp_path / "run" / "notes.txt").write_text("mine")
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    assert train("--force", "--seed", 9).code == 0
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"
    assert (tmp_path / "run" / "model.safetensors").read_bytes() != before
    assert len((tmp_path / "run" / "history.jsonl").read_text().splitlines()) == 2


def test_missing_matplotlib_costs_the_figures_alone(liouville, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    words = ("train", "--layers", 2, "--epochs", 1, "-d", "points=100", "--out", tmp_path / "run")
    result = liouville(*words)
    assert result.code == 0 and "pip install 'liouville[report]'" in result.err
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_interruption_keeps_the_best_weights_so_far(train, tmp_path, monkeypatch):
    write = Writer.epoch

    def interrupt(self, history):
        write(self, history)
        if len(history.epochs) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Writer, "epoch", interrupt)
    result = train("--epochs", 5)
    assert result.code == 130
    assert re.fullmatch(
        r"liouville: interrupted in epoch 3 of 5\. The best weights so far, those of epoch \d, are in \S+run\.\n",
        result.err,
    )
    run = Run.open(tmp_path / "run")
    assert run.metrics["stopped"] == "interrupted in epoch 3 of 5" and "test_loss" not in run.metrics
    split = run.plan.load()
    held = split.holdout(0.1, torch.Generator().manual_seed(0))
    measured = lv.train.evaluate(run.network(), *held[2:], lv.train.Task("logistic", 2))["loss"]
    assert measured == pytest.approx(min(r["validation_loss"] for r in run.history()), rel=1e-6)


def test_divergence_exits_1_and_leaves_a_network_that_loads(train, tmp_path):
    result = train("--lr", 1e6)
    assert result.code == 1 and result.err.count("\n") == 1
    assert re.search(r"training diverged: the loss is \S+ at step \d of epoch \d", result.err)
    assert re.search(r"layer \d", result.err) and "the margin h x rate is" in result.err
    run = Run.open(tmp_path / "run")
    assert run.metrics["stopped"].startswith("training diverged") and run.network().body.layers == 4
    assert all(p.isfinite().all() for p in run.network().parameters())


def test_help_names_exactly_what_there_is():
    shown = {option.name: option.metavar for option in command.params if getattr(option, "metavar", None)}
    for name, known in (
        ("lift", LIFTS),
        ("init", INITS),
        ("dtype", DTYPES),
        ("device", (*DEVICES, "cuda:1")),
        ("optimizer", (*settings.OPTIMIZERS, settings.GaussNewton.optimizer)),
        ("head", settings.HEADS),
        ("safeguard", settings.SAFEGUARDS),
        ("schedule", settings.SCHEDULES),
        ("engine", lv.kernels.ENGINES),
    ):
        assert sorted(shown[name].split("|")) == sorted(known)


def test_levels_end_with_the_depth_that_was_asked_for_and_are_in_every_record(train, tmp_path):
    assert train("--layers", 8, "--T", 0.5, "--levels", 3, "--target-score", 0.99).code == 0
    run = Run.open(tmp_path / "run")
    assert run.config["plan"]["levels"] == 3 and run.config["plan"]["settings"]["target_score"] == 0.99
    assert run.network().body.layers == 8
    assert [level["layers"] for level in run.metrics["levels"]] == [[2], [4], [8]]
    assert [record["layers"] for record in run.history()] == [2, 2, 4, 4, 8, 8]
    assert run.metrics["work"] == sum(level["work"] for level in run.metrics["levels"])
    plan = run.plan
    assert plan == Plan.from_dict(plan.as_dict()) and plan.network(plan.load().facts()).body.layers == 2


def test_a_run_without_levels_records_its_work(trained):
    metrics = json.loads((trained[0] / "metrics.json").read_text())
    assert "levels" not in metrics
    assert metrics["work"] == 4 * 2 * (2 * 90 + 10)  # 100 training points, 10 held out, 2 epochs of 4 layers


def test_every_setting_of_training_has_its_option():
    names = {option.name for option in command.params}
    kinds = (settings.Settings, settings.GaussNewton, lv.train.Penalty)
    fields = {f.name for kind in kinds for f in dataclasses.fields(kind)}
    numbers = set(settings.SOLVER)  # which -g sets
    assert numbers <= {f.name for f in dataclasses.fields(settings.GaussNewton)} and not numbers & names
    assert fields - numbers - {"penalty", "bfloat16", "iterations"} <= names
    assert {f.name for f in dataclasses.fields(Plan)} - {"options", "settings", "conv", "table"} <= names


def test_options_of_an_earlier_version_work_and_are_not_shown(liouville, train, tmp_path):
    said = liouville("train", "--help-all").out
    for old, new, value in (
        ("batch", "batch-size", "20"),
        ("clip", "max-grad-norm", "1"),
        ("average", "ema-decay", "0.9"),
    ):
        assert f"--{new} " in said and f"--{old} " not in said and f"--{old}," not in said
        assert train(f"--{old}", value, out=old).code == 0
        name = new.replace("-", "_")
        assert getattr(Run.open(tmp_path / old).plan.settings, name) == float(value)


def test_the_module_runs_as_a_command_and_its_help_imports_no_torch():
    code = "import sys, liouville.__main__ as m; assert m.main(sys.argv[1:]) == 0; assert 'torch' not in sys.modules"
    for words in ([], ["--help"], ["--version"], ["train", "--help"]):
        subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True, timeout=60)
    done = subprocess.run([sys.executable, "-m", "liouville", "--version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, f"liouville {lv.__version__}\n")
    done = subprocess.run([sys.executable, "-m", "liouville", "trian"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "") and "did you mean 'train'?" in done.stderr
