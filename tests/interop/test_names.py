# SPDX-License-Identifier: Apache-2.0
"""One error for all problems, with the nearest names."""

import pytest

from adamx.interop.names import Problems, check_arguments, nearest


def test_nothing_wrong_raises_nothing():
    problems = Problems("bridge")
    problems.check()
    assert not problems


def test_one_problem_is_one_line_and_more_are_a_list():
    problems = Problems("bridge")
    problems.add("a is missing")
    with pytest.raises(ValueError, match=r"^bridge: a is missing$"):
        problems.check()
    problems.add("b is missing")
    with pytest.raises(ValueError, match=r"^bridge: 2 problems\n  a is missing\n  b is missing$"):
        problems.check()


def test_the_nearest_name_comes_first():
    assert nearest("fc1.weigth", ["fc2.bias", "fc1.weight", "fc1.bias"]).startswith("fc1.weight")
    assert nearest("zzz", ["fc1"]) == "none"


def test_every_unknown_argument_is_named():
    with pytest.raises(TypeError, match=r"`bets`; the nearest is `betas`.*`zzz`; it has lr, betas"):
        check_arguments("torch.adam", {"bets": 1, "lr": 1, "zzz": 2}, ["lr", "betas"])
    check_arguments("torch.adam", {"lr": 1}, ["lr"])
