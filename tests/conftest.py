"""One thread per process, a seed of its own for every test, and helpers whose assertions explain themselves."""

import signal
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
