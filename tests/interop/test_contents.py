# SPDX-License-Identifier: Apache-2.0
"""The table of contents: complete, in order, and lazy."""

import subprocess
import sys

import pytest

from adamx import interop


def test_every_name_is_there_and_documented():
    assert interop.__all__ == sorted(interop.__all__)
    assert set(interop.__all__) <= set(dir(interop))
    for name in interop.__all__:
        assert getattr(interop, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'jittor'"):
        interop.jittor  # noqa: B018


def test_a_recipe_needs_neither_the_library_nor_a_backend():
    code = """
import sys
import adamx
loaded = [m for m in sys.modules if m.startswith(("adamx.interop.torch", "adamx.interop.keras"))]
assert not loaded, loaded
adamx.interop.torch.adamw(lr=1e-3)
assert "torch" not in sys.modules
from jax._src import xla_bridge
assert not xla_bridge._backends
"""
    subprocess.run([sys.executable, "-c", code], check=True)
