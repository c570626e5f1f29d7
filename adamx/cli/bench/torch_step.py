# SPDX-License-Identifier: Apache-2.0
"""PyTorch's own optimizer on the benchmark's shapes, if PyTorch is installed."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np

CLASSES = {"adam": "Adam", "adamw": "AdamW"}
"""The recipes for which PyTorch has a fused kernel."""


def torch_step(recipe: str, grads: dict[str, np.ndarray]) -> tuple[str, Callable[[], None]] | None:
    """The contestant's name and its step; None without PyTorch or a kernel for the recipe."""
    # Idle OpenMP threads would spin on the cores that XLA is being timed on.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        import torch
    except ModuleNotFoundError:
        return None
    if recipe not in CLASSES:
        return None
    device = "cuda" if torch.cuda.is_available() else "cpu"
    params = [torch.zeros(grad.shape, device=device) for grad in grads.values()]
    for param, grad in zip(params, grads.values(), strict=True):
        param.grad = torch.from_numpy(grad).to(device)
    name, optimizer = _optimizer(getattr(torch.optim, CLASSES[recipe]), params)

    def step() -> None:
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return name, step


def _optimizer(factory: Callable[..., Any], params: list[Any]) -> tuple[str, Any]:
    """Fused if this build of PyTorch supports it, else one call per operation for all leaves."""
    try:
        return "torch fused", factory(params, lr=1e-3, fused=True)
    except RuntimeError:
        return "torch foreach", factory(params, lr=1e-3, foreach=True)
