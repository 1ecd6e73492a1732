"""What explainkit asks of every explainer, asked of this one."""

import explainkit as ek
from explainkit.testing import check_explainer, tiny_data


def test_grid_vote_keeps_every_promise() -> None:
    """Add up, be the same alone and in a batch, leave the network as it was, come back from a file."""
    data = tiny_data()
    model = ek.explainer("gridvote", backbone="tiny", epochs=1).fit(data)
    check_explainer(model, next(data.batches("test", size=4)).images)
