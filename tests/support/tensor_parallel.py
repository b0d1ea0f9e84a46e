"""Stages of a small model, divided by tensor parallelism."""

from support.training_steps import model
from workloads.layer_kernels import Tokens
from workloads.stage_layers import StageLayers
from workloads.training.stage_work import StageKernels, StageWork

SMALL = model(num_heads=4)
# embedding, a dense layer, two with experts, head, an MTP module
EVERYTHING = StageLayers(0, 1, 2, True, True, 1)
ONE = StageLayers(1, 0, 1, False, False, 0)
DENSE = StageLayers(0, 1, 0, False, False, 0)
TOKENS, ROWS = 64, 128


def work(stage: StageLayers, degree: int, of=SMALL, number_format="fp8") -> StageWork:
    """What a rank computes of a stage, with the tokens and rows that it has of those of all ranks."""
    tokens = Tokens(TOKENS // degree, 16, ROWS // degree, ROWS // degree, 4)
    kernels = StageKernels(
        of,
        of.attention,
        lambda _: tokens,
        of.num_heads // degree,
        -(-of.vocab_size // degree),
        number_format,
        20,
        degree,
    )
    return kernels.of(stage)
