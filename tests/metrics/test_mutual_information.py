"""Mutual information of binned scores and classes: its bounds, its chance level, and who else computes it."""

import math

import pytest
import torch

import explainkit as ek
from explainkit.metrics import evaluate_explanations
from explainkit.metrics.mutual_information import (
    BinCounts,
    equal_frequency_edges,
    mutual_information,
    pointwise_information,
)
from explainkit.testing import fitted_example, tiny_dataset


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def labeled(count=600, classes=3, units=4, seed=0):
    """Scores (N, K) of which the first tells class 0 well, the second a little, and the others nothing."""
    truth = torch.nn.functional.one_hot(torch.arange(count) % classes, classes).bool()
    scores = drawn(count, units, seed=seed)
    scores[:, 0] += 3 * truth[:, 0]
    scores[:, 1] += truth[:, 1]
    return scores, truth


def test_information_is_the_literal_sum_over_bins_with_millers_correction():
    scores, truth = labeled(200)

    information = mutual_information(scores, truth, bins=5, permutations=0).information

    for k in range(4):
        ordered = sorted(scores[:, k].tolist())
        edges = [ordered[(i * 200) // 5 - 1] for i in range(1, 5)]
        for c in range(3):
            cells = {}
            for n in range(200):
                cell = sum(scores[n, k].item() > edge for edge in edges), bool(truth[n, c])
                cells[cell] = cells.get(cell, 0) + 1
            of_bin, of_class = {}, {}
            for (b, y), count in cells.items():
                of_bin[b] = of_bin.get(b, 0) + count
                of_class[y] = of_class.get(y, 0) + count
            value = sum(
                n / 200 * math.log(n * 200 / (of_bin[b] * of_class[y])) for (b, y), n in cells.items()
            )
            value += ((len(of_bin) - 1) + (len(of_class) - 1) - (len(cells) - 1)) / (2 * 200)
            assert information[k, c].item() == pytest.approx(max(0.0, value), abs=1e-10)


def test_a_score_that_is_the_class_has_the_entropy_of_the_class_and_no_more():
    truth = torch.nn.functional.one_hot(torch.arange(90) % 3, 3).bool()

    result = mutual_information(truth.float(), truth)

    entropy = -(1 / 3 * math.log(1 / 3) + 2 / 3 * math.log(2 / 3))
    torch.testing.assert_close(result.information.diagonal(), result.entropy)
    assert result.score == pytest.approx(entropy + 1 / 180) and result.normalized_score == pytest.approx(1)


def test_rising_functions_of_scores_change_nothing():
    scores, truth = labeled()

    result = mutual_information(scores.double(), truth, permutations=2)
    other = mutual_information((scores.double().exp() * 7 + 3) ** 3, truth, permutations=2)

    assert torch.equal(other.information, result.information) and other.chance == result.chance


def test_scores_that_tell_nothing_are_at_the_chance_level():
    scores, truth = labeled(2000, units=40)
    order = torch.randperm(2000, generator=torch.Generator().manual_seed(1))

    result, permuted = mutual_information(scores, truth), mutual_information(scores, truth[order])

    assert permuted.score == pytest.approx(permuted.chance, abs=2e-3) and permuted.chance < 0.01
    assert result.information[0, 0] > 0.3 and result.score > 2 * result.chance
    assert (result.normalized >= 0).all() and (result.normalized <= 1).all()


def test_counts_add_up_over_batches():
    scores, truth = labeled()
    edges = equal_frequency_edges(scores)
    whole, parts = BinCounts(edges, 3), BinCounts(edges, 3)

    whole.add(scores, truth)
    for rows in torch.arange(600).split(77):
        parts.add(scores[rows], truth[rows])

    assert torch.equal(parts.joint, whole.joint) and parts.count == 600
    information = mutual_information(scores, truth, permutations=0).information
    assert torch.equal(parts.finish().information, information)
    assert torch.equal(whole.joint.sum(2), whole.by_bin) and (whole.by_bin - 600 / 16).abs().max() <= 1


def test_each_images_share_sums_to_the_score():
    scores, truth = labeled()
    scores[:, 3] = 0  # a dead unit, whose bins are one

    shares = pointwise_information(scores, truth)

    assert shares.shape == (600,)
    result = mutual_information(scores, truth, permutations=0)
    assert shares.mean().item() == pytest.approx(result.score, abs=1e-10) and result.information[3].max() == 0


def test_labels_that_hold_or_not_are_counted_each_for_itself():
    scores, truth = drawn(300, 2), drawn(300, 3, seed=1) > 0
    scores[:, 0] += 2 * truth[:, 2]

    information = mutual_information(scores, truth, permutations=0).information

    for c in range(3):
        alone = torch.stack([~truth[:, c], truth[:, c]], 1)
        expected = mutual_information(scores, alone, permutations=0).information[:, 1]
        torch.testing.assert_close(information[:, c], expected)
    assert information[0].argmax() == 2


def test_scikit_learn_finds_the_same():
    feature_selection = pytest.importorskip("sklearn.feature_selection")
    scores, truth = labeled(3000)
    counts = BinCounts(equal_frequency_edges(scores), 3)
    counts.add(scores, truth)
    information = counts.finish().information

    bins = counts.bins_of(scores).numpy()
    for c in range(3):
        y = truth[:, c].numpy()
        plug_in = feature_selection.mutual_info_classif(bins, y, discrete_features=True)
        inside = counts.joint[:, :, c]
        cells = (inside > 0).sum(1) + (counts.by_bin - inside > 0).sum(1)
        correction = (15 + 1 - (cells - 1)).double() / 6000
        expected = (torch.from_numpy(plug_in) + correction).clamp(min=0)
        torch.testing.assert_close(information[:, c], expected, rtol=0, atol=1e-9)
        neighbors = feature_selection.mutual_info_classif(scores.numpy(), y, random_state=0)
        torch.testing.assert_close(information[:, c], torch.from_numpy(neighbors), rtol=0, atol=0.03)


def test_wrong_shapes_are_refused():
    with pytest.raises(ek.InputError, match=r"truth of \(3, C\), bool; got torch.int64 \(3,\)"):
        mutual_information(torch.zeros(3, 2), torch.zeros(3).long())
    with pytest.raises(ek.InputError, match="2 bins or more"):
        equal_frequency_edges(torch.zeros(3, 2), 1)


def test_the_table_has_the_score_of_each_network_that_decides_by_units():
    model, dataset = fitted_example("cam"), tiny_dataset()
    saliency = ek.explainer("captum/saliency", network=model.network, classes=dataset.classes)

    table = evaluate_explanations([model, saliency], dataset, images=24, metrics=["mutual-information-score"])

    batch = dataset.test.batch(torch.arange(24))
    scores, truth = model.explain(batch).scores, torch.nn.functional.one_hot(batch.labels, 3).bool()
    expected = mutual_information(scores, truth, permutations=0).score
    score = table.score("cam", "mutual-information-score")
    assert score.mean == pytest.approx(expected, abs=1e-9) and score.unit == "nats"
    assert "no units" in table.score("captum/saliency", "mutual-information-score").reason
