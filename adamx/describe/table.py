# SPDX-License-Identifier: Apache-2.0
"""What happens to each leaf, as a table."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from adamx.core import dtypes, hyperparameters, paths
from adamx.core.links import Link, links
from adamx.core.state_paths import owned
from adamx.core.tables import as_markdown, as_text
from adamx.describe.decays import decay_of, names_seen
from adamx.describe.folded import BYTES, folded
from adamx.describe.names import nested, shared, told
from adamx.describe.rates import rate_of
from adamx.describe.settings import shown, storage_of, value_of
from adamx.landing.float_words import HALVES
from adamx.landing.transform import LandingLink

COLUMNS = ("leaves", "count", "optimizer", "storage", "landing", "decay", "rate", *BYTES)


@dataclasses.dataclass(frozen=True)
class Description:
    """What happens to each leaf.

    Attributes:
      rows: one for leaves alike, with the columns of the table and all their names as `"names"`.
      around: what is around the optimizers of all leaves, such as a guard or one clip; or empty.
      text: the table, aligned.
      markdown: the table in Markdown.
    """

    rows: list[dict[str, Any]]
    around: str = ""

    @property
    def text(self) -> str:
        return self._head + as_text(*self._cells())

    @property
    def markdown(self) -> str:
        return self._head + as_markdown(*self._cells())

    @property
    def _head(self) -> str:
        return f"around all: {self.around}\n\n" if self.around else ""

    def __str__(self) -> str:
        return self.text

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        header = [*COLUMNS]
        cells = [[shown(row[k]) for k in header] for row in self.rows]
        total = {k: sum(row[k] for row in self.rows) for k in ("count", *BYTES)}
        return header, [*cells, ["all", *(shown(total.get(k, "")) for k in header[1:])]]


def describe(opt: optax.GradientTransformation, params: Any) -> Description:
    """What `opt` does to each leaf of `params`.

    Args:
      opt: any Optax transformation: chains, masks, groups, `optax.partition`, `adamx.store` and
        what wraps an optimizer are looked into.
      params: the parameters, or their shapes.

    Returns:
      A table; print it. The rate is that of step 0 and `?` where it is traced, the decay is as the
      optimizer was given it, and the state's bytes are those that belong to a leaf.

    Example:
      >>> import adamx, jax.numpy as jnp
      >>> params = {"kernel": jnp.ones((8, 8), jnp.bfloat16), "bias": jnp.ones(8, jnp.bfloat16)}
      >>> opt = adamx.adamw(1e-3, weight_decay=0.1, mask="kernel", storage="int8", landing="kahan")
      >>> print(adamx.describe(opt, params))
      leaves  count    optimizer  storage  landing  decay   rate  parameter bytes  state bytes
      ------  -----  -----------  -------  -------  -----  -----  ---------------  -----------
      bias        1  adamx.adamw     int8    kahan      -  0.001               16           32
      kernel      1  adamx.adamw     int8    kahan    0.1  0.001              128          256
      all         2                                                           144          288
    """
    hyperparameters.check_optimizer(opt=opt)
    shapes = jax.tree.map(lambda p: jax.ShapeDtypeStruct(jnp.shape(p), dtypes.of(p)), params)
    state = jax.eval_shape(opt.init, shapes)
    stored: dict[str, list[Any]] = {}
    for x in owned(state, shapes):
        name = x.name
        if not name and x.leaf.ndim:  # not a counter, whose path may have a group's pattern in it
            name = _inside(paths.name(x.path), paths.names(shapes))
        if name:
            stored.setdefault(name, []).append(x.leaf)
    known = [(link, _seen(link, shapes)) for link in links(opt)]
    flat = [(paths.name(path), leaf) for path, leaf in paths.flatten(shapes)[0]]
    mine = {name: [link for link, names in known if name in names] for name, _ in flat}
    around, names = shared([told(mine[name]) for name, _ in flat])
    rows = [
        _row(name, leaf, mine[name], nested(own) or "-", stored.get(name, []), shapes)
        for (name, leaf), own in zip(flat, names, strict=True)
    ]
    return Description(folded(rows), " > ".join(around))


def _inside(path: str, names: Iterable[str]) -> str:
    """The longest of the names inside a path of the state, as of the bases that SOAP has for each
    dimension of a leaf; empty if there is none."""
    found = [name for name in names if f"/{name}/" in f"/{path}/"]
    return max(found, key=len, default="")


def _seen(link: Link, shapes: Any) -> set[str]:
    """The names of the leaves that a link sees; all where that cannot be told of shapes."""
    try:
        return names_seen(link.narrow, shapes)
    except (TypeError, AttributeError):
        return set(paths.names(shapes))


def _row(
    name: str, leaf: Any, mine: Sequence[Link], optimizer: str, stored: list[Any], shapes: Any
) -> dict[str, Any]:
    half = leaf.dtype in HALVES
    landings = [link.made for link in mine if isinstance(value_of(link), LandingLink)]
    return {
        "leaves": name,
        "count": 1,
        "optimizer": optimizer,
        "storage": storage_of(name, leaf, mine, stored),
        "landing": (" + ".join(landings) or "nearest") if half else "-",
        "decay": decay_of(mine, name, shapes),
        "rate": rate_of(mine),
        "parameter bytes": leaf.size * leaf.dtype.itemsize,
        "state bytes": sum(x.size * x.dtype.itemsize for x in stored),
        "names": [name],
        "dtype": leaf.dtype.name,
    }
