"""`DepthRefinement`: the doublings of a Trainer are those of `refine`, when the monitored number says so."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import liouville as lv
from liouville.train import refine

pl = pytest.importorskip("lightning.pytorch")
pytestmark = pytest.mark.filterwarnings("ignore")


def module(optimizers: Callable[[Any], Any], metric: Callable[[int], float] | None = None) -> Any:
    """A Lightning module around a small network in float64; ``metric`` replaces the validation loss by epoch."""

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = lv.classifier("h2", 2, 2, 4, 4, 1.0, generator=torch.Generator().manual_seed(0)).double()
            self.depths: list[int] = []

        def training_step(self, batch: list[Tensor], index: int) -> Tensor:
            x, y = batch
            return F.binary_cross_entropy_with_logits(self.net(x)[:, 0], y)

        def validation_step(self, batch: list[Tensor], index: int) -> None:
            value = self.training_step(batch, index) if metric is None else metric(self.current_epoch)
            self.log("val_loss", value)

        def on_train_epoch_start(self) -> None:
            self.depths.append(self.net.body.layers)

        def configure_optimizers(self) -> Any:
            return optimizers(self)

    return Module()


def data() -> DataLoader:
    split = lv.data.load("double-moons", points=200, dtype=torch.float64)
    return DataLoader(TensorDataset(split.x_train, split.y_train.double()), batch_size=50)


def run(m: Any, epochs: int, *callbacks: Any) -> Any:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = pl.Trainer(
            max_epochs=epochs, callbacks=list(callbacks), accelerator="cpu", enable_model_summary=False, **quiet
        )
        trainer.fit(m, data(), data())
    return trainer


def refinement(levels: int, **options: Any) -> Any:
    from liouville.lightning import DepthRefinement

    return DepthRefinement(levels, **options)


def sgd(m: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9)


def test_a_target_that_is_reached_doubles_after_every_epoch_up_to_the_last_level() -> None:
    m = module(sgd)
    trainer = run(m, 5, refinement(3, target=10.0))
    assert m.depths == [4, 8, 16, 16, 16]
    assert [group["lr"] for group in trainer.optimizers[0].param_groups] == [0.4, 0.1]


def test_a_stall_doubles_after_the_patience() -> None:
    values = (0.5, 0.4, 0.45, 0.41, 0.6, 0.5, 0.5, 0.5)  # best 0.4, two epochs without; then 0.6, 0.5, and two
    m = module(sgd, lambda epoch: values[epoch])
    run(m, 8, refinement(3, patience=2))
    assert m.depths == [4, 4, 4, 4, 8, 8, 8, 8]
    assert m.net.body.layers == 16


@pytest.mark.parametrize("mode", ["min", "max"])
def test_both_directions(mode: str) -> None:
    m = module(sgd, lambda epoch: 0.1 * epoch)
    run(m, 4, refinement(2, mode=mode, target=0.2, patience=9))
    assert m.depths == ([4, 8, 8, 8] if mode == "min" else [4, 4, 4, 8])


def test_training_goes_on_as_by_hand() -> None:
    """Two epochs, a doubling, two epochs: the weights of a plain loop with `refine` in its middle."""
    m = module(lambda m: torch.optim.Adam(m.parameters(), lr=0.05))
    run(m, 4, refinement(2, patience=1, mode="max"))
    middle = m.depths.index(8)
    twin = module(sgd)
    optimizer = torch.optim.Adam(twin.parameters(), lr=0.05)
    for epoch in range(4):
        if epoch == middle:
            refine(twin, optimizer)
        for batch in data():
            optimizer.zero_grad()
            twin.training_step(batch, 0).backward()
            optimizer.step()
    for a, b in zip(m.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_scheduler_goes_on_with_the_doubled_rate() -> None:
    def optimizers(m: Any) -> Any:
        flow = [w for name, w in m.named_parameters() if "body" in name]
        head = [w for name, w in m.named_parameters() if "body" not in name]
        optimizer = torch.optim.SGD([{"params": flow}, {"params": head}], lr=0.1)
        return [optimizer], [torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 1.0)]

    trainer = run(module(optimizers), 4, refinement(3, target=10.0))
    assert [group["lr"] for group in trainer.optimizers[0].param_groups] == [0.4, 0.1]


@pytest.mark.parametrize("kind", ["EMAWeightAveraging", "StochasticWeightAveraging"])
@pytest.mark.parametrize("first", [False, True])
def test_averages_of_the_weights_are_doubled_too(kind: str, first: bool) -> None:
    from lightning.pytorch import callbacks

    settings = {"EMAWeightAveraging": {"decay": 0.9}, "StochasticWeightAveraging": {"swa_lrs": 0.05}}
    average = getattr(callbacks, kind)(**settings[kind])

    def optimizers(m: Any) -> torch.optim.Optimizer:
        groups = [[w for name, w in m.named_parameters() if ("body" in name) == body] for body in (True, False)]
        return torch.optim.SGD([{"params": group} for group in groups], lr=0.1)

    m = module(optimizers)
    run(m, 4, *([refinement(3, target=10.0), average][:: 1 if first else -1]))
    assert m.depths == [4, 8, 16, 16]
    for a, b in zip(m.parameters(), average._average_model.parameters(), strict=True):
        assert a.shape == b.shape and bool(a.isfinite().all())


def test_errors() -> None:
    def scheduled(m: Any) -> Any:
        optimizer = sgd(m)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]

    with pytest.raises(ValueError, match="a scheduler drives a parameter group that mixes"):
        run(module(scheduled), 1, refinement(2))
    with pytest.raises(KeyError, match=r"DepthRefinement monitors 'loss', which is not logged; logged: .*val_loss"):
        run(module(sgd), 1, refinement(2, monitor="loss"))
    m = module(sgd)
    m.net = torch.nn.Linear(2, 1).double()
    m.on_train_epoch_start = lambda: None
    with pytest.raises(ValueError, match="the module has no flow to refine"):
        run(m, 1, refinement(2))
    with pytest.raises(ValueError, match="levels and patience must be at least 1, got 0 and 5"):
        refinement(0)
    with pytest.raises(ValueError, match='mode must be "min" or "max", got \'least\''):
        refinement(2, mode="least")


def test_its_state_goes_into_a_checkpoint_and_back() -> None:
    one, other = refinement(3), refinement(3)
    one.level, one.best, one.waited = 2, 0.5, 1
    other.load_state_dict(one.state_dict())
    assert (other.level, other.best, other.waited) == (2, 0.5, 1)
