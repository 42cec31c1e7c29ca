"""What doctor says of real time: as this user, and as one who may do nothing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from safetypilot.launch import doctor_realtime
from safetypilot.nodes.kernel import schedule

NAMES = [
    "policy: fifo", "real-time throttling", "lock_memory", "timer_slack_us", "fixed_addresses",
    "cpus to pin to", "cpu governor", "kernel preemption",
]  # fmt: skip
AS_NOBODY = """
import json, os, resource
from safetypilot.launch import doctor_realtime
resource.setrlimit(resource.RLIMIT_RTPRIO, (0, 0))
resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
print(json.dumps([finding._asdict() for finding in doctor_realtime.examine()]))
"""


def test_it_looks_at_every_setting_and_changes_nothing() -> None:
    refused = schedule.try_fifo(3)
    findings = {finding.name: finding for finding in doctor_realtime.examine()}
    assert list(findings) == NAMES
    assert findings["policy: fifo"].value.startswith("refused" if refused else "allowed")
    assert findings["lock_memory"].value.startswith("allowed" if schedule.may_lock() else "refused")
    assert schedule.try_fifo(3) == refused


@pytest.mark.integration
def test_who_may_do_nothing_is_told_what_it_takes() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", AS_NOBODY], capture_output=True, text=True, check=True
    )
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)}
    assert findings["policy: fifo"]["level"] == findings["lock_memory"]["level"] == "note"
    assert "`USER - rtprio 99` in /etc/security/limits.conf" in findings["policy: fifo"]["advice"]
    assert "CAP_IPC_LOCK" in findings["lock_memory"]["advice"]
    assert findings["policy: fifo"]["value"] == "refused, rtprio limit 0"
