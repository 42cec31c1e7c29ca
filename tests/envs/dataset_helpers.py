"""Small data sets for tests, and ways of spoiling them on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from safetypilot.envs import dataset


def transitions(
    lengths: tuple[int, ...] = (3, 1, 4),
    observation_size: int = 2,
    action_size: int = 2,
    seed: int = 0,
    kind: Any = np.float32,
) -> dict[str, np.ndarray]:
    """Episodes of these lengths: the first violates at its end, the others are cut short."""
    generator = np.random.default_rng(seed)
    episodes = []
    for number, steps in enumerate(lengths):
        values = generator.integers(0, 256, (steps + 1, observation_size)).astype(kind)
        last = np.arange(steps) == steps - 1
        episodes.append(
            {
                "observation": values[:-1],
                "action": generator.uniform(-1, 1, (steps, action_size)).astype(np.float32),
                "cost": (last & (number == 0)).astype(np.float32),
                "reward": generator.standard_normal(steps).astype(np.float32),
                "next_observation": values[1:],
                "terminated": last & (number == 0),
                "truncated": last & (number != 0),
            }
        )
    return {name: np.concatenate([e[name] for e in episodes]) for name in episodes[0]}


def saved(folder: Path, name: str = "test-v0", **options: Any) -> Path:
    """A good data set of three episodes and eight rows."""
    dataset.save(folder / name, transitions(**options), dataset.About(env="safetypilot/Maze-v0"))
    return folder / name


def main_file(path: Path) -> Path:
    return path / "data" / "main_data.hdf5"


def edit_metadata(path: Path, **changes: Any) -> None:
    """Change entries of metadata.json; None removes one."""
    file = path / "data" / "metadata.json"
    raw = json.loads(file.read_text())
    raw.update(changes)
    file.write_text(json.dumps({key: value for key, value in raw.items() if value is not None}))


def replace(path: Path, name: str, values: Any) -> None:
    """Put other values in the place of a column; None removes it."""
    import h5py

    with h5py.File(main_file(path), "a") as file:
        del file[name]
        if values is not None:
            file.create_dataset(name, data=values)
