"""The rules of containers, benchmarks and datasets."""
