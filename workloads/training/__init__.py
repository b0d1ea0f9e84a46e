"""One optimizer step of training: a pipeline schedule whose phases compute, exchange tokens and send activations."""

from workloads.training.spec import TrainingStepSpec

__all__ = ["TrainingStepSpec"]
