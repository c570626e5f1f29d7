# SPDX-License-Identifier: Apache-2.0
"""Reports on a finished or running run: findings, plot and page."""
