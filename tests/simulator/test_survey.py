"""The figures of a network, the command that prints them, and the files that it writes."""

import json
import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from simulator.input_error import InputError
from simulator.scenario import load_network, load_scenario
from simulator.survey import graph_to_write, survey
from support.command_line import railplane
from topologies import build_cluster
from topologies.graph_file import read_graph, write_graph

ROOT = Path(__file__).parents[2]
SPEC = """\
name: small
cluster:
  node: h800
  nodes: 16
  topology: {kind: multi-plane-fat-tree, switch_ports: 8}
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SPEC)
    return path


def test_figures_of_a_small_network(small):
    # Eight planes, each with 16 NICs: 4 leaves of 4 with 4 uplinks, 2 spines. 48 switches, 128 cables up, 128 down.
    found = survey(load_network(small)).figures()
    assert (found["endpoints"], found["switches"], found["links"], found["endpoint_links"]) == (
        128,
        48,
        128,
        128,
    )
    assert found["cost_usd"] == 48 * 30_000 + 128 * 2_150 + 128 * 850
    assert found["cost_per_endpoint_usd"] == found["cost_usd"] / 128
    assert (found["diameter_hops"], found["bisection_bytes_per_s"], found["bisection_fraction"]) == (
        2,
        64 * 50e9,
        1,
    )
    assert (found["name"], found["family"], found["constructible"]) == ("small", "multi-plane-fat-tree", True)
    assert found["nodes"] == 16


def test_prices_are_the_scenarios(small):
    found = survey(load_network(small, ["cluster.prices={switch: 10 kUSD, link: 0 USD}"])).figures()
    assert found["cost_usd"] == 48 * 10_000 + 128 * 850
    assert found["switch_usd_source"] == found["link_usd_source"] == "given: cluster.prices"
    assert found["endpoint_link_usd_source"].startswith("fitted: ")


def test_a_scenario_is_a_spec_too(small):
    path = ROOT / "scenarios/all_to_all_128.yaml"
    assert survey(load_network(path)).counts.endpoints == 128
    # `auto` is what its workload needs; without a workload there is nothing to go by
    assert (
        load_network(ROOT / "scenarios/dispatch_64_multi_plane.yaml", ["cluster.nodes=auto"]).num_nodes == 8
    )
    with pytest.raises(InputError, match="there is no workload to say how many ranks it needs") as caught:
        load_network(small, ["cluster.nodes=auto"])
    assert caught.value.field == "cluster.nodes"
    with pytest.raises(InputError, match="workload: this field is missing"):
        load_network(small, ["seed=3"])


def test_one_node_has_no_network(small):
    found = survey(load_network(small, ["cluster.topology={kind: none}", "cluster.nodes=auto"])).figures()
    numbers = [
        value for value in found.values() if isinstance(value, (int, float)) and not isinstance(value, bool)
    ]
    assert numbers == [1, 0, 0, 0, 0, 0, 0, 30_000, 2_150, 850, 0, 0, 0]


@pytest.mark.parametrize(
    ("override", "field", "words"),
    [
        ("cluster.nodes=17", "cluster.nodes", "a plane (two layers) of 8-port switches holds at most 32"),
        ("cluster.topology.q=3", "cluster.topology.q", "unknown field 'q'"),
        (
            "cluster.routing=valiant",
            "cluster.routing",
            "is for topologies of kind slim-fly and dragonfly, not multi",
        ),
        ("cluster.prices={switch: 5}", "cluster.prices.switch", "has no unit"),
        ("cluster.prices={router: 5 USD}", "cluster.prices.router", "unknown field 'router'"),
        (
            "cluster.topology={kind: custom, path: no.json}",
            "cluster.topology.path",
            "no.json: there is no such file",
        ),
    ],
)
def test_what_is_wrong_is_named(small, override, field, words):
    override = override.replace("nodes=17", "nodes=33")
    with pytest.raises(InputError) as caught:
        survey(load_network(small, [override]))
    assert caught.value.field == field
    assert words in caught.value.message


def test_a_network_that_cannot_be_built_has_figures_but_no_graph(scenarios, tmp_path, monkeypatch, capsys):
    path = scenarios / "topologies/slim_fly.yaml"
    assert railplane(monkeypatch, "topology", path, "--json") == 0
    assert json.loads(capsys.readouterr().out)["constructible"] is False
    assert (
        railplane(
            monkeypatch, "topology", path, "--graphml", tmp_path / "g.graphml", "--set", "cluster.nodes=10"
        )
        == 2
    )
    assert "no Slim Fly of q = 28 can be built" in capsys.readouterr().err
    assert not (tmp_path / "g.graphml").exists()


def test_a_network_too_large_to_simulate_exists_all_the_same(small):
    found = survey(
        load_network(
            small, ["cluster.nodes=1000000", "cluster.topology={kind: dragonfly, switch_ports: 1024}"]
        )
    )
    assert found.figures()["constructible"] is True
    assert found.assumptions[-1].startswith(
        "This network is too large to simulate: the cluster would have 52,173,824 "
    )
    assert found.assumptions[-2].startswith("A switch of 1024 ports has the price of the table")


@pytest.mark.parametrize("suffix", [".graphml", ".json"])
def test_a_graph_goes_out_and_comes_back(small, tmp_path, monkeypatch, capsys, suffix):
    file = tmp_path / f"g{suffix}"
    assert railplane(monkeypatch, "topology", small, "--graphml", file) == 0
    loaded = load_network(small)
    graph = build_cluster(loaded.cluster.node_spec, 16, loaded.cluster.topology)
    assert dict(read_graph(file).nodes(data=True)) == dict(graph.nodes(data=True))
    assert capsys.readouterr().err == f"Wrote {file}\n"
    # The file as a network of its own: nodes from the file, the same counts and extent.
    custom = tmp_path / "custom.yaml"
    custom.write_text(f"name: own\ncluster: {{node: h800, topology: {{kind: custom, path: g{suffix}}}}}\n")
    own, by_formula = (survey(load_network(path)).figures() for path in (custom, small))
    same = (
        "family",
        "nodes",
        "endpoints",
        "switches",
        "links",
        "endpoint_links",
        "cost_usd",
        "diameter_hops",
    )
    assert {name: own[name] for name in same} == {name: by_formula[name] for name in same}
    assert own["bisection_bytes_per_s"] == by_formula["bisection_bytes_per_s"]
    assert own["bisection_is"] == "upper bound"


RUN = """\
name: run
cluster: {node: h800, nodes: NODES, topology: TOPOLOGY, routing: ROUTING}
costs: ideal
workload: {kind: collective, operation: all-to-all, size: 1 MB}
"""


@pytest.mark.parametrize(
    ("nodes", "topology", "routing"),
    [
        (2, "{kind: multi-plane-fat-tree, switch_ports: 8}", "adaptive"),
        (3, "{kind: three-layer-fat-tree, switch_ports: 8}", "ecmp"),
        (2, "{kind: slim-fly, q: 4, endpoints_per_router: 1}", "minimal"),
        (2, "{kind: dragonfly, switch_ports: 8}", "valiant"),
    ],
)
def test_a_custom_network_runs_as_the_built_one_does(tmp_path, nodes, topology, routing):
    from simulator.run import simulate

    path, custom = tmp_path / "run.yaml", tmp_path / "custom.yaml"
    path.write_text(
        RUN.replace("NODES", str(nodes)).replace("TOPOLOGY", topology).replace("ROUTING", routing)
    )
    loaded = load_scenario(path)
    write_graph(build_cluster(loaded.node, nodes, loaded.scenario.cluster.topology), tmp_path / "g.json")
    own = "{kind: custom, path: g.json}"
    custom.write_text(RUN.replace("NODES", "auto").replace("TOPOLOGY", own).replace("ROUTING", routing))
    by_file = load_scenario(custom)
    assert by_file.num_nodes == nodes
    assert simulate(by_file).step_time_s == simulate(loaded).step_time_s


def test_a_custom_network_must_be_the_clusters(small, tmp_path):
    loaded = load_network(small)
    write_graph(build_cluster(loaded.cluster.node_spec, 16, loaded.cluster.topology), tmp_path / "g.json")
    custom = tmp_path / "custom.yaml"
    custom.write_text(
        RUN.replace("NODES", "3")
        .replace("TOPOLOGY", "{kind: custom, path: g.json}")
        .replace("ROUTING", "ecmp")
    )
    with pytest.raises(InputError, match=r"g\.json holds num_nodes = 16, and nodes is 3") as caught:
        load_scenario(custom)
    assert caught.value.field == "cluster.nodes"
    with pytest.raises(
        InputError, match="valiant routing is for topologies of kind slim-fly and dragonfly, not multi"
    ):
        load_scenario(custom, ["cluster.routing=valiant", "cluster.nodes=16"])
    (tmp_path / "g.json").write_text("{}")
    with pytest.raises(InputError, match=r"g\.json: this is no node-link JSON") as caught:
        load_scenario(custom)
    assert caught.value.field == "cluster.topology.path"


def test_a_graph_file_has_bounds(scenarios):
    loaded = load_network(scenarios / "topologies/ft3.yaml")
    with pytest.raises(InputError, match="leave out --graphml, or ask for fewer nodes"):
        graph_to_write(loaded, survey(loaded).counts)


@pytest.mark.parametrize(
    ("option", "file", "words"),
    [
        ("--plot", "x.pdf", "--plot writes .png or .svg"),
        ("--graphml", "x.xml", "--graphml writes .graphml or .json"),
        ("--plot", "no/x.png", "cannot write there: No such file"),
        ("--graphml", "no/x.json", "cannot write there: No such file"),
    ],
)
def test_a_file_that_cannot_be_written(small, tmp_path, monkeypatch, capsys, option, file, words):
    assert railplane(monkeypatch, "topology", small, option, tmp_path / file) == 2
    assert words in capsys.readouterr().err


def test_json_is_one_flat_object_and_nothing_else(small, monkeypatch, capsys):
    assert railplane(monkeypatch, "topology", small, "--json") == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.count("\n") == 1
    found = json.loads(captured.out)
    assert not any(isinstance(value, dict) for value in found.values())


def test_the_report_has_counts_cost_and_what_they_rest_on(small, monkeypatch, capsys):
    assert railplane(monkeypatch, "topology", small) == 0
    text = " ".join(capsys.readouterr().out.split())
    for words in (
        "small multi-plane-fat-tree; 16 nodes", "switches 48 30 kUSD 1.44 MUSD",
        "links between switches 128 2.15 kUSD",
        "diameter 2 cables exact", "bisection, one way 3.2 TB/s exact; 100.0% of full", "fitted: to the cost column",
    ):  # fmt: skip
        assert words in text


# What documents and the files' own headers claim


def commands() -> list[tuple[str, str]]:
    found = []
    for path in [*sorted((ROOT / "scenarios/topologies").glob("*.yaml")), ROOT / "docs/topologies.md"]:
        found += [
            (path.name, text)
            for text in re.findall(r"railplane topology (scenarios/[^`\n]+)", path.read_text())
        ]
    return found


@pytest.mark.parametrize(("where", "command"), commands())
def test_commands_in_documents_work(where, command):
    file, *options = shlex.split(command, comments=True)
    overrides = [value for option, value in pairwise(options) if option == "--set"]
    assert survey(load_network(ROOT / file, overrides)).counts.endpoints > 0


def test_the_figures_are_defined(small):
    table = (ROOT / "docs/topologies.md").read_text().partition("## The figures")[2].partition("\n## ")[0]
    defined: list[Any] = re.findall(r"^\| `(\w+)`", table, re.MULTILINE)
    assert defined == list(survey(load_network(small)).figures())
