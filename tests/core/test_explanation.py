import numpy as np
import pytest
import torch
from attrs import evolve

from explainkit.decomposition import Decomposition
from explainkit.errors import AlgebraError, InputError, UnknownNameError
from explainkit.explanation import Exemplar, Explanations, Provenance, Units, concatenate

CLASSES = ("cardinal", "jay", "wren")


def drawn(*shape, seed=0, signed=False):
    values = torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values * 2 - 1 if signed else values


def units(count=5, **fields):
    return Units(
        **{"kind": "filter", "names": [f"filter {k}" for k in range(count)], "pooling": "mean"} | fields
    )


def told(number=4, count=5, reference=None, callable_weights=False, **fields):
    """Explanations of made numbers that add up, with every class known."""
    table = drawn(number, 3, count, seed=1, signed=True)
    if not callable_weights:
        table = table[:1].expand(number, -1, -1)
    scores, bias, targets = drawn(number, count), drawn(3, seed=2), torch.arange(number) % 3
    maps = drawn(number, count, 4, 4, seed=3)
    logits = torch.einsum("nck,nk->nc", table, scores) + bias
    weights = table[torch.arange(number), targets]
    base = bias[targets] + (0 if reference is None else (weights * reference).sum(1))
    parts = Decomposition(
        logits=logits,
        bias=bias,
        scores=scores,
        maps=maps,
        weights=(lambda rows, of: table[rows, of]) if callable_weights else table[0],
    )
    values = {
        "logits": logits,
        "targets": targets,
        "base": base,
        "scores": scores,
        "weights": weights,
        "maps": maps,
        "units": units(count, reference=reference),
        "classes": CLASSES,
        "images": drawn(number, 3, 16, 16, seed=4),
        "claim": "exact",
        "provenance": Provenance(explainer="made", created="2026-01-01T00:00:00+00:00"),
        "decomposition": parts,
    }
    return Explanations(**values | fields)


def changed(index, value, name, **fields):
    """A field of `told()` with one value changed."""
    values = getattr(told(**fields), name).clone()
    values[index] = value
    return values


REFERENCE = drawn(5, seed=9)


@pytest.mark.parametrize("callable_weights", [False, True])
@pytest.mark.parametrize("reference", [None, REFERENCE])
def test_base_contributions_and_residual_are_the_logit(reference, callable_weights):
    explained = told(reference=reference, callable_weights=callable_weights)

    for n in range(4):
        total = explained.base[n]
        for k in range(5):
            nothing = 0 if reference is None else reference[k]
            added = explained.weights[n, k] * (explained.scores[n, k] - nothing)
            torch.testing.assert_close(explained.contributions[n, k], added)
            total = total + added
        torch.testing.assert_close(total + explained.residual[n], explained.logits[n, explained.targets[n]])
    assert explained.check() is explained
    assert explained.residual.abs().max() < 1e-12


@pytest.mark.parametrize("pooling", ["mean", "sum", "max", "coupled"])
@pytest.mark.parametrize("size", [None, (16, 16), (4, 4), (7, 9), (2, 3), (1, 1)])
def test_saliency_sums_to_logit_less_base_residual_and_unplaced(pooling, size):
    maps = drawn(4, 5, 4, 4, seed=3)
    maps[:, 2] = 0
    maps[1] = 0
    explained = told(maps=maps, base=torch.zeros(4).double(), units=units(pooling=pooling))

    saliency = explained.saliency(size)

    assert saliency.shape == (4, *(size or (16, 16)))
    expected = explained.totals - explained.base - explained.residual - explained.unplaced
    torch.testing.assert_close(saliency.sum((1, 2)), expected)
    torch.testing.assert_close(explained.unplaced[0], explained.contributions[0, 2])
    torch.testing.assert_close(explained.unplaced[1], explained.contributions[1].sum())


def test_saliency_in_boxes_sums_too_and_stays_inside():
    group = torch.tensor([0, 1, 0, 1, 1])
    boxes = torch.tensor([[0.0, 0, 16, 16], [4, 8, 12, 16]], dtype=torch.float64).expand(4, 2, 4)
    explained = told(boxes=boxes, units=units(group=group))

    saliency = explained.saliency()

    torch.testing.assert_close(saliency.sum((1, 2)), explained.contributions.sum(1))
    inner = told(boxes=boxes, units=units(group=group), weights=explained.weights * (group == 1)).saliency()
    assert (
        inner[:, :8].abs().max() == 0
        and inner[:, :, :4].abs().max() == 0
        and inner[:, :, 12:].abs().max() == 0
    )


def test_without_maps_nothing_is_placed():
    explained = told(maps=None)

    assert explained.saliency((8, 8)).abs().max() == 0
    torch.testing.assert_close(explained.unplaced, explained.contributions.sum(1))


@pytest.mark.parametrize("callable_weights", [False, True])
@pytest.mark.parametrize("reference", [None, REFERENCE])
def test_a_contrast_sums_to_the_margin_and_is_antisymmetric(reference, callable_weights):
    explained = told(reference=reference, callable_weights=callable_weights)
    others = (explained.targets + 1) % 3

    contrast = explained.contrast(others).check()
    back = evolve(
        explained,
        targets=others,
        weights=explained.decomposition.weights_for(others),
        base=explained.base,
    ).contrast(explained.targets)

    rows = torch.arange(4)
    margin = explained.logits[rows, explained.targets] - explained.logits[rows, others]
    torch.testing.assert_close(contrast.totals, margin)
    torch.testing.assert_close(contrast.base + contrast.contributions.sum(1), margin)
    torch.testing.assert_close(back.contributions, -contrast.contributions)
    torch.testing.assert_close(back.saliency(), -contrast.saliency())
    torch.testing.assert_close(back.base, -contrast.base)


def test_a_contrast_with_oneself_is_nothing():
    contrast = told().contrast(told().targets)

    assert contrast.contributions.abs().max() == 0 and contrast.totals.abs().max() == 0


def test_a_contrast_takes_names_and_one_class_for_all():
    explained = told()

    torch.testing.assert_close(explained.contrast("wren").against, torch.full((4,), 2))
    torch.testing.assert_close(explained.contrast(["jay", 2, "wren", 0]).against, torch.tensor([1, 2, 2, 0]))
    assert explained.contrast("wren")[0].against_name == "wren"


def test_some_images_contrast_with_their_own_weights():
    explained = told(callable_weights=True)

    some = explained[[3, 1]].contrast("wren")

    torch.testing.assert_close(some.contributions, explained.contrast("wren").contributions[[3, 1]])


def test_who_knows_one_class_alone_says_how_to_contrast():
    with pytest.raises(InputError, match="against="):
        told(decomposition=None).contrast("jay")


@pytest.mark.parametrize("k", [0, 1, 3, 5, 99])
def test_the_strongest_and_the_remainder_are_the_total(k):
    explained = told()

    top = explained.top(k)

    assert top.unit.shape == (4, min(k, 5))
    torch.testing.assert_close(top.contribution.sum(1) + top.remainder, explained.contributions.sum(1))
    for n in range(4):
        by_size = sorted(range(5), key=lambda unit: -abs(explained.contributions[n, unit]))
        assert top.unit[n].tolist() == by_size[:k]


def test_an_index_gives_one_and_a_slice_gives_some():
    explained = told()

    assert (
        explained[-1].index == 3
        and explained[np.int64(2)].index == 2
        and explained[torch.tensor(1)].index == 1
    )
    for index in (slice(1, 3), [1, 2], torch.tensor([1, 2]), np.array([1, 2]), [False, True, True, False]):
        some = explained[index]
        assert len(some) == 2
        for name in (
            "logits",
            "targets",
            "base",
            "scores",
            "weights",
            "images",
            "maps",
            "contributions",
            "residual",
        ):
            torch.testing.assert_close(getattr(some, name), getattr(explained, name)[1:3])
    assert [item.index for item in explained] == [0, 1, 2, 3]
    assert len(explained[:0]) == 0


@pytest.mark.parametrize("index", [4, -5])
def test_an_index_out_of_range_is_an_index_error(index):
    with pytest.raises(IndexError, match="4 explanations"):
        told()[index]


def test_no_images_are_no_trouble():
    nothing = told()[:0]

    assert nothing.check().saliency().shape == (0, 16, 16)
    assert nothing.unplaced.shape == (0,) and list(nothing) == []


def test_one_image_is_a_view_of_its_batch():
    explained = told(reference=REFERENCE)

    for n, one in enumerate(explained):
        assert one.target_name == CLASSES[explained.targets[n]]
        assert one.prediction == int(explained.logits[n].argmax())
        assert one.total == pytest.approx(one.base + one.contributions.sum().item() + one.residual)
        torch.testing.assert_close(one.saliency((5, 5)), explained.saliency((5, 5))[n])


def test_evidence_comes_strongest_first_and_adds_up():
    one = told(reference=REFERENCE)[1]

    sizes = [abs(item.contribution) for item in one.evidence]

    assert sizes == sorted(sizes, reverse=True) and len(sizes) == 5
    for item in one.evidence:
        assert item.contribution == pytest.approx(item.weight * (item.score - REFERENCE[item.unit].item()))
        torch.testing.assert_close(item.map, one.batch.maps[1, item.unit])
    assert [item.unit for item in one.strongest(2)] == [item.unit for item in one.evidence[:2]]


def sentence(contributions, count=None, **fields):
    """The sentence of one image with these contributions."""
    weights = torch.tensor([contributions], dtype=torch.float64)
    names = ["the red crest", "the short beak", "the grey tail", "the wing", "the eye"][: len(contributions)]
    explained = Explanations(
        logits=torch.tensor([[3.0, 1.0, 0.0]]),
        targets=torch.tensor([0]),
        base=torch.zeros(1),
        scores=torch.ones(1, len(contributions)),
        weights=weights,
        units=Units(kind="prototype", names=names, pooling="none"),
        classes=("Cardinal", "Jay", "Wren"),
        images=torch.zeros(1, 3, 4, 4),
        claim="none",
        provenance=Provenance(explainer="made", created=""),
        **fields,
    )
    return explained[0].sentence()


def test_a_sentence_tells_what_speaks_for_and_against():
    said = sentence([2.1, 0.9, -0.4])

    assert said == (
        "Cardinal, mostly because of the red crest (+2.1), also the short beak (+0.90), "
        "despite the grey tail (-0.40)."
    )


def test_a_sentence_tells_no_reason_that_hardly_counts():
    assert sentence([2.0, 1.9, 0.15, -0.1]) == (
        "Cardinal, because of the red crest (+2.0) and the short beak (+1.9)."
    )


def test_a_sentence_that_tells_less_than_half_says_what_the_others_come_to():
    weights = torch.tensor([[1.0] * 9], dtype=torch.float64)
    explained = told(number=1, count=9, scores=torch.ones(1, 9).double(), weights=weights, decomposition=None)

    assert explained[0].sentence().endswith("and 6 other filters (+6.0 together).")


def test_units_of_one_phrase_are_told_of_together():
    table = torch.tensor([[3.0, 2.0, 1.0]], dtype=torch.float64)
    named = units(count=3, phrases=("fan tail", "red eye", "fan tail"), phrase_scores=torch.ones(2, 3))
    explained = told(
        number=1, count=3, scores=torch.ones(1, 3).double(), weights=table, units=named, decomposition=None
    )

    assert explained[0].sentence() == (
        "cardinal, mostly because of the fan tail (+4.0 in 2 filters), also the red eye (+2.0)."
    )


def test_a_sentence_says_when_nothing_speaks_for_it():
    assert sentence([-2.0, 0.0]) == "Cardinal, though nothing speaks for it, despite the red crest (-2.0)."
    assert sentence([0.0]) == "Cardinal, though nothing speaks for it."


def test_a_sentence_keeps_to_the_strongest():
    assert sentence([5.0, 4.0, 3.0, 2.0, 1.0]) == (
        "Cardinal, because of the red crest (+5.0), the short beak (+4.0) and the grey tail (+3.0)."
    )


def test_reasons_are_found_behind_many_doubts():
    weights = [-float(size) for size in range(40, 20, -1)] + [1.0]
    explained = told(
        number=1,
        count=21,
        scores=torch.ones(1, 21).double(),
        weights=torch.tensor([weights], dtype=torch.float64),
        decomposition=None,
    )

    assert "because of filter 20 (+1.0)" in explained[0].sentence()


def test_a_sentence_names_the_rival():
    assert sentence([1.0], against=torch.tensor([1])).startswith("Cardinal rather than Jay, because of")


def test_a_phrase_is_told_instead_of_the_name():
    explained = told(units=units(phrases=("red crest", None, None, None, None)))

    words = {item.unit: item.words for item in explained[0].evidence}

    assert words[0] == "red crest" and words[1] == "filter 1"


@pytest.mark.parametrize("broken", [0, 2])
def test_a_sum_that_fails_names_the_image_and_both_sides(broken):
    explained = told(base=changed(broken, 9.0, "base"))

    with pytest.raises(AlgebraError, match=rf"Image {broken}: .*logit is .*residual") as error:
        explained.check()
    assert f"{explained.totals[broken].item():.6g}" in str(error.value)


def test_the_tolerance_is_a_ten_thousandth_of_the_largest():
    explained = told()
    scale = torch.maximum(explained.logits.abs().amax(1), explained.contributions.abs().sum(1))

    told(base=explained.base + 0.9e-4 * scale).check()
    with pytest.raises(AlgebraError):
        told(base=explained.base + 1.1e-4 * scale).check()


def test_a_sum_that_overflows_does_not_pass():
    scores = torch.full((2, 5), 1e308, dtype=torch.float64)
    huge = told(number=2, scores=scores, weights=scores * torch.tensor([1, -1, 1, -1, 1]))

    with pytest.raises(AlgebraError, match="Image 0"):
        huge.check()


def test_who_claims_no_sum_has_no_residual_and_cannot_be_checked():
    explained = told(claim="none")

    assert explained.residual is None and explained[0].residual is None and explained.unit == "gradient"
    with pytest.raises(InputError, match="claims no sum"):
        explained.check()


NAN, INFINITE = float("nan"), float("inf")
REFUSED = {
    "logits that are not (N, C)": (lambda: {"logits": torch.zeros(4)}, r"logits of \(N, C\); got \(4,\)"),
    "logits that are not finite": (
        lambda: {"logits": changed((1, 2), NAN, "logits")},
        r"finite logits; got nan at \(1, 2\)",
    ),
    "scores of another shape": (lambda: {"scores": drawn(4, 6)}, r"scores of \(4, 5\); got \(4, 6\)"),
    "scores that are not finite": (
        lambda: {"scores": changed((3, 0), INFINITE, "scores")},
        r"finite scores; got inf at \(3, 0\)",
    ),
    "weights of another shape": (lambda: {"weights": drawn(3, 5)}, r"weights of \(4, 5\); got \(3, 5\)"),
    "weights that are not finite": (
        lambda: {"weights": changed((0, 1), -INFINITE, "weights")},
        "finite weights; got -inf",
    ),
    "a base of another shape": (lambda: {"base": drawn(4, 3)}, r"base of \(4,\); got \(4, 3\)"),
    "a base that is not finite": (
        lambda: {"base": changed(2, NAN, "base")},
        r"finite base; got nan at \(2,\)",
    ),
    "targets of another shape": (
        lambda: {"targets": torch.zeros(3).long()},
        r"targets of \(4,\); got \(3,\)",
    ),
    "a target too large": (
        lambda: {"targets": torch.tensor([0, 1, 2, 3])},
        r"targets in 0 … 2; got 3",
    ),
    "a target below zero": (lambda: {"targets": torch.tensor([0, -1, 2, 1])}, "targets in 0 … 2; got"),
    "targets that are no integers": (
        lambda: {"targets": torch.zeros(4)},
        "targets of int64; got torch.float32",
    ),
    "a rival too large": (lambda: {"against": torch.tensor([0, 1, 2, 9])}, "against in 0 … 2; got"),
    "too few classes": (lambda: {"classes": ("a", "b")}, "3 class names, one a logit; got 2"),
    "an unknown claim": (lambda: {"claim": "sure"}, "claim to be one of .* got 'sure'"),
    "images of another number": (
        lambda: {"images": torch.zeros(3, 3, 8, 8)},
        r"4 images of \(N, 3, H, W\); got \(3, 3, 8, 8\)",
    ),
    "images without a batch": (lambda: {"images": torch.zeros(3, 8, 8)}, r"4 images .* got \(3, 8, 8\)"),
    "maps of another number": (
        lambda: {"maps": drawn(4, 6, 4, 4)},
        r"maps of \(4, 5, h, w\); got \(4, 6, 4, 4\)",
    ),
    "maps below zero": (lambda: {"maps": changed((0, 0, 0, 0), -0.5, "maps")}, "never negative; got -0.5"),
    "maps that are not finite": (
        lambda: {"maps": changed((0, 0, 0, 1), NAN, "maps")},
        r"finite maps; got nan at \(0, 0, 0, 1\)",
    ),
    "maps of units without a place": (
        lambda: {"units": units(pooling="none")},
        "no maps of units with pooling 'none'",
    ),
    "boxes without groups": (lambda: {"boxes": drawn(4, 4)}, r"boxes of \(4, G, 4\); got \(4, 4\)"),
    "boxes that leave the image": (
        lambda: {"boxes": torch.tensor([[[0.0, 0, 17, 16]]]).expand(4, 1, 4)},
        "inside images of 16 x 16",
    ),
    "boxes inside out": (lambda: {"boxes": torch.tensor([[[8.0, 0, 4, 16]]]).expand(4, 1, 4)}, "x0 < x1"),
    "boxes that are not numbers": (lambda: {"boxes": torch.full((4, 1, 4), NAN)}, "boxes"),
    "a group without a box": (
        lambda: {
            "boxes": torch.tensor([[[0.0, 0, 16, 16]]]).expand(4, 1, 4),
            "units": units(group=torch.tensor([0, 0, 1, 0, 0])),
        },
        r"units.group in 0 … 0; got 1",
    ),
    "map units out of range": (
        lambda: {"maps": drawn(4, 1, 4, 4), "map_units": torch.full((4, 1), 5)},
        "map_units in 0 … 4",
    ),
    "grey images": (
        lambda: {"images": drawn(4, 1, 16, 16)},
        r"images of \(N, 3, H, W\); got \(4, 1, 16, 16\)",
    ),
    "images of no pixel": (lambda: {"images": drawn(4, 3, 0, 16)}, r"got \(4, 3, 0, 16\)"),
    "images in bytes": (
        lambda: {"images": torch.zeros(4, 3, 8, 8).byte()},
        "images as floats; got torch.uint8",
    ),
    "scores of whole numbers": (lambda: {"scores": torch.ones(4, 5).long()}, "scores as floats"),
    "maps of no cell": (lambda: {"maps": drawn(4, 5, 0, 4)}, r"maps of \(4, 5, h, w\)"),
    "maps of less precision": (
        lambda: {"maps": drawn(4, 5, 4, 4).float()},
        "maps of torch.float64, as scores and weights; got torch.float32",
    ),
    "map units of another shape": (
        lambda: {"map_units": torch.zeros(3, 5).long()},
        r"map_units of \(4, k\); got \(3, 5\)",
    ),
    "a rest of another number": (lambda: {"rest": drawn(3, 4, 4)}, r"rest of \(4, h, w\); got \(3, 4, 4\)"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_construction_refuses(what):
    fields, message = REFUSED[what]

    with pytest.raises(InputError, match=message):
        told(**fields())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pooling": "median"}, "units.pooling to be one of .* got 'median'"),
        ({"group": torch.zeros(4).long()}, r"units.group of \(5,\); got \(4,\)"),
        ({"reference": torch.zeros(6)}, r"units.reference of \(5,\); got \(6,\)"),
        ({"reference": torch.tensor([0, 0, NAN, 0, 0])}, "finite units.reference; got nan"),
        ({"phrases": ("a",)}, "units.phrases for 5 units; got 1"),
        ({"exemplars": ((),)}, "units.exemplars for 5 units; got 1"),
        ({"kind": 3}, "units.kind and units.names as words"),
        ({"names": [3] * 5}, "units.kind and units.names as words"),
        ({"phrases": (3, None, None, None, None)}, "units.phrases as words"),
        ({"range": torch.zeros(2, 5)}, r"units.range of \(2, C, 5\); got \(2, 5\)"),
        ({"range": torch.zeros(2, 3, 4)}, r"units.range of \(2, C, 5\); got \(2, 3, 4\)"),
        ({"range": torch.full((2, 3, 5), NAN)}, "finite units.range; got nan"),
        ({"reference": torch.zeros(5).long()}, "units.reference as floats; got torch.int64"),
    ],
)
def test_a_vocabulary_refuses(fields, message):
    with pytest.raises(InputError, match=message):
        units(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"id": "3"}, "whole numbers"),
        ({"cell": (0, 1, 2)}, "whole numbers"),
        ({"box": (0.5, 0, 8, 8)}, "whole numbers"),
        ({"split": 3}, "by name; got 3"),
        ({"box": (4, 0, 4, 8)}, r"box inside its image; got \(4, 0, 4, 8\)"),
        ({"box": (-1, 0, 8, 8)}, "box inside its image"),
        ({"image": torch.zeros(3, 8, 7).byte()}, "box inside its image"),
        ({"image": torch.zeros(3, 8, 8)}, "in bytes; got torch.float32"),
        ({"image": torch.zeros(1, 8, 8).byte()}, r"\(3, H, W\) in bytes"),
    ],
)
def test_an_exemplar_refuses(fields, message):
    good = {"id": 3, "split": "train", "label": 1, "cell": (0, 1), "box": (0, 0, 8, 8)}

    with pytest.raises(InputError, match=message):
        Exemplar(**good | fields)


def test_values_cannot_be_set():
    explained = told()

    with pytest.raises(AttributeError):
        explained.base = torch.zeros(4)
    with pytest.raises(AttributeError):
        explained.units.kind = "concept"


@pytest.mark.parametrize("target", ["cardnal", "no such bird"])
def test_an_unknown_class_is_answered(target):
    with pytest.raises(UnknownNameError, match=r"Did you mean 'cardinal'\?|There are 3 classes"):
        told().contrast(target)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (torch.zeros(4), "targets as integers; got torch.float32"),
        ([0, 1], r"\(4,\); got 2"),
        ([0, 1, 2, None], "class name or index; got None"),
        (3, "class index in 0 … 2; got 3"),
        (-1, "class index in 0 … 2; got -1"),
    ],
)
def test_targets_are_refused_in_words(targets, message):
    with pytest.raises(InputError, match=message):
        told().contrast(targets)


def test_a_move_takes_everything_along():
    explained = told(reference=REFERENCE).to("cpu")

    assert explained.decomposition is None
    explained.check()


def test_what_is_told_piece_by_piece_is_told_whole():
    explained = told(callable_weights=True)

    joined = concatenate([explained[:1], explained[1:3], explained[3:]])

    torch.testing.assert_close(joined.saliency(), explained.saliency())
    torch.testing.assert_close(joined.contrast("jay").contributions, explained.contrast("jay").contributions)


def test_an_exemplar_shows_itself_in_the_evidence():
    exemplar = Exemplar(id=3, split="train", label=1, cell=(0, 1), box=(0, 0, 8, 8))
    explained = told(units=units(exemplars=((exemplar,), (), (), (), ())))

    assert explained[0].evidence_of(0).exemplars == (exemplar,)
    assert explained[0].evidence_of(1).exemplars == ()


def test_a_batch_prints_in_one_line():
    assert repr(told()) == "<4 explanations by made: 5 filter units, exact>"


def test_notes_go_with_their_images():
    """Through indexing, joining, moving and files."""
    explained = told(notes={"how sure": torch.arange(4.0).double()})

    assert explained[2].notes == {"how sure": 2.0}
    assert explained[[3, 1]].notes["how sure"].tolist() == [3.0, 1.0]
    assert concatenate([explained, explained[:1]]).notes["how sure"].tolist() == [0.0, 1.0, 2.0, 3.0, 0.0]
    assert explained.to("cpu").notes["how sure"].tolist() == [0.0, 1.0, 2.0, 3.0]


def test_notes_come_back_from_files(tmp_path):
    explained = told(notes={"how sure": torch.arange(4.0).double()})

    again = Explanations.load(explained.save(tmp_path / "told.safetensors"))

    assert again.notes["how sure"].tolist() == [0.0, 1.0, 2.0, 3.0]


def test_notes_of_another_number_of_images_are_refused():
    with pytest.raises(InputError, match="the note 'how sure'"):
        told(notes={"how sure": torch.zeros(3)})


def of_rows(**fields):
    """Explanations of rows of a table, whose units are its columns."""
    return told(
        images=drawn(4, 5, seed=7), maps=None, units=units(pooling="none"),
        decomposition=None, **fields,
    )  # fmt: skip


def test_rows_of_a_table_are_explained_without_places(tmp_path):
    explained = of_rows().check()

    assert explained.of_rows and explained[0].image.shape == (5,)
    torch.testing.assert_close(explained.unplaced, explained.contributions.sum(1))
    with pytest.raises(InputError, match="no saliency"):
        explained.saliency()
    again = Explanations.load(explained.save(tmp_path / "rows.safetensors"))
    assert again.of_rows and torch.equal(again.images, explained.images)


def test_rows_with_maps_are_refused():
    with pytest.raises(InputError, match="without maps"):
        told(images=drawn(4, 5, seed=7))


def test_the_map_of_a_unit_in_a_box_lies_there_in_the_image():
    boxes = torch.tensor([[[0.0, 0.0, 16.0, 16.0], [4.0, 8.0, 12.0, 16.0]]]).expand(4, 2, 4).double()
    explained = told(boxes=boxes, units=units(group=torch.tensor([0, 0, 1, 1, 1])), decomposition=None)

    whole, inside = explained[0].evidence_of(0).map, explained[0].evidence_of(3).map

    assert whole.shape == inside.shape == (16, 16)
    assert whole.bool().all()
    assert inside[8:, 4:12].sum() == pytest.approx(inside.sum().item()) and inside[8:, 4:12].min() > 0
    torch.testing.assert_close(inside.sum(), explained.maps[0, 3].sum())
