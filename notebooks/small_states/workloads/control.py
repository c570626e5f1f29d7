# SPDX-License-Identifier: Apache-2.0
"""PPO on a pendulum that has to be swung up and held, both inside one scan.

The gradients come from a world that the parameters act on: an error of the optimizer changes the
data that follow. The loss is the mean cost per step of an episode of 200 steps (some 6 at the
start, below 1 once the pendulum is held up), with the mean action on fixed starts.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from notebooks.small_states.workloads.workload import Problem, Workload, dense, widen

WORLDS, HORIZON, EPISODE = 32, 64, 200
EPOCHS, MINIBATCHES = 4, 4
DISCOUNT, TRACE, CLIP = 0.95, 0.95, 0.2
SIZES = (3, 64, 64)


class World(NamedTuple):
    """The pendulums, and the rollout that the next updates learn from."""

    angle: jax.Array
    speed: jax.Array
    age: jax.Array
    rollout: Any
    update: jax.Array


def _problem() -> Problem:
    return Problem(_begin, _grads, _measure)


def _begin(key: jax.Array) -> tuple[Any, World]:
    first, second, third = jax.random.split(key, 3)
    angle, speed = _reset(second, WORLDS)
    # Worlds of different ages, so that they don't all end at once.
    age = jax.random.randint(third, (WORLDS,), 0, EPISODE)
    samples = {k: jnp.zeros(HORIZON * WORLDS) for k in ("action", "log_odds", "advantage", "value")}
    samples["seen"] = jnp.zeros((HORIZON * WORLDS, 3))
    return _init(first), World(angle, speed, age, samples, jnp.int32(0))


def _grads(params: Any, world: World, key: jax.Array) -> tuple[Any, World]:
    """One step of PPO; every sixteenth begins with a new rollout."""
    first, second = jax.random.split(key)
    per_rollout = EPOCHS * MINIBATCHES
    world = jax.lax.cond(
        world.update % per_rollout == 0,
        lambda: _play(widen(params), world, first),
        lambda: world,
    )
    chosen = jax.random.randint(second, (HORIZON * WORLDS // MINIBATCHES,), 0, HORIZON * WORLDS)
    batch = {k: x[chosen] for k, x in world.rollout.items()}
    grads = jax.grad(lambda p: _loss(widen(p), batch))(params)
    return grads, world._replace(update=world.update + 1)


def _measure(params: Any, world: World) -> tuple[jax.Array, jax.Array]:
    """The mean cost on two sets of fixed starts."""
    params = widen(params)

    def episode(seed: int) -> jax.Array:
        def step(state: Any, _: None) -> tuple[Any, jax.Array]:
            action, _, _ = _policy(params, _seen(*state))
            cost, *state = _advance(*state, action)
            return tuple(state), cost

        start = _reset(jax.random.key(seed), 64)
        return jax.lax.scan(step, start, length=EPISODE)[1].mean()

    return episode(1000), episode(2000)


def _play(params: Any, world: World, key: jax.Array) -> World:
    """A rollout with advantages by generalised estimation (arXiv 1506.02438)."""

    def step(state: Any, key: jax.Array) -> tuple[Any, Any]:
        angle, speed, age = state
        first, second = jax.random.split(key)
        seen = _seen(angle, speed)
        mean, log_scale, value = _policy(params, seen)
        noise = jax.random.normal(first, mean.shape)
        action = mean + jnp.exp(log_scale) * noise
        cost, angle, speed = _advance(angle, speed, action)
        after = _policy(params, _seen(angle, speed))[2]
        over = age + 1 >= EPISODE  # by the clock alone: the value beyond it still counts
        fresh = _reset(second, WORLDS)
        state = jnp.where(over, fresh[0], angle), jnp.where(over, fresh[1], speed)
        played = (seen, action, _log_odds(mean, log_scale, action), value, after, -0.1 * cost, over)
        return (*state, jnp.where(over, 0, age + 1)), played

    state, played = jax.lax.scan(
        step, (world.angle, world.speed, world.age), jax.random.split(key, HORIZON)
    )
    seen, action, log_odds, value, after, reward, over = played

    def back(later: jax.Array, now: Any) -> tuple[jax.Array, jax.Array]:
        value, after, reward, over = now
        surprise = reward + DISCOUNT * after - value
        advantage = surprise + DISCOUNT * TRACE * jnp.where(over, 0.0, later)
        return advantage, advantage

    _, advantage = jax.lax.scan(back, jnp.zeros(WORLDS), (value, after, reward, over), reverse=True)
    samples = {
        "seen": seen,
        "action": action,
        "log_odds": log_odds,
        "advantage": advantage,
        "value": value + advantage,
    }
    flat = {k: x.reshape(HORIZON * WORLDS, *x.shape[2:]) for k, x in samples.items()}
    return World(*state, flat, world.update)


def _loss(params: Any, batch: Any) -> jax.Array:
    """PPO's clipped objective (arXiv 1707.06347) and the squared error of the value."""
    mean, log_scale, value = _policy(params, batch["seen"])
    ratio = jnp.exp(_log_odds(mean, log_scale, batch["action"]) - batch["log_odds"])
    advantage = batch["advantage"]
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-6)
    gain = jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - CLIP, 1 + CLIP) * advantage)
    return -gain.mean() + 0.5 * jnp.square(value - batch["value"]).mean()


def _init(key: jax.Array) -> dict[str, Any]:
    keys = iter(jax.random.split(key, 2 * len(SIZES)))

    def network(gain: float) -> list[dict[str, jax.Array]]:
        outputs = (*SIZES[1:], 1)
        gains = (*[1.0] * (len(SIZES) - 1), gain)
        return [
            {"kernel": dense(next(keys), a, b, g), "bias": jnp.zeros(b)}
            for a, b, g in zip(SIZES, outputs, gains, strict=True)
        ]

    return {"actor": network(0.01), "log scale": jnp.zeros(()), "critic": network(1.0)}


def _policy(params: Any, seen: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The action's mean and the logarithm of its deviation, and the value of what is seen."""
    return _network(params["actor"], seen), params["log scale"], _network(params["critic"], seen)


def _network(layers: Any, x: jax.Array) -> jax.Array:
    for i, layer in enumerate(layers):
        x = (jnp.tanh(x) if i else x) @ layer["kernel"] + layer["bias"]
    return x[..., 0]


def _log_odds(mean: jax.Array, log_scale: jax.Array, action: jax.Array) -> jax.Array:
    """The logarithm of the action's density, less a constant."""
    return -0.5 * jnp.square((action - mean) * jnp.exp(-log_scale)) - log_scale


def _reset(key: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    first, second = jax.random.split(key)
    angle = jax.random.uniform(first, (count,), minval=-jnp.pi, maxval=jnp.pi)
    return angle, jax.random.uniform(second, (count,), minval=-1.0, maxval=1.0)


def _seen(angle: jax.Array, speed: jax.Array) -> jax.Array:
    return jnp.stack([jnp.cos(angle), jnp.sin(angle), speed / 8], -1)


def _advance(
    angle: jax.Array, speed: jax.Array, action: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """A rod of mass 1 and length 1 for 0.05 s, 0 upwards; the torque is at most 2."""
    torque = jnp.clip(2 * action, -2.0, 2.0)
    off = (angle + jnp.pi) % (2 * jnp.pi) - jnp.pi
    cost = jnp.square(off) + 0.1 * jnp.square(speed) + 0.001 * jnp.square(torque)
    speed = jnp.clip(speed + 0.05 * (15 * jnp.sin(angle) + 3 * torque), -8.0, 8.0)
    return cost, angle + 0.05 * speed, speed


control = Workload(
    name="control",
    steps=1600,
    rates=(5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2),
    problem=_problem,
    recipe={"b2": 0.999, "weight_decay": None},
    clip=0.5,
)
