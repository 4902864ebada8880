"""The models of docs/examples.md, as they stand there: they learn, reversibly, and the plain stack comes back."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import nn

import liouville as lv
from liouville.stack import ReversibleBlocks
from test_documents import ROOT, blocks

CODE = dict(zip(("gpt", "vit", "mlp"), blocks(ROOT / "docs" / "examples.md", "python"), strict=True))


def module(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    torch.manual_seed(0)
    made = type(sys)("block")
    monkeypatch.setitem(sys.modules, "block", made)
    exec(compile(CODE[name], "block", "exec"), made.__dict__)
    return made


@pytest.mark.parametrize(("name", "share"), [("gpt", 0.8), ("vit", 0.8), ("mlp", 0.9)])
def test_it_learns(name: str, share: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """The last losses are so much smaller than the first; 30 steps are few, and each is a batch of its own."""
    made = module(name, monkeypatch)
    losses, model = made.losses, getattr(made, name)
    assert sum(losses[-5:]) / 5 < share * losses[0], losses
    assert f"{losses[-1]:.2f} after" in capsys.readouterr().out
    if name != "mlp":
        assert any(isinstance(part, ReversibleBlocks) for part in model.modules())
        lv.unwrap(model)
    assert not any(isinstance(part, ReversibleBlocks) for part in model.modules())
    assert all(p.grad is not None for p in model.parameters())
    assert isinstance(model, nn.Module)
