"""How far another host's clock is from ours, with a bound that holds whatever the network does.

Every question that comes back bounds the difference from both sides: the other host cannot have
read its clock before we asked, nor after its answer arrived. The bounds of many questions are laid
over one another, so one quick way in each direction is enough, on different questions. Between two
questions they grow by what two clocks may part; the middle follows the drift.
"""

from __future__ import annotations

from collections import deque
from math import ceil
from typing import Any

from safetypilot.nodes.kernel.health import Histogram

DRIFT = 500e-6  # two clocks part no faster, s/s: crystals stay below 100 ppm, NTP slews by 500
_RECENT = 64  # round trips of which the shortest counts


class ClockEstimate:
    """What to add to the other host's stamps to have our own, CLOCK_MONOTONIC ns.

    Attributes:
        jumps: how often a question contradicted those before it: a clock was set, or drifted faster
            than it may; the estimate then begins anew.
    """

    def __init__(self, drift: float = DRIFT) -> None:
        self._drift = drift
        self._low = self._high = 0
        self._at_ns = 0  # our time, when the bounds were exactly these
        self._recent: deque[int] = deque(maxlen=_RECENT)
        self._trips = Histogram()
        self.samples = self.jumps = 0

    def add(self, asked_ns: int, heard_ns: int, answered_ns: int, back_ns: int) -> None:
        """Takes in a question that has come back.

        Args:
            asked_ns, back_ns: when it left and came back, by our clock.
            heard_ns, answered_ns: when the other host took it and sent the answer, by its clock.
        """
        trip = (back_ns - asked_ns) - (answered_ns - heard_ns)
        parted = self._apart(back_ns - asked_ns)
        if back_ns < asked_ns or answered_ns < heard_ns or trip < -parted:
            self.jumps += 1  # one of the clocks went back in between
            return
        trip = max(0, trip)  # their clock is the quicker one
        self._recent.append(trip)
        self._trips.add(trip)
        low = asked_ns - heard_ns - parted
        high = back_ns - answered_ns
        if self.samples:
            widened = self._apart(back_ns - self._at_ns)
            both = max(low, self._low - widened), min(high, self._high + widened)
            if both[0] <= both[1]:
                low, high = both
            else:
                self.jumps += 1
        self._low, self._high, self._at_ns = low, high, back_ns
        self.samples += 1

    def _apart(self, time_ns: int) -> int:
        """How far two clocks may part in a time."""
        return ceil(self._drift * max(0, time_ns))

    @property
    def known(self) -> bool:
        return self.samples > 0

    @property
    def offset_ns(self) -> int:
        """Ours minus theirs, best guess; wrong by at most `bound_ns`."""
        return (self._low + self._high) // 2

    def bound_ns(self, now_ns: int) -> int:
        """How wrong the offset may be by now."""
        return (self._high - self._low) // 2 + 1 + self._apart(now_ns - self._at_ns)

    @property
    def round_trip_ns(self) -> int:
        """The shortest of the recent round trips: what the way takes when nothing is in it."""
        return min(self._recent, default=0)

    def summary(self, now_ns: int) -> dict[str, Any]:
        if not self.known:
            return {"offset_ms": None, "uncertainty_ms": None, "round_trip_us": None}
        return {
            "offset_ms": round(self.offset_ns / 1e6, 3),
            "uncertainty_ms": round(self.bound_ns(now_ns) / 1e6, 3),
            "round_trip_us": {
                "shortest": round(self.round_trip_ns / 1e3, 1), **self._trips.summary()
            },
            "clock_jumps": self.jumps,
        }  # fmt: skip
