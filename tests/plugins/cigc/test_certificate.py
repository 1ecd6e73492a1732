"""What becomes of a map among other images: by literal composites, and where the answer is known."""

from copy import deepcopy

import pytest
import torch
from attrs import evolve
from cigc_networks import color_batch, color_network, explainer
from plugin_cases import assert_near, uniform

import explainkit as ek
from explainkit.errors import InputError
from explainkit.testing import fitted_example, tiny_dataset
from explainkit_cigc.certificate import (
    Consistency,
    _overlap_and_inside,
    attention,
    attention_confusion,
    measure_consistency,
)


def colors(**changes):
    network = color_network()
    with torch.no_grad():
        for (row, column), weight in changes.pop("weights", {}).items():
            network.head.weight[row, column] = weight
    return ek.explainer("ci-gc", network=network, size=(16, 16), classes=["red", "green", "blue"])


def test_maps_that_no_other_image_moves_are_certified():
    batch = color_batch()

    measured = colors().measure_consistency(batch, color_batch(seed=1), batch.labels)

    assert_near(measured.mean_overlap, torch.ones(9), 1e-5)
    assert_near(measured.mean_inside, torch.ones(9), 1e-5)
    assert len(measured) == 9 and not measured.is_dead.any()


def test_overlap_is_one_less_half_the_distance_cell_by_cell():
    model, batch = explainer(), evolve(color_batch(6, 32), images=uniform(6, 3, 32, 32))
    others = evolve(color_batch(3, 32), images=uniform(3, 3, 32, 32, seed=1))  # one of each class
    targets = torch.tensor([0, 1, 2, 0, 1, 2])
    rest = {c: [t for t in range(3) if t != c] for c in range(3)}

    measured = model.measure_consistency(batch, others, targets, grids=4)

    for n, target in enumerate(targets.tolist()):
        single = model.explain(batch.images[n : n + 1], target).saliency((8, 8))[0].clamp(min=0)
        single = single / single.sum()
        for quadrant in range(4):
            found = []
            for order in (rest[target], rest[target][::-1]):  # two others are there: one is taken twice
                beside = [others.images[order[0]], others.images[order[1]], others.images[order[0]]]
                beside.insert(quadrant, batch.images[n])
                rows = torch.cat(beside[:2], 2), torch.cat(beside[2:], 2)
                map = model.explain(torch.cat(rows, 1)[None], target).saliency((16, 16))[0].clamp(min=0)
                map = map / map.sum()
                row, column = 8 * (quadrant // 2), 8 * (quadrant % 2)
                inside = map[row : row + 8, column : column + 8].sum().item()
                placed = torch.zeros(16, 16)
                placed[row : row + 8, column : column + 8] = single
                found.append((1 - (map - placed).abs().sum().item() / 2, inside))
            given = measured.overlap[n, quadrant].item(), measured.inside[n, quadrant].item()
            assert any(given == pytest.approx(pair, abs=1e-4) for pair in found)


def test_a_class_that_draws_attention_is_named_in_the_row_of_the_one_it_draws_from():
    batch, others = color_batch(), color_batch(12, seed=1)
    model = colors(weights={(0, 1): 3.0})  # green speaks for red

    confusion = model.attention_confusion(batch, others)

    assert confusion.shape == (3, 3) and confusion.diagonal().isnan().all()
    assert confusion[0, 1] < 0.3
    rest = confusion[[0, 1, 1, 2, 2], [2, 0, 2, 0, 1]]
    assert_near(rest, torch.ones(5), 1e-5)


def test_images_of_a_dead_map_are_nan_and_left_out():
    batch = color_batch()
    dead = colors(weights={(1, 1): -1.0}).measure_consistency(batch, color_batch(seed=1), batch.labels)

    assert dead.is_dead.tolist() == [label == 1 for label in batch.labels.tolist()]
    assert set(dead.by_class()) == {"red", "blue"}
    assert dead.by_class()["red"] == pytest.approx((1, 1), abs=1e-4)


def test_composites_in_which_nothing_speaks_for_the_class_count_as_0():
    single = torch.stack([torch.full((2, 2), 0.25), torch.zeros(2, 2)])

    overlap, inside = _overlap_and_inside(single, torch.zeros(2, 4, 4), torch.tensor([0, 1]))

    assert overlap[0] == inside[0] == 0 and overlap[1].isnan() and inside[1].isnan()


def test_what_speaks_against_a_class_draws_no_attention():
    model, batch = colors(weights={(1, 0): -9.0, (1, 2): -9.0}), color_batch()

    measured = model.measure_consistency(batch, color_batch(seed=1), batch.labels)

    assert_near(measured.mean_overlap, torch.ones(9), 1e-5)


def test_certificates_are_the_same_whatever_the_size_of_batches():
    model, batch = explainer(), evolve(color_batch(6, 32), images=uniform(6, 3, 32, 32))

    one, other, another = (
        model.measure_consistency(batch, batch, grids=3, batch_size=size, seed=seed)
        for size, seed in ((64, 0), (4, 0), (64, 1))
    )

    assert_near(one.overlap, other.overlap, 1e-4)
    assert not torch.equal(one.inside, another.inside)


def test_certificates_go_with_explanations_and_into_files(tmp_path):
    model, batch = colors(), color_batch()
    measured = model.measure_consistency(batch, color_batch(seed=1), batch.labels)

    explanations = measured.attach(model.explain(batch, batch.labels))

    path = tmp_path / "certified.safetensors"
    explanations.save(path)
    loaded = ek.Explanations.load(path)
    assert loaded[2].diagnostics["map overlap"] == pytest.approx(1, abs=1e-4)
    with pytest.raises(InputError, match="that were measured; got others"):
        measured.attach(model.explain(batch, 0))


def test_any_explainer_with_maps_is_measured():
    dataset = tiny_dataset()
    batch = dataset.test.batch(torch.arange(4))

    measured = measure_consistency(fitted_example("cam"), batch, dataset, grids=2)

    assert measured.overlap.shape == (4, 2) and ((measured.inside + 1e-5) >= measured.overlap).all()
    assert attention_confusion(fitted_example("cam"), batch, dataset, grids=1).shape == (3, 3)
    with pytest.raises(InputError, match="Expected maps over the whole image; those by senn are none"):
        measure_consistency(fitted_example("senn"), batch, dataset)


def test_maps_that_were_not_kept_are_read_off_their_sum():
    explanations = explainer().explain(uniform(2, 3, 32, 32), 1)

    assert_near(attention(explanations.keep_maps(0)), attention(explanations), 1e-4)
    with pytest.raises(InputError, match="Expected maps over the whole image"):
        attention(explanations.without_maps())


def test_others_of_one_class_or_another_size_and_no_composites_are_refused_in_words():
    model, batch = colors(), color_batch()
    others = evolve(batch, labels=torch.zeros(9, dtype=torch.long))

    with pytest.raises(InputError, match="Expected others without class 'red'; all have it"):
        model.measure_consistency(batch, others, batch.labels)
    with pytest.raises(InputError, match=r"images' shape, \(3, 16, 16\); got \(3, 20, 20\)"):
        model.measure_consistency(batch, color_batch(size=20), batch.labels)
    with pytest.raises(InputError, match="Expected grids as a whole number of at least 1; got 0"):
        model.measure_consistency(batch, batch, grids=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grids": "4"}, "Expected grids as a whole number of at least 1; got '4'"),
        ({"grids": 2.5}, "Expected grids as a whole number"),
        ({"seed": "x"}, "Expected seed as a whole number of 64 bits; got 'x'"),
        ({"seed": 2**70}, "Expected seed as a whole number of 64 bits"),
        ({"batch_size": 0}, "Expected batch_size as a whole number of at least 1; got 0"),
    ],
)
def test_settings_that_count_nothing_are_refused_in_words(settings, message):
    model, batch = colors(), color_batch(3)

    for measure in (model.measure_consistency, model.attention_confusion):
        with pytest.raises(InputError, match=message):
            measure(batch, batch, **settings)


def test_others_that_are_no_images_with_labels_are_refused_in_words():
    model, batch = colors(), color_batch(3)
    none = ek.Batch(images=batch.images[:0], labels=batch.labels[:0], ids=batch.ids[:0])

    for others, message in (
        (batch.images, "Expected others as a Batch with labels, or a data set; got Tensor"),
        (None, "Expected others as a Batch with labels, or a data set; got NoneType"),
        (evolve(batch, labels=None), "Expected a label of each of 3 others; got None"),
        (evolve(batch, labels=batch.labels[:2]), r"Expected a label of each of 3 others; got \(2,\)"),
        (none, "Expected at least one image as others; got none"),
    ):
        with pytest.raises(InputError, match=message):
            model.measure_consistency(batch, others)
    for images in (batch.images, tiny_dataset()):
        with pytest.raises(InputError, match="Expected images as a Batch with labels; got"):
            model.attention_confusion(images, batch)


class Whole(torch.nn.Module):
    """Takes images of one size alone."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 3))

    def forward(self, images):
        return self.layers(images)


def test_a_network_that_does_not_take_composites_is_refused_in_words():
    model = ek.explainer("captum/saliency", network=Whole(), size=(16, 16))

    with pytest.raises(
        InputError, match="takes images of twice the size, 32 x 32, as composites are; it says"
    ):
        measure_consistency(model, color_batch(3), color_batch(6), grids=1)


def test_certificates_are_the_same_whatever_the_range_that_images_are_in():
    batch = evolve(color_batch(4, 16), images=uniform(4, 3, 16, 16))
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 8, 4, 4), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()]
    unit = torch.nn.Sequential(*layers, torch.nn.Linear(8, 3))
    byte = deepcopy(unit)
    with torch.no_grad():
        byte[0].weight /= 255
    models = [
        ek.explainer("cam", network=network, value_range=span, decision="softmax")
        for network, span in ((unit, (0, 1)), (byte, (0, 255)))
    ]

    one, other = (measure_consistency(model, batch, batch, batch.labels, grids=2) for model in models)

    assert_near(one.overlap, other.overlap, 1e-4)
    assert_near(one.inside, other.inside, 1e-4)
    assert (one.overlap < 0.999).any()


def test_one_composite_is_measured_alone_as_among_others():
    model, batch = explainer(), evolve(color_batch(3, 32), images=uniform(3, 3, 32, 32))
    first = ek.Batch(images=batch.images[:1], labels=batch.labels[:1], ids=batch.ids[:1])

    alone = model.measure_consistency(first, batch, 0, grids=1)

    among = model.measure_consistency(batch, batch, 0, grids=1, batch_size=2)
    assert_near(alone.overlap, among.overlap[:1], 1e-4)
    assert model.measure_consistency(batch, batch, 0, grids=1, batch_size=1).overlap.shape == (3, 1)


def test_certificates_are_the_same_in_any_order_of_images():
    model, batch = explainer(), evolve(color_batch(6, 32), images=uniform(6, 3, 32, 32))
    others = evolve(color_batch(12, 32), images=uniform(12, 3, 32, 32, seed=1))
    order = torch.tensor([4, 1, 5, 0, 2, 3])
    shuffled = ek.Batch(images=batch.images[order], labels=batch.labels[order], ids=batch.ids[order])

    one, other = (model.measure_consistency(each, others, 1, grids=3) for each in (batch, shuffled))

    assert_near(one.overlap[order], other.overlap, 1e-4)
    confusions = [model.attention_confusion(each, others, grids=2) for each in (batch, shuffled)]
    assert torch.allclose(*confusions, atol=1e-4, equal_nan=True)


def test_certificates_go_with_no_other_explanations():
    model, batch = explainer(), evolve(color_batch(6, 32), images=uniform(6, 3, 32, 32))
    measured = model.measure_consistency(batch, batch, 1, grids=1)
    explanations = model.explain(batch, 1)
    elsewhere = evolve(batch, images=uniform(6, 3, 32, 32, seed=2))

    for others, what in (
        (model.explain(elsewhere, 1), "images"),
        (model.explain(elsewhere, 1).without_images(), "logits"),
        (model.explain(evolve(batch, ids=batch.ids + 1), 1), "ids"),
        (model.explain(batch, 2), "classes"),
        (explanations.intervene({0: 50.0}), "logits"),
        (explanations[:3], "classes"),
    ):
        with pytest.raises(InputError, match=f"that were measured; got others: their {what} differ"):
            measured.attach(others)
    with pytest.raises(InputError, match="got a contrast"):
        measured.attach(explanations.contrast(0))
    with pytest.raises(InputError, match="images that were measured; got Batch"):
        measured.attach(batch)
    for same in (explanations, explanations.without_images(), model.explain(batch.images, 1, batch_size=2)):
        assert "map overlap" in measured.attach(same).diagnostics


def test_means_leave_out_what_is_nan():
    measured = Consistency(
        overlap=torch.tensor([[0.2, 0.4], [torch.nan, torch.nan], [1.0, 1.0]]),
        inside=torch.tensor([[0.5, 0.7], [torch.nan, torch.nan], [1.0, 1.0]]),
        targets=torch.tensor([0, 0, 1]), classes=("a", "b", "c"),
    )  # fmt: skip

    means = measured.by_class()

    assert list(means) == ["a", "b"] and means["a"] == pytest.approx((0.3, 0.6))
