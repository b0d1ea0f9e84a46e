"""What documents claim: links lead somewhere, commands and examples load, tables name what results hold."""

import importlib
import re
import shlex
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from simulator import load_scenario, simulate
from simulator.figures import HOWS
from simulator.kernel_times import BASES
from simulator.layout import RankLayout
from simulator.result import Result, flows_table
from simulator.transfer_times import TransferTimes
from support.clusters import network
from support.tiny_scenarios import CASES, tiny_scenario
from topologies.schema import EDGE_KINDS
from workloads import WorkloadSpec
from workloads.flops import describe
from workloads.models import load_model
from workloads.tasks import Collective, Transfers

ROOT = Path(__file__).parents[1]
MARKDOWN = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "scenarios/*.md")
    for path in ROOT.glob(pattern)
)
SHIPPED = sorted(path.name for path in (ROOT / "scenarios").glob("*.yaml"))
PACKAGES = ("simulator", "topologies", "workloads")


def text_of(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def prose_of(name: str) -> str:
    """Return a document without its code blocks."""
    return re.sub(r"^```.*?^```$", "", text_of(name), flags=re.MULTILINE | re.DOTALL)


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(name), re.MULTILINE | re.DOTALL)


def table_after(name: str, phrase: str) -> list[list[str]]:
    """Return the rows of the first table after a phrase; a row that has no first cell repeats that above it."""
    _, found, after = text_of(name).partition(phrase)
    assert found, f"{name} no longer says {phrase!r}"
    table = re.search(r"(?:^\|.*\n)+", after, re.MULTILINE)
    assert table
    lines = table[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")] for line in lines]
    for above, row in pairwise(rows):
        row[0] = row[0] or above[0]
    return rows


def names_in(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def named_after(phrase: str) -> set[str]:
    """Return the names that the first column of a table of docs/metrics.md defines, each once."""
    names = [name for row in table_after("docs/metrics.md", phrase) for name in names_in(row[0])]
    assert len(names) == len(set(names))
    return set(names)


# Links


def anchors(name: str) -> set[str]:
    """Return the anchors that GitHub gives a document's headings: small letters, no punctuation, hyphens."""
    headings = re.findall(r"^#+ (.*)$", prose_of(name), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def on_disk(target: str, folder: Path) -> Path:
    """Return the file that a link names; modules are looked up where they are imported from, as in a wheel."""
    path = (folder / target).resolve()
    assert path.is_relative_to(ROOT), f"{target} leads out of the repository"
    package, *rest = path.relative_to(ROOT).parts or (".",)
    if package in PACKAGES:
        return Path(str(importlib.import_module(package).__file__)).parent.joinpath(*rest)
    return path


def broken_links(name: str) -> list[str]:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose_of(name)):
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        path = on_disk(target, (ROOT / name).parent) if target else ROOT / name
        known = not anchor or anchor in anchors(path.relative_to(ROOT).as_posix())
        if not path.exists() or not known:
            broken.append(link)
    return broken


@pytest.mark.parametrize("name", MARKDOWN)
def test_relative_links_lead_somewhere(name: str):
    assert broken_links(name) == []


def test_broken_links_are_found(tmp_path: Path, monkeypatch):
    (tmp_path / "good.md").write_text("# A `b`, c\n")
    (tmp_path / "doc.md").write_text(
        "[1](good.md#a-b-c) [2](good.md#a) [3](bad.md) [4](https://example.org) [5](#x)\n```\n[6](code.md)\n```\n"
    )
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    assert broken_links("doc.md") == ["good.md#a", "bad.md", "#x"]


# Commands and examples


def claimed_runs() -> list[tuple[str, str]]:
    """Return (where, command) for each `run` or `check` of a shipped scenario, in documents and scenario files."""
    claims = []
    for name in [*MARKDOWN, *(f"scenarios/{file}" for file in SHIPPED)]:
        commands = re.findall(r"railplane ((?:run|check) scenarios/[^`\n]+)", text_of(name))
        claims += [(name, command) for command in commands]
    for row in table_after("scenarios/README.md", "# Scenarios"):
        file = names_in(row[0])[0]
        claims += [("scenarios/README.md", f"run scenarios/{file} {options}") for options in names_in(row[2])]
    return claims


@pytest.mark.parametrize(("where", "command"), claimed_runs())
def test_commands_name_scenarios_that_can_run(where: str, command: str):
    _, pattern, *options = shlex.split(command, comments=True)
    overrides = [value for option, value in pairwise(options) if option == "--set"]
    paths = sorted(ROOT.glob(pattern))
    assert paths, f"{where}: no file {pattern}"
    for path in paths:
        assert load_scenario(path, overrides).num_nodes > 0


def test_every_shipped_scenario_has_its_question_in_the_table():
    assert sorted(names_in(row[0])[0] for row in table_after("scenarios/README.md", "# Scenarios")) == SHIPPED


EXAMPLES = [
    (name, example)
    for name in MARKDOWN
    for example in blocks(name, "yaml")
    if re.search(r"^name:", example, re.MULTILINE)
]


def test_there_are_examples():
    assert {name for name, _ in EXAMPLES} == {"README.md", "scenarios/README.md"}


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_examples_can_run(name: str, example: str, tmp_path: Path):
    (tmp_path / "example.yaml").write_text(example)
    for flows in blocks(name, "csv"):
        (tmp_path / "flows.csv").write_text(flows)
    assert simulate(load_scenario(tmp_path / "example.yaml", ["costs=ideal"])).step_time_s > 0


@pytest.mark.parametrize("example", blocks("docs/inference.md", "python"))
def test_worked_examples_hold(example: str):
    assert "assert " in example
    exec(compile(example, "docs/inference.md", "exec"), {})


# What results hold


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[str, Result]:
    return {kind: simulate(tiny_scenario(kind, tmp_path_factory.mktemp(kind))) for kind in CASES}


def test_every_workload_kind_has_a_case():
    specs = get_args(get_args(WorkloadSpec)[0])
    assert {get_args(spec.model_fields["kind"].annotation)[0] for spec in specs} == set(CASES)


@pytest.mark.parametrize("kind", CASES)
def test_metrics_and_breakdown_are_defined(results, kind: str):
    summary = results[kind].summary
    for heading, of_kind in (("## Metrics", "metrics"), ("## Breakdown", "breakdown_s")):
        rows = table_after("docs/metrics.md", heading)
        named = [name for row in rows if row[0] == f"`{kind}`" for name in names_in(row[1])]
        assert sorted(named) == sorted(summary[of_kind])


def test_the_summary_is_defined(results):
    def flat(summary: dict[str, Any]) -> set[str]:
        kept = {"bounds_s", "simulation", "provenance"}  # the names within others have tables of their own
        return {
            f"{name}.{below}" if below else name
            for name, value in summary.items()
            for below in (value if name in kept else [""])
        }

    found = {kind: flat(result.summary) for kind, result in results.items()}
    everything = named_after("## The summary")
    assert everything == set().union(*found.values())
    of_models = {"decode-step", "prefill-step", "training-step"}
    only_some = {
        "balance": {"expert-parallel"},
        "nccl_tests": {"nccl-tests"},
        "kernels": {"kernels", *of_models},
        "pipeline_ranks": {"training-step"},
        "memory": of_models,
        "gpu_memory_bytes": of_models,
    }
    for kind, names in found.items():
        assert everything - names == {name for name, kinds in only_some.items() if kind not in kinds}


def test_the_entries_of_kernels_are_defined(results):
    kernels = results["kernels"].summary["kernels"]
    assert named_after("The summary's `kernels`") == set(kernels)
    rows = {row[0]: names_in(row[1]) for row in table_after("docs/metrics.md", "The summary's `kernels`")}
    assert rows["`step_share_by_how`"] == list(HOWS)
    assert rows["`step_share_by_basis`"] == list(BASES)
    assert all(rows["`by_kernel`"] == list(row) for row in kernels["by_kernel"].values())


def test_the_columns_of_measured_tables_are_defined(results):
    rows = results["nccl-tests"].summary["nccl_tests"]
    assert all(named_after("Each entry of `nccl_tests`") == set(row) for row in rows)


def test_the_entries_of_waits_and_of_balance_are_defined(results):
    summary = results["expert-parallel"].summary
    assert all(named_after("Each entry of `waits`") == set(row) for row in summary["waits"])
    (balance,) = (row[1] for row in table_after("docs/metrics.md", "## The summary") if row[0] == "`balance`")
    assert all(set(names_in(balance)) - {"balance"} == set(row) for row in summary["balance"].values())


def test_the_entries_and_kinds_of_links_are_defined(results):
    kinds = results["collective"].summary["links"]
    assert set(kinds) <= set(EDGE_KINDS)
    prose = text_of("docs/metrics.md").partition("A link is one direction")[2].partition("\n\n")[0]
    assert set(names_in(prose)) == set(EDGE_KINDS)
    assert named_after("Each kind's entry") == set(kinds["nic"])


def test_model_metrics_are_defined():
    metrics = describe(load_model("deepseek-v3", ROOT)).metrics()
    assert named_after("`railplane model MODEL --json` prints") == set(metrics)


@pytest.mark.parametrize("name", ["tasks", "phases", "links", "link_timeline"])
def test_columns_are_defined(results, name: str):
    named = named_after(f"\n`{name}.parquet`:")
    assert named == set(getattr(results["expert-parallel"], name).columns)
    for kind in ("collective", "flows"):
        only_balanced = {"bytes_before_balancing"} if name == "links" else set()
        assert named - set(getattr(results[kind], name).columns) == only_balanced


def test_columns_of_flows_are_defined(results):
    # One flow, once as it is and once as the row of its pair of nodes, which has `flows` in place of the ranks.
    one = Transfers.point_to_point(np.array([0]), np.array([9]), np.array([1e6]))
    times = (TransferTimes(np.zeros(1), np.zeros(1)),)
    pairs = flows_table((Collective("c", one),), times, RankLayout.in_order(2, 8), max_rows=0)
    each = set(results["flows"].flows.columns)
    assert set(pairs.columns) - each == {"flows"}
    assert named_after("\n`flows.parquet`:") == each | set(pairs.columns)


def test_outputs_are_named(results, tmp_path: Path):
    results["flows"].save(tmp_path)
    for path in sorted(tmp_path.iterdir()):
        assert f"`{path.name}`" in text_of("docs/metrics.md")


# Claims


def test_the_layers_are_those_that_are_checked():
    contracts = tomllib.loads(text_of("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    drawn = re.search(r"<!-- layers -->\n```\n(.*?)```", text_of("CONTRIBUTING.md"), re.DOTALL)
    assert drawn
    found = [sorted(row.split(" | ")) for row in drawn[1].splitlines()]
    assert found == [sorted(row.replace("simulator.", "").split(" | ")) for row in layers]


def test_an_uneven_tree_splits_unevenly():
    # docs/decisions.md: six leaves of 32 NICs and three spines. From leaf 0, with (11, 11, 10) cables up, one flow
    # to each other leaf charges a cable to the third spine 10/342 for the leaf that is wired alike (the fourth) and
    # 11/341 for the four others; an even split would be 5/32.
    compiled, layout = network(192, gpus=1, planes=1, bundle=False)
    assert {"plane0/leaf5", "plane0/spine2"} <= set(compiled.cables.target)
    first_of_leaf = 32 * np.arange(1, 6)
    flows = Transfers.point_to_point(np.zeros(5, np.int64), first_of_leaf, np.ones(5))
    bills, _ = compiled.bills(flows, layout.endpoint_of_rank, np.arange(5), lambda: np.zeros(0))
    charged = np.bincount(bills.links, bills.coefficients, compiled.num_links)
    third = (compiled.cables.source == "plane0/leaf0") & (compiled.cables.target == "plane0/spine2")
    assert third.sum() == 10
    assert charged[third] == pytest.approx(10 / 342 + 4 * 11 / 341, rel=1e-12)
    assert charged[third] / (5 / 32) == pytest.approx(1.013, abs=5e-4)
