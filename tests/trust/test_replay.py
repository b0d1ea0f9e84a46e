"""A result carries what it takes to run it again: its scenario and every file that this names."""

import shutil
from pathlib import Path

import pytest

from simulator import load_scenario, simulate
from simulator.result import Result
from support.tiny_scenarios import CASES

# those that take a second; `pytest -m slow tests/trust` replays the others
QUICK = {"decode_limit_infiniband", "dispatch_64_multi_plane", "kernels", "nccl_all_reduce", "plane_failure"}
SHIPPED = sorted(path.stem for path in (Path(__file__).parents[2] / "scenarios").glob("*.yaml"))


def replayed(scenario: Path, out: Path) -> tuple[Result, Result]:
    """Return what a run saved, and what the scenario that it carries gives; nothing else is left by then."""
    simulate(load_scenario(scenario)).save(out / "first")
    shutil.rmtree(scenario.parent)
    (out / "first").rename(out / "moved")
    return Result.load(out / "moved"), simulate(load_scenario(out / "moved" / "scenario.yaml"))


def assert_alike(one: Result, other: Result) -> None:
    assert one.summary == other.summary
    assert one.scenario_text == other.scenario_text
    for table in ("tasks", "phases", "flows", "links", "link_timeline"):
        assert getattr(one, table).equals(getattr(other, table)), table
    assert list(one.files) == list(other.files)
    for name, path in one.files.items():
        assert path.read_bytes() == other.files[name].read_bytes()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in SHIPPED]
)
def test_the_scenario_of_a_result_gives_the_result(scenarios, tmp_path, name):
    shutil.copytree(scenarios, tmp_path / "scenarios")
    assert_alike(*replayed(tmp_path / "scenarios" / f"{name}.yaml", tmp_path))


@pytest.mark.parametrize("kind", [kind for kind, case in CASES.items() if case.files])
def test_so_does_one_that_names_files_even_when_these_are_gone(tmp_path, kind):
    folder = tmp_path / "made"
    (folder / "deep").mkdir(parents=True)
    case = CASES[kind]
    workload = case.workload
    for name, content in case.files.items():
        (folder / "deep" / name).write_text(content)
        workload = workload.replace(name, f"deep/../deep/{name}")
    config = Path(__file__).parents[2] / "workloads" / "model_configs" / "deepseek-v3.json"
    (folder / "config.json").write_text(config.read_text())
    (folder / "s.yaml").write_text(
        "name: tiny\ncluster: {node: h800, nodes: 2, topology: {kind: multi-plane-fat-tree}}\n"
        f"model: config.json\ncosts: ideal\nworkload: {workload}\n"
    )
    first, second = replayed(folder / "s.yaml", tmp_path)
    assert_alike(first, second)
    assert set(first.files) == {
        "inputs/model/config.json",
        *(f"inputs/workload.path/{name}" for name in case.files),
    }
    assert set(first.summary["provenance"]["files"]) == {"model", "workload.path"}
