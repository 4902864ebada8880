"""On a GPU, pretended or real: which device a run takes, the commands on it, certificates, and files."""

import copy
import dataclasses

import pytest
import torch
from click.testing import CliRunner

import liouville as lv
from liouville.cli.check import check
from liouville.cli.exits import BadInput
from liouville.cli.parallel import require_gpus
from liouville.cli.predict import predict
from liouville.runs import Plan, Run, train
from liouville.runs.place import WORTH, device_of
from measure import generator
from pretend_cuda import pretending


@pytest.fixture
def processes(monkeypatch):
    """Two processes on this machine, as --nproc 2 starts them."""
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29999"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")


def test_devices_by_name():
    with pretending(devices=2):
        assert [device_of(name) for name in ("cpu", "cuda", "cuda:1")] == [
            torch.device("cpu"),
            torch.device("cuda"),
            torch.device("cuda", 1),
        ]
        with pytest.raises(ValueError, match="there is no cuda:2 on this machine; it has cuda:0 to cuda:1"):
            device_of("cuda:2")
    with pytest.raises(ValueError, match="has no CUDA device"):
        device_of("cuda:0")
    with pytest.raises(ValueError, match="did you mean 'cuda'"):
        Plan(device="cud")
    assert Plan(device="cuda:1").device == "cuda:1"


def test_auto_goes_by_the_work_of_a_layer():
    planar, pictures = Plan.of("swiss-roll"), Plan.of("mnist")
    points, digits = planar.load().facts(), dataclasses.replace(planar.load().facts(), shape=(1, 28, 28))
    with pretending():
        assert [device_of("auto", work).type for work in (WORTH - 1, WORTH)] == ["cpu", "cuda"]
        assert planar._work(points) < WORTH <= pictures._work(digits)
        wide = planar.changed(features=64, batch_size=500)
        assert wide._work(points) == 500 * 64**2 >= WORTH
    assert device_of("auto", WORTH).type == "cpu"


def test_each_process_needs_a_gpu(processes):
    with pretending(devices=1):
        with pytest.raises(ValueError, match="2 processes need 2 GPUs on this machine, which has 1"):
            device_of("cuda")
        assert device_of("auto", WORTH).type == "cpu"
    with pretending(devices=2):
        assert device_of("cuda").type == "cuda"
        with pytest.raises(ValueError, match="a GPU of its own"):
            device_of("cuda:1")


def test_more_processes_than_gpus_are_not_started():
    with pretending(devices=1):
        require_gpus(2, "cpu")
        require_gpus(1, "cuda")
        with pytest.raises(BadInput, match="--nproc 2 --device cuda needs 2 GPUs"):
            require_gpus(2, "cuda")


def _run(folder):
    plan = Plan.of("double-moons").changed(layers=4, epochs=2, data_options={"points": 80}, device="cpu")
    train(plan, out=folder)


def test_commands_on_the_device(cuda, tmp_path):
    _run(tmp_path / "run")
    (tmp_path / "rows.csv").write_text("0.1,0.2\n-1,0.5\n")
    words = [str(tmp_path / "run"), str(tmp_path / "rows.csv"), "--probabilities"]
    here, there = (CliRunner().invoke(predict, [*words, "--device", device]) for device in ("cpu", "cuda"))
    assert here.exit_code == there.exit_code == 0 and here.stdout == there.stdout
    found = CliRunner().invoke(check, [str(tmp_path / "run"), "--device", "cuda", "--json"])
    assert found.exit_code == 0 and '"status": "pass"' in found.stdout


def test_a_run_that_was_trained_on_a_gpu_is_checked_without_one(tmp_path):
    _run(tmp_path / "run")
    config = tmp_path / "run" / "config.json"
    config.write_text(config.read_text().replace('"device": "cpu"', '"device": "cuda"'))
    run = Run.open(tmp_path / "run")
    assert run.plan.device == "cuda"
    assert run.certificate().holds


def test_a_network_is_written_there_and_read_here(cuda, tmp_path):
    network = lv.classifier("h2", inputs=2, classes=2, features=4, layers=4, T=1.0).to("cuda")
    lv.save(network, tmp_path / "model.safetensors")
    read = lv.load(tmp_path / "model.safetensors")
    for a, b in zip(network.parameters(), read.parameters(), strict=True):
        assert b.device.type == "cpu" and torch.equal(a.detach().cpu(), b.detach())


def test_certificates_and_bounds_are_those_of_the_cpu(cuda):
    here = lv.classifier("h2", inputs=2, classes=2, features=2, layers=1, T=1.0, generator=generator(0)).double()
    there = copy.deepcopy(here).to("cuda")
    x = torch.randn(2, 2, generator=generator(1), dtype=torch.float64)
    a, b = lv.analysis.certify(here, x), lv.analysis.certify(there, x.to("cuda"))
    assert [(c.name, c.status) for c in a.claims] == [(c.name, c.status) for c in b.claims] and b.holds
    for ask in (lv.analysis.log_upper_bound, lv.analysis.margin, lv.analysis.log_layer_bounds):
        assert torch.allclose(ask(here.body).detach(), ask(there.body).detach().cpu(), atol=1e-9)
