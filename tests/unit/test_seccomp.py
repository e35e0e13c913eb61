"""The filter of system calls that an engine is given where its own lets a container make namespaces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medperf.engines.seccomp import without_namespaces, write_filter

PODMANS = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 38,
    "archMap": [],
    "syscalls": [
        {"names": ["clone", "clone3", "read", "unshare", "mount"], "action": "SCMP_ACT_ALLOW", "args": []},
        {"names": ["bpf", "setns"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
        {"names": ["setns"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
    ],
}


def allowed(profile: dict[str, Any]) -> dict[str, Any]:
    """What is allowed, and with which arguments."""
    rules = [rule for rule in profile["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW"]
    return {name: rule.get("args") or [] for rule in rules for name in rule["names"]}


def test_no_way_to_a_namespace_or_a_mount_is_left_and_the_rest_stays() -> None:
    filtered = without_namespaces(PODMANS)
    left = allowed(filtered)
    assert set(left) == {"read", "clone"}
    [condition] = left["clone"]
    # Every flag that makes a namespace must be off.
    assert (condition["value"], condition["valueTwo"], condition["op"]) == (0x7E020000, 0, "SCMP_CMP_MASKED_EQ")
    assert {"names": ["bpf", "setns"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1} in filtered["syscalls"]
    assert {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38} in filtered["syscalls"]
    assert filtered["defaultAction"] == "SCMP_ACT_ERRNO"


def test_a_rule_that_only_writes_a_call_down_lets_it_through_too() -> None:
    rules = [{"names": ["unshare", "read"], "action": "SCMP_ACT_LOG"}]
    left = without_namespaces({**PODMANS, "syscalls": rules})["syscalls"]
    assert left[0] == {"names": ["read"], "action": "SCMP_ACT_LOG"}


def test_what_is_no_such_filter_is_not_taken_for_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a filter"):
        without_namespaces({**PODMANS, "defaultAction": "SCMP_ACT_ALLOW"})
    broken, good = tmp_path / "broken.json", tmp_path / "good.json"
    broken.write_text("{")
    assert write_filter((str(tmp_path / "none.json"), str(broken)), tmp_path / "engines") is None
    good.write_text(json.dumps(PODMANS))
    written = write_filter((str(broken), str(good)), tmp_path / "engines")
    assert written is not None
    assert json.loads(written.read_text()) == without_namespaces(PODMANS)
