"""Models as files that other runtimes run: one graph gives logits, and what they are made of."""
