"""What surrounds the flows: activation and initial weights by name, inputs that drop out, saved and loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import liouville as lv
from liouville.fields import Smooth
from liouville.zoo import Images, h2


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_activation_and_start_are_the_models() -> None:
    start = Smooth(scale=1.0, mean=0.0, action=None)
    one = lv.classifier("h2", 4, 3, 8, 4, 2.0, activation="relu", init=start, generator=seeded())
    field = one.body.field
    assert field.activation.name == "relu" and torch.equal(field.K_p, h2_field(start).K_p)
    images = lv.classifier("h2", (1, 8, 8), 3, 8, 4, 2.0, conv=Images(), activation="relu")
    assert images.body[0].field.activation.name == "relu"


def h2_field(start: Smooth) -> torch.nn.Module:
    from liouville.randomness import seeded as seeding

    with seeding(int(torch.randint(2**62, (), generator=seeded()))):
        return h2(8, 4, 2.0, activation="relu", init=start).field


@pytest.mark.parametrize("lift", [None, "linear"])
def test_inputs_drop_out_in_training_only(lift: str | None, tmp_path: Path) -> None:
    network = lv.regressor("h2", 4, 1, 8, 2, 1.0, lift=lift, input_dropout=0.5)
    x = torch.ones(2000, 4)
    assert len({tuple(row) for row in network.lift(x).tolist()}) == 16, "each input there or not"
    loaded = lv.load(lv.save(network, tmp_path / "network.safetensors"))
    assert torch.equal(loaded(x[:2]), network.eval()(x[:2]))
    with pytest.raises(ValueError, match=r"input_dropout must lie in \[0, 1\), got 1"):
        lv.regressor("h2", 4, 1, 8, 2, 1.0, input_dropout=1)
