"""Models and what they ask of a cluster: tasks, kernels and transfers between ranks.

A new workload is one file with a spec, and one line in `WorkloadSpec`.
"""

from typing import Annotated, TypeAlias

from pydantic import Field

from workloads.collectives import CollectiveSpec
from workloads.expert_parallel import ExpertParallelSpec
from workloads.flows import FlowsSpec

__all__ = ["CollectiveSpec", "ExpertParallelSpec", "FlowsSpec", "WorkloadSpec"]

WorkloadSpec: TypeAlias = Annotated[
    CollectiveSpec | ExpertParallelSpec | FlowsSpec,
    Field(discriminator="kind", description="what runs on the cluster"),
]
