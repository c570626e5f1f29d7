# SPDX-License-Identifier: Apache-2.0
"""The table of contracts in `README.md` knows the tests there are."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (Path(__file__).parent / "README.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("|")
][2:]


def test_the_table_has_a_row_for_every_contract():
    numbers = [int(contract.split()[0]) for contract, *_ in ROWS if contract]
    assert numbers == list(range(1, 16))


def test_the_table_names_tests_that_exist():
    for _, file, tests in ROWS:
        if file:
            text = (TESTS / file.strip("`")).read_text(encoding="utf-8")
            for name in re.findall(r"`(test_\w+)`", tests):
                assert f"def {name}(" in text, f"{file} has no {name}"
