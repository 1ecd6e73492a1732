"""What tests of several data sets do with a split."""

import torch


def whole_batch(split):
    """All images of a split in one batch."""
    return split.batch(torch.arange(len(split)))
