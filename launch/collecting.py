"""Carries out `safetypilot collect`: finds who flies, steps the environment, writes the data."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetypilot.envs import costs, dataset, dataset_collect, offline, registry
from safetypilot.envs.dataset_collect import Plan, Policy, World
from safetypilot.launch import files
from safetypilot.launch.cli_common import InputError, choose

RECIPES = ("recipe", "demonstrations")
SIZE = 10_000  # rows, as published, if nobody says how much

Report = Callable[[int, int, str], None]  # done, of how many, of what

# What a person can cause; each says what to do about it.
MISTAKES = (
    dataset.DatasetError,
    costs.UnknownCostError,
    registry.UnknownEnvironmentError,
    registry.UnsupportedEnvironmentError,
)


@dataclass(frozen=True)
class Order:
    """What was asked for.

    Attributes:
        env: a short name of ours or a Gymnasium id.
        out: the data set's directory.
        shares: who flies -> which part of the rows.
        plan: how much.
        cost: of envs/costs.py.
        force: replace a data set that is there.
        append: add to one that is there.
    """

    env: str
    out: Path
    shares: dict[str, float]
    plan: Plan
    cost: str = "info"
    force: bool = False
    append: bool = False

    @property
    def policy(self) -> str:
        if len(self.shares) == 1:
            return next(iter(self.shares))
        return ", ".join(f"{word}={share:g}" for word, share in self.shares.items())

    def writer(self, world: World, **made: Any) -> dataset.Writer:
        about = world.about({"policy": self.policy, "seed": self.plan.seed, **made})
        return dataset.Writer(self.out, about, force=self.force, append=self.append)


def carry_out(order: Order, report: Report, stopped: Callable[[], bool]) -> int:
    """The number of rows written; if stopped early, those of whole episodes, or none.

    Raises:
        InputError: with the mend.
    """
    try:
        with closing(World(order.env, order.cost)) as world:
            if order.policy in RECIPES:
                return _by_recipe(order, world, report, stopped)
            return _by_flying(order, world, report, stopped)
    except costs.MissingCostError as error:
        raise InputError(f"{error} (--cost termination)") from None
    except MISTAKES as error:
        raise InputError(str(error)) from None


def parse_shares(text: str) -> dict[str, float]:
    """`random=0.5,expert=0.5` as a mapping."""
    shares: dict[str, float] = {}
    for part in text.split(","):
        word, _, number = part.strip().rpartition("=")
        try:
            share = float(number)
        except ValueError:
            share = 0.0
        if not word or word in shares or not 0 < share < float("inf"):
            raise InputError(
                f"--mix {text}: {part!r} should be POLICY=SHARE, once per policy and above 0, as "
                "in random=0.5,expert=0.5"
            )
        shares[word] = share
    return shares


def _by_flying(order: Order, world: World, report: Report, stopped: Callable[[], bool]) -> int:
    plan = order.plan
    if plan.rows is None and not (plan.episode_steps or world.episode_steps):
        raise InputError(
            f"{world.id} has no time limit, an episode may never end: give --episode-steps"
        )
    policies = [(share, _policy(word, order, world)) for word, share in order.shares.items()]
    made = {"noise": plan.noise, "cost": order.cost, "episode_steps": plan.episode_steps}
    writer = order.writer(world, **made)
    try:
        with writer:
            for episode in dataset_collect.collect(world, policies, plan, stopped):
                writer.add(episode)
                if plan.rows is not None:
                    report(writer.rows, plan.rows, "rows")
                elif plan.episodes is not None:
                    report(writer.episodes, plan.episodes, "episodes")
    except dataset.EmptyDatasetError:  # stopped within the first episode
        return 0
    except (dataset.BadValueError, dataset.ShapeError) as error:
        mend = f"; --episodes {writer.episodes} ends before it" if writer.episodes else ""
        raise InputError(f"{error}{mend}; nothing was written") from None
    return writer.rows


def _by_recipe(order: Order, world: World, report: Report, stopped: Callable[[], bool]) -> int:
    plan, size = order.plan, order.plan.rows or SIZE
    for option, value in (
        ("--episodes", plan.episodes),
        ("--episode-steps", plan.episode_steps),
        ("--noise", plan.noise),
        ("--cost", order.cost != "info"),
    ):
        if value:
            raise InputError(
                f"--policy {order.policy} fixes how it is made: {option} does not go with it, "
                "--size and --seed do"
            )
    order.writer(world)  # whether it may be written, before the work

    def progress(done: int, total: int) -> None:
        if stopped():
            raise _Stopped
        report(done, total, "steps")

    make = offline.task_data if order.policy == "demonstrations" else offline.offline_data
    try:
        data = make(order.env, size, plan.seed, progress=progress)
    except _Stopped:
        return 0
    except ValueError as error:
        raise InputError(str(error)) from None
    # These recipes terminate at a violation or at the goal, and nowhere else.
    data["success"] = data["terminated"] & (data["cost"] == 0)
    with order.writer(world, size=size) as writer:
        dataset.write(writer, data)
    return writer.rows


class _Stopped(Exception):
    """A person stopped a recipe; there is nothing to keep of it."""


def _policy(word: str, order: Order, world: World) -> Policy:
    """Who flies, by what the person calls it."""
    if word.endswith(".onnx"):
        return _from_file(word, order.env, world)
    choose("policy", word, ("random", "expert", *RECIPES, "FILE.onnx"))
    if word == "random":
        return dataset_collect.random_policy(world, order.plan.seed)
    if word != "expert":
        raise InputError(f"{word} cannot be mixed; collect it alone, the other with --append")
    try:
        return offline.expert(order.env)
    except ValueError as error:
        raise InputError(f"{error}; or give an .onnx file") from None


def _from_file(word: str, env: str, world: World) -> Policy:
    from safetypilot.models import contract, runtime
    from safetypilot.nodes.kernel.interface import Interface
    from safetypilot.policies.task import TaskPolicy

    try:
        model = runtime.load(files.resolve(word, Path.cwd()))
        plant = Interface.from_dict(registry.describe(env))
        contract.check(model.contract, "task_policy", plant)
    except runtime.ModelError as error:
        raise InputError(str(error) if word in str(error) else f"{word}: {error}") from None
    pilot = TaskPolicy(model)
    return lambda observation: pilot.act(world.flat(observation))
