# SPDX-License-Identifier: Apache-2.0
"""Eight virtual devices, strict dtype promotion, programs compiled quickly and kept on disk."""

import functools
import gc
import importlib.metadata
import itertools
import os
import threading
from collections import Counter
from pathlib import Path

# Before JAX is imported, and in the environment, so that child processes share the cache too.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent / ".cache/jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

# Most of a test is compiling programs that run once: little is optimized, and on JAX 0.10 the older
# of its two ways to make machine code is taken. `XLA_FLAGS= pytest` tests what users run.
QUICK = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
older = importlib.metadata.version("jaxlib").startswith("0.10.")
platforms = os.environ.get("JAX_PLATFORMS", "cpu")
quickly = platforms == "cpu" and "XLA_FLAGS" not in os.environ
if quickly and older:
    os.environ["XLA_FLAGS"] = QUICK

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_platforms", platforms)
if platforms == "cpu":
    jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
if quickly and older:
    jax.devices()  # reads the flags
    del os.environ["XLA_FLAGS"]  # child processes train, and that is slower when compiled so

# JAX 0.10 makes an MLIR context for each program, which is half of lowering a small one. Newer JAX
# uses one several times in a thread, as is done here.
if older:
    from jax._src.interpreters import mlir

    _make, _made = mlir.make_ir_context, itertools.count()
    _context = functools.lru_cache(maxsize=4)(lambda _thread, _turn: _make())
    mlir.make_ir_context = lambda: _context(threading.get_ident(), next(_made) // 50)

gc.set_threshold(50_000, 20, 50)  # tracing makes many objects, few of them in circles


def pytest_addoption(parser):
    parser.addoption(
        "--one-in", type=int, default=1, metavar="N", help="of a test's cases, run one in N"
    )


LONG = ("test_notebooks", "test_processes", "test_on_gpu", "test_train")


@pytest.hookimpl(trylast=True)  # after `-m`
def pytest_collection_modifyitems(config, items):
    """Leaves out all but one in N of each test's cases. What takes long comes first, so that no
    worker is left with it at the end."""
    count, seen = config.getoption("--one-in"), Counter()
    parts = [], []
    for item in items:
        test = item.nodeid.split("[")[0]
        parts[seen[test] % count > 0].append(item)
        seen[test] += 1
    kept, left_out = parts
    items[:] = sorted(kept, key=lambda item: item.path.stem not in LONG)
    config.hook.pytest_deselected(items=left_out)


jax.config.update("jax_disable_most_optimizations", quickly)
_optimizes = not quickly


@pytest.fixture(autouse=True)
def optimized_or_not(request):
    """Optimizes programs as for users, or not. Equal bits need it: fused operations round once."""
    global _optimizes
    wanted = not quickly or request.node.get_closest_marker("optimized") is not None
    if wanted != _optimizes:
        _optimizes = wanted
        jax.config.update("jax_disable_most_optimizations", not wanted)
        jax.clear_caches()


_tests, _maps = itertools.count(1), Path("/proc/self/maps")


@pytest.fixture(autouse=True)
def few_programs():
    """Forgets compiled programs where there are very many. Each holds memory maps, of which Linux
    gives a process 65,530; whoever asks for more dies."""
    yield
    if next(_tests) % 50 == 0 and _maps.exists() and len(_maps.read_bytes().splitlines()) > 15_000:
        jax.clear_caches()
