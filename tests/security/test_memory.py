"""What is read takes memory in proportion to its size: 64 MB and ten times the size unpacked, measured in a process."""

import gzip
import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

import liouville as lv
from liouville import checkpoint
from liouville.checkpoint import DamagedModelError

SPARE, FACTOR = 64 << 20, 10
MEASURE = """
import io, os, sys, time, torch, liouville as lv
from liouville.cli.inputs import read_inputs
from liouville.cli import run
from liouville.documents import read
from liouville.graphs import adjacency
torch.set_num_threads(1)
(torch.zeros(2) + 1).sum()
def now(name):
    return int(open("/proc/self/status").read().split(name + ":")[1].split()[0]) << 10
{warm}
before = now("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
began = time.monotonic()
try:
    {call}
    said = "accepted"
except (ValueError, OSError) as error:
    said = str(error)
print(now("VmHWM") - before, time.monotonic() - began, said[:200].replace(chr(10), " "))
"""
needs_linux = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's measure of memory")


def measured(call, warm="pass"):
    """Bytes and seconds that a call took in a process of its own, and what it said."""
    text = MEASURE.format(call=call, warm=warm)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", text], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-600:]
    used, took, said = done.stdout.split(" ", 2)
    return int(used), float(took), said.strip()


def model_file(path, description, tensors=None):
    """A model file with this description, under a hash that is right."""
    text, tensors = json.dumps(description), tensors or {}
    header = {"format": checkpoint.FORMAT, "description": text, "sha256": checkpoint._digest(text, tensors)}
    path.write_bytes(save(tensors, metadata={"liouville": json.dumps(header)}))
    return path


LINEAR = {"type": "Linear", "in_features": 30_000, "out_features": 30_000, "bias": True}
AFFINE = {"eps": 1e-5, "elementwise_affine": True, "bias": True}
NORM = {"type": "LayerNorm", "normalized_shape": [40_000, 20_000], **AFFINE}
MANY = {"type": "Sequential", "parts": [{"type": "Tanh"}] * 200_000, "names": [str(k) for k in range(200_000)]}


def deep(**changed):
    """The description of a flow, with some numbers of its field changed."""
    found = json.loads(json.dumps(checkpoint.describe(lv.zoo.h2(4, 3, 1.0))))
    found["field"] |= changed
    return found


HUGE = {
    "linear": LINEAR,
    "norm": NORM,
    "layers": deep(layers=10**8),
    "features": deep(features=20_000),
    "both": deep(features=20_000, layers=10**8),
    "many parts": MANY,
}


@pytest.mark.parametrize("name", list(HUGE))
def test_a_small_file_that_describes_a_large_network_is_refused_before_it_is_built(name, tmp_path):
    path = model_file(tmp_path / "m.safetensors", HUGE[name])
    with pytest.raises(DamagedModelError):
        lv.load(path)


@needs_linux
@pytest.mark.slow
@pytest.mark.parametrize("name", list(HUGE))
def test_and_takes_no_memory_and_no_time(name, tmp_path):
    path = model_file(tmp_path / "m.safetensors", HUGE[name])
    warm = f"lv.load({str(lv.save(lv.zoo.h2(4, 3, 1.0), tmp_path / 'w.safetensors'))!r})"
    used, took, said = measured(f"lv.load({str(path)!r})", warm)
    assert said != "accepted" and used < SPARE + FACTOR * path.stat().st_size and took < 10


@needs_linux
@pytest.mark.slow
def test_a_sound_model_takes_a_few_times_its_file(tmp_path):
    path = lv.save(lv.zoo.h2(256, 64, 1.0), tmp_path / "m.safetensors")
    used, _, said = measured(f"lv.load({str(path)!r})")
    assert said == "accepted" and used < SPARE + FACTOR * path.stat().st_size


TABLES = {
    "two columns": (b"1,2\n" * (4 << 20), 2),
    "one column": (b"1\n" * (8 << 20), 1),
    "blanks": (b"1   2\n" * (2 << 20), 2),
    "quotes": (b'"1",2\n' * (2 << 20), 2),
    "one line": (b"1," * (8 << 20) + b"1\n", 2),
    "json": (b"[" + b"[]," * (4 << 20) + b"1]", 2),
    "gzip": (gzip.compress(b"1,2\n" * (50 << 20), 1), 2),
}


@needs_linux
@pytest.mark.slow
@pytest.mark.parametrize("name", list(TABLES))
def test_a_table_takes_ten_times_its_size(name, tmp_path):
    content, width = TABLES[name]
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    small = tmp_path / "s.csv"
    small.write_bytes(b"1,2\n")
    used, took, _ = measured(f"read_inputs({str(path)!r}, [{width}])", f"read_inputs({str(small)!r}, [2])")
    assert used < SPARE + FACTOR * len(content), f"{used / len(content):.1f} times"
    assert took < 60


@needs_linux
@pytest.mark.slow
@pytest.mark.parametrize("claimed", [(300_000, 28, 28), (2**31, 2**31, 8)])
def test_a_bomb_of_an_image_file_is_refused_before_it_is_unpacked(claimed, tmp_path):
    head = bytes((0, 0, 8, 3)) + struct.pack(">3I", *claimed)
    path = tmp_path / "b.gz"
    path.write_bytes(gzip.compress(head + bytes(300_000 * 28 * 28), 1))
    used, _, said = measured(f"read_inputs({str(path)!r}, [1, 28, 28])")
    assert "times its own size" in said and used < SPARE + FACTOR * 20 * path.stat().st_size


@needs_linux
@pytest.mark.slow
def test_an_array_whose_header_promises_more_than_the_file_has_takes_nothing(tmp_path):
    text = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000, 8), }"
    path = tmp_path / "a.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + 1) + text + b"\n" + bytes(64))
    used, _, said = measured(f"read_inputs({str(path)!r}, [8])")
    assert "of the 64,000,000,000 bytes that its header says" in said and used < SPARE


@needs_linux
@pytest.mark.slow
@pytest.mark.parametrize("text", ["[" + "[]," * 2_000_000 + "1]", "[" + '{"a":{}},' * 700_000 + "1]"])
def test_a_document_of_brackets_is_refused(text, tmp_path):
    path = tmp_path / "d.json"
    path.write_text(text)
    used, _, said = measured(f"read({str(path)!r})")
    assert "too many parts for its size" in said and used < SPARE + FACTOR * len(text)


@needs_linux
@pytest.mark.slow
def test_a_graph_of_too_many_nodes_is_refused_before_there_is_a_matrix(tmp_path):
    nodes = "".join(f'<node id="{k}"/>\n' for k in range(60_000))
    path = tmp_path / "g.graphml"
    path.write_text(f'<graphml xmlns="http://graphml.graphdrawing.org/xmlns"><graph>{nodes}</graph></graphml>')
    used, took, said = measured(f"adjacency({str(path)!r})")
    assert "1 to 4096 nodes" in said and used < SPARE and took < 10


@needs_linux
@pytest.mark.slow
def test_check_neither_builds_what_a_config_names_nor_reads_files_for_it(tmp_path):
    run = lv.runs.train(
        lv.runs.Plan.of("swiss-roll").changed(epochs=1, layers=2, data_options={"points": 40}), out=tmp_path / "run"
    )
    sound = shutil.copytree(run.path, tmp_path / "sound")
    path = run.path / "config.json"
    config = json.loads(path.read_text())
    config["plan"] |= {"layers": 50_000_000, "data": "mnist", "data_options": {"root": "/etc"}}
    path.write_text(json.dumps(config))
    call = f"raise ValueError(lv.runs.Run.open({str(run.path)!r}).certificate().broken[0].note)"
    used, _, said = measured(call, f"lv.runs.Run.open({str(sound)!r}).certificate()")
    assert "a much larger network in config.json" in said and used < 2 * SPARE


def test_a_model_file_with_weights_of_another_shape_or_type_is_refused(tmp_path):
    flow = lv.zoo.h2(4, 3, 1.0)
    state = {k: v.contiguous() for k, v in flow.state_dict().items()}
    description = checkpoint.describe(flow)
    name = next(iter(state))
    for wrong in (state[name].reshape(-1), state[name].long(), state[name].to(torch.float8_e5m2)):
        path = model_file(tmp_path / "m.safetensors", description, state | {name: wrong})
        with pytest.raises(DamagedModelError, match=f"{name} has"):
            lv.load(path)
