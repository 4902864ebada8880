"""Where memory ends the native kernel raises, as torch does, and the next run in the same process is right."""

import subprocess
import sys

import pytest

from liouville.kernels.library import is_built

if not is_built():
    pytest.skip("the native kernel is not built", allow_module_level=True)

RUN = """
import resource, sys, torch, liouville as lv
torch.set_num_threads(2)
torch.manual_seed(0)
flow = lv.zoo.h2(1024, 6, 1.0) if "ENGINE" == "shear" else lv.Flow(lv.ResidualField(512, 6), lv.ForwardEuler(), 1.0)
width = 1024 if "ENGINE" == "shear" else 512
fused, stored = flow.with_backprop(lv.Fused()), flow.with_backprop(lv.Stored())
small = torch.randn(4, width, requires_grad=True)
wanted = torch.autograd.grad(stored(small).sum(), small)[0]
torch.autograd.grad(fused(small).sum(), small)  # the threads are there, and a small workspace
x = torch.randn(600, width, requires_grad=True)


def limited(run, spare):
    pages = int(open("/proc/self/statm").read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + spare, resource.RLIM_INFINITY))
    try:
        run()
        return "no error"
    except RuntimeError as error:
        return f"{type(error).__name__} of {'the kernel' if 'native kernel' in str(error) else 'torch'}"
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


for spare in range(0, 64, 2):
    print(limited(lambda: fused(x), spare << 20))
    y = fused(x)
    print(limited(lambda: y.sum().backward(), spare << 20))
    got = torch.autograd.grad(fused(small).sum(), small)[0]
    assert torch.allclose(got, wanted, atol=1e-4, rtol=1e-4)
print("ends")
"""


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["shear", "euler"])
def test_where_memory_ends_a_run_raises_and_the_next_one_is_right(engine):
    """With more and more to spare, some runs fail in torch, some in the kernel, and none ends the process."""
    text = RUN.replace("ENGINE", engine)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", text], capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr[-500:])
    found = done.stdout.splitlines()
    assert found[-1] == "ends" and "no error" in found
    assert "OutOfMemoryError of the kernel" in found, set(found)
