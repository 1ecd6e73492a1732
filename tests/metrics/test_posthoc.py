"""A network's own explanation beside post-hoc methods on the same network."""

import math

import pytest
import torch
from attrs import evolve

import explainkit as ek
from explainkit.errors import FormatError, InputError, UnknownNameError
from explainkit.explainers.card import Card
from explainkit.explainers.posthoc import PostHocExplainer
from explainkit.metrics import ExplainerOutput, Score, evaluate_explanations
from explainkit.metrics.baselines import TRIVIAL
from explainkit.metrics.posthoc import (
    COINCIDENCE,
    ROUNDED,
    ROUNDINGS,
    USUAL_METHODS,
    _method_names,
    coincidence,
)
from explainkit.metrics.posthoc_comparison import PostHocComparison
from explainkit.registry import find
from explainkit.rendering.html import TableView
from explainkit_cam.explainer import CAM

EQUAL = ("captum/layer-grad-cam", "captum/layer-gradient-x-activation", "captum/layer-feature-ablation")
"""Methods that equal CAM on a network with one linear layer after pooling."""

RACED = ("captum/saliency", "captum/integrated-gradients", "captum/feature-ablation")

METRICS = ("shapley-correlation", "within-class-correlation", "part-deletion", "residual")
COSTS = ("forward-passes", "backward-passes")


@pytest.fixture(scope="module")
def comparison(small) -> PostHocComparison:
    return ek.compare_with_posthoc(
        small.cam, small.dataset, methods=[*RACED, *EQUAL], images=12, metrics=[*METRICS, *COSTS]
    )


def test_the_own_row_comes_first_then_the_methods_then_every_trivial_row(comparison) -> None:
    assert [row.name for row in comparison.table.rows] == ["cam", *RACED, *EQUAL, *TRIVIAL]
    assert comparison.own == "cam" and comparison.methods == RACED


def test_its_rows_are_those_of_the_table_of_metrics(small, comparison) -> None:
    explainers = [
        small.cam,
        ek.explainer("captum/saliency", network=small.cam.network, classes=small.cam.classes),
    ]
    table = evaluate_explanations(explainers, small.dataset, images=12, metrics=METRICS)

    for row in ("cam", "captum/saliency", "oracle", "random"):
        for metric in METRICS:
            one, other = comparison.table.score(row, metric), table.score(row, metric)
            assert one.reason == other.reason and str(one.values) == str(other.values)


@pytest.mark.parametrize("method", EQUAL)
def test_methods_that_equal_cam_by_construction_are_found_by_their_maps(small, method) -> None:
    images = small.dataset.split("mixed").batch(torch.arange(12)).images
    own = small.cam.explain(images)
    other = ek.explainer(method, network=small.cam.network, classes=small.cam.classes)
    own_maps, maps = own.saliency(), other.explain(images, own.targets).saliency()

    roundings = 8 * torch.finfo(maps.dtype).eps * own.explained_output.abs()  # of what subtracts logits
    assert ((own_maps - maps).abs().amax((1, 2)) <= 1e-5 * own_maps.abs().amax((1, 2)) + roundings).all()


def test_coinciding_methods_are_measured_and_not_compared(comparison) -> None:
    assert tuple(comparison.coinciding) == EQUAL and set(comparison.differences) == set(RACED)
    for each in comparison.coinciding.values():
        assert each.factor == pytest.approx(1, abs=1e-5)
        assert each.roundings is not None
        assert each.difference <= 1e-5 or (each.difference <= 1e-3 and each.roundings <= 8)
    for text in (comparison.tables(), comparison.markdown()):
        assert "captum/layer-grad-cam equals cam" in text
    with pytest.raises(InputError, match="Expected one of the methods captum/saliency, "):
        comparison.difference("captum/layer-grad-cam", "part-deletion")


def output_of(small, change) -> tuple[ExplainerOutput, ExplainerOutput]:
    """CAM's own output, and that of a post-hoc method whose maps are changed."""
    context = small.context()
    own, other = (
        explainer.explain(context.images, context.targets) for explainer in (small.cam, small.slopes)
    )
    maps = own.saliency()
    outputs = (
        ExplainerOutput(context=context, name="own", full_explanations=own, saliency_map=maps),
        ExplainerOutput(context=context, name="other", full_explanations=other, saliency_map=change(maps)),
    )
    return outputs


def test_one_positive_factor_for_all_images_makes_no_difference(small) -> None:
    own, other = output_of(small, lambda maps: 4 * maps)

    same = coincidence(own, other)

    assert same is not None and same.factor == pytest.approx(0.25) and same.difference <= 1e-6


@pytest.mark.parametrize(
    "change",
    [
        lambda maps: -maps,
        lambda maps: torch.zeros_like(maps),
        lambda maps: maps + 0.1 * maps.abs().amax(),
        lambda maps: maps * torch.arange(1.0, len(maps) + 1)[:, None, None],
        lambda maps: maps.where(torch.arange(len(maps))[:, None, None] > 0, maps.flip(1)),
        lambda maps: maps.where(maps != maps.amax(), torch.nan),
    ],
    ids=["negative", "flat", "shifted", "a factor an image", "one image differs", "NaN"],
)
def test_maps_that_score_parts_otherwise_do_not_coincide(small, change) -> None:
    assert coincidence(*output_of(small, change)) is None


def test_maps_in_logits_coincide_only_in_logits(small) -> None:
    own, other = output_of(small, lambda maps: 4 * maps)
    in_logits = evolve(other, full_explanations=own.explanations)

    assert coincidence(own, in_logits) is None
    assert coincidence(own, evolve(in_logits, saliency_map=own.saliency)).difference == 0


def test_rounding_of_the_logit_is_no_difference(small) -> None:
    explanations = small.cam.explain(small.context().images)
    roundings = 2**-23 * explanations.explained_output.double().abs()
    largest = explanations.saliency().double().abs().amax((1, 2))

    def beside(count, share):
        """Maps so small that `count` roundings of the logit are `share` of the largest value, at most."""
        scale = count * (roundings / largest).amax() / share
        own, other = output_of(small, lambda maps: maps.double() * scale + count * roundings[:, None, None])
        other = evolve(other, saliency_map=other.saliency.float())
        return coincidence(evolve(own, saliency_map=own.saliency.double() * scale), other)

    same = beside(0.6 * ROUNDINGS, 0.5 * ROUNDED)

    assert same is not None and COINCIDENCE < same.difference <= ROUNDED and same.roundings <= ROUNDINGS
    assert beside(2 * ROUNDINGS, 0.5 * ROUNDED) is None, "more than rounding"
    assert beside(0.6 * ROUNDINGS, 0.2) is None, "maps that are little more than rounding"


def test_differences_are_image_by_image_and_above_zero_where_the_own_explanation_is_better(
    comparison,
) -> None:
    own, other = (comparison.table.score(row, "part-deletion").values for row in ("cam", "captum/saliency"))
    lower = comparison.difference("captum/saliency", "part-deletion")
    assert torch.equal(lower.values, other - own) and lower.better == "higher"

    own, other = (
        comparison.table.score(row, "within-class-correlation").values for row in ("cam", "captum/saliency")
    )
    higher = comparison.difference("captum/saliency", "within-class-correlation")
    assert torch.equal(higher.values, own - other)
    assert comparison.difference("captum/integrated-gradients", "backward-passes").mean > 50


def test_the_difference_of_a_cell_without_values_is_its_reason(comparison) -> None:
    difference = comparison.difference("captum/saliency", "residual")

    assert difference.reason == "captum/saliency: It claims no sum." and not difference.excludes_zero


@pytest.mark.parametrize(
    ("values", "excludes"),
    [([0.1, 0.2, 0.3], True), ([-0.1, -0.2], True), ([-1.0, 1.0, 0.5, -0.5], False), ([0.0, 0.0], False),
     ([math.nan], False)],
)  # fmt: skip
def test_an_interval_excludes_zero_where_it_lies_to_one_side(values, excludes) -> None:
    assert Score(name="made", values=torch.tensor(values)).excludes_zero == excludes


def test_an_advantage_is_a_plain_difference_where_neither_end_is_better() -> None:
    one, other = (Score(name="made", values=torch.tensor([value, 2.0])) for value in (1.0, 5.0))

    assert one.advantage_over(other).values.tolist() == [-4, 0] and one.advantage_over(other).better is None


def test_a_row_is_compared_with_those_of_its_network_alone(small) -> None:
    table = evaluate_explanations(
        {"one": small.cam, "two": small.slopes}, small.dataset, images=3, metrics=["gini"]
    )
    foreign = evolve(table.rows[1], network="other")

    differences = evolve(table, rows=(table.rows[0], foreign, *table.rows[2:])).paired_differences("one")

    assert set(differences) == set(TRIVIAL)
    with pytest.raises(UnknownNameError, match="No row 'three'"):
        table.paired_differences("three")


def test_an_unavailable_method_is_a_reason(small) -> None:
    measured = []

    comparison = ek.compare_with_posthoc(
        small.cam, small.dataset, methods=["ra-cnn", "captum/saliency"], images=3, metrics=["gini", *COSTS],
        on_row=measured.append,
    )  # fmt: skip

    assert list(comparison.unavailable) == ["ra-cnn"] and comparison.methods == ("captum/saliency",)
    assert "ra-cnn is unavailable: " in comparison.tables()
    assert [row.name for row in measured] == ["cam", "ra-cnn", "captum/saliency"]
    assert measured[1].scores["gini"].reason == comparison.unavailable["ra-cnn"]


def test_a_method_that_cannot_read_the_network_is_a_reason(small) -> None:
    relu = torch.nn.ReLU()
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, 4), relu, torch.nn.Conv2d(4, 4, 3), relu, torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(), torch.nn.Linear(4, 5),
    ).eval()  # fmt: skip
    cam = CAM.from_network(network, classes=small.dataset.classes, size=(32, 32))

    comparison = ek.compare_with_posthoc(
        cam, small.dataset, methods=["captum/layer-deep-lift", "captum/layer-grad-cam"], images=2,
        metrics=["gini"],
    )  # fmt: skip

    assert "Give each call a module of its own" in comparison.unavailable["captum/layer-deep-lift"]
    assert [row.name for row in comparison.table.rows if not row.trivial] == ["cam", "captum/layer-grad-cam"]


def test_all_is_every_method_that_learns_nothing_and_the_usual_ones_are_among_them() -> None:

    names = _method_names("all")

    assert len([name for name in names if name.startswith("captum/")]) == 26 and "cam" not in names
    assert all(issubclass(find("explainers", name), PostHocExplainer) for name in names)
    assert set(_method_names(None)) == set(USUAL_METHODS) <= set(names)


def test_what_cannot_be_compared_is_refused(small) -> None:
    with pytest.raises(InputError, match="explains itself; Slopes is post hoc"):
        ek.compare_with_posthoc(small.slopes, small.dataset)
    with pytest.raises(UnknownNameError, match="captum/oclusion"):
        ek.compare_with_posthoc(small.cam, small.dataset, methods=["captum/oclusion"])
    with pytest.raises(UnknownNameError, match="gin"):
        ek.compare_with_posthoc(small.cam, small.dataset, metrics=["ginny"])
    with pytest.raises(InputError, match="got 'cam', which that is"):
        ek.compare_with_posthoc(small.cam, small.dataset, methods=["captum/saliency", "cam"])
    for settings in ({"methods": []}, {"images": 0}):
        with pytest.raises(InputError, match="at least one method and one image"):
            ek.compare_with_posthoc(small.cam, small.dataset, **settings)
    with pytest.raises(InputError, match="a list of names, or 'all'"):
        ek.compare_with_posthoc(small.cam, small.dataset, methods="captum/saliency")


def test_it_comes_back_from_json(comparison) -> None:
    text = comparison.to_json()

    again = PostHocComparison.from_json(text)

    assert again.to_json() == text and again.tables() == comparison.tables()
    with pytest.raises(FormatError):
        PostHocComparison.from_json(text.replace('"own": "cam"', '"own": "senn"'))
    with pytest.raises(FormatError):
        PostHocComparison.from_json(text.replace('"columns"', '"pillars"'))


def test_views_make_tables_of_a_page(comparison) -> None:
    table, differences = (TableView(**view) for view in comparison.views())

    assert len(table.columns) == len(differences.columns) == len(METRICS) + 2
    assert [name for name, _, _ in differences.rows] == list(RACED) and "above 0" in differences.note
    assert "<pre>" in comparison._repr_html_()


def test_a_method_that_fails_while_it_explains_is_a_reason(small, monkeypatch) -> None:
    from explainkit.metrics import posthoc

    class Failing(PostHocExplainer):
        """Fails in a way of its own."""

        card = Card(title="Failing", citation="made for tests", additivity="none", unit_kind="pixels")

        def explain_batch(self, images, targets, foils):
            raise RuntimeError("no such kernel")

    monkeypatch.setattr(
        posthoc, "explainer_by_name", lambda name, **settings: Failing.from_network(settings["network"])
    )

    comparison = ek.compare_with_posthoc(
        small.cam, small.dataset, methods=["captum/saliency"], images=2, metrics=["gini"]
    )

    assert comparison.unavailable == {"captum/saliency": "RuntimeError: no such kernel"}
    assert "less each method" not in comparison.tables() and len(comparison.views()) == 1
