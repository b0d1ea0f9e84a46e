"""Scenarios: what loads, what it resolves to, its digest, and its schema."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from simulator.cluster import Cluster
from simulator.document import InputError, parse_document
from simulator.resolved import resolved_text, scenario_sha256
from simulator.scenario import Scenario, json_schema, load_scenario
from support.properties import tried_on
from topologies import NODES

DISPATCH = """\
name: dispatch-64
seed: 7
cluster:
  node: h800
  nodes: 8
  topology: {kind: multi-plane-fat-tree, planes: 8, layers: 2, switch_ports: 64}
  routing: adaptive
model: deepseek-v3
workload: {kind: expert-parallel, tokens_per_rank: 4096, expert_parallel: 64, kernel: normal}
costs: h800-published
"""

COLLECTIVE = """\
name: all-reduce
cluster: {node: h800, nodes: 2, topology: {kind: multi-rail-fat-tree}}
workload: {kind: collective, operation: all-reduce, size: 1 GiB}
"""

WHOLE_NODE = """\
name: whole-node
cluster:
  node:
    gpu:
      name: made up
      architecture: hopper
      memory: 64 GiB
      memory_bandwidth: 2 TB/s
      peak_bf16: 500 TFLOP/s
      peak_fp8: 1 PFLOP/s
    gpus: 4
    nvlink: 0.1 TB/s
    pcie: 32 GB/s
    nic: 200 Gbit/s
    assumptions: [all of it]
  topology: {kind: none}
workload: {kind: collective, operation: all-to-all, size: 1 MiB}
"""

FLOWS = """\
name: flows
cluster: {node: h800, nodes: 2, topology: {kind: multi-plane-fat-tree}}
workload: {kind: flows, path: flows.csv}
"""

SCENARIOS = {"dispatch": DISPATCH, "collective": COLLECTIVE, "whole node": WHOLE_NODE, "flows": FLOWS}


@pytest.fixture
def write(tmp_path):
    (tmp_path / "flows.csv").write_text(
        "source,destination,size_bytes\n0,8,1000\nnode1/gpu0,node0/gpu0,5e3\n"
    )

    def write_text(text: str, name: str = "scenario.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write_text


def test_a_scenario_with_all_that_it_names(write, tmp_path):
    loaded = load_scenario(write(DISPATCH))
    assert (loaded.scenario.name, loaded.scenario.seed) == ("dispatch-64", 7)
    assert loaded.num_nodes == 8
    assert loaded.node == NODES["h800"]
    assert loaded.model is not None
    assert loaded.model.name == "deepseek-v3"
    assert loaded.costs.name == "h800-published"
    assert loaded.folder == tmp_path
    # 8 nodes of 8 GPUs
    assert (loaded.setting.num_ranks, loaded.setting.gpus_per_node) == (64, 8)
    assert loaded.setting.folder == tmp_path


def test_defaults(write):
    scenario = load_scenario(write(COLLECTIVE)).scenario
    assert (scenario.seed, scenario.cluster.routing, scenario.model, scenario.costs) == (
        1, "adaptive", None, "h800-published"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("nodes", "degree", "num_nodes"),
    [
        ("auto", 64, 8),  # 64 ranks / 8 GPUs a node
        ("auto", 8, 1),
        ("auto", 4, 1),  # half a node is a whole one
        ("auto", 256, 32),
        ("16", 64, 16),
    ],
)
def test_auto_nodes_hold_the_ranks_of_the_workload(write, nodes, degree, num_nodes):
    overrides = [f"cluster.nodes={nodes}", f"workload.expert_parallel={degree}"]
    loaded = load_scenario(write(DISPATCH), overrides)
    assert loaded.num_nodes == loaded.scenario.cluster.nodes == num_nodes


def test_nodes_left_out_are_auto(write):
    text = DISPATCH.replace("  nodes: 8\n", "")
    assert load_scenario(write(text)).scenario == load_scenario(write(DISPATCH)).scenario


def test_without_a_network_there_is_one_node(write):
    assert load_scenario(write(WHOLE_NODE)).num_nodes == 1


def test_a_node_written_out_is_the_catalogue_s(write):
    inline = json.dumps(NODES["h800"].model_dump())
    loaded = load_scenario(write(DISPATCH), [f"cluster.node={inline}"])
    assert loaded.node == NODES["h800"]
    assert loaded.scenario.cluster.node != "h800"  # but it is written back as it was given


def test_quantities_are_si_inside(write):
    loaded = load_scenario(write(WHOLE_NODE))
    assert (loaded.node.nvlink, loaded.node.nic) == (100e9, 25e9)


def test_link_profiles_of_a_cluster(write):
    # What a cost table must have: a node's links, and the network's own where there is one.
    assert load_scenario(write(WHOLE_NODE)).scenario.cluster.link_profiles == {"nvlink", "pcie"}
    assert load_scenario(write(DISPATCH)).scenario.cluster.link_profiles == {"nvlink", "pcie", "infiniband"}


def test_paths_start_at_the_scenario_s_folder(write, tmp_path, monkeypatch):
    write(FLOWS)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert load_scenario("../scenario.yaml").folder == Path("..")
    assert load_scenario(str(tmp_path / "scenario.yaml")).num_nodes == 2


def test_a_path_may_be_text_or_a_path(write):
    path = write(DISPATCH)
    assert load_scenario(str(path)) == load_scenario(path)


def test_overrides_in_order_the_last_one_stays(write):
    loaded = load_scenario(
        write(DISPATCH), ["seed=2", "seed=3", "cluster.topology={kind: multi-rail-fat-tree}"]
    )
    assert loaded.scenario.seed == 3
    assert loaded.scenario.cluster.topology.kind == "multi-rail-fat-tree"
    assert (
        loaded.scenario.cluster.topology
        == Cluster.model_validate({"node": "h800", "topology": {"kind": "multi-rail-fat-tree"}}).topology
    )  # nothing of the old mapping is left


@pytest.mark.parametrize("text", SCENARIOS.values(), ids=SCENARIOS)
def test_the_resolved_text_loads_to_an_equal_scenario(write, text):
    loaded = load_scenario(write(text))
    path = write(resolved_text(loaded), "resolved.yaml")
    for file in loaded.files:  # as a result's folder holds them
        copy = path.parent / file.carried_name
        copy.parent.mkdir(parents=True)
        copy.write_bytes(file.path.read_bytes())
    again = load_scenario(path)
    named = {file.field: file.name for file in again.files}
    assert named == {file.field: file.carried_name for file in loaded.files}
    if not named:
        assert again.scenario == loaded.scenario
    assert (again.num_nodes, again.node, again.model, again.costs) == (
        loaded.num_nodes, loaded.node, loaded.model, loaded.costs
    )  # fmt: skip
    assert resolved_text(again) == resolved_text(loaded)
    assert scenario_sha256(again) == scenario_sha256(loaded)


def test_the_resolved_text_is_whole_and_readable(write):
    # The resolved file states every default and the number of nodes, and keeps names and units as people write them.
    data = parse_document(resolved_text(load_scenario(write(COLLECTIVE), ["cluster.nodes=2"])), "r").data
    assert data["seed"] == 1
    assert data["model"] is None
    assert data["cluster"]["node"] == "h800"
    assert data["cluster"]["nodes"] == 2
    assert data["cluster"]["topology"]["switch_ports"] == 64
    assert data["workload"]["size"] == "1 GiB"
    assert data["costs"] == "h800-published"
    whole = parse_document(resolved_text(load_scenario(write(WHOLE_NODE))), "r").data
    assert whole["cluster"]["node"]["nvlink"] == "800 Gbit/s"  # 0.1 TB/s
    assert whole["cluster"]["nodes"] == 1


NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"], exclude_characters="\ufffe\uffff"),
    min_size=1,
    max_size=200,
) | (
    st.sampled_from(
        ["no", "010", "1e5", ".5e3", "0o7", ".nan", "1e999", "~", "null", "a: b", "# x", "<<", "'", "- a"]
    )
)


@given(NAMES)
@tried_on(150)
def test_any_name_survives_being_written_and_read(tmp_path_factory, name):
    folder = tmp_path_factory.getbasetemp()
    path = folder / "name.yaml"
    # JSON is YAML, so that json writes any name without our help
    path.write_text(
        COLLECTIVE.replace("name: all-reduce", f"name: {json.dumps(name, ensure_ascii=False)}"),
        encoding="utf-8",
    )
    loaded = load_scenario(path)
    assert loaded.scenario.name == name
    path.write_text(resolved_text(loaded), encoding="utf-8")
    assert load_scenario(path).scenario == loaded.scenario


REORDERED = """\
# another layout of DISPATCH: other order, other brackets, defaults left out, a unit or two written otherwise
workload:
  expert_parallel: 64
  tokens_per_rank: 0x1000
  kind: expert-parallel
cluster: {topology: {switch_ports: 64, kind: "multi-plane-fat-tree", planes: 8}, node: 'h800'}
model: deepseek-v3
seed: 007
name: dispatch-64
"""


def test_the_digest_is_of_what_a_file_says_not_how(write):
    digest = scenario_sha256(load_scenario(write(DISPATCH)))
    assert len(digest) == 64
    assert scenario_sha256(load_scenario(write(REORDERED, "reordered.yaml"))) == digest
    for override in (
        "seed=8",
        "name=other",
        "cluster.routing=ecmp",
        "cluster.nodes=16",
        "workload.groups_kept=8",
    ):
        assert scenario_sha256(load_scenario(write(DISPATCH), [override])) != digest


def test_units_of_equal_value_have_one_digest(write):
    path = write(COLLECTIVE)
    one, other = (
        scenario_sha256(load_scenario(path, [f"workload.size={size}"])) for size in ("1 GiB", "1073741824 B")
    )
    assert one == other


@pytest.fixture(scope="module")
def validator():
    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def as_json(text: str):
    """Return what a JSON Schema tool would see: the file read by a YAML reader other than ours."""
    return YAML(typ="safe", pure=True).load(text)


@pytest.mark.parametrize("text", [*SCENARIOS.values(), REORDERED])
def test_the_schema_allows_what_loads(validator, write, text):
    load_scenario(write(text))
    assert list(validator.iter_errors(as_json(text))) == []
    resolved = resolved_text(load_scenario(write(text)))
    assert list(validator.iter_errors(as_json(resolved))) == []


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "scenarios").glob("*.yaml")), ids=lambda p: p.name
)
def test_the_schema_allows_what_ships(validator, path):
    assert list(validator.iter_errors(as_json(path.read_text("utf-8")))) == []
    assert load_scenario(path).num_nodes > 0


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name: whole-node\n", ""),
        ("name:", "nam:"),
        ("nvlink:", "nvlinks:"),
        ("kind: none", "kind: nothing"),
        ("kind: none", "planes: 8"),
        ("kind: none", "kind: none, planes: 8"),
        ("gpus: 4", "gpus: four"),
        ("gpus: 4", "gpus: 0"),
        ("size: 1 MiB", "size: 1"),
        ("size: 1 MiB", "size: 1 Mio"),
        ("size: 1 MiB", "size: -1 MiB"),
        ("nic: 200 Gbit/s", "nic: 200 GB"),
        ("operation: all-to-all", "operation: alltoall"),
        ("  topology: {kind: none}", "  node: h801\n  topology: {kind: none}"),
    ],
)
def test_the_schema_refuses_what_does_not_load(validator, write, old, new):
    text = WHOLE_NODE.replace(old, new)
    if "h801" in new:
        text = COLLECTIVE.replace("h800", "h801")
    assert text not in SCENARIOS.values()
    assert list(validator.iter_errors(as_json(text)))
    with pytest.raises(InputError):
        load_scenario(write(text))


def test_the_schema_is_fit_for_an_editor():
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"] == "railplane scenario"
    # every field says what it means, wherever it stands
    for name, model in [("Scenario", schema), *schema["$defs"].items()]:
        for field, form in model["properties"].items():
            assert form.get("description"), f"{name}.{field}"
    cluster = schema["$defs"]["Cluster"]["properties"]
    assert cluster["node"]["oneOf"][0]["enum"] == list(NODES)
    assert set(cluster["topology"]["discriminator"]["mapping"]) == {
        "two-layer-fat-tree", "multi-plane-fat-tree", "multi-rail-fat-tree", "three-layer-fat-tree", "slim-fly",
        "dragonfly", "custom", "none",
    }  # fmt: skip
    assert schema == json.loads(json.dumps(schema))


def test_scenarios_are_frozen(write):
    loaded = load_scenario(write(DISPATCH))
    with pytest.raises(ValueError, match="frozen"):
        loaded.scenario.seed = 2
    with pytest.raises(AttributeError):
        loaded.num_nodes = 2
    assert isinstance(loaded.scenario, Scenario)


KERNELS = """\
name: kernels
cluster: {node: h800, topology: {kind: none}}
workload:
  kind: kernels
  calls: [{kind: norm, rows: 8, width: 8}]
  communication_sms: 132
"""


def test_sms_that_leave_none_to_compute_are_blamed_on_the_field_that_asks_for_them(write):
    with pytest.raises(InputError, match="hold 132 of the 132 SMs of the H800 SXM5") as caught:
        load_scenario(write(KERNELS))
    assert (caught.value.field, caught.value.line) == ("workload.communication_sms", 6)
    assert load_scenario(write(KERNELS), ["workload.communication_sms=66"]).num_nodes == 1


@pytest.mark.parametrize("routing", ["minimal", "valiant"])
def test_minimal_and_valiant_are_for_networks_of_routers(write, routing):
    with pytest.raises(
        InputError, match=f"{routing} routing is for topologies of kind slim-fly and dragonfly"
    ) as caught:
        load_scenario(write(DISPATCH), [f"cluster.routing={routing}"])
    assert caught.value.field == "cluster.routing"
    for topology in ("{kind: slim-fly}", "{kind: dragonfly}"):
        overrides = [f"cluster.routing={routing}", f"cluster.topology={topology}"]
        assert load_scenario(write(DISPATCH), overrides).scenario.cluster.routing == routing


def test_a_slim_fly_that_does_not_exist_cannot_run(write):
    with pytest.raises(InputError, match="no Slim Fly of q = 28 can be built") as caught:
        load_scenario(write(DISPATCH), ["cluster.topology={kind: slim-fly, q: 28}"])
    assert caught.value.field == "cluster.topology.q"


def test_prices_are_written_out_as_they_were_read(write, tmp_path):
    loaded = load_scenario(write(DISPATCH), ["cluster.prices={switch: 12000 USD, link: 1.2 kUSD}"])
    assert loaded.scenario.cluster.prices.switch == 12_000
    (tmp_path / "again.yaml").write_text(resolved_text(loaded))
    assert load_scenario(tmp_path / "again.yaml").scenario == loaded.scenario
