from pathlib import Path

import pytest

QUICK = """\
name: quick
cluster: {node: h800, nodes: 1, topology: {kind: none}}
workload: {kind: collective, operation: all-reduce, size: 1 MiB, ranks: all}
"""


@pytest.fixture
def quick(tmp_path: Path) -> Path:
    """A scenario that runs in a hundredth of a second."""
    path = tmp_path / "quick.yaml"
    path.write_text(QUICK)
    return path
