# SPDX-License-Identifier: Apache-2.0
"""Who competes, on what, and around which learning rates.

Every entrant is used as its paper says, behind the workload's clipping of gradients and with its
schedule: a warm-up, then a cosine to zero. Schedule-free has the warm-up alone. Those that are Adam
but for one change have Adam's b1 and the workload's b2. Memories longer than a whole run are
shortened: ADOPT's b2, AdEMAMix's and CAME's b3. AdamW also competes with shorter means, as what
looks like a better method may only be another b1. The grids are centred where an entrant's rates
usually lie; `protocol.py` moves them on if that was wrong.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import optax

import adamx
from notebooks.small_states.workloads import WORKLOADS as SMALL
from notebooks.small_states.workloads import Workload

# Shorter than in the study of small states, as there are more entrants.
WORKLOADS = {
    "digits": dataclasses.replace(SMALL["mlp"], name="digits", steps=500),
    "text": dataclasses.replace(SMALL["transformer"], name="text", steps=400),
}
ADAMS = {"digits": 8e-3, "text": 4e-3}

Build = Callable[[Workload, Any, Any], optax.GradientTransformation]


@dataclasses.dataclass(frozen=True, eq=False)
class Entrant:
    """One optimizer.

    Attributes:
      build: `(workload, peak of the rate, decay) -> optimizer`; both may be traced.
      middle: the middle of its grid of rates, by workload.
      evaluated: `(parameters, state) ->` what is evaluated.
    """

    build: Build
    middle: Mapping[str, float]
    evaluated: Callable[[Any, Any], Any] = lambda params, state: params


def _ours(build: Callable[..., Any], times: float = 1.0, b2: bool = True, **kwargs: Any) -> Entrant:
    def made(workload: Workload, rate: Any, decay: Any) -> Any:
        own = {"b2": workload.recipe["b2"]} if b2 else {}
        own |= {"mask": workload.recipe["mask"], **kwargs}
        return build(workload.schedule(rate), weight_decay=decay, **own)

    return Entrant(made, _around(times))


def _around(times: float) -> dict[str, float]:
    return {name: rate * times for name, rate in ADAMS.items()}


def _changed(change: Callable[[Any], Any]) -> Entrant:
    return _ours(lambda *args, **kwargs: change(adamx.adamw(*args, **kwargs)))


def _ademamix(workload: Workload, rate: Any, decay: Any) -> Any:
    return adamx.ademamix(
        workload.schedule(rate),
        b2=workload.recipe["b2"],
        b3=0.99,
        weight_decay=decay,
        mask=workload.recipe["mask"],
        warmup_steps=workload.steps,
    )


def _spam(workload: Workload, rate: Any, decay: Any) -> Any:
    recipe = workload.recipe
    return adamx.spam(
        workload.schedule(rate),
        b2=recipe["b2"],
        weight_decay=decay,
        mask=recipe["mask"],
        reset_every=workload.steps // 4,
        warmup_steps=workload.steps // 20,
    )


def _schedule_free(workload: Workload, rate: Any, decay: Any) -> Any:
    rising = (workload.warmup or 0) * workload.steps or 1

    def warm_up(count: Any) -> Any:
        return jnp.asarray(rate) * jnp.minimum((jnp.asarray(count, jnp.float32) + 1) / rising, 1)

    recipe = workload.recipe
    return adamx.schedule_free_adamw(
        warm_up, b2=recipe["b2"], weight_decay=decay, mask=recipe["mask"]
    )


def _averaged(params: Any, state: Any) -> Any:
    return adamx.schedule_free_eval_params(state, params)


def _adafactor(momentum: float | None) -> Build:
    def made(workload: Workload, rate: Any, decay: Any) -> Any:
        return adamx.adafactor(
            workload.schedule(rate),
            min_dim_size_to_factor=32,
            multiply_by_parameter_scale=False,
            momentum=momentum,
            weight_decay=decay,
            weight_decay_mask=workload.recipe["mask"],
        )

    return made


# Muon is for the matrices inside; embeddings, the last layer and vectors are AdamW's.
HIDDEN = {
    "digits": "0/kernel|1/kernel",
    "text": "blocks/*/qkv|blocks/*/mix|blocks/*/up|blocks/*/down",
}
VECTORS = {"digits": "*/bias", "text": "*scale"}
ADAMW_SHARE = 0.25  # of Muon's rate


def _muon(storage: str | None) -> Build:
    def made(workload: Workload, rate: Any, decay: Any) -> Any:
        schedule, b2 = workload.schedule(rate), workload.recipe["b2"]

        def lower(count: Any) -> Any:
            return ADAMW_SHARE * schedule(count)

        muon = optax.contrib.muon(schedule, weight_decay=decay)
        return adamx.groups(
            {
                HIDDEN[workload.name]: muon if storage is None else adamx.store(muon, storage),
                VECTORS[workload.name]: adamx.adamw(lower, b2=b2),
                "*": adamx.adamw(lower, b2=b2, weight_decay=decay),
            }
        )

    return made


ENTRANTS = {
    "adamw": _ours(adamx.adamw),
    "adamw b1=0.8": _ours(adamx.adamw, b1=0.8),
    "adamw b1=b2=0.95": _ours(functools.partial(adamx.adamw, b1=0.95, b2=0.95), b2=False),
    "adamw int8": _ours(adamx.adamw, storage="int8"),
    "adamw int4": _ours(adamx.adamw, storage="int4"),
    "nadamw": _ours(adamx.nadamw),
    "lion": _ours(adamx.lion, 1 / 8, b2=False),
    "adan": _ours(adamx.adan, 2.0, False, difference_weight=0.92, eps_root=0.0),
    "adopt": _ours(adamx.adopt),
    "laprop": _ours(adamx.laprop),
    "ademamix": Entrant(_ademamix, _around(0.5)),
    "mars": _ours(adamx.mars, b2=False),
    "stable_adamw": _ours(adamx.stable_adamw),
    "spam": Entrant(_spam, _around(1.0)),
    "cautious adamw": _changed(adamx.cautious),
    "grams": _changed(adamx.grams),
    "schedule_free": Entrant(_schedule_free, _around(2.0), _averaged),
    "prodigy": Entrant(
        lambda workload, rate, decay: adamx.prodigy(
            workload.schedule(rate),
            (0.9, workload.recipe["b2"]),
            safeguard_warmup=True,
            weight_decay=decay,
            mask=workload.recipe["mask"],
        ),
        {"digits": 1.0, "text": 1.0},
    ),
    "adafactor": Entrant(_adafactor(None), _around(1.0)),
    "adafactor with momentum": Entrant(_adafactor(0.9), _around(1.0)),
    "came": _ours(adamx.came, 0.25, b3=0.99),
    "adam_mini": _ours(adamx.adam_mini),
    "adam_mini int8": _ours(adamx.adam_mini, storage="int8"),
    "soap": _ours(adamx.soap, b2=False),
    "muon + adamw": Entrant(_muon(None), _around(4.0)),
    "muon int8 + adamw": Entrant(_muon("int8"), _around(4.0)),
}
