"""Compile the kernels for sm_80 and sm_90 where there is no GPU, and read registers, spills and shared memory.

    PYTHONPATH=src python benchmarks/gpu/compile.py [WORD ...]     cases with these words; minutes for all

Exit 1 where a kernel does not compile, or needs more registers or spills than its ceiling. The wheel of Triton brings
the assembler; a figure is of the compiler named in its first line.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import euler
import shears
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"
INTEGERS = {"moves", "own", "other"}
POINTERS = {"P", "Q", "GP", "GQ", "K0", "b0", "K1", "b1", "gK0", "gb0", "gK1", "gb1", "steps", "Y", "GY", "K", "b", "G"}
POINTERS |= {"gK", "gb", "gG", "step"}


def build(kernel, meta, cc, warps):
    """What the compiled kernel needs."""
    signature, constants = {}, {}
    for name in kernel.arg_names:
        if name in meta:
            signature[name], constants[name] = "constexpr", meta[name]
        else:
            signature[name] = "*i32" if name in INTEGERS else "*fp32" if name in POINTERS else "i32"
    # what torch's allocator gives is aligned to 16 bytes: the launch says so, and loads become wide
    aligned = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(kernel.arg_names) if signature[n].startswith("*")}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
    made = triton.compile(source, target=GPUTarget("cuda", cc, 32), options={"num_warps": warps})
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        usage = _tool("cuobjdump", "--dump-resource-usage", file.name)
        code = _tool("nvdisasm", file.name)
    registers = int(re.search(r"REG:(\d+)", usage)[1])
    spills = len(re.findall(r"\b(?:LDL|STL)[.\w]*\b", code))
    return registers, spills, made.metadata.shared


def _tool(name, *words):
    return subprocess.run([TOOLS / name, *words], capture_output=True, text=True, check=True).stdout


def _shears(n, block, dot=0, prec="ieee", kinds=(0, 0), fast=False):
    half = n // 2
    sizes = dict.fromkeys(("NP", "NQ", "M0", "N0", "M1", "N1"), half)
    meta = {"BLOCK": block, "KIND0": kinds[0], "KIND1": kinds[1], "RELU": False, "FAST": fast, "DOT": dot, "PREC": prec}
    return shears, sizes | meta | {"KEEP": True}


def _euler(n, block, dot=0, prec="ieee", outer=True):
    meta = {"BLOCK": block, "N": n, "M": n, "OUTER": outer, "RELU": False, "FAST": False, "DOT": dot, "PREC": prec}
    return euler, meta


# what -> (module and constants, warps, most registers and most spill operations forwards and backwards): those seen on
# the two targets, and a tenth; a thread has 255 registers at most
CASES = {
    "h2 n=4 sums": (_shears(4, 32), 1, (67, 106), (0, 0)),
    "h2 n=16 sums": (_shears(16, 32), 1, (141, 255), (0, 20)),
    "h2 n=32 tf32": (_shears(32, 64, 1, "tf32"), 4, (88, 185), (0, 0)),
    "h2 n=64 tf32": (_shears(64, 64, 1, "tf32"), 4, (141, 255), (0, 9)),
    "h2 n=64 tf32x3": (_shears(64, 32, 1, "tf32x3"), 4, (224, 255), (0, 137)),
    "h2 n=64 bf16": (_shears(64, 64, 2), 4, (153, 255), (0, 18)),
    "h2 n=128 bf16": (_shears(128, 64, 2), 8, (255, 255), (196, 917)),
    "pair n=64 tf32": (_shears(64, 64, 1, "tf32", kinds=(2, 1)), 4, (141, 255), (0, 0)),
    "h1 n=64 tf32": (_euler(64, 32, 1, "tf32"), 4, (136, 255), (0, 0)),
}


def main():
    print(f"triton {triton.__version__}: registers, spill operations, bytes of shared memory")
    failed = 0
    for name, ((module, meta), warps, *ceilings) in CASES.items():
        if sys.argv[1:] and not any(word in name for word in sys.argv[1:]):
            continue
        for cc in (80, 90):
            for way, kernel, *most in zip(
                ("forward", "backward"), (module.forward_kernel, module.backward_kernel), *ceilings, strict=True
            ):
                try:
                    registers, spills, shared = build(kernel, meta, cc, warps)
                except Exception as error:
                    failed += 1
                    print(f"{name:18} sm_{cc} {way:8} FAILED: {str(error).strip().splitlines()[-1][:100]}", flush=True)
                    continue
                over = registers > most[0] or spills > most[1]
                failed += over
                said = f"  MORE than {most[0]} registers or {most[1]} spills" if over else ""
                print(f"{name:18} sm_{cc} {way:8} {registers:4} {spills:5} {shared:7}{said}", flush=True)
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
