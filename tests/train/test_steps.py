"""`fit`, step by step: gradients, optimisers, rates and averages against the formulas, computed by hand."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import liouville as lv
from liouville.data import Split
from liouville.train import Penalty, Settings, fit
from train.hand import Adam, Momentum, follow, loss, network, penalty, points, same, watched, weights

EPS = torch.finfo(torch.float64).eps
# One step on all points at once: lr 1, and an update that is the gradient itself (the first momentum is the gradient).
WHOLE = Settings(epochs=1, batch_size=1000, lr=1.0, optimizer="sgd", schedule="constant", validation=0.0)


def gradient(net: nn.Module, x: Tensor, p: Penalty = Penalty()) -> dict[str, Tensor]:
    parameters = dict(net.named_parameters())
    objective = loss(net(x), x) + penalty(net, p)
    return dict(zip(parameters, torch.autograd.grad(objective, list(parameters.values())), strict=True))


def two_flows() -> lv.Network:
    g = torch.Generator().manual_seed(0)
    first, second = lv.zoo.h2(4, 3, T=1.5, generator=g), lv.zoo.h2(6, 5, T=1.0, generator=g)
    body = nn.Sequential(first, lv.Connector(4, 6), second)
    return lv.Network(lv.Lift(4), body, nn.Linear(6, 1)).double()


@pytest.mark.parametrize("build", [network, two_flows])
@pytest.mark.parametrize("scaling", ["depth", "hdnn", "sum"])
@pytest.mark.parametrize("terms", [(0.0, 0.0, 0.0), (0.3, 0.0, 0.0), (0.0, 0.2, 0.0), (0.0, 0.0, 0.7), (0.3, 0.2, 0.7)])
def test_one_step_of_sgd_is_minus_the_gradient_of_loss_and_penalty(build, scaling: str, terms: tuple) -> None:
    data, net, p = points(), build(), Penalty(*terms, scaling=scaling)
    before, g = weights(net), gradient(net, data.x_train, p)
    objective = float(loss(net(data.x_train), data.x_train).detach()), float(penalty(net, p).detach())
    (epoch,) = fit(net, data, replace(WHOLE, penalty=p)).epochs
    size = max(float(v.abs().max()) for v in g.values())
    same(weights(net), {name: before[name] - g[name] for name in before}, 1e3 * EPS * max(1.0, size))
    # what the history says of the step: loss and penalty apart, the norm of the whole gradient, the rate
    assert (epoch.loss, epoch.penalty) == pytest.approx(objective, rel=1e-12)
    assert epoch.gradient_norm == pytest.approx(math.sqrt(sum(float(v.square().sum()) for v in g.values())), rel=1e-12)


@pytest.mark.parametrize("clip", [1e-3, 0.1, 1e3])
def test_clipping_shortens_the_whole_gradient_and_never_lengthens_it(clip: float) -> None:
    data, net = points(), network()
    before, g = weights(net), gradient(net, data.x_train)
    norm = math.sqrt(sum(float(v.square().sum()) for v in g.values()))
    assert 0.1 < norm < 1e3
    (epoch,) = fit(net, data, replace(WHOLE, max_grad_norm=clip)).epochs
    factor = min(1.0, clip / norm)
    # torch divides by norm + 1e-6
    same(weights(net), {name: before[name] - factor * g[name] for name in before}, 2e-6 * factor * norm)
    assert epoch.gradient_norm == pytest.approx(norm, rel=1e-12), "the norm before clipping"


OPTIMIZERS = {
    "sgd": ({"optimizer": "sgd"}, Momentum),
    "adam": ({"optimizer": "adam"}, lambda: Adam(0.95)),
    "adam, 0.999": ({"optimizer": "adam", "beta2": 0.999}, lambda: Adam(0.999)),
    "adam, 0.5": ({"optimizer": "adam", "beta2": 0.5}, lambda: Adam(0.5)),
    "adamw, 0": ({"optimizer": "adamw"}, lambda: Adam(0.95)),
    "adamw": ({"optimizer": "adamw", "weight_decay": 0.5, "beta2": 0.9}, lambda: Adam(0.9, 0.5)),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_by_formula(name: str) -> None:
    """Five steps on batches, with a penalty; Adam divides by sqrt(v) + 1e-8, which makes eps at most eps/1e-8."""
    options, update = OPTIMIZERS[name]
    net, p, lr = network(), Penalty(smoothness=0.1, decay=0.2, head_decay=0.3), 0.05
    twin = copy.deepcopy(net)
    settings = Settings(epochs=5, batch_size=1000, lr=lr, schedule="constant", validation=0.0, penalty=p, **options)
    run = watched(net, points(), settings)
    assert len(run.batches) == 5
    follow(twin, run.batches, update(), lambda _: (lr, lr), p)
    same(weights(net), weights(twin), 5 * lr * EPS / 1e-8)


def one_cycle(k: int, steps: int, warmup: float) -> float:
    """A cosine from 1/25 up to 1 over the first ``warmup`` of the steps, and one down to 0 over the others."""
    t = k / steps
    if t < warmup:
        return 1 / 25 + 24 / 25 * math.sin(math.pi / 2 * t / warmup) ** 2
    return math.cos(math.pi / 2 * (t - warmup) / (1 - warmup)) ** 2


def factors(schedule: str, epochs: int, per_epoch: int, warmup: float) -> list[float]:
    """The factor of the learning rate in every step."""
    steps = epochs * per_epoch
    return {
        "constant": [1.0] * steps,
        "step": [0.8 ** (k // per_epoch) for k in range(steps)],
        "cosine": [(1 + math.cos(math.pi * k / steps)) / 2 for k in range(steps)],
        "one-cycle": [one_cycle(k, steps, warmup) for k in range(steps)],
    }[schedule]


@pytest.mark.parametrize("head_lr", [None, 0.02, 0.9])
@pytest.mark.parametrize("schedule", ["constant", "step", "cosine", "one-cycle"])
def test_schedules_by_formula(schedule: str, head_lr: float | None) -> None:
    """4 epochs of 3 steps, the last one of each with fewer points; head and body have one schedule and two rates."""
    net, lr = network(), 0.3
    twin = copy.deepcopy(net)
    settings = Settings(4, 10, lr, head_lr, "sgd", schedule=schedule, warmup=0.3, validation=0.0)
    run = watched(net, points(25), settings)
    assert [len(x) for x in run.batches] == [10, 10, 5] * 4
    rates = factors(schedule, 4, 3, 0.3)
    follow(twin, run.batches, Momentum(), lambda k: (lr * rates[k], (head_lr or lr) * rates[k]), Penalty())
    same(weights(net), weights(twin), 1e4 * EPS)


@pytest.mark.parametrize(("epochs", "warmup"), [(9, 0.1), (1, 0.5), (1, 0.0), (2, 0.5), (3, 0.0), (3, 0.99), (10, 0.1)])
def test_a_warm_up_of_any_length(epochs: int, warmup: float) -> None:
    """Also one that is shorter than a step, or all of the run: every rate lies in (0, lr]; SGD's steps show it."""
    net, rates = nn.Sequential(nn.Linear(2, 1)).double(), []
    run = watched(net, points(180), replace(WHOLE, epochs=epochs, schedule="one-cycle", warmup=warmup, lr=1e-6))
    expected = factors("one-cycle", epochs, 1, warmup)
    bias = [float(state["0.bias"]) for state in run.behind]
    velocity, last = 0.0, None
    for x, now in zip(run.batches, bias, strict=True):
        scores = net(x).detach()  # lr 1e-6: the gradient of every step is that of the last weights, to about 1e-6
        velocity = 0.9 * velocity + float((scores.sigmoid()[:, 0] - (x[:, 0] * x[:, 1] > 0).double()).mean())
        rates.append(None if last is None else (last - now) / velocity / 1e-6)
        last = now
    assert rates[1:] == pytest.approx(expected[1:], rel=1e-3, abs=1e-4)
    assert all(0 < rate <= 1 for rate in expected)


def test_every_epoch_sees_every_point_once_in_an_order_of_its_own() -> None:
    data = points(25)
    run = watched(network(), data, replace(WHOLE, epochs=2, batch_size=10, lr=0.1))
    first, second = torch.cat(run.batches[:3]), torch.cat(run.batches[3:])
    for seen in (first, second):
        assert torch.equal(seen[seen[:, 0].argsort()], data.x_train[data.x_train[:, 0].argsort()])
    assert not torch.equal(first, second)


def test_validation_points_are_not_trained_on() -> None:
    data = points(40)
    run = watched(network(), data, replace(WHOLE, epochs=3, lr=0.1, validation=0.25))
    seen = {tuple(row) for x in run.batches for row in x.tolist()}
    assert len(seen) == 30
    assert seen < {tuple(row) for row in data.x_train.tolist()}


class Normalised(nn.Module):
    """A lift with buffers: batch normalisation in front of a linear map."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.map = nn.BatchNorm1d(2), nn.Linear(2, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.map(self.norm(x))


def normalised() -> lv.Network:
    return lv.Network(Normalised(), network().body, nn.Linear(4, 1)).double()


@pytest.mark.parametrize("build", [network, normalised])
@pytest.mark.parametrize("average", [0.3, 0.9])
def test_the_moving_average_by_hand(build, average: float) -> None:
    """a <- f a + (1 - f) w with f = min(average, (1 + t)/(10 + t)) behind step t; buffers are those of the network."""
    net = build()
    held = {name: value.clone() for name, value in net.state_dict().items()}
    parameters = set(dict(net.named_parameters()))
    run = watched(net, points(25), replace(WHOLE, epochs=4, batch_size=10, lr=0.3, ema_decay=average))
    assert len(run.behind) == 12
    for t, now in enumerate(run.behind, 1):
        f = min(average, (1 + t) / (10 + t))
        for name in held:
            held[name] = f * held[name] + (1 - f) * now[name] if name in parameters else now[name]
    same(dict(net.state_dict()), held, 100 * EPS)
    with pytest.raises(AssertionError, match="differs"):  # the last step's weights are something else
        same(dict(net.state_dict()), run.behind[-1], 1e-3)


def test_the_average_is_what_is_validated_and_returned() -> None:
    data, net = points(60), normalised()
    run = watched(net, data, replace(WHOLE, epochs=6, batch_size=10, lr=0.3, ema_decay=0.9, validation=0.2))
    seen = {tuple(row) for x in run.batches for row in x.tolist()}
    kept = torch.tensor([tuple(row) not in seen for row in data.x_train.tolist()])
    x = data.x_train[kept]
    assert len(x) == 12
    best = run.history.epochs[run.history.best_epoch - 1]
    assert float(loss(net(x), x).detach()) == pytest.approx(best.validation_loss, rel=1e-12)
    assert best.validation_loss == min(e.validation_loss for e in run.history.epochs)


def test_averaging_does_not_touch_the_steps() -> None:
    runs = [watched(network(), points(), replace(WHOLE, epochs=3, batch_size=10, ema_decay=a)) for a in (0.0, 0.9)]
    for plain, averaged in zip(runs[0].behind, runs[1].behind, strict=True):
        same(averaged, plain, 0.0)


@pytest.mark.parametrize("bfloat16", [True, False])
def test_bfloat16_is_for_the_network_in_training_alone(bfloat16: bool) -> None:
    """Scores are bfloat16 in training; weights, gradients, the loss and all evaluations are float32."""
    net, data = network().float(), points(64)
    train, evaluation, gradients = set(), set(), set()
    linear = lv.Network(nn.Linear(2, 4), net.body, net.head)
    g = gradient(linear, data.x_train.float())
    for module in (linear.lift, linear.head):
        module.register_forward_hook(lambda m, _, y: (train if m.training else evaluation).add(y.dtype))
    for w in linear.parameters():
        w.register_hook(lambda g: gradients.add(g.dtype))
    before = weights(linear)
    history = fit(linear, data, replace(WHOLE, bfloat16=bfloat16))
    assert train == {torch.bfloat16 if bfloat16 else torch.float32}
    assert evaluation == gradients == {w.dtype for w in linear.parameters()} == {torch.float32}
    error = max(float((before[n] - w - g[n]).abs().max()) for n, w in weights(linear).items())
    size = max(float(v.abs().max()) for v in g.values())
    assert error < 0.05 * size if bfloat16 else error < 1e-5 * size
    if bfloat16:
        assert error > 1e-5 * size  # bfloat16 keeps 8 bits, float32 24
        assert float(torch.tensor(history.epochs[0].loss).bfloat16()) != history.epochs[0].loss


def test_penalties_stay_in_full_precision_beside_bfloat16() -> None:
    net, data, p = network().float(), points(), Penalty(1e-2, 1e-2, 1e-2)
    expected = float(penalty(net, p).detach())
    (epoch,) = fit(net, data, replace(WHOLE, bfloat16=True, penalty=p)).epochs
    assert epoch.penalty == pytest.approx(expected, rel=1e-5)


def test_weights_that_do_not_require_a_gradient_stay() -> None:
    net = network()
    net.body.field.K_p.requires_grad_(False)
    before = weights(net)
    fit(net, points(), replace(WHOLE, epochs=2, optimizer="adamw", weight_decay=0.1, penalty=Penalty(1.0, 1.0, 1.0)))
    after = weights(net)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == set(before) - {"body.field.K_p"}


def test_least_squares_step() -> None:
    """Targets (samples, 2): half the squared error, summed over the outputs, mean over the samples."""
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(20, 3, generator=g).double(), torch.randn(20, 2, generator=g).double()
    net = nn.Sequential(nn.Linear(3, 2)).double()
    W, b = net[0].weight.detach().clone(), net[0].bias.detach().clone()
    fit(net, Split(x, y, x, y, name="plane", classes=0), WHOLE)
    error = x @ W.T + b - y
    assert torch.allclose(net[0].weight, W - error.T @ x / 20, atol=100 * EPS, rtol=0)
    assert torch.allclose(net[0].bias, b - error.mean(0), atol=100 * EPS, rtol=0)
