"""What does not fit in memory is refused before it is allocated, with both figures."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import liouville as lv
from liouville import machine

HUGE = 10**12


@pytest.mark.parametrize("model", lv.zoo.MODELS)
@pytest.mark.parametrize("init", [lv.Smooth(), lv.Normal()], ids=repr)
def test_layers_that_no_machine_holds_are_refused_by_every_model(model, init):
    with pytest.raises(
        ValueError, match=r"the weights of 1000000000000 layers.* take .*TiB of memory, and .*B is free"
    ):
        lv.zoo.MODELS[model](4, HUGE, 1.0, init=init)
    with pytest.raises(ValueError, match=r"take .*TiB of memory, and .*B is free"):
        lv.classifier(model, 2, 2, features=10**8, layers=1, T=1.0)


@pytest.mark.parametrize(
    ("name", "options"),
    [("swiss-roll", "points"), ("double-moons", "points"), ("double-circles", "points")]
    + [(name, part) for name in ("ellipses", "peaks") for part in ("train", "test")],
)
def test_points_that_no_machine_holds_are_refused(name, options):
    with pytest.raises(ValueError, match=r"1,000,000,000,000 points take .*TiB of memory, and .* is free"):
        lv.data.load(name, **{options: HUGE})


@pytest.mark.parametrize(
    "changes",
    [
        {"layers": 10**9},
        {"layers": 10**9, "model": "h1", "optimizer": "gauss-newton"},
        {"layers": 2**59, "levels": 60},
        {"engine": "stored", "layers": 10**9, "shared": True},
    ],
)
def test_a_plan_counts_what_training_keeps_before_anything_is_made(monkeypatch, changes):
    plan = lv.runs.Plan.of("swiss-roll").changed(data_options={"points": 200}, **changes)
    split = plan.load()
    monkeypatch.setattr(machine, "available_memory", lambda: 2**30)
    with pytest.raises(ValueError, match=r"take .* of memory, and 1 GiB is free; take"):
        plan.network(split.facts())


def test_the_count_of_a_plan_is_the_network_s(monkeypatch):
    seen = []
    monkeypatch.setattr(lv.runs.plan, "require_memory", lambda size, what, advice: seen.append(what))
    for data, changes in (
        ("swiss-roll", {}),
        ("peaks", {"shared": True}),
        ("swiss-roll", {"model": "h1", "J": "full"}),
    ):
        plan = lv.runs.Plan.of(data).changed(**changes)
        split = plan.load()
        network = plan.network(split.facts())
        assert seen[-1].startswith(f"{sum(p.numel() for p in network.parameters()):,} weights")


def test_nothing_is_allocated_before_the_refusal():
    """In an address space of what is there and 1 GiB."""
    code = (
        "import resource, torch, liouville as lv; lv.zoo.h2(4, layers=2, T=1)\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, used + 2**30))\n"
        "try: lv.zoo.h2(4, layers=4 * 10**7, T=1)\n"
        "except ValueError as error: print(error)\n"
        "lv.zoo.h2(4, layers=10**5, T=1)\n"
    )
    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("the weights of 40000000 layers, (2, 2) each, take 2.38 GiB of memory, and ")


def test_control_groups_bound_what_is_free(monkeypatch, tmp_path):
    own = tmp_path / "a" / "b"
    own.mkdir(parents=True)
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path)
    for folder, limit, used in ((own, "max", 10), (tmp_path / "a", "1000", 400)):
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text("anon 300\ninactive_file 50\nactive_file 20\n")
    assert list(machine._groups("0::/a/b\n")) == [670]
    older = tmp_path / "memory"
    older.mkdir()
    (older / "memory.limit_in_bytes").write_text("1000\n")
    (older / "memory.usage_in_bytes").write_text("900\n")
    (older / "memory.stat").write_text("inactive_file 5\ntotal_inactive_file 50\ntotal_active_file 20\n")
    assert list(machine._groups("4:memory:/\n2:cpu,cpuacct:/\n0::/nowhere\n")) == [170]


def test_what_the_machine_would_swap_is_free(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(machine, "_groups", lambda _: iter(()))
    monkeypatch.setattr(machine, "_limits", lambda: iter(()))
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   4 kB\nSwapTotal: 9 kB\nSwapFree:    3 kB\n")
    assert machine.available_memory() == 7 << 10


def test_what_is_small_is_not_asked_about(monkeypatch):
    monkeypatch.setattr(machine, "available_memory", lambda: pytest.fail("asked"))
    lv.zoo.h2(4, layers=1000, T=1.0)
    machine.require_memory(1000, "it", "")
    with torch.device("meta"):
        lv.zoo.h2(4, layers=10**6, T=1.0)
