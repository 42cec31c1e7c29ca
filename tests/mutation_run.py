"""Mutates the shield and the limiter and counts what their tests notice: `make mutation`.

    python -m tests.mutation_run {shield,limiter} [--jobs 2] [--least 0.95]

Everything happens in temporary copies, so that the checkout can be used meanwhile. Exits with 1
below the least score. mutation_<name>.md records the last run.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import TestOutcome, WorkerOutcome, WorkResult

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
# Most mutants live for half a second, and that is pytest starting: no plugins, plain asserts.
PYTEST = "-m pytest -x -q --import-mode=importlib --assert=plain -p no:cacheprovider"


@dataclass(frozen=True)
class Target:
    """What is mutated, and by which tests it is tried.

    Attributes:
        package: its folder.
        modules: of that, what the tests need; the mutated ones are in the configuration.
        tests: below tests/<package>, those that kill most first.
    """

    name: str
    package: str
    modules: tuple[str, ...]
    tests: tuple[str, ...]

    @property
    def config(self) -> str:
        return f"mutation_{self.name}.toml"

    def lay_out(self, folder: Path) -> None:
        """The package for real, since the editable install would import the checkout."""
        package = folder / "safetypilot" / self.package
        package.mkdir(parents=True)
        for name in ("__init__.py", *self.modules):
            shutil.copy(ROOT / self.package / name, package)
        shutil.copy(HERE / self.config, folder)
        for name in self.tests:
            shutil.copy(HERE / self.package / name, folder)
        (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
        calls = [
            f"{sys.executable} {PYTEST} -k 'not test_speed' {name} || exit 1" for name in self.tests
        ]
        (folder / "run_tests.sh").write_text("\n".join(calls))

    def check(self, folder: Path) -> None:
        """The tests must pass unmutated, and import the copy."""
        module = f"safetypilot.{self.package}.{Path(self.modules[-1]).stem}"
        asked = f"import {module} as m; print(m.__file__)"
        imported = run(folder, sys.executable, "-c", asked).strip()
        if not Path(imported).is_relative_to(folder):
            raise RuntimeError(f"the tests would import {imported}, not the copy in {folder}")
        run(folder, "sh", "run_tests.sh")


TARGETS = {
    target.name: target
    for target in (
        Target("shield", "policies", ("shield.py",),
               ("test_shield.py", "test_shield_rates.py", "test_shield_exhaustive.py")),
        Target("limiter", "bridge", ("contract.py", "axis.py", "limits.py"),
               ("test_axis.py", "test_limits.py")),
    )
}  # fmt: skip


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


def prepare(target: Target, folder: Path, shard: int, shards: int) -> None:
    target.lay_out(folder)
    target.check(folder)
    tools = Path(sys.executable).parent
    run(folder, str(tools / "cosmic-ray"), "init", target.config, "session.sqlite")
    run(folder, str(tools / "cr-filter-operators"), "session.sqlite", target.config)
    with use_db(folder / "session.sqlite", WorkDB.Mode.open) as database:
        pending = sorted(database.pending_work_items, key=lambda item: str(item.mutations))
        for index, item in enumerate(pending):
            if index % shards != shard:
                database.set_result(item.job_id, WorkResult(WorkerOutcome.SKIPPED))


def mutate(target: Target, folder: Path, shard: int, shards: int) -> tuple[int, int, list[str]]:
    """Return killed, survived, and the diffs of the survivors."""
    prepare(target, folder, shard, shards)
    tool = str(Path(sys.executable).parent / "cosmic-ray")
    run(folder, "nice", tool, "exec", target.config, "session.sqlite")
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
    parser.add_argument("what", choices=TARGETS)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--least", type=float, default=0.95)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        folders = [Path(folder).resolve() / str(shard) for shard in range(arguments.jobs)]
        with ThreadPoolExecutor(arguments.jobs) as pool:
            parts = list(
                pool.map(
                    partial(mutate, TARGETS[arguments.what], shards=arguments.jobs),
                    folders,
                    range(arguments.jobs),
                )
            )
    killed, survived = (sum(part[column] for part in parts) for column in (0, 1))  # type: ignore[misc]
    for _, _, diffs in parts:
        sys.stdout.writelines(f"{diff}\n\n" for diff in diffs)
    score = killed / max(1, killed + survived)
    sys.stdout.write(f"{killed} killed, {survived} survived: score {score:.1%}\n")
    return 0 if score >= arguments.least else 1


if __name__ == "__main__":
    sys.exit(main())
