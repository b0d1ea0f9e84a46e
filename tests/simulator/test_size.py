"""What is refused for its size before it is built, and that little is taken to find out."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from simulator import compare, load_scenario, sweep
from simulator import scenario as scenario_module
from simulator.comparison import sides
from simulator.input_error import InputError
from simulator.machine_memory import MemoryLimit
from simulator.scenario import load_network
from simulator.size import BASE_BYTES, Counts, Estimate, estimate_graph, fewer_at_a_time, most_at_a_time
from simulator.survey import graph_to_write
from simulator.sweeps import sweeping
from support.tiny_scenarios import tiny_scenario
from topologies import NODES, ThreeLayerFatTree
from workloads import CollectiveSpec
from workloads.tasks import Setting

GIB = 2**30
RING = "{kind: collective, operation: all-reduce, size: 1 GB}"
TREE = "topology: {kind: three-layer-fat-tree}"
PLANES = "topology: {kind: multi-plane-fat-tree}"
# all valid; cluster, model, workload, and what is blamed
HUGE = {
    "all-to-all of 65,536 ranks": (
        f"nodes: 8192, {TREE}",
        "null",
        "{kind: collective, operation: all-to-all, size: 1 GB}",
        "workload.group_size",
    ),
    "training with 10^6 micro-batches": (
        f"nodes: 8, {PLANES}",
        "deepseek-v3",
        "{kind: training-step, pipeline_parallel: 8, expert_parallel: 8, sequences_per_step: 8000000, "
        "ignore_memory: true}",
        "workload.sequences_per_step",
    ),
    "training whose loads change in each micro-batch": (
        f"nodes: 1024, {PLANES}",
        "deepseek-v3",
        "{kind: training-step, pipeline_parallel: 16, expert_parallel: 64, sequences_per_step: 16384, "
        "sequence_length: 16, load_changes: per-micro-batch, ignore_memory: true}",
        "workload.sequences_per_step",
    ),
    "low-latency exchanges of 256 layers with loads of their own": (
        f"nodes: 64, {PLANES}",
        "deepseek-v3",
        "{kind: expert-parallel, kernel: low-latency, expert_parallel: 512, tokens_per_rank: 128, layers: 256, "
        "load_changes: per-layer}",
        "workload.layers",
    ),
    "decoding at 8,192 ranks": (
        f"nodes: 1024, {PLANES}",
        "deepseek-v3",
        "{kind: decode-step, expert_parallel: 8192, batch_per_gpu: 64, cached_tokens: 100}",
        "workload.expert_parallel",
    ),
    "a network of 32,704 nodes": (
        "nodes: 32704, topology: {kind: dragonfly, endpoints_per_router: 16, routers_per_group: 32, "
        "global_ports: 16, groups: 511}",
        "null",
        "{kind: kernels, calls: [{kind: copy, size_bytes: 100}]}",
        "cluster.nodes",
    ),
}
# Says what is refused of the scenarios that are given, and how much memory all of that took.
_CHECK = """\
import json, resource, sys
from simulator.scenario import load_scenario
from simulator.comparison import sides
from simulator.input_error import InputError
before = resource.getrusage(resource.RUSAGE_SELF)
said = []
for path in sys.argv[1:]:
    try:
        load_scenario(path)
        said.append(None)
    except InputError as error:
        said.append([error.field, error.message])
grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before.ru_maxrss
print(json.dumps({"said": said, "grown_kib": grown_kib}))
"""


def written(folder: Path, cluster: str, model: str, workload: str) -> Path:
    path = folder / "huge.yaml"
    path.write_text(f"name: huge\ncluster: {{node: h800, {cluster}}}\nmodel: {model}\nworkload: {workload}\n")
    return path


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """What a process that may have 3 GiB says of all of them, by name, and by how much its memory grew."""
    paths = []
    for cluster, model, workload, _ in HUGE.values():
        paths.append(str(written(tmp_path_factory.mktemp("huge"), cluster, model, workload)))
    ended = subprocess.run(
        [sys.executable, "-c", _CHECK, *paths],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (3 * GIB, 3 * GIB)),
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # each would map address space
    )
    found = json.loads(ended.stdout)
    return dict(zip(HUGE, found["said"], strict=True)), found["grown_kib"]


@pytest.mark.parametrize("name", HUGE)
def test_what_is_too_large_is_refused(name, checked):
    said, _ = checked
    assert said[name] is not None
    field, message = said[name]
    assert field == HUGE[name][3]
    assert "this run would take about" in message
    assert "the limit on address space (ulimit -v) leaves" in message
    assert "--any-size" in message


def test_to_refuse_takes_little_memory(checked):
    _, grown_kib = checked
    assert grown_kib < 2**17  # 128 MiB; what would be built takes more than 3 GiB


def test_a_long_list_of_flows_is_counted_and_fits(tmp_path):
    rows = "".join(f"{row % 64},{(row + 1) % 64},1000\n" for row in range(200_000))
    (tmp_path / "flows.csv").write_text(f"source,destination,size_bytes\n{rows}")
    path = written(tmp_path, f"nodes: 8, {PLANES}", "null", "{kind: flows, path: flows.csv}")
    size = load_scenario(path).size
    assert size.counts.held == size.counts.timed == size.counts.rows == 200_000
    assert size.counts.tasks == 64


@pytest.fixture
def pretended(monkeypatch):
    """Lets this process have so many bytes only."""

    def limited(size_bytes):
        monkeypatch.setattr(
            scenario_module, "this_process", lambda: MemoryLimit(size_bytes, "this machine has")
        )

    return limited


def test_any_size_passes_where_memory_is_short(pretended, tmp_path):
    loaded = tiny_scenario("collective", tmp_path)
    pretended(loaded.size.total_bytes)
    assert load_scenario(loaded.path).size == loaded.size
    pretended(loaded.size.total_bytes - 1)
    with pytest.raises(InputError, match="this run would take about"):
        load_scenario(loaded.path)
    assert load_scenario(loaded.path, any_size=True).size == loaded.size


def test_a_refusal_names_file_line_field_and_parts(pretended, tmp_path):
    pretended(4 * GIB)
    cluster, model, workload, _ = HUGE["all-to-all of 65,536 ranks"]
    with pytest.raises(InputError) as caught:
        load_scenario(written(tmp_path, cluster, model, workload))
    assert (caught.value.line, caught.value.field) == (4, "workload.group_size")
    for part in (
        "and this machine has 4.00 GiB",
        "transfers 5,",
        "(4,294,901,760, which charge",  # 65,536 x 65,535
        "use smaller groups, or fewer ranks, or run it all the same with --any-size",
    ):
        assert part in caught.value.message


def test_the_graph_alone_is_refused_too(pretended, tmp_path):
    path = written(tmp_path, f"nodes: 256, {PLANES}", "null", RING)
    network = load_network(path)
    counts = network.cluster.topology.counts(network.cluster.node_spec, network.num_nodes)
    pretended(BASE_BYTES)
    with pytest.raises(InputError, match="use fewer nodes"):
        graph_to_write(network, counts)
    assert graph_to_write(network, counts, any_size=True).number_of_edges() == 24_576


def test_parts_add_up_and_the_largest_is_blamed():
    counts = Counts(edges=1000, cells=0, tasks=5_000_000)
    size = Estimate(counts, "calls", "list fewer calls")
    assert size.total_bytes == BASE_BYTES + sum(size.parts.values())
    assert size.field == "workload.calls"
    assert list(size.parts.values()) == sorted(size.parts.values(), reverse=True)
    larger = Estimate(counts._replace(edges=50_000_000), "calls", "list fewer calls")
    assert larger.field == "cluster.nodes"
    assert "use fewer nodes" in larger.refusal(MemoryLimit(GIB, "this machine has"))
    assert larger.refusal(MemoryLimit(larger.total_bytes, "this machine has")) == ""


def test_a_graph_by_itself_counts_its_edges():
    node, tree = NODES["h800"], ThreeLayerFatTree(kind="three-layer-fat-tree")
    edges = tree.build(node, 40).number_of_edges()
    assert estimate_graph(tree, node, 40).counts == Counts(edges=edges, cells=0)


def test_as_many_run_at_a_time_as_fit():
    limit = MemoryLimit(10, "this machine has")
    assert most_at_a_time([3, 3, 3, 3], 4, limit) == 3
    assert most_at_a_time([3, 3, 3, 3], 2, limit) == 2
    # whichever run together: the two largest take 11
    assert most_at_a_time([1, 6, 1, 5], 4, limit) == 1
    assert most_at_a_time([20], 4, limit) == 1
    assert most_at_a_time([], 4, limit) == 1
    assert fewer_at_a_time(2, 2, limit) == ""
    assert "1 at a time instead of 3: this machine has" in fewer_at_a_time(3, 1, limit)


def test_compare_and_sweep_run_fewer_at_a_time(monkeypatch, tmp_path):
    path = tiny_scenario("collective", tmp_path).path
    other = tmp_path / "other.yaml"
    other.write_text(path.read_text().replace("name: tiny", "name: other"))
    tight = MemoryLimit(load_scenario(path).size.total_bytes + 1, "this machine has")
    for module in (sides, sweeping):
        monkeypatch.setattr(module, "this_process", lambda: tight)
    said: list[str] = []
    compare([path, other], jobs=2, say=said.append)
    sweep(path, {"seed": [1, 2]}, jobs=2, say=said.append)
    assert [text.split(":")[0] for text in said] == ["1 at a time instead of 2"] * 2


def test_millions_of_ranks_are_counted_without_listing_them():
    spec = CollectiveSpec(kind="collective", operation="all-gather", size="1 MB", stride=8)
    setting = Setting(None, 8_000_000, 8, Path())
    # one group: a ring for each of the eight ranks of a node, each with a hop from every rank
    size = spec.work_size(setting)
    assert (size.tasks, size.flows) == (8_000_000, 8 * 8_000_000)
    # groups of one GPU index have a rank on each node
    by_index = spec.model_copy(update={"group_size": 1_000_000}).work_size(setting)
    assert (by_index.tasks, by_index.flows) == (8_000_000, 8_000_000)
