# SPDX-License-Identifier: Apache-2.0
"""Contract 1, drop-in: what was written for Optax works with ours put in its place.

`test_theirs.py` runs the tests that Optax ships in its wheel, with our functions in Optax's
modules (`swap.py`), as far as they reach one of them (`reach.py`), but for `deviations.py`.
`test_drop_in.py` compares signatures and states name by name, `test_wrappers.py` runs Optax's
wrappers over ours.
"""
