"""A task policy behind its own risk filter, as one network: what SQRL and CSC deploy.

Letters: B batch, N candidates, O observation, A action. Training draws candidates at random; a
deployed policy has to give the same answer to the same observation, so its candidates come from a
fixed table of normal noise, whose first row is zero: the mean action.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everybody knows

from safetypilot.models.networks import GaussianActor, TwinCritic

_MARGIN = 1e-4  # of scores and risks: far above float32 rounding
UNSAFE = 1e6  # taken from the score of a candidate above eps, times (1 + its risk)


class FilteredPolicy(nn.Module):  # type: ignore[misc]  # torch is not followed by mypy
    """The densest candidate with a risk of at most eps, or the least risky of all."""

    noise: Tensor

    def __init__(self, actor: GaussianActor, critic: TwinCritic, eps: float, samples: int) -> None:
        """Join an actor and its Q_risk, both of S = 1.

        Args:
            actor: proposes.
            critic: judges, a critic of probabilities.
            eps: risk that is allowed.
            samples: N.
        """
        super().__init__()
        self.actor, self.critic, self.eps = actor, critic, eps
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn((samples, actor.sizes.action), generator=generator)
        noise[0] = 0.0
        self.register_buffer("noise", noise)

    @property
    def scaling(self) -> nn.Module:
        """Of the actor: where its data lie."""
        return self.actor.scaling

    def forward(self, observation: Tensor) -> Tensor:
        """(1, B, O) -> (1, B, A)."""
        action, score, _ = self._judged(observation)
        best = score.argmax(dim=-1)[:, None, None].expand(len(action), 1, action.shape[-1])
        return action.gather(1, best)[:, 0][None]

    def candidates(self, observation: Tensor) -> Tensor:
        """All that the choice is between, (1, B, O) -> (B, N, A)."""
        return self._judged(observation)[0]

    def decided(self, observation: Tensor) -> Tensor:
        """Where the choice does not hang on the last digits, (1, B, O) -> (B,) bool.

        Another runtime, rounding differently, may choose another of two equally good candidates,
        or take one for safe whose risk is eps; both are right.
        """
        _, score, risk = self._judged(observation)
        first, second = score.topk(2, dim=-1).values.unbind(dim=-1)
        apart = first - second > _MARGIN * first.abs().clamp(min=1.0)
        return apart & ((risk - self.eps).abs() > _MARGIN).all(dim=-1)

    def _judged(self, observation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Candidates (B, N, A), how good each is (B, N), and their risks (B, N)."""
        mean, log_std = (x[0][:, None] for x in self.actor.distribution(observation))  # (B, 1, A)
        raw = mean + log_std.exp() * self.noise  # (B, N, A)
        squash = 2.0 * (math.log(2.0) - raw - F.softplus(-2.0 * raw))
        density = (-0.5 * self.noise.square() - log_std - squash).sum(dim=-1)  # (B, N)
        action = self.actor.scaling.to_action(torch.tanh(raw))
        batch, count, size = action.shape
        features = self.critic.encode(observation)[0][:, None].expand(batch, count, -1)
        rows = features.reshape(1, batch * count, -1), action.reshape(1, batch * count, size)
        risk = self.critic.risk_of(*rows).view(batch, count)
        score = torch.where(risk <= self.eps, density, -UNSAFE * (1.0 + risk))
        return action, score, risk
