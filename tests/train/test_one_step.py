"""A step of training evaluates theta() once, whoever reads it, and its gradient is that of separate evaluations."""

from __future__ import annotations

import contextlib

import pytest
import torch

import liouville as lv
from liouville.fields.once import one_step, theta_of
from liouville.train import Penalty, Settings, fit
from samples import FIELDS, PAIRS, N, flow, inputs

EPS = torch.finfo(torch.float64).eps
ALL = Penalty(smoothness=1e-2, decay=1e-2, variation=1e-2, l1=1e-2)
SCHEME = {field: scheme for scheme, field in reversed(PAIRS)}


def _gradient(of, y, shared):
    of.zero_grad()
    with one_step() if shared else contextlib.nullcontext():
        value = of(y).square().sum() + ALL(of)
    value.backward()
    found = [p.grad.flatten() for p in of.parameters() if p.grad is not None]
    return torch.cat(found) if found else torch.zeros(1)


@pytest.mark.parametrize("name", FIELDS)
def test_one_step_has_the_gradient_of_several(name):
    of = flow(SCHEME[name], name)
    y = inputs(of.field)
    torch.manual_seed(0)
    apart = _gradient(of, y, shared=False)
    torch.manual_seed(0)
    shared = _gradient(of, y, shared=True)
    # five readers a layer, whose contributions are added in another order
    assert (shared - apart).norm() <= 5 * 10 * EPS * N * apart.norm()


@pytest.mark.parametrize("budget", [None, 20.0])
def test_a_step_evaluates_theta_once(budget, monkeypatch):
    network = lv.classifier("h2", inputs=2, classes=2, features=4, layers=8, T=1.0, lift="linear", budget=budget)
    kind, calls = type(network.body.field), []
    plain = kind.theta
    monkeypatch.setattr(kind, "theta", lambda self: calls.append(torch.is_grad_enabled()) or plain(self))
    settings = Settings(epochs=1, batch_size=20, penalty=Penalty(smoothness=1e-3, decay=1e-3, l1=1e-3))
    fit(network, lv.data.load("double-moons", points=80), settings, test=False)
    assert sum(calls) == 2  # 36 of 40 samples are trained on; calls without gradients are evaluations


def test_nothing_is_shared_outside_of_a_step_nor_between_modes():
    field = lv.SeparableHamiltonianField(4, layers=3)
    assert theta_of(field) is not theta_of(field)
    with one_step():
        first = theta_of(field)
        assert theta_of(field) is first
        with torch.no_grad():
            assert theta_of(field) is not first
        assert theta_of(lv.SeparableHamiltonianField(4, layers=3)) is not first
        with torch.autocast("cpu", torch.bfloat16):
            assert theta_of(field) is not first
        with one_step():
            assert theta_of(field) is not first
        assert theta_of(field) is first
    with pytest.raises(RuntimeError, match="left"), one_step():
        raise RuntimeError("left")
    assert theta_of(field) is not first
