"""Phrases and word vectors of captions."""
