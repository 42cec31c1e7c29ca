"""Mutates policies/shield.py and counts what its tests notice: `make mutation`, some ten minutes.

    python -m tests.policies.mutation_run [--jobs 2] [--least 0.95]

Everything happens in temporary copies, so that the checkout can be used meanwhile. Exits with 1
below the least score. shield_mutation.md records the last run.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import TestOutcome, WorkerOutcome, WorkResult

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CONFIG = "shield_cosmic_ray.toml"
TESTS = ("test_shield.py", "test_shield_rates.py", "test_shield_exhaustive.py")
# Most mutants live for half a second, and that is pytest starting: no plugins, plain asserts.
PYTEST = "-m pytest -x -q --import-mode=importlib --assert=plain -p no:cacheprovider"
RUN_TESTS = "".join(
    f"{sys.executable} {PYTEST} -k 'not speed' {name} || exit 1\n" for name in TESTS
)


def make_copy(folder: Path) -> None:
    """Lay out the package for real, since the editable install would import the checkout."""
    package = folder / "safetypilot" / "policies"
    package.mkdir(parents=True)
    for name in ("__init__.py", "shield.py"):
        shutil.copy(ROOT / "policies" / name, package)
    for name in (CONFIG, *TESTS):
        shutil.copy(HERE / name, folder)
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    (folder / "run_tests.sh").write_text(RUN_TESTS)


def run(folder: Path, *command: str) -> str:
    # A mutant may have the size and the second of the last one, which a .pyc cannot tell apart.
    changes = {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    environment = os.environ | changes | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(command)} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        )
    return done.stdout


def check_copy(folder: Path) -> None:
    """The tests must pass unmutated, and import the copy."""
    imported = run(
        folder,
        sys.executable,
        "-c",
        "from safetypilot.policies import shield as s; print(s.__file__)",
    )
    if not Path(imported.strip()).is_relative_to(folder):
        raise RuntimeError(f"the tests would import {imported.strip()}, not the copy in {folder}")
    run(folder, "sh", "run_tests.sh")


def prepare(folder: Path, shard: int, shards: int) -> None:
    make_copy(folder)
    check_copy(folder)
    tools = Path(sys.executable).parent
    run(folder, str(tools / "cosmic-ray"), "init", CONFIG, "session.sqlite")
    run(folder, str(tools / "cr-filter-operators"), "session.sqlite", CONFIG)
    with use_db(folder / "session.sqlite", WorkDB.Mode.open) as database:
        pending = sorted(database.pending_work_items, key=lambda item: str(item.mutations))
        for index, item in enumerate(pending):
            if index % shards != shard:
                database.set_result(item.job_id, WorkResult(WorkerOutcome.SKIPPED))


def mutate(folder: Path, shard: int, shards: int) -> tuple[int, int, list[str]]:
    """Return killed, survived, and the diffs of the survivors."""
    prepare(folder, shard, shards)
    tool = str(Path(sys.executable).parent / "cosmic-ray")
    run(folder, "nice", tool, "exec", CONFIG, "session.sqlite")
    killed, survivors = 0, []
    with use_db(folder / "session.sqlite", WorkDB.Mode.open) as database:
        for _, result in database.results:
            if result.worker_outcome is WorkerOutcome.SKIPPED:
                continue
            if result.test_outcome is TestOutcome.SURVIVED:
                survivors.append(result.diff or "(no diff)")
            elif result.worker_outcome is WorkerOutcome.NORMAL:
                killed += 1
            else:
                raise RuntimeError(f"a mutant could not be tried: {result}")
    return killed, len(survivors), survivors


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--least", type=float, default=0.95)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="shield-mutation-") as folder:
        folders = [Path(folder).resolve() / str(shard) for shard in range(arguments.jobs)]
        with ThreadPoolExecutor(arguments.jobs) as pool:
            parts = list(
                pool.map(mutate, folders, range(arguments.jobs), [arguments.jobs] * arguments.jobs)
            )
    killed, survived = (sum(part[column] for part in parts) for column in (0, 1))  # type: ignore[misc]
    for _, _, diffs in parts:
        sys.stdout.writelines(f"{diff}\n\n" for diff in diffs)
    score = killed / max(1, killed + survived)
    sys.stdout.write(f"{killed} killed, {survived} survived: score {score:.1%}\n")
    return 0 if score >= arguments.least else 1


if __name__ == "__main__":
    sys.exit(main())
