"""Makes the helpers beside the tests importable under importlib mode, and lands every flight."""

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from flights import Flight


@pytest.fixture(autouse=True)
def runtime_base(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Sockets lie in a short directory of their own, so that no other run is ever seen."""
    tmp_path_factory.getbasetemp()  # pytest's own stays where it is
    with tempfile.TemporaryDirectory(prefix="sp", dir="/tmp", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield


@pytest.fixture
def fly(tmp_path: Path) -> Iterator[Callable[..., Flight]]:
    """Starts a graph in the background; whatever the test does, it has ended afterwards."""
    flights: list[Flight] = []

    def start(*arguments: str) -> Flight:
        flights.append(Flight(tmp_path / f"run{len(flights)}"))
        return flights[-1].start(*arguments)

    yield start
    for flight in flights:
        flight.close()
