"""No test leaves an e-stop behind in the home of whoever runs it."""

from itertools import count
from pathlib import Path

import pytest

_NUMBERS = count()


@pytest.fixture(autouse=True)
def state_home(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where e-stops of devices that are not simulated are kept; made by who needs it."""
    folder = tmp_path_factory.getbasetemp() / f"state-home-{next(_NUMBERS)}"
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    return folder
