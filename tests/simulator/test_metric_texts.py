"""Metrics as people read them."""

from simulator.metric_texts import show_metric


def test_metrics_are_shown_in_what_their_names_say():
    assert show_metric("flops_per_s_per_gpu_causal", 3.85e14) == "385 TFLOP/s"
    assert show_metric("mfu_non_causal", 0.4321) == "43.2%"
    assert show_metric("memory_bytes_per_gpu", 81.5e9) == "81.5 GB"
    assert show_metric("exposed_communication_s", 0.25) == "250 ms"
    assert show_metric("tokens_per_day", 7.5e9) == "7.5 B"
    assert show_metric("tokens_per_step", 1048576) == "1,048,576"
    assert show_metric("dispatch_wire_bytes_per_s", 4.5e10) == "45 GB/s"
    assert show_metric("gpu_load_max_over_mean", 1.0625) == "1.062"
