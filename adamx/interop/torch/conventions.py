# SPDX-License-Identifier: Apache-2.0
"""What torch calls the parameter that Flax, Equinox or Haiku has under another name.

A path is translated word by word: the words of modules stay (`layers_0` may be torch's `layers.0`),
the last one follows the table below. Parts of attention that are one array in torch are found as
thirds of it. What follows no rule is given by the user.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple


class Convention(NamedTuple):
    """The names of a library.

    Attributes:
      last: what torch calls the last word of a path; other words stay.
      kernels: the last words of parameters that are laid out in another way than in torch.
      thirds: the modules of attention that are the thirds of torch's `in_proj`, in order.
      out: the module that is torch's `out_proj`.
      dropped: words that torch has not.
    """

    last: dict[str, str]
    kernels: tuple[str, ...]
    thirds: tuple[str, ...]
    out: str
    dropped: tuple[str, ...] = ()


_FLAX = Convention(
    last={"kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias"},
    kernels=("kernel",),
    thirds=("query", "key", "value"),
    out="out",
    dropped=("params",),
)

CONVENTIONS: dict[str, Convention] = {
    "flax": _FLAX,
    "equinox": Convention({}, (), ("query_proj", "key_proj", "value_proj"), "output_proj"),
    "haiku": Convention(
        last={"w": "weight", "b": "bias", "embeddings": "weight", "scale": "weight"}
        | {"offset": "bias"},
        kernels=("w",),
        thirds=("query", "key", "value"),
        out="linear",
        dropped=("~", "params"),
    ),
    "torch": Convention({}, (), (), ""),
}


class Candidate(NamedTuple):
    """A name that a parameter may have in torch, and which third of that array it is, if one."""

    name: str
    third: int | None = None


def candidates(path: str, layout: str) -> Iterator[Candidate]:
    """The names in torch that the leaf at `path` may have, the likeliest first.

    Example:
      >>> [c.name for c in candidates("params/layers_0/fc1/kernel", "flax")]
      ['layers_0.fc1.weight', 'layers.0.fc1.weight']
      >>> [c for c in candidates("attn/key/bias", "flax")][-1]
      Candidate(name='attn.in_proj_bias', third=1)
    """
    found = CONVENTIONS[layout]
    words = [word for word in path.split("/") if word not in found.dropped]
    if not words:
        return
    *modules, last = words
    last = found.last.get(last, last)
    for inside in dict.fromkeys([tuple(modules), _numbered(modules)]):
        yield Candidate(".".join([*inside, last]))
        if not inside:
            continue
        *before, module = inside
        if module in found.thirds:
            yield Candidate(".".join([*before, f"{'qkv'[found.thirds.index(module)]}_proj_{last}"]))
            yield Candidate(".".join([*before, f"in_proj_{last}"]), found.thirds.index(module))
        if module == found.out:
            yield Candidate(".".join([*before, "out_proj", last]))


def _numbered(modules: list[str]) -> tuple[str, ...]:
    """`layers_0` as `layers`, `0`."""
    return tuple(part for word in modules for part in re.sub(r"_(\d+)$", r".\1", word).split("."))
