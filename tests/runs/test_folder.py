"""Run folders: written whole or not at all, read back, refused by name when something is wrong with them."""

import json

import pytest
import torch

import liouville as lv
from liouville.runs import Plan, Run, Writer
from liouville.runs.folder import next_free, require_free


@pytest.fixture
def parts():
    plan = Plan.of("double-moons").changed(layers=2, epochs=2, data_options={"points": 80}, validation=0.2)
    split = plan.load()
    return plan, split, plan.network(split.facts())


@pytest.fixture
def written(parts, tmp_path):
    plan, split, network = parts
    writer = Writer(tmp_path / "run", plan, split.facts(), network)
    history = lv.train.fit(network, split, plan.fit_settings(), on_epoch=writer.epoch)
    writer.finish(network, history)
    return tmp_path / "run", network, history


def test_what_was_written_is_read_back(parts, written):
    plan, split, _ = parts
    path, network, history = written
    run = Run.open(path)
    assert run.plan == plan and run.facts == split.facts()
    assert run.history() == history.records()
    assert {k: run.metrics[k] for k in history.metrics} == history.metrics
    assert (run.metrics["epochs"], run.metrics["stopped"]) == (2, "all epochs done")
    assert run.facts.tensor("offset") is None
    assert torch.equal(run.network()(split.x_test), network(split.x_test))
    assert sorted(p.name for p in path.iterdir()) == sorted(
        ["config.json", "history.jsonl", "metrics.json", "model.safetensors"]
    )


def test_the_history_grows_while_training_goes_on(parts, tmp_path):
    plan, split, network = parts
    writer = Writer(tmp_path / "run", plan, split.facts(), network)
    lengths = []

    def watch(history):
        writer.epoch(history)
        lengths.append(len(Run.open(tmp_path / "run").history()))

    lv.train.fit(network, split, plan.fit_settings(), on_epoch=watch)
    assert lengths == [1, 2]


def test_what_is_not_finite_becomes_null(parts, tmp_path):
    plan, split, network = parts
    writer = Writer(tmp_path / "run", plan, split.facts(), network)
    history = lv.train.History("accuracy", metrics={"train_loss": float("nan"), "test_loss": float("inf")})
    writer.finish(network, history)
    assert Run.open(tmp_path / "run").metrics["train_loss"] is None


def test_the_transform_of_raw_inputs_is_kept_to_the_last_bit(tmp_path):
    pytest.importorskip("sklearn")
    split = lv.data.load("wine")
    plan = Plan.of("wine").changed(layers=2)
    Writer(tmp_path / "run", plan, split.facts(), plan.network(split.facts()))
    run = Run.open(tmp_path / "run")
    for name in ("offset", "scale"):
        assert torch.equal(run.facts.tensor(name), getattr(split, name))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.json", "{", "config.json is damaged: it is not JSON"),
        ("config.json", "[]", "config.json is damaged: it must be an object, got a list of 0."),
        ("config.json", "{}", "is not a run: its config.json has the format None, expected 'liouville-run-1'."),
        (
            "config.json",
            '{"format": "liouville-run-1"}',
            "config.json is damaged: plan must be an object, got nothing.",
        ),
        ("metrics.json", "\xff", "metrics.json is damaged"),
    ],
)
def test_damaged_descriptions_are_named(written, name, text, message):
    path, *_ = written
    (path / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match="run") as caught:
        Run.open(path)
    assert message in str(caught.value)


def test_damaged_histories_plans_and_networks_are_named(written):
    path, *_ = written
    (path / "history.jsonl").write_text("{}\n{")
    with pytest.raises(ValueError, match=r"line 2 of .*history\.jsonl is damaged"):
        Run.open(path).history()
    config = json.loads((path / "config.json").read_text())
    for change in ({"model": "h7"}, {"settings": {"epochs": 0}}, {"nonsense": 1}, {"init": None}):
        (path / "config.json").write_text(json.dumps(config | {"plan": config["plan"] | change}))
        with pytest.raises(ValueError, match=r"unknown model 'h7'|the plan is not one of liouville"):
            _ = Run.open(path).plan
    lv.save(torch.nn.Linear(2, 1), path / "model.safetensors")
    with pytest.raises(ValueError, match="holds a Linear, expected a Network"):
        Run.open(path).network()


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no run folder"):
        Run.open(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"is not a run: it has no config\.json"):
        Run.open(tmp_path)


def test_an_empty_folder_is_free_and_a_full_one_is_not(tmp_path, written):
    path, *_ = written
    require_free(tmp_path / "new")
    (tmp_path / "empty").mkdir()
    require_free(tmp_path / "empty")
    require_free(path, force=True)
    for target, force in ((path, False), (tmp_path, True)):
        with pytest.raises(FileExistsError, match="choose another --out"):
            require_free(target, force)


def test_force_removes_the_files_of_a_run_and_no_other(parts, written):
    path, *_ = written
    (path / "figures").mkdir()
    (path / "figures" / "old.png").write_text("")
    (path / "figures" / "mine.txt").write_text("")
    plan, split, network = parts
    Writer(path, plan, split.facts(), network, force=True).release()
    left = {str(p.relative_to(path)) for p in path.rglob("*") if p.is_file()}
    assert left == {"config.json", "history.jsonl", "figures/mine.txt"}
    assert Run.open(path).metrics == {} and Run.open(path).history() == []


def test_next_free_counts_from_one(tmp_path):
    assert next_free(tmp_path / "runs", "a-b") == tmp_path / "runs" / "a-b-1"
    for k in (1, 2, 4):
        (tmp_path / f"a-{k}").touch()
    assert next_free(tmp_path, "a") == tmp_path / "a-3"
