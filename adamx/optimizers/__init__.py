# SPDX-License-Identifier: Apache-2.0
"""One algorithm a file, from its paper."""
