"""DistributedDataParallel: two processes on the halves of a batch have the gradients of one process on the whole."""

import pytest
import torch
import torch.multiprocessing as mp

import liouville as lv
from backprop import processes
from measure import near, randn, rounding

WORLD = 2


@pytest.fixture(scope="module")
def gradients(tmp_path_factory):
    """Rank -> (engine, way) -> the gradients of all parameters; spawned once for all tests below."""
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(processes.run, args=(WORLD, str(folder)), nprocs=WORLD, join=True)
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


@pytest.mark.parametrize("how", processes.WAYS)
@pytest.mark.parametrize("name", processes.ENGINES)
def test_two_processes_equal_one(gradients, name, how):
    """Also where a penalty calls theta() outside of the wrapped forward pass, and where gradients are accumulated."""
    network = processes.model(lv.Stored())
    expected = processes.step(network, network, randn(processes.BATCH, 3), "penalty" if how == "penalty" else "plain")
    assert any(b.abs().max() > 0.01 for b in expected)
    for rank in range(WORLD):
        for a, b in zip(gradients[rank][name, how], expected, strict=True):
            near(a, b, rounding(b, terms=10 * 11))


@pytest.mark.parametrize("name", processes.ENGINES)
def test_all_processes_have_the_same_gradients(gradients, name):
    for how in processes.WAYS:
        for a, b in zip(gradients[0][name, how], gradients[1][name, how], strict=True):
            assert torch.equal(a, b)
