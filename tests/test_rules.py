# SPDX-License-Identifier: Apache-2.0
"""`adamx.rules`: each file's own rule, and no other's under its name."""

import pytest

import adamx


def test_a_recipe_whose_rule_is_anothers_has_none():
    assert adamx.rules.ademamix(alpha=2.0).hyper["alpha"] == 2.0
    assert adamx.rules.belief().name == "adabelief"
    for name in ("mars", "stable_adamw", "lamb", "nadam", "nothing"):
        with pytest.raises(AttributeError, match=f"'adamx.rules' has no rule '{name}'"):
            getattr(adamx.rules, name)
