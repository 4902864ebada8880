"""A run goes on only with what it was trained with: settings, graphs, data and files, each held against the record."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import liouville as lv
from liouville.agents import Simulation, spread
from liouville.agents.checkpoints import Checkpoints, record_of
from liouville.agents.training import train
from liouville.data import Split
from liouville.task import Task
from liouville.train import Penalty, Settings

RING = ((0, 1), (1, 2), (2, 3), (3, 0))


def data(seed=0, samples=12):
    x = torch.randn(2 * samples, 2, generator=torch.Generator().manual_seed(seed))
    y = (x.sum(1) > 0).long()
    return Split(x[:samples], y[:samples], x[samples:], y[samples:], name=f"cloud {seed}", classes=2)


def run(folder, epochs=2, split=None, graph=RING, T=1.0, dtype=torch.float64, seed=0, lr=0.02, batch=5, **other):
    """Train as the command does: what it found, and the losses."""
    torch.manual_seed(seed)
    operator = lv.Graph(graph, sizes=other.get("sizes", 1))
    n = 2 * sum(operator.sizes)
    model = getattr(lv.zoo, other.get("model", "h2"))
    flow = model(n, other.get("layers", 2), T, operator=operator)
    network = lv.Network(lv.Lift(n, 2, place=other.get("place", (0, n // 2))), flow, nn.Linear(n, 1)).to(dtype)
    split = split or data()
    protocol, consensus = other.get("protocol", "owner-computes"), other.get("consensus", "gossip")
    exchange = Simulation(adjacency_for(protocol, graph))
    record = record_of(network, exchange.graph, split, protocol, consensus, batch=batch, lr=lr, seed=seed)
    checkpoints = Checkpoints(Path(folder), record, epochs)
    checkpoints.require_same(range(len(exchange.graph)))
    local, found = spread(network, exchange, protocol, consensus), []
    settings = Settings(epochs, batch, lr, warmup=0.3, validation=0.0, seed=seed)
    cast = split.to(dtype=dtype)
    losses = train(local, exchange, cast, Task("logistic", 2), settings, checkpoints, on_start=found.append)
    return found[0], losses


def adjacency_for(protocol, graph):
    return torch.ones(4, 4) if protocol == "replicated" else graph


CHANGES = {
    "--data was cloud 0, is cloud 1": {"split": data(1)},
    "the data (-d) was 12 and 12 samples": {"split": data(0, samples=13)},
    "--T was 1.0, is 2.0": {"T": 2.0},
    "--lr was 0.02, is 0.1": {"lr": 0.1},
    "--seed was 0, is 1": {"seed": 1},
    "--batch was 5, is 4": {"batch": 4},
    "--dtype was float64, is float32": {"dtype": torch.float32},
    "--inputs was 0,4, is 1,5": {"place": (1, 5)},
    "--layers was 2, is 3": {"layers": 3},
    "--sizes was 1,1,1,1, is 2,2,2,2": {"sizes": 2},
    "--model was h2, is h1": {"model": "h1"},
    "--consensus was gossip, is all-reduce": {"consensus": "all-reduce"},
    "--protocol was owner-computes, is replicated": {"protocol": "replicated"},
    "--graph was 4 nodes and 8 links": {"graph": (*RING, (0, 2))},
    "--mask was 4 nodes and 8 links": {"graph": (*RING, (0, 2))},
    "give --epochs 2 or more": {"epochs": 1},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    run(folder)
    return folder


@pytest.mark.parametrize("sentence", CHANGES)
def test_a_folder_of_another_training_is_refused_and_the_difference_named(sentence, trained):
    before = {path.name: path.read_bytes() for path in trained.iterdir()}
    with pytest.raises(ValueError) as refused:
        run(trained, **CHANGES[sentence])
    assert sentence in str(refused.value) and "\n" not in str(refused.value)
    assert {path.name: path.read_bytes() for path in trained.iterdir()} == before


def test_the_same_settings_go_on_to_the_last_bit_and_more_epochs_say_so(tmp_path):
    _, whole = run(tmp_path / "whole", epochs=3)
    run(tmp_path / "parts", epochs=3)
    for node in range(4):  # as if it had been killed after the second epoch
        (tmp_path / f"parts/node-{node}.epoch-3.safetensors").unlink()
    (tmp_path / "parts/.node-0.epoch-3.safetensors.x.safetensors").write_bytes(b"half")
    found, losses = run(tmp_path / "parts", epochs=3)
    assert (found.epoch, found.planned, losses) == (2, 3, whole)
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "parts").iterdir())
    for name in names:
        one, two = (load_file(tmp_path / folder / name) for folder in ("whole", "parts"))
        assert all(torch.equal(one[key], two[key]) for key in one)
    found, losses = run(tmp_path / "parts", epochs=4)
    assert (found.epoch, found.planned, len(losses)) == (3, 3, 4)


def damage(path, how):
    content = bytearray(path.read_bytes())
    tensors = {key: t.clone() for key, t in load_file(path).items()}
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    if how == "bit":
        content[-9] ^= 64
    if how == "cut":
        del content[len(content) // 2 :]
    if how == "empty":
        content.clear()
    if how in ("bit", "cut", "empty"):
        path.write_bytes(content)
    if how == "link":  # to nowhere
        path.unlink()
        path.symlink_to("nowhere")
    if how == "node":
        path.write_bytes(path.with_name("node-1.epoch-2.safetensors").read_bytes())
    if how == "numbers":
        save_file({key: torch.zeros_like(t) for key, t in tensors.items()}, path, metadata)
    if how == "record":
        entry = metadata["liouville-agents"].replace("0.02", "0.03")
        save_file(tensors, path, {"liouville-agents": entry})
    if how == "words":
        save_file(tensors, path, {"liouville-agents": '{"record": "[]"}'})
    if how == "older":
        save_file(tensors, path, {"losses": "[0.5, 0.4]"})


def test_files_that_a_node_lacks_do_not_make_a_run_begin_anew(tmp_path):
    run(tmp_path)
    for path in tmp_path.glob("node-1.*"):
        path.unlink()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match=r"2 epochs of some nodes, and no epoch of all, node 1 is behind"):
        run(tmp_path)
    assert sorted(tmp_path.iterdir()) == before
    for path in before[1::2]:  # killed while the first epoch was written
        path.unlink()
    assert run(tmp_path)[0].epoch == 0


@pytest.mark.parametrize("how", ["bit", "cut", "empty", "link", "numbers", "words"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(how, tmp_path):
    _, whole = run(tmp_path / "whole", epochs=3)
    run(tmp_path / "parts", epochs=3)
    path = tmp_path / "parts" / "node-2.epoch-3.safetensors"
    damage(path, how)
    found, losses = run(tmp_path / "parts", epochs=3)
    assert (found.epoch, found.damaged, losses) == (2, (path,), whole)
    for name in sorted(p.name for p in (tmp_path / "whole").iterdir()):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    for epoch in (2, 3):
        damage(tmp_path / "parts" / f"node-2.epoch-{epoch}.safetensors", "bit")
    with pytest.raises(ValueError, match="3 epochs of some nodes, and no epoch of all, node 2 is behind"):
        run(tmp_path / "parts", epochs=3)


@pytest.mark.parametrize("how", ["node", "older", "record"])
def test_a_checkpoint_of_another_node_or_version_is_refused_by_name(how, tmp_path):
    run(tmp_path)
    path = tmp_path / "node-2.epoch-2.safetensors"
    damage(path, how)
    sentence = {"older": "older version", "record": "--lr was 0.03, is 0.02", "node": "is another node's file"}[how]
    with pytest.raises(ValueError, match=sentence) as refused:
        run(tmp_path)
    assert (how == "record" or str(path) in str(refused.value)) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "change", [{"validation": 0.1}, {"optimizer": "sgd"}, {"penalty": Penalty(decay=1e-3)}, {"ema_decay": 0.9}]
)
def test_a_setting_that_agents_do_not_heed_is_refused_by_name(change):
    settings = Settings(**{"validation": 0.0} | change)
    with pytest.raises(ValueError, match=f"agents train with {next(iter(change))}="):
        train(lv.Network(lv.Lift(8, 2), nn.Identity(), nn.Linear(8, 1)), None, data(), Task("logistic", 2), settings)
