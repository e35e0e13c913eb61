"""The `medperf` command: one file for each noun, imported only when its command runs."""
