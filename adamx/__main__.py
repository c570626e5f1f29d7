# SPDX-License-Identifier: Apache-2.0
"""`python -m adamx`: hands the command line to `adamx.cli`."""

import sys

from adamx.cli import main

if __name__ == "__main__":
    sys.exit(main())
