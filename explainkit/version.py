"""The version of explainkit, read by the build and written into every provenance."""

__version__ = "0.1.0"
