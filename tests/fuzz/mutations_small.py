"""The shipped scenarios made small: their own fields, with fewer nodes, tokens and layers, so that a run is quick."""

import json
import shutil
from pathlib import Path
from typing import Any, Final

from simulator.document import read_document
from simulator.scenario import LoadedScenario
from workloads import models

_EXCHANGE: Final = {"workload.expert_parallel": 16, "workload.tokens_per_rank": 16}
_INFERENCE: Final = {"workload.expert_parallel": 16, "workload.batch_per_gpu": 4, "model": "small.json"}
_TRAINING: Final = {
    "cluster.nodes": 2,
    "workload.pipeline_parallel": 2,
    "workload.expert_parallel": 8,
    "workload.sequences_per_step": 64,
    "workload.sequence_length": 16,
    "workload.ignore_memory": True,
    "model": "small.json",
}
# Scenario -> what is set in it. Topology specs are counted, not built, and stay as they are.
_SMALLER: Final[dict[str, dict[str, Any]]] = {
    "all_to_all_128": {"cluster.nodes": 2, "workload.size": "8 MiB"},
    "decode_ep128": _INFERENCE,
    "decode_ep320": {**_INFERENCE, "workload.redundant_experts": 15},
    "decode_h100_ep72": {**_INFERENCE, "cluster.nodes": 2},
    "decode_limit_infiniband": {**_INFERENCE, "workload.batch_per_gpu": 64},
    "decode_limit_nvl72": {"model": "small.json"},
    "dispatch_64_multi_plane": {**_EXCHANGE, "cluster.nodes": 2},
    "dispatch_64_multi_rail": {**_EXCHANGE, "cluster.nodes": 2},
    "expert_parallel_low_latency": _EXCHANGE,
    "expert_parallel_normal": _EXCHANGE,
    "expert_parallel_skewed": _EXCHANGE,
    "kernels": {},
    "nccl_all_reduce": {},
    "pcie_contention": {"workload.batch_per_gpu": 4, "model": "small.json"},
    "plane_failure": {**_EXCHANGE, "cluster.nodes": 2},
    "prefill_ep32": {
        "workload.expert_parallel": 16,
        "workload.prompt_tokens": 64,
        "workload.tokens_per_gpu": 128,
        "model": "small.json",
    },
    "roce_routing": {"cluster.nodes": 4, "workload.size": "1 MiB"},
    "training_2048_multi_plane": _TRAINING,
    "training_2048_multi_rail": _TRAINING,
    "training_schedules": _TRAINING,
}
_MOST_RANKS: Final = 72
_MOST_WORK: Final = 4000


def small_model() -> dict[str, Any]:
    """Return the published config.json of DeepSeek-V3 with four layers, and a quarter of the experts."""
    name = "deepseek-v3.json"
    config: dict[str, Any] = json.loads((Path(models.__file__).parent / "model_configs" / name).read_text())
    return {**config, "num_hidden_layers": 4, "first_k_dense_replace": 1, "n_routed_experts": 64}


def small_scenarios(shipped: Path) -> dict[str, dict[str, Any]]:
    """Return the plain data of every shipped scenario and topology spec, made small, by name."""
    found = {}
    for path in [*sorted(shipped.glob("*.yaml")), *sorted((shipped / "topologies").glob("*.yaml"))]:
        data = read_document(path).data
        for field, value in _SMALLER[path.stem].items() if "workload" in data else ():
            *above, last = field.split(".")
            holder = data
            for name in above:
                holder = holder[name]
            holder[last] = value
        found[path.stem] = data
    return found


def write_files(shipped: Path, folder: Path) -> None:
    """Write the files that small scenarios name into their folder."""
    (folder / "small.json").write_text(json.dumps(small_model(), indent=2))
    shutil.copytree(shipped / "data", folder / "data", dirs_exist_ok=True)


def is_quick(loaded: LoadedScenario) -> bool:
    """Return whether a run takes about a second: by its ranks, layers and micro-batches."""
    ranks = loaded.num_nodes * loaded.node.gpus
    fields = loaded.scenario.workload.model_dump()
    layers = 1 if loaded.model is None else loaded.model.num_layers + loaded.model.num_mtp_layers
    micro_batches = fields.get("sequences_per_step", fields.get("micro_batches", 2)) or 2
    listed = sum(len(value) for value in fields.values() if isinstance(value, (list, tuple)))
    return (
        ranks <= _MOST_RANKS
        and layers * micro_batches + listed <= _MOST_WORK
        and ranks * layers <= _MOST_WORK
    )
