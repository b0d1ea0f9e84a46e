"""Models and what they ask of a cluster: tasks, kernels and transfers between ranks.

A new workload is one file with a spec, and one line in `WorkloadSpec`.
"""

from typing import Annotated, TypeAlias

from pydantic import Field

from workloads.collectives import CollectiveSpec
from workloads.expert_parallel import ExpertParallelSpec
from workloads.flows import FlowsSpec
from workloads.inference import DecodeStepSpec, PrefillStepSpec
from workloads.kernel_list import KernelsSpec
from workloads.nccl_tests import NcclTestsSpec
from workloads.training import TrainingStepSpec

__all__ = [
    "CollectiveSpec",
    "DecodeStepSpec",
    "ExpertParallelSpec",
    "FlowsSpec",
    "KernelsSpec",
    "NcclTestsSpec",
    "PrefillStepSpec",
    "TrainingStepSpec",
    "WorkloadSpec",
]

WorkloadSpec: TypeAlias = Annotated[
    CollectiveSpec
    | DecodeStepSpec
    | ExpertParallelSpec
    | FlowsSpec
    | KernelsSpec
    | NcclTestsSpec
    | PrefillStepSpec
    | TrainingStepSpec,
    Field(discriminator="kind", description="what runs on the cluster"),
]
