# SPDX-License-Identifier: Apache-2.0
"""torch's fused AdamW on a tree of shapes, where torch has a GPU."""

from collections.abc import Callable

from adamx.cli import shapes


def torch_calls(
    tree: shapes.Shapes, queued: int
) -> dict[str, tuple[Callable[[], None], float, float]]:
    """By dtype: the call of `queued` steps, bytes of state and bytes moved, both per parameter."""
    try:
        import torch
    except ModuleNotFoundError as error:
        raise RuntimeError("it is not installed") from error
    if not torch.cuda.is_available():
        raise RuntimeError("it has no GPU here")

    def made(dtype: torch.dtype) -> tuple[Callable[[], None], float, float]:
        params = [torch.randn(shape, device="cuda", dtype=dtype) for shape in tree.values()]
        for param in params:
            param.grad = torch.randn_like(param)
        optimizer = torch.optim.AdamW(params, lr=1e-3, fused=True)

        def call() -> None:
            for _ in range(queued):
                optimizer.step()
            torch.cuda.synchronize()

        each = dtype.itemsize
        return call, 2 * each, 3 * each + 4 * each  # moments are of the parameters' dtype

    return {
        "float32: torch fused": made(torch.float32),
        "bfloat16: torch fused": made(torch.bfloat16),
    }
