# SPDX-License-Identifier: Apache-2.0
"""Optax's tests that ours cannot pass, as a contract of ours says otherwise on purpose.

Each is run and must fail: one that passes has lost its reason, and its row goes.
"""

HALF_REST = "contract 3: moments of half-precision parameters rest in float32"

DEVIATIONS = {
    f"_src.alias_test.AliasTest.test_explicit_dtype(params_dtype='bfloat16', state_dtype=None, opt_name='{name}')": HALF_REST
    for name in ("adam", "adamw")
}
