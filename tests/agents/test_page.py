"""docs/agents.md, read from top to bottom: its Python blocks and its commands, one after the other."""

import re
import shlex
import sys
from pathlib import Path

import pytest
import torch

PAGE = Path(__file__).parents[2] / "docs" / "agents.md"
ELSEWHERE = ("ring8.graphml",)  # of the reader's own


def blocks():
    """(language, text) of each block."""
    return re.findall(r"```(\w*)\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.mark.slow
def test_every_block_does_what_the_page_says(tmp_path, monkeypatch, capsys):
    for package in ("click", "pandas", "sklearn", "onnx"):
        pytest.importorskip(package)
    from liouville.__main__ import main

    monkeypatch.chdir(tmp_path)
    module = type(sys)("block")
    monkeypatch.setitem(sys.modules, "block", module)
    said = ""
    for language, text in blocks():
        if language == "python":
            torch.manual_seed(0)
            exec(compile(text, "block", "exec"), module.__dict__)
        for line in text.splitlines() if not language else ():
            if not line.startswith("liouville ") or any(word in line for word in ELSEWHERE):
                continue
            words = shlex.split(line, comments=True)[1:]
            if "--nproc" in words:  # processes of their own, see test_command.py
                del words[words.index("--nproc") : words.index("--nproc") + 2]
            assert main(words) == 0, line
            said += capsys.readouterr().out
    for quoted in re.findall(r"^\| `([^`]+)` \| [^|]+ \|$", PAGE.read_text(), re.MULTILINE):
        if "file" not in quoted and ("hops" in quoted or "messages" in quoted):
            assert quoted in said
    score = float(re.search(r"test r2 is (\d\.\d+)", PAGE.read_text())[1])
    assert abs(float(re.search(r"test r2 (\d\.\d+)", said)[1]) - score) < 5e-3
    files = {path.name for path in Path("runs/tanks/nodes/node-3").iterdir()}
    told = set(re.findall(r"`([\w-]+\.(?:json|safetensors|onnx))`", PAGE.read_text().split("## One node")[1]))
    assert files <= told and len(files) == 8
