"""One thread per process, a seed of its own for every test, and helpers whose assertions explain themselves."""

import signal
import warnings
import zlib

import pytest
import torch

pytest.register_assert_rewrite("measure")
torch.set_num_threads(1)
# A shell's background job ignores Ctrl-C, one under nohup the end of its terminal; so would what tests start and end.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _own_seed(request):
    """What a test draws from torch's global stream depends on its name alone, not on which tests ran before."""
    torch.manual_seed(zlib.crc32(request.node.nodeid.encode()))


def pytest_addoption(parser):
    parser.addoption("--device", choices=("cuda",), help="run tests/cuda on a real GPU, not on the pretended one")


class Cuda:
    """The device that a test runs on: the pretended one, or with ``--device cuda`` a real one."""

    def __init__(self, counts):
        self.counts = counts

    @property
    def real(self):
        return self.counts is None

    def waits(self, f):
        """How often the host waits for the device while f runs."""
        if not self.real:
            before = self.counts.total
            f()
            return self.counts.total - before
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                f()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return sum("synchroniz" in str(w.message) for w in told)


@pytest.fixture
def cuda(request):
    if request.config.getoption("--device") == "cuda":
        if not torch.cuda.is_available():
            pytest.fail("--device cuda needs a GPU, and a torch that was built for it")
        yield Cuda(None)
        return
    from pretend_cuda import pretending

    with pretending() as counts:
        yield Cuda(counts)
