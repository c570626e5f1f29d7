# SPDX-License-Identifier: Apache-2.0
"""What a finished or running run looks like: log, findings, plot and page."""
