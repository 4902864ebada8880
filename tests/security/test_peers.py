"""Nothing that a peer sends is unpickled, and on one machine nobody else finds the rendezvous."""

import ast
import multiprocessing
import os
import pickle
import stat
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from agents.processes import CONTEXT
from liouville.agents.exchange import Simulation
from liouville.agents.transport import AgentFault, Distributed, gathered
from liouville.environment import RENDEZVOUS
from liouville.graphs import adjacency
from liouville.processes.rendezvous import LOOPBACK, connect, keep_store, meeting, private_folder

SOURCE = Path(__file__).parents[2] / "src" / "liouville"
RING = [(0, 1), (1, 2), (2, 3), (3, 0)]
FORBIDDEN = {
    *("all_gather_object", "broadcast_object_list", "gather_object", "scatter_object_list", "send_object_list"),
    *("recv_object_list", "pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "eval", "exec"),
}


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def names(tree):
    """Every name and attribute that a module uses, with the call that it stands in."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr, node
        elif isinstance(node, ast.Name):
            yield node.id, node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.name.split(".")[0], node) for alias in node.names)
            if isinstance(node, ast.ImportFrom) and node.module:
                yield node.module.split(".")[0], node


def test_the_library_has_no_door_for_objects():
    found = [
        f"{path.relative_to(SOURCE)}:{node.lineno}: {name}"
        for path in sorted(SOURCE.rglob("*.py"))
        for name, node in names(ast.parse(path.read_text()))
        # network.eval() is torch's switch to evaluation mode
        if name in FORBIDDEN and not (name == "eval" and isinstance(node, ast.Attribute))
    ]
    assert found == []
    seen = {name for name, _ in names(ast.parse("import pickle\ndist.all_gather_object(x, y)"))}
    assert {"pickle", "all_gather_object"} <= seen


def test_files_of_torch_are_read_as_weights_only():
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "numpy.load", "np.load"):
                given = {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert given.get("weights_only") == "True" or given.get("allow_pickle") == "False", (path, node.lineno)


def victim(port, out):
    """Rank 0 of an agents' run: it asks what the others know."""
    _join(0, port)
    try:
        store = meeting(20)
        exchange = Distributed(adjacency(RING), store, timeout=1)
        said = str(gathered({node: [1, 2] for node in exchange.hosted}, 16, exchange))
    except (AgentFault, ConnectionError) as fault:
        said = f"refused: {fault}"
    Path(out).write_text(said)
    os._exit(0)


def attacker(port, ran):
    """Rank 1: it sends a pickle where a peer's numbers are expected, by each collective that carries objects."""
    _join(1, port)
    for how in ("gather", "broadcast", "tensor"):
        try:
            if how == "gather":
                dist.all_gather_object([None, None], Payload(ran))
            elif how == "broadcast":
                dist.broadcast_object_list([Payload(ran)], src=1)
            else:
                data = bytearray(pickle.dumps(Payload(ran)).ljust(4 * 16 * 8, b"\0"))
                dist.all_reduce(torch.frombuffer(data, dtype=torch.int64)[: 4 * 16])
        except RuntimeError:
            continue
    os._exit(0)


def _join(rank, port):
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": LOOPBACK, "MASTER_PORT": str(port)}
    os.environ |= {"TORCHELASTIC_USE_AGENT_STORE": "True"}
    connect(timeout=20)


def test_a_peer_that_sends_a_pickle_runs_no_code(tmp_path):
    store, ran, said = keep_store(LOOPBACK, 30), tmp_path / "ran", tmp_path / "said"
    children = [
        CONTEXT.Process(target=victim, args=(store.port, str(said))),
        CONTEXT.Process(target=attacker, args=(store.port, str(ran))),
    ]
    for child in children:
        child.start()
    children[0].join(60)
    for child in children:
        child.kill()
        child.join()
    assert said.exists(), "the victim hung"
    assert not ran.exists()
    pickle.loads(pickle.dumps(Payload(ran)))  # the payload works
    assert ran.exists()


def test_whole_numbers_of_nodes_are_gathered_as_they_are():
    known = {0: [3, 0], 1: [], 2: [2**62], 3: [5]}
    assert gathered(known, 2, Simulation(adjacency(RING))) == known


def test_the_rendezvous_of_one_machine_is_a_file_that_only_its_owner_reaches(monkeypatch):
    with private_folder() as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and folder.stat().st_uid == os.geteuid()
        for name in ("MASTER_ADDR", "MASTER_PORT"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(RENDEZVOUS, str(folder))
        meeting(5).set("word", "said")
        assert meeting(5).get("word") == b"said"
        folder.chmod(0o755)
        with pytest.raises(ValueError, match="other users can reach; expected a folder of yours with mode 0700"):
            meeting(5)
    with pytest.raises(RuntimeError, match="No such file"):
        meeting(5)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_cannot_open_the_rendezvous():
    with private_folder() as folder:
        (folder / "store").write_bytes(b"")

        def stranger():
            os.setgid(65534)
            os.setuid(65534)
            try:
                (folder / "store").open("rb")
            except PermissionError:
                os._exit(0)
            os._exit(1)

        child = multiprocessing.get_context("fork").Process(target=stranger)
        child.start()
        child.join(20)
        assert child.exitcode == 0
