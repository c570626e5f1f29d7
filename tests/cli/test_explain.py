# SPDX-License-Identifier: Apache-2.0
"""`python -m adamx explain` prints what `adamx.explain` finds, or one sentence."""

import adamx
from tests.cli.commands import done, refused


def test_it_prints_the_explanation():
    said = done("explain torch.AdamW optax.adamw")
    assert said == f"{adamx.explain('torch.AdamW', 'optax.adamw')}\n"
    assert "0.01 by default in torch.AdamW, 0.0001 by default in optax.adamw" in said


def test_an_unknown_name_is_one_sentence():
    assert "torch.AdamW, " in refused("explain torch.AdamV optax.adamw")
    assert "not a name such as" in refused("explain torch.AdamW 1+1")


def test_no_mean_of_squares_is_explained_all_the_same():
    assert "b2" in done("explain optax.adamw 'optax.adamw(1e-3, b2=1.0)'")
