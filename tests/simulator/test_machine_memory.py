import subprocess
import sys

import pytest

from simulator.machine_memory import MemoryLimit, control_group_bytes, least_limit, this_process

GIB = 2**30


def test_the_least_limit_holds():
    assert least_limit(8 * GIB, None, None) == MemoryLimit(8 * GIB, "this machine has")
    assert least_limit(8 * GIB, 4 * GIB, None).size_bytes == 4 * GIB
    assert "control group" in least_limit(8 * GIB, 4 * GIB, None).reason
    assert least_limit(8 * GIB, 16 * GIB, 3 * GIB).size_bytes == 3 * GIB
    assert "ulimit -v" in least_limit(8 * GIB, 16 * GIB, 3 * GIB).reason
    assert least_limit(8 * GIB, 16 * GIB, 9 * GIB).reason == "this machine has"


@pytest.fixture
def groups(tmp_path):
    """Writes files of control groups: the process's membership, and limits by folder."""

    def written(membership, limits):
        (tmp_path / "membership").write_text(membership)
        for place, limit in limits.items():
            file = tmp_path / "cgroup" / place
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{limit}\n")
        return control_group_bytes(tmp_path / "cgroup", tmp_path / "membership")

    return written


def test_a_group_of_version_2_has_its_own_limit_or_that_of_one_above(groups):
    limits = {"memory.max": "max", "jobs/memory.max": 5 * GIB, "jobs/one/memory.max": "max"}
    assert groups("0::/jobs/one\n", limits) == 5 * GIB
    assert groups("0::/jobs/one\n", limits | {"jobs/one/memory.max": 2 * GIB}) == 2 * GIB
    assert groups("0::/jobs/one\n", limits | {"memory.max": GIB}) == GIB
    assert groups("0::/elsewhere\n", {"memory.max": "max"}) is None


def test_in_a_container_the_own_group_is_at_the_mount(groups):
    assert groups("0::/\n", {"memory.max": 3 * GIB}) == 3 * GIB
    assert groups("0::/../../system.slice/one\n", {"memory.max": 3 * GIB}) == 3 * GIB


def test_a_group_of_version_1_is_under_the_memory_controller(groups):
    membership = "11:cpu,cpuacct:/jobs\n9:memory:/jobs\n1:name=systemd:/jobs\n"
    limits = {
        "memory/memory.limit_in_bytes": 9223372036854771712,  # what stands there without a limit
        "memory/jobs/memory.limit_in_bytes": 6 * GIB,
        "cpu/jobs/memory.limit_in_bytes": GIB,  # of no memory controller
    }
    assert groups(membership, limits) == 6 * GIB


def test_without_control_groups_there_is_no_limit(groups, tmp_path):
    assert control_group_bytes(tmp_path / "cgroup", tmp_path / "membership") is None
    assert groups("nonsense\n", {}) is None


def test_a_limit_on_address_space_is_seen():
    program = (
        "import resource; from simulator.machine_memory import this_process\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({GIB}, {GIB}))\n"
        "limit = this_process(); print(limit.size_bytes, limit.reason)"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    size_bytes, reason = said.split(maxsplit=1)
    assert "ulimit -v" in reason
    assert 0 < int(size_bytes) < GIB  # less what is mapped and never used


def test_this_process_may_have_some():
    assert this_process().size_bytes > 2**28
