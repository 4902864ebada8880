"""Data parallel training: several real processes on the shares of a batch end where one ends on the whole."""

import functools
import multiprocessing
import time
import warnings

import pytest
import torch

pytest.importorskip("lightning", reason="several processes train through Lightning Fabric")

import liouville as lv
from liouville import runs
from liouville.lightning import Parallel
from liouville.processes import LOOPBACK, keep_store
from liouville.train import Processes
from measure import EPS, near
from parallel import cases, module, worker
from runs import own

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch", "liouville.agents.transport", "lightning", "torch.distributed.fsdp"])


@pytest.fixture(scope="module", params=[2, pytest.param(3, marks=pytest.mark.slow)])
def found(request, tmp_path_factory):
    """What each process got of every case; started once for all tests below."""
    folder, store = tmp_path_factory.mktemp("ranks"), keep_store(LOOPBACK, 60)
    ranks = range(request.param)
    children = [CONTEXT.Process(target=worker.main, args=(r, len(ranks), store.port, str(folder))) for r in ranks]
    for child in children:
        child.start()
    deadline = time.monotonic() + 200
    for child in children:
        child.join(max(0.0, deadline - time.monotonic()))
        child.kill()
    assert [child.exitcode for child in children] == [0] * len(ranks)
    del store
    return [torch.load(folder / f"{rank}.pt") for rank in ranks]


@functools.cache
def one(name):
    """What one process gets, and how far from it one ends that begins a rounding away."""
    exact, nudged = (cases.record(*cases.run(name, Processes(), nudge)) for nudge in (0.0, EPS))
    return exact, max(_distance(exact[key], nudged[key]) for key in ("weights", "numbers"))


def _distance(a, b):
    return float((a - b).abs().max())


def _allowed(spread, steps):
    """A step's gradient is a sum over the rows of a batch, each rounded once, and may be off by as many roundings."""
    return steps * cases.BATCH * max(spread, 4 * EPS)


@pytest.mark.parametrize("name", cases.CASES)
def test_several_processes_end_where_one_does(found, name):
    """Weights, and every loss, score, gradient norm and decision of the history."""
    expected, spread = one(name)
    for got in (rank[name] for rank in found):
        assert got["told"] == expected["told"]
        for key in ("weights", "numbers"):
            near(got[key], expected[key], _allowed(spread, cases.STEPS * cases.EPOCHS))


@pytest.mark.parametrize("name", cases.CASES)
def test_all_processes_end_with_the_same_bits(found, name):
    for other in found[1:]:
        for key in ("weights", "numbers"):
            assert torch.equal(found[0][name][key], other[name][key])


@pytest.mark.parametrize("name", cases.CASES)
def test_work_is_shared(found, name):
    """A pass over k rows is one over k / N rows, rounded up, in each of N processes."""
    for got in found:
        for gradients, sizes in one(name)[0]["sizes"].items():
            if name.startswith("alternation") and not gradients:
                continue  # the last head is trained by each process alone, on features of all rows
            assert got[name]["sizes"][gradients] == [-(-size // len(found)) for size in sizes]


def test_training_has_moved_the_weights():
    """Else the comparison above would compare nothing."""
    moved = (cases.weights(cases.dense()) - one("dense, stored")[0]["weights"]).abs()
    assert float(moved.median()) > 1e-2


def test_masks_differ_between_processes_and_the_weights_do_not(found):
    seeds = set()
    for got in found:
        (weights, seed), (again, _) = got["dropout"]
        assert torch.equal(weights, found[0]["dropout"][0][0]) and torch.equal(weights, again)
        seeds.add(seed)
    assert len(seeds) == len(found) and found[0]["dropout"][0][1] == 5


def test_a_run_is_called_by_all_and_the_first_has_the_folder(found):
    alone = cases.weights(runs.train(own.PLAN.changed(dtype="float64"), own.split()).network())
    for rank, got in enumerate(found):
        weights, path, processes = got["run"]
        assert (path is None) == (rank > 0) and processes == len(found)
        assert torch.equal(weights, found[0]["run"][0])
        torch.testing.assert_close(weights, alone, rtol=1e-10, atol=1e-10)  # 12 steps; the laws above are sharper
    assert torch.equal(cases.weights(runs.Run.open(found[0]["run"][1]).network()), found[0]["run"][0])


def test_batch_normalisation_is_refused(found):
    for got in found:
        assert got["refused"].startswith("1 is a BatchNorm1d") and "SyncBatchNorm" in got["refused"]


@pytest.mark.parametrize("how", cases.SHARDED)
@pytest.mark.parametrize("name", cases.ENGINES)
def test_sharded_weights_end_where_whole_ones_do(found, name, how):
    """FSDP2: a process keeps its part of every weight's layers, and all engines train."""
    whole, nudged = cases.dense(), cases.nudged(cases.dense(), EPS)
    for network in (whole, nudged):
        worker.fsdp_steps(network, *worker.fsdp_batch(), cases.SHARDED[how])
    allowed = _allowed(_distance(cases.weights(whole), cases.weights(nudged)), 3)
    for weights, kept in (rank["shards"][name, how] for rank in found):
        assert kept == 1 / len(found)
        near(weights, cases.weights(whole), allowed)


def test_a_trainer_of_lightning_ends_where_one_process_does(found):
    """A network in a LightningModule with a penalty on theta(), by the reversible engine."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected, nudged = module.train(), module.train(nudge=EPS)
    for got in found:
        near(got["trainer"], expected, _allowed(_distance(expected, nudged), 4))


def test_one_process_of_fabric_is_one_process():
    from lightning.fabric import Fabric

    together = Parallel(Fabric(accelerator="cpu", devices=1))
    got, expected = cases.record(*cases.run("dense, stored", together)), one("dense, stored")[0]
    assert torch.equal(got["weights"], expected["weights"])


def test_fit_leaves_no_trace_on_the_network():
    """What Fabric does to a network is undone: it is saved and copied as before."""
    network = cases.dense()
    before = set(vars(network))
    lv.train.fit(network, cases.split(), cases.settings(alternate=1))
    assert set(vars(network)) == before
