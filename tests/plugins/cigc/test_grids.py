"""Composites: which images, where, and that nothing is shrunk."""

import pytest
import torch
from cigc_networks import Odd, color_network
from plugin_cases import uniform
from torch.nn.functional import one_hot

from explainkit.errors import InputError
from explainkit_cigc.grids import arranged, check_doubled, draw_grids, placed, tile, untile
from explainkit_cigc.losses import consistency_metrics, grid_distance

LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 0, 1, 2])


def draw(labels=LABELS, ids=None, fraction=1.0, seed=3, index=0, classes=3):
    truth = labels if labels.ndim == 2 else one_hot(labels, classes).bool()
    return draw_grids(truth, torch.arange(len(labels)) if ids is None else ids, fraction, seed, index)


def test_each_quadrant_is_an_image_bit_by_bit_along_rows():
    tiles = uniform(2, 4, 3, 4, 6)

    composites = tile(tiles)

    assert composites.shape == (2, 3, 8, 12)
    for m in range(2):
        for quadrant in range(4):
            row, column = divmod(quadrant, 2)
            block = composites[m, :, 4 * row : 4 * row + 4, 6 * column : 6 * column + 6]
            assert torch.equal(block, tiles[m, quadrant])
    assert torch.equal(untile(composites), tiles)


def test_a_map_is_placed_in_its_quadrant_of_zeros():
    maps, quadrants = uniform(4, 2, 3), torch.tensor([2, 0, 3, 1])

    whole = placed(maps, quadrants)

    for m, quadrant in enumerate(quadrants.tolist()):
        literal = torch.zeros(4, 6)
        row, column = divmod(quadrant, 2)
        literal[2 * row : 2 * row + 2, 3 * column : 3 * column + 3] = maps[m]
        assert torch.equal(whole[m], literal)


def test_the_image_that_is_looked_at_is_in_its_quadrant_and_the_others_around():
    quadrants = torch.arange(4)

    rows = arranged(torch.full((4, 1), 9), torch.tensor([[1, 2, 3]]).expand(4, 3), quadrants)

    assert rows.tolist() == [[9, 1, 2, 3], [1, 9, 2, 3], [1, 2, 9, 3], [1, 2, 3, 9]]


def test_no_other_image_has_the_class_that_is_looked_for_and_none_is_there_twice():
    for index in range(20):
        grids = draw(index=index)

        assert sorted(grids.anchors.tolist()) == list(range(10))
        assert torch.equal(LABELS[grids.anchors], grids.targets)
        assert (LABELS[grids.others] != grids.targets[:, None]).all()
        assert all(len(set(row)) == 4 for row in grids.rows.tolist())
        place = torch.arange(len(grids)), grids.quadrants
        assert torch.equal(grids.rows[place], grids.anchors)


def test_every_other_image_and_every_quadrant_is_drawn_about_as_often():
    labels = torch.arange(12) % 2
    drawn = [draw(labels, index=index, classes=2) for index in range(300)]

    others = torch.bincount(torch.cat([grids.others for grids in drawn]).flatten(), minlength=12).double()
    quadrants = torch.bincount(torch.cat([grids.quadrants for grids in drawn])).double()

    assert (others / others.mean() - 1).abs().max() < 0.15
    assert (quadrants / quadrants.mean() - 1).abs().max() < 0.15


def test_a_batch_of_one_class_has_no_composites_and_few_others_are_taken_again():
    assert len(draw(torch.zeros(5, dtype=torch.long))) == 0

    grids = draw(torch.tensor([0, 0, 0, 1]))

    of_first = grids[grids.targets == 0]
    assert len(of_first) == 3 and (of_first.others == 3).all()


def test_a_share_of_the_batch_is_looked_at_and_one_image_at_least():
    assert len(draw(fraction=0.5)) == 5 and len(draw(fraction=0.01)) == 1


def test_what_is_drawn_depends_on_seed_step_and_ids_and_not_on_their_order():
    grids, again, later, elsewhere = draw(), draw(), draw(index=1), draw(seed=4)
    order = torch.tensor([3, 1, 9, 0, 2, 8, 4, 7, 6, 5])

    shuffled = draw(LABELS[order], ids=order)

    assert torch.equal(grids.rows, again.rows)
    assert not torch.equal(grids.rows, later.rows) and not torch.equal(grids.rows, elsewhere.rows)
    assert torch.equal(order[shuffled.rows], grids.rows)


def test_of_several_labels_one_that_holds_is_looked_for_among_images_without_it():
    labels = uniform(12, 4) > 0.6
    labels[0] = False

    for index in range(10):
        grids = draw(labels, index=index)

        assert labels[grids.anchors, grids.targets].all() and 0 not in grids.anchors
        assert not labels[grids.others, grids.targets[:, None]].any()


def test_turning_quadrants_of_map_and_composite_together_changes_nothing():
    single, tiles = uniform(6, 2, 2), uniform(6, 4, 2, 2, seed=1)
    quadrants = torch.arange(6) % 4
    expected = grid_distance(single, tile(tiles), quadrants)

    turned = grid_distance(single, tile(tiles.roll(1, 1)), (quadrants + 1) % 4)

    torch.testing.assert_close(turned, expected)


def test_a_grid_that_does_not_double_is_refused_in_words():
    with pytest.raises(InputError, match=r"twice their grid, \(8, 8\); got \(9, 8\) for images on \(4, 4\)"):
        check_doubled(torch.zeros(1, 4, 4), torch.zeros(1, 9, 8))

    from explainkit.testing import tiny_dataset

    with pytest.raises(InputError, match="Expected composites of 2 x 2 images on twice their grid"):
        consistency_metrics(color_network(backbone=Odd), tiny_dataset())
