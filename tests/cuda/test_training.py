"""On a GPU, pretended or real: training as on the CPU, what the host waits for, and steps that are recorded."""

import functools
import math

import pytest
import torch

import liouville as lv
from liouville.data import Split
from liouville.train import DivergenceError, GaussNewton, Penalty, Settings, evaluation, fit, gauss_newton, multilevel
from liouville.train.capture import CapturedStep
from measure import generator

FEW = Settings(epochs=2, batch_size=40, lr=0.01)


@functools.cache
def _moons():
    return lv.data.load("double-moons", points=120).to(dtype=torch.float64)


def _network(**more):
    more = {"layers": 4, "T": 1.0, "backprop": lv.Stored(), **more}
    return lv.classifier("h2", inputs=2, classes=2, features=4, generator=generator(0), **more).double()


@functools.cache
def _pictures():
    x = torch.randn(90, 1, 8, 8, generator=generator(3), dtype=torch.float64)
    y = torch.arange(90) % 3
    return Split(name="noise", x_train=x[:60], y_train=y[:60], x_test=x[60:], y_test=y[60:], classes=3)


def _pictured(**more):
    conv = lv.zoo.Images()
    return lv.classifier("h2", (1, 8, 8), 3, (4, 6), (2, 2), 0.4, conv=conv, generator=generator(0), **more).double()


def _both(make, split, train):
    """The history and the weights of the same training here and there."""
    found = []
    for device in ("cpu", "cuda"):
        network = make().to(device)
        history = train(network, split)
        assert {p.device.type for p in network.parameters()} == {device}
        found.append((history, [p.detach().cpu() for p in network.parameters()]))
    return found


def _require_same(here, there, tolerance=1e-9):
    """In a few steps from one start; where a GPU sums in another order, Adam divides by what that changes."""
    for name, value in here[0].metrics.items():
        if name != "seconds":
            assert there[0].metrics[name] == pytest.approx(value, abs=1e-6)
    for a, b in zip(here[1], there[1], strict=True):
        assert float((a - b).abs().max()) <= tolerance * max(1.0, float(a.abs().max()))


ALL = Penalty(smoothness=1e-3, decay=1e-3, head_decay=1e-3, variation=1e-3, l1=1e-4)
CASES = {
    "plain": (_network, FEW),
    "everything": (
        _network,
        Settings(
            epochs=2, batch_size=40, max_grad_norm=0.1, ema_decay=0.9, patience=3, target_score=0.999, penalty=ALL
        ),
    ),
    "sgd and a bound": (
        _network,
        Settings(epochs=1, batch_size=60, optimizer="sgd", penalty=Penalty(soft_budget=2.0)),
    ),
    "alternation": (_network, Settings(epochs=1, batch_size=60, alternate=2, schedule="step")),
    "reversible": (lambda: _network(backprop=lv.Reversible()), Settings(epochs=1, batch_size=60)),
    "a budget": (lambda: _network(budget=2.0), Settings(epochs=1, batch_size=60)),
}


@pytest.mark.parametrize("case", CASES)
def test_fit_trains_as_on_the_cpu(cuda, case):
    make, settings = CASES[case]
    _require_same(*_both(make, _moons(), lambda network, split: fit(network, split, settings)))


def test_dropout_draws_from_the_devices_stream_and_trains(cuda):
    network = _network(dropout_rate=0.2).to("cuda")
    history = fit(network, _moons(), FEW)
    assert all(math.isfinite(e.loss) for e in history.epochs)


def test_images_shifted_and_warped(cuda):
    settings = Settings(epochs=1, batch_size=20, shift=1, warp=1.0, penalty=Penalty(head_smoothness=1e-3))
    _require_same(*_both(_pictured, _pictures(), lambda network, split: fit(network, split, settings)))


@pytest.mark.slow
def test_levels_and_gauss_newton(cuda):
    _require_same(*_both(_network, _moons(), lambda network, split: multilevel(network, split, FEW, levels=2)))
    second = GaussNewton(iterations=2)
    _require_same(*_both(_network, _moons(), lambda network, split: gauss_newton(network, split, second)), 1e-6)


@pytest.mark.parametrize(
    ("make", "a_step"),
    [
        (_network, 0),
        (lambda: _network(backprop=lv.Reversible()), 0),
        (lambda: _network(backprop=lv.Reversible(exact=True)), 2),  # whether the grid is wide enough
        (lambda: _network(budget=2.0), 2),  # weights to the CPU, their gradients back
    ],
    ids=["stored", "reversible", "exact", "budget"],
)
def test_what_a_step_of_training_waits_for(cuda, make, a_step):
    """Two steps more: the rest of a training waits as often as before."""

    def waits(batch_size):
        network = make().to("cuda")
        fit(network, _moons(), Settings(epochs=1, batch_size=30))  # trials of a first run
        return cuda.waits(lambda: fit(network, _moons(), Settings(epochs=1, batch_size=batch_size)))

    assert waits(15) - waits(30) == 2 * a_step


def test_many_steps_are_read_in_one_transfer(cuda, monkeypatch):
    monkeypatch.setattr("liouville.train.readings.READ_EVERY", 2)
    network = _network().to("cuda")
    often = cuda.waits(lambda: fit(network, _moons(), Settings(epochs=1, batch_size=15)))
    monkeypatch.setattr("liouville.train.readings.READ_EVERY", 50)
    seldom = cuda.waits(lambda: fit(network, _moons(), Settings(epochs=1, batch_size=15)))
    assert often - seldom == 1  # after two steps and after four, against once at the end


def test_a_divergence_is_noticed_late_and_told_by_its_step(cuda):
    settings = Settings(epochs=2, batch_size=15, lr=1e200, schedule="constant", validation=0.0)
    with pytest.raises(DivergenceError, match=r"at step \d+ of epoch \d \(noticed at step"):
        fit(_network().to("cuda"), _moons(), settings)


def test_callbacks_are_told_every_loss(cuda):
    class Losses(lv.train.Callback):
        def __init__(self):
            self.seen = []

        def on_train_batch_end(self, loss):
            self.seen.append(loss)

    here, there = Losses(), Losses()
    fit(_network(), _moons(), FEW, callbacks=[here])
    fit(_network().to("cuda"), _moons(), FEW, callbacks=[there])
    assert there.seen == pytest.approx(here.seen)


def test_a_set_is_evaluated_in_parts_of_the_devices_memory(cuda, monkeypatch):
    network, x = _network().to("cuda"), torch.zeros(2500, 2, dtype=torch.float64).to("cuda")
    assert evaluation._samples_at_once(network.cpu(), x.cpu()) == 1000
    assert evaluation._samples_at_once(network.cpu(), torch.zeros(2500, 1, 4, 4)) == 200
    assert evaluation._samples_at_once(network.to("cuda"), x) >= 2500
    monkeypatch.setattr(evaluation, "memory_share", lambda *_: 64 * 32 * 2000)  # 64 states of 4 numbers of 8 bytes
    assert evaluation._samples_at_once(network, x) == 2000


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (_network, Settings(epochs=3, batch_size=18, lr=0.01, max_grad_norm=0.1, ema_decay=0.9, penalty=ALL)),
        (lambda: _network(backprop=lv.Reversible()), Settings(epochs=2, batch_size=25, optimizer="adamw")),
    ],
    ids=["stored", "reversible, with a rest"],
)
def test_a_recorded_step_trains_as_one_that_is_not(cuda, make, settings):
    """The rates are numbers of float32 there, a batch of another size runs as it is, and it is recorded once."""
    recordings = []
    record = lv.train.capture.record

    def counted(step):
        recordings.append(step)
        return record(step)

    found = []
    for capture in (False, True):
        network = make().to("cuda")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("liouville.train.capture.record", counted)
            history = fit(network, _moons(), lv.train.Settings(**vars(settings) | {"capture": capture}))
        found.append((history, [p.detach().cpu() for p in network.parameters()]))
    assert len(recordings) == 1
    _require_same(*found, tolerance=100 * torch.finfo(torch.float32).eps)


@pytest.mark.filterwarnings("default::liouville.DriftWarning")
def test_drift_in_a_recorded_step_is_noticed_when_it_is_read(cuda):
    start = lv.fields.Smooth(action=None)  # one that T is too long for
    make = functools.partial(_network, layers=32, T=75.0, init=start, backprop=lv.Reversible())
    settings = Settings(epochs=1, batch_size=18, lr=1e-6, rates="plain", capture=True, validation=0.1)
    network = make().float().to("cuda")
    with pytest.warns(lv.DriftWarning, match="lost half of the digits"):
        fit(network, _moons().to(dtype=torch.float32), settings)


@pytest.mark.parametrize(
    ("make", "settings", "why"),
    [
        (lambda: _network(dropout_rate=0.2), {}, "draws its noise on the host"),
        (_network, {"alternate": 2}, "an alternation makes a fresh head"),
        (_network, {"optimizer": "sgd"}, "adam and adamw take"),
        (_network, {"batch_size": 1000}, "are no whole batch of 1000"),
        (lambda: _network(budget=2.0), {"batch_size": 18}, "this step waits for the device"),
        (lambda: _network(backprop=lv.Reversible(exact=True)), {"batch_size": 18}, "this step waits for the device"),
    ],
    ids=["noise", "alternation", "sgd", "batch", "budget", "exact"],
)
def test_what_cannot_be_recorded_is_refused_in_a_sentence(cuda, make, settings, why):
    settings = Settings(**{"epochs": 1, "batch_size": 40, "capture": True, **settings})
    with pytest.raises(
        ValueError, match=r"Settings\(capture=True\) records a step as a CUDA graph and repeats it, but"
    ):
        try:
            fit(make().to("cuda"), _moons(), settings)
        except ValueError as error:
            assert why in str(error)
            raise


def test_recording_needs_cuda():
    with pytest.raises(ValueError, match="the network is on the device cpu"):
        fit(_network(), _moons(), Settings(epochs=1, capture=True))


def test_a_recorded_step_is_written_where_it_stood(cuda):
    """Weights, gradients, batch and numbers keep their places from one repetition to the next."""
    network = _network().to("cuda")
    places = []
    call = CapturedStep.__call__

    def noted(self, x, y):
        row = call(self, x, y)
        if self._x is not None:
            held = [self._x, self._y, self._row, *self._rates, *(p.grad for p in network.parameters())]
            places.append([id(t) for t in held])
        return row

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CapturedStep, "__call__", noted)
        fit(network, _moons(), Settings(epochs=1, batch_size=9, capture=True))
    assert len(places) == 3 and places[0] == places[1] == places[2]
