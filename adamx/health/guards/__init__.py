# SPDX-License-Identifier: Apache-2.0
"""Guards keep bad steps out of parameters and moments, and count them."""
