"""Forward passes of inference: the prompts of new requests, or one token more for each."""

from workloads.inference.spec import DecodeStepSpec, PrefillStepSpec

__all__ = ["DecodeStepSpec", "PrefillStepSpec"]
