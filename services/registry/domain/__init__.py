"""The rules of containers, benchmarks, datasets and progress."""
