"""A node that dies, stalls or sends nonsense stops all others in time, in a sentence that names it."""

import re

import pytest

from agents import processes
from turns import one_in

RING = [(i, (i + 1) % 5) for i in range(5)]
TIMEOUT = 2.0
GRACE = 1.0
SLACK = 10.0  # of a busy machine

SENTENCES = {
    "die": r"node 2 died \(its connection closed\), in layer \d's forward pass",
    "stall": r"node 2 did not answer within 2 s, in layer \d's forward pass",
    "shape": r"node 2 answered with batch 7, expected 6, in layer \d's forward pass",
    "features": r"node 2 answered with features 2, expected 1, in layer \d's forward pass",
    "dtype": r"node 2 answered with torch.bfloat16, expected torch.float64, in layer \d's forward pass",
    "layer": r"node 2 answered with layer \d, expected \d, in layer \d's forward pass",
    "graph": r"node 2 answered with a message of another graph, protocol or distribution of nodes, in layer \d",
}


def spec(fault, **more):
    case = {"S": RING, "R": RING, "model": "h2", "layers": 8, "protocol": "owner-computes", "consensus": "gossip"}
    return {"cases": [case | more], "timeout": TIMEOUT, "fault": fault, "victim": 2}


def stopped(log):
    """When a process stopped, and what it said."""
    found = re.search(r"^STOPPED (\S+) (.*)$", log, re.M)
    assert found, log
    return float(found[1]), found[2]


@pytest.mark.parametrize("fault", one_in(3, list(SENTENCES)))
def test_every_other_node_stops_in_time_and_names_the_one_that_failed(fault, tmp_path):
    codes, logs = processes.run(spec(fault), 5, tmp_path, limit=60)
    began = float(re.search(r"^FAULT (\S+)$", logs[2], re.M)[1])
    for rank in (0, 1, 3, 4):
        assert codes[rank] == 1, logs
        when, sentence = stopped(logs[rank])
        assert re.match(SENTENCES[fault], sentence), sentence
        assert when - began < TIMEOUT + 2 * GRACE + SLACK
        assert "Traceback" not in logs[rank]


@pytest.mark.parametrize("fault", one_in(2, ["die", "stall"]))
def test_a_fault_under_a_collective_operation_stops_everybody_too(fault, tmp_path):
    """The head's all-reduce has no peer to name: the store does."""
    from_one = spec(fault, R=[(i, i) for i in range(5)], consensus="all-reduce", model="h1")
    codes, logs = processes.run(from_one, 5, tmp_path, limit=60)
    for rank in (0, 1, 3, 4):
        assert codes[rank] == 1, logs
        assert "node 2" in stopped(logs[rank])[1]


def test_two_processes_that_disagree_name_each_other(tmp_path):
    codes, logs = processes.run(spec("dtype") | {"victim": 1}, 2, tmp_path, limit=60)
    assert codes[0] == 1
    assert "the process of nodes 3 to 4 answered with torch.bfloat16" in stopped(logs[0])[1]
