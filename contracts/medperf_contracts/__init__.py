"""What MedPerf's client and services say to each other: API bodies and events. Data only."""

__version__ = "0.1.0"
