"""Whatever stops being a number is noticed, in the step where it does, and the layer where it does is named."""

from __future__ import annotations

import copy
import math
import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import liouville as lv
from liouville.sealed import opened
from liouville.train import DivergenceError, Penalty, Settings, evaluate, fit
from liouville.train.trainable import task_of
from train.hand import loss, network, points, same, watched, weights

NAN = float("nan")
RUN = Settings(epochs=3, batch_size=10, lr=0.05, schedule="constant", validation=0.0)  # 3 steps an epoch


def poison(weight: nn.Parameter, step: int) -> None:
    """The gradient of this weight is NaN in step ``step`` (from 1) of the run, and as it is in all others."""
    calls = []

    def hook(g: Tensor) -> Tensor:
        calls.append(1)
        return g * NAN if len(calls) == step else g

    weight.register_hook(hook)


@pytest.mark.parametrize("validation", [0.0, 0.2])
@pytest.mark.parametrize("step", [1, 5, 9])
def test_a_gradient_that_is_not_a_number_stops_the_run_in_its_step(step: int, validation: float) -> None:
    """Also in the last of all steps, behind which no loss of a batch would show it."""
    data, net = points(25 if not validation else 31), network()
    settings = replace(RUN, validation=validation)
    poison(net.body.field.K_p, step)
    at = f"at step {(step - 1) % 3 + 1} of epoch {(step - 1) // 3 + 1};"
    before = weights(net)
    with pytest.raises(DivergenceError, match=f"the gradient norm is nan {at}"):
        fit(net, data, settings)
    # what is kept are the best weights behind a whole epoch, or the initial ones
    whole = (step - 1) // 3
    if whole:
        twin = network()
        fit(twin, data, replace(settings, epochs=whole))
        before = weights(twin)
    same(weights(net), before, 0.0)


@pytest.mark.parametrize("terms", [{"decay": 1e38}, {"smoothness": 3e38}, {"head_decay": 3e38}])
def test_a_penalty_that_overflows_stops_the_run(terms: dict) -> None:
    net = network().float()
    nn.init.constant_(net.head.weight, 3.0)
    before = weights(net)
    with pytest.raises(DivergenceError, match="at step 1 of epoch 1"):
        fit(net, points(), replace(RUN, penalty=Penalty(**terms)))
    same(weights(net), before, 0.0)


class NaNInEvaluation(nn.Module):
    """The identity in training; NaN in evaluation from the given evaluation on."""

    def __init__(self, first: int) -> None:
        super().__init__()
        self.left = first

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return x
        self.left -= 1
        return x * NAN if self.left < 0 else x


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_validation_loss_that_is_not_a_number_stops_the_run_behind_its_epoch(epoch: int) -> None:
    net = network()
    net.lift = nn.Sequential(NaNInEvaluation(epoch), net.lift)  # once by task_of, then once an epoch
    run = []
    with pytest.raises(DivergenceError, match=f"the loss is nan at step 3 of epoch {epoch};"):
        fit(net, points(31), replace(RUN, validation=0.2), on_epoch=lambda history: run.append(len(history.epochs)))
    assert run == list(range(1, epoch)), "no record of an epoch that ends without a validation loss"
    assert all(w.isfinite().all() for w in net.parameters())


@pytest.mark.parametrize("average", [0.0, 0.9])
@pytest.mark.parametrize("lr", [1e12, 1e300])
@pytest.mark.parametrize("validation", [0.0, 0.2])
def test_an_explosion_in_the_last_step_stops_the_run(validation: float, lr: float, average: float) -> None:
    """One step, behind which nothing but a last look can tell: the loss of the only batch was fine."""
    net = network()
    before = weights(net)
    with pytest.raises(DivergenceError, match=r"the loss is .* at step 1 of epoch 1;"):
        settings = replace(
            RUN, epochs=1, batch_size=1000, optimizer="sgd", lr=lr, validation=validation, ema_decay=average
        )
        fit(net, points(), settings)
    same(weights(net), before, 0.0)


@pytest.mark.parametrize("share", [0.9, 1.1])
def test_a_loss_a_thousand_times_one_more_than_the_first_has_exploded(share: float) -> None:
    """A linear score, one step of SGD: the loss behind it is close to linear in a large learning rate."""
    data, net = points(), nn.Sequential(nn.Linear(2, 1)).double()
    for w in net.parameters():
        nn.init.zeros_(w)
    x = data.x_train
    gradients = torch.autograd.grad(loss(net(x), x), list(net.parameters()))
    limit = 1e3 * (1 + math.log(2))

    def behind(lr: float) -> float:
        W, b = (-lr * g for g in gradients)
        return float(loss(x @ W.T + b, x))

    lr = share * limit * 1e6 / behind(1e6)
    assert behind(lr) == pytest.approx(share * limit, rel=0.01)
    run = replace(RUN, epochs=1, batch_size=1000, optimizer="sgd", lr=lr)
    if share < 1:
        assert fit(net, data, run).metrics["train_loss"] == pytest.approx(behind(lr), rel=1e-9)
    else:
        with pytest.raises(DivergenceError, match=f"the loss is {behind(lr):.4g} .* the network has no flow"):
            fit(net, data, run)


def implicit(scale: float) -> lv.Network:
    """p' = tanh(scale p): implicit midpoint steps of length h have one solution where h scale < 2."""
    field = lv.ResidualField(2, 3).double()
    with torch.no_grad():
        field.K.copy_(scale * torch.eye(2))
        field.b.zero_()
    return lv.Network(nn.Identity(), lv.Flow(field, lv.ImplicitMidpoint(), T=3.0), nn.Linear(2, 1)).double()


class WeakInEvaluation(nn.Module):
    """Scales what comes by ``training`` or ``evaluation``, by mode."""

    def __init__(self, training: float, evaluation: float) -> None:
        super().__init__()
        self.factors = {True: training, False: evaluation}

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factors[self.training]


@pytest.mark.parametrize("alternate", [0, 2])
def test_an_implicit_layer_without_a_solution_is_a_divergence(alternate: int) -> None:
    """At steep points of tanh there is none; evaluation sees points where tanh is saturated, which have one."""
    data = points()
    net = implicit(4.0)
    net.lift = WeakInEvaluation(1e-3, 100.0)
    before = weights(net)
    with pytest.raises(ArithmeticError, match="no unique solution"):
        net.train()(data.x_train)
    with pytest.raises(DivergenceError, match=r"at step 1 of epoch 1.*no unique solution"):
        fit(net, data, replace(RUN, alternate=alternate))
    same(weights(net), before, 0.0)


@pytest.mark.parametrize("validation", [0.0, 0.2])
def test_an_implicit_layer_without_a_solution_in_evaluation_is_a_divergence(validation: float) -> None:
    data, net = points(), implicit(1.0)
    before = weights(net)
    poisoned = []

    def steep(module: nn.Module, *_: object) -> None:  # in place of an update that does it: K is steep behind step 1
        if module.training and not poisoned:
            poisoned.append(1)
            net.body.field.K.register_hook(lambda g: -1e3 * torch.eye(2, dtype=g.dtype).expand_as(g))

    net.register_forward_pre_hook(steep)
    net.lift = WeakInEvaluation(1.0, 1e-3)
    with pytest.raises(DivergenceError, match="no unique solution"):
        fit(net, data, replace(RUN, epochs=1, batch_size=1000, optimizer="sgd", lr=0.01, validation=validation))
    same(weights(net), before, 0.0)


def test_the_best_weights_survive_and_not_the_latest() -> None:
    data = points(31)
    settings = replace(RUN, epochs=8, lr=0.8, optimizer="sgd", validation=0.2)
    history = fit(network(), data, settings)
    assert history.best_epoch < 8
    twin, net = network(), network()
    fit(twin, data, replace(settings, epochs=history.best_epoch))
    poison(net.body.field.K_p, 24)
    with pytest.raises(DivergenceError):
        fit(net, data, settings)
    same(weights(net), weights(twin), 0.0)


def jump(k: int, part: str) -> lv.Network:
    """p (or q) jumps by h 50 in layer k and comes back by a fifth of it in the next; all other layers do little."""
    net = network(layers=6)
    field = net.body.field
    K, b = (field.K_q, field.b_q) if part == "p" else (field.K_p, field.b_p)
    with torch.no_grad():
        for w in field.parameters():
            w.zero_()
        field.K_p += 0.1 * torch.eye(2)
        field.K_q += 0.1 * torch.eye(2)
        K[k], b[k] = 50 * torch.eye(2), 1e4
        if k < 5:
            K[k + 1], b[k + 1] = -10 * torch.eye(2), 1e4
    return net


@pytest.mark.parametrize("part", ["p", "q"])
@pytest.mark.parametrize("k", [0, 1, 2, 4, 5])
def test_the_layer_behind_which_the_state_is_largest_is_named_with_its_margin(k: int, part: str) -> None:
    """Whichever part of the state it is that grows."""
    net = jump(k, part)
    poison(net.head.weight, 1)
    margins, states = lv.analysis.margin(net.body).detach(), net.body.trajectory(net.lift(points().x_train)).detach()
    with pytest.raises(DivergenceError) as caught:
        fit(net, points(), replace(RUN, batch_size=1000))
    found = re.search(
        r"finite and largest \((.*?)\) behind layer (\d+); .* is (.*?) in layer (\d+) and (.*?) at its",
        str(caught.value),
    )
    assert found, str(caught.value)
    assert (int(found[2]), int(found[4])) == (k, k)
    assert [float(found[i]) for i in (1, 3, 5)] == pytest.approx(
        [float(states[k + 1].abs().max()), float(margins[k]), float(margins.max())],
        rel=5e-3,  # three digits
    )
    assert float(margins[k]) != pytest.approx(float(margins[0 if k else 3]), rel=0.1)


@pytest.mark.parametrize("model", ["midpoint", "antisymmetric", "resnet", "ms1"])
@pytest.mark.parametrize("k", [0, 2, 4])
def test_the_layer_is_named_for_every_kind_of_state(k: int, model: str) -> None:
    """Two steps, one part, two halves: all weights are 0, and a bias moves y in layer k, a little back in the next."""
    flow = lv.zoo.MODELS[model](4, layers=5, T=30.0).double()
    with torch.no_grad():
        for w in flow.parameters():
            w.zero_()
        flow.field.b[k] = 100.0
        if k < 4:
            flow.field.b[k + 1] = -0.2
    net = lv.Network(lv.Lift(4, place="q"), flow, nn.Linear(4, 1)).double()
    poison(net.head.weight, 1)
    with pytest.raises(DivergenceError, match=rf"finite and largest \(.*\) behind layer {k};"):
        fit(net, points(), replace(RUN, batch_size=1000))


@pytest.mark.parametrize("weight", ["K_p", "b_q"])
@pytest.mark.parametrize("k", [0, 3, 5])
def test_the_first_layer_that_is_not_finite_is_named(k: int, weight: str) -> None:
    net = network(layers=6)
    with torch.no_grad():
        getattr(net.body.field, weight)[k:] = NAN
    with pytest.raises(DivergenceError, match=rf"layer {k} of 6 is the first whose output is not .* in layer {k}"):
        fit(net, points(), RUN)


def test_an_input_that_is_not_finite_is_not_blamed_on_a_layer() -> None:
    net = network(lift="linear")
    with torch.no_grad():
        net.lift.weight[0, 0] = NAN
    with pytest.raises(
        DivergenceError, match=r"its input is already not finite; the margin h x rate is [0-9.]+ at its"
    ):
        fit(net, points(), RUN)


@pytest.mark.parametrize(("first", "second"), [(None, 2), (1, None)])
def test_every_flow_of_several_is_looked_into(first: int | None, second: int | None) -> None:
    flows = [lv.zoo.h2(4, 3, T=1.5), lv.zoo.h2(6, 5, T=1.0)]
    for flow, layer in zip(flows, (first, second), strict=True):
        if layer is not None:
            with torch.no_grad():
                flow.field.K_p[layer] = NAN
    body = nn.Sequential(flows[0], lv.Connector(4, 6), flows[1])
    net = lv.Network(lv.Lift(4), body, nn.Linear(6, 1)).double()
    with pytest.raises(DivergenceError) as caught:
        fit(net, points(), RUN)
    text = str(caught.value)
    if first is None:
        assert "flow 0: the forward pass is finite" in text
        assert "flow 1: layer 2 of 5 is the first" in text
    else:
        assert "flow 0: layer 1 of 3 is the first" in text
        assert "flow 1: its input is already not finite" in text


def test_no_hook_stays_behind_a_diagnosis() -> None:
    net = network()
    poison(net.head.weight, 1)
    with pytest.raises(DivergenceError):
        fit(net, points(), RUN)
    assert not any(module._forward_pre_hooks for module in net.modules())


@pytest.mark.parametrize("read", [evaluate, task_of])
def test_reading_a_network_leaves_every_part_in_its_mode(read) -> None:
    net, data = network(dropout_rate=0.5), points()
    task = task_of(net, data)
    for frozen in (net.body, net.head, net):
        net.train()
        frozen.eval()
        modes = [module.training for module in net.modules()]
        for _ in range(2):
            _ = evaluate(net, data.x_test, data.y_test, task) if read is evaluate else task_of(net, data)
            assert [module.training for module in net.modules()] == modes
    assert evaluate(net.train(), data.x_test, data.y_test, task) == evaluate(net, data.x_test, data.y_test, task)


def test_a_failed_reading_leaves_every_part_in_its_mode() -> None:
    net, data = network().train(), points()
    net.head.eval()
    modes = [module.training for module in net.modules()]
    net.lift = copy.deepcopy(net.lift).train()
    with pytest.raises(ValueError, match="expected 2 inputs"):
        evaluate(net, data.x_test[:, :1], data.y_test, task_of(net, data))
    assert [module.training for module in net.modules()] == modes


def test_divergence_behind_steps_of_a_real_run() -> None:
    """A learning rate far too large: named step and layer, and the weights from before."""
    net = network(layers=6)
    run = []
    with pytest.raises(DivergenceError, match="Lower the learning rate, clip the gradient, or lower T"):
        run.append(watched(net, points(), replace(RUN, lr=1e6)))
    assert not run
    assert all(w.isfinite().all() for w in net.parameters())


@pytest.mark.parametrize("number", [math.nan, math.inf])
@pytest.mark.parametrize("what", ["weight", "gradient", "input"])
def test_a_number_that_is_not_finite_is_named_within_a_step(what, number, tmp_path):
    """Wherever it comes in, the first step that sees it says where it is, and the state before it stays."""
    data = lv.data.load("double-moons", points=80)
    net = lv.classifier("h2", 2, 2, 4, 3, 1.0, generator=torch.Generator().manual_seed(0))
    checkpoint = lv.train.Checkpoint(tmp_path / "state", 0.0)

    class Harm(lv.train.Callback):
        steps = 0

        def on_train_batch_end(self, loss):
            self.steps += 1
            if self.steps != 4:
                return
            if what == "weight":
                net.body.field.K_q.data[1, 0, 1] = number
            if what == "gradient":
                net.body.field.b_p.register_hook(lambda g: g * number)
            if what == "input":
                net.lift.register_forward_pre_hook(lambda _, args: (args[0].fill_(number),))

    harm = Harm()
    settings = Settings(epochs=9, batch_size=6, validation=0.1)
    named = {
        "weight": r"the weight body\.field\.K_q is not finite in \d+ of 12 entries, the first at \(1, 0, 1\)",
        "gradient": r"the gradient of body\.field\.b_p is not finite in 6 of 6 entries",
        "input": r"the input of the batch is not finite in \d+ of \d+ entries, the first at \(0, 0\)",
    }
    with pytest.raises(DivergenceError, match=named[what]):
        fit(net, data, settings, callbacks=[harm], checkpoint=checkpoint)
    assert harm.steps == 4, "the step after it must not be whole"
    kept = opened(checkpoint.path.read_bytes(), "liouville-training-1", checkpoint.path)["training"]
    assert kept["taken"] == 3 + (what != "weight") and all(w.isfinite().all() for w in kept["network"].values())
