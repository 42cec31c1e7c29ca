"""Where an e-stop is kept so that it outlives the run: a file per device, of this user alone.

`$XDG_STATE_HOME/safetypilot/estop-DRIVER-HASH`, else below ~/.local/state. The hash is of what
tells the device apart before anybody has connected to it: the driver and the options in its
`ADDRESS`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from safetypilot.bridge import registry
from safetypilot.bridge.contract import DriverError

_MEND = "the e-stop could not be kept; make it writable, or name another file with `latch`"


def of_device(driver: str, options: Mapping[str, Any]) -> Path:
    """The file that keeps the e-stop of a device, in a folder that is there.

    Raises:
        DriverError: there is no such driver, or the folder cannot be made.
    """
    told = json.dumps(registry.address(driver, options), sort_keys=True, default=str)
    path, colon, kind = driver.rpartition(":")
    if path.endswith(".py"):  # the same one from wherever it is started
        driver = f"{Path(path).resolve()}{colon}{kind}"
    short = re.sub(r"\W+", "-", Path(driver).name)
    name = f"estop-{short}-{sha256(f'{driver} {told}'.encode()).hexdigest()[:12]}"
    return _folder() / name


def check(file: Path) -> None:
    """Tries whether an e-stop can be kept there, before anything moves.

    Raises:
        DriverError: it cannot.
    """
    try:
        with TemporaryFile(dir=file.parent) as probe:
            probe.write(b"stop")
    except OSError as error:
        raise DriverError(f"{file.parent}: {error.strerror}: {_MEND}") from None


def _folder() -> Path:
    given = os.environ.get("XDG_STATE_HOME", "")
    try:
        base = Path(given) if os.path.isabs(given) else Path.home() / ".local" / "state"
        folder = base / "safetypilot"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)  # nobody else may end an e-stop
    except OSError as error:
        raise DriverError(f"{error.filename}: {error.strerror}: {_MEND}") from None
    except RuntimeError as error:
        raise DriverError(f"{error}: {_MEND}") from None
    return folder
