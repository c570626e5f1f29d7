# SPDX-License-Identifier: Apache-2.0
"""The ground floor: what every other folder uses. It knows no optimizer."""
