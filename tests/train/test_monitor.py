"""`GradientMonitor` measures ||dL/dy_j|| under any engine, flags what vanishes or explodes, and changes nothing."""

from __future__ import annotations

import copy
import math
import warnings

import pytest
import torch
from torch import nn

import liouville as lv
from liouville.kernels.library import is_built
from liouville.train import GradientMonitor, GradientWarning, Settings, fit
from measure import EPS, at, generator, near, randn


def mlp(layers: int, width: int = 16) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body = [m for i in range(layers) for m in (nn.Linear(width if i else 2, width), nn.Tanh())]
        return nn.Sequential(*body, nn.Linear(width, 1))


def h2(layers: int = 64, **more) -> lv.Network:
    return lv.classifier("h2", 2, 2, 4, layers, T=0.1 * layers, generator=generator(0), **more)


def test_a_vanishing_mlp_of_32_layers_is_flagged_within_20_steps() -> None:
    monitor, split = GradientMonitor(), lv.data.load("swiss-roll", points=500)
    with pytest.warns(GradientWarning, match="the gradient vanishes, from .* to .* at the first") as seen:
        fit(mlp(32), split, Settings(epochs=1, batch_size=10, validation=0.0), callbacks=[monitor])
    assert monitor.step >= 20
    assert monitor.records[0].step == 1 and monitor.flags[0].startswith("step 1:")
    assert len(seen) == 1  # said once, however often it is seen


FUSED = pytest.param(lv.Fused(), marks=pytest.mark.skipif(not is_built(), reason="the native kernel is not built"))


@pytest.mark.parametrize("engine", [lv.Stored(), lv.Reversible(), lv.Checkpointed(), lv.Auto(), FUSED])
def test_a_64_layer_h2_is_silent_under_every_engine(engine: lv.Backprop) -> None:
    monitor, split = GradientMonitor(cost=0.9), lv.data.load("swiss-roll", points=200)
    with warnings.catch_warnings():
        warnings.simplefilter("error", GradientWarning)
        fit(h2(backprop=engine), split, Settings(epochs=2, batch_size=20, validation=0.0), callbacks=[monitor])
    assert monitor.flags == [] and monitor.records
    assert all(len(record.norms) == 65 for record in monitor.records)


def test_norms_are_those_of_the_loss_gradient() -> None:
    network = h2(6).double()
    x = randn(12, 2)
    with GradientMonitor(network, samples=12) as monitor:
        network(x).square().mean().backward()
    states = [tuple(s.detach().requires_grad_() for s in next(iter(network.body.states(network.lift(x)))))]
    theta = network.body.field.theta()
    for j in range(6):
        theta_j = type(theta)(*(w[j] for w in theta))
        after = network.body.scheme.step(network.body.field, states[-1], theta_j, network.body.h)
        states.append(tuple(part.view_as(part) for part in after))  # q was made from p: its own place in the graph
    loss = network.head(torch.cat(states[-1], -1)).square().mean()
    for state, norm in zip(states, monitor.records[0].norms, strict=True):
        grads = torch.autograd.grad(loss, state, retain_graph=True)
        assert norm == pytest.approx(float(torch.cat(grads, -1).norm()), rel=1e-10)


def test_a_few_samples_stand_for_the_batch() -> None:
    """With all samples alike, 4 of 32 must give the norm over the batch."""
    network, x = h2(6).double(), randn(1, 2).expand(32, 2)
    norms = []
    for samples in (4, 32):
        with GradientMonitor(network, samples=samples) as monitor:
            network(x).square().mean().backward()
        norms.append(torch.tensor(monitor.records[0].norms))
    torch.testing.assert_close(norms[0], norms[1], rtol=1e-12, atol=0)


def test_a_masked_loss_is_followed_where_it_reads() -> None:
    """4 of 1,000 samples have a label, none of them among 16 evenly spaced ones; then none at all."""
    network, x, labelled = h2(6).double(), randn(1000, 2), [1, 333, 500, 777]
    norms = []
    for samples in (16, 1000):
        with GradientMonitor(network, samples=samples) as monitor:
            network(x)[labelled].square().mean().backward()
        norms.append(torch.tensor(monitor.records[0].norms))
        assert monitor.flags == [] and monitor.records[0].ratio > 0.1
    torch.testing.assert_close(norms[0], norms[1], rtol=1e-12, atol=0)
    with GradientMonitor(network) as monitor, pytest.warns(GradientWarning, match="the gradient is zero, at the last"):
        (0 * network(x)).sum().backward()
        monitor.__exit__()


def test_hooks_see_the_output_of_every_listed_module() -> None:
    network = mlp(3).double()
    x = randn(8, 2)
    with GradientMonitor(network, layers=[network[1], network[3], network[5]]) as monitor:
        network(x).square().mean().backward()
    y, seen = x, []
    for module in network:
        y = module(y)
        seen.append(y)
    loss = y.square().mean()
    for i, norm in zip((1, 3, 5), monitor.records[0].norms, strict=True):
        assert norm == pytest.approx(float(torch.autograd.grad(loss, seen[i], retain_graph=True)[0].norm()), rel=1e-12)


def test_exploding_and_broken_gradients_are_flagged() -> None:
    network = nn.Sequential(*[nn.Linear(4, 4, bias=False) for _ in range(8)])
    with torch.no_grad():
        for layer in network:
            layer.weight.copy_(20.0 * torch.eye(4))
    with GradientMonitor(network) as monitor, pytest.warns(GradientWarning, match="explodes"):
        network(torch.ones(1, 4)).sum().backward()
        monitor.__exit__()
    with GradientMonitor(network) as monitor, pytest.warns(GradientWarning, match="not finite"):
        (network(torch.ones(1, 4)).sum() * math.inf).backward()
        monitor.__exit__()


def test_the_threshold_is_the_users() -> None:
    network = mlp(4)
    with GradientMonitor(network, threshold=0.9) as monitor, pytest.warns(GradientWarning, match="vanishes"):
        network(torch.randn(8, 2)).square().mean().backward()
        monitor.__exit__()
    assert monitor.records[0].ratio < 0.9
    with pytest.raises(ValueError, match="threshold"):
        GradientMonitor(threshold=2.0)


def test_watching_changes_nothing() -> None:
    """Bitwise: not with dropout either, whose noise comes from torch's stream."""
    split = lv.data.load("swiss-roll", points=200)
    field = lv.dropout(lv.SeparableHamiltonianField(4, 8, generator=generator(0)), 0.1)
    network = lv.Network(lv.Lift(4), lv.Flow(field, lv.SymplecticEuler(), T=1.0), nn.Linear(4, 1))
    watched, settings = copy.deepcopy(network), Settings(epochs=2, batch_size=20)
    fit(network, split, settings)
    fit(watched, split, settings, callbacks=[GradientMonitor(cost=1.0)])
    for a, b in zip(network.parameters(), watched.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not watched.body._forward_hooks and not watched.body._forward_pre_hooks


def test_time_spent_is_bounded_after_the_first_measurement() -> None:
    split = lv.data.load("swiss-roll", points=500)
    monitor = GradientMonitor(cost=0.03)
    network = h2(backprop=lv.Stored())
    history = fit(network, split, Settings(epochs=6, batch_size=20), callbacks=[monitor])
    first = monitor.seconds / len(monitor.records)
    assert monitor.seconds <= 0.03 * history.metrics["seconds"] + 2 * first
    assert len(monitor.records) < monitor.step


def test_nothing_to_watch_is_refused() -> None:
    with pytest.raises(ValueError, match="layers="):
        GradientMonitor(nn.Linear(2, 2)).__enter__()
    with pytest.raises(ValueError, match="give the network"):
        GradientMonitor().__enter__()


def test_hooks_are_taken_off_when_training_fails() -> None:
    network, split = h2(4), lv.data.load("swiss-roll", points=100)
    with torch.no_grad():
        network.head.weight.fill_(math.nan)
    with pytest.raises(lv.train.DivergenceError):
        fit(network, split, Settings(epochs=1), callbacks=[GradientMonitor()])
    assert not network.body._forward_hooks


def test_lightning(tmp_path) -> None:
    pytest.importorskip("lightning")
    import lightning

    from liouville.lightning import LightningGradientMonitor

    class Module(lightning.LightningModule):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def training_step(self, batch, _):
            return self.network(batch[0]).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=1e-3)

    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(40, 2)), batch_size=10)
    network = mlp(32)
    callback, silent = LightningGradientMonitor(layers=list(network)), LightningGradientMonitor()
    for watched, watcher in ((network, callback), (h2(), silent)):
        trainer = lightning.Trainer(
            max_epochs=2,
            callbacks=[watcher],
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer.fit(Module(watched), data)
    assert callback.monitor.flags[0].startswith("step 1: the gradient vanishes")
    assert silent.monitor.records and not silent.monitor.flags
    assert trainer.callback_metrics["gradient_ratio"] > 0.01
    assert not network[0]._forward_hooks


class Pooled(nn.Module):
    """Attention without a batch axis of its own: every row of axis 0 reads all others."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, x):
        return torch.tanh(self.linear(x - x.mean(0)))


@pytest.mark.parametrize("sample_ndim", [None, 1, 2, 3])
@pytest.mark.parametrize("wrap", [lambda f: f, lambda f: lv.dropout(f, 0.0)], ids=["plain", "dropout"])
def test_samples_are_picked_only_where_they_can_be_told(sample_ndim, wrap) -> None:
    """(tokens, batch, features), of which no row can be taken out: the norms are those of the whole batch."""
    field = wrap(lv.ShearField(Pooled(), Pooled(), layers=3, features=4, sample_ndim=sample_ndim).double())
    flow, y = lv.Flow(field, lv.SymplecticEuler(), T=1.0), randn(20, 5, 4)
    with GradientMonitor(flow, samples=4) as monitor:
        flow(y).pow(3).sum().backward()
    states = list(flow.states(y))
    first = [x.detach().requires_grad_() for x in states[0]]
    theta, state = field.theta(), tuple(first)
    for j in range(3):
        state = flow.scheme.step(field.in_run(0).at_layer(j), state, at(theta, j), flow.h)
    gradients = torch.autograd.grad(flow.scheme.final(field, state).pow(3).sum(), first)
    expected = torch.cat([g.flatten() for g in gradients]).norm()
    near(monitor.records[0].norms[0], expected, 1000 * EPS * float(expected))
