# SPDX-License-Identifier: Apache-2.0
"""Optax's tests that ours cannot pass, as a contract of ours says otherwise, and those left out.

A deviation is run and must fail in its way: one that passes has lost its reason, and its row goes.
Where the reason is a mistake of Optax, it may pass (`strict=False`).
"""

from typing import NamedTuple


class Deviation(NamedTuple):
    """Why a test fails, how, and whether in float64, where Optax is exact, it must pass."""

    reason: str
    raises: type[Exception] = AssertionError
    passes_in_double: bool = False
    strict: bool = True


REST = Deviation("contract 3: moments of half-precision parameters rest in float32")
EXACT = Deviation(
    "contract 5: compares with a float32 scale_by_rms of Optax, whose bias correction is 7e-6 off",
    passes_in_double=True,
    strict=False,  # Optax may mend it
)
INTEGERS = Deviation("contract 11: integer parameters are refused", TypeError)
EARLY = Deviation("contract 11: a wrong `mode` is refused when the link is built", ValueError)
ROUNDING = Deviation(
    "asks for a float32 norm of 1 within 5e-8, less than its last digit: Optax itself fails it",
    strict=False,
)

_DTYPE = "_src.alias_test.AliasTest.test_explicit_dtype(params_dtype='bfloat16', state_dtype=None"

DEVIATIONS = {
    f"{_DTYPE}, opt_name='adam')": REST,
    f"{_DTYPE}, opt_name='adamw')": REST,
    "contrib._galore_test.GaLoreTest.test_mu_dtype_controls_moment_dtype": REST,
    "_src.transform_test.TransformTest.test_rms_match_adam": EXACT,
    "contrib._schedule_free_test.ScheduleFreeTest.test_explicit_dtype(params_dtype='bfloat16', "
    "state_dtype=None)": REST,
    "_src.combine_test.ExtraArgsTest.test_extra_args": INTEGERS,
    "transforms._combining_test.ExtraArgsTest.test_extra_args": INTEGERS,
    "_src.transform_test.TransformTest.test_lion_invalid_mode_raises": EARLY,
    "transforms._clipping_test.ClippingTest.test_clip_by_block_rms": ROUNDING,
}

# Tests that say slowly what another one says, as patterns of their titles.
LEFT_OUT = (
    # Drop the wrapper, and then are AliasTest's tests of the same names.
    r"ContribTest\.test_state_shape_dtype_shard_stability\(.*wrapper_name='mechanize'",
    r"ContribTest\.test_optimizers_accept_extra_args\(.*wrapper_name='mechanize'.*wrap=False",
    # Half a minute each, as they run eagerly; test_wrappers.py asks the same of traces.
    r"AccumulationTest\.test_multi_steps_mixed_precision",
)
