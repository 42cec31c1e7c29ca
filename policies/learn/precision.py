"""How precisely matrix products are taken while learning."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

# By torch's names: `medium` rounds the factors to bfloat16 where the machine has units for that
# (AMX, tensor cores); sums, weights, moments and everything else stay float32.
PRECISIONS = {"fp32": "highest", "bf16": "medium"}


@contextmanager
def matrix_products(precision: str) -> Iterator[None]:
    """Within, products of float32 matrices are `fp32`, or `bf16`: quicker, to three digits.

    The setting is the process's, so whoever else multiplies meanwhile shares it.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(PRECISIONS[precision])
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
