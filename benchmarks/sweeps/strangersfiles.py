"""Does a stranger's file ever run code, hang, take memory, or end in a traceback, in any reader of the library?

Sound files of nine kinds are made once; every case damages one, as bytes or as what they mean, and reads it back in
this process. A case ends in a right answer, by an oracle of its own, or in a `ValueError` or `OSError` of one sentence.
Beyond that are counted: executed (an audit hook sees a process started, a socket, an unpickled class, or another file
opened), hung (more than 10 s), and over the bound (more than 64 MB and 10 times the file's unpacked size).
"""

from __future__ import annotations

import contextlib
import copy
import gc
import gzip
import io
import json
import os
import random
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import sweep
import torch
from runfiles import POOL, RAW, holder, parts
from safetensors import safe_open
from safetensors.torch import save as serialised

import liouville as lv
from liouville import checkpoint
from liouville.agents import Simulation, spread
from liouville.agents.checkpoints import Checkpoints, _record, record_of
from liouville.cli.inputs import read_inputs
from liouville.documents import read
from liouville.experiments import EXPERIMENTS, load
from liouville.experiments.records import Store
from liouville.graphs import adjacency
from liouville.runs import Run

LIMIT, SPARE, FACTOR = 10.0, 64 << 20, 10
if Path("/dev/shm").is_dir():
    tempfile.tempdir = "/dev/shm"  # hundreds of thousands of small files are no work for a disk
SECRET = "/etc/hostname"  # no reader has a reason to open it
WATCHED = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect", "pickle.find_class")
seen: list[str] = []
watching = False


def hook(event: str, arguments: tuple[Any, ...]) -> None:
    """What a file must not bring about."""
    if watching and (event in WATCHED or (event == "open" and str(arguments[0]) == SECRET)):
        seen.append(f"{event} {arguments!r:.80}")


class Hung(BaseException):
    """A case took longer than it may."""


def _alarm(*_: object) -> None:
    raise Hung


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Inside, the hook counts and the clock runs."""
    global watching
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    watching = True
    try:
        yield
    finally:
        watching = False
        signal.setitimer(signal.ITIMER_REAL, 0)


def memory(name: str) -> int:
    """Bytes of this process: VmRSS now, or VmHWM, the most since it was reset."""
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{name}:")[1].split()[0]) << 10


class Kind(NamedTuple):
    """A kind of file.

    sound: sound files, as bytes or as folders of named bytes.
    twist: damages what a file means; None where only its bytes can be damaged.
    check: reads a file and says what is wrong with the answer, or nothing; errors are its refusal.
    """

    sound: list[bytes]
    twist: Callable[[random.Random, bytes], bytes] | None
    check: Callable[[Path, bytes], str]
    suffix: str


# --- damage


def as_bytes(draw: random.Random, content: bytes) -> bytes:
    """Flip, cut, repeat, insert, exchange: as a broken disk does, or somebody who tries."""
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        where = draw.randrange(len(data)) if data else 0
        how = draw.randrange(8)
        if how < 3 and data:
            data[where] ^= 1 << draw.randrange(8)
        elif how == 3:
            del data[where : where + draw.choice((1, 2, 8, 10**6))]
        elif how == 4:
            piece = data[where : where + draw.randrange(1, 64)]
            data[where:where] = piece * draw.choice((1, 2, 50))
        elif how == 5:
            data[where:where] = draw.choice(TOKENS)
        elif how == 6 and data:
            other = draw.randrange(len(data))
            data[where], data[other] = data[other], data[where]
        else:
            data[where : where + 8] = draw.randbytes(draw.choice((1, 4, 8)))
    return bytes(data)


TOKENS = [b"\0", b"\n", b",", b'"', b"'", b";", b"1e999", b"NaN", b"-", b"=1+1", b"\xff", b"\xef\xbb\xbf", b"\x1b[2J"]
TOKENS += [
    b"\xe2\x80\xae",
    b"9" * 400,
    b"[" * 300,
    b"{" * 300,
    b"<" * 50,
    b"<node id='x'/>",
    b"<!DOCTYPE a>",
    b"__class__",
]
TOKENS += [struct.pack("<Q", 2**63), struct.pack(">I", 2**32 - 1), b"\x80\x04\x95cos\nsystem\n", SECRET.encode()]


def json_twisted(draw: random.Random, text: str) -> str:
    """One or two values of a JSON text exchanged for others."""
    value = json.loads(text)
    for _ in range(draw.choice((1, 1, 2))):
        paths = parts(value)
        if not paths:
            break
        path = draw.choice(paths)
        new = copy.deepcopy(draw.choice((*POOL, SECRET, 20_000, 10**8, 2**31, f"RAW{draw.randrange(len(RAW))}")))
        holder(value, path)[path[-1]] = new
    text = json.dumps(value)
    for k, raw in enumerate(RAW):
        text = text.replace(json.dumps(f"RAW{k}"), raw)
    return text


# --- models


def _models() -> list[bytes]:
    torch.manual_seed(0)
    made = [lv.classifier(name, 2, 2, 4, 3, 1.0) for name in ("h1", "h2", "ms1")]
    made += [lv.zoo.h2(4, 3, 1.0, operator=lv.Graph([(0, 1)], sizes=1))]
    made += [lv.classifier("h2", (1, 8, 8), 3, (4, 8), (2, 1), 1.0, conv=lv.zoo.Images(dropout=0.2))]
    folder = Path(tempfile.mkdtemp())
    return [lv.save(network, folder / "m.safetensors").read_bytes() for network in made]


def model_twisted(draw: random.Random, content: bytes) -> bytes:
    """The description or a tensor changed, and hashed again, as a forger does."""
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        Path(file.name).write_bytes(content)
        with safe_open(file.name, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a dict)
            header = json.loads(opened.metadata()["liouville"])
    text = json_twisted(draw, header["description"]) if draw.random() < 0.8 else header["description"]
    if tensors and draw.random() < 0.4:
        name = draw.choice(sorted(tensors))
        tensors[name] = draw.choice(
            (
                tensors[name].half(),
                tensors[name].long(),
                tensors[name].reshape(-1),
                tensors[name] * float("nan"),
                tensors[name].to(torch.float8_e5m2),
                torch.zeros(1),
            )
        )
    header |= {"description": text, "sha256": checkpoint._digest(text, tensors, header.get("facts"))}
    return serialised(tensors, metadata={"liouville": json.dumps(header)})


def model_right(path: Path, content: bytes) -> str:
    """Accepted: a network whose weights are those in the file, under the hash that is in the file."""
    network = lv.load(path)
    with safe_open(path, framework="pt") as opened:
        held = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a dict)
    state = network.state_dict()
    same = all(torch.equal(state[k].nan_to_num(), v.nan_to_num()) for k, v in held.items() if not k.startswith("arg"))
    return "" if same else "its weights are not those of the file"


# --- tables, arrays, images


def _tables() -> list[bytes]:
    rows = [[0.1 * k, -1.5 * k] for k in range(20)]
    plain = "".join(f"{a},{b}\n" for a, b in rows)
    made = [plain, "a,b\n" + plain, plain.replace(",", ";"), plain.replace(",", "\t"), plain.replace("\n", "\r\n")]
    made += ["".join(f'"{a}",{b}\n' for a, b in rows), plain.replace(",", "  ")]
    return [text.encode() for text in made] + [plain.encode("utf-16"), gzip.compress(plain.encode())]


def table_right(path: Path, content: bytes) -> str:
    """Accepted: as many rows as lines with something in them, the header left out; all numbers finite."""
    found = read_inputs(str(path), [2]).samples
    if not bool(found.isfinite().all()):
        return "a value is not finite"
    with contextlib.suppress(ValueError, UnicodeDecodeError):
        lines = [line for line in content.decode("ascii").split("\n") if line.strip()]
        plain = [[float(cell) for cell in line.split(",")] for line in lines]
        if all(len(row) == 2 for row in plain) and not set(content.decode()) - set("0123456789.,-\n"):
            wanted = torch.tensor(plain, dtype=torch.float64)
            return "" if torch.equal(found, wanted) else "its numbers are not those of the text"
    return ""


def _npys() -> list[bytes]:
    made = []
    for kind in ("<f8", ">f4", "f2", "u1", "i8", "?"):
        file = io.BytesIO()
        numpy.save(file, numpy.arange(20).reshape(10, 2).astype(kind))
        made.append(file.getvalue())
    return [*made, gzip.compress(made[0])]


def npy_twisted(draw: random.Random, content: bytes) -> bytes:
    """The shape or the type in the header changed."""
    old, new = draw.choice(
        (
            (b"(10, 2)", draw.choice((b"(10,-2)", b"(9**9,)", b"(2, 10)", b"(1e3,2)", b"(99999,9)", b"((((((("))),
            (b"<f8", draw.choice((b"|O8", b"<c8", b">f8", b"|V8", b"<U2", b"<M8"))),
            (b"False", b"True "),
            (b"'descr'", b"'order'"),
        )
    )
    return content.replace(old, new)


def npy_right(path: Path, content: bytes) -> str:
    """Accepted: what NumPy reads."""
    found = read_inputs(str(path), [2]).samples
    raw = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
    if not raw.startswith(b"\x93NUMPY"):
        return ""
    wanted = numpy.load(io.BytesIO(raw), allow_pickle=False).astype(numpy.float64)
    return "" if numpy.array_equal(found.double().numpy().ravel(), wanted.ravel()) else "not the array that NumPy reads"


def _idxs() -> list[bytes]:
    pixels = bytes(random.Random(0).randbytes(5 * 4 * 4))
    plain = bytes((0, 0, 8, 3)) + struct.pack(">3I", 5, 4, 4) + pixels
    return [plain, gzip.compress(plain)]


def idx_twisted(draw: random.Random, content: bytes) -> bytes:
    """Other sizes, axes or types in the header."""
    if content.startswith(b"\x1f\x8b"):
        return gzip.compress(idx_twisted(draw, gzip.decompress(content)))
    sizes = [draw.choice((0, 1, 4, 5, 2**16, 2**31, 2**32 - 1)) for _ in range(draw.randrange(1, 5))]
    kind = draw.choice((8, 8, 8, 9, 11, 13))
    return (
        bytes((0, 0, kind, draw.choice((len(sizes), 3, 255)))) + struct.pack(f">{len(sizes)}I", *sizes) + content[16:]
    )


def idx_right(path: Path, content: bytes) -> str:
    """Accepted: the bytes behind the header."""
    found = read_inputs(str(path), [1, 4, 4]).samples
    raw = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
    if not raw.startswith(b"\0\0\x08"):
        return ""
    same = found.to(torch.uint8).numpy().tobytes() == raw[4 + 4 * raw[3] :]
    return "" if same else "its pixels are not those of the file"


# --- graphs


def _graphmls() -> list[bytes]:
    def text(kind: str) -> str:
        edges = "".join(f'<edge source="{k}" target="{(k + 1) % 5}"/>' for k in range(5))
        nodes = "".join(f'<node id="{k}"/>\n' for k in range(5))
        head = '<?xml version="1.0"?><graphml xmlns="http://graphml.graphdrawing.org/xmlns">'
        return f'{head}<graph edgedefault="{kind}">{nodes}{edges}</graph></graphml>'

    return [text("undirected").encode(), text("directed").encode()]


def graphml_twisted(draw: random.Random, content: bytes) -> bytes:
    """More nodes, entities, hyperedges, groups, a file of another."""
    new = draw.choice(
        (
            b"".join(b'<node id="n%d"/>' % k for k in range(draw.choice((10, 5000)))),
            b"<graph><node id='q'/></graph>",
            b"<hyperedge/>",
            b'<edge source="0" target="nobody"/>',
            b'<edge source="0" target="1" directed="perhaps"/>',
            b"<node/>",
        )
    )
    if draw.random() < 0.3:
        entity = f'<!DOCTYPE g [<!ENTITY e SYSTEM "file://{SECRET}">]>'.encode()
        return content.replace(b"<graphml", entity + b"<graphml").replace(b'"1"', b'"&e;"', 1)
    return content.replace(b"</graph>", new + b"</graph>")


def _edges() -> list[bytes]:
    matrix = "0 1 0 1\n1 0 1 0\n0 1 0 1\n1 0 1 0\n"
    return [
        b"0 1\n1 2\n2 3\n3 0\n",
        b"a,b\nb,c\nc,a\n",
        b"source,target\na,b\nb,c\n",
        matrix.encode(),
        b"0\t1\t0.5\n1\t2\t2\n",
    ]


def graph_right(path: Path, content: bytes) -> str:
    """Accepted: a square pattern with ones on its diagonal."""
    found = adjacency(path)
    sound = all(len(row) == len(found) and row[i] for i, row in enumerate(found))
    return "" if sound and 1 <= len(found) <= 4096 else "no pattern of a graph"


# --- agents, records, runs


def _agents() -> tuple[list[bytes], str]:
    folder, graph = Path(tempfile.mkdtemp()), adjacency([(0, 1), (1, 2), (2, 0)])
    split = lv.data.load("swiss-roll", points=40)
    operator = lv.Graph(graph, sizes=1)
    network = lv.Network(lv.Lift(6, 2, place=(0, 3)), lv.zoo.h2(6, 2, 1.0, operator=operator), torch.nn.Linear(6, 1))
    exchange = Simulation(graph)
    local = spread(network, exchange, "owner-computes", "gossip")
    optimizer = torch.optim.Adam([w for w in local.parameters() if w.requires_grad])
    local(split.x_train).sum().backward()
    optimizer.step()
    record = record_of(network, graph, split, "owner-computes", "gossip", lr=0.1)
    Checkpoints(folder, record, 1).write(exchange, local, optimizer, [0.5])
    paths = sorted(folder.glob("*.safetensors"))
    return [paths[0].read_bytes()], paths[0].name


AGENTS, AGENT = _agents()


def agent_right(path: Path, content: bytes) -> str:
    """Accepted: the tensors that were written, and the record."""
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder) / AGENT
        here.write_bytes(content)
        found = _record(here, whole=True)
        here.write_bytes(AGENTS[0])
        wanted = _record(here, whole=True)
    return "" if same(found, wanted) else "a damaged checkpoint is accepted"


def same(a: Any, b: Any) -> bool:
    """Whether two states are equal, tensors by their bits."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def _records() -> list[bytes]:
    folder = Path(__file__).parents[2] / "docs" / "reproduce"
    found = sorted(folder.glob("*/records.jsonl"))
    return [path.read_bytes()[:4000].rpartition(b"\n")[0] + b"\n" for path in found][:8] or [_one_record()]


def _one_record() -> bytes:
    return b'{"case": {"seed": 0}, "values": {}, "seconds": 1.0, "made": {}}\n'


def _names() -> list[str]:
    folder = Path(__file__).parents[2] / "docs" / "reproduce"
    return [path.parent.name for path in sorted(folder.glob("*/records.jsonl"))][:8] or [next(iter(EXPERIMENTS))]


RECORDS = list(zip(_records(), _names(), strict=False))


def lines_twisted(draw: random.Random, content: bytes) -> bytes:
    """One value in one line changed."""
    lines = content.decode().splitlines()
    k = draw.randrange(len(lines))
    with contextlib.suppress(ValueError):
        lines[k] = json_twisted(draw, lines[k])
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass")


def record_right(path: Path, content: bytes) -> str:
    """Accepted: records of the experiment, with seeds that can be counted up to."""
    for _, name in RECORDS:
        store = Store(load(name), path.parent)
        store.path = path
        if any(not 0 <= record.case.seed < 10_000 for record in store.current(quick=False)):
            return "a seed without bounds"
    return ""


def _runs() -> list[bytes]:
    folder = Path(tempfile.mkdtemp()) / "run"
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        plan = lv.runs.Plan.of("swiss-roll").changed(
            epochs=1, layers=2, features=4, data_options={"points": 40}, batch_size=20
        )
        lv.runs.train(plan, out=folder)
    global RUN
    RUN = folder
    return [(folder / "config.json").read_bytes()]


RUN = Path()


def document_twisted(draw: random.Random, content: bytes) -> bytes:
    """One or two values changed."""
    return json_twisted(draw, content.decode()).encode("utf-8", "surrogatepass")


def run_right(path: Path, content: bytes) -> str:
    """Accepted: the plan and the facts that the document says, and a label without a word only for the original's."""
    from liouville.runs.certifying import label

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_bytes(content)
        run = Run.open(folder)
        plan, facts, network = run.plan, run.facts, NETWORK[0]
        said = read(Path(folder) / "config.json")
        verdict = label(plan, run.config["data"], network, None)
    if facts.as_dict()["classes"] != said["data"]["classes"] or said["plan"]["T"] != plan.T:
        return "its plan or facts are not those of the document"
    mine = json.loads((RUN / "config.json").read_bytes())
    builds = {k: v for k, v in said["plan"].items() if k in ("model", "features", "layers", "T", "scheme", "lift")}
    if verdict.status == "pass" and any(mine["plan"][k] != v for k, v in builds.items() if k != "scheme"):
        return "it passes for another network than it describes"
    return ""


NETWORK: list[Any] = []


def kinds() -> dict[str, tuple[int, Kind]]:
    """How often each kind is drawn, in a thousand."""
    runs = _runs()
    NETWORK.append(Run.open(RUN).network())
    return {
        "model file": (90, Kind(_models(), model_twisted, model_right, ".safetensors")),
        "run folder": (90, Kind(runs, document_twisted, run_right, ".json")),
        "csv": (200, Kind(_tables(), None, table_right, ".csv")),
        "npy": (160, Kind(_npys(), npy_twisted, npy_right, ".npy")),
        "idx": (160, Kind(_idxs(), idx_twisted, idx_right, ".idx")),
        "graphml": (80, Kind(_graphmls(), graphml_twisted, graph_right, ".graphml")),
        "edge list": (80, Kind(_edges(), None, graph_right, ".txt")),
        "agents' checkpoint": (70, Kind(AGENTS, None, agent_right, ".safetensors")),
        "records": (70, Kind([content for content, _ in RECORDS], lines_twisted, record_right, ".jsonl")),
    }


class Fuzz:
    """All cases, and what they came to."""

    def __init__(self) -> None:
        self.kinds = kinds()
        self.names, self.weights = list(self.kinds), [often for often, _ in self.kinds.values()]
        self.folder = Path(tempfile.mkdtemp())
        self.beyond, self.drawn = Counter[str](), Counter[str]()
        for kind, sound in ((k, content) for _, k in self.kinds.values() for content in k.sound):
            self._read(kind, sound)  # what is imported late is no memory of a case

    def case(self, draw: random.Random) -> sweep.Outcome:
        """One damaged file, read."""
        name = draw.choices(self.names, self.weights)[0]
        kind = self.kinds[name][1]
        content = draw.choice(kind.sound)
        if kind.twist is not None and draw.random() < 0.5:
            content = kind.twist(draw, content)
        else:
            content = as_bytes(draw, content)
        self.drawn[name] += 1
        if memory("VmHWM") - memory("VmRSS") > SPARE // 4:  # else a case that takes more is seen without
            Path("/proc/self/clear_refs").write_text("5")
        before, began = memory("VmRSS"), time.monotonic()
        seen.clear()
        verdict, words = self._judged(kind, content)
        used, took = memory("VmHWM") - before, time.monotonic() - began
        if used > SPARE + FACTOR * max(len(content), 1):
            self.beyond["over the memory bound"] += 1
            verdict, words = "defect", f"{used >> 20} MB for {len(content)} bytes; {words}"
            gc.collect()
        if seen:
            self.beyond["executed"] += 1
            verdict, words = "defect", f"{seen}; {words}"
        return sweep.Outcome(verdict, f"{name}, {took:.1f} s: {words}")  # type: ignore[arg-type]

    def _judged(self, kind: Kind, content: bytes) -> tuple[str, str]:
        try:
            with watched():
                wrong = self._read(kind, content)
        except Hung:
            self.beyond["hung"] += 1
            return "defect", "no end in 10 s"
        except (ValueError, OSError, NotImplementedError) as error:
            text = str(error)
            sentence = bool(text.strip()) and "\n" not in text.strip()[:-1]
            return ("refused", text[:200]) if sentence else ("defect", f"no sentence: {text[:300]!r}")
        return ("wrong", wrong) if wrong else ("right", "")

    def _read(self, kind: Kind, content: bytes) -> str:
        path = self.folder / f"file{kind.suffix}"
        path.write_bytes(content)
        return kind.check(path, content)


def main() -> int:
    sys.addaudithook(hook)
    signal.signal(signal.SIGALRM, _alarm)
    os.environ.pop("LIOUVILLE_DEBUG", None)
    torch.set_num_threads(1)
    fuzz = Fuzz()
    code = sweep.run("strangers' files", fuzz.case, 100_000)
    print("; ".join(f"{name} {fuzz.drawn[name]:,}" for name in fuzz.names))
    print("; ".join(f"{what} {fuzz.beyond[what]}" for what in ("executed", "hung", "over the memory bound")))
    return code


if __name__ == "__main__":
    raise SystemExit(main())
