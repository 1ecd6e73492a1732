import numpy as np
import pytest
import torch

from explainkit.data.aviary import interventions
from explainkit.data.aviary.dataset import Aviary, aviary
from explainkit.data.aviary.grammar import PARTS
from explainkit.errors import BindError, InputError
from explainkit.metrics.observer import IdealObserver


@pytest.fixture(scope="module")
def data() -> Aviary:
    return aviary(train=60, validation=20, test=60)


@pytest.fixture(scope="module")
def observer(data: Aviary) -> IdealObserver:
    return IdealObserver().fit(data)


def test_its_logit_is_the_number_of_parts_in_common(data: Aviary, observer: IdealObserver) -> None:
    scenes = data.scenes("mixed")
    told = observer.explain(next(iter(data.batches("mixed"))))

    for n in range(5):
        for c in range(20):
            literal = sum(
                bool(scenes.present[n, 0, p]) and (scenes.codes[n, 0, p] == data.codes[c, p]).all()
                for p in range(len(PARTS))
            )
            assert told.logits[n, c] == literal


def test_its_explanation_is_exactly_additive_and_in_the_right_place(
    data: Aviary, observer: IdealObserver
) -> None:
    batch = next(iter(data.batches("test")))
    told = observer.explain(batch)

    told.check()

    assert told.residual is not None and told.residual.abs().max() == 0
    assert batch.masks is not None
    saliency = told.saliency((64, 64))
    assert torch.allclose(saliency.sum((1, 2)), told.logits.gather(1, told.targets[:, None])[:, 0])
    assert (saliency[~batch.masks.any(1)] == 0).all()


def test_taking_away_a_part_takes_away_its_contribution(data: Aviary, observer: IdealObserver) -> None:
    scenes = data.scenes("test", np.arange(10))
    whole = observer.explain(data.render(scenes), targets=torch.from_numpy(scenes.labels))

    for p, part in enumerate(PARTS):
        bare = interventions.remove(scenes, part)
        observer.network.remember(bare)  # type: ignore[operator]
        after = observer.explain(data.render(bare), targets=torch.from_numpy(scenes.labels))
        drop = (whole.logits - after.logits).gather(1, whole.targets[:, None])[:, 0]
        assert torch.equal(drop, whole.contributions[:, p])


def test_it_is_never_wrong_where_the_label_is_defined(data: Aviary, observer: IdealObserver) -> None:
    scores = observer.evaluate(data)

    assert all(score["accuracy"] == 1 for score in scores.values())


def test_images_that_were_never_drawn_are_refused(observer: IdealObserver) -> None:
    with pytest.raises(InputError, match=r"got another.*remember\(scenes\)"):
        observer.explain(torch.rand(1, 3, 64, 64))


def test_other_data_are_refused(data: Aviary) -> None:
    from explainkit.data.images import ImageData

    plain = ImageData(name="plain", classes=data.classes, size=data.size, splits=data.splits)

    with pytest.raises(BindError, match="Expected aviary"):
        IdealObserver().fit(plain)
