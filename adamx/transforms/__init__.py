# SPDX-License-Identifier: Apache-2.0
"""What else stands in a chain: clipping, weight decay, the learning rate, the trust ratio, and what
changes gradients in front of a rule or directions behind it."""
