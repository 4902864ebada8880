"""Save and load: the same numbers, nothing executed, every change noticed."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import liouville as lv
from liouville.checkpoint import FORMAT, _digest, describe, load, read_description, register, save
from liouville.facts import Facts
from liouville.registry import _REGISTRY


def skew(n: int, *layers: int) -> torch.Tensor:
    J = torch.randn(*layers, n, n, generator=torch.Generator().manual_seed(0))
    return J - J.mT


def parts() -> dict[str, nn.Module]:
    """One of everything that a file can hold."""
    block = nn.Sequential(nn.Linear(2, 5), nn.GELU(), nn.Linear(5, 2))
    made = {name: lv.classifier(name, 2, 2, 4, 3, 1.0) for name in lv.zoo.MODELS}
    made |= {
        "images": lv.classifier("h2", (1, 12, 12), 3, (4, 8), (2, 1), 1.0, conv=lv.zoo.Images(dropout=0.2)),
        "dropout": lv.classifier("ms2", 2, 2, 4, 3, 1.0, dropout_rate=0.1),
        "learned lift": lv.classifier("ms2", 2, 3, 5, 2, 1.0, lift="linear"),
        "given J": lv.zoo.h1(4, 3, 1.0, J=skew(4)),
        "J per layer": lv.zoo.h1(4, 3, 1.0, J=skew(4, 3)),
        "trained J": lv.zoo.h1(4, 3, 1.0, J="full", train_J=True),
        "X": lv.zoo.h2(4, 3, 1.0, X=torch.randn(2, 2)),
        "graph": lv.zoo.h2(4, 3, 1.0, operator=lv.Graph([(0, 1)], sizes=1)),
        "graph with a structure": lv.zoo.h1(
            4, 3, 1.0, J="full", train_J=True, operator=lv.Graph(torch.tensor([[1, 0], [1, 1]]), structure=[(0, 1)])
        ),
        "shared": lv.zoo.h2(4, 3, 1.0, shared=True, activation="relu"),
        "checkpointed": lv.zoo.h2(4, 3, 1.0, backprop=lv.Checkpointed(2)),
        "shear": lv.Flow(lv.ShearField(block, nn.Linear(2, 2), layers=3, features=4), lv.Verlet(), 1.0),
        "one layer of its own J": lv.zoo.h1(4, 1, 1.0, J=skew(4, 1)),
        "named parts": lv.Network(
            nn.Sequential(OrderedDict(first=nn.Linear(2, 4), norm=nn.LayerNorm(4, elementwise_affine=False))),
            lv.zoo.h2(4, 2, 1.0),
            nn.Sequential(
                nn.LayerNorm(4, bias=False), nn.SiLU(), nn.GroupNorm(2, 4), nn.LeakyReLU(0.3), nn.Linear(4, 1)
            ),
        ),
        "implicit": lv.Flow(lv.HamiltonianField(3, 2, J="full"), lv.ImplicitMidpoint(), 1.0),
    }
    return made


@pytest.mark.parametrize("name", list(parts()))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_round_trip_is_bitwise(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = parts()[name].to(dtype).eval()
    state = torch.get_rng_state()
    again = load(save(network, tmp_path / "m.safetensors"))
    assert torch.equal(torch.get_rng_state(), state)
    shape = (5, 1, 12, 12) if name == "images" else (5, 2 if isinstance(network, lv.Network) else 4)
    x = torch.randn((5, 3) if name == "implicit" else shape, dtype=dtype)
    assert torch.equal(network(x), again(x))
    assert [w.dtype for w in again.parameters()] == [w.dtype for w in network.parameters()]
    assert {k: v.requires_grad for k, v in again.named_parameters()} == {
        k: v.requires_grad for k, v in network.named_parameters()
    }
    assert describe(again, {}) == describe(network, {})
    assert repr(again) == repr(network)


def test_saving_twice_writes_the_same_bytes(tmp_path: Path) -> None:
    network = parts()["h2"]
    first, second = (save(network, tmp_path / name).read_bytes() for name in ("a", "b"))
    assert first == second


def test_description_is_plain_data(tmp_path: Path) -> None:
    path = save(parts()["h2"], tmp_path / "m.safetensors")
    text = json.dumps(read_description(path))
    assert '"type": "SeparableHamiltonianField"' in text
    assert "init" not in json.loads(text)["body"]["field"]


class Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * x


def test_own_classes_must_be_registered(tmp_path: Path) -> None:
    network = lv.Network(Scale(3.0), lv.zoo.h2(4, 2, 1.0), nn.Linear(4, 1))
    with pytest.raises(ValueError, match=r"cannot save a .*Scale: .*liouville\.checkpoint\.register"):
        save(network, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []
    register(Scale)
    try:
        path = save(network, tmp_path / "m")
        assert load(path).lift.factor == 3.0
    finally:
        del _REGISTRY["Scale"]
    with pytest.raises(ValueError, match="the file names the class 'Scale', which is not registered"):
        load(path)


def test_a_class_of_a_registered_name_is_not_taken_for_it(tmp_path: Path) -> None:
    class Lift(nn.Module):
        pass

    with pytest.raises(ValueError, match="cannot save a"):
        save(Lift(), tmp_path / "m")


def test_unnamed_activation_is_refused(tmp_path: Path) -> None:
    sine = lv.Activation("sine", torch.sin, torch.cos, torch.cos, 1.0, False)
    with pytest.raises(ValueError, match="cannot save the activation 'sine'"):
        save(lv.zoo.h2(4, 2, 1.0, activation=sine), tmp_path / "m")


def edited(path: Path, change) -> Path:
    """The file with its description or tensors changed, the hash left as it was."""
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["liouville"])
        tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    change(header, tensors)
    save_file(tensors, path, metadata={"liouville": json.dumps(header)})
    return path


class Forgetful(nn.Linear):
    """Its description says less than its constructor was told."""


def test_what_could_not_be_loaded_is_not_saved(tmp_path: Path) -> None:
    register(Forgetful, lambda layer: {"in_features": 4, "out_features": layer.out_features})
    try:
        network = lv.Network(Forgetful(2, 4), lv.zoo.h2(4, 2, 1.0), nn.Linear(4, 1))
        with pytest.raises(ValueError, match="cannot save this network: rebuilt from its description"):
            save(network, tmp_path / "m")
        assert list(tmp_path.iterdir()) == []
    finally:
        del _REGISTRY["Forgetful"]


@pytest.mark.parametrize(
    "description",
    ["[]", "3", "null", '{"type": "Lift"}', '{"type": "Network"}', '{"type": "Tensor", "key": "x"}', "{", '{"a": 1}'],
)
def test_crafted_descriptions_are_refused_by_name(description: str, tmp_path: Path) -> None:
    path = tmp_path / "crafted"
    header = {"format": FORMAT, "description": description, "sha256": _digest(description, {})}
    save_file({}, path, metadata={"liouville": json.dumps(header)})
    with pytest.raises(ValueError, match="crafted: "):
        load(path)


@pytest.mark.parametrize("metadata", ["[1]", "3", '{"format": "liouville-1", "description": 3, "sha256": ""}'])
def test_crafted_headers_are_refused_by_name(metadata: str, tmp_path: Path) -> None:
    save_file({}, tmp_path / "crafted", metadata={"liouville": metadata})
    with pytest.raises(ValueError, match="crafted is"):
        load(tmp_path / "crafted")


def test_changed_weights_are_noticed(tmp_path: Path) -> None:
    path = save(parts()["h2"], tmp_path / "m.safetensors")

    def change(header, tensors):
        tensors["head.bias"] += 1e-6

    with pytest.raises(ValueError, match=r"m\.safetensors was changed after it was written"):
        load(edited(path, change))


def test_changed_description_is_noticed(tmp_path: Path) -> None:
    path = save(parts()["h2"], tmp_path / "m.safetensors")

    def change(header, tensors):
        header["description"] = header["description"].replace('"T": 1.0', '"T": 2.0')

    with pytest.raises(ValueError, match="was changed after it was written"):
        load(edited(path, change))


FACTS = Facts("mine", (2,), classes=2, label_names=("low", "high"), offset=(1.0, 2.0), scale=3.0, fingerprint="f")


def test_facts_travel_under_the_hash_and_answer_raw_inputs(tmp_path: Path) -> None:
    network = lv.classifier("h2", inputs=2, classes=2, features=4, layers=2, T=1.0)
    bare = save(network, tmp_path / "bare")
    network.facts = FACTS
    saved = [load(save(network, tmp_path / "own")), load(save(load(bare), tmp_path / "given", facts=FACTS))]
    raw = torch.tensor([[4.0, 5.0], [-20.0, 3.0]])
    for again in saved:
        assert again.facts == FACTS
        assert torch.equal(again.transform(raw), torch.tensor([[1.0, 1.0], [-7.0, 1 / 3]]))
        signs = again(again.transform(raw)).squeeze(-1) >= 0
        assert again.predict(raw.tolist()) == [("low", "high")[int(sign)] for sign in signs]
        assert torch.equal(again(raw), network(raw))  # which takes inputs as it was trained on
    with pytest.raises(ValueError, match=r"does not know its data.* network\.facts = split\.facts\(\)"):
        load(bare).predict(raw)


def test_without_facts_a_file_has_the_format_that_earlier_versions_read(tmp_path: Path) -> None:
    network = lv.classifier("h2", inputs=2, classes=2, features=4, layers=2, T=1.0)
    for facts, form in ((None, "liouville-1"), (FACTS, "liouville-2")):
        with safe_open(save(network, tmp_path / "m", facts=facts), framework="pt") as file:
            assert json.loads(file.metadata()["liouville"])["format"] == form


@pytest.mark.parametrize(
    "change",
    [
        lambda header, tensors: header.update(facts=header["facts"].replace('"low"', '"high"')),
        lambda header, tensors: header.update(facts=header["facts"].replace("3.0", "4.0")),
        lambda header, tensors: header.pop("facts") and header.update(format="liouville-1"),
    ],
)
def test_changed_facts_are_noticed(tmp_path: Path, change) -> None:
    network = lv.classifier("h2", inputs=2, classes=2, features=4, layers=2, T=1.0)
    path = save(network, tmp_path / "m", facts=FACTS)
    with pytest.raises(ValueError, match="was changed after it was written"):
        load(edited(path, change))


def test_unreadable_foreign_truncated_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a model")
    with pytest.raises(ValueError, match="is not a readable model file"):
        load(tmp_path / "text")
    save_file({"w": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(ValueError, match="not a liouville model"):
        load(tmp_path / "foreign.safetensors")
    path = save(parts()["h2"], tmp_path / "m.safetensors")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="is not a readable model file"):
        load(path)
    with pytest.raises(FileNotFoundError, match="there is no model file"):
        load(tmp_path / "nothing")


class Boom:
    def __reduce__(self):
        return (os.mkdir, ("executed",))


def test_pickles_are_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weights": Boom()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="is not a readable model file"):
        load(tmp_path / "evil.pt")
    assert not (tmp_path / "executed").exists()


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(parts()["h2"], tmp_path / "m.safetensors")
    before = path.read_bytes()

    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        save(parts()["h1"], path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]
