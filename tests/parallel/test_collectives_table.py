# SPDX-License-Identifier: Apache-2.0
"""The table of collectives counts what compiled programs say."""

import jax
import jax.numpy as jnp
import pytest

import adamx
from adamx import parallel
from adamx.cli.tasks import transformer
from tests.parallel import targets
from tests.parallel.collectives_table import Collective, collectives, row, table

GPU = """
ENTRY %main (p: f32[8]) -> f32[8] {
  %reduce-scatter-start = ((f32[16,8]{1,0}, bf16[16]{0}), (f32[2,8]{1,0}, bf16[2]{0})) \
reduce-scatter-start(%a, %b), channel_id=1
  %reduce-scatter-done = (f32[2,8]{1,0}, bf16[2]{0}) reduce-scatter-done(%reduce-scatter-start)
  %all-gather-start = (u8[4]{0}, u8[32]{0}) all-gather-start(%c), dimensions={0}
  ROOT %all-reduce-start = f32[] all-reduce-start(%d), to_apply=%add
}
"""
TPU = """
%all-reduce-scatter.1 (input: f32[16,8]) -> f32[2,8] {
  %all-reduce.5 = f32[16,8]{1,0:T(8,128)} all-reduce(%input), channel_id=3, to_apply=%add
}

ENTRY %main.2 (p: f32[8]) -> f32[8] {
  %reduce-scatter.1 = f32[2,8]{1,0:T(8,128)S(1)} reduce-scatter(%a), dimensions={0}
  %all-reduce.6 = (f32[2]{0:T(128)}, pred[2]{0:T(128)}) all-reduce(%b, %c), channel_id=3
}
"""


def test_collectives_are_read_with_the_bytes_of_whole_arrays():
    assert list(collectives(GPU, 8)) == [
        Collective("reduce-scatter", 4 * 128 + 2 * 16),
        Collective("all-gather", 32),
        Collective("all-reduce", 4),
    ]
    assert list(collectives(TPU, 8)) == [
        Collective("reduce-scatter", 4 * 128),
        Collective("reduce-scatter", 4 * 128),
        Collective("all-reduce", 4 * 2 + 2),
    ]
    assert [Collective(kind, 800).sent(8) for kind in ("all-gather", "all-reduce")] == [700, 1400]


@pytest.mark.parametrize("zero", [False, True])
def test_a_row_says_what_a_step_sends_and_holds(zero):
    params, batch = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((512, 640), (16, 512)))
    train = parallel.data_parallel(
        lambda p, x: jnp.mean((x @ p) ** 2), adamx.adam(1e-3), params, how="shard_map", zero=zero
    )
    program = train.lower(jax.eval_shape(train.init, params), batch).compile()
    told, sent, arguments, _ = row(program, 8)
    size = 4 * 512 * 640 / 1e6
    assert told == ("1 all-gather, 1 reduce-scatter, 1 all-reduce" if zero else "1 all-reduce")
    assert sent == f"{2 * size * 7 / 8:.1f}"
    assert arguments == f"{size + 2 * size / (8 if zero else 1):.1f}"


@pytest.mark.slow
@pytest.mark.parametrize("target", targets.TARGETS)
def test_a_table_has_every_way(target):
    mesh = targets.found(target)
    if mesh is None:
        pytest.skip(f"no compiler for {target} is installed: see tests/parallel/targets.py")
    _, rows = table(mesh, transformer.Size(128, 4, 1, 128, 256))
    assert len({name for name, *_ in rows}) == 8
    assert all(("reduce-scatter" in told) == ("ZeRO" in name) for name, told, *_ in rows)
