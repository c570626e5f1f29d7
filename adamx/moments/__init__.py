# SPDX-License-Identifier: Apache-2.0
"""A rule and a storage make a gradient transformation; and its state is found and converted."""
