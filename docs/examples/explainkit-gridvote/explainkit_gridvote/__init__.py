"""Grid vote: every cell of the image votes, and the logit is the mean of the votes.

After BagNet (Brendel & Bethge, ICLR 2019, arXiv:1904.00760), whose cells are small patches of the image.
"""

from explainkit import Offer, hookimpl


@hookimpl
def explainkit_explainers() -> list[Offer]:
    """The one explainer of this plugin."""
    return [Offer("gridvote", "Cells that vote for classes", "explainkit_gridvote.voting:GridVote")]
