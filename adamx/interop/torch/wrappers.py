# SPDX-License-Identifier: Apache-2.0
"""Names of arrays where one side is wrapped, as by DistributedDataParallel, compile or FSDP.

Wrappers put a word before the names of the model, or of the layer that they are around, in its
state dict, but not in those that the optimizer was given earlier, or that a convention makes.
"""

import functools
import re
from collections.abc import Collection

_WRAPPERS = "module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module"
_WRAPPED = re.compile(rf"(?:^|(?<=\.))(?:{_WRAPPERS})\.")


def find(name: str, known: Collection[str]) -> str:
    """The name among `known` that is `name` but for wrappers; `name` itself where none is.

    Example:
      >>> find("fc.weight", ["module.fc.weight", "module.fc.bias"])
      'module.fc.weight'
      >>> find("_orig_mod.fc.bias", ["fc._orig_mod.bias"])
      'fc._orig_mod.bias'
    """
    if name in known:
        return name
    bare = _bare(name)
    alike = [other for other in known if _bare(other) == bare]
    return alike[0] if len(alike) == 1 else name


@functools.lru_cache(100_000)
def _bare(name: str) -> str:
    return _WRAPPED.sub("", name)
