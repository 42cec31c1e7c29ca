"""bf16 products are near the exact ones, end with their context, and reach the updates."""

import pytest
import torch
from ledge import fill, learner

from safetypilot.policies.learn.precision import PRECISIONS, matrix_products


def test_the_setting_ends_with_its_context():
    before = torch.get_float32_matmul_precision()
    for precision, name in PRECISIONS.items():
        with pytest.raises(ValueError, match="inside"), matrix_products(precision):
            assert torch.get_float32_matmul_precision() == name
            raise ValueError("inside")
        assert torch.get_float32_matmul_precision() == before


def test_rounded_products_have_three_digits():
    torch.manual_seed(0)
    a, b = torch.randn(2, 64, 256), torch.randn(2, 256, 64)
    exact = torch.bmm(a.double(), b.double())
    size = exact.square().mean().sqrt()
    for precision, allowed in (("fp32", 1e-5), ("bf16", 1e-2)):
        with matrix_products(precision):
            error = (torch.bmm(a, b) - exact).square().mean().sqrt() / size
        assert error < allowed


def test_updates_take_the_precision_of_the_settings(monkeypatch):
    seen = []
    for precision in PRECISIONS:
        made = learner("recovery-rl", precision=precision, recovery="model-free")
        fill(made)
        for name in ("_task_step", "_risk_step"):
            monkeypatch.setattr(
                made, name, lambda batch: seen.append(torch.get_float32_matmul_precision()) or {}
            )
        made.update()
    assert seen == ["highest", "highest", "medium", "medium"]
