"""The search for nearest patches, in one part or several."""

import torch
from plugin_cases import whole_split
from protopnet_networks import doubled, patches_of, small_network

from explainkit.testing import tiny_dataset
from explainkit_protopnet.nearest import Nearest, merge, nearest_patches


def test_a_search_can_be_divided_in_any_way():
    network, dataset = small_network(), tiny_dataset()
    batches = list(dataset.batches("train", 16))

    with torch.no_grad():
        whole = nearest_patches(network, batches, 5)
        halves = [nearest_patches(network, part, 5) for part in (batches[1::2], batches[::2])]
        thirds = [nearest_patches(network, part, 5) for part in (batches[4:], batches[:2], batches[2:4])]

    for parts in (halves, halves[::-1], thirds, [merge(thirds[:2], 5), thirds[2]]):
        for name in ("distance", "image", "cell", "label"):  # of the same batches, so to the bit
            assert torch.equal(getattr(merge(parts, 5), name), getattr(whole, name))


def test_ties_between_shares_go_to_the_lowest_image():
    zero = torch.tensor([[0, 0]])

    def share(distance, image):
        return Nearest(distance=torch.tensor([distance]), image=torch.tensor([image]), cell=zero, label=zero)

    one, other = share([1.0, 2.0], [9, 4]), share([1.0, 2.0], [5, 7])

    for shares in ([one, other], [other, one]):
        assert merge(shares, 4).image.tolist() == [[5, 9, 4, 7]]


def test_the_nearest_patches_are_those_of_a_full_sort():
    network, dataset = small_network().double(), doubled(tiny_dataset())
    patches = patches_of(network, whole_split(dataset).images)
    distances = (patches[:, :, None] - network.prototypes).square().sum(3)  # (N, h w, P)

    with torch.no_grad():
        search = nearest_patches(network, dataset.batches("train", 17), 6)

    for p in range(6):
        nearest, cells = distances[:, :, p].min(1)
        order = nearest.argsort()[:6]
        torch.testing.assert_close(search.distance[p], nearest[order])
        assert len(search.image[p].unique()) == 6
        assert search.image[p].tolist() == order.tolist()
        assert search.cell[p].tolist() == cells[order].tolist()
        assert search.label[p].tolist() == dataset.train.labels[order].tolist()
