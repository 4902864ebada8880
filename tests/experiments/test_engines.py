"""Time and memory: the formulations by hand are the same networks, and ratios and slopes are what they say."""

from __future__ import annotations

import pytest
import torch

from liouville.experiments.beyond.engines import DEPTHS, LOOP, SLICED, WEIGHED, Config, render, run
from liouville.experiments.beyond.formulations import last_axis, loop, sliced
from liouville.experiments.beyond.resident import growth
from liouville.experiments.records import Record
from liouville.zoo import MODELS


@pytest.mark.parametrize("model", ["h1", "h2"])
def test_by_hand_is_the_same_network_and_the_same_gradient(model: str) -> None:
    N = 5
    flow = MODELS[model](6, N, T=1.0, generator=torch.Generator().manual_seed(0)).double()
    y = torch.randn(7, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weights = list(flow.field.parameters())
    expected = flow(y)
    gradients = torch.autograd.grad(expected.square().sum(), weights)
    # a layer rounds a few dozen sums and products; the factor 100 leaves room for the growth of so few layers
    close = {"rtol": 0.0, "atol": 100 * torch.finfo(y.dtype).eps * N * float(max(g.abs().max() for g in gradients))}
    found = loop(model, y, weights, flow.h)
    torch.testing.assert_close(found, expected, **close)
    for mine, theirs in zip(torch.autograd.grad(found.square().sum(), weights), gradients, strict=True):
        torch.testing.assert_close(mine, theirs, **close)
    last = last_axis(weights)
    found = sliced(model, y, last, flow.h)
    torch.testing.assert_close(found, expected, **close)
    for mine, theirs in zip(torch.autograd.grad(found.square().sum(), last), gradients, strict=True):
        torch.testing.assert_close(mine.movedim(-1, 0), theirs, **close)


def test_a_run_times_what_can_run_the_model(tmp_path) -> None:
    h1, h2 = (run(Config("time", model, "", 4, 10, 4, 2, 0), tmp_path)["seconds"] for model in ("h1", "h2"))
    assert {LOOP, SLICED, "Stored", "Checkpointed"} <= set(h1) and "Reversible" not in h1 and "Reversible" in h2
    assert all(seconds > 0 for seconds in (h1 | h2).values())


def test_growth_is_that_of_the_highest_moment_less_what_is_returned() -> None:
    size = 50_000_000
    held = growth(lambda: [torch.ones(size // 4)])
    if held is None:
        pytest.skip("this system does not tell its resident memory")
    passing = growth(lambda: [torch.ones(size // 4).sum()])
    assert passing is not None and 0.9 * size < passing < 2 * size and abs(held) < 0.5 * size


def test_ratios_and_slopes(tmp_path) -> None:
    timed = [
        Record(Config("time", "h2", "", 4, 125, 64, 3, s), {"seconds": seconds, "threads": 1}, 1.0, {})
        for s, seconds in enumerate(
            (
                {LOOP: 0.1, SLICED: 0.2, "Stored": 0.1, "Checkpointed": 0.4, "Fused": 0.01},
                {LOOP: 0.3, SLICED: 0.2, "Stored": 0.1, "Checkpointed": 0.6, "Fused": 0.01},
            )
        )
    ]
    weighed = [
        Record(Config("memory", "h2", way, *WEIGHED, N, 1, 0), {"bytes": b0 + by_layer * N}, 1.0, {})
        for way, b0, by_layer in ((LOOP, 1_000_000, 2000), ("Fused", 500_000, 20))
        for N in DEPTHS
    ]
    rendering = render([*timed, *weighed], tmp_path)
    time, memory = rendering.tables
    row = dict(zip(time.columns, time.rows[0], strict=True))
    assert row[f"{LOOP}, ms"] == "200.0 (100.0–300.0)" and row[f"{SLICED}, ratio"] == "1.00 (0.50–1.50)"
    assert row["Fused, ratio"] == "20.00 (10.00–30.00)" and row["Reversible, ratio"] == "—"
    assert [r[-2:] for r in memory.rows] == [("2.00", "100.0%"), ("0.02", "1.0%")]
    faster, slower = rendering.text.split("Slower")
    assert "Fused (20.0 to 20.0 times)" in faster and "Checkpointed (0.38 to 0.38 times" in slower
