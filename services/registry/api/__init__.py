"""The endpoints of containers, benchmarks and datasets."""
