"""Explanations as values: no network, no data set, no plugin."""
