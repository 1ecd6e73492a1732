"""FunnyBirds' tables from end to end: on drawn scenes, beside the truth and beside chance."""

import json
import math

import pytest
import torch
from attrs import evolve
from torch.nn import functional as F

import explainkit as ek
from explainkit.data.datasets.aviary.dataset import aviary
from explainkit.data.datasets.aviary.observer import IdealObserver
from explainkit.errors import FormatError, InputError
from explainkit.metrics import FunnyBirdsTables, evaluate_funnybirds
from explainkit.metrics.funnybirds_rows import (
    Masks,
    gather_scenes,
    importance_of_boxes,
    importance_of_maps,
    unit_boxes,
)
from explainkit.metrics.funnybirds_table import COLUMNS
from explainkit.testing import fitted_example, tiny_dataset, tiny_images

TRIVIAL = ("oracle", "area", "random", "signed noise")


@pytest.fixture(scope="module")
def dataset():
    return aviary(preset="funny", classes=12, size=48, train=8, validation=12, test=24)


@pytest.fixture(scope="module")
def observed(dataset):
    """The ideal observer, whose explanation is the truth, and trivial rows of its network."""
    return evaluate_funnybirds(
        {"truth": IdealObserver().fit(dataset)}, dataset, images=24, trivial=TRIVIAL, seed=3
    )


def mean(tables, row, column):
    return tables.by_validation.score(row, column).mean


def test_every_cell_of_the_truth_has_a_value_but_where_all_parts_are_worth_the_same(observed) -> None:
    undefined = {"fb-sd", "fb-correctness", "fb-mean"}  # the observer counts parts: each drop is 1

    for column in COLUMNS:
        assert math.isnan(mean(observed, "truth", column)) == (column in undefined)


def test_the_truth_scores_high(observed) -> None:
    for column in ("fb-accuracy", "fb-csdc", "fb-pc", "fb-bi", "fb-ts"):
        assert mean(observed, "truth", column) == 1
    assert mean(observed, "truth", "fb-d") > 0.75
    assert mean(observed, "truth", "fb-completeness") > 0.85


def test_the_truth_is_better_than_noise(observed) -> None:
    for name in ("random", "signed noise"):
        assert mean(observed, "truth", "fb-completeness") > mean(observed, name, "fb-completeness") + 0.1


def test_the_area_of_parts_ignores_the_target(observed) -> None:
    assert mean(observed, "area", "fb-ts") == 0


def test_noise_is_drawn_anew_for_each_target(observed) -> None:
    values = [observed.by_test.score(row, "fb-ts").defined for row in ("random", "signed noise")]

    assert 0.2 < torch.cat(values).mean() < 0.8


def test_completeness_and_the_mean_are_those_of_their_parts(observed) -> None:
    for row in ("truth", *TRIVIAL):
        checks = sum(mean(observed, row, f"fb-{name}") for name in ("csdc", "pc", "dc")) / 3
        completeness = (checks + mean(observed, row, "fb-d")) / 2
        assert mean(observed, row, "fb-completeness") == pytest.approx(completeness)


def test_a_threshold_chosen_on_the_same_images_is_never_worse_there(observed) -> None:
    for row in ("truth", *TRIVIAL):
        chosen, published = (
            table.score(row, "fb-completeness").mean for table in (observed.by_validation, observed.by_test)
        )
        assert published >= chosen - 1e-9


def test_what_does_not_depend_on_a_threshold_is_the_same_in_both_tables(observed) -> None:
    for column in ("fb-accuracy", "fb-bi", "fb-sd", "fb-ts"):
        one, other = (
            table.score("random", column).values for table in (observed.by_validation, observed.by_test)
        )
        assert torch.equal(one.nan_to_num(-1), other.nan_to_num(-1))


def test_the_tables_come_back_from_json(observed) -> None:
    back = FunnyBirdsTables.from_json(observed.to_json())

    assert back.to_json() == observed.to_json()
    assert back.markdown() == observed.markdown()
    with pytest.raises(FormatError, match="funny-birds-tables"):
        FunnyBirdsTables.from_json(json.dumps({"schema": "explainkit.metric-table/1"}))


def test_both_ways_are_on_the_page(observed) -> None:
    assert observed.table().count("fb-threshold") == observed.markdown().count("fb-threshold") == 2
    assert "as published" in observed.markdown()


def test_without_validation_scenes_each_half_is_judged_by_the_threshold_of_the_other(dataset) -> None:
    explainer = IdealObserver().fit(dataset)

    halves = [
        evaluate_funnybirds(explainer, keep(dataset, half), images=24, trivial=["random"], seed=3).by_test
        for half in (1, 0)
    ]
    tables = evaluate_funnybirds(explainer, dataset, validation=None, images=24, trivial=["random"], seed=3)

    own = tables.by_validation.rows[0].name
    chosen = tables.by_validation.score(own, "fb-threshold").values
    for first, of_other in enumerate(halves):
        assert (chosen[first::2] == of_other.score(own, "fb-threshold").mean).all()


class Half:
    """Every other image of a split of aviary, whose scenes can be drawn again."""

    def __init__(self, split, first):
        self.split, self.first = split, first

    def __len__(self):
        return len(self.split) // 2

    @property
    def labels(self):
        return self.split.labels[self.first :: 2]

    def __getattr__(self, name):
        return lambda ids, *more: getattr(self.split, name)(ids.cpu() * 2 + self.first, *more)


def keep(dataset, first):
    return evolve(dataset, splits=dict(dataset.splits) | {"test": Half(dataset.split("test"), first)})


class Failing(IdealObserver):
    """An explainer whose explanations fail."""

    def explain_batch(self, *args: object) -> ek.Explanations:
        raise RuntimeError("no such luck")


def test_an_explainer_that_fails_costs_the_others_nothing(dataset) -> None:
    tables = evaluate_funnybirds({"failing": Failing().fit(dataset)}, dataset, images=4, trivial=["area"])

    assert tables.by_test.score("failing", "fb-csdc").reason == "RuntimeError: no such luck"
    assert tables.by_test.score("failing", "fb-accuracy").mean == 1
    assert not math.isnan(tables.by_test.score("area", "fb-pc").mean)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"images": 0}, "at least one explainer"), ({"trivial": ["chance"]}, "trivial rows of oracle")],
)
def test_what_cannot_be_measured_is_refused_in_words(dataset, change, words) -> None:
    with pytest.raises(InputError, match=words):
        evaluate_funnybirds([IdealObserver().fit(dataset)], dataset, **change)


def test_data_whose_scenes_cannot_be_drawn_again_are_refused() -> None:
    with pytest.raises(InputError, match="preset='funny'"):
        evaluate_funnybirds([fitted_example("cam")], tiny_dataset(), validation="test")


def test_a_background_object_is_seen_where_pixels_change_without_it(dataset) -> None:
    scenes = gather_scenes(IdealObserver().fit(dataset), dataset, "test", torch.arange(5), seed=0)

    seen = scenes.masks.seen[:, scenes.masks.parts :]
    drawn = torch.from_numpy(dataset.draw(dataset.scenes("test", range(5))).distractors)

    assert not seen[~scenes.logits.objects].any()
    assert not (drawn & ~seen.any(1)).any(), "every pixel of a distractor changes as that goes"
    assert (scenes.logits.with_parts[:, -1].argmax(1) == scenes.logits.labels).all()


def test_maps_are_summed_within_two_pixels_of_what_is_seen() -> None:
    generator = torch.Generator().manual_seed(0)
    saliency = torch.randn(3, 9, 11, generator=generator)
    seen = torch.rand(3, 4, 9, 11, generator=generator) < 0.05

    row = importance_of_maps(saliency, Masks.of(seen, 3))

    for n in range(3):
        for p in range(4):
            near = {
                (y + dy, x + dx)
                for y, x in seen[n, p].nonzero().tolist()
                for dy in range(-2, 3)
                for dx in range(-2, 3)
                if 0 <= y + dy < 9 and 0 <= x + dx < 11
            }
            total = sum(saliency[n, y, x].item() for y, x in near)
            assert row.evidence[n, p].item() == pytest.approx(total, abs=1e-5)
    assert row.parts.shape == (3, 3) and row.total[:, 0].numpy() == pytest.approx(
        saliency.sum((1, 2)).numpy(), abs=1e-5
    )


def test_boxes_are_those_of_the_targets_own_prototypes() -> None:
    explainer = fitted_example("protopnet")
    explanations = explainer.explain(tiny_images(), 1)
    size = explanations.images.shape[2:]
    seen = torch.rand(len(explanations), 3, *size, generator=torch.Generator().manual_seed(0)) < 0.3

    row = importance_of_boxes(explanations, Masks.of(seen, 2))

    own = (explainer.units.class_affinity.argmax(1) == 1).nonzero()[:, 0].tolist()
    for n in range(len(explanations)):
        map, union = torch.zeros(size, dtype=torch.float64), torch.zeros(size, dtype=torch.bool)
        for unit in own:
            large = F.interpolate(explanations.maps[n, unit][None, None], size, mode="bicubic")[0, 0].clamp(0)
            x0, y0, x1, y1 = unit_boxes(explanations[n : n + 1], torch.tensor([[unit]]))[0, 0].tolist()
            if large.amax() > large.amin():
                ys, xs = (large >= large.flatten().quantile(0.95)).nonzero().T
                assert (x0, y0, x1, y1) == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
            map[y0:y1, x0:x1] += explanations.contributions[n, unit].double()
            union[y0:y1, x0:x1] = True
        for p in range(3):
            assert row.evidence[n, p] == (union & seen[n, p]).sum()
            assert row.total[n, p] == seen[n, p].sum()
        assert row.parts[n].numpy() == pytest.approx(
            [(map * seen[n, p]).sum().item() for p in range(2)], abs=1e-5
        )


def test_units_without_places_get_the_reason_and_the_network_its_accuracy() -> None:
    data = aviary(preset="funny", classes=12, size=32, train=32, validation=12, test=12)
    model = ek.explainer("senn", preset="tiny").fit(data, device="cpu", progress=False)

    tables = evaluate_funnybirds({"senn": model}, data, images=12, trivial=("oracle",))

    assert "how much, not where" in tables.by_validation.score("senn", "fb-csdc").reason
    assert tables.by_validation.score("senn", "fb-accuracy").reason is None
