"""Graphs in text files: detection of text, relevant lines, and separators of cells."""

from __future__ import annotations

__all__ = ["PACKED", "read"]

import csv
import re
from pathlib import Path

from liouville.graphs.pattern import LARGEST, Pattern
from liouville.graphs.readings import Row, pattern_of, values
from liouville.graphs.tables import Fault

_LARGEST_FILE = 40_000_000  # bytes for a matrix of 4096 nodes: the table in memory takes up to a hundred times as much
_ACCEPTED = "graphs are read from GraphML, and from text with two nodes a line or an adjacency matrix"
_OTHERS = {".gml", ".gexf", ".net", ".paj", ".json", ".dot", ".gv", ".mtx", ".npy", ".npz", ".xlsx", ".pkl", ".pt"}
_DRAWN = {".tgf", ".mmd", ".vsdx", ".odg", ".pdf", ".png", ".jpg", ".jpeg", ".excalidraw"}
PACKED = (b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\xfd7zXZ")
_SIGNS = re.compile(
    r"(strict\s+)?(di)?graph\b[^\n]*[{\[]|graph\s*\[|creator\s+\S|\*vertices|%%matrixmarket|[{\[]"
    r"|%pdf-|(graph|flowchart)\s+(lr|rl|tb|td|bt)\b|(classdiagram|statediagram)\b",
    re.I,
)
_DECIMAL = re.compile(r"[+-]?[0-9]+,[0-9]+")
_DATA = re.compile(r"[\s,;]*\{.*\}\s*$")  # networkx writes an edge's data as a dict


def read(path: Path) -> Pattern:
    """The graph in a text file.

    Raises:
        ValueError: if it has another format or encoding, or is too large, empty or broken; the line is named.
        OSError: if it cannot be read.
    """
    try:
        return pattern_of(_rows(_lines(_text(path))))
    except Fault as fault:
        where = f"{path}, {fault.place}" if fault.place else str(path)
        raise ValueError(f"{where}: {fault.what}.") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _text(path: Path) -> str:
    if path.suffix.lower() in _OTHERS:
        raise Fault("", f"{path.suffix} files are not read; {_ACCEPTED} (networkx writes them)")
    if path.suffix.lower() in _DRAWN:
        raise Fault("", f"{path.suffix} files are not read; {_ACCEPTED} (yEd exports GraphML)")
    size = path.stat().st_size
    if size > _LARGEST_FILE:
        raise Fault("", f"the file has {size:,} bytes, more than the {_LARGEST_FILE:,} of a graph of {LARGEST} nodes")
    content = path.read_bytes()
    if content.startswith(PACKED):
        raise Fault("", f"the file is compressed or a spreadsheet; unpack or export it first: {_ACCEPTED}")
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise Fault(
            "" if b"\0" in content else f"line {line}",
            f"this is not {encoding[:6].strip('-').upper()} text; {_ACCEPTED}",
        ) from None
    if "\0" in text:
        raise Fault("", f"the file is binary; {_ACCEPTED}")
    if _SIGNS.match(text.lstrip()):
        raise Fault("", f"the file is in a format that is not read; {_ACCEPTED} (networkx writes them)")
    if re.search(r"(?m)^%\s*bip\b", text):  # a KONECT file
        raise Fault("", "the graph is bipartite (% bip), and node 1 of either kind is another; give all nodes names")
    return text


def _lines(text: str) -> list[tuple[int, str]]:
    """The lines with content, with their numbers, without comments and networkx's edge data."""
    numbered = enumerate(re.split(r"\r\n|\r|\n", text), start=1)
    lines = [(n, line.strip(" ")) for n, line in numbered if line.strip() and line.strip()[0] not in "#%"]
    return [(n, _DATA.sub("", re.sub(r"^([-+0-9.eE,;\s]*?)\s*#.*", r"\1", line))) for n, line in lines]


def _rows(lines: list[tuple[int, str]]) -> list[Row]:
    """Cells, by the separator that every line has; otherwise blanks separate."""
    if not lines:
        raise Fault("", "the file is empty; expected two nodes a line")
    bare = [re.sub(r'"[^"]*"', "", line) for _, line in lines]
    separator = next((s for s in "\t;," if all(s in line for line in bare)), " ")
    rows = [Row(n, _cells(n, line, separator)) for n, line in lines]
    if empty := next((row for row in rows if not row.cells), None):
        raise Fault(f"line {empty.line}", "the line holds separators only; expected two nodes a line")
    if all(len(row.cells) > 2 and not row.cells[-1] for row in rows):  # each line ends with a separator
        rows = [Row(n, cells[:-1]) for n, cells in rows]
    bracket = next((row for row in rows for cell in row.cells if _unbalanced(cell)), None)
    if bracket:
        raise Fault(
            f"line {bracket.line}", "brackets are not read; write two nodes a line, names with blanks in quotes"
        )
    if separator == " " and (colon := next((row for row in rows if row.cells[0].endswith(":")), None)):
        raise Fault(f"line {colon.line}", "lists of neighbours after a colon are not read; write two nodes a line")
    comma = next((row for row in rows if any(_DECIMAL.fullmatch(cell) for cell in row.cells)), None)
    if comma:
        raise Fault(f"line {comma.line}", "decimal commas are not read; write 0.5 instead of 0,5")
    widths = {len(row.cells) for row in rows[1:]}
    if widths == {len(rows)} and len(rows[0].cells) == len(rows) - 1 > 1:  # a matrix as R writes it: no corner
        rows[0] = Row(rows[0].line, ["", *rows[0].cells])
    odd = next((row for row in rows if len(row.cells) != len(rows[0].cells)), None)
    if odd:
        raise Fault(
            f"line {odd.line}",
            f"an edge list or a matrix has one number of columns, but here are {values(odd.cells)} and in line "
            f"{rows[0].line} {len(rows[0].cells)}; expected two nodes a line",
        )
    return rows


def _cells(n: int, line: str, separator: str) -> list[str]:
    if separator == " ":
        if line.count('"') % 2:
            raise Fault(f"line {n}", "a quote is not closed")
        words = re.findall(r'"([^"]*)"|([^\s#",]+)|(#.*)|(["])', line)
        return [quoted or word for quoted, word, comment, _ in words if not comment]
    try:
        cells = next(csv.reader([line], delimiter=separator, strict=True, skipinitialspace=True))
    except csv.Error as error:
        raise Fault(f"line {n}", f"cannot be split into cells ({error})") from None
    if any(re.search(r"\s#", cell) for cell in cells) and '"' not in line:
        raise Fault(f"line {n}", "a '#' within a name may begin a comment; put the name into double quotes")
    return [cell.strip() for cell in cells]


def _unbalanced(cell: str) -> bool:
    """Whether a bracket opens in one cell and closes in another."""
    return any(cell.count(a) != cell.count(b) for a, b in ("()", "[]", "{}"))
