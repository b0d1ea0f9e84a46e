"""Files that a scenario names: which fields name one, that they lie in its folder, and what is known of them."""

import os
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pytest

from simulator import load_scenario, simulate
from simulator.input_error import InputError
from simulator.input_files import NamesFile, named_files
from simulator.resolved import scenario_sha256
from simulator.scenario import Scenario, load_network
from simulator.units import Spec
from support.tiny_scenarios import nccl_text
from topologies import NODES, MultiPlaneFatTree, build_cluster
from topologies.graph_file import write_graph
from workloads.models import catalogue

FLOWS = "source,destination,size_bytes\n0,9,1e6\n"
LOADS = "expert,load\n" + "".join(f"{expert},{1 + expert % 3}\n" for expert in range(256))


def text(
    *, model="null", costs="ideal", topology="{kind: multi-plane-fat-tree}", workload="", nodes=2
) -> str:
    workload = workload or "{kind: collective, operation: all-to-all, size: 1 MB}"
    return (
        f"name: s\nmodel: {model}\ncosts: {costs}\ncluster:\n  node: h800\n  nodes: {nodes}\n"
        f"  topology: {topology}\nworkload: {workload}\n"
    )


def with_gate(name: str) -> str:
    return text(
        model="deepseek-v3",
        workload="{kind: expert-parallel, tokens_per_rank: 4, expert_parallel: 16, "
        f"gate: {{kind: file, path: {name}}}}}",
    )


# field -> a scenario that names a file there, and a good file's name
NAMING = {
    "model": (lambda name: text(model=name), "config.json"),
    "costs": (lambda name: text(costs=name), "costs.json"),
    "cluster.topology.path": (lambda name: text(topology=f"{{kind: custom, path: {name}}}"), "graph.json"),
    "workload.path of flows": (lambda name: text(workload=f"{{kind: flows, path: {name}}}"), "flows.csv"),
    "workload.path of nccl-tests": (
        lambda name: text(workload=f"{{kind: nccl-tests, path: {name}}}"),
        "table.txt",
    ),
    "workload.gate.path": (with_gate, "loads.csv"),
}


def write_files(folder: Path) -> None:
    """Write a good file of each kind."""
    root = Path(__file__).parents[2]
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text((root / "workloads/model_configs/deepseek-v3.json").read_text())
    (folder / "costs.json").write_text((root / "simulator/kernel_costs/ideal.json").read_text())
    (folder / "flows.csv").write_text(FLOWS)
    (folder / "table.txt").write_text(nccl_text(16))
    (folder / "loads.csv").write_text(LOADS)
    write_graph(
        build_cluster(NODES["h800"], 2, MultiPlaneFatTree(kind="multi-plane-fat-tree")), folder / "graph.json"
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder of scenarios, with a good file of each kind in it and in the folder beside it."""
    base = tmp_path_factory.mktemp("files")
    write_files(base / "scenarios")
    write_files(base / "elsewhere")
    return base / "scenarios"


def specs_below(annotation: Any, seen: set[type[Spec]]) -> set[type[Spec]]:
    """Return every spec that a type can hold."""
    if get_origin(annotation) in {Annotated, Union, UnionType, tuple, list}:
        for part in get_args(annotation):
            specs_below(part, seen)
    elif isinstance(annotation, type) and issubclass(annotation, Spec) and annotation not in seen:
        seen.add(annotation)
        for field in annotation.model_fields.values():
            specs_below(field.annotation, seen)
    return seen


def test_every_field_that_names_a_file_is_marked():
    # a field is taken to name a file if it is text and says so: `path`, or a description that speaks of a file
    unmarked = [
        f"{spec.__name__}.{name}"
        for spec in specs_below(Scenario, set())
        for name, field in spec.model_fields.items()
        if str in {field.annotation, *get_args(field.annotation)}
        and (name == "path" or "path" in (field.description or "") or "file" in (field.description or ""))
        and not any(isinstance(mark, NamesFile) for mark in field.metadata)
    ]
    assert unmarked == []


def test_the_cases_name_every_marked_field(folder):
    named = set()
    for scenario, name in NAMING.values():
        (folder / "s.yaml").write_text(scenario(name))
        named |= {".".join(map(str, file.field)) for file in load_scenario(folder / "s.yaml").files}
    marked = {
        name
        for spec in specs_below(Scenario, set())
        for name, field in spec.model_fields.items()
        if any(isinstance(mark, NamesFile) for mark in field.metadata)
    }
    assert {field.rpartition(".")[2] for field in named} == marked == {"model", "costs", "path"}
    assert named == {field.partition(" of ")[0] for field in NAMING}


@pytest.mark.parametrize("case", NAMING)
@pytest.mark.parametrize("way", ["up", "absolute", "up and down", "link", "linked folder"])
def test_a_path_that_leads_out_is_refused_and_can_be_allowed(folder, case, way):
    scenario, name = NAMING[case]
    outside = folder.parent / "elsewhere" / name
    for link, target in ((folder / f"link-{name}", outside), (folder / "linked", outside.parent)):
        if not link.is_symlink():
            link.symlink_to(target)
    written = {
        "up": f"../elsewhere/{name}",
        "absolute": str(outside),
        "up and down": f"../scenarios/../elsewhere/./{name}",
        "link": f"link-{name}",
        "linked folder": f"linked/{name}",
    }[way]
    path = folder / "s.yaml"
    path.write_text(scenario(written))
    with pytest.raises(InputError) as caught:
        load_scenario(path)
    error = caught.value
    assert error.file == str(path)
    assert error.field == case.partition(" of ")[0]
    assert path.read_text().splitlines()[error.line - 1].find(written) >= 0
    assert "--any-path" in error.message
    assert load_scenario(path, any_path=True).files


def test_what_lies_outside_is_not_even_opened(folder):
    # whoever opened it would wait for a writer for ever
    pipe = folder.parent / "pipe.csv"
    os.mkfifo(pipe)
    (folder / "s.yaml").write_text(text(workload="{kind: flows, path: ../pipe.csv}"))
    with pytest.raises(InputError, match="leads out of the scenario's folder"):
        load_scenario(folder / "s.yaml")


def test_a_network_alone_is_held_to_the_same(folder):
    path = folder / "network.yaml"
    path.write_text(
        "name: n\ncluster: {node: h800, topology: {kind: custom, path: ../elsewhere/graph.json}}\n"
    )
    with pytest.raises(InputError, match="leads out"):
        load_network(path)
    assert load_network(path, any_path=True).num_nodes == 2


def test_a_path_may_go_up_and_come_back_and_links_may_stay_inside(folder):
    (folder / "deep").mkdir(exist_ok=True)
    (folder / "deep" / "flows.csv").write_text(FLOWS)
    if not (folder / "inside.csv").is_symlink():
        (folder / "inside.csv").symlink_to("deep/flows.csv")
    for name in ("deep/../flows.csv", "../scenarios/flows.csv", "inside.csv", "./deep/flows.csv"):
        (folder / "s.yaml").write_text(text(workload=f"{{kind: flows, path: {name}}}"))
        assert load_scenario(folder / "s.yaml").files


def test_a_folder_that_is_itself_a_link_is_where_it_leads(folder):
    link = folder.parent / "also"
    link.symlink_to(folder)
    (folder / "s.yaml").write_text(text(workload="{kind: flows, path: flows.csv}"))
    assert load_scenario(link / "s.yaml").files


def test_links_in_a_circle_are_one_message(folder):
    (folder / "circle.csv").symlink_to("circle.csv")
    (folder / "s.yaml").write_text(text(workload="{kind: flows, path: circle.csv}"))
    with pytest.raises(InputError, match=r"workload\.path"):
        load_scenario(folder / "s.yaml")


def test_names_of_catalogues_are_no_files(folder):
    for name in catalogue():
        (folder / "s.yaml").write_text(text(model=name))
        assert not load_scenario(folder / "s.yaml").files


def test_the_digest_is_of_contents_and_not_of_places(folder, tmp_path):
    def digest(name: str, where: Path, content: str) -> str:
        (where / name).parent.mkdir(parents=True, exist_ok=True)
        (where / name).write_text(content)
        (where / "s.yaml").write_text(text(workload=f"{{kind: flows, path: {name}}}"))
        return scenario_sha256(load_scenario(where / "s.yaml"))

    first = digest("one.csv", tmp_path, FLOWS)
    assert digest("deep/other.csv", tmp_path / "elsewhere", FLOWS) == first
    assert digest("one.csv", tmp_path, FLOWS.replace("1e6", "1000000")) != first


def test_a_file_that_changes_before_the_run_is_told(folder, tmp_path):
    (tmp_path / "flows.csv").write_text(FLOWS)
    (tmp_path / "s.yaml").write_text(text(workload="{kind: flows, path: flows.csv}"))
    loaded = load_scenario(tmp_path / "s.yaml")
    (tmp_path / "flows.csv").write_text(FLOWS + "1,8,5\n")
    with pytest.raises(
        InputError, match=r"workload\.path: flows\.csv has changed since the scenario was loaded"
    ):
        simulate(loaded)
    loaded = load_scenario(tmp_path / "s.yaml")
    (tmp_path / "flows.csv").unlink()
    with pytest.raises(InputError, match=r"workload\.path"):
        simulate(loaded)


def test_a_file_that_changes_after_the_run_is_not_kept_with_its_result(tmp_path):
    (tmp_path / "flows.csv").write_text(FLOWS)
    (tmp_path / "s.yaml").write_text(text(workload="{kind: flows, path: flows.csv}"))
    result = simulate(load_scenario(tmp_path / "s.yaml"))
    (tmp_path / "flows.csv").write_text(FLOWS + "1,8,5\n")
    with pytest.raises(InputError, match="has changed since the run"):
        result.save(tmp_path / "out")


def test_fields_in_lists_are_found_too(folder):
    class Item(Spec):
        path: Annotated[str, NamesFile()]

    class Holder(Spec):
        items: tuple[Item, ...]

    found = named_files(Holder(items=(Item(path="a"), Item(path="b"))), folder)
    assert [(file.field, file.name) for file in found] == [
        (("items", 0, "path"), "a"),
        (("items", 1, "path"), "b"),
    ]
