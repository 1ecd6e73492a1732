"""Explanations of a million images: streamed to Parquet, resumed after a crash, read back lazily."""

from explainkit.pipeline.dataset import ExplanationDataset
from explainkit.pipeline.explaining import explain_dataset

__all__ = ["ExplanationDataset", "explain_dataset"]
