import pytest
import torch
from torchvision.transforms.functional import gaussian_blur

from explainkit.metrics import ExplainerOutput
from explainkit.metrics.faithfulness import STEPS, pixel_deletion, pixel_insertion


@pytest.mark.parametrize("measure", [pixel_deletion, pixel_insertion])
def test_pixel_curves_are_those_of_changing_pixels_step_by_step(small, measure) -> None:
    context = small.context(2)
    saliency = torch.rand(2, 32, 32, generator=torch.Generator().manual_seed(0))

    areas = measure(ExplainerOutput(context=context, name="made", saliency_map=saliency)).values

    for n in range(2):
        image = context.images[n]
        start, end = image.clone(), image.mean((1, 2))[:, None].expand(3, 1024)
        if measure is pixel_insertion:
            start, end = gaussian_blur(image[None], [11, 11], [5.0, 5.0])[0].clone(), image.flatten(1)
        order, curve = saliency[n].flatten().argsort(descending=True), []
        for step in range(STEPS + 1):
            start.flatten(1)[:, order[: step * 1024 // STEPS]] = end[:, order[: step * 1024 // STEPS]]
            curve.append(small.cam.predict(start[None]).softmax(1)[0, context.targets[n]].item())
        area = sum((curve[k] + curve[k + 1]) / 2 for k in range(STEPS)) / STEPS
        assert areas[n].item() == pytest.approx(area, rel=1e-4)


def test_a_flat_map_is_not_read_from_the_top_left(small) -> None:
    context = small.context()
    down = torch.arange(1024.0).flip(0).view(1, 32, 32).expand(6, -1, -1)

    flat = pixel_deletion(ExplainerOutput(context=context, name="flat", saliency_map=torch.zeros(6, 32, 32)))
    reading = pixel_deletion(ExplainerOutput(context=context, name="reading", saliency_map=down))

    assert not torch.allclose(flat.values, reading.values)
    assert flat.note == "out of distribution"


def test_a_row_without_a_map_has_a_reason(small) -> None:
    row = ExplainerOutput(context=small.context(), name="prior", given_part_scores=torch.ones(6, 7))

    assert pixel_insertion(row).reason == "prior says how much, not where."
