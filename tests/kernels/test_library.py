"""The native library is there wherever it could have been built: its tests may not be skipped by oversight."""

import shutil

import pytest

from liouville.kernels.library import is_built, isa


@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="there is no C++ compiler")
def test_it_is_built_where_there_is_a_compiler():
    assert is_built(), "run `make kernel`, or `pip install` again: without it the tests of the kernel are skipped"
    assert isa() in ("avx512", "avx2", "portable")
