"""The conformance kit: it passes what is right, and finds what is wrong where it is wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from math import inf, nan
from pathlib import Path
from time import monotonic, monotonic_ns, sleep

import pytest

from safetypilot.bridge.calibration import Calibration
from safetypilot.bridge.conformance import host, suite
from safetypilot.bridge.conformance.device import Device
from safetypilot.bridge.conformance.session import farthest
from safetypilot.bridge.conformance.verdict import Failed, refused
from safetypilot.bridge.contract import DriverError

MUTANTS = Path(__file__).with_name("conformance_mutants.py")
NAMES = [suite.name(check) for check in suite.CHECKS]
BY_NAME = dict(zip(NAMES, suite.CHECKS, strict=True))
SKELETON = "safetypilot.bridge.template.skeleton:SkeletonDriver"
# Mutant -> the checks that find it, and no other does: its docstring says so.
EXPECTED = {
    name: checks.split(", ")
    for name, checks in re.findall(
        r'^class (\w+)\(\w+\):\n    """\(([\w, ]+)\)', MUTANTS.read_text(), re.M
    )
}
QUICK = (
    "SleepyWatchdog", "Nameless", "ConfigureEnables", "StaleAsFresh", "AcceptsNaN", "Indexes",
    "Forgets", "StopsOnce", "ActivatesUnconfigured", "ResetsBlindly", "Hoards",
)  # fmt: skip


def mutant(kind: str) -> suite.Subject:
    return suite.Subject(f"{MUTANTS}:{kind}", cycles=400)


def failed(outcomes: list[suite.Outcome]) -> dict[str, str]:
    return {one.check: one.seen for one in outcomes if one.verdict is suite.Verdict.FAILED}


# The driver that is the template.


@pytest.fixture(scope="module")
def bench() -> Iterator[suite.Bench]:
    with suite.bench(suite.Subject(SKELETON, cycles=300)) as made:
        yield made


@pytest.mark.integration
@pytest.mark.parametrize("check", suite.CHECKS, ids=suite.name)
def test_the_template_conforms(check: suite.Check, bench: suite.Bench) -> None:
    outcome = suite.run(check, bench)
    if outcome.verdict is suite.Verdict.SKIPPED:
        assert outcome.seen.startswith(("the driver asks for no calibration", "others had the CPU"))
        return
    assert outcome.verdict is suite.Verdict.PASSED, outcome.seen
    assert outcome.seen and outcome.title.endswith(".")


# Drivers that are wrong.


def test_every_check_has_a_mutant() -> None:
    found = {name for names in EXPECTED.values() for name in names}
    assert found <= set(NAMES)
    assert set(NAMES) - found == {"foreign_calibration", "time_that_stands_moves_nothing"}


@pytest.mark.integration
@pytest.mark.parametrize("kind", QUICK)
def test_what_is_wrong_is_found(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "_TRIES", 1)  # it is to fail, so it need not be tried again
    with suite.bench(mutant(kind)) as bench:
        outcomes = [suite.run(BY_NAME[name], bench) for name in EXPECTED[kind]]
    assert set(failed(outcomes)) == set(EXPECTED[kind]), outcomes


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.parametrize("kind", list(EXPECTED))
def test_what_is_wrong_is_found_and_nothing_else(kind: str) -> None:
    with suite.bench(mutant(kind)) as bench:
        outcomes = [suite.run(check, bench) for check in suite.CHECKS]
    busy = {one.check for one in outcomes if one.seen.startswith("others had the CPU")}
    assert set(failed(outcomes)) == set(EXPECTED[kind]) - busy, failed(outcomes)


@pytest.mark.integration
def test_of_a_calibration_the_kit_checks_whose_it_is() -> None:
    own = Calibration({"serial": "sim-1"}, {"zero": [0.1, 0.2]})
    for calibration, verdict, seen in (
        (own, "passed", "belongs to serial 'of another'"),
        (Calibration({"serial": "other"}, own.values), "skipped", "belongs to serial 'other'"),
        (Calibration(), "skipped", "it needs a calibration with zero"),
    ):
        kind = f"{MUTANTS}:Calibrated"
        with suite.bench(suite.Subject(kind, calibration=calibration)) as bench:
            outcome = suite.run(BY_NAME["foreign_calibration"], bench)
        assert (outcome.verdict, seen in outcome.seen) == (verdict, True), outcome


# Without a device that the kit knows.


def test_a_robot_that_may_be_real_is_not_touched_unless_told_to() -> None:
    with suite.bench(suite.Subject(f"{MUTANTS}:Unknown")) as bench:
        outcomes = [suite.run(check, bench) for check in suite.CHECKS]
    verdicts = {one.check: one.verdict for one in outcomes}
    passed = {name for name, verdict in verdicts.items() if verdict is suite.Verdict.PASSED}
    assert passed == set(NAMES[:4])  # what is declared
    assert set(verdicts.values()) == {suite.Verdict.PASSED, suite.Verdict.SKIPPED}
    reasons = {one.seen for one in outcomes[4:] if one.check != "foreign_calibration"}
    assert len(reasons) == 1 and "--hardware" in reasons.pop()


@pytest.mark.integration
def test_hardware_is_checked_but_for_what_needs_its_log_or_its_death(tmp_path: Path) -> None:
    device = Device(f"{sys.executable} -P {MUTANTS} Device", tmp_path)
    device.start()
    options = {"port": device.details["port"]}
    subject = suite.Subject(f"{MUTANTS}:Unknown", options, hardware=True)
    names = ("connect_identifies", "too_late_is_refused", "stays_stopped", "silence_damps",
             "connect_to_nothing", "not_finite_is_refused", "wrong_length_is_refused")  # fmt: skip
    with suite.bench(subject) as bench:
        outcomes = [suite.run(BY_NAME[name], bench) for name in names]
    device.stop()
    assert [one.verdict for one in outcomes] == ["passed"] * 3 + ["skipped"] * 4, outcomes


# The parts of the kit.


def test_refused_is_a_driver_error_and_nothing_else() -> None:
    def refuse() -> None:
        raise DriverError("no")

    assert str(refused("it", refuse)) == "no"
    with pytest.raises(Failed, match="it was accepted"):
        refused("it", lambda: None)
    with pytest.raises(ZeroDivisionError):
        refused("it", lambda: 1 // 0)


def test_a_call_that_does_not_return_is_ended_whatever_it_waits_for() -> None:
    lock = threading.Lock()
    lock.acquire()
    for wait in (lambda: sleep(30), lock.acquire, lambda: threading.Event().wait(30)):
        since = monotonic()
        with pytest.raises(Failed, match=r"the call had not returned after 0\.05 s"):
            with host.within(0.05, "the call"):
                wait()
        assert monotonic() - since < 20
    with host.within(30, "the call"):
        pass
    assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL


def test_how_long_others_had_the_cpu_is_known() -> None:
    assert 0 <= host.starved_s(os.getpid()) < 3600
    assert host.starved_s(2**22 + 1) == 0  # nobody


def test_a_number_that_is_missing_or_none_is_infinitely_far() -> None:
    assert farthest((1.0, 2.0), (1.5, 2.0)) == 0.5
    for here in ((1.0,), (nan, 2.0), (inf, 2.0)):
        assert farthest(here, (1.0, 2.0)) == inf


DEVICE = """
import json, sys, time
log = open(sys.argv[-1], "a", buffering=1)
print(json.dumps({"ready": True, "port": 7}), flush=True)
while True:
    log.write(json.dumps({"at_ns": time.monotonic_ns(), "event": "tick"}) + "\\n")
    time.sleep(0.005)
"""


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    script = tmp_path / "device.py"
    script.write_text(DEVICE)
    made = Device(f"{sys.executable} {script}", tmp_path)
    yield made
    made.stop()


@pytest.mark.integration
def test_a_device_can_be_started_frozen_and_killed(device: Device) -> None:
    assert device.pid() is None
    device.start()
    first = device.pid()
    device.start()  # it lives
    assert device.pid() == first and device.details == {"ready": True, "port": 7}
    assert device.wait_for(("tick",), monotonic_ns(), 10.0)
    assert device.wait_for(("tock",), 0, 0.05) is None
    device.freeze()
    sleep(0.05)
    assert device.wait_for(("tick",), monotonic_ns(), 0.1) is None
    device.thaw()
    assert device.wait_for(("tick",), monotonic_ns(), 10.0)
    device.freeze()
    device.kill()
    assert device.pid() is None
    device.start()
    assert device.pid() not in (None, first)
    assert device.wait_for(("tick",), monotonic_ns(), 10.0)


@pytest.mark.integration
def test_a_device_dies_with_the_kit(tmp_path: Path) -> None:
    code = (
        "import pathlib, signal, sys; from safetypilot.bridge.conformance.device import Device; "
        f"made = Device('{sys.executable} -P {MUTANTS} Device', pathlib.Path('{tmp_path}')); "
        "made.start(); print(made.pid(), flush=True); signal.pause()"
    )
    kit = subprocess.Popen([sys.executable, "-P", "-c", code], stdout=subprocess.PIPE, text=True)
    assert kit.stdout is not None
    with kit.stdout as said:
        device = int(said.readline())
    kit.kill()
    kit.wait()
    end = monotonic() + 20
    while Path(f"/proc/{device}").exists() and monotonic() < end:
        if "Z" in Path(f"/proc/{device}/stat").read_text().split()[2]:
            break
        sleep(0.01)
    last = (tmp_path / "events-1.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["event"] == "ended"


@pytest.mark.integration
@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("/nowhere/device", "No such file"),
        (f"{sys.executable} -c 'raise SystemExit(\"no robot here\")'", "no robot here"),
        (f"{sys.executable} -c 'print(1)'", "it says: nothing"),
    ],
)
def test_a_device_that_does_not_get_ready_is_told(command: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(DriverError, match=told):
        Device(command, tmp_path).start()


# What the newcomer reads.


def test_the_page_lists_every_check_with_what_it_asks_for() -> None:
    page = (Path(__file__).parents[2] / "bridge" / "README.md").read_text()
    listed = re.findall(r"^\| `(\w+)` \| (.+) \|$", page, re.M)
    assert listed[-len(NAMES) :] == [(suite.name(one), suite.title(one)) for one in suite.CHECKS]
