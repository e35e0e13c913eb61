"""The endpoints of containers, benchmarks, datasets and progress."""
