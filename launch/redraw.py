"""Shows figures again and again: in place on a terminal, else as lines or as a JSON object each."""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import monotonic, sleep
from typing import Any

from safetypilot.launch.cli_common import print_json, print_line

_LOOK_S = 0.05


def repeat(
    take: Callable[[], dict[str, Any]],
    text: Callable[[dict[str, Any]], str],
    *,
    every_s: float,
    count: int | None,
    json: bool,
    look: Callable[[], bool],
) -> bool:
    """Shows what `take` gives every so often, until Ctrl-C, `count` times, or the run has ended.

    Args:
        take: the figures now.
        text: figures as lines.
        look: called twenty times a second; False when the run has ended.

    Returns:
        False if the run ended before all was shown.
    """
    shown, screen = 0, None
    if sys.stdout.isatty() and not json and count != 1:
        from rich.live import Live

        screen = Live(auto_refresh=False, screen=False)
        screen.start()
    try:
        while count is None or shown < count:
            goes_on = _wait(every_s, look)
            _show(take(), text, screen, json)
            shown += 1
            if not goes_on:
                return count is not None and shown >= count
    except KeyboardInterrupt:
        pass  # the way to end it
    finally:
        if screen is not None:
            screen.stop()
    return True


def _wait(seconds: float, look: Callable[[], bool]) -> bool:
    end = monotonic() + seconds
    while monotonic() < end:
        if not look():
            return False
        sleep(_LOOK_S)
    return True


def _show(
    figures: dict[str, Any], text: Callable[[dict[str, Any]], str], screen: Any, json: bool
) -> None:
    if json:
        print_json(figures, line=True)
    elif screen is None:
        print_line(text(figures))
    else:
        from rich.text import Text

        view = Text(text(figures) + "\nCtrl-C ends", no_wrap=True, overflow="ellipsis")
        screen.update(view, refresh=True)
