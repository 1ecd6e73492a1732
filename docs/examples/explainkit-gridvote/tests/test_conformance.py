"""What explainkit asks of every explainer, asked of this one."""

import explainkit as ek
from explainkit.testing import check_explainer, tiny_dataset


def test_grid_vote_keeps_every_promise() -> None:
    """Add up, be the same alone and in a batch, leave the network as it was, come back from a file."""
    dataset = tiny_dataset()
    model = ek.explainer("gridvote", backbone="tiny", epochs=1).fit(dataset)
    check_explainer(model, next(dataset.batches("test", batch_size=4)).images)
