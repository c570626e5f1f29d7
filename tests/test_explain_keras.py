# SPDX-License-Identifier: Apache-2.0
"""`adamx.explain` of Keras' live optimizers and of their configurations."""

import pytest

import adamx
from tests.interop.keras_side import keras
from tests.products import some_slow

ROWS = {
    "Adam": {"learning_rate": 3e-4, "amsgrad": True},
    "AdamW": {"weight_decay": 0.2, "clipnorm": 1.0},
    "Nadam": {},
    "Adamax": {"epsilon": 1e-3},
    "Lamb": {"weight_decay": 0.1},
}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras
@some_slow("name", ROWS, ["Adam", "Lamb"])
def test_an_optimizer_of_keras_and_its_configurations_are_understood(name):
    live = getattr(keras().optimizers, name)(**ROWS[name])
    words = ", ".join(f"{k}={v!r}" for k, v in ROWS[name].items())
    for given in (live, live.get_config(), keras().optimizers.serialize(live)):
        found = adamx.explain(given, f"keras.{name}({words})")
        assert found.a == f"keras.{name}"
        assert (found.same, found.differences) == (True, ())


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras
def test_a_class_with_its_own_step_is_not_called_by_that_of_keras():
    class Adam(keras().optimizers.Adam):
        def update_step(self, gradient, variable, learning_rate):
            pass

    with pytest.raises(ValueError, match=r"no optimizer is called 'keras.\S*Adam'"):
        adamx.explain(Adam(), "keras.Adam")


def test_a_schedule_of_keras_is_refused_in_a_sentence():
    schedule = keras().optimizers.schedules.ExponentialDecay(1e-3, 10, 0.5)
    with pytest.raises(ValueError, match="its learning rate is ExponentialDecay; give a number"):
        adamx.explain(keras().optimizers.Adam(schedule), "keras.Adam")
