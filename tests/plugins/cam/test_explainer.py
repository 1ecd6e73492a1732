"""Boxes, training, and the citation."""

import torch
from cam_networks import Fixed, cam
from plugin_cases import assert_near, uniform

import explainkit as ek
from explainkit.data.types import ArraySplit
from explainkit.explanations.spatial import resize
from explainkit_cam.explainer import CAM, boxes
from explainkit_cam.model import CAMNetwork


def rectangle():
    """Explanations whose class activation map is a bright rectangle beside a faint and a small one."""
    features = torch.zeros(1, 6, 32, 32)
    features[0, 0, 4:12, 6:26] = 1
    features[0, 0, 20:30, 6:26] = 0.1
    features[0, 0, 16:18, 28:30] = 1.5
    torch.manual_seed(0)
    network = CAMNetwork(Fixed(features), 3)
    with torch.no_grad():
        network.head.weight[:, 0] = 1
    return ek.explainer("cam", network=network).explain(torch.zeros(1, 3, 64, 64), 2)


def test_a_box_is_the_largest_piece_above_a_fifth_of_the_maximum():
    box = boxes(rectangle())[0]

    assert (box - torch.tensor([12, 8, 52, 24])).abs().max() <= 1


def test_a_box_shrinks_as_the_threshold_grows():
    explanations = cam().explain(uniform(6, 3, 32, 32))
    areas = []
    for threshold in (0.05, 0.2, 0.9):
        x0, y0, x1, y1 = boxes(explanations, threshold).unbind(1)
        areas.append((x1 - x0) * (y1 - y0))

    assert (areas[0] >= areas[1]).all() and (areas[1] >= areas[2]).all()


def separable(count=48):
    """Two classes that a color tells apart."""
    labels = torch.arange(count) % 2
    images = torch.randint(0, 60, (count, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    images[labels == 1, 0] += 180
    return ek.ImageDataset(
        name="colors",
        classes=("blue", "red"),
        size=(16, 16),
        splits={
            name: ArraySplit(images=images.byte(), labels=labels) for name in ("train", "validation", "test")
        },
    )


def test_cam_learns_and_its_sums_hold():
    explainer = ek.explainer("cam", backbone="tiny", epochs=4, batch_size=16)

    explainer.fit(separable(), seed=0)

    assert explainer.evaluate(separable())["test"]["accuracy"] == 1
    assert (
        explainer.history[-1].train_losses["cross_entropy"]
        < explainer.history[0].train_losses["cross_entropy"]
    )
    explanations = explainer.explain(separable().test.batch(torch.arange(4)))
    names = [explanations.classes[target] for target in explanations.targets]
    assert names == ["blue", "red", "blue", "red"]
    saliency = explanations.check_additivity().saliency()
    assert_near(saliency, resize(explanations.saliency((4, 4)), (16, 16)))


def test_the_paper_is_cited():
    assert "1512.04150" in CAM.card.citation and CAM.card.additivity == "exact"
