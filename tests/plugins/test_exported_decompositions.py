"""`decompose` is one graph for any number of images: no branch on numbers, no size read once and for all."""

import pytest
import torch
from plugin_cases import assert_near
from torch import nn

from explainkit.explanations.factored_maps import dense_maps
from explainkit.testing import architectures, fitted_example, tiny_dataset, tiny_images


class Contributions(nn.Module):
    """Logits, and what each unit adds to the largest of them: the weight function is called inside."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        decomposition = self.network.decompose(images)
        weights = decomposition.weights_for(decomposition.logits.argmax(1))
        extras = tuple(decomposition.extras.values())
        maps = None if decomposition.maps is None else dense_maps(decomposition.maps)
        return decomposition.logits, weights * decomposition.scores, maps, *extras


@pytest.mark.filterwarnings("ignore::explainkit_ccnn.explainer.ConfoundedWarning")
@pytest.mark.parametrize("name", architectures())
def test_it_is_exported_at_one_batch_size_and_right_at_others(name):
    module = Contributions(fitted_example(name).network.eval())
    images = tiny_images()

    program = torch.export.export(
        module, (images,), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},), strict=False
    ).module()

    for count in (1, 2, 17):
        other = tiny_dataset().test.batch(torch.arange(count)).images
        with torch.no_grad():
            expected = module(other)
            given = program(other)
        for value, wanted in zip(given, expected, strict=True):
            if wanted is not None:
                assert_near(value, wanted)
