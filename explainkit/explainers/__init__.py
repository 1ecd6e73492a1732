"""Explainers: what gives explanations."""
