"""Questions to any explainer: what a class is to it, what would change its mind, what its units mean."""
