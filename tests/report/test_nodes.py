"""The figure of a graph: every node and link once, arrows where a link goes one way, at most one piece per name."""

import pytest

pytest.importorskip("matplotlib")

from liouville.graphs import adjacency
from liouville.report import communication_graph
from liouville.report.nodes import _places


@pytest.mark.parametrize(
    "links", [[("a", "b"), ("b", "c")], [(0, 1), (2, 3)], [[1]], [[1, 1, 0], [0, 1, 1], [1, 0, 1]]]
)
def test_nodes_links_and_names_are_drawn_once(links):
    graph = adjacency(links)
    M = len(graph)
    (axes,) = communication_graph(graph, inputs=[1] * M, outputs=[0] * (M - 1) + [2]).axes
    both = sum(graph[i][k] and graph[k][i] for i in range(M) for k in range(i))
    assert len(axes.collections) == M and len(axes.lines) == both
    said = [text.get_text() for text in axes.texts]
    arrows = [text for text in said if text == ""]
    assert len(arrows) == len(graph.one_way())
    for i in range(M):
        assert any((graph.names[i] if graph.names else str(i)) in text for text in said)


def test_places_are_apart_and_within_the_figure():
    for M in (1, 2, 12, 70):
        at = _places(adjacency([[abs(i - k) in (0, 1, M - 1) for k in range(M)] for i in range(M)]))
        assert all(x * x + y * y <= 1 + 1e-9 for x, y in at)
        assert len({(round(x, 3), round(y, 3)) for x, y in at}) == M
