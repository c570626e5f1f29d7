# SPDX-License-Identifier: Apache-2.0
"""Names of arrays where one side is wrapped: by DataParallel, DistributedDataParallel or compile.

Wrappers put a word before every name of the model's state dict, but not before those that the
optimizer was given earlier, or that a convention makes.
"""

import re
from collections.abc import Collection

_WRAPPED = re.compile(r"^(?:(?:module|_orig_mod)\.)+")


def find(name: str, known: Collection[str]) -> str:
    """The name among `known` that is `name` but for wrappers; `name` itself where none is.

    Example:
      >>> find("fc.weight", ["module.fc.weight", "module.fc.bias"])
      'module.fc.weight'
      >>> find("_orig_mod.fc.bias", ["fc.bias"])
      'fc.bias'
    """
    if name in known:
        return name
    bare = _WRAPPED.sub("", name)
    alike = [other for other in known if other.endswith(bare) and _WRAPPED.sub("", other) == bare]
    return alike[0] if len(alike) == 1 else name
