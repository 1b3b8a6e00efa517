"""`make gpu`'s benchmarks: steps and phases on an NVIDIA GPU, beside other implementations, in one process."""
