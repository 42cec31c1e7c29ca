"""mbrl-lib's PETS agent, asked over a pipe: it needs an environment of its own (see planner_peers).

Reads lines `plan COUNT` and answers each with the thread's and the clock's milliseconds per plan.
Imports nothing of ours, so that any Python that has mbrl and torch can run it.
"""

import itertools
import json
import sys
import time
from types import SimpleNamespace

import mbrl.models
import mbrl.planning
import numpy as np
import omegaconf
import torch

OBSERVATIONS, ACTIONS, NETS, WIDTH, LAYERS, CRITIC = 2, 2, 5, 200, 3, 256
POPULATION, ELITES, ITERATIONS, PARTICLES = 400, 40, 5, 20


def agent(horizon: int) -> mbrl.planning.TrajectoryOptimizerAgent:
    """As mbrl's examples build it, with a critic's risk for a reward."""
    nets = mbrl.models.GaussianMLP(
        OBSERVATIONS + ACTIONS,
        OBSERVATIONS,
        device="cpu",
        num_layers=LAYERS,
        ensemble_size=NETS,
        hid_size=WIDTH,
        activation_fn_cfg=omegaconf.OmegaConf.create({"_target_": "torch.nn.SiLU"}),
        propagation_method="fixed_model",
    )
    model = mbrl.models.OneDTransitionRewardModel(
        nets, target_is_delta=True, normalize=True, learned_rewards=False
    )
    model.set_elite(list(range(NETS)))
    twins = [critic() for _ in range(2)]

    def reward(action: torch.Tensor, observation: torch.Tensor) -> torch.Tensor:
        x = torch.cat((observation, action), dim=-1)
        return -torch.maximum(*(twin(x) for twin in twins)).sigmoid()

    def never(action: torch.Tensor, observation: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(observation), 1, dtype=torch.bool)

    spaces = SimpleNamespace(observation_space=None, action_space=None)
    env = mbrl.models.ModelEnv(spaces, model, never, reward, generator=torch.Generator())
    optimiser = omegaconf.OmegaConf.create(
        {
            "_target_": "mbrl.planning.CEMOptimizer",
            "num_iterations": ITERATIONS,
            "elite_ratio": ELITES / POPULATION,
            "population_size": POPULATION,
            "alpha": 0.1,
            "device": "cpu",
            "lower_bound": "???",
            "upper_bound": "???",
            "return_mean_elites": True,
        }
    )
    made = mbrl.planning.TrajectoryOptimizerAgent(
        optimiser, [-1.0] * ACTIONS, [1.0] * ACTIONS, planning_horizon=horizon
    )
    made.set_trajectory_eval_fn(
        lambda state, plans: env.evaluate_action_sequences(plans, state, PARTICLES)
    )
    return made


def critic() -> torch.nn.Module:
    """One of the twins of Q_risk."""
    widths = (OBSERVATIONS + ACTIONS, CRITIC, CRITIC)
    layers: list[torch.nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(CRITIC, 1)).requires_grad_(False)


def main() -> None:
    """Answer until the pipe closes."""
    torch.set_num_threads(1)
    planner, rng = agent(int(sys.argv[1])), np.random.default_rng(0)
    for line in sys.stdin:
        count = int(line.split()[1])
        began, used = time.perf_counter(), time.thread_time()
        for _ in range(count):
            planner.act(rng.uniform(-1.0, 1.0, OBSERVATIONS))
        cpu, wall = time.thread_time() - used, time.perf_counter() - began
        answer = {"cpu": cpu / count * 1e3, "wall": wall / count * 1e3}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
