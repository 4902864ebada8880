"""The notebooks of the documentation: each is run, in a kernel of its own, and what its cells show is looked at."""

import json
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
PLOTLY = "application/vnd.plotly.v1+json"
SHOWN = {
    # what a notebook must show: in some output of this type, text that matches; for pictures their number
    "first-network": {
        "text/html": [
            r"swiss-roll: 2 classes",
            r"64 layers of SymplecticEuler",
            r"<td[^>]*>1</td>",
            r"no claim is broken",
        ],
        "text/plain": [r"\['inner spiral', 'outer spiral'\]"],
        "image/png": 2,
        PLOTLY: 1,
    },
    "your-data": {
        "stdout": [r"r2 on the test part: 0\.9", r"Hamiltonian network: r2 0\.[89]", r"ridge regression: r2 0\.[89]"],
        "text/html": [r"data</th><td[^>]*>flats"],
        "text/plain": [r"report\.html"],
    },
    "memory-and-certificates": {
        "stdout": [r"Reversible\(", r"relative difference: \d\.\de-0[5-9]", r"a norm above (1?\d|20)\.\d+"],
        "text/html": [r"no claim is broken"],
        "text/plain": [r"tensor\(\["],
        "image/png": 1,
    },
    "agents": {
        "stdout": [r"owner-computes: needs no other link", r"replicated: node 0 needs .* 2 hops", r"difference: \de-"],
        "text/html": [r"8 layers of SymplecticEuler"],
        "image/png": 1,
    },
}


def test_each_notebook_is_checked_and_has_no_output_and_no_path_of_a_machine():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(SHOWN)
    for path in FOLDER.glob("*.ipynb"):
        notebook = json.loads(path.read_text())
        cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        assert cells and not any(cell["outputs"] or cell["execution_count"] for cell in cells)
        assert notebook["cells"][0]["source"][0].startswith("# ")
        assert not re.search(r"/(home|work|root|tmp|Users)/", path.read_text())
        index = (FOLDER / "index.md").read_text()
        assert f"({path.name})" in index


@pytest.mark.slow
@pytest.mark.parametrize("name", SHOWN)
def test_a_notebook_runs_and_shows_what_it_says(name, tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [o for o in outputs if o.get("name") == "stderr"], [o["text"] for o in outputs if "text" in o]
    for kind, wanted in SHOWN[name].items():
        found = [o["text"] for o in outputs if o.get("name") == kind]
        found += [o["data"][kind] for o in outputs if kind in o.get("data", {})]
        if isinstance(wanted, int):
            assert len(found) == wanted
        else:
            together = "\n".join("".join(part) for part in found)
            assert [p for p in wanted if not re.search(p, together)] == [], together[:2000]
