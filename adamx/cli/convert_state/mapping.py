# SPDX-License-Identifier: Apache-2.0
"""The mapping file: names, layouts and groups where two libraries differ."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from adamx.cli import disk
from adamx.cli.flags import UsageError
from adamx.interop.names import nearest


class Mapping(NamedTuple):
    """The contents of a mapping file; see `interop.from_torch` for what they mean."""

    names: dict[str, Any]
    layouts: dict[str, str]
    order: Any = None
    kind: str | None = None


def read(path: str | None) -> Mapping:
    """The mapping in a file; an empty one without a file."""
    if path is None:
        return Mapping({}, {})
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {disk.why(error)}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{path}: must be a JSON object, got a {type(found).__name__}")
    for key in found:
        if key not in Mapping._fields:
            raise UsageError(
                f"{path}: there is no {key!r}; the nearest is {nearest(key, _KEYS, 1)}"
            )
    for key, fits in _KEYS.items():
        if key in found and not fits(found[key]):
            raise UsageError(f"{path}: {key!r} cannot be {json.dumps(found[key])[:100]}")
    return Mapping(**{"names": {}, "layouts": {}, **found})


def _are_names(x: Any) -> bool:
    return isinstance(x, list) and all(isinstance(name, str) for name in x)


_KEYS = {
    "names": lambda x: (
        isinstance(x, dict) and all(isinstance(v, str) or _are_names(v) for v in x.values())
    ),
    "layouts": lambda x: isinstance(x, dict) and all(isinstance(v, str) for v in x.values()),
    "order": lambda x: _are_names(x) or (isinstance(x, list) and all(map(_are_names, x))),
    "kind": lambda x: isinstance(x, str),
}
