"""A graph comes in many forms: each is read as drawn, or refused in one sentence; nothing is guessed in silence."""

import copy
import pickle

import pytest
import torch

import liouville as lv
from liouville.graphs import Pattern, adjacency

numpy = pytest.importorskip("numpy")
networkx = pytest.importorskip("networkx")

PATH = adjacency([(0, 1), (1, 2), (2, 3)])
TWO = adjacency([(0, 1), (1, 2)])


def read(folder, content, name="graph.txt"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return adjacency(path)


@pytest.mark.parametrize(
    "links",
    [
        numpy.array([[0, 1], [1, 2]]),
        numpy.array([[0, 1], [1, 2]], dtype=numpy.uint8),
        torch.tensor([[0, 1], [1, 2]]),
        [(numpy.int64(0), numpy.int32(1)), (1, numpy.int64(2))],
        [torch.tensor([0, 1]), torch.tensor([1, 2])],
        [[0, 1], [1, 2]],
        [(0.0, 1.0), (1.0, 2.0)],
        zip([0, 1], [1, 2], strict=True),
        networkx.path_graph(3).edges,
        list(networkx.path_graph(3).edges(data=True)),
    ],
    ids=lambda links: type(links).__name__,
)
def test_two_links_are_links_whatever_holds_them(links):
    assert adjacency(links) == TWO


def test_three_links_may_stand_in_rows_or_in_columns():
    edge_index = torch.tensor([[0, 1, 2], [1, 2, 3]])
    for links in (edge_index, edge_index.mT, edge_index.numpy(), edge_index.tolist(), edge_index.mT.tolist()):
        assert adjacency(links) == PATH


@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_a_matrix_is_a_matrix_in_every_memory_layout_and_type():
    A = torch.tensor(PATH).double() - torch.eye(4)
    array = A.numpy()
    sources = [A, A.long(), A.bool(), A.bfloat16(), -0.5 * A, A * 1j, A.to_sparse(), A.to_sparse_csr()]
    sources += [array.astype(kind) for kind in (">f8", "f2", "u2", "g", "c8", "?", "O")]
    sources += [array[::-1, ::-1], numpy.asfortranarray(array), array.tolist(), numpy.ma.masked_equal(array, 0)]
    assert all(adjacency(source) == PATH for source in sources)


def test_sparse_matrices_and_tables_of_other_libraries():
    sparse, pandas = pytest.importorskip("scipy.sparse"), pytest.importorskip("pandas")
    A = torch.tensor(PATH).double().numpy()
    A[0, 1] = 0  # 0 does not hear of 1
    one_way = adjacency(A)
    assert not one_way[0][1] and one_way[1][0]
    for kind in (sparse.csr_matrix, sparse.coo_array, sparse.lil_matrix):
        assert adjacency(kind(A)) == one_way
    assert adjacency(sparse.coo_matrix(([1.0, -1.0], ([0, 0], [1, 1])), shape=(2, 2))) == adjacency(torch.eye(2))
    twice = numpy.array([128, 128], dtype=numpy.uint8), numpy.array([[0, 0], [1, 1]])
    assert adjacency(sparse.coo_matrix((twice[0], tuple(twice[1])), shape=(2, 2)))[0][1]
    assert adjacency(torch.sparse_coo_tensor(torch.tensor(twice[1]), torch.tensor(twice[0]), (2, 2)))[0][1]
    with pytest.raises(ValueError, match="1 to 4096 nodes, got 100000"):
        adjacency(sparse.csr_matrix((100000, 100000)))
    names = list("abcd")
    frame = adjacency(pandas.DataFrame(A, index=names, columns=names))
    assert frame == one_way and frame.names == tuple(names)
    links = pandas.DataFrame({"weight": 1.0, "Source": names[:3], "Target": names[1:]})
    assert adjacency(links) == PATH and adjacency(links).names == tuple(names)
    assert adjacency(pandas.DataFrame({"from": [0, 1, 2], "to": [1, 2, 3]})) == PATH


@pytest.mark.parametrize(
    "source, message",
    [
        ([[1, 1], [1, 1]], "two links or a 2 x 2 matrix; give links as a list of tuples"),
        ([[0, 2], [2, 0]], "two links or a 2 x 2 matrix"),
        (numpy.array([[0, 1], [2, 3]]), "in columns"),
        ([(0, 1, 5), (1, 2, 6), (2, 0, 7)], "give links as pairs"),
        (numpy.array([[0.0, 1.0], [1.0, 2.0]]), "two links or a 2 x 2 matrix of weights"),
        (torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "nested"),
        (numpy.array([[0, 2**63], [1, 2], [2, 3]], dtype=numpy.uint64), "0 to 4095, got 1000000000000"),
        (torch.zeros(2, 0, dtype=torch.long), "without links"),
        (torch.full((3, 3), torch.inf), "got inf"),
        (torch.zeros(3, 3, device="meta"), "meta"),
        ([(0, 1), (1, "a")], "from a list"),
        ([("a", "b"), ("b", "")], "two ends"),
        (b"0 1", "from a bytes"),
        (None, "from a NoneType"),
        (numpy.array([["1", "0"], ["0", "1"]]), "two links or a 2 x 2 matrix"),
    ],
)
def test_what_may_be_two_things_or_none_is_refused_in_one_sentence(source, message):
    with pytest.raises(ValueError, match=message) as refused:
        adjacency(source)
    assert "\n" not in str(refused.value)


def test_a_buffer_is_its_array():
    A = torch.tensor(PATH).double().numpy()
    assert adjacency(memoryview(A)) == PATH


def test_numbers_count_from_0_or_from_1():
    assert adjacency([(0, 1), (2, 4)])[3] == (False, False, False, True, False)
    from_one = adjacency([(2, 3), (1, 2)])
    assert from_one == TWO and from_one.names == ("1", "2", "3") and "numbered from 1" in from_one.notes[0]
    assert adjacency(networkx.Graph([(2, 3), (1, 2)])) == TWO  # by their numbers, not as they come


LINKS = ("0 1", "1 2", "2 3")
TABLES = {
    "lines": "\n".join(LINKS),
    "CR": "\r".join(LINKS),
    "CRLF, comments": "# c\r\n% d\r\n" + "\r\n".join(f"{line} # link" for line in LINKS),
    "BOM": b"\xef\xbb\xbf" + "\n".join(LINKS).encode(),
    "UTF-16": "\n".join(LINKS).encode("utf-16"),
    "semicolons": ";\n".join(LINKS).replace(" ", ";") + ";",
    "tabs": "\n".join(LINKS).replace(" ", "\t"),
    "networkx": "\n".join(f"{line} {{'weight': 1.5, 'at': {{}}}}" for line in LINKS),
    "weights": "\n".join(f"{line} 2.5" for line in LINKS),
    "header": "source,target\n0,1\n1,2\n2,3",
    "index and header": ",from,to\n0,0,1\n1,1,2\n2,2,3",
    "other words": "a b\n" + "\n".join(LINKS),
    "matrix": "0,1,0,0\n1,0,1,0\n0,1,0,1\n0,0,1,0",
    "fractions": "0 .5 0 0\n.5 0 2e0 0\n0 -1 0 1\n0 0 1 0",
    "words": "False,True,False,False\nTrue,False,True,False\nFalse,True,False,True\nFalse,False,True,False",
    "numbered": ",0,1,2,3\n0,0,1,0,0\n1,1,0,1,0\n2,0,1,0,1\n3,0,0,1,0",
    "numbered columns": "0,1,2,3\n0,1,0,0\n1,0,1,0\n0,1,0,1\n0,0,1,0",
}
NAMED = {
    "links": "pump 1,pump 2\npump 2,tank\ntank,out",
    "quoted": '"pump 1" "pump 2"\n"pump 2" tank\ntank out',
    "matrix": ";pump 1;pump 2;tank;out\npump 1;0;1;0;0\npump 2;1;0;1;0\ntank;0;1;0;1\nout;0;0;1;0",
    "R": '"pump 1" "pump 2" "tank" "out"\n"pump 1" 0 1 0 0\n"pump 2" 1 0 1 0\n"tank" 0 1 0 1\n"out" 0 0 1 0',
    "columns": "pump 1,pump 2,tank,out\n0,1,0,0\n1,0,1,0\n0,1,0,1\n0,0,1,0",
    "rows": "pump 1,0,1,0,0\npump 2,1,0,1,0\ntank,0,1,0,1\nout,0,0,1,0",
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_links_and_matrices_are_one_graph(name, tmp_path):
    pattern = read(tmp_path, TABLES[name])
    assert pattern == PATH and not pattern.names


@pytest.mark.parametrize("name", NAMED)
def test_names_in_a_table_are_kept(name, tmp_path):
    pattern = read(tmp_path, NAMED[name])
    assert pattern == PATH and pattern.names == ("pump 1", "pump 2", "tank", "out")


def test_what_a_table_takes_for_granted_is_noted(tmp_path):
    assert "not used" in read(tmp_path, TABLES["weights"]).notes[0]
    assert "(a, b) is taken for a header" in read(tmp_path, TABLES["other words"]).notes[0]
    assert read(tmp_path, '"","V1","V2"\n"1",0,1\n"2",0,0').names == ("V1", "V2")  # R, without names
    gephi = read(tmp_path, "Source,Target,Type\n0,1,Directed\n1,2,Undirected")
    assert gephi.one_way() == [(0, 1)]


@pytest.mark.parametrize(
    "content, message",
    [
        ("0 1\n1\n", "line 2: .* 1 value"),
        ("0 1\n1 x\n", "line 2: .* numbers or by names, not both; got 'x' after '0'"),
        ("0 1\n-1 2\n", "line 2: .* got -1"),
        ("# c\n\n0 1.5\n1 2", "line 3: .* got 1.5"),
        ("0 1\n1 9999", "line 2: .* 0 to 4095, got 9999"),
        ("0 1\n1 1_0", "line 2: .* got '1_0'"),
        ("0 1 1\n1 2 0", "line 2: .* weight 0"),
        ("a,b,c\nb,c,d", "line 1: expected a weight"),
        ("0,1\n0,1", "links or a matrix; begin links with a line source,target"),
        ("1 1\n1 1", "links or a matrix"),
        ("0 2\n2 0", "links or a matrix"),
        ("i,j,k\n0,1,0\n1,0,1\n0,1,0", "links or a matrix"),
        ("0,1,0,0\n1,0,1,0\n0,x,0,1\n0,0,1,0", "line 3: .* got 'x'"),
        ("a;b;c\n0;0,5;0\n0,5;0;1\n0;1;0", "line 2: decimal commas"),
        (",a,b\nb,0,1\na,1,0", "called 'b' where the column is called 'a'"),
        (",a,a\na,0,1\na,1,0", "two nodes are called 'a'"),
        ("source,target\n", "no links"),
        ("4 4\n2 4\n1 3\n2 4\n1 3", "line 1: the first line may be a link, or count"),  # METIS
        ("3 3 2\n2 1 1\n3 2 1", "line 1: the first line may be a link, or count"),  # Matrix Market
        ("3 2\n0 1\n1 2", "line 1: the first line may be a link, or count"),
        ("% bip unweighted\n1 1\n2 1", "bipartite"),
        ("Id,Label\n0,0\n1,1\n2,2", "line 1: .* a table of nodes"),
        ("0,0,1\n1,1,2\n2,2,3", "line 1: every link leads from a node to itself"),
        ("a: b\nb: c", "line 1: lists of neighbours"),
        ('0 "1', "line 1: a quote is not closed"),
        ("a,pump #3\na,pump #4", "line 1: a '#' within a name"),
        ("(0, 1)\n(1, 2)", "line 1: brackets"),
        (",0,1\n0,0,1\n1,1,2", "links or a matrix"),
        ("node;A;B\nA;;1\nB;1;0", "line 2: .* got ''"),
        ("", "empty"),
        (b"a\0b", "binary"),
        (b"\x1f\x8b\x08", "compressed"),
        ("Zürich Bern".encode("latin-1"), "line 1: this is not UTF-8"),
        ("graph {\n a -- b\n}", "a format that is not read"),
        ("*Vertices 2\n1 2", "a format that is not read"),
        ("graph LR\n A --> B", "a format that is not read"),
        ("%PDF-1.4 ...", "a format that is not read"),
    ],
)
def test_a_broken_table_is_refused_by_file_and_line(content, message, tmp_path):
    with pytest.raises(ValueError, match=rf"graph\.txt[,:] ?.*{message}"):
        read(tmp_path, content)


def test_other_formats_folders_and_large_files_are_refused(tmp_path):
    for name in ("g.gml", "g.gexf", "g.net", "g.json", "g.npy", "g.tgf", "g.vsdx", "g.PNG"):
        with pytest.raises(ValueError, match="files are not read; graphs are read from GraphML"):
            read(tmp_path, "0 1", name)
    with pytest.raises(ValueError, match="is a folder"):
        adjacency(tmp_path)
    with (tmp_path / "large.txt").open("wb") as file:
        file.truncate(50_000_000)
    with pytest.raises(ValueError, match="50,000,000 bytes"):
        adjacency(tmp_path / "large.txt")


# --- GraphML

NODES = "".join(f'<node id="n{i}"/>' for i in range(3))
EDGES = '<edge source="n0" target="n1"/><edge source="n1" target="n2"/>'


def graphml(body, default="directed", head=""):
    spaces = 'xmlns="http://graphml.graphdrawing.org/xmlns" xmlns:y="http://www.yworks.com/xml/graphml"'
    return f'<?xml version="1.0"?>\n<graphml {spaces}>{head}\n<graph edgedefault="{default}">\n{body}</graph></graphml>'


def test_graphml_keeps_directions_and_admits_both(tmp_path):
    drawn = read(tmp_path, graphml(NODES + EDGES), "yed.graphml")
    assert drawn.one_way() == [(0, 1), (1, 2)]
    assert adjacency(tmp_path / "yed.graphml", undirected=True) == TWO
    assert read(tmp_path, graphml(NODES + EDGES + EDGES, "undirected"), "any.xml") == TWO
    mixed = read(tmp_path, graphml(NODES + EDGES.replace("/>", ' directed="false"/>', 1)), "mixed.graphml")
    assert mixed.one_way() == [(1, 2)]


@pytest.mark.parametrize("program", ["yEd", "Gephi"])
def test_graphml_calls_nodes_by_labels_that_are_their_own(program, tmp_path):
    key = '<key id="d0" for="node" attr.name="label" attr.type="string"/>'
    label = {
        "yEd": '<data key="d6"><y:ShapeNode><y:NodeLabel x="1">{}<y:Model/></y:NodeLabel></y:ShapeNode></data>',
        "Gephi": '<data key="d0">{}</data>',
    }[program]
    for labels, names in ((("tank", "pump", "out"), ("tank", "pump", "out")), (("a", "a", "b"), ("n0", "n1", "n2"))):
        nodes = "".join(f'<node id="n{i}">{label.format(word)}</node>' for i, word in enumerate(labels))
        pattern = read(tmp_path, graphml(nodes + EDGES, "undirected", key), "named.graphml")
        assert pattern == TWO and pattern.names == names


@pytest.mark.parametrize(
    "content, message",
    [
        (graphml(NODES + '<edge source="n0" target="x"/>'), "line 4: an edge ends at 'x'"),
        (graphml(NODES + "<hyperedge/>"), "line 4: a hyperedge"),
        (graphml('<node id="a"><graph edgedefault="directed"/></node>'), "line 4: .* ungroup"),
        (graphml(NODES + '</graph><graph edgedefault="directed">'), "line 4: a second graph"),
        (graphml('<node id="a"/><node id="a"/>'), "line 4: a second node"),
        (graphml("<node/>"), "line 4: a node has no id"),
        (graphml(NODES, "both"), "line 3: edgedefault"),
        (graphml("".join(f'<node id="{i}"/>' for i in range(5000))), "1 to 4096 nodes"),
        (graphml(""), "no graph with nodes"),
        ('<!DOCTYPE g [<!ENTITY a "b">]><graphml/>', "declares an entity"),
        ('<?xml version="1.0" encoding="klingon"?><graphml/>', "not well-formed XML .unknown encoding"),
        ("<svg/>", "not GraphML: it begins with <svg>; export it as GraphML, or write a text"),
        ("<mxfile/>", "draw.io exports no GraphML"),
        ("<gexf/>", "Gephi exports GraphML as well"),
        ("0 1", "not well-formed"),
    ],
)
def test_graphml_that_is_not_one_graph_is_refused_by_line(content, message, tmp_path):
    with pytest.raises(ValueError, match=rf"g\.graphml.*{message}"):
        read(tmp_path, content, "g.graphml")


# --- names


def test_a_pattern_is_its_rows_and_keeps_its_names():
    named = adjacency([("a", "b"), ("b", "c")])
    assert named == TWO and hash(named) == hash(TWO) and isinstance(named, tuple)
    for kept in (pickle.loads(pickle.dumps(named)), copy.deepcopy(named), adjacency(named), lv.Graph(named).links):
        assert isinstance(kept, Pattern) and kept.names == ("a", "b", "c")
    other = adjacency([("c", "b"), ("a", "b")])
    assert other.names == ("c", "b", "a") and other.in_order_of(named) == named
    with pytest.raises(ValueError, match="only one of them has a node c"):
        adjacency([("a", "b"), ("b", "d")]).in_order_of(named)


def test_messages_call_nodes_by_their_names():
    ring = adjacency([("a", "b"), ("b", "c"), ("c", "d"), ("d", "a")])
    flow = lv.zoo.h2(8, 2, 1.0, operator=lv.Graph(ring))
    assert "node a needs the state of node c" in str(lv.agents.check(ring, flow).violations[0])
    with pytest.raises(ValueError, match="J couples node a with node b"):
        lv.zoo.h1(8, 2, 1.0, J="full", operator=lv.Graph(ring))


def test_a_saved_network_names_no_file_as_its_graph(tmp_path):
    from liouville.registry import build, describe

    flow = lv.zoo.h2(6, 2, 1.0, operator=lv.Graph([("a", "b"), ("b", "c")]))
    lv.save(flow, tmp_path / "m.safetensors")
    assert lv.load(tmp_path / "m.safetensors").field.operator == flow.field.operator
    (tmp_path / "graph.txt").write_text("0 1\n1 2\n")
    described = describe(flow.field.operator) | {"links": str(tmp_path / "graph.txt")}
    with pytest.raises(ValueError, match="kept as a matrix"):
        build(described, {})
