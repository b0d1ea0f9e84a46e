"""A network and its flows as the HPCC simulator reads them: no byte lost, every flow with a way."""

from collections import Counter
from pathlib import Path

import pytest

from simulator import load_scenario, simulate
from simulator.interchange import ACCEPTANCES, Case, NotSayableError, write_hpcc
from support.command_line import railplane
from support.interchange_text import Hpcc, read_hpcc
from support.params import mostly_slow
from support.tiny_scenarios import CASES, tiny_scenario

EVERYTHING = tuple(ACCEPTANCES)
PLANES = "{kind: multi-plane-fat-tree, planes: 8, layers: 2, switch_ports: 64}"
FLOWS = "{kind: flows, path: flows.csv}"


def case_of(
    folder: Path,
    flows: str,
    topology: str = PLANES,
    costs: str = "h800-published",
    more: str = "",
    nodes: int = 2,
) -> Case:
    (folder / "flows.csv").write_text(f"source,destination,size_bytes,start_s\n{flows}")
    cluster = f"{{node: h800, nodes: {nodes}, topology: {topology}, routing: ecmp}}"
    text = f"name: s\ncluster: {cluster}\ncosts: {costs}\nworkload: {FLOWS}\n{more}"
    (folder / "s.yaml").write_text(text)
    return Case.of(load_scenario(folder / "s.yaml"))


def written(case: Case, folder: Path, accepted: tuple[str, ...] = EVERYTHING) -> Hpcc:
    out = folder / "out"
    write_hpcc(case, out, accepted)
    hpcc = read_hpcc((out / "topology.txt").read_text(), (out / "flow.txt").read_text())
    ids = {node for link in hpcc.links for node in link[:2]}
    assert ids | hpcc.switches <= set(range(hpcc.num_nodes))
    assert len({link[:2] for link in hpcc.links}) == len(hpcc.links)
    starts = [flow.start_s for flow in hpcc.flows]
    assert starts == sorted(starts)
    for source, target in {flow[:2] for flow in hpcc.flows}:
        assert {source, target}.isdisjoint(hpcc.switches)
        assert hpcc.reaches(source, target)
    return hpcc


def test_flows_leave_and_arrive_by_the_nics_that_they_take(tmp_path: Path):
    # 0 to 9: GPU 1 of the other node, over NVLink to GPU 1 and from its NIC; 3 to 11: its own; 0 to 1 stays inside
    case = case_of(tmp_path, "0,9,1000,2e-6\n3,11,0.4,0\n3,11,0.4,1e-6\n0,1,77,0\n")
    hpcc = written(case, tmp_path, ("network-only", "bundled-cables", "empty-flows"))
    assert [tuple(flow) for flow in hpcc.flows] == [(3, 11, 1, 1e-6), (1, 9, 1000, 2e-6)]
    names = dict(line.split(",") for line in (tmp_path / "out" / "hosts.csv").read_text().splitlines()[1:])
    assert (names["3"], names["9"]) == ("node0/nic3", "node1/nic1")
    assert names[str(min(hpcc.switches))].startswith("plane0/")


def test_links_have_the_rates_and_latencies_of_the_cost_table(tmp_path: Path):
    case = case_of(tmp_path, "0,8,1,0\n")
    hpcc = written(case, tmp_path)
    costs = case.costs["infiniband"]
    of_nics = [link for link in hpcc.links if link.source not in hpcc.switches]
    between = [link for link in hpcc.links if link.source in hpcc.switches]
    assert len(of_nics) == 16
    assert {link.gbps for link in of_nics} == {400}
    # NIC to leaf to NIC is what the table calls the latency through one switch
    assert 2 * of_nics[0].delay_s == pytest.approx(costs.latency_s, rel=1e-8)
    assert all(link.delay_s == pytest.approx(costs.switch_latency_s, rel=1e-8) for link in between)
    # parallel cables are one link of their summed rate: nothing of the network's capacity is lost
    cables = case.network.cables
    up = (cables.kind == "leaf_spine") & (cables.upward > 0)
    assert sum(link.gbps for link in between) == pytest.approx(cables.capacity_bytes_per_s[up].sum() * 8e-9)


@pytest.mark.no_cover
@pytest.mark.parametrize(
    "kind",
    mostly_slow([kind for kind in CASES if kind != "kernels"], "expert-parallel", "flows", "training-step"),
)
def test_no_byte_of_the_network_is_lost(kind: str, tmp_path: Path):
    case = Case.of(tiny_scenario(kind, tmp_path))
    hpcc = written(case, tmp_path)
    sent: Counter[str] = Counter()
    names = dict(line.split(",") for line in (tmp_path / "out" / "hosts.csv").read_text().splitlines()[1:])
    for flow in hpcc.flows:
        sent[names[str(flow.source)]] += flow.size_bytes
    # what railplane's own run counts on the cable of each NIC
    links = simulate(case.loaded).links
    nics = links[(links["kind"] == "nic") & links["source"].str.contains("/nic")]
    for nic, rows in nics.groupby("source"):
        pairs = len({flow.target for flow in hpcc.flows if names[str(flow.source)] == nic})
        assert abs(sent[nic] - rows["bytes"].sum()) <= 0.5 * pairs + 1e-9 * rows["bytes"].sum()
    assert sum(sent.values()) > 0 or not links.loc[links["kind"] == "nic", "bytes"].any()


def test_flows_that_wait_for_others_start_when_they_do_in_a_run(tmp_path: Path):
    case = Case.of(tiny_scenario("expert-parallel", tmp_path))
    hpcc = written(case, tmp_path)
    # dispatch starts at once, combine when the last of dispatch has ended
    dispatch = simulate(case.loaded).flows.query("collective == 'dispatch'")
    starts = {flow.start_s for flow in hpcc.flows}
    assert len(starts) == 2
    assert min(starts) == 0
    assert max(starts) == pytest.approx(dispatch["end_s"].max(), abs=1e-9)
    without = tuple(name for name in EVERYTHING if name != "start-times")
    with pytest.raises(NotSayableError, match="--accept start-times"):
        write_hpcc(case, tmp_path / "none", without)


def test_what_cannot_be_said_is_refused(tmp_path: Path):
    plain = "0,8,1,0\n"
    for more, topology, flows, complaint in (
        ("faults: [{kind: plane, plane: 2, at: 1 ms}]\n", PLANES, plain, "faults"),
        ("", PLANES, "0,8,5e9,0\n", "at most 4,294,967,295"),
    ):
        with pytest.raises(NotSayableError, match=complaint):
            write_hpcc(case_of(tmp_path, flows, topology, more=more), tmp_path / "out", EVERYTHING)
    with pytest.raises(NotSayableError, match="without a network"):
        write_hpcc(case_of(tmp_path, "0,1,1,0\n", "{kind: none}", nodes=1), tmp_path / "out", EVERYTHING)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("limit", "value", "complaint"),
    [
        ("MOST_NODES", 16, "NICs and switches; it addresses 16"),
        ("MOST_LINKS", 20, "links; it has addresses for 20"),
        ("MOST_PORTS", 1, r"plane0/leaf0 has 4 ports; a switch has 1 at most"),
        ("MOST_FLOWS_OF_PAIR", 2, "3 flows from one NIC to another; it has ports for 2"),
    ],
)
def test_more_than_it_has_numbers_for_is_refused(
    limit: str, value: int, complaint: str, tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(f"simulator.interchange.hpcc.{limit}", value)
    # from one NIC, three to another and two to a third; a leaf has three NICs and one spine
    case = case_of(tmp_path, "0,8,1,0\n" * 3 + "0,16,1,0\n" * 2, nodes=3)
    with pytest.raises(NotSayableError, match=complaint):
        write_hpcc(case, tmp_path / "out", EVERYTHING)


def test_what_its_configuration_must_have_is_said(tmp_path: Path):
    written(case_of(tmp_path, "0,8,1,2e-3\n"), tmp_path)
    about = (tmp_path / "out" / "README.md").read_text()
    rates = {line.split()[2] for line in (tmp_path / "out" / "topology.txt").read_text().splitlines()[2:]}
    assert all(rate in about for rate in rates)
    assert "behind the last start, 0.002000000 s" in about


def test_from_the_command_line(monkeypatch, capsys, tmp_path: Path):
    case_of(tmp_path, "0,8,1000,0\n")
    out = tmp_path / "out"
    run = ("export", tmp_path / "s.yaml", "--format", "hpcc", "--out", out)
    assert railplane(monkeypatch, *run) == 2
    assert "--accept network-only --accept bundled-cables" in capsys.readouterr().err
    assert railplane(monkeypatch, *run, "--accept", "network-onyl") == 2
    assert "did you mean 'network-only'" in capsys.readouterr().err
    assert railplane(monkeypatch, *run, "--accept", "network-only", "--accept", "bundled-cables") == 0
    text = {"topology.txt", "flow.txt", "hosts.csv", "README.md"}
    assert {path.name for path in out.iterdir()} == text | {"files.json", ".railplane"}
    assert (
        railplane(monkeypatch, "export", tmp_path / "s.yaml", "--format", "goal", "--out", tmp_path / "goal")
        == 0
    )
    assert (tmp_path / "goal" / "schedule.goal").read_text().startswith("num_ranks 16\n")
    (tmp_path / "file").write_text("")
    assert railplane(monkeypatch, *run[:-1], tmp_path / "file") == 2
    assert "names a file" in capsys.readouterr().err
