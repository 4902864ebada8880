"""The Python blocks of README and docs run, links lead somewhere, and commands that they show exist."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
MISSING = [name for name in ("accelerate", "lightning", "onnxruntime") if importlib.util.find_spec(name) is None]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


PYTHON = [
    pytest.param(page, id=str(page.relative_to(ROOT)), marks=() if page.stem == "README" else pytest.mark.slow)
    for page in PAGES
    if blocks(page, "python")
]


@pytest.mark.parametrize("page", PYTHON)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, as a reader goes down the page: a block may use what those before it made."""
    monkeypatch.chdir(tmp_path)
    module = type(sys)("block")
    monkeypatch.setitem(sys.modules, "block", module)
    for code in blocks(page, "python"):
        if any(f"import {name}" in code or f"from {name}" in code for name in MISSING):
            continue
        torch.manual_seed(0)
        exec(compile(code, "block", "exec"), module.__dict__)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_commands_of_the_readme_parse() -> None:
    """Every ``liouville ...`` line names a sub-command and options that exist."""
    from liouville.cli import liouville as command

    lines = [
        line.split("#")[0].split() for page in PAGES for line in re.findall(r"^liouville .*", page.read_text(), re.M)
    ]
    assert lines
    for _, name, *arguments in lines:
        sub = command.get_command(None, name)
        assert sub is not None, name
        options = {opt for parameter in sub.params for opt in parameter.opts}
        assert {a for a in arguments if a.startswith("-")} <= options, arguments
