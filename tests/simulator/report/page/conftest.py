"""Pages of small runs, written by the command line as `--out` writes them."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from support.command_line import railplane

CLUSTER = "cluster: {node: h800, nodes: 2, topology: {kind: multi-plane-fat-tree}}\n"
SCENARIOS = {
    "training": CLUSTER
    + """\
name: training
model: deepseek-v3
costs: h800-published
workload:
  {kind: training-step, pipeline_parallel: 2, expert_parallel: 8, schedule: zb1p, sequences_per_step: 16,
   sequence_length: 64, ignore_memory: true}
""",
    "decode": CLUSTER
    + """\
name: decode
model: deepseek-v3
costs: h800-published
workload: {kind: decode-step, expert_parallel: 16, batch_per_gpu: 64, cached_tokens: 16, groups: 1}
""",
    # a name that is a script, and a fault
    "flows": CLUSTER
    + """\
name: <script>alert(1)</script>
costs: ideal
workload: {kind: flows, path: '<b>&flows.csv'}
faults: [{kind: plane, plane: 2, at: 5 us}]
""",
}
FLOWS = "source,destination,size_bytes\n0,9,1e6\n1,10,2e6\n"


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """What returns the folder that `railplane run --out` wrote of a scenario; each runs once."""

    @cache
    def folder(name: str) -> Path:
        work = tmp_path_factory.mktemp(name)
        (work / "scenario.yaml").write_text(SCENARIOS[name])
        (work / "<b>&flows.csv").write_text(FLOWS)
        with pytest.MonkeyPatch.context() as patch:
            assert railplane(patch, "run", work / "scenario.yaml", "--out", work / "out") == 0
        return work / "out"

    return folder
