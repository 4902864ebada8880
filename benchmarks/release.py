"""Is a release whole: one wheel and one sdist of this version, with the kernel, the licences and the right tag?

python benchmarks/release.py dist
"""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
KERNEL = "liouville/kernels/native/libliouville_kernel.so"


def version() -> str:
    """The one in the source."""
    scope: dict[str, str] = {}
    exec((ROOT / "src/liouville/version.py").read_text(), scope)
    return scope["__version__"]


def problems(folder: Path) -> list[str]:
    """What is wrong with the files in a folder, in sentences."""
    wheels, sources = sorted(folder.glob("*.whl")), sorted(folder.glob("*.tar.gz"))
    if len(wheels) != 1 or len(sources) != 1:
        return [f"expected one wheel and one sdist in {folder}, got {len(wheels)} and {len(sources)}."]
    found = []
    wheel, source = wheels[0], sources[0]
    for file in (wheel, source):
        if not file.name.startswith(f"liouville-{version()}"):
            found.append(f"{file.name} is not of version {version()}.")
    if "-py3-none-manylinux_" not in wheel.name:
        found.append(f"{wheel.name} is not tagged manylinux for every Python 3; an index refuses it.")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        for needed in (KERNEL, "liouville/py.typed"):
            if needed not in names:
                found.append(f"{wheel.name} lacks {needed}.")
        for licence in ("LICENSE", "LICENSES.md"):
            if not any(name.endswith(f"licenses/{licence}") for name in names):
                found.append(f"{wheel.name} lacks {licence}.")
        if others := [name for name in names if ".so" in name and name != KERNEL]:
            found.append(f"{wheel.name} has libraries of others in it: {', '.join(others)}.")
        if KERNEL in names and b"libtorch" in archive.read(KERNEL):  # the name stands there if it is needed
            found.append("the kernel is linked with torch, and would fit one version of it only.")
    with tarfile.open(source) as archive:
        names = archive.getnames()
        for needed in ("pyproject.toml", "CMakeLists.txt", "LICENSE", "src/liouville/kernels/native/isa.cpp"):
            if not any(name.endswith(f"/{needed}") for name in names):
                found.append(f"{source.name} lacks {needed}.")
    return found


def main() -> int:
    found = problems(Path(sys.argv[1]))
    for problem in found:
        print(problem)
    print("release: sound" if not found else f"release: {len(found)} problem(s)")
    return int(bool(found))


if __name__ == "__main__":
    raise SystemExit(main())
