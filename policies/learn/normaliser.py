"""Running mean and deviation of what comes in, as buffers: saved and exported with the weights.

Letters: S seeds, B batch, O values.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Normaliser(nn.Module):  # type: ignore[misc]  # torch is not followed by mypy
    """Standardises by all that was seen, whatever the batches it came in.

    Counts, means and squared deviations are merged batch by batch (Chan, Golub and LeVeque 1983),
    in float64: sums of squares would lose the deviation of values that lie far from zero.
    """

    count: Tensor  # (S, 1, 1)
    mean: Tensor  # (S, 1, O)
    squares: Tensor  # (S, 1, O), sum of squared deviations from the mean

    def __init__(self, size: int, seeds: int = 1, clip: float = 10.0) -> None:
        """Know nothing yet: what comes in goes out.

        Args:
            size: O.
            seeds: S.
            clip: standardised values stay in [-clip, clip].
        """
        super().__init__()
        self.clip = clip
        self.register_buffer("count", torch.zeros(seeds, 1, 1, dtype=torch.float64))
        for name in ("mean", "squares"):
            self.register_buffer(name, torch.zeros(seeds, 1, size, dtype=torch.float64))

    @property
    def deviation(self) -> Tensor:
        """(S, 1, O); 1 where nothing varied."""
        found = (self.squares / self.count.clamp(min=1.0)).sqrt()
        return torch.where(found < 1e-6, torch.ones_like(found), found)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def update(self, values: Tensor) -> None:
        """Take values (S, B, O) into account."""
        rows = values.shape[1]
        if not rows:
            return
        values = values.double()
        mean = values.mean(dim=1, keepdim=True)
        squares = (values - mean).square().sum(dim=1, keepdim=True)
        total = self.count + rows
        apart = mean - self.mean
        self.squares += squares + apart.square() * (self.count * rows / total)
        self.mean += apart * (rows / total)
        self.count.copy_(total)

    def forward(self, values: Tensor) -> Tensor:
        """Standardised, (S, B, O) -> (S, B, O) float32."""
        standard = (values.double() - self.mean) / self.deviation
        return standard.clamp(-self.clip, self.clip).float()
