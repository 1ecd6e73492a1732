"""Location instability and part interpretability: literal, with chance levels, and blind where they are."""

import math

import pytest
import torch
from attrs import evolve

import explainkit as ek
from explainkit.explanations.spatial import resize
from explainkit.metrics import ExplainerOutput, evaluate_explanations
from explainkit.metrics.unit_parts import (
    landmarks,
    location_instability,
    part_interpretability,
    unit_location_instability,
    unit_part_interpretability,
)


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def scene(images=40, side=32, seed=0):
    """Two square parts at random places of images, each missing from a fourth of them; and their middles."""
    masks = torch.zeros(images, 2, side, side, dtype=torch.bool)
    corners = (noise(images, 2, 2, seed=seed) * (side - 8)).long()
    for i in range(images):
        for k in range(2):
            if (i + k) % 4:
                y, x = corners[i, k].tolist()
                masks[i, k, y : y + 8, x : x + 8] = True
    points = torch.cat([corners.flip(2) + 4.0, masks.flatten(2).any(2)[..., None]], 2)
    return masks, points


def as_output(dataset_context, explanations, name="row"):
    return ExplainerOutput(context=dataset_context, name=name, full_explanations=explanations)


def test_location_instability_is_the_deviation_of_distances_over_the_strongest_images():
    maps, (_, points) = noise(40, 3, 8, 8), scene()
    maps[:, 2] *= (torch.arange(40) < 1).view(-1, 1, 1)  # a unit that fires in one image

    scores = unit_location_instability(maps, points, (32, 32), top=12)

    for unit in range(2):
        deviations = []
        for part in range(2):
            seen = [i for i in range(40) if points[i, part, 2]]
            best = sorted(seen, key=lambda i: -maps[i, unit].max().item())[:12]
            distances = []
            for i in best:
                row, column = divmod(maps[i, unit].argmax().item(), 8)
                x, y, _ = points[i, part].tolist()
                apart = math.hypot((column + 0.5) * 4 - x, (row + 0.5) * 4 - y)
                distances.append(apart / math.hypot(32, 32))
            mean = sum(distances) / len(distances)
            deviations.append(math.sqrt(sum((d - mean) ** 2 for d in distances) / (len(distances) - 1)))
        assert scores.values[unit].item() == pytest.approx(sum(deviations) / 2, abs=1e-12)
    assert scores.values[2].isnan()
    assert scores.of_images.mean().item() == pytest.approx(scores.mean, abs=1e-12)


def test_the_chance_of_location_instability_pairs_places_with_landmarks_of_other_images():
    maps, (_, points) = noise(9, 1, 8, 8), scene(9)
    points = points[:, :1]

    chance = unit_location_instability(maps, points, (32, 32)).chance[0]

    distances = []
    seen = [i for i in range(9) if points[i, 0, 2]]
    for i in seen:
        row, column = divmod(maps[i, 0].argmax().item(), 8)
        for j in seen:
            if i != j:
                x, y, _ = points[j, 0].tolist()
                distances.append(math.hypot((column + 0.5) * 4 - x, (row + 0.5) * 4 - y) / math.hypot(32, 32))
    assert chance.item() == pytest.approx(torch.tensor(distances).double().std().item(), rel=1e-6)


def test_noise_is_as_unstable_as_chance_and_a_unit_on_its_landmark_is_not():
    masks, points = scene(200)
    maps = torch.cat([noise(200, 8, 32, 32), masks.float()], 1)

    scores = unit_location_instability(maps, points[:, :1], (32, 32))

    assert (scores.values[:8].mean() - scores.chance[:8].mean()).abs() < 0.02
    assert scores.values[8] < 0.05 < 0.5 * scores.chance[8]


def test_location_instability_is_blind_to_a_unit_that_circles_its_landmark():
    maps, points = torch.zeros(40, 1, 32, 32), torch.tensor([[[16.5, 16.5, 1.0]]]).repeat(40, 1, 1)
    for i in range(40):
        row, column = ((16, 24), (16, 8), (24, 16), (8, 16))[i % 4]
        maps[i, 0, row, column] = 1

    assert unit_location_instability(maps, points, (32, 32)).values[0].item() == pytest.approx(0, abs=1e-12)


def test_what_an_image_moves_location_instability_by_is_what_leaving_it_out_does():
    maps, (_, points) = noise(120, 4, 8, 8), scene(120)
    scores = unit_location_instability(maps, points, (32, 32), top=120)

    pseudo = []
    for i in range(120):
        rest = torch.arange(120) != i
        without = unit_location_instability(maps[rest], points[rest], (32, 32), top=120).mean
        pseudo.append(120 * scores.mean - 119 * without)  # the jackknife

    pseudo = torch.tensor(pseudo, dtype=torch.float64)
    assert torch.corrcoef(torch.stack([pseudo, scores.of_images]))[0, 1] > 0.99
    assert scores.of_images.std().item() == pytest.approx(pseudo.std().item(), rel=0.05)


def test_images_that_a_unit_is_not_judged_on_do_not_count():
    maps, (_, points) = noise(40, 2, 8, 8), scene()
    considered = torch.zeros(40, 2, dtype=torch.bool)
    considered[:20, 0], considered[20:, 1] = True, True

    scores = unit_location_instability(maps, points, (32, 32), considered=considered)

    for unit, rows in enumerate((slice(0, 20), slice(20, 40))):
        alone = unit_location_instability(maps[rows, unit : unit + 1], points[rows], (32, 32))
        assert scores.values[unit].item() == pytest.approx(alone.values[0].item(), abs=1e-12)


def test_part_interpretability_is_how_often_active_cells_overlap_the_best_part():
    (masks, _), maps = scene(), noise(40, 3, 8, 8)
    maps[:, 0] += resize(masks[:, 0].float(), (8, 8)) / 16

    scores = unit_part_interpretability(maps, masks, active_share=0.05, min_iou=0.2)

    for unit in range(3):
        ranked = sorted(maps[:, unit].flatten().tolist(), reverse=True)
        threshold = ranked[round(0.05 * len(ranked))]
        shares = []
        for part in range(2):
            hits = count = 0
            for i in range(40):
                if not masks[i, part].any():
                    continue
                region = torch.zeros(32, 32, dtype=torch.bool)
                for row in range(8):
                    for column in range(8):
                        if maps[i, unit, row, column] > threshold:
                            region[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = True
                common = (region & masks[i, part]).sum().item()
                union = (region | masks[i, part]).sum().item()
                hits, count = hits + (common / union > 0.2), count + 1
            shares.append(hits / count)
        assert scores.values[unit].item() == pytest.approx(max(shares), abs=1e-12)
    assert scores.values[0] > 0.2
    assert scores.of_images.mean().item() == pytest.approx(scores.mean, abs=1e-12)


def test_a_part_itself_is_interpretable_and_maps_of_other_images_are_chance():
    masks, _ = scene(100)
    masks = masks.repeat(2, 1, 1, 1)
    maps = masks.float() * (1 + noise(200, 2, 1, 1))

    scores = unit_part_interpretability(maps, masks, active_share=0.06)
    shuffled = unit_part_interpretability(maps.roll(3, 0), masks, active_share=0.06)

    assert (scores.values == 1).all() and (scores.chance < 0.25).all()
    assert (shuffled.values - shuffled.chance).abs().max() < 0.1


def test_a_unit_that_is_silent_everywhere_is_no_part():
    masks, points = scene()
    maps = torch.cat([torch.zeros(40, 1, 8, 8), noise(40, 1, 8, 8)], 1)

    assert unit_part_interpretability(maps, masks).values[0] == 0
    assert unit_location_instability(maps, points, (32, 32)).values.isnan().tolist() == [True, False]


def test_small_grids_cap_part_interpretability_as_documented():
    masks, _ = scene(200)
    scores = unit_part_interpretability(resize(masks.float(), (8, 8)), masks, active_share=0.005)

    assert scores.values.max() < 0.3  # 0.32 cells an image, of parts of 4 cells


def test_both_measure_any_explainer_with_maps_beside_another(small):
    small_net = ek.explainer("cam", network=small.cam.network.network, size=(32, 32))
    table = evaluate_explanations(
        {"cam": small.cam, "again": small_net, "slopes": small.slopes}, small.dataset, images=12,
        metrics=["location-instability", "part-interpretability"],
    )  # fmt: skip

    for column in table.columns:
        score = table.score("cam", column)
        assert score.values.shape == (12,) and math.isfinite(score.mean) and "chance 0." in score.note
        low, high = score.interval
        assert low <= score.mean <= high
        assert torch.equal(score.values, table.score("again", column).values)
        assert "stand for no part" in table.score("slopes", column).reason
        assert "A map alone" in table.score("random", column).reason


def test_landmarks_are_key_points_or_the_middles_of_masks(small):
    context = small.context(6)
    output = as_output(context, small.cam.explain(context.images))
    torch.testing.assert_close(landmarks(output), context.batch.key_points.double())

    object.__setattr__(context, "batch", evolve(context.batch, key_points=None))
    points = landmarks(output)

    for i in range(6):
        for part in range(context.masks.shape[1]):
            at = context.masks[i, part].nonzero().double() + 0.5
            assert bool(points[i, part, 2]) == bool(len(at))
            if len(at):
                torch.testing.assert_close(points[i, part, :2], at.mean(0).flip(0))


def test_data_without_parts_are_a_reason(small, plain):
    from explainkit.metrics import EvalContext

    context = EvalContext(explainer=small.cam, dataset=plain, split="test", ids=torch.arange(4))
    output = as_output(context, small.cam.explain(context.images))

    assert "no part masks" in location_instability(output).reason
    assert "no part masks" in part_interpretability(output).reason
