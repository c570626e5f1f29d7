# SPDX-License-Identifier: Apache-2.0
"""`adamx.register` puts our recipes where names are looked up, and leaves no trace afterwards."""

import inspect
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx import interop
from adamx.optimizers.recipe import TABLE


@pytest.fixture(autouse=True)
def no_trace():
    before = dict(vars(optax))
    yield
    assert dict(vars(optax)) == before


def test_names_are_ours_until_the_end():
    theirs = optax.adamw
    with adamx.register(optax) as registration:
        assert optax.adamw is adamx.adamw
        assert optax.scale_by_adam is adamx.scale_by_adam
        assert optax.adopt is adamx.adopt  # which Optax has elsewhere
        assert set(TABLE) <= set(registration.names)
    assert optax.adamw is theirs
    assert not hasattr(optax, "adopt")


def test_an_error_inside_takes_them_away_too():
    with pytest.raises(KeyError), adamx.register(optax):
        raise KeyError
    assert optax.adamw is not adamx.adamw


def test_a_handle_is_removed_once():
    handle = adamx.register(optax, ["adamw"])
    assert optax.adam is not adamx.adam
    handle.remove()
    handle.remove()


def test_later_registrations_are_removed_first():
    outer = adamx.register(optax)
    inner = adamx.register(optax, ["adamw"], storage="int8")
    with pytest.raises(RuntimeError, match="'adamw' of 'optax' has been replaced"):
        outer.remove()
    inner.remove()
    assert optax.adamw is adamx.adamw
    outer.remove()


def test_the_same_recipe_twice_is_two_registrations():
    outer, inner = adamx.register(optax), adamx.register(optax, "adamw")
    assert inner.names == ("adamw",)
    with pytest.raises(RuntimeError, match="remove what came later first"):
        outer.remove()
    inner.remove()
    outer.remove()
    assert optax.adamw is not adamx.adamw


def test_what_is_of_optax_stays_so_whatever_is_put_there(monkeypatch):
    monkeypatch.setattr(optax, "adamw", adamx.adamw)
    assert interop.optax.adamw(0.1).update.__module__.startswith("optax")


def test_defaults_reach_those_that_have_them_and_calls_override_them():
    p = {"kernel": jnp.ones(3, jnp.bfloat16)}
    with adamx.register(optax, storage="int8", landing="exact", b2=0.95):
        state = optax.adamw(1e-3).init(p)
        assert state[0].nu["kernel"].dtype == jnp.uint8
        assert state[-1].remainder["kernel"].dtype == jnp.int16
        assert optax.adamw(1e-3, storage="float32").init(p)[0].nu["kernel"].dtype == jnp.float32
        assert optax.scale_by_adam().init(p).nu["kernel"].dtype == jnp.uint8  # has no landing
        signature = inspect.signature(optax.adamw).parameters
        assert (signature["b2"].default, signature["storage"].default) == (0.95, "int8")
        positional = optax.adam(1e-3, 0.9, 0.999, storage="float32", landing="nearest")
        assert adamx.explain(positional, "adamx.adam(1e-3, b2=0.999)").differences == ()


def test_injected_hyperparameters_see_the_defaults():
    p = {"kernel": jnp.ones(3)}
    with adamx.register(optax, storage="int8", b2=0.95):
        opt = optax.inject_hyperparams(optax.adamw)(learning_rate=0.1)
    state = opt.init(p)
    assert state.hyperparams["b2"] == np.float32(0.95)
    updates, _ = jax.jit(opt.update)(p, state, p)
    want, _ = adamx.adamw(0.1, b2=0.95).update(p, adamx.adamw(0.1).init(p), p)
    np.testing.assert_allclose(updates["kernel"], want["kernel"], rtol=1e-6)


def test_the_library_itself_still_finds_what_is_of_optax():
    with adamx.register(optax), jax.numpy_dtype_promotion("standard"):
        p = {"kernel": jnp.ones(3)}
        theirs = interop.optax.adamw(0.1)
        assert theirs.update.__module__.startswith("optax")
        assert adamx.explain("optax.nadam", "adamx.nadam").b == "adamx.nadam"
        assert jax.tree.structure(theirs.init(p)) == jax.tree.structure(adamx.adamw(0.1).init(p))


def test_any_place_of_names_will_do():
    home = types.SimpleNamespace(adamw="theirs")
    with adamx.register(home, ["adamw", "lion"]):
        assert (home.adamw, home.lion) == (adamx.adamw, adamx.lion)
    assert vars(home) == {"adamw": "theirs"}


def test_wrong_requests_are_refused():
    with pytest.raises(ValueError, match="no 'adamv' to register; the nearest: adam"):
        adamx.register(optax, ["adamv"])
    with pytest.raises(TypeError, match=r"register has no argument `storag`; .* `storage`"):
        adamx.register(optax, storag="int8")
