# SPDX-License-Identifier: Apache-2.0
"""`adamx.explain` against the figures of the libraries themselves: computed, and put into words."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx.explain.libraries import all_known
from adamx.explain.written import read
from tests.products import rest_slow, some_slow


def by_topic(found):
    return {difference.topic: difference for difference in found.differences}


def apart(found, scale, steps, alike=False):
    move = next(m for m in found.moves if (m.scale, m.steps) == (scale, steps))
    return move.alike if alike else move.apart


# Two names, whether they take one path, whether they would with equal hyperparameters, the topics.
ROWS = [
    ("torch.AdamW", "optax.adamw", False, True, {"weight decay"}),
    ("torch.NAdam", "optax.nadam", False, False, {"bias correction", "momentum", "memory"}),
    ("torch.RAdam", "adamx.radam(1e-3, eps_mode='hat')", True, True, set()),
    ("keras.Adam", "torch.Adam", False, False, {"epsilon"}),
    ("keras.Adam", "tf.keras.legacy.Adam", True, True, set()),
    ("adamx.adamw", "optax.adamw", True, True, set()),
    ("optax.sgd", "optax.adam", False, False, {"epsilon", "adaptivity", "momentum", "memory"}),
    ("adamx.lamb", "adamx.adam(1e-3, eps=1e-6)", False, False, {"trust ratio"}),
    ("adamx.lion", "adamx.adamw", False, False, None),
    ("torch.Adam(maximize=True)", "torch.Adam", False, False, {"direction", "maximize"}),
    ("torch.Adam(betas=[0.8, 0.9])", "optax.adam", False, True, {"b1", "b2"}),
]
MORE = [
    ("torch.Adam", "optax.adam", True, True, set()),
    ("torch.Adam(lr=0.01)", "optax.adam", True, True, set()),
    ("torch.Adamax", "optax.adamax", True, True, set()),
    ("torch.RAdam", "optax.radam", False, False, {"epsilon"}),
    ("keras.Nadam", "tf.keras.legacy.Nadam", False, False, None),
    ("keras.AdamW", "keras.AdamW(weight_decay=0.01)", False, True, {"weight decay"}),
]


@rest_slow("a, b, same, same_arithmetic, topics", [*ROWS, *MORE], ROWS)
def test_two_names_are_told_apart(a, b, same, same_arithmetic, topics):
    found = adamx.explain(a, b)
    assert (found.same, found.same_arithmetic) == (same, same_arithmetic)
    if topics is not None:
        assert set(by_topic(found)) == topics
    assert str(found).startswith(f"{found.a} and {found.b}\n")


def test_default_decays_are_those_of_the_libraries():
    found = by_topic(adamx.explain("torch.AdamW", "keras.AdamW"))["weight decay"]
    assert (found.a, found.b) == (0.01, 0.004)
    assert "0.01 by default in torch.AdamW, 0.004 by default in keras.AdamW" in found.words


def test_decay_in_the_gradient_is_told_from_decoupled_decay():
    found = by_topic(adamx.explain("torch.Adam(weight_decay=0.1)", "torch.AdamW"))["weight decay"]
    assert (found.a, found.b) == (("in the gradient", 0.1), ("decoupled", 0.01))


def test_epsilon_hat_is_found_and_moves_small_gradients():
    found = adamx.explain("keras.Adam(epsilon=1e-8)", "optax.adam")
    epsilon = by_topic(found)["epsilon"]
    assert epsilon.a == (1e-8, "the uncorrected root")
    assert epsilon.b == (1e-8, "the corrected root")
    first, last = found.small
    assert (first.step, last.step) == (1, 1000)
    np.testing.assert_allclose(first.a, 0.0306534300, rtol=1e-8)  # by hand: figures of g = 1e-8
    np.testing.assert_allclose([first.b, last.b], 0.5, rtol=1e-9)
    assert apart(found, 1.0, 200) < 1e-4 < 0.1 < apart(found, 1e-8, 200)


def test_the_three_forms_of_amsgrad_differ_in_what_they_remember():
    raw, corrected = "torch.Adam(amsgrad=True)", "optax.amsgrad"
    found = by_topic(adamx.explain(raw, corrected))["memory"]
    np.testing.assert_allclose(found.a, 0.535941798, rtol=1e-7)
    np.testing.assert_allclose(found.b, 0.2441927, rtol=1e-5)  # a figure of float32
    paper = "adamx.amsgrad(1e-3, bias_correction_mu=False, bias_correction_nu=False)"
    found = by_topic(adamx.explain(raw, paper))["bias correction"]
    np.testing.assert_allclose([found.a, found.b], [1, 10**0.5], rtol=1e-6)


def test_first_steps_are_those_of_the_libraries():
    found = by_topic(adamx.explain("torch.NAdam", "optax.nadam"))["bias correction"]
    np.testing.assert_allclose(
        [found.a, found.b], [1.05645176779, 1.4736743], rtol=1e-5
    )  # in float32
    plain = by_topic(adamx.explain("torch.RAdam", "torch.Adam(lr=1e-3)"))["adaptivity"]
    assert (plain.a, plain.b) == (5, 0)


def test_differences_of_defaults_vanish_with_equal_hyperparameters():
    found = adamx.explain("torch.AdamW", "optax.adamw(weight_decay=0.5)")
    assert apart(found, 1.0, 200) > 1
    assert apart(found, 1.0, 200, alike=True) < 1e-9


def test_a_recipe_says_what_it_is():
    ours = adamx.adamw(3e-4, b2=0.95, weight_decay=0.1, mask="*")
    found = adamx.explain(ours, "optax.adamw(3e-4, b2=0.95, weight_decay=0.1)")
    assert found.a == "a: adamw"
    assert found.same
    other = by_topic(adamx.explain(ours, "optax.adamw(3e-4, b2=0.999, weight_decay=0.2)"))
    assert (other["b2"].a, other["b2"].b) == (0.95, 0.999)
    assert (other["weight decay"].a, other["weight decay"].b) == (0.1, 0.2)


def test_an_unnamed_transformation_is_measured():
    theirs = optax.chain(
        optax.clip_by_global_norm(1e9), optax.adamw(2e-3, b1=0.8, b2=0.95, weight_decay=0.3)
    )
    found = by_topic(adamx.explain(theirs, "torch.AdamW(lr=2e-3)"))
    assert (found["b1"].a, found["b2"].a) == (0.8, 0.95)
    assert "0.8, as measured," in found["b1"].words
    np.testing.assert_allclose(found["weight decay"].a, 0.3, rtol=1e-6)
    assert "learning rate" not in found


def test_what_needs_more_than_gradients_is_refused_in_a_sentence():
    with pytest.raises(ValueError, match=r"optax.lbfgs cannot be run on gradients alone"):
        adamx.explain("optax.lbfgs", "optax.adam")


@pytest.mark.parametrize(
    "text, nearest",
    [
        ("torch.Adamw2", "torch.AdamW"),
        ("adamw", "adamx.adamw"),
        ("keras.NAdm", "keras.Nadam"),
        ("optax.adamq", "optax.adam"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(text, nearest):
    with pytest.raises(ValueError, match=f"no optimizer is called '{text}'") as caught:
        read(text)
    assert nearest in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "torch.AdamW(lr=__import__('os').getpid())",
        "torch.AdamW(**{'lr': 1})",
        "torch.AdamW; 1",
        "(lambda: torch.AdamW)()",
        "torch.AdamW(lr=open)",
        "",
        "(" * 5000,
    ],
)
def test_a_text_is_never_run(text):
    with pytest.raises(ValueError, match=r"not a name such as|no optimizer is called"):
        read(text)


def test_unknown_arguments_are_refused_with_the_nearest():
    with pytest.raises(TypeError, match=r"no argument `weightdecay`; the nearest .*weight_decay"):
        read("torch.AdamW(weightdecay=0.1)")


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("torch.AdamW(betas=3)", "torch.AdamW: `betas` must be a pair of numbers, got 3"),
        ("torch.AdamW(betas=(0.9,))", r"`betas` must be a pair of numbers, got \(0.9,\)"),
        ("optax.adamw(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)", "optax.adamw takes at most"),
        ("adamx.adam(1e-3, learning_rate=1e-3)", "adamx.adam got `learning_rate` twice"),
        ("adamx.adam(b1=0.9, b1=0.8)", "has an argument twice"),
    ],
)
def test_wrong_calls_are_refused_in_a_sentence(text, sentence):
    with pytest.raises((TypeError, ValueError), match=sentence):
        read(text)


def test_a_name_and_what_is_switched_off_make_no_difference():
    assert read("keras.Adam(name='x')").value("b1") == 0.9
    assert "ema_momentum" not in read("keras.Adam(ema_momentum=0.5)").settings
    assert "ema_momentum" in read("keras.Adam(use_ema=True, ema_momentum=0.5)").settings


def test_settings_in_float32_are_what_was_written():
    group = {"lr": np.float32(1e-3), "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}
    group |= {"amsgrad": False, "decoupled_weight_decay": True, "params": []}
    found = adamx.explain({"state": {}, "param_groups": [group]}, "torch.AdamW")
    assert (found.a, found.same, found.differences) == ("torch.AdamW", True, ())


def test_a_state_dict_of_another_optimizer_is_not_guessed():
    group = {"lr": 0.1, "momentum": 0, "dampening": 0, "weight_decay": 0, "nesterov": False}
    with pytest.raises(ValueError, match=r"do not tell the optimizer \(dampening, lr, .*itself"):
        adamx.explain({"state": {}, "param_groups": [{**group, "params": [0]}]}, "torch.Adam")


def test_a_class_with_its_own_step_is_not_called_by_that_of_torch():
    torch = pytest.importorskip("torch", reason="explains an optimizer of torch")

    class Adam(torch.optim.Adam):
        pass

    class Own(torch.optim.Adam):
        def step(self, closure=None):
            return None

    parameters = [torch.nn.Parameter(torch.zeros(2))]
    assert adamx.explain(Adam(parameters), "torch.Adam").same
    with pytest.raises(ValueError, match=r"Own has a `step` of its own, not that of torch.Adam"):
        adamx.explain(Own(parameters), "torch.Adam")


def test_what_is_no_optimizer_is_refused():
    with pytest.raises(TypeError, match=r"`b` must be a name such as 'torch.AdamW', .* got int"):
        adamx.explain("torch.Adam", 3)
    with pytest.raises(ValueError, match=r"`a` is a mapping, but .* its keys are lr"):
        adamx.explain({"lr": 3}, "torch.Adam")


def test_every_recipe_has_a_name():
    known = all_known()
    assert {"torch.AdamW", "keras.Lamb", "optax.adopt", "optax.nadam", "adamx.adan"} <= set(known)


def test_full_names_of_modules_are_understood():
    for long, short in {
        "torch.optim.AdamW": "torch.AdamW",
        "tf.keras.optimizers.Adam": "keras.Adam",
        "tf.keras.optimizers.legacy.Nadam": "tf.keras.legacy.Nadam",
        "optax.contrib.adopt": "optax.adopt",
        "TORCH.adamw": "torch.AdamW",
    }.items():
        assert read(long).name == short


CLASSES = {
    "Adam": {"lr": 3e-4, "amsgrad": True, "foreach": True},
    "AdamW": {"betas": (0.8, 0.95), "weight_decay": 0.2},
    "NAdam": {"momentum_decay": 0.01},
    "RAdam": {},
    "Adamax": {},
}


@some_slow("name", CLASSES, ["Adam", "NAdam"])
def test_an_optimizer_of_torch_and_its_state_dict_are_understood(name):
    arguments = CLASSES[name]
    torch = pytest.importorskip("torch", reason="explains an optimizer of torch")
    live = getattr(torch.optim, name)([torch.nn.Parameter(torch.zeros(2))], **arguments)
    words = ", ".join(f"{k}={v!r}" for k, v in arguments.items())
    for given in (live, live.state_dict()):
        found = adamx.explain(given, f"torch.{name}({words})")
        assert (found.a, found.same, found.differences) == (f"torch.{name}", True, ())


def test_groups_of_torch_that_differ_are_mentioned():
    torch = pytest.importorskip("torch", reason="explains an optimizer of torch")
    one, other = (torch.nn.Parameter(torch.zeros(2)) for _ in range(2))
    live = torch.optim.AdamW([{"params": [one]}, {"params": [other], "weight_decay": 0.0}])
    found = adamx.explain(live, "torch.AdamW")
    assert found.a == "torch.AdamW (the first of 2 groups)"
    assert "one path, to 1e-9 of a step. Only the first parameter group was looked at." in str(
        found
    )


def test_a_recipe_in_compact_storage_is_run_too():
    found = adamx.explain(adamx.adam(1e-3, storage="int8", landing="exact"), "adamx.adam")
    assert not found.same
    assert 0 < apart(found, 1.0, 200) < 20


def test_storage_and_landing_are_named_and_change_no_other_word():
    found = adamx.explain(adamx.adamw(1e-3), adamx.adamw(1e-3, storage="int4", landing="exact"))
    topics = by_topic(found)
    assert set(topics) == {"storage", "landing"}
    assert topics["storage"][1:3] == ("float32", "int4")
    assert topics["landing"][1:3] == ("nearest", "exact")
    assert not found.same
    mixed = adamx.adam(1e-3, b2=0.99, storage="bfloat16")
    topics = by_topic(adamx.explain("adamx.adam(storage='int8')", mixed))
    assert topics["storage"][1:3] == ("int8", "bfloat16")
    assert "b2" in topics


@pytest.mark.parametrize(
    "make", [adamx.stable_adamw, lambda *args, **kw: adamx.cautious(adamx.adamw(*args, **kw))]
)
def test_storage_is_found_within_links_that_join_or_change_others(make):
    found = adamx.explain(make(1e-3, b2=0.98), make(1e-3, b2=0.98, storage="int8"))
    topics = by_topic(found)
    assert set(topics) == {"storage"}
    assert topics["storage"][1:3] == ("float32", "int8")


def test_what_changes_directions_is_in_the_name():
    both = adamx.grams(adamx.cautious(adamx.adamw(1e-3, weight_decay=0.3)))
    found = adamx.explain(both, adamx.cautious(adamx.stable_adamw(1e-3, weight_decay=0.2)))
    assert (found.a, found.b) == ("a: grams(cautious(adamw))", "b: cautious(stable_adamw)")
    assert by_topic(found)["weight decay"][1:3] == (0.3, 0.2)


def test_schedules_are_shown_by_their_first_rate():
    schedule = optax.linear_schedule(1e-3, 0.0, 100)
    found = adamx.explain(adamx.adam(schedule), adamx.adam(jnp.float32(1e-3)))
    assert found.moves[0].apart < 1e-3 < found.moves[-1].apart
