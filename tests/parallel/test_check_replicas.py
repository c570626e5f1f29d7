# SPDX-License-Identifier: Apache-2.0
"""A replica that went its own way is found, and so is a mean that is a sum."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import adamx
from adamx.parallel import average_gradients, check_replicas, data_parallel

DTYPES = ("float32", "bfloat16", "float16", "int8", "uint8", "int32", "bool", "complex64")


def over(*sizes, names=("data", "model")):
    return jax.make_mesh(sizes, names[: len(sizes)])


def with_a_flipped_bit(x, device):
    """The same array, but for the last bit of the last element of one device's copy."""
    shards = []
    for shard in x.addressable_shards:
        data = np.array(shard.data)
        if shard.device == device:
            data.reshape(-1).view(np.uint8)[-data.itemsize] ^= 1
        shards.append(jax.device_put(data, shard.device))
    return jax.make_array_from_single_device_arrays(x.shape, x.sharding, shards)


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_flipped_bit_is_found(dtype):
    x = jax.device_put(jnp.ones((5, 3), dtype), NamedSharding(over(8), P()))
    tree = {"a": jnp.ones(3), "b": {"kernel": x, "key": jax.random.key(0)}}
    check_replicas(tree)
    bad = with_a_flipped_bit(x, jax.devices()[5])
    with pytest.raises(ValueError, match=r"b/kernel: the copy of .*5.* is not that of .*0"):
        check_replicas({**tree, "b": {"kernel": bad}})


def test_parts_are_compared_with_their_own_copies():
    mesh = over(4, 2)
    x = jax.device_put(jnp.arange(16.0), NamedSharding(mesh, P("model")))
    y = jax.device_put(jnp.arange(16.0), NamedSharding(mesh, P(("data", "model"))))
    check_replicas({"x": x, "y": y, "none": None, "number": 3})
    check_replicas({"y": with_a_flipped_bit(y, jax.devices()[3])})  # it has no copy
    with pytest.raises(ValueError, match=r"x: the copy of .*3.* is not that of .*1"):
        check_replicas({"y": y, "x": with_a_flipped_bit(x, jax.devices()[3])})


def test_nothing_to_compare_is_no_difference():
    check_replicas({})
    check_replicas({"count": 3}, stacked=True)
    there = NamedSharding(over(8), P(), memory_kind="pinned_host")
    check_replicas({"k": jax.device_put(jnp.ones(4), there)})


def test_rows_of_pmap_are_copies():
    params = {"kernel": jnp.ones((4, 4)), "bias": jnp.zeros(4)}
    train = data_parallel(lambda p, b: jnp.sum(p["kernel"]) * jnp.mean(b), adamx.adam(1e-2), params,
                          how="pmap")  # fmt: skip
    run, _ = train.step(train.init(params), np.ones(8, np.float32))
    check_replicas(run, stacked=True)
    rows = np.array(run.params["kernel"])
    rows[6, 2, 1] = np.nextafter(rows[6, 2, 1], 2)
    with pytest.raises(ValueError, match="kernel: the copy of row 6 is not that of row 0"):
        check_replicas({**run.params, "kernel": jnp.asarray(rows)}, stacked=True)


def test_arrays_of_several_meshes_are_compared():
    first, second = over(8), over(2, 4)
    x = jax.device_put(jnp.ones(4), NamedSharding(first, P()))
    y = jax.device_put(jnp.ones((4, 4)), NamedSharding(second, P(None, "model")))
    check_replicas([x, y])
    with pytest.raises(ValueError, match="1: the copy of"):
        check_replicas([x, with_a_flipped_bit(y, jax.devices()[4])])


def step(params, x, *, vary):
    """The averaged gradient of a mean over `x`, as optimizers in a mapped function see it."""
    params = jax.lax.pcast(params, "data", to="varying") if vary else params
    grads = jax.grad(lambda p: jnp.mean(x) * p)(params)
    opt = optax.chain(average_gradients("data"), optax.sgd(1.0))
    return -opt.update(grads, opt.init(params))[0]


def test_gradients_are_averaged_and_not_summed():
    x = jnp.arange(8.0)
    mesh = jax.make_mesh((8,), ("data",), (AxisType.Auto,))

    def mapped(vary, check):
        return jax.jit(
            jax.shard_map(
                lambda p, x: step(p, x, vary=vary),
                mesh=mesh, in_specs=(P(), P("data")), out_specs=P(), check_vma=check,
            )
        )(jnp.float32(2), x)  # fmt: skip

    assert mapped(vary=True, check=True) == 3.5
    assert mapped(vary=False, check=False) == 3.5
    # JAX has summed this one by itself: 28, which no mean undoes, and Adam would hide.
    with pytest.raises(ValueError, match=r"leaf: the gradient does not vary over 'data'.*pcast"):
        mapped(vary=False, check=True)
    each = jax.pmap(lambda x: step(jnp.float32(2), x, vary=False), axis_name="data")(x)
    np.testing.assert_array_equal(each, np.full(8, 3.5))


def test_gradients_keep_their_dtype_and_travel_in_another():
    link = average_gradients("data", "bfloat16")
    found = jax.pmap(lambda g: link.update(g, link.init(g))[0], axis_name="data")(
        jnp.full(8, 1 + 2**-10)
    )
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, np.ones(8))
    with pytest.raises(TypeError, match="`dtype` must be floating point, got int8"):
        average_gradients("data", "int8")
