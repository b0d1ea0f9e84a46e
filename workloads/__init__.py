"""Models and what they ask of a cluster: tasks, kernels and transfers between ranks."""
