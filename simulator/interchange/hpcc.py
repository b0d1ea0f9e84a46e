"""A scenario's network and flows as the text that the HPCC simulator on ns-3 reads.

Format: https://github.com/alibaba-edu/High-Precision-Congestion-Control, `mix/topology.txt`,
`simulation/mix/flow.txt` and their reader `simulation/scratch/third.cc`. Topology: `nodes switches links`, then the
switches' ids, then a line a link: `source target rate delay error_rate`. Flows: their number, then a line a flow, by
rising start: `source target priority_group port size_bytes start_s`.

A host is a NIC, so that the network is said whole; what lies within nodes is not. A NIC with ports in several planes
has a link for each.
"""

from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from simulator.durable import write_file
from simulator.interchange.acceptance import Acceptance
from simulator.interchange.case import Case
from simulator.interchange.network_flows import NetworkFlow, network_flows
from simulator.interchange.schedule import Whole
from simulator.units import UNITS
from simulator.whole_folder import WholeFolder

FILES: Final = ("topology.txt", "flow.txt", "hosts.csv", "README.md")

# third.cc: a node's id is two bytes of its address, a link's number the two middle ones of its own (10.1.1.0 to
# 10.255.254.0); sizes are read as 32 bits; each pair of hosts numbers the ports of its flows, in 16 bits, from 10000.
# switch-node.h has room for 256 ports (pCnt).
MOST_NODES: Final = 2**16
MOST_LINKS: Final = 255 * 254
MOST_PORTS: Final = 256
MOST_FLOW_BYTES: Final = 2**32 - 1
MOST_FLOWS_OF_PAIR: Final = 2**16 - 10_000
_PRIORITY_GROUP: Final = 3  # as in the simulator's own flow.txt
_PORT: Final = 100


def write_hpcc(
    case: Case,
    folder: Path | WholeFolder,
    accepted: Collection[str] = (),
    progress: Callable[[float], None] | None = None,
) -> None:
    """Write `topology.txt`, `flow.txt`, `hosts.csv` and a `README.md` as all that a folder holds of an export.

    accepted: names of `ACCEPTANCES`. Raises NotSayableError, before anything is written, for what the format cannot
    say and the user has not accepted to lose, OSError and FolderRefused. progress: called now and then with the share
    that is done of the run that tells when flows start
    """
    acceptance = Acceptance("the HPCC format", accepted)
    if case.loaded.scenario.faults:
        acceptance.refuse("faults and stragglers; take them out with --set 'faults=[]'")
    topology = _Topology(case, acceptance)
    flows = network_flows(case, acceptance, progress)
    acceptance.check()
    flow_lines = _flow_lines(flows, topology, acceptance)
    acceptance.check()
    contents = (
        topology.lines(),
        flow_lines,
        topology.host_lines(),
        _about(case, flows, topology, acceptance),
    )
    with WholeFolder.of(folder, "export").replaced() as new:
        for name, lines in zip(FILES, contents, strict=True):
            write_file(new / name, "".join(f"{line}\n" for line in lines).encode())


class _Topology:
    """Hosts, switches and links. Hosts come first, in the order of nodes and NICs.

    host_of_nic: name in the cluster graph -> id; rates: of its links, rising, as topology.txt has them
    """

    def __init__(self, case: Case, acceptance: Acceptance) -> None:
        vertices = case.cluster.nodes(data=True)
        nics = sorted((data["node"], data["index"], name) for name, data in vertices if data["kind"] == "nic")
        switches = [name for name, data in vertices if data["kind"] == "switch"]
        if not switches:
            acceptance.refuse("a cluster without a network between its nodes")
        acceptance.needs("network-only", "nodes have GPUs, NVLink and PCIe")
        if len(nics) + len(switches) > MOST_NODES:
            acceptance.refuse(
                f"{len(nics) + len(switches):,} NICs and switches; it addresses {MOST_NODES:,} at most"
            )
        self._nics = nics
        self.host_of_nic = {name: host for host, (_, _, name) in enumerate(nics)}
        self._switches = {name: len(nics) + place for place, name in enumerate(switches)}
        if case.loaded.scenario.cluster.routing != "ecmp":
            acceptance.needs("routing", f"routing is {case.loaded.scenario.cluster.routing}")
        rate, delay_s = self._joined(case, acceptance)
        self._check_size(list(rate), acceptance)
        self.rates = [f"{_gbps(bytes_per_s)}Gbps" for bytes_per_s in sorted(set(rate.values()))]
        self._links = [
            f"{source} {target} {_gbps(rate[source, target])}Gbps {_ms(delay_s[source, target])}ms 0"
            for source, target in sorted(rate)
        ]

    def _joined(
        self, case: Case, acceptance: Acceptance
    ) -> tuple[dict[tuple[int, int], float], dict[tuple[int, int], float]]:
        """Return rate and delay of links, by their ends: one for both directions, and for parallel cables."""
        cables, ids = case.network.cables, self.host_of_nic | self._switches
        rate: dict[tuple[int, int], float] = {}
        delay_s: dict[tuple[int, int], float] = {}
        columns = zip(
            cables.source.tolist(),
            cables.target.tolist(),
            cables.kind.tolist(),
            cables.profile.tolist(),
            cables.capacity_bytes_per_s.tolist(),
            strict=True,
        )
        for source, target, kind, profile, bytes_per_s in columns:
            if source not in ids or target not in ids or ids[source] > ids[target]:
                continue
            ends = ids[source], ids[target]
            if ends in rate:
                acceptance.needs("bundled-cables", f"{source} and {target} are joined by several cables")
            rate[ends] = rate.get(ends, 0.0) + bytes_per_s
            costs = case.costs[profile]
            # end to end through one switch is twice a NIC's cable; each further switch is one cable more
            delay_s[ends] = costs.latency_s / 2 if kind == "nic" else costs.switch_latency_s
        return rate, delay_s

    def _check_size(self, links: list[tuple[int, int]], acceptance: Acceptance) -> None:
        if len(links) > MOST_LINKS:
            acceptance.refuse(f"{len(links):,} links; it has addresses for {MOST_LINKS:,}")
        ports = Counter(end for link in links for end in link)
        for name, number in self._switches.items():
            if ports[number] > MOST_PORTS:
                acceptance.refuse(f"{name} has {ports[number]:,} ports; a switch has {MOST_PORTS} at most")

    def lines(self) -> list[str]:
        """Return the lines of topology.txt."""
        count = len(self._nics) + len(self._switches)
        ids = " ".join(map(str, self._switches.values()))
        return [f"{count} {len(self._switches)} {len(self._links)}", ids, *self._links]

    def host_lines(self) -> list[str]:
        """Return the lines of hosts.csv: what each id is in the cluster."""
        names = {**self.host_of_nic, **self._switches}
        return ["id,name", *(f"{number},{name}" for name, number in names.items())]


def _gbps(bytes_per_s: float) -> str:
    return f"{bytes_per_s / UNITS['bytes per second']['Gbit/s']:.12g}"


def _ms(seconds: float) -> str:
    return f"{seconds / UNITS['time']['ms']:.9g}"


def _flow_lines(flows: list[NetworkFlow], topology: _Topology, acceptance: Acceptance) -> list[str]:
    """Return the lines of flow.txt, and refuse what its numbers do not hold."""
    whole: dict[tuple[str, str], Whole] = {}
    lines: list[tuple[float, str]] = []
    of_pair: Counter[tuple[str, str]] = Counter()
    for flow in sorted(flows, key=lambda flow: flow.start_s):
        size_bytes = whole.setdefault((flow.source, flow.target), Whole()).next(flow.size_bytes)
        if size_bytes == 0:
            acceptance.needs("empty-flows", f"{flow.name} sends less than a byte from {flow.source}")
            continue
        if size_bytes > MOST_FLOW_BYTES:
            acceptance.refuse(
                f"a flow of {flow.name} with {size_bytes:,} bytes; it reads at most {MOST_FLOW_BYTES:,}, so that the "
                "scenario's sizes must be smaller"
            )
        of_pair[flow.source, flow.target] += 1
        source, target = topology.host_of_nic[flow.source], topology.host_of_nic[flow.target]
        start = f"{flow.start_s:.9f}"
        lines.append((float(start), f"{source} {target} {_PRIORITY_GROUP} {_PORT} {size_bytes} {start}"))
    most = max(of_pair.values(), default=0)
    if most > MOST_FLOWS_OF_PAIR:
        acceptance.refuse(f"{most:,} flows from one NIC to another; it has ports for {MOST_FLOWS_OF_PAIR:,}")
    return [str(len(lines)), *(line for _, line in lines)]


def _about(case: Case, flows: list[NetworkFlow], topology: _Topology, acceptance: Acceptance) -> list[str]:
    """Return the lines of the file beside the text."""
    total = sum(flow.size_bytes for flow in flows)
    last_s = max((flow.start_s for flow in flows), default=0.0)
    return [
        f"# {case.loaded.scenario.name}",
        "",
        "- `topology.txt` and `flow.txt` are what the HPCC simulator on ns-3 reads as TOPOLOGY_FILE and FLOW_FILE; "
        "`hosts.csv` says which NIC or switch each id is.",
        "- Rates are those of datasheets. A NIC's link has half of the latency through one switch that the cost "
        "table gives, software included, and a link between switches that of a further switch.",
        f"- Flows: {len(flows):,} between NICs, {total:,.0f} bytes; sizes are whole bytes, so that the sum of any "
        "pair's is right to a half. Starts are seconds, to a nanosecond; start-ups of kernels have passed.",
        f"- Its configuration needs an entry in KMIN_MAP, KMAX_MAP and PMAX_MAP for each rate of a link, "
        f"{', '.join(topology.rates)}, and a SIMULATOR_STOP_TIME well behind the last start, {last_s:.9f} s.",
        "- Congestion control, buffers and headers are those of the simulator that reads it.",
        "",
        "Accepted:",
        "",
        *(f"- {line}" for line in acceptance.lines()),
    ]
