"""Training as a plan says: the same bits by every door, and the best weights kept whatever ends it."""

import dataclasses
import pickle
import signal

import pytest
import torch

import liouville as lv
from liouville import runs
from liouville.runs import Plan, Run
from liouville.runs.execute import settled, trained
from liouville.train import GaussNewton, MultilevelHistory, Penalty, Processes, Progress, Settings
from runs import own

SMALL = {"layers": 4, "T": 2.0, "epochs": 2, "data_options": {"points": 120}, "threads": 1}
PLANS = {
    "gradients": Plan.of("swiss-roll").changed(batch_size=30, **SMALL),
    "levels": Plan.of("swiss-roll").changed(levels=2, **SMALL | {"T": 0.5}),
    "gauss-newton": Plan.of("swiss-roll").changed(optimizer="gauss-newton", **SMALL | {"epochs": 1}),
    "bfloat16, dropout": Plan.of("double-moons").changed(dtype="bfloat16", dropout=0.1, batch_size=30, **SMALL),
}


def weights(network):
    return torch.nn.utils.parameters_to_vector(network.parameters()).detach()


def numbers(value):
    """Without times."""
    if isinstance(value, list):
        return [numbers(v) for v in value]
    return {k: numbers(v) for k, v in value.items() if k != "seconds"} if isinstance(value, dict) else value


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_every_door_gives_the_same_bits(plan, tmp_path):
    """The functions of `lv.train` by hand, `trained`, `train` in memory and `train` into a folder."""
    with settled(plan):
        split, settings = plan.load(), plan.fit_settings()
        hand, mine = plan.network(split.facts()), plan.network(split.facts())
        if plan.levels > 1:
            lv.train.multilevel(hand, split, settings, levels=plan.levels)
        else:
            (lv.train.gauss_newton if isinstance(settings, GaussNewton) else lv.train.fit)(hand, split, settings)
        history = trained(plan, mine, split)
    assert isinstance(history, MultilevelHistory) == (plan.levels > 1)
    memory, folder = runs.train(plan), runs.train(plan, out=tmp_path / "run")
    for network in (mine, memory.network(), folder.network(), Run.open(tmp_path / "run").network()):
        assert torch.equal(weights(network), weights(hand))
    assert memory.path is None and numbers(memory.metrics) == numbers(folder.metrics)
    for record, epoch in zip(memory.history(), folder.history(), strict=True):
        assert record | {"seconds": 0} == epoch | {"seconds": 0}
    assert memory.plan == folder.plan == Run.open(tmp_path / "run").plan == plan
    assert memory.certificate().holds and folder.certificate().holds


def test_the_command_gives_the_same_run(tmp_path):
    pytest.importorskip("click")
    from cli.conftest import call

    words = (
        "--layers 4 --T 2 --epochs 2 --batch-size 30 -d points=120 --threads 1 --no-figures --no-report --quiet --out"
    )
    assert call("train", *words.split(), tmp_path / "typed").code == 0
    typed, run = Run.open(tmp_path / "typed"), runs.train(PLANS["gradients"], out=tmp_path / "run")
    assert typed.plan == run.plan and numbers(typed.metrics) == numbers(run.metrics)
    model = [(folder / "model.safetensors").read_bytes() for folder in (typed.path, run.path)]
    assert model[0] == model[1]


class Watch(Progress):
    """Calls a function after every epoch; it sees the machine as the training does."""

    def __init__(self, look):
        self.look = look

    def run(self, epochs, steps, score_name):
        import contextlib

        bar = Progress.Bar()
        bar.epoch = lambda record: self.look(record.epoch)
        return contextlib.nullcontext(bar)


def machine():
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    return torch.get_num_threads(), float(torch.tensor(1e-40).mul(0.5)) > 0, handlers


@pytest.mark.parametrize("flush", [True, False])
@pytest.mark.parametrize("end", ["well", "early"])
def test_threads_and_denormals_are_the_plan_s_and_then_as_they_were_and_signals_are_left_alone(flush, end):
    before_threads, seen = torch.get_num_threads(), []

    def look(epoch):
        seen.append(machine())
        if end == "early":
            raise KeyboardInterrupt

    torch.set_num_threads(2)
    torch.set_flush_denormal(flush)
    try:
        before = machine()
        try:
            run = runs.train(dataclasses.replace(PLANS["gradients"], threads=1), progress=Watch(look))
        except runs.Interrupted as stopped:
            run = stopped.run
        assert machine() == before and before[1] == (not flush)
        assert set(map(repr, seen)) == {repr((1, False, before[2]))}
        assert run.config["threads"] == run.plan.threads == 1
        assert runs.train(dataclasses.replace(PLANS["gradients"], threads=None)).plan.threads == 2
    finally:
        torch.set_num_threads(before_threads)
        torch.set_flush_denormal(False)


ENDS = {
    "interrupt": (KeyboardInterrupt(), runs.Interrupted, KeyboardInterrupt),
    "lost process": (ConnectionError("another process is gone."), runs.Failed, RuntimeError),
    "a defect": (KeyError("what"), runs.Failed, RuntimeError),
}


@pytest.mark.parametrize("kept", [True, False], ids=["folder", "memory"])
@pytest.mark.parametrize(("error", "kind", "base"), ENDS.values(), ids=ENDS)
def test_whatever_ends_a_training_its_best_weights_are_kept(tmp_path, error, kind, base, kept):
    def look(epoch):
        if epoch == 3:
            raise error

    plan = PLANS["gradients"].changed(epochs=5)
    with pytest.raises(runs.Stopped) as caught:
        runs.train(plan, out=tmp_path / "run" if kept else None, progress=Watch(look))
    stopped = caught.value
    assert isinstance(stopped, kind) and isinstance(stopped, base) and stopped.__cause__ is error
    assert str(stopped).endswith(f"are in {tmp_path / 'run'}." if kept else "are in memory.")
    run = stopped.run
    records = run.history()
    least = min(range(3), key=lambda k: records[k]["validation_loss"])
    assert len(records) == 3 and stopped.best_epoch == run.metrics["best_epoch"] == least + 1
    assert run.metrics["stopped"] and run.plan == plan and "test_loss" not in run.metrics
    held = plan.load().holdout(0.1, torch.Generator().manual_seed(0))
    found = lv.train.evaluate(run.network(), *held[2:], lv.train.Task("logistic", 2))["loss"]
    assert found == pytest.approx(records[least]["validation_loss"], rel=1e-6)
    if kept:
        assert Run.open(tmp_path / "run").network().facts == run.facts


def test_ctrl_c_passes_by_who_goes_on_after_errors():
    def look(epoch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        try:
            runs.train(PLANS["gradients"], progress=Watch(look))
        except Exception:
            pytest.fail("taken for an error")


def test_a_divergence_leaves_the_initial_weights(tmp_path):
    with pytest.raises(runs.Failed, match="No epoch was completed, so the initial weights are in ") as caught:
        runs.train(PLANS["gradients"].changed(lr=1e9, schedule="constant"), out=tmp_path / "run")
    assert isinstance(caught.value.__cause__, lv.train.DivergenceError) and caught.value.best_epoch == 0
    assert torch.equal(weights(caught.value.run.network()), weights(PLANS["gradients"].network(caught.value.run.facts)))
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value) and again.run.metrics == caught.value.run.metrics


@pytest.mark.parametrize(
    ("plan", "sentence"),
    [
        (own.PLAN.changed(warp=1.0), "shift and warp move images"),
        (own.PLAN.changed(levels=2, validation=0.0), "a level ends by its validation loss"),
    ],
)
def test_bad_input_leaves_nothing_behind(tmp_path, plan, sentence):
    with pytest.raises(ValueError, match=sentence):
        runs.train(plan, own.split(), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_refused_before_data_are_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(Plan, "load", lambda self: pytest.fail("loaded"))
    (tmp_path / "notes").write_text("mine")
    for force in (True, False):
        with pytest.raises(FileExistsError, match="choose another --out"):
            runs.train(PLANS["gradients"], out=tmp_path, force=force)


def test_force_replaces_a_run(tmp_path):
    first = runs.train(PLANS["gradients"], out=tmp_path / "run")
    again = runs.train(PLANS["gradients"].changed(seed=1), out=tmp_path / "run", force=True)
    assert again.plan.seed == 1 and len(again.history()) == len(first.history())


class Second(Processes):
    """Not the first of several, as far as it knows."""

    rank = 1


def test_only_the_first_process_has_the_folder(tmp_path):
    run = runs.train(PLANS["gradients"], out=tmp_path / "run", processes=Second())
    assert run.path is None and list(tmp_path.iterdir()) == [] and run.metrics["epochs"] == 2


class Two(Processes):
    size = 2


def test_second_order_is_for_one_process():
    plan = PLANS["gauss-newton"]
    split = plan.load()
    with pytest.raises(ValueError, match="gauss-newton trains in one process, got 2"):
        trained(plan, plan.network(split.facts()), split, processes=Two())


def test_settings_of_another_kind_are_not_asked_for():
    """`Penalty` and all settings reach `fit`: a plan's run is `fit` with `Plan.fit_settings`."""
    plan = PLANS["gradients"].changed(smoothness=0.3, lr=0.01)
    assert plan.fit_settings() == dataclasses.replace(
        plan.settings, penalty=Penalty(smoothness=0.3, decay=1e-3), lr=0.01, seed=plan.seed
    )
    assert isinstance(plan.fit_settings(), Settings)
