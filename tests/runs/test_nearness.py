"""The claim of locality in a certificate: it passes where nodes compute the network, and breaks where they do not."""

import torch

import liouville as lv
from liouville.agents import Placement
from liouville.runs.nearness import cost, locality

LINE = [("a", "b"), ("b", "c"), ("c", "d")]


def network(head="nodes"):
    operator = lv.Graph(LINE)
    made = lv.NodeHead(operator, 8) if head == "nodes" else torch.nn.Linear(8, 2)
    of = lv.Network(lv.Lift(8, 4), lv.zoo.h2(8, 2, 1.0, operator=operator), made)
    of.placement = Placement(LINE)
    return of


def test_the_claim_holds_and_breaks_where_a_link_is_taken_away():
    of = network()
    claim = locality(of, None)
    assert (claim.status, claim.bound) == ("pass", {"exchanges": 8.0, "hops": 3.0})
    assert claim.measured["difference"] <= 1e-12
    of.placement = Placement([*LINE[:2], ("d", "d")])
    claim = locality(of, None)
    assert claim.status == "broken" and "node c needs the state of node d" in claim.note
    of = network("sum")
    of.placement = Placement([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1], [1, 0, 0, 1]])
    assert locality(of, None).status == "broken"


def test_the_cost_of_a_decision_is_that_of_its_messages():
    found = cost(network())
    assert (found["exchanges"], found["hops"], found["head"]["rounds"]) == (8, 3, 0)
    ends, middle = found["nodes"][0], found["nodes"][1]  # one neighbour; two
    assert (ends["messages"], ends["numbers"]) == (8, 8) and (middle["messages"], middle["numbers"]) == (16, 16)
    assert middle["hears"] == ["a", "c"] and ends["outputs"] == ["output 0"]
    shared = cost(network("sum"))
    assert (
        shared["head"] == {"shared": True, "consensus": "gossip", "rounds": 6} and "outputs" not in shared["nodes"][0]
    )
