import numpy as np
import pytest
import torch

from explainkit.data.datasets.aviary import interventions
from explainkit.data.datasets.aviary.dataset import Aviary, aviary
from explainkit.data.datasets.aviary.grammar import PARTS
from explainkit.data.datasets.aviary.observer import IdealObserver
from explainkit.errors import InputError, UnsupportedNetworkError


@pytest.fixture(scope="module")
def dataset() -> Aviary:
    return aviary(train=60, validation=20, test=60)


@pytest.fixture(scope="module")
def observer(dataset: Aviary) -> IdealObserver:
    return IdealObserver().fit(dataset)


def test_its_logit_is_the_number_of_parts_in_common(dataset: Aviary, observer: IdealObserver) -> None:
    scenes = dataset.scenes("mixed")
    explanations = observer.explain(next(iter(dataset.batches("mixed"))))

    for n in range(5):
        for c in range(20):
            literal = sum(
                bool(scenes.present[n, 0, p]) and (scenes.codes[n, 0, p] == dataset.codes[c, p]).all()
                for p in range(len(PARTS))
            )
            assert explanations.logits[n, c] == literal


def test_its_explanation_is_exactly_additive_and_in_the_right_place(
    dataset: Aviary, observer: IdealObserver
) -> None:
    batch = next(iter(dataset.batches("test")))
    explanations = observer.explain(batch)

    explanations.check_additivity()

    assert explanations.residual is not None and explanations.residual.abs().max() == 0
    assert batch.masks is not None
    saliency = explanations.saliency((64, 64))
    assert torch.allclose(
        saliency.sum((1, 2)), explanations.logits.gather(1, explanations.targets[:, None])[:, 0]
    )
    assert (saliency[~batch.masks.any(1)] == 0).all()


def test_taking_away_a_part_takes_away_its_contribution(dataset: Aviary, observer: IdealObserver) -> None:
    scenes = dataset.scenes("test", np.arange(10))
    whole = observer.explain(dataset.render(scenes), targets=torch.from_numpy(scenes.labels))

    for p, part in enumerate(PARTS):
        bare = interventions.remove(scenes, part)
        observer.network.remember(bare)  # type: ignore[operator]
        after = observer.explain(dataset.render(bare), targets=torch.from_numpy(scenes.labels))
        drop = (whole.logits - after.logits).gather(1, whole.targets[:, None])[:, 0]
        assert torch.equal(drop, whole.contributions[:, p])


def test_it_is_never_wrong_where_the_label_is_defined(dataset: Aviary, observer: IdealObserver) -> None:
    scores = observer.evaluate(dataset)

    assert all(score["accuracy"] == 1 for score in scores.values())


def test_images_that_were_never_drawn_are_refused(observer: IdealObserver) -> None:
    with pytest.raises(InputError, match=r"got another.*dataset\.render\(scenes\)"):
        observer.explain(torch.rand(1, 3, 64, 64))


def test_other_data_are_refused(dataset: Aviary) -> None:
    from explainkit.data.types import ImageDataset

    plain = ImageDataset(name="plain", classes=dataset.classes, size=dataset.size, splits=dataset.splits)

    with pytest.raises(UnsupportedNetworkError, match="Expected aviary"):
        IdealObserver().fit(plain)
