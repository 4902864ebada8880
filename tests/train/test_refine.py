"""Doubling: the weights of `Flow.refined`, and an optimiser that goes on as if nothing had happened."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import liouville as lv
from liouville.train import L1, Decay, HeadDecay, Regulariser, Settings, optimizer_of, refine
from liouville.train.settings import OPTIMIZERS as OPTIMIZER_NAMES
from train.hand import loss, network, points

EPS = torch.finfo(torch.float64).eps
OPTIMIZERS: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
    "sgd": lambda w: torch.optim.SGD(w, lr=0.1),
    "momentum": lambda w: torch.optim.SGD(w, lr=0.1, momentum=0.9),
    "nesterov": lambda w: torch.optim.SGD(w, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.3),
    "adam": lambda w: torch.optim.Adam(w, lr=0.1, betas=(0.9, 0.95)),
    "adam-l2": lambda w: torch.optim.Adam(w, lr=0.1, amsgrad=True, weight_decay=0.3, eps=1e-2),
    "adam-fused": lambda w: torch.optim.Adam(w, lr=0.1, fused=True),
    **{
        f"fit-{name}": lambda w, name=name: optimizer_of(
            nn.ParameterList(w), Settings(lr=0.1, optimizer=name, weight_decay=0.3 if name == "adamw" else 0.0)
        )
        for name in OPTIMIZER_NAMES
    },
    "adamw": lambda w: torch.optim.AdamW(w, lr=0.1, weight_decay=0.3),
}
PROLONG: dict[str, Callable[[Tensor], Tensor]] = {
    "constant": lambda w: w.repeat_interleave(2, 0),
    "linear": lambda w: torch.stack(
        (0.75 * w + 0.25 * torch.cat((w[:1], w[:-1])), 0.75 * w + 0.25 * torch.cat((w[1:], w[-1:]))), 1
    ).flatten(0, 1),
    "linear-left": lambda w: torch.stack((w, 0.5 * (w + torch.cat((w[1:], w[-1:])))), 1).flatten(0, 1),
}


class Quadratures(Regulariser):
    """An objective whose gradient in theta_j is exactly h g(theta_j): at a constant doubling it halves to the bit."""

    def value(self, network: nn.Module) -> Tensor:
        return Decay(0.7)(network) + L1(2.0, smoothing=0.3)(network) + HeadDecay(0.4)(network)


def steps(net: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
    for _ in range(number):
        optimizer.zero_grad()
        Quadratures()(net).backward()
        optimizer.step()


def built(model: str) -> lv.Network:
    """A network without a weight that is zero."""
    net, generator = network("h2" if model == "trained-J" else model), torch.Generator().manual_seed(1)
    if model == "trained-J":
        net.body = lv.Flow(lv.HamiltonianField(4, 4, train_J=True).double(), lv.ForwardEuler(), 1.5)
    for w in net.parameters():
        nn.init.normal_(w, generator=generator)
    return net


@pytest.mark.parametrize("model", ["h2", "ms2", "trained-J"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_behind_a_constant_doubling_moves_theta_as_the_coarse_step_would(name: str, model: str) -> None:
    """To the bit where there is a layer axis: every factor is a power of two. Two doublings, three steps each."""
    coarse = built(model)
    optimizer = OPTIMIZERS[name](list(coarse.parameters()))
    steps(coarse, optimizer, 3)
    fine, (other,) = copy.deepcopy((coarse, [optimizer]))
    for times in (2, 4):
        refine(fine, other)
        before = [w.clone() for w in coarse.parameters()]
        steps(coarse, optimizer, 3)
        steps(fine, other, 3)
        for (key, w), v, old in zip(coarse.named_parameters(), fine.parameters(), before, strict=True):
            assert not torch.equal(w, old)
            if len(v) != len(w):
                assert torch.equal(v, w.repeat_interleave(times, 0)), key
            else:  # one J for all layers: its gradient is a sum over up to 16 of them, in nine steps
                assert float((v - w).detach().abs().max()) <= 16 * 9 * EPS * float(w.detach().abs().max()), key


@pytest.mark.parametrize("how", PROLONG)
@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_moments_are_interpolated_like_the_weights(name: str, how: str) -> None:
    net = network()
    optimizer = OPTIMIZERS[name](list(net.parameters()))
    steps(net, optimizer, 2)
    old = dict(net.named_parameters())
    state = {key: dict(optimizer.state[w]) for key, w in old.items()}
    refine(net, optimizer, how)
    for key, w in net.named_parameters():
        for moment, power in (("momentum_buffer", 1), ("exp_avg", 1), ("exp_avg_sq", 2)):
            if moment not in state[key]:
                continue
            before, after = state[key][moment], optimizer.state[w][moment]
            if key.startswith("head"):
                assert w is old[key] and after is before
            else:
                assert torch.equal(w, PROLONG[how](old[key]))
                assert torch.equal(after, PROLONG[how](before) * 0.5**power)


def test_a_real_gradient_halves_at_a_doubling_up_to_the_step() -> None:
    """dL/dtheta_j of N layers is twice that of both of its halves, to first order in h."""

    def error(layers: int) -> float:
        net, x = network(layers=layers), points().x_train
        coarse = torch.autograd.grad(loss(net(x), x), net.body.field.K_p)[0]
        refine(net)
        fine = torch.autograd.grad(loss(net(x), x), net.body.field.K_p)[0]
        return float((2 * fine - coarse.repeat_interleave(2, 0)).norm() / coarse.norm())

    errors = [error(N) for N in (16, 32, 64)]
    assert errors[2] < 0.6 * errors[1] < 0.4 * errors[0]


def test_doubling_keeps_the_function_up_to_the_order_of_the_scheme() -> None:
    net, x = network(layers=32), points().x_train
    before = net(x)
    refine(net)
    refine(net)
    assert net.body.layers == 128
    twice = network(layers=32).body.refined().refined()
    for a, b in zip(net.body.parameters(), twice.parameters(), strict=True):
        assert torch.equal(a, b)
    assert 0 < float((net(x) - before).detach().abs().max()) < 0.1


def test_flows_that_share_a_field_still_do() -> None:
    field = lv.SeparableHamiltonianField(4, 2)
    one, two = lv.Flow(field, lv.SymplecticEuler(), 1.0), lv.Flow(field, lv.Verlet(), 2.0)
    net = lv.Network(lv.Lift(4, 2), nn.Sequential(one, two), nn.Linear(4, 1))
    optimizer = torch.optim.Adam(net.parameters())
    refine(net, optimizer)
    assert one.field is two.field and one.layers == 4
    assert {w for group in optimizer.param_groups for w in group["params"]} == set(net.parameters())


def test_a_mixed_group_is_split_and_the_rest_keeps_its_rate() -> None:
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    refine(net, optimizer)
    flow, rest = optimizer.param_groups
    assert set(flow["params"]) == set(net.body.parameters()) and flow["lr"] == 0.2
    assert set(rest["params"]) == set(net.head.parameters()) and rest["lr"] == 0.1
    refine(net, optimizer)
    assert [group["lr"] for group in optimizer.param_groups] == [0.4, 0.1]


def test_a_constant_rate_of_a_scheduler_is_doubled_with_it() -> None:
    net = network()
    groups = [{"params": list(part.parameters())} for part in (net.body, net.head)]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0, total_iters=0)
    refine(net, optimizer)
    again = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0, total_iters=0)
    assert again.base_lrs == [0.2, 0.1]


def test_shared_weights_are_one_function_at_any_depth_and_keep_their_moments() -> None:
    net = network(layers=4)
    flow = lv.zoo.h2(4, 4, 1.5, shared=True).double()
    net.body = flow
    optimizer = torch.optim.Adam(net.parameters())
    steps(net, optimizer, 1)
    moments = [optimizer.state[w]["exp_avg"].clone() for w in flow.parameters()]
    refine(net, optimizer)
    assert flow.layers == 8
    assert all(torch.equal(optimizer.state[w]["exp_avg"], m) for w, m in zip(flow.parameters(), moments, strict=True))


def test_errors_leave_everything_as_it_was() -> None:
    net = network()
    with pytest.raises(ValueError, match="the network has no flow to refine"):
        refine(net.head)
    with pytest.raises(ValueError, match="state of RMSprop cannot be carried to twice the layers; use SGD, Adam or"):
        refine(net, torch.optim.RMSprop(net.parameters()))
    with pytest.raises(ValueError, match="how must be one of 'constant', 'linear', 'linear-left', got 'cubic'"):
        refine(net, how="cubic")
    assert net.body.layers == 4
