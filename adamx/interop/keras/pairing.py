# SPDX-License-Identifier: Apache-2.0
"""Which leaf of ours each of Keras' trainable variables is."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from adamx.interop.names import Problems, nearest

Names = Mapping[str, str] | Sequence[str] | None


def pair(theirs: Sequence[str], leaves: Sequence[str], names: Names, problems: Problems) -> Any:
    """Our leaf for each of Keras' names, in their order; None where there is none.

    Without `names`, two names are alike if their letters and digits are, or if one of them ends in
    the other: `sequential/dense/kernel` and `dense/kernel`. `names` goes from ours to Keras', or
    has ours in Keras' order.

    Example:
      >>> pair(["sequential_dense_kernel"], ["dense/kernel"], None, Problems("from_keras"))
      ['dense/kernel']
    """
    if names is not None and not isinstance(names, Mapping):
        return _in_order(list(names), len(theirs), leaves, problems)
    given = {} if names is None else {_folded(v): k for k, v in names.items()}
    found: list[str | None] = []
    for name in theirs:
        alike = [given[_folded(name)]] if _folded(name) in given else _alike(name, leaves)
        found.append(alike[0] if len(alike) == 1 else None)
        if len(alike) > 1:
            problems.add(f"{name} may be {' or '.join(alike)}: say which in `names`")
        elif not alike:
            like = nearest(name, leaves)
            problems.add(f"{name} has no partner here; the nearest are {like}: see `names`")
    for name, folded in ((v, _folded(v)) for v in (names or {}).values()):
        if folded not in map(_folded, theirs):
            like = nearest(name, theirs)
            problems.add(f"`names` has {name}, Keras does not; the nearest are {like}")
    _check_leaves(found, leaves, theirs, problems)
    return found


def _in_order(names: list[str], count: int, leaves: Sequence[str], problems: Problems) -> Any:
    for name in names:
        if name not in leaves:
            like = nearest(name, leaves)
            problems.add(f"`names` has {name}, which is not trained here; the nearest are {like}")
    if len(names) != count:
        problems.add(f"`names` has {len(names)} leaves, Keras {count} trainable variables")
    _check_leaves(names, leaves, (), problems)
    return names


def _check_leaves(
    found: Sequence[str | None], leaves: Sequence[str], theirs: Sequence[str], problems: Problems
) -> None:
    for leaf in leaves:
        times = list(found).count(leaf)
        if times == 0:
            like = f"; the nearest are {nearest(leaf, theirs)}" if theirs else ""
            problems.add(f"{leaf} is trained here and has no partner in Keras{like}")
        elif times > 1:
            problems.add(f"{leaf} is the partner of {times} of Keras' variables")


def _alike(name: str, leaves: Sequence[str]) -> list[str]:
    whole = [leaf for leaf in leaves if _folded(leaf) == _folded(name)]
    ends = [leaf for leaf in leaves if _ends_in(name, leaf) or _ends_in(leaf, name)]
    longest = max((len(leaf) for leaf in ends), default=0)
    return whole or [leaf for leaf in ends if len(leaf) == longest]


def _ends_in(longer: str, end: str) -> bool:
    return _folded(longer).endswith("_" + _folded(end))


def _folded(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower())
