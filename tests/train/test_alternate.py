"""The alternation against a loop written by hand: a fresh head on every batch, one step of the rest, a head anew."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import liouville as lv
from liouville.train import Penalty, Settings, Task, alternate, fit
from train.hand import Adam, loss, network, penalty, points, same, watched, weights

EPS = torch.finfo(torch.float64).eps
HEAD = Settings(epochs=3, batch_size=1000, lr=0.1, optimizer="sgd", schedule="constant", validation=0.0, alternate=4)


def head_by_hand(net: lv.Network, batches: list[tuple[Tensor, Tensor]], lr: float, decay: float) -> None:
    """A zero head, and one step of Adam (betas 0.9 and 0.999) on every batch of features: loss + decay/2 |head|^2."""
    w = {name: value.data.zero_() for name, value in net.head.named_parameters()}
    update = Adam(0.999)
    for features, x in batches:
        objective = loss(net.head(features), x) + decay / 2 * sum(p.square().sum() for p in net.head.parameters())
        gradients = torch.autograd.grad(objective, list(net.head.parameters()))
        update(w, dict(zip(w, gradients, strict=True)), dict.fromkeys(w, lr))


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("decay", [0.0, 0.5])
@pytest.mark.parametrize("head_lr", [None, 0.4])
def test_alternation_by_hand(head_lr: float | None, decay: float, steps: int) -> None:
    """Per batch: a head from zero, ``steps`` Adam steps with the features held; then one step of all but the head."""
    net, lr, data = network(), 0.1, points()
    settings = Settings(
        epochs=3,
        batch_size=1000,
        lr=lr,
        head_lr=head_lr,
        optimizer="sgd",
        schedule="constant",
        penalty=Penalty(smoothness=0.1, head_decay=decay),
        alternate=steps,
        validation=0.0,
    )
    twin = copy.deepcopy(net)
    nn.init.normal_(net.head.weight)  # what the head was before plays no part
    run = watched(net, data, settings)
    velocity: dict[str, Tensor] = {}
    for epoch, x in enumerate(run.batches):
        with torch.no_grad():
            features = twin.features(x)
        head_by_hand(twin, [(features, x)] * steps, head_lr or lr, decay)
        body = dict(twin.body.named_parameters())
        objective = loss(twin(x), x) + penalty(twin, settings.penalty)
        assert run.history.epochs[epoch].loss == pytest.approx(float(loss(twin(x), x).detach()), rel=1e-6)
        for (name, w), g in zip(body.items(), torch.autograd.grad(objective, list(body.values())), strict=True):
            velocity[name] = 0.9 * velocity.get(name, 0.0) + g
            w.data -= lr * velocity[name]
        same(run.behind[epoch], weights(twin), 1e-6)  # Adam's first step, g/(|g| + 1e-8), magnifies rounding
    with torch.no_grad():
        features = twin.features(data.x_train)
    head_by_hand(twin, [(features, data.x_train)] * settings.epochs, head_lr or lr, decay)
    same(weights(net), weights(twin), 1e-6)


def test_the_last_head_is_fitted_batch_by_batch_on_what_evaluation_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without dropout: its features are those that the returned network puts out; one pass per epoch, shuffled."""
    net, data, batches = network(dropout_rate=0.4), points(), []
    gradients = alternate._gradients

    def see(network: lv.Network, features: Tensor, *rest: object) -> object:
        if not net.training:
            batches.append(features.clone())
        return gradients(network, features, *rest)

    monkeypatch.setattr(alternate, "_gradients", see)
    settings = Settings(epochs=3, batch_size=10, lr=0.1, alternate=2, validation=0.0, penalty=Penalty(head_decay=0.2))
    fit(net, data, settings)
    assert [len(batch) for batch in batches] == [10, 10, 5] * 3
    after = weights(net)
    with torch.no_grad():
        features = net.features(data.x_train)  # evaluation mode, as `fit` left it
    rows = [(batch[:, None] == features).all(-1) for batch in batches]
    assert all((row.sum(1) == 1).all() for row in rows)
    order = [row.double().argmax(1) for row in rows]
    for epoch in range(3):
        assert torch.equal(torch.cat(order[3 * epoch : 3 * epoch + 3]).sort().values, torch.arange(25))
    assert not torch.equal(torch.cat(order[:3]), torch.cat(order[3:6]))
    head_by_hand(net, [(features[i], data.x_train[i]) for i in order], 0.1, 0.2)
    same(weights(net), after, 1e-6)


@pytest.mark.parametrize("task", [Task("logistic", 2), Task("softmax", 3), Task("least-squares", 0)])
def test_a_linear_head_has_the_gradient_of_autograd(task: Task) -> None:
    """In closed form, against the same head behind a module without weights, which autograd differentiates."""
    g = torch.Generator().manual_seed(0)
    outputs = {"logistic": 1, "softmax": 3, "least-squares": 2}[task.kind]
    features = torch.randn(50, 4, generator=g).double()
    y = torch.randint(task.classes, (50,), generator=g) if task.classes else torch.randn(50, 2, generator=g).double()
    linear = nn.Linear(4, outputs).double()
    settings = Settings(alternate=1, penalty=Penalty(head_decay=0.3))
    closed, graph = (
        alternate._gradients(lv.Network(lv.Lift(4), nn.Identity(), head), features, y, task, settings)
        for head in (linear, nn.Sequential(nn.Identity(), linear))
    )
    for a, b in zip(closed, graph, strict=True):
        bound = 50 * EPS * float(features.abs().max() + linear.weight.detach().abs().max())  # a sum over 50 samples
        assert float((a - b).abs().max()) <= bound


def test_batch_normalisation_counts_every_batch_once() -> None:
    """The head's own pass over a batch leaves the statistics of the lift alone."""
    net = lv.Network(nn.BatchNorm1d(2), nn.Sequential(lv.Lift(4), network().body), nn.Linear(4, 1)).double()
    run = watched(net, points(), Settings(epochs=3, batch_size=10, lr=0.1, alternate=2, validation=0.0))
    assert [int(state["lift.num_batches_tracked"]) for state in run.behind] == list(range(1, 10))


def test_alternation_needs_a_head() -> None:
    with pytest.raises(ValueError, match="needs a liouville Network"):
        fit(torch.nn.Sequential(torch.nn.Linear(2, 1)).double(), points(), HEAD)
