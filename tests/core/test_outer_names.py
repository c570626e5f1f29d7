# SPDX-License-Identifier: Apache-2.0
"""A function that reads something from outside is another one when that has changed."""

import jax
import jax.numpy as jnp
import optax
import pytest

import adamx
from adamx.core.outer_names import outer_values

FIRST, EDITED, TABLE, LARGE = "first", ["first"], {"first": [1, 2.0]}, jnp.ones(3)


def reads_a_name(tree):
    return {name: name == FIRST for name in tree}


def reads_a_list_in_a_helper(tree):
    return {name: held(name) for name in tree}


def held(name):
    return name in EDITED if name else held(FIRST)  # which calls itself


def reads_a_table_in_a_lambda(tree):
    return {name: (lambda: name in TABLE)() for name in tree}


def in_a_cell(which):
    return lambda tree: {name: name in which for name in tree}


CELL = {"first"}
CHANGES = {
    "name": (reads_a_name, lambda patch: patch.setitem(globals(), "FIRST", "last")),
    "list in a helper": (
        reads_a_list_in_a_helper,
        lambda patch: patch.setitem(globals(), "EDITED", ["last"]),
    ),
    "table in a lambda": (
        reads_a_table_in_a_lambda,
        lambda patch: (patch.delitem(TABLE, "first"), patch.setitem(TABLE, "last", 1)),
    ),
    "cell": (in_a_cell(CELL), lambda patch: (CELL.clear(), CELL.add("last"))),
}


@pytest.mark.parametrize("mask, change", CHANGES.values(), ids=CHANGES)
def test_an_eager_update_takes_the_mask_as_it_is_now(mask, change, monkeypatch):
    params = {"first": jnp.ones(3), "last": jnp.ones(3)}
    nothing = jax.tree.map(jnp.zeros_like, params)

    def decayed():
        opt = adamx.adamw(1.0, weight_decay=0.5, mask=mask)
        updates, _ = opt.update(nothing, opt.init(params), params)
        return [name for name in params if updates[name][0] != 0]

    assert decayed() == ["first"]
    change(monkeypatch)
    assert decayed() == ["last"]


def test_equal_values_are_equal_and_others_are_not():
    assert outer_values(in_a_cell({"a": [1, (2, None)]})) == outer_values(
        in_a_cell({"a": [1, (2, None)]})
    )
    others = (1, 1.0, True, "1", b"1", [1], (1,), {1}, frozenset([1]), {1: 1}, {"1": 1}, None)
    found = {outer_values(in_a_cell(x)) for x in others}
    assert len(found) == len(others)


def test_arrays_models_and_what_is_not_assigned_do_not_count():
    def early(tree):
        return {name: name in late and LARGE.ndim for name in tree}

    assert outer_values(early) == ()
    assert outer_values(lambda tree: tree.FIRST) == ()  # an attribute of the same name
    late = [LARGE]
    assert outer_values(early) == ()
    late.clear()
    assert outer_values(early) != ()


def test_our_own_functions_and_what_is_no_function_are_what_they_are():
    for known in (adamx.adamw, optax.adamw, jnp.sin, len, in_a_cell("x").__call__):
        assert outer_values(known) == ()


def test_a_loop_whose_mask_reads_its_parameters_compiles_once(caplog):
    params = {"first": jnp.ones(5), "last": jnp.ones(5)}
    opt = adamx.adamw(
        1e-2, weight_decay=0.1, mask=lambda _: {k: x.ndim > 0 for k, x in params.items()}
    )
    state = opt.init(params)
    with jax.log_compiles():
        for _ in range(4):
            updates, state = opt.update(params, state, params)
            params = jax.tree.map(jnp.add, params, updates)
    said = [r.getMessage() for r in caplog.records]
    assert sum("compilation of jit(_plain)" in line for line in said) == 1
