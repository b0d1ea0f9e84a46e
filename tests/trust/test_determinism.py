"""Same scenario, same bytes: whatever the hash seed, the process, what ran before in it, or who runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.digests import result_digest

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "scenarios").glob("*.yaml"))
# a few that take a second: of all kinds of routing, with drawn experts, faults, and kernels alone
QUICK = [
    ROOT / "scenarios" / f"{name}.yaml"
    for name in ("plane_failure", "roce_routing", "dispatch_64_multi_rail")
]


def digests(way: str, scenarios: list[Path], hash_seed: str) -> dict[str, str]:
    """Return the digest of each scenario's results from a process of its own."""
    environment = {
        **os.environ,
        "PYTHONHASHSEED": hash_seed,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
    }
    done = subprocess.run(
        [sys.executable, "-m", "support.digests", way, *map(str, scenarios)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_another_hash_seed_and_another_order_give_the_same_bytes():
    here = {str(path): result_digest(str(path)) for path in QUICK}
    assert digests("alone", QUICK[::-1], "1") == here
    assert len(set(here.values())) == len(QUICK)


def test_the_digest_tells_results_apart(tmp_path):
    text = QUICK[2].read_text()
    (tmp_path / "same.yaml").write_text(text)
    (tmp_path / "other.yaml").write_text(text.replace("seed: 1", "seed: 2"))
    first, same, other = (
        result_digest(str(path)) for path in (QUICK[2], tmp_path / "same.yaml", tmp_path / "other.yaml")
    )
    assert first == same != other


@pytest.mark.slow
def test_every_shipped_scenario_gives_the_same_bytes_in_every_way():
    alone = digests("alone", SHIPPED, "1")
    assert set(alone) == {str(path) for path in SHIPPED}
    assert digests("alone", SHIPPED[::-1], "2") == alone
    assert digests("workers", SHIPPED, "3") == alone
    assert digests("dask", SHIPPED, "4") == alone
