"""An overlapped forward-and-backward pair of a training step beside the published trace, layer by layer.

The trace (see `simulator.calibration.training_trace`) has two MoE layers of one pair at expert parallel 64. Here a
step runs on 64 GPUs, which hold both ends of the pipeline (DualPipeV of one rank), so that nothing is sent between
stages: the pair that is looked at overlaps, as the trace's does, MoE layers of two micro-batches, layer by layer.
Kernel times and the constants of communication are fitted to the trace, stage by stage alone; how they follow one
another is not.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import pandas as pd

from simulator.calibration.published_gemms import published
from simulator.reference import markdown_table
from simulator.result import Result
from simulator.run import simulate
from simulator.scenario import load_scenario
from workloads.schedules import Kind

SCENARIOS: Final = Path("scenarios")
SCENARIO: Final = "training_2048_multi_plane.yaml"
OVERRIDES: Final = (
    "cluster.nodes=8",
    "workload.pipeline_parallel=1",
    "workload.schedule=dualpipe-v",
    "workload.sequences_per_step=128",
    "workload.ignore_memory=true",
)
# Layers of the pair, from its first: far from the dense layers and the heads at its ends.
_FIRST, _LAYERS = 8, 16

# Stages of the trace, and the tasks that they are.
TASK_OF: Final[Mapping[str, str]] = {
    "attn(F)": "attention F",
    "mlp(F)": "experts F",
    "mlp(B)": "experts B",
    "mlp(W)": "experts W",
    "attn(B)": "attention B",
    "attn(W)": "attention W",
    "dispatch(F)": "dispatch F",
    "combine(F)": "combine F",
    "combine(B)": "combine B",
    "dispatch(B)": "dispatch B",
}
_MOVING: Final = frozenset({"comm_dispatch", "comm_combine"})


class Stage(NamedTuple):
    """A stage of a layer: seconds in the trace, mean of its layers, and here; communication without its wait."""

    name: str
    published_s: float
    predicted_s: float

    @property
    def missed(self) -> float:
        """Return by which share of the published time the predicted one is longer."""
        return self.predicted_s / self.published_s - 1.0


@cache
def pair(folder: Path = SCENARIOS) -> tuple[tuple[Stage, ...], Stage]:
    """Return the stages of a layer of the pair, and the layer as a whole."""
    loaded = load_scenario(folder / SCENARIO, OVERRIDES)
    wait_s = loaded.costs.communication["normal"].wait_beside_compute
    layers = _middle_layers(simulate(loaded))
    seconds = (layers["end_s"] - layers["start_s"]).groupby(layers["name"]).mean()
    stages = []
    for stage, published_s in _published_stages().items():
        waited_s = wait_s.value if wait_s is not None and stage.startswith(("dispatch", "combine")) else 0.0
        stages.append(Stage(stage, published_s, float(seconds[TASK_OF[stage]]) - waited_s))
    begins = layers.loc[layers["name"] == "combine B", "start_s"].to_numpy()
    whole_s = float(begins[-1] - begins[0]) / (len(begins) - 1)
    return tuple(stages), Stage("layer", _published_layer_s(), whole_s)


def pair_table() -> str:
    """Return the stages and the layer as Markdown."""
    stages, layer = pair()
    rows = [
        (
            stage.name,
            f"{stage.published_s * 1e6:.0f} us",
            f"{stage.predicted_s * 1e6:.0f} us",
            f"{stage.missed:+.1%}",
        )
        for stage in (*stages, layer)
    ]
    return markdown_table(("stage", "published", "railplane", "missed by"), rows)


def _middle_layers(result: Result) -> pd.DataFrame:
    """Return the tasks of some layers of the first pair, and the combine of gradients with which the next begins."""
    of_pair = result.phases.loc[result.phases["kind"] == str(Kind.FORWARD_BACKWARD)].iloc[0]
    tasks = result.tasks
    tasks = tasks.loc[(tasks["start_s"] >= of_pair["start_s"]) & (tasks["start_s"] < of_pair["end_s"])]
    begins = tasks.loc[tasks["name"] == "combine B", "start_s"].to_numpy()
    return tasks.loc[tasks["start_s"].between(begins[_FIRST], begins[_FIRST + _LAYERS])]


def _published_stages() -> dict[str, float]:
    """Return what each stage took, mean of the trace's layers: busy time, of communication that of moving kernels."""
    took: dict[str, float] = {}
    for row in published("h800_train_stage_spans.csv"):
        if row["stage"].startswith(("attn", "mlp")):
            on_two = float(row["busy_stream23_us"]) > 0.0
            busy_us = row["span_us"] if on_two else row["busy_compute_stream7_us"]
            took[row["stage"]] = took.get(row["stage"], 0.0) + float(busy_us) * 1e-6 / 2
    for row in published("h800_train_stage_kernelclass.csv"):
        if row["kernel_class"] in _MOVING:
            took[row["stage"]] = 1e-6 * (float(row["layer0_us"]) + float(row["layer1_us"])) / 2
    return took


def _published_layer_s() -> float:
    """Return the time of a layer: both of the trace's, from the first start to the last end, over two."""
    rows = list(published("h800_train_stage_spans.csv"))
    return (
        1e-6 * (max(float(row["end_us"]) for row in rows) - min(float(row["start_us"]) for row in rows)) / 2
    )
