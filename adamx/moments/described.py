# SPDX-License-Identifier: Apache-2.0
"""States that say which rule and which storages they belong to, wherever wrappers put them."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax

from adamx.core.rule import Rule
from adamx.storage import Choice


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["state"], meta_fields=["rule", "choice"]
)
@dataclasses.dataclass(frozen=True)
class Described:
    """A state with the rule and the storages that it belongs to."""

    state: Any
    rule: Rule
    choice: Choice


_DESCRIBING = jax.make_user_context(False)  # which keeps traces apart, as a variable would not


@contextlib.contextmanager
def describing(on: bool = True) -> Iterator[None]:
    """Within it, `init` of any transformation marks the states of our rules as `Described`."""
    with _DESCRIBING(on):
        yield


def described(state: Any, rule: Rule, choice: Choice) -> Any:
    """`state`, marked where that is asked for."""
    return Described(state, rule, choice) if _DESCRIBING.value else state
