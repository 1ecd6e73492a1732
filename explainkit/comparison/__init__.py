"""Explainers side by side: the same images, classes and counterfactual targets."""

from explainkit.comparison.comparison import Comparison
from explainkit.comparison.side_by_side import compare

__all__ = ["Comparison", "compare"]
