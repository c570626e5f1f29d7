# SPDX-License-Identifier: Apache-2.0
"""Names of leaves, and patterns that must match one."""

import equinox
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import adamx
from adamx import health
from adamx.core import paths

PARAMS = {"decoder": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}, "embedding": jnp.ones(3)}
NAMES = ["decoder/bias", "decoder/kernel", "embedding"]

USES = {
    "mask": lambda pattern: adamx.adamw(0.1, mask=pattern),
    "negated mask": lambda pattern: adamx.adamw(0.1, mask="!" + pattern),
    "link": lambda pattern: adamx.add_decayed_weights(0.1, mask=pattern),
    "storage": lambda pattern: adamx.adam(0.1, storage={pattern: "float32", "*": "int8"}),
    "groups": lambda pattern: health.observe(adamx.adam(0.1), groups=[pattern]),
}


def test_boxes_leave_no_trace_in_names():
    boxed = {
        "decoder": {k: linen.Partitioned(x, (None,)) for k, x in PARAMS["decoder"].items()},
        "embedding": nnx.Param(PARAMS["embedding"]),
    }
    assert paths.names(boxed) == NAMES == paths.names(PARAMS)
    assert paths.names(nnx.Param(jnp.ones(1))) == ["leaf"]
    assert paths.names({"x": nnx.Param(boxed)}) == [f"x/{name}" for name in NAMES]


def test_a_field_called_value_that_is_no_box_keeps_its_name():
    class Attention(equinox.Module):
        query: jax.Array
        value: jax.Array

    assert paths.names({"a": Attention(jnp.ones(1), jnp.ones(1))}) == ["a/query", "a/value"]


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_pattern_that_matches_nothing_is_an_error_with_the_nearest_names(use):
    with pytest.raises(
        ValueError, match=r"no leaf matches '!?\*/biass'; the nearest are decoder/b"
    ):
        use("*/biass").init(PARAMS)
    use("*/bias").init(PARAMS)
    use("*/biass|*/kernel").init(PARAMS)


def test_the_rest_of_a_storage_table_may_be_nothing():
    table = {"decoder/*": "bfloat16", "*/embedding": "int8", "*": "float32"}
    nu = adamx.adam(0.1, storage=table).init(PARAMS)[0].nu
    assert [x.dtype for x in jax.tree.leaves(nu)] == [jnp.bfloat16, jnp.bfloat16, jnp.uint8]


def test_a_tree_with_holes_may_lack_what_a_pattern_names():
    hidden = {"kernel": jnp.ones(2), "bias": None}
    opt = adamx.adamw(0.1, mask="!*/bias", weight_decay=0.5)
    updates, _ = opt.update(hidden, opt.init(hidden), hidden)
    np.testing.assert_allclose(updates["kernel"], -0.15, rtol=1e-6)
    nu = adamx.adam(0.1, storage={"*/bias": "float32", "*": "int8"}).init(hidden)[0].nu
    assert nu["kernel"].dtype == jnp.uint8


def test_a_tree_with_holes_is_checked_all_the_same():
    """Equinox has None where a model has a function or something that is not trained."""
    model = equinox.filter(
        equinox.nn.MLP(2, 2, 4, 1, key=jax.random.key(0)), equinox.is_inexact_array
    )
    with pytest.raises(ValueError, match=r"no leaf matches '\*/kernel'; the nearest are layers/"):
        adamx.adamw(0.1, mask="*/kernel").init(model)
    adamx.adamw(0.1, mask="!*/bias").init(model)
    hidden = {"encoder": None, "head": {"w": jnp.ones(2)}}
    adamx.adam(0.1, storage={"encoder/*/kernel": "float32", "*": "int8"}).init(hidden)
