"""Networks for a choice among n: a categorical policy, and critics and dynamics that know choices.

An action is a one-hot vector, A = n. What comes from elsewhere (a planner's candidates, a recovery
policy, numbers drawn from the box) are preferences, of which the environment takes the largest;
the networks that others call do the same before they judge. Letters: S seeds, B batch, N
candidates, O observation, n choices, E ensemble members.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everybody knows

from safetypilot.models.networks import DynamicsEnsemble, GaussianActor, Sizes, TwinCritic
from safetypilot.models.stacked import StackedMLP

_TINY = torch.finfo(torch.float32).tiny


def one_hot(preferences: Tensor) -> Tensor:
    """1 at the largest of the preferences (..., n), the first of equals; 0 elsewhere."""
    largest = preferences.argmax(dim=-1, keepdim=True)
    return torch.zeros_like(preferences).scatter_(-1, largest, 1.0)


class CategoricalActor(GaussianActor):
    """The task policy over n choices; deployed as their probabilities, of which the mode acts.

    It has the interface of the Gaussian. Chance comes in by exponential numbers (the Gumbel-max
    trick) and not by `torch.multinomial`, which waits for the device and so cannot be captured.
    """

    def __init__(self, sizes: Sizes) -> None:
        """Build for the given sizes; the action box is that of preferences, [0, 1]^n."""
        super().__init__(sizes)
        self.network = StackedMLP(sizes.seeds, (sizes.features, *sizes.hidden, sizes.action))

    def forward(self, observation: Tensor) -> Tensor:
        """Preferences: the probabilities, (S, B, O) -> (S, B, n)."""
        return self.distribution(observation)[0]

    def sample(
        self, observation: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """A one-hot choice (S, B, n), without gradient, and its log-probability (S, B)."""
        _, log = self.distribution(observation)
        chosen = one_hot(_perturbed(log, generator))
        return chosen, (chosen * log).sum(dim=-1)

    def draw(
        self, observation: Tensor, count: int, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """N choices (S, N, n) and log-probabilities (S, N) in one observation each, (S, 1, O).

        The first n are every choice once, in the order of a draw without replacement (Kool et al.
        2019, arXiv 1903.06059). So the first that passes a filter is drawn from the policy as the
        filter leaves it, and weights by probability are exact. What is asked for beyond n repeats
        the last with probability 0.
        """
        _, log = self.distribution(observation)  # (S, 1, n)
        order = _perturbed(log, generator)[:, 0].argsort(dim=-1, descending=True)[:, :count]
        density = log[:, 0].gather(1, order)
        missing = count - order.shape[1]
        if missing > 0:
            order = torch.cat((order, order[:, -1:].expand(-1, missing)), dim=1)
            density = F.pad(density, (0, missing), value=-torch.inf)
        return F.one_hot(order, log.shape[-1]).to(log.dtype), density

    def distribution(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities and their logarithms, (S, B, O) -> 2 x (S, B, n)."""
        log = self.network(self.encode(observation)).log_softmax(dim=-1)
        return log.exp(), log


def _perturbed(log: Tensor, generator: torch.Generator | None) -> Tensor:
    """Log-probabilities with Gumbel noise: in falling order they are draws without replacement."""
    noise = torch.empty_like(log).exponential_(generator=generator).clamp_(min=_TINY)
    return log.detach() - noise.log()


class ChoiceCritic(TwinCritic):
    """A critic that is asked about preferences and judges the choice that they make."""

    def logits_of(self, features: Tensor, action: Tensor) -> Tensor:
        return super().logits_of(features, one_hot(action))

    def risk_alone(self, seed: int, observation: Tensor, action: Tensor) -> Tensor:
        return super().risk_alone(seed, observation, one_hot(action))


class ChoiceDynamics(DynamicsEnsemble):
    """An ensemble that predicts what follows from the choice that preferences make."""

    def forward(self, observation: Tensor, action: Tensor, noise: Tensor) -> Tensor:
        """A sample of the next observation, all (E, N, .)."""
        return super().forward(observation, one_hot(action), noise)


def each_choice(critic: TwinCritic, observation: Tensor) -> Tensor:
    """What K critics say of every choice, as one batch: (S, B, O) -> (S, K, B, n)."""
    features = critic.encode(observation)
    seeds, batch, width = features.shape
    count = critic.sizes.action
    rows = features[:, :, None].expand(-1, -1, count, -1).reshape(seeds, batch * count, width)
    logits = critic.logits_of(rows, every_choice(features, count))
    values = torch.sigmoid(logits) if critic.probability else logits
    return values.view(seeds, critic.critics, batch, count)


def every_choice(rows: Tensor, count: int) -> Tensor:
    """All n one-hot choices for each of the rows (S, B, .), (S, B n, n)."""
    choices = torch.eye(count, device=rows.device)
    return choices.repeat(rows.shape[1], 1).expand(rows.shape[0], -1, -1)


class FilteredChoice(nn.Module):  # type: ignore[misc]  # torch is not followed by mypy
    """Prefers the likeliest choice with a risk of at most eps, or the least risky of all.

    The preference of a choice is (1 + its probability) / 2 if it is safe, else (1 - its risk) / 2:
    in the box, and without a jump that rounding could reach but that at eps.
    """

    def __init__(self, actor: CategoricalActor, critic: TwinCritic, eps: float) -> None:
        """Join an actor and its Q_risk, both of S = 1.

        Args:
            actor: proposes.
            critic: judges, a critic of probabilities.
            eps: risk that is allowed.
        """
        super().__init__()
        self.actor, self.critic, self.eps = actor, critic, eps

    @property
    def scaling(self) -> nn.Module:
        """Of the actor: where its data lie."""
        return self.actor.scaling

    def forward(self, observation: Tensor) -> Tensor:
        """(1, B, O) -> (1, B, n)."""
        risk = each_choice(self.critic, observation).amax(dim=1)  # (1, B, n)
        allowed = risk <= self.eps
        return 0.5 * torch.where(allowed, 1.0 + self.actor(observation), 1.0 - risk)
