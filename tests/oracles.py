# SPDX-License-Identifier: Apache-2.0
"""Every rule of the family once more: one step on one array, in NumPy float64, from the papers.

An oracle maps a gradient, the moments (a dict with the field names of Optax's state) and the number
of the step (from 1) to a direction, before the learning rate and with the sign of the gradient, and
to the new moments. Inside, the direction is a tuple of terms, because a step's rounding error is
measured against the largest of them: `adam(...)` returns their sum, `largest_term(adam, ...)` their
scale. Nothing here imports the code under test.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, NamedTuple

import numpy as np

Moments = Mapping[str, np.ndarray]
Oracle = Callable[..., tuple[np.ndarray, dict[str, np.ndarray]]]


class Trajectory(NamedTuple):
    """Directions and largest terms, one row per step, and the moments after the last one."""

    directions: np.ndarray
    largest: np.ndarray
    moments: dict[str, np.ndarray]


def trajectory(oracle: Oracle, grads: Sequence[Any], **h: Any) -> Trajectory:
    """Runs an oracle from its first state over a sequence of gradients."""
    moments = start(oracle.__name__, np.shape(grads[0]), wide(grads[0]).dtype)
    directions, largest = [], []
    for t, g in enumerate(grads, start=1):
        largest.append(largest_term(oracle, g, moments, t, **h))
        direction, moments = oracle(g, moments, t, **h)
        directions.append(direction)
    return Trajectory(np.stack(directions), np.stack(largest), moments)


def largest_term(oracle: Oracle, g: Any, moments: Moments, t: int, **h: Any) -> np.ndarray:
    """The absolute value of the largest among the terms of a step, and of the step itself."""
    terms, _ = oracle.__wrapped__(wide(g), {k: wide(v) for k, v in moments.items()}, t, **h)
    return np.max(np.abs(np.stack([sum(terms), *terms])), axis=0)


def start(rule: str, shape: tuple[int, ...], dtype: Any = np.float64) -> dict[str, np.ndarray]:
    """The moments before the first step, for `adam` or `scale_by_adam` and the gradient's dtype."""
    dtype = np.result_type(dtype, np.float64)
    _, names = TABLE["scale_by_" + rule.removeprefix("scale_by_")]
    real = {"nu", "nu_max", "n"}
    first = 1e-6 if rule.endswith("yogi") else 0.0
    return {k: np.full(shape, first, np.float64 if k in real else dtype) for k in names}


def wide(x: Any) -> np.ndarray:
    """Float64, or complex128 where the input is complex; exact for every narrower dtype."""
    x = np.asarray(x)
    return x.astype(np.complex128 if np.iscomplexobj(x) else np.float64)


def summed(rule: Callable[..., tuple[tuple[np.ndarray, ...], dict[str, np.ndarray]]]) -> Oracle:
    """Turns a function that returns the terms of a direction into one that returns their sum."""

    @wraps(rule)
    def oracle(g: Any, moments: Moments, t: int, **h: Any):
        terms, new = rule(wide(g), {k: wide(v) for k, v in moments.items()}, t, **h)
        return sum(terms), new

    return oracle


def correction(b: float, t: int) -> float:
    """1 - b^t without cancellation."""
    return float(-np.expm1(t * np.log1p(-(1.0 - b)))) if b else 1.0


def square(x: np.ndarray) -> np.ndarray:
    """|x|², for a complex number too."""
    return (x * np.conj(x)).real


def mean_terms(g, mu, t, b1, nesterov=False, correct=True):
    """The corrected mean as two terms, mu's share and g's, and the new mu itself."""
    old, new = b1 * mu, (1 - b1) * g
    if nesterov:  # Dozat's look-ahead as Optax corrects it: the mean by t + 1, the gradient by t
        ahead, now = b1 / correction(b1, t + 1), (1 - b1) / correction(b1, t)
        return (ahead * old, ahead * new, now * g), old + new
    scale = correction(b1, t) if correct else 1.0
    return (old / scale, new / scale), old + new


def torch_nadam_terms(g, mu, t, b1, decay):
    """The mean under the schedule of Dozat's report, corrected by the product of its values."""
    steps = np.arange(1, t + 2, dtype=np.float64)
    schedule = b1 * (1 - 0.5 * 0.96 ** (steps * decay))
    old, new = b1 * mu, (1 - b1) * g
    ahead = schedule[t] / (1 - np.prod(schedule))
    now = (1 - schedule[t - 1]) / (1 - np.prod(schedule[:t]))
    return (ahead * old, ahead * new, now * g), old + new


def root(nu, t, b2, eps, eps_root, eps_mode):
    """The denominator; `hat` keeps epsilon beside the root of the uncorrected square."""
    eps = eps / np.sqrt(correction(b2, t)) if eps_mode == "hat" else eps
    return np.sqrt(nu / correction(b2, t) + eps_root) + eps


@summed
def adam(
    g,
    moments,
    t,
    *,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    eps_root=0.0,
    eps_mode="outside",
    nesterov=False,
    momentum_decay=None,
):
    """Kingma & Ba (1412.6980); Dozat's NAdam in two forms; Everett et al.'s atan2 (2407.05872)."""
    if momentum_decay is None:
        terms, mu = mean_terms(g, moments["mu"], t, b1, nesterov)
    else:
        terms, mu = torch_nadam_terms(g, moments["mu"], t, b1, momentum_decay)
    nu = b2 * moments["nu"] + (1 - b2) * square(g)
    if eps_mode == "atan2":
        total = np.where(sum(terms) == 0, 1e-200, sum(terms))
        gain = np.arctan2(total, np.sqrt(nu / correction(b2, t) + eps_root)) / total
        terms = tuple(gain * x for x in terms)
    else:
        terms = divided(terms, root(nu, t, b2, eps, eps_root, eps_mode))
    return terms, {"mu": mu, "nu": nu}


@summed
def amsgrad(
    g,
    moments,
    t,
    *,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    eps_root=0.0,
    eps_mode="outside",
    bias_correction_mu=True,
    bias_correction_nu=True,
    max_of="corrected",
):
    """Reddi et al. (1904.09237) with both flags off; the maximum of corrected or of raw squares."""
    terms, mu = mean_terms(g, moments["mu"], t, b1, correct=bias_correction_mu)
    nu = b2 * moments["nu"] + (1 - b2) * square(g)
    scale = correction(b2, t) if bias_correction_nu else 1.0
    nu_max = np.maximum(moments["nu_max"], nu / scale if max_of == "corrected" else nu)
    used = nu_max if max_of == "corrected" else nu_max / scale
    eps = eps / np.sqrt(scale) if eps_mode == "hat" else eps
    return divided(terms, np.sqrt(used + eps_root) + eps), {"mu": mu, "nu": nu, "nu_max": nu_max}


@summed
def adamax(g, moments, t, *, b1=0.9, b2=0.999, eps=1e-8):
    """Kingma & Ba, section 7.1, with epsilon added to |g| before the maximum."""
    terms, mu = mean_terms(g, moments["mu"], t, b1)
    nu = np.maximum(b2 * moments["nu"], np.abs(g) + eps)
    return divided(terms, nu), {"mu": mu, "nu": nu}


def length(b2: float, t: int) -> float:
    """RAdam's rho_t = rho_inf - 2 t b2^t / (1 - b2^t) as a sum of positive terms, so exact.

    With rho_inf = (1 + b2) / (1 - b2) and 1 - b2^t = (1 - b2) * sum b2^k over k < t, it equals
    sum (b2^k (1 - b2^(t-k)) + b2^(k+1) (1 - b2^(t-k-1))) / (1 - b2^t).
    """
    if b2 == 0.0:
        return 1.0
    k, log = np.arange(t, dtype=np.float64), np.log1p(-(1.0 - b2))
    first = -np.exp(k * log) * np.expm1((t - k) * log)
    second = -np.exp((k + 1) * log) * np.expm1((t - k - 1) * log)
    return float(np.sum(first + second) / correction(b2, t))


def rectifier(b2: float, t: int) -> float:
    """RAdam's r_t, for rho_t > 4."""
    rho, end = length(b2, t), (1 + b2) / (1 - b2)
    return float(np.sqrt((rho - 4) * (rho - 2) * end / ((end - 4) * (end - 2) * rho)))


@summed
def radam(
    g,
    moments,
    t,
    *,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    eps_root=0.0,
    threshold=5.0,
    eps_mode="outside",
    nesterov=False,
):
    """Liu et al. (1908.03265): the mean alone until rho_t is long enough, then rectified Adam."""
    terms, mu = mean_terms(g, moments["mu"], t, b1, nesterov)
    nu = b2 * moments["nu"] + (1 - b2) * square(g)
    if length(b2, t) >= threshold and length(b2, t) > 4:
        terms = divided(terms, root(nu, t, b2, eps, eps_root, eps_mode) / rectifier(b2, t))
    return terms, {"mu": mu, "nu": nu}


@summed
def belief(g, moments, t, *, b1=0.9, b2=0.999, eps=1e-16, eps_root=1e-16, nesterov=False):
    """Zhuang et al. (2010.07468): the square of g - mu; eps_root joins the state at every step."""
    terms, mu = mean_terms(g, moments["mu"], t, b1, nesterov)
    surprise = b1 * (g - moments["mu"])  # g - mu by the new mu, without its cancellation
    nu = b2 * moments["nu"] + (1 - b2) * square(surprise) + eps_root
    return divided(terms, root(nu, t, b2, eps, 0.0, "outside")), {"mu": mu, "nu": nu}


@summed
def yogi(g, moments, t, *, b1=0.9, b2=0.999, eps=1e-3, eps_root=0.0):
    """Zaheer et al. (NeurIPS 2018): the square moves by (1 - b2) g² whatever its distance."""
    terms, mu = mean_terms(g, moments["mu"], t, b1)
    nu, g2 = moments["nu"], square(g)
    nu = nu - (1 - b2) * np.sign(nu - g2) * g2
    return divided(terms, root(nu, t, b2, eps, eps_root, "outside")), {"mu": mu, "nu": nu}


@summed
def lion(g, moments, t, *, b1=0.9, b2=0.99, mode="hard", smooth_beta=1.0):
    """Chen et al. (2302.06675): the sign of one mean, while another one is kept."""
    del t
    mu = moments["mu"]
    x = b1 * mu + (1 - b1) * g
    size = np.abs(x)
    sign = np.where(size == 0, 0.0, x / np.where(size == 0, 1.0, size))
    refined = np.where(size < 1, x, sign)
    step = {"hard": sign, "smooth": sign * np.tanh(smooth_beta * size), "refined": refined}[mode]
    return (step,), {"mu": b2 * mu + (1 - b2) * g}


@summed
def adan(g, moments, t, *, b1=0.98, b2=0.92, b3=0.99, eps=1e-8, eps_root=0.0):
    """Xie et al. (2208.06677) as Optax reads it: 1 - b2 weighs the difference of gradients."""
    diff = g - moments["g"] if t > 1 else np.zeros_like(g)
    first, m = mean_terms(g, moments["m"], t, b1)
    second, v = mean_terms(diff, moments["v"], t, b2)
    n = b3 * moments["n"] + (1 - b3) * square(g + (1 - b2) * diff)
    terms = (*first, *((1 - b2) * x for x in second))
    terms = divided(terms, root(n, t, b3, eps, eps_root, "outside"))
    return terms, {"m": m, "v": v, "n": n, "g": g}


@summed
def adopt(g, moments, t, *, b1=0.9, b2=0.9999, eps=1e-6, nesterov=False, use_clipping=True):
    """Taniguchi et al. (2411.02853): divide by the square so far; the first step only fills it."""
    mu, nu = moments["mu"], moments["nu"]
    if t == 1:
        return (np.zeros_like(g),), {"mu": mu, "nu": square(g)}
    x = g / np.maximum(np.sqrt(nu), eps)
    if use_clipping:  # to t^(1/4), with t counted from 0; a complex number by its modulus
        x = x * np.minimum(1, (t - 1) ** 0.25 / np.where(x == 0, 1, np.abs(x)))
    terms = (b1 * mu, (1 - b1) * x)
    mu = sum(terms)
    terms = (b1 * terms[0], b1 * terms[1], (1 - b1) * x) if nesterov else terms
    return terms, {"mu": mu, "nu": b2 * nu + (1 - b2) * square(g)}


@summed
def ademamix(
    g,
    moments,
    t,
    *,
    b1=0.9,
    b2=0.999,
    b3=0.9999,
    alpha=6.0,
    eps=1e-8,
    eps_root=0.0,
    warmup_steps=None,
):
    """Pagliardini et al. (2409.03137): a fast mean, corrected, and a slow one, which is not."""
    if warmup_steps is not None:  # their equations for alpha(t) and beta_3(t)
        part = t / warmup_steps
        start, end = (np.log(max(b, 1e-300)) for b in (b1, b3))
        if part < 1:
            b3 = min(np.exp(start * end / ((1 - part) * end + part * start)), b3)
        alpha = min(alpha * part, alpha)
    fast, m1 = mean_terms(g, moments["m1"], t, b1)
    slow, m2 = mean_terms(g, moments["m2"], t, b3, correct=False)
    nu = b2 * moments["nu"] + (1 - b2) * square(g)
    terms = divided((*fast, *(alpha * x for x in slow)), root(nu, t, b2, eps, eps_root, "outside"))
    return terms, {"m1": m1, "m2": m2, "nu": nu}


@summed
def simplified_ademamix(g, moments, t, *, b1=0.99, b2=0.95, alpha=0.0, eps=1e-8, eps_root=0.0):
    """Morwani et al. (2502.02431): one sum of gradients in the place of two means."""
    old = b1 * moments["m"]
    n = b2 * moments["n"] + (1 - b2) * square(g)
    terms = divided((old, g, alpha * g), root(n, t, b2, eps, eps_root, "outside"))
    return terms, {"m": old + g, "n": n}


@summed
def laprop(g, moments, t, *, b1=0.9, b2=0.999, eps=1e-15):
    """Ziyin et al. (2002.04839): each gradient over the corrected root, then their mean."""
    nu = b2 * moments["nu"] + (1 - b2) * square(g)
    size = root(nu, t, b2, eps, 0.0, "outside")
    terms, mu = mean_terms(g / np.where(size == 0, 1, size), moments["mu"], t, b1)
    return terms, {"mu": mu, "nu": nu}


@summed
def spam(
    g,
    moments,
    t,
    *,
    b1=0.9,
    b2=0.999,
    eps=1e-6,
    theta=5000.0,
    reset_every=500,
    warmup_steps=150,
    clip_after=20,
):
    """Huang et al. (2501.06842): spikes clipped, moments reset, a cosine warm-up after that."""
    k = (t - 1) % reset_every + 1
    mu, nu = (moments[name] if k > 1 else 0 * moments[name] for name in ("mu", "nu"))
    if k > clip_after:
        spike = (square(g) > theta * nu) & (nu > 0)  # against no mean square nothing is a spike
        size = np.where(g == 0, 1, np.abs(g))
        g = np.where(spike, g / size * np.sqrt(theta * nu), g)
    terms, mu = mean_terms(g, mu, k, b1)
    nu = b2 * nu + (1 - b2) * square(g)
    warm = 1 - 0.99 * (1 + np.cos(np.pi * min(k / warmup_steps, 1))) / 2
    terms = divided(terms, root(nu, k, b2, eps, 0.0, "outside") / warm)
    return terms, {"mu": mu, "nu": nu}


def divided(terms, denominator):
    """Each term over the denominator."""
    return tuple(x / denominator for x in terms)


TABLE: dict[str, tuple[Oracle, tuple[str, ...]]] = {
    "scale_by_adam": (adam, ("mu", "nu")),
    "scale_by_amsgrad": (amsgrad, ("mu", "nu", "nu_max")),
    "scale_by_adamax": (adamax, ("mu", "nu")),
    "scale_by_radam": (radam, ("mu", "nu")),
    "scale_by_belief": (belief, ("mu", "nu")),
    "scale_by_yogi": (yogi, ("mu", "nu")),
    "scale_by_lion": (lion, ("mu",)),
    "scale_by_adan": (adan, ("m", "v", "n", "g")),
    "scale_by_adopt": (adopt, ("mu", "nu")),
    "scale_by_ademamix": (ademamix, ("m1", "m2", "nu")),
    "scale_by_simplified_ademamix": (simplified_ademamix, ("m", "n")),
    "scale_by_laprop": (laprop, ("mu", "nu")),
    "scale_by_spam": (spam, ("mu", "nu")),
}
