"""What is said of results side by side: hand-checked differences, and sentences that follow the facts."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from simulator import compare, load_scenario, simulate
from simulator.comparison import TABLES
from simulator.comparison.sides import RunKilled
from simulator.input_error import InputError
from support.sweep_folders import contents

# Every GPU sends an equal part to every other: bytes on each link are proportional to the size.
ALL_TO_ALL = """\
name: {name}
cluster:
  node: h800
  nodes: 4
  topology: {{kind: two-layer-fat-tree, switch_ports: 64, endpoints_per_leaf: 16, uplinks_per_leaf: {uplinks}}}
workload: {{kind: collective, operation: all-to-all, size: {size}, ranks: all}}
"""
DISPATCH = """\
name: {name}
cluster: {{node: h800, nodes: 2, topology: {{kind: {topology}, layers: 2, switch_ports: 64}}}}
model: deepseek-v3
workload: {{kind: expert-parallel, tokens_per_rank: 64, expert_parallel: 16}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of scenario files, and of what running each gave."""
    folder = tmp_path_factory.mktemp("comparison")
    texts = {
        "once": ALL_TO_ALL.format(name="once", uplinks=16, size="64 MiB"),
        "twice": ALL_TO_ALL.format(name="twice", uplinks=16, size="128 MiB"),
        "narrow": ALL_TO_ALL.format(name="narrow", uplinks=2, size="64 MiB"),
        "planes": DISPATCH.format(name="planes", topology="multi-plane-fat-tree"),
        "rails": DISPATCH.format(name="rails", topology="multi-rail-fat-tree"),
    }
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text)
        simulate(load_scenario(folder / f"{name}.yaml")).save(folder / name)
    return folder


def value(table: pd.DataFrame, group: str, figure: str, scenario: str, column: str = "value") -> float:
    found = table[(table["group"] == group) & (table["figure"] == figure) & (table["scenario"] == scenario)]
    assert len(found) == 1
    return float(found[column].iloc[0])


def test_twice_the_bytes_differ_by_a_hundred_percent(folder):
    figures = compare([folder / "once", folder / "twice"]).figures
    for kind in ("nvlink", "pcie", "nic", "leaf_spine"):
        assert value(figures, "links", f"{kind}.bytes", "twice", "difference") == pytest.approx(1.0)
        assert value(figures, "links", f"{kind}.count", "twice", "difference") == 0.0
    # 32 ranks, of which each keeps a 32nd of its size and sends a 32nd to each of the 24 on other nodes
    sent = 32 * 24 * 2**26 / 32
    assert value(figures, "links", "nic.bytes", "once") == pytest.approx(
        2 * sent
    )  # out of a NIC and into one
    once, twice = (simulate(load_scenario(folder / f"{name}.yaml")).step_time_s for name in ("once", "twice"))
    assert value(figures, "step", "step_time_s", "twice", "difference") == (twice - once) / once
    wide = compare([folder / "once", folder / "twice"]).table
    assert wide.loc[("links", "nic.bytes"), "twice: difference (%)"] == pytest.approx(100.0)


def test_figures_are_equal_to_a_billionth_or_they_are_not(folder):
    figures = compare([folder / "planes", folder / "rails"]).figures
    network = figures[(figures["group"] == "network") & (figures["scenario"] == "rails")].set_index("figure")
    assert network["equal"]["endpoints"]
    assert not network["equal"]["cost_usd"]
    # 16 leaves and spines of planes of one leaf; rails share their spines
    switches = [value(figures, "network", "switches", name) for name in ("planes", "rails")]
    assert network["difference"]["switches"] == (switches[1] - switches[0]) / switches[0] < 0


def test_what_only_one_has_is_absent_and_warned_about(folder):
    comparison = compare([folder / "once", folder / "planes"])
    assert math.isnan(value(comparison.figures, "metrics", "busbw_bytes_per_s", "planes"))
    assert math.isnan(value(comparison.figures, "metrics", "dispatch_s", "once"))
    assert comparison.cautions[0] == (
        "Workloads are not alike: collective in once, expert-parallel in planes. Figures that only some have are "
        "absent elsewhere."
    )
    assert "GPUs are not as many: 32 in once, 16 in planes." in comparison.cautions
    rows = json.loads(comparison.to_json())["figures"]
    assert next(row for row in rows if row["figure"] == "busbw_bytes_per_s" and row["scenario"] == "planes")[
        "value"
    ] is None  # fmt: skip


def test_saved_folders_say_what_live_runs_say(folder):
    names = ("planes", "rails")
    live = compare([folder / f"{name}.yaml" for name in names], jobs=1)
    saved = compare([folder / name for name in names])
    mixed = compare({name: folder / f"{name}{end}" for name, end in zip(names, ("", ".yaml"), strict=True)})
    loaded = compare([load_scenario(folder / f"{name}.yaml") for name in names], jobs=1)
    assert live.to_json() == saved.to_json() == mixed.to_json() == loaded.to_json()
    for name in TABLES:
        pd.testing.assert_frame_equal(getattr(live, name), getattr(saved, name))


def test_runs_in_processes_of_their_own_give_the_same(folder):
    files = [folder / "once.yaml", folder / "narrow.yaml"]
    shares: list[float] = []
    assert compare(files, jobs=2, progress=shares.append).to_json() == compare(files, jobs=1).to_json()
    assert shares == [0.5, 1.0]


def test_a_process_that_is_killed_is_one_error(folder, monkeypatch):
    def killed(_place, _loaded):
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr("simulator.comparison.sides._run", killed)
    with pytest.raises(RunKilled, match="most likely memory did not suffice: try --jobs 1"):
        compare([folder / "once.yaml", folder / "narrow.yaml"], jobs=2)


def test_what_is_no_list_and_no_number_of_runs_is_refused(folder):
    for alone in (str(folder / "once.yaml"), folder / "once.yaml", load_scenario(folder / "once.yaml")):
        with pytest.raises(InputError, match="there is nothing to compare it with") as caught:
            compare(alone)
        assert caught.value.file == str(folder / "once.yaml")
    with pytest.raises(InputError, match="--jobs: at least 1 scenario must run at a time, not 0"):
        compare([folder / "once.yaml", folder / "narrow.yaml"], jobs=0)


def test_fields_that_differ_are_those_that_were_changed(folder):
    fields = compare([folder / "once", folder / "narrow"]).fields
    assert fields.to_dict("records") == [
        {"field": "cluster.topology.uplinks_per_leaf", "scenario": "once", "value": "16"},
        {"field": "cluster.topology.uplinks_per_leaf", "scenario": "narrow", "value": "2"},
    ]


def test_a_fault_that_only_one_has_is_told_by_its_fields(folder, tmp_path):
    # `faults` itself is empty in one and absent in none; `for` and other fields without a value tell nothing
    faulty = tmp_path / "faulty.yaml"
    fault = "faults: [{kind: plane, plane: 3, at: 10 us}]\n"
    faulty.write_text((folder / "planes.yaml").read_text().replace("name: planes", "name: faulty") + fault)
    comparison = compare([folder / "planes", faulty], jobs=1)
    fields = comparison.fields
    assert list(fields["value"][fields["scenario"] == "faulty"]) == ["10 us", "0.0", "plane", "3"]
    assert fields["value"][fields["scenario"] == "planes"].isna().all()
    names = "faults.0.at, faults.0.capacity, faults.0.kind, faults.0.plane"
    assert comparison.verdict[-1] == f"What was changed: {names}."


def test_equal_steps_are_said_to_be_equal_and_why(folder):
    comparison = compare([folder / "planes", folder / "rails"])
    said = comparison.verdict
    assert said[0].startswith("planes and rails take the same step, to the last bit: ")
    assert any(
        line.startswith(
            "All links that are ever saturated are as many, as busy and as long saturated in both"
        )
        for line in said
    )
    cost = value(comparison.figures, "network", "cost_usd", "rails", "difference")
    assert f"The network of rails costs {-cost:.1%} less than that of planes, with the same step." in said
    assert said[-1] == "What was changed: cluster.topology.kind."
    assert not comparison.cautions


def test_a_link_kind_that_is_saturated_in_one_only_is_named(folder):
    comparison = compare([folder / "once", folder / "narrow"])
    said = comparison.verdict
    kinds = comparison.kinds.set_index(["kind", "scenario"])
    # 16 NICs of a leaf have 16 cables up in one, and 2 in the other, which hold them up
    assert kinds["saturated_fraction"]["leaf_spine", "narrow"] > 0.9
    longer = value(comparison.figures, "step", "step_time_s", "narrow")
    assert said[0].startswith(f"narrow takes {1e3 * longer:.4g} ms, ")
    assert "times as long as once" in said[0]
    busy = next(line for line in said if line.startswith("In narrow, the busiest link"))
    assert "of kind leaf_spine" in busy
    assert busy.endswith("so that it bounds the step.")
    assert not any("whatever else differs" in line for line in said)
    assert (
        "The last rank of all-to-all waits longest for a link of kind nic in once, a link of kind leaf_spine in "
        in (" ".join(said))
    )
    # the other way about, the sentences turn
    back = compare([folder / "narrow", folder / "once"]).verdict
    assert "shorter than narrow" in back[0]


def test_an_idle_kind_that_differs_is_said_to_hold_nothing_back(folder):
    said = compare([folder / "once", folder / "planes"]).verdict
    line = next(line for line in said if "pcie_host" in line)
    assert "64 that carry nothing in once; 32 that carry nothing in planes" in line
    assert line.endswith("None is ever saturated, so they hold no flow back.")


def test_one_scenario_against_itself_differs_in_nothing(folder):
    comparison = compare({"a": folder / "once", "b": folder / "once.yaml"})
    assert comparison.figures["equal"].all()
    assert len(comparison.fields) == len(comparison.links) == len(comparison.assumptions) == 0
    assert comparison.verdict[-1] == "The scenarios, as resolved, do not differ but for their names."


def test_links_that_differ_most_come_first(folder):
    links = compare([folder / "once", folder / "narrow"]).links
    of_nics = links[links["kind"] == "nic"]
    assert len(of_nics) == 3
    assert list(of_nics["scenario"]) == ["narrow"] * 3
    apart = (of_nics["utilisation"] - of_nics["first_utilisation"]).abs()
    assert apart.is_monotonic_decreasing
    assert of_nics["bytes"].to_numpy() == pytest.approx(of_nics["first_bytes"].to_numpy())
    assert set(links["kind"]) >= {"nvlink", "pcie", "nic"}


def test_planes_and_rails_share_out_all_links(folder):
    comparison = compare([folder / "planes", folder / "rails"])
    places = comparison.places.set_index(["kind", "by", "scenario"]).sort_index()
    assert list(places.loc[("nic", "plane", "planes"), "number"]) == list(range(8))
    assert list(places.loc[("nic", "rail", "rails"), "number"]) == list(range(8))
    assert places.loc[("leaf_spine", "rail", "rails"), "number"].tolist() == list(range(8))
    nics = comparison.kinds.set_index(["kind", "scenario"])["count"]["nic", "rails"]
    assert places.loc[("nic", "rail", "rails"), "count"].sum() == nics


def test_other_versions_tables_and_sources_are_warned_about(folder, tmp_path):
    result = simulate(load_scenario(folder / "once.yaml"))
    provenance = result.summary["provenance"]
    provenance["version"] = "0.0.1"
    provenance["cost_sources"]["link_efficiency.nvlink"] = "assumed: a guess"
    result.save(tmp_path / "old")
    text = (tmp_path / "old" / "scenario.yaml").read_text().replace("h800-published", "roofline")
    (tmp_path / "old" / "scenario.yaml").write_text(text)
    (tmp_path / "old" / "files.json").unlink()  # which says that it was written otherwise
    found = compare({"new": folder / "once", "old": tmp_path / "old"}).cautions
    assert any(line.startswith("Versions of railplane differ: ") and "0.0.1 in old" in line for line in found)
    assert any(
        line.startswith("Cost tables differ: h800-published in new, roofline in old") for line in found
    )
    assert "Constants are not from one source in all: link_efficiency.nvlink." in found


def test_a_network_that_cannot_be_known_is_absent_and_said_so(folder, tmp_path):
    simulate(load_scenario(folder / "once.yaml")).save(tmp_path / "moved")
    path = tmp_path / "moved" / "scenario.yaml"
    text = path.read_text()
    start, end = text.index("  topology:"), text.index("  routing:")
    path.write_text(text[:start] + "  topology: {kind: custom, graph: gone.graphml}\n" + text[end:])
    (tmp_path / "moved" / "files.json").unlink()  # which says that it was written otherwise
    comparison = compare({"here": folder / "once", "moved": tmp_path / "moved"})
    assert math.isnan(value(comparison.figures, "network", "cost_usd", "moved"))
    assert any(
        line.startswith("Figures of the network of moved are absent: ") for line in comparison.cautions
    )


def test_scenarios_of_one_name_are_called_by_their_paths(folder, tmp_path):
    result = simulate(load_scenario(folder / "once.yaml"))
    result.save(tmp_path / "again")
    labels = compare([folder / "once", tmp_path / "again"]).labels
    assert labels == [str(folder / "once"), str(tmp_path / "again")]
    same = load_scenario(folder / "once.yaml")
    with pytest.raises(InputError, match=r"one name and one path; give a name to each"):
        compare([same, same])


def test_overrides_change_files_and_are_refused_by_folders(folder):
    comparison = compare([folder / "once.yaml", folder / "narrow.yaml"], ["workload.size=128 MiB"], jobs=1)
    twice = value(compare([folder / "once", folder / "twice"]).figures, "step", "step_time_s", "twice")
    assert value(comparison.figures, "step", "step_time_s", "once") == twice
    with pytest.raises(InputError, match=r"saved result, in which --set seed=2 can change nothing"):
        compare([folder / "once.yaml", folder / "narrow"], ["seed=2"])
    with pytest.raises(InputError, match=r"set its fields when it is"):
        compare([load_scenario(folder / "once.yaml"), folder / "narrow.yaml"], ["seed=2"])


def test_what_is_saved_is_what_was_compared(folder, tmp_path):
    comparison = compare([folder / "once", folder / "planes"])
    comparison.save(tmp_path / "a")
    comparison.save(tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert json.loads((tmp_path / "a" / "comparison.json").read_text()) == json.loads(comparison.to_json())
    for name in TABLES:
        table = getattr(comparison, name)
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "a" / f"{name}.parquet"), table)
        assert len(pd.read_csv(tmp_path / "a" / f"{name}.csv")) == len(table)
