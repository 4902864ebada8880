"""The seven ways are fair, the same start, the same batches, each its own scheme, and figures are what they say."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch

import liouville as lv
from liouville.experiments.beyond.language import EXPERIMENT, Config, _largest, cases, held_out, render, run, train
from liouville.experiments.beyond.small_gpt import GPT, MAPS, SCHEMES, TOKENS, WAYS, Block, causal, text, ways, windows
from liouville.experiments.beyond.step_costs import peak, timed
from liouville.experiments.page import _markdown
from liouville.experiments.records import Record, Store


def model(depth: int = 3) -> GPT:
    torch.manual_seed(0)
    return GPT(8, depth, 6)


def ids() -> torch.Tensor:
    return windows(text()["train"], 2, 6, torch.Generator().manual_seed(0))


def gradients(gpt: GPT, run) -> torch.Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(gpt.loss(ids(), run), list(gpt.parameters()))])


def test_parts_of_the_text_share_no_file_and_are_text() -> None:
    parts = text()
    assert all(len(part) > 100_000 for part in parts.values()) and len(parts["train"]) > 5 * len(parts["test"])
    whole = {name: part.numpy().tobytes() for name, part in parts.items()}
    heads = {name: part[:200] for name, part in whole.items()}
    assert len(set(heads.values())) == 3 and all(head.isascii() for head in heads.values())
    piece = windows(parts["test"], 5, 7, torch.Generator().manual_seed(1))
    assert piece.shape == (5, 8) and all(bytes(row.tolist()) in whole["test"] for row in piece)


def test_the_gpt_sees_nothing_that_comes_later() -> None:
    gpt, x = model(), ids()[:, :-1]
    changed = x.clone()
    changed[:, 3:] = 0
    out = [ways(gpt.blocks)["momentum"](gpt.embed(each), causal(6)) for each in (x, changed)]
    assert torch.equal(out[0][:, :3], out[1][:, :3]) and not torch.equal(out[0][:, 3:], out[1][:, 3:])


def test_every_way_has_the_gradient_of_its_scheme() -> None:
    """Plain and checkpoint to the bit; the others as `Stored` has it, to the rounding of float32; and all differ."""
    gpt = model()
    found = {name: gradients(gpt, run) for name, run in ways(gpt.blocks).items()}
    assert torch.equal(found["plain"], found["checkpoint"])
    for name in SCHEMES:
        stored = gradients(gpt, lv.reversible(gpt.blocks, name, backprop=lv.Stored()))
        assert (found[name] - stored).norm() <= 100 * torch.finfo(torch.float32).eps * stored.norm()
        assert (found[name] - found["plain"]).norm() > 1e-3 * stored.norm()


def test_training_starts_alike_takes_the_same_batches_and_learns() -> None:
    """Plain and checkpoint end with equal weights; all ways beat guessing, and no other two are the same."""
    config = Config("loss", "", 2, 12, 0)
    ends, losses = {}, {}
    torch.manual_seed(0)
    start = GPT(16, 2, TOKENS)
    for way in WAYS:
        gpt = copy.deepcopy(start)
        run = ways(gpt.blocks)[way]
        train(gpt, run, config, torch.Generator().manual_seed(0))
        ends[way], losses[way] = torch.cat([p.detach().flatten() for p in gpt.parameters()]), held_out(gpt, run, "test")
    assert torch.equal(ends["plain"], ends["checkpoint"]) and losses["plain"] == losses["checkpoint"]
    assert len({float(end.sum()) for end in ends.values()}) == len(WAYS) - 1
    assert all(loss < math.log(256) for loss in losses.values()), losses


def test_the_largest_batch_is_the_largest_within_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    for by_sample, offset, room in ((1000, 500, 32_500), (1000, 500, 32_499), (999, 0, 700_000), (10, 900, 800)):
        monkeypatch.setattr("liouville.experiments.beyond.language.ROOM", room)
        found = _largest(lambda batch, a=by_sample, c=offset: lambda: torch.empty(a * batch + c, dtype=torch.uint8))
        assert found == max(0, (room - offset) // by_sample)


def test_bytes_alive_are_those_at_the_highest_moment() -> None:
    def step() -> torch.Tensor:
        a = torch.zeros(1000)
        b = a.view(10, 100) + 1  # a view has no storage of its own
        del a
        return torch.zeros(900 + len(b))

    assert peak(step) == 4 * 2000
    assert 0 <= timed({"step": step}, 3)["step"] < 1.0


def test_a_run_of_each_kind(tmp_path) -> None:
    losses = [run(Config(what, "coupled", 1, 2, 0), tmp_path)["loss"] for what in ("loss", "engine")]
    assert 3.0 < losses[0] < 7.0 and losses[1] == pytest.approx(losses[0], abs=2e-3)
    step = run(Config("step", "", 1, 1, 0), tmp_path)
    assert set(step["bytes"]) == set(step["seconds"]) == set(WAYS) and min(step["bytes"].values()) > 10_000
    assert len(cases(5, True)) == len(MAPS) + len(WAYS[1:]) + 2


def made(case: Config, **values: object) -> Record:
    return Record(case, values, 1.0, {})


def test_what_is_told_is_what_was_recorded(tmp_path) -> None:
    losses = {"plain": 3.0, "momentum": 2.9, "midpoint": 3.5, "coupled": 3.2}
    records = [
        made(Config("loss", way, depth, 9, seed), loss=loss + 0.01 * seed)
        for way, loss in losses.items()
        for depth in (6, 24)
        for seed in range(3)
    ]
    records.append(made(Config("loss", "leapfrog", 6, 9, 0), diverged="at once"))
    records += [made(Config("engine", w, 6, 9, 0), loss=3.0) for w in ("checkpoint", "momentum", "bdia")]
    memory = {way: 100_000 + 1000 * k for k, way in enumerate(WAYS)}
    records += [
        made(
            Config("step", "", depth, 1, 0),
            seconds={way: 0.5 + 0.5 * k for k, way in enumerate(WAYS)},
            bytes={
                way: size * (depth if way == "plain" else 1) - 50_000 * (way == "coupled")
                for way, size in memory.items()
            },
        )
        for depth in (6, 24)
    ]
    records += [made(Config("room", way, 6, 1, 0), batch=batch) for way, batch in (("checkpoint", 10), ("coupled", 25))]
    rendering = render(records, tmp_path)
    loss, ahead, time, held, room = rendering.tables
    cells = {row[0]: dict(zip(loss.columns, row, strict=True)) for row in loss.rows}
    assert cells["momentum"]["6 blocks"] == "2.910 (2.900–2.920)" and "1 runs diverged" in loss.note
    cells = {row[0]: dict(zip(ahead.columns, row, strict=True)) for row in ahead.rows}
    assert cells["momentum"]["plain"] == "ahead, 6 of 6" and cells["plain"]["momentum"] == "behind, 0 of 6"
    assert cells["bdia"]["plain"] == "equal" and cells["leapfrog"]["plain"] == "not told apart, 0 of 1"
    assert [row[1] for row in time.rows][:3] == ["0.50", "1.00", "1.50"]
    assert held.rows[1][1:] == ("0.10 (100%)", "0.10 (100%)", "0.00") and held.rows[0][3] == "100.00"
    assert {row[0]: row[1] for row in room.rows}["coupled"] == "25 (2.50)"
    text = rendering.text
    assert (
        "momentum ahead (6 pairs of 6, p = 0.031)" in text and "seed: checkpoint +0.000, momentum +0.100 nats" in text
    )
    assert "6 blocks momentum, coupled, midpoint, leapfrog; 24 blocks momentum, coupled, midpoint" in text
    assert "At 6 blocks less: coupled 55%; not less: momentum 101%, bdia 102%, midpoint 103%, leapfrog 104%" in text
    assert "plain 0.50 to 0.50" in text and "2.50 to 2.50 times at 6 blocks" in text


def test_the_page_on_checkpointing_has_the_tables_of_the_committed_records(tmp_path) -> None:
    docs = Path(__file__).parent.parent.parent / "docs"
    if not (docs / "reproduce").is_dir():
        pytest.skip("an sdist has no records")
    records = Store(EXPERIMENT, docs / "reproduce" / "language").current(quick=False)
    text = (docs / "reversible-or-checkpointing.md").read_text(encoding="utf-8")
    assert all(_markdown(table) in text for table in render(records, tmp_path).tables)


def test_blocks_are_residual() -> None:
    block, x = Block(8), torch.randn(2, 6, 8)
    with torch.no_grad():
        block.write.weight.zero_(), block.write.bias.zero_(), block.mlp[2].weight.zero_(), block.mlp[2].bias.zero_()
        assert torch.equal(block(x, causal(6)), x)
