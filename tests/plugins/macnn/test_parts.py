"""Sums by part and by filter, places, true parts, and filters that steer."""

import math

import pytest
import torch
from attrs import evolve
from macnn_networks import explainer, fitted_explainer, fitted_network
from plugin_cases import assert_near, uniform

import explainkit as ek
from explainkit.data.types import ArraySplit, Batch
from explainkit.explanations.factored_maps import dense_maps
from explainkit.testing import fitted_example, tiny_dataset, tiny_images
from explainkit_macnn.parts import (
    are_near,
    class_part_contributions,
    filter_contributions,
    logits_without_filters,
    match_parts,
    matched_distances,
    part_boxes,
    part_points,
    part_report,
    part_saliency,
    part_sentence,
)

IMAGES = uniform(3, 3, 32, 32)


def test_contributions_add_up_by_part_and_by_filter():
    explanations = explainer().explain(IMAGES, 2).check_additivity()

    by_part, by_filter = explanations.parent_contributions, filter_contributions(explanations)

    contributions, terms = explanations.contributions, explanations.contributions.abs().sum(1)
    for n in range(3):
        for i in range(3):
            assert_near(by_part[n, i], sum(contributions[n, 32 * i + j] for j in range(32)), scale=terms)
        for j in range(32):
            assert_near(by_filter[n, j], sum(contributions[n, 32 * i + j] for i in range(3)), scale=terms)
    assert_near(explanations.base + by_part.sum(1), explanations.logits[:, 2], scale=terms)
    assert_near(explanations.base + by_filter.sum(1), explanations.logits[:, 2], scale=terms)


@pytest.mark.parametrize("foil", [None, 1])
def test_the_evidence_of_a_part_lies_in_its_map_and_sums_to_what_it_adds(foil):
    model = explainer(dtype=torch.float64)
    explanations = model.explain(IMAGES.double(), 3, foils=foil)

    saliency = part_saliency(explanations)

    outputs, heads = model.network.outputs(IMAGES.double()), model.network.heads.weight
    for n in range(3):
        for i in range(3):
            weight = heads[i, 3] if foil is None else heads[i, 3] - heads[i, foil]
            at_cells = sum(weight[j] * outputs.features[n, j] for j in range(32))
            assert_near(saliency[n, i], outputs.attention[n, i] * at_cells, 1e-9)
    assert_near(saliency.sum((2, 3)), explanations.parent_contributions, 1e-9)
    assert_near(saliency.sum(1), explanations.saliency((8, 8)), 1e-9)


def test_maps_are_factored_and_their_sums_the_scores():
    explanations = explainer().explain(IMAGES)

    assert isinstance(explanations.maps, ek.FactoredMaps)
    assert explanations.maps.attention.shape == (3, 3, 8, 8)
    assert_near(dense_maps(explanations.maps).sum((2, 3)), explanations.scores)


def test_points_and_boxes_are_where_attention_peaks(tmp_path):
    explanations = explainer().explain(IMAGES)

    points, boxes = part_points(explanations), part_boxes(explanations, 0.25)

    for n in range(3):
        for i in range(3):
            x0, y0, x1, y1 = boxes[n, i].tolist()
            x, y = points[n, i].tolist()
            assert (x1 - x0, y1 - y0) == (8, 8) and min(x0, y0) >= 0 and max(x1, y1) <= 32
            assert x0 <= x <= x1 and y0 <= y <= y1
    with pytest.raises(ek.InputError, match=r"share in \(0, 1\]; got 0"):
        part_boxes(explanations, 0)
    loaded = ek.Explanations.load(explanations.save(tmp_path / "file"))
    assert torch.equal(loaded.parent_contributions, explanations.parent_contributions)
    wide = explainer().explain(uniform(2, 3, 32, 48))
    attention = wide.maps.attention
    for n in range(2):
        for i in range(3):
            row, column = divmod(int(attention[n, i].argmax()), 12)
            x, y = part_points(wide)[n, i].tolist()
            assert abs(x - 4 * (column + 0.5)) <= 4 and abs(y - 4 * (row + 0.5)) <= 4


def test_the_sentence_of_parts_has_all_that_matter_with_their_signs():
    explanations = explainer().explain(IMAGES)

    for explanation in explanations:
        text = part_sentence(explanation)
        for name, value in explanation.parent_contributions.items():
            if abs(value) > 0.05 * sum(map(abs, explanation.parent_contributions.values())):
                assert f"{name} (" in text.split("against it")[0 if value > 0 else -1]
        assert text.startswith(explanation.target_name)
    assert " rather than " in part_sentence(explanations.contrast(1)[0])
    silent = explainer()
    with torch.no_grad():
        silent.network.heads.weight.zero_()
    assert "no part adds anything" in part_sentence(silent.explain(IMAGES)[0])


def test_a_class_by_part_is_the_mean_over_its_images():
    model, dataset = fitted_explainer(), tiny_dataset()

    by_part = class_part_contributions(model.explain_class(dataset.batches("test")))

    batch = dataset.test.batch(torch.arange(24))
    explanations = model.explain(batch, batch.labels)
    for c in range(3):
        expected = explanations.parent_contributions[batch.labels == c].mean(0)
        assert_near(by_part[c].float(), expected, scale=explanations.contributions)


def test_filters_that_are_silent_before_attention_move_it():
    model = explainer(dtype=torch.float64)
    images = IMAGES.double()

    logits = logits_without_filters(model, images, [3, 17])

    network = model.network
    for number, j in enumerate((3, 17)):
        features = network.features(images).clone()
        features[:, j] = 0
        assert_near(logits[:, number], network.attend(features).logits, 1e-9)
    explanations = model.explain(images, 0)
    additive = explanations.logits[:, 0] - filter_contributions(explanations)[:, 3]
    assert not torch.allclose(additive, logits[:, 0, 0])  # attention went elsewhere
    with pytest.raises(ek.InputError, match=r"0 … 31; got \[32\]"):
        logits_without_filters(model, images, [32])


def test_parts_are_matched_to_true_parts_each_once():
    generator = torch.Generator().manual_seed(0)
    true = torch.rand(50, 4, 2, generator=generator) * 60
    seen = torch.ones(50, 4, 1)
    seen[::3, 1] = 0
    order = torch.tensor([2, 0, 1])
    points = true[:, order] + torch.randn(50, 3, 2, generator=generator)
    key_points = torch.cat([true, seen], 2)

    match = match_parts(points, key_points, radius=6.0)
    distance = matched_distances(points, key_points, match.true_part)
    near = are_near(points, key_points, match.true_part, 1.5)

    assert match.true_part.tolist() == [2, 0, 1]
    for n in range(50):
        for i in range(3):
            q = int(order[i])
            expected = math.dist(points[n, i].tolist(), true[n, q].tolist())
            if seen[n, q]:
                assert distance[n, i].item() == pytest.approx(expected, rel=1e-5)
                assert near[n, i] == float(expected <= 1.5)
            else:
                assert distance[n, i].isnan() and near[n, i].isnan()
    for i in range(3):
        for q in range(4):
            rows = [n for n in range(50) if seen[n, q]]
            hits = [math.dist(points[n, i].tolist(), true[n, q].tolist()) <= 6 for n in rows]
            assert match.near[i, q].item() == pytest.approx(sum(hits) / len(rows))
    more = match_parts(points[:, [0, 1, 2, 0, 1]], key_points, 6.0)
    assert (more.true_part == -1).sum() == 1
    assert matched_distances(points[:, [0, 1, 2, 0, 1]], key_points, more.true_part).isnan().all(0).sum() == 1


class WithKeyPoints:
    """A split whose squares have their middles for key points."""

    def __init__(self, split):
        self.split, self.labels = split, split.labels

    def __len__(self):
        return len(self.split)

    def batch(self, ids):
        batch = self.split.batch(ids)
        middle = batch.labels * 10 + 5.0
        points = torch.stack([middle, middle, torch.ones_like(middle)], 1)
        others = torch.tensor([1.0, 30.0, 1.0]).expand(len(batch), 1, 3)
        return evolve(batch, key_points=torch.cat([points[:, None], others], 1))


def test_a_report_says_which_true_part_each_part_is_and_of_which_filters():
    model, dataset = fitted_explainer(), tiny_dataset()
    known = evolve(
        dataset, parts=("square", "corner"),
        splits={name: WithKeyPoints(split) for name, split in dataset.splits.items()},
    )  # fmt: skip

    report, unknown = part_report(model, known, batch_size=7), part_report(model, dataset)

    assert set(report.true_parts) == {"square", "corner"} and unknown.true_parts == (None, None)
    assert unknown.distance.isnan().all() and report.radius == pytest.approx(3.2)
    batch = known.test.batch(torch.arange(24))
    network = fitted_network()
    with torch.no_grad():
        outputs = network.outputs(batch.images)
    membership = outputs.membership_logits.sigmoid().double()
    points = part_points(model.explain(batch))
    for i in range(2):
        q = report.true_parts.index("square") == i
        gaps = [
            math.dist(points[n, i].tolist(), batch.key_points[n, 0 if q else 1, :2].tolist())
            for n in range(24)
        ]
        assert report.distance[i].item() == pytest.approx(sum(gaps) / 24, rel=1e-4)
        assert report.near[i].item() == pytest.approx(sum(gap <= 3.2 for gap in gaps) / 24)
        right = outputs.part_logits[:, i].argmax(1) == batch.labels
        assert report.accuracy[i].item() == pytest.approx(right.double().mean().item())
        assert report.num_filters[i].item() == pytest.approx((membership[:, i] > 0.5).sum(1).double().mean())
        deviation = membership[:, i].std(0, correction=0).mean().item()
        assert report.stability[i].item() == pytest.approx(deviation, rel=1e-4)
        best = membership[:, i].mean(0).argmax()
        assert report.filters[i][0] == best
    text = report.text()
    assert "square" in text and "part 2" in text and "no true parts are known" in unknown.text()


def test_what_is_not_of_this_architecture_is_refused_in_words():
    other = fitted_example("cam")
    explanations = other.explain(tiny_images())

    for function in (filter_contributions, part_saliency, part_points, part_boxes):
        with pytest.raises(ek.InputError, match="Expected explanations"):
            function(explanations)
    with pytest.raises(ek.InputError, match="by MA-CNN"):
        part_sentence(explanations[0])
    with pytest.raises(ek.InputError, match="units are of parts"):
        class_part_contributions(other.explain_class(tiny_dataset()))
    with pytest.raises(ek.InputError, match="explainer of MA-CNN; got CAM"):
        part_report(other, tiny_dataset())
    with pytest.raises(ek.InputError, match='maps="all"'):
        part_saliency(explainer().explain(IMAGES, maps=2))
    empty = ArraySplit(images=torch.zeros(0, 3, 32, 32).byte(), labels=torch.zeros(0).long())
    bare = evolve(tiny_dataset(), splits={**tiny_dataset().splits, "validation": empty})
    with pytest.raises(ek.InputError, match="images in the split 'validation'"):
        part_report(fitted_explainer(), bare)
    assert isinstance(WithKeyPoints(tiny_dataset().test).batch(torch.arange(2)), Batch)
