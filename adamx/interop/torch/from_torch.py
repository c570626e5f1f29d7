# SPDX-License-Identifier: Apache-2.0
"""From a torch model and its optimizer to parameters, optimizer and state of ours."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax

from adamx.core import paths
from adamx.interop import states
from adamx.interop.names import Problems, nearest
from adamx.interop.report import Report, lost
from adamx.interop.torch import tensors
from adamx.interop.torch.checked import check_weights
from adamx.interop.torch.comparing import differences, retuned
from adamx.interop.torch.groups import Group, read_groups
from adamx.interop.torch.matching import Layouts, Match, Names, match
from adamx.interop.torch.moments import fresh, moments_of
from adamx.interop.torch.naming import Order
from adamx.interop.torch.optimizer import build
from adamx.interop.torch.rows import report_of
from adamx.interop.torch.sharing import check_parts, check_tied
from adamx.landing import LandingLike
from adamx.storage import StorageLike


class Moved(NamedTuple):
    """A run that can go on here.

    Attributes:
      params: the parameters.
      opt: the optimizer; None if only weights were moved.
      state: its state.
      rest: torch's arrays that no leaf takes, such as the running statistics of BatchNorm.
      report: what went where, and what was lost.
    """

    params: Any
    opt: Any
    state: Any
    rest: dict[str, np.ndarray]
    report: Report


def from_torch(
    weights: Mapping[str, Any],
    optimizer: Mapping[str, Any] | None,
    params: Any,
    *,
    layout: str = "flax",
    names: Names = None,
    layouts: Layouts = None,
    order: Order = None,
    kind: str | None = None,
    opt: optax.GradientTransformation | None = None,
    learning_rate: Any = None,
    storage: StorageLike | None = None,
    landing: LandingLike = "nearest",
) -> Moved:
    """A run of PyTorch, to be gone on with here: its weights, its optimizer, its moments and steps.

    Everything that does not fit is reported in one error: names without a partner with the nearest
    ones, shapes that differ, numbers of steps that differ within a group, groups that no recipe
    expresses.

    Args:
      weights: `model.state_dict()`.
      optimizer: `optimizer.state_dict()`; None moves the weights alone.
      params: the parameters here, as arrays or as shapes with shardings: their tree, shapes, dtypes
        and places are those of the result.
      layout: how modules here name and lay out their parameters: `"flax"` (linen and nnx),
        `"equinox"`, `"haiku"`, or `"torch"` where both sides agree.
      names: our path, or the path of a module, to torch's name of it: `{"Dense_0": "fc1"}`. A leaf
        made of several arrays has a list of them, and a function in `layouts` that takes them. Or a
        function of our path. What is not in it is called alike, but for the convention of `layout`.
      layouts: a path pattern to how these leaves lie: `"same"`, `"linear"`, `"conv"`,
        `"conv_transpose"`, `"transpose_kernel"` (Flax's `ConvTranspose(transpose_kernel=True)`), or
        a function from torch's arrays to the leaf that only moves elements. By default kernels
        are linear or convolutions, by their number of axes; transposed convolutions have to be
        named here. Where a kernel is square, its shape cannot tell how it lies, and nothing is
        checked: Hugging Face's `Conv1D` (GPT-2) lies as (in, out), so it is `"same"` in Flax.
      order: torch's names of the parameters in the order of the optimizer, for all groups or for
        each: `[n for n, _ in model.named_parameters()]` for an optimizer of `model.parameters()`.
        Needed where the optimizer was given no names and has several groups, or where weights are
        not in the model's order: safetensors are sorted by name. Also where buffers
        of the model's own, such as a table of sines, are leaves here.
      kind: the class of the optimizer, if its settings do not tell: `"adam"`, `"adamw"`, …
      opt: the optimizer here, in place of `learning_rate`, `storage` and `landing`, if it is to be
        another than torch's groups describe: it has to keep the same moments by the same rule, to
        go the same way and to decay in the same form; its hyperparameters are its own, and the
        report notes b1, b2 and epsilon where they are not torch's. Optax's own
        transformations do not tell more than their moments, so that these alone are compared.
      learning_rate: a number or schedule in place of torch's, or a list of one for each group. A
        schedule goes on at torch's number of steps.
      storage, landing: how moments are stored and steps are written: see `adamx.adam`.

    Returns:
      The run. Several groups become `optax.partition` with the labels `group0`, `group1` …; leaves
      that the optimizer does not train, or that never had a gradient, get the label `frozen`.

    Hugging Face's `Trainer` writes `optimizer.pt` with two groups and without names. Its groups
    follow from its own list of decayed parameters:

        decayed = trainer.get_decay_parameter_names(model)
        every = [name for name, p in model.named_parameters() if p.requires_grad]
        order = [[n for n in every if n in decayed], [n for n in every if n not in decayed]]
        weights = interop.torch.read("checkpoint-500/model.safetensors")
        optimizer = interop.torch.read("checkpoint-500/optimizer.pt")
        moved = interop.from_torch(weights, optimizer, params, order=order)

    Shards of torch's ZeRO are merged before: `optimizer.consolidate_state_dict(to=0)`, then rank 0
    has all of it in `optimizer.state_dict()`. For FSDP, take
    `torch.distributed.checkpoint.state_dict.get_state_dict` with `full_state_dict=True`; its keys
    are names.

    Example:
      >>> import jax, jax.numpy as jnp, numpy as np
      >>> weights = {"fc.weight": np.ones((3, 2), np.float32)}
      >>> shape = jax.ShapeDtypeStruct((2, 3), jnp.bfloat16)
      >>> moved = from_torch(weights, None, {"fc": {"kernel": shape}})
      >>> print(moved.report)
      leaf             from    as  group  weight lost
      ---------  ---------  ------  -----  -----------
      fc/kernel  fc.weight  linear      -            0
    """
    problems = Problems("from_torch")
    check_weights(weights)
    for name, given in {"learning_rate": learning_rate, "storage": storage}.items():
        if opt is not None and given is not None:
            problems.add(f"`{name}` and `opt` are given: `opt` has its own, give one of them")
    if opt is not None and landing != "nearest":
        problems.add("`landing` and `opt` are given: `opt` has its own, give one of them")
    leaves = {paths.name(path): leaf for path, leaf in paths.flatten(params)[0]}
    shapes = {name: tuple(jnp.shape(leaf)) for name, leaf in leaves.items()}
    theirs = {name: tensors.shape_of(x) for name, x in weights.items()}
    matches, used = match(shapes, theirs, layout, names, layouts, problems)
    _check_dtypes(matches, weights, problems)
    groups: list[Group] = []
    if optimizer is not None:
        groups = read_groups(optimizer, weights, order, kind, problems, used)
    _check_partners(groups, used, shapes, weights, problems)
    check_tied(matches, groups, weights, problems)
    check_parts(matches, groups, theirs, problems)
    labels, moments = moments_of(groups, matches, theirs, problems)
    problems.check()
    arrays = {m.path: m.move(*(tensors.to_numpy(weights[n]) for n in m.sources)) for m in matches}
    left = {name: x for name, x in weights.items() if name not in used}
    rest = {n: np.array(tensors.to_numpy(x)) for n, x in left.items() if not tensors.missing(x)}
    if optimizer is None:
        identity = optax.identity()
        made, state = states.write(identity, params, arrays, {}, problems)
        gone = lost((arrays, {}), states.read(identity, made, state))
        return Moved(made, None, None, rest, report_of(matches, {}, gone, left))
    given = opt is not None
    if opt is not None:
        problems.add(*differences(opt, params, groups, labels))
        new, kept = fresh(groups, matches, theirs), states.trained(opt, params)
        moments |= {path: held for path, held in new.items() if path in kept}
    else:
        ours = {"storage": storage, "landing": landing}
        opt = build(groups, labels, learning_rate, ours)
    made, state = states.write(opt, params, arrays, moments, problems)
    gone = lost((arrays, moments), states.read(opt, made, state))
    notes = _notes(groups, matches, moments)
    if given:
        notes += sorted(dict.fromkeys(retuned(opt, params, groups, labels)))
    else:
        notes += _of_schedulers(groups, optimizer["param_groups"], learning_rate)
    return Moved(made, opt, state, rest, report_of(matches, labels, gone, left, notes))


def _notes(groups: Sequence[Group], matches: Sequence[Match], moments: Mapping) -> list[str]:
    notes = [f"order: {order}" for order in dict.fromkeys(group.order for group in groups)]
    resting = {name for group in groups for name in group.resting}
    names = [m.path for m in matches if resting & set(m.sources)]
    if still := [name for name in names if name not in moments]:
        notes.append(
            f"never had a gradient in torch, and rests here too: {', '.join(still)} (to train it, "
            "give `opt`, a partition with a group of its own)"
        )
    if new := [name for name in names if name in moments]:
        notes.append(f"never had a gradient in torch, starts with fresh moments: {', '.join(new)}")
    return notes


def _of_schedulers(groups: Sequence[Group], listed: Sequence[Mapping], rate: Any) -> list[str]:
    """What torch's scheduler was moving, and does not move here."""
    left = "torch's scheduler is left behind, from here it is constant:"
    notes = []
    if rate is None and any("initial_lr" in group for group in listed):
        rates = ", ".join(f"{g.arguments['lr']:g}" for g in groups if "lr" in g.arguments)
        notes.append(f"learning rate: {left} {rates} (give `learning_rate` a schedule)")
    if any("max_momentum" in group for group in listed):
        betas = ", ".join(f"{g.arguments['betas'][0]:g}" for g in groups if "betas" in g.arguments)
        notes.append(f"its first beta: {left} {betas} (give `opt`, with a schedule of b1)")
    return notes


def _check_dtypes(matches: Sequence[Match], weights: Mapping, problems: Problems) -> None:
    for name in dict.fromkeys(name for m in matches for name in m.sources):
        if wrong := tensors.complaint(weights[name]):
            problems.add(f"{name}: weights {wrong}" if "one of" in wrong else f"{name} {wrong}")


def _check_partners(
    groups: Sequence[Group], used: set[str], leaves: Mapping, weights: Mapping, problems: Problems
) -> None:
    for name in (name for group in groups for name in group.names):
        if name not in used and name in weights:
            like = nearest(name.replace(".", "/"), leaves)
            problems.add(f"{name}: torch trains it, no leaf here takes it; the nearest are {like}")
