"""A tiny run of each kind of workload."""

from dataclasses import dataclass, field
from pathlib import Path

from simulator import load_scenario
from simulator.scenario import LoadedScenario


def nccl_text(
    num_ranks: int, program: str = "all_reduce_perf", sizes: tuple[int, ...] = (1 << 20, 1 << 24)
) -> str:
    """Return what nccl-tests would print of sizes that took 20 us and their bytes at 100 GB/s."""
    factor = {"all_reduce_perf": 2 * (num_ranks - 1) / num_ranks, "sendrecv_perf": 1.0}
    lines = [
        "# nThread 1 nGpus 8 minBytes 1048576 maxBytes 16777216 step: 2(factor) warmup iters: 5 iters: 20",
        f"# Collective test starting: {program}",
        "# Using devices",
        *(
            f"#  Rank {rank:2d} Group  0 Pid   1887 on   worker-0 device  0 [0x8d] GPU"
            for rank in range(num_ranks)
        ),
        "#",
        "#                                            out-of-place                       in-place",
        "#       size    count   type   redop   root     time   algbw   busbw #wrong     time   algbw   busbw #wrong",
        "#        (B) (elements)                         (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)",
    ]
    for size in sizes:
        row = f"{size} {size // 4} float sum -1"
        for slower in (1, 2):
            seconds = slower * (20e-6 + size / 100e9)
            algbw = size / seconds / 1e9
            busbw = algbw * factor.get(program, (num_ranks - 1) / num_ranks)
            row += f"  {seconds * 1e6:.2f}  {algbw:.2f}  {busbw:.2f}  0"
        lines.append(row)
    return "\n".join([*lines, "# Out of bounds values : 0 OK", "# Avg bus bandwidth    : 72.3", "#", ""])


@dataclass(frozen=True)
class Case:
    workload: str
    model: str = "null"
    files: dict[str, str] = field(default_factory=dict)


CASES = {
    "collective": Case("{kind: collective, operation: all-to-all, size: 1 MB}"),
    "expert-parallel": Case(
        "{kind: expert-parallel, tokens_per_rank: 4, expert_parallel: 16, balance: eplb}", model="deepseek-v3"
    ),
    "flows": Case(
        "{kind: flows, path: flows.csv}",
        files={"flows.csv": "source,destination,size_bytes\n0,9,1e6\n"},
    ),
    "kernels": Case(
        "{kind: kernels, calls: [{kind: norm, rows: 4, width: 64}, {kind: copy, size_bytes: 100}]}"
    ),
    "nccl-tests": Case("{kind: nccl-tests, path: table.txt}", files={"table.txt": nccl_text(16)}),
    "decode-step": Case(
        "{kind: decode-step, expert_parallel: 16, batch_per_gpu: 4, cached_tokens: 16, mtp_acceptance: 0.8}",
        model="deepseek-v3",
    ),
    "prefill-step": Case(
        "{kind: prefill-step, expert_parallel: 16, prompt_tokens: 8, tokens_per_gpu: 16}", model="deepseek-v3"
    ),
    "training-step": Case(
        "{kind: training-step, pipeline_parallel: 2, expert_parallel: 8, schedule: 1f1b, sequences_per_step: 16, "
        "sequence_length: 16, ignore_memory: true}",
        model="deepseek-v3",
    ),
}


def tiny_scenario(kind: str, folder: Path, topology: str = "{kind: multi-plane-fat-tree}") -> LoadedScenario:
    """Return the case of a workload kind on two H800 nodes; its files are written into a folder."""
    case = CASES[kind]
    for name, content in case.files.items():
        (folder / name).write_text(content)
    (folder / "tiny.yaml").write_text(
        "name: tiny\n"
        f"cluster: {{node: h800, nodes: 2, topology: {topology}}}\n"
        f"model: {case.model}\ncosts: ideal\nworkload: {case.workload}\n"
    )
    return load_scenario(folder / "tiny.yaml")
