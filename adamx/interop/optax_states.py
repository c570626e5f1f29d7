# SPDX-License-Identifier: Apache-2.0
"""Optax's states as states of ours, in any storage and with any landing, and back.

`adamx.convert` does it between optimizers that differ in storage alone. Here the two may be wrapped
differently too: moments are known by the leaf that they belong to.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from adamx.core import paths
from adamx.core.instances import instances
from adamx.core.rule import Rule
from adamx.core.values import parts
from adamx.interop import states
from adamx.interop.names import Problems
from adamx.interop.rest import with_rest
from adamx.interop.states import Moments
from adamx.interop.trained import rules
from adamx.landing import LandingState, master_params
from adamx.moments.find import CLOCKS, is_moments, leaves, template


def from_optax(
    params: optax.Params, state: optax.OptState, opt: optax.GradientTransformation, like: Any = None
) -> tuple[Any, Any]:
    """A run of Optax's Adam family, to be gone on with in an optimizer of ours.

    Args:
      params, state: the run, whatever chains, masks, partitions, `inject_hyperparams` and
        `MultiSteps` the state is wrapped in.
      opt: the optimizer here: the same algorithm with the same hyperparameters, in any storage,
        with any landing, wrapped or not. A state tells its class alone: that of Adam is also
        Optax's class for Adamax, Adopt, Lamb, Nadam, RAdam and Yogi, and betas and epsilon are
        nowhere in it, so which of these it was cannot be checked.
      like: the parameters' dtypes here, as arrays or shapes; by default as they are. Float32
        weights go on exactly in bfloat16 with `landing="exact"`.

    Returns:
      The parameters, and the state of `opt`. Counters, accumulated gradients and injected
      hyperparameters go over where both sides have them. All that does not fit is one error.

    Example:
      >>> import adamx, jax, jax.numpy as jnp, optax
      >>> from adamx import interop
      >>> params = {"kernel": jnp.full(3, 1.0001)}
      >>> state = optax.adam(1e-3).init(params)
      >>> like = jax.ShapeDtypeStruct((3,), jnp.bfloat16)
      >>> opt = adamx.adam(1e-3, storage="int8", landing="exact")
      >>> half, ours = interop.from_optax(params, state, opt, {"kernel": like})
      >>> print(half["kernel"], adamx.master_params(ours, half)["kernel"])
      [1 1 1] [1.0001 1.0001 1.0001]
    """
    problems = Problems("from_optax")
    like = params if like is None else like
    theirs = _moments(state, rules(opt, like), problems)
    if states.waiting(state) and not instances(template(opt, like), optax.MultiStepsState):
        problems.add(_WAITING.format("opt"))
    weights = {paths.name(path): leaf for path, leaf in paths.flatten(params)[0]}
    _check_names(weights, like, problems)
    problems.check()
    if not theirs:
        raise ValueError("from_optax: `state` has no moments of Optax's Adam family")
    made, new = states.write(opt, like, weights, theirs, problems)
    return made, with_rest(new, state, max(m.count for m in theirs.values()))


def to_optax(
    params: optax.Params,
    state: optax.OptState,
    opt: optax.GradientTransformation,
    theirs: optax.GradientTransformation,
    like: Any = None,
) -> tuple[Any, Any]:
    """A run of ours, to be gone on with in an optimizer of Optax.

    Args:
      params, state, opt: the run here.
      theirs: Optax's optimizer, wrapped or not: the same algorithm with the same hyperparameters,
        of which only the state's class is checked, as in `from_optax`.
      like: the parameters' dtypes there, as arrays or shapes; by default as they are, but float32
        where a landing knows more than a half-precision parameter holds.

    Returns:
      The parameters, and the state of `theirs`.

    Example:
      >>> import adamx, jax.numpy as jnp, optax
      >>> from adamx import interop
      >>> opt, params = adamx.adam(1e-3, storage="int8"), {"kernel": jnp.ones(3)}
      >>> params, state = interop.to_optax(params, opt.init(params), opt, optax.adam(1e-3))
      >>> state[0].nu["kernel"].dtype
      dtype('float32')
    """
    problems = Problems("to_optax")
    weights, moments = states.read(opt, params, state)
    if like is None:
        like = master_params(state, params) if instances(state, LandingState) else params
    _check_names(weights, like, problems)
    problems.check()
    made = paths.mapped(lambda name, x: jnp.asarray(weights[name], x.dtype), like)
    blank = theirs.init(made)
    used: list[str] = []
    known = rules(opt, params)
    if states.waiting(state) and not instances(blank, optax.MultiStepsState):
        problems.add(_WAITING.format("theirs"))

    def one(node: Any) -> Any:
        return _filled(node, moments, known, used, problems) if is_moments(node) else node

    new = jax.tree.map(one, blank, is_leaf=is_moments)
    for name in moments:
        if name not in used:
            problems.add(f"{name}: `theirs` keeps no moments of this leaf, `opt` does")
    problems.check()
    return made, with_rest(new, state, max((m.count for m in moments.values()), default=0))


def _moments(state: Any, known: Mapping[str, Rule], problems: Problems) -> dict[str, Moments]:
    """The moments in a state of Optax's, by leaf, as moments of our rules."""
    found: dict[str, Moments] = {}
    for node in filter(is_moments, jax.tree.leaves(state, is_leaf=is_moments)):
        held: Any = node._asdict()
        clocks = {name: int(held.pop(name)) for name in CLOCKS if name in held}
        count = next(iter(clocks.values()))
        if set(clocks.values()) != {count}:
            said = ", ".join(f"{value} by {k}" for k, value in clocks.items())
            problems.add(f"the state counts {said} steps: here one number is carried over")
        for name, row in zip(*leaves(node)[:2], strict=True):
            if not row:
                continue
            rule = known.get(name)
            kinds: Any = rule.moments if rule else dict.fromkeys(held, "signed")
            if name in found:
                problems.add(f"{name}: the state has moments of this leaf twice")
            if rule:
                _check_rule(name, node, rule, "the state is", problems)
            if set(kinds) != set(held):
                ours, there = ", ".join(kinds), ", ".join(held)
                problems.add(f"{name}: the state keeps {there} of this leaf, `opt` keeps {ours}")
                continue
            arrays = dict(zip(held, map(np.asarray, row), strict=True))
            if rule and "magnitude" in kinds.values():
                _check_magnitude(name, arrays, rule, problems)
            found[name] = Moments(kinds, count, arrays, {})
    return found


def _check_rule(name: str, node: Any, rule: Rule, what: str, problems: Problems) -> None:
    """Adds a problem where a state of Optax's belongs to another rule than ours."""
    if set(node._fields) - set(CLOCKS) == set(rule.moments) and not isinstance(
        node, rule.state if isinstance(rule.state, type) else object
    ):
        ours = getattr(rule.state, "__name__", rule.name)
        problems.add(f"{name}: {what} a {type(node).__name__}, `opt` is {rule.name} with a {ours}")
    in_optax = hasattr(optax, rule.name) or hasattr(optax.contrib, rule.name)
    if "normalised" in rule.moments.values() and not in_optax:
        problems.add(
            f"{name}: {what} of Optax, which has no {rule.name}: its mean is of divided gradients"
        )
    if parts(rule.at)[1].get("max_of") == "raw":
        problems.add(f"{name}: Optax's maximum is of corrected squares, `opt` has `max_of='raw'`")


def _check_magnitude(name: str, arrays: Mapping[str, Any], rule: Rule, problems: Problems) -> None:
    """Adds a problem where the mean is larger than any with such a decaying maximum can be.

    With m = (1 - b1) sum b1^k |g| at most, and u at least b2^k |g| for every k, m is at most
    u (1 - b1) / (1 - b1 / b2). Squares of gradients below 1 are smaller than that.
    """
    b1, b2 = rule.hyper["b1"], rule.hyper["b2"]
    if not (isinstance(b1, int | float) and isinstance(b2, int | float) and b1 < b2):
        return
    mu, nu = (np.abs(np.asarray(arrays[k], np.float64)) for k in ("mu", "nu"))
    if np.any(mu > 1.05 * nu * (1 - b1) / (1 - b1 / b2)):  # 5 %: moments may be bfloat16
        problems.add(
            f"{name}: the state's nu is no decaying maximum of gradients with the mean mu, as "
            f"{rule.name} has it: is it of Adam?"
        )


def _filled(
    node: Any,
    moments: Mapping[str, Moments],
    known: Mapping[str, Rule],
    used: list[str],
    problems: Problems,
) -> Any:
    """A new state of Optax's with our moments."""
    names, rows, treedef = leaves(node)
    trained = [name for name, row in zip(names, rows, strict=True) if row]
    used += trained
    fields = node._asdict()
    clocks = {name: fields.pop(name) for name in CLOCKS if name in fields}
    for name in trained:
        if name in known:
            _check_rule(name, node, known[name], "`theirs` has", problems)
        kept = moments[name].arrays if name in moments else {}
        if set(kept) != set(fields):
            ours = ", ".join(kept) or "nothing"
            problems.add(f"{name}: `theirs` keeps {', '.join(fields)} of this leaf, `opt` {ours}")
    counts = {moments[name].count for name in trained if name in moments}
    if len(counts) > 1:
        problems.add(f"{trained[0]} and others count steps once, here they are {sorted(counts)}")
    if problems:
        return node
    made = {
        k: treedef.unflatten(
            [
                jnp.asarray(moments[n].arrays[k]).astype(old.dtype) if n in trained else old
                for n, old in zip(names, treedef.flatten_up_to(tree), strict=True)
            ]
        )
        for k, tree in fields.items()
    }
    count = counts.pop() if counts else 0
    return node._replace(**made, **{k: jnp.full_like(old, count) for k, old in clocks.items()})


def _check_names(weights: Mapping[str, Any], like: Any, problems: Problems) -> None:
    shapes = {paths.name(path): jnp.shape(x) for path, x in paths.flatten(like)[0]}
    for name in dict.fromkeys([*weights, *shapes]):
        if name not in shapes or name not in weights:
            there = "`params`" if name in weights else "`like`"
            problems.add(f"{name} is in {there} alone")
        elif shapes[name] != jnp.shape(weights[name]):
            got = jnp.shape(weights[name])
            problems.add(f"{name}: `params` has shape {got}, `like` {shapes[name]}")


_WAITING = "MultiStepsState holds gradients that wait for their step, `{}` has no place"
