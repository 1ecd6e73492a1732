"""RA-CNN, by its formulas: each is worked out again here, slowly and literally."""

import copy
import math
from functools import cache
from itertools import pairwise

import pytest
import torch
from attrs import evolve
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import nn
from torch.nn import functional as F

import explainkit as ek
from explainkit.data.images import ArraySplit
from explainkit.errors import BindError, InputError
from explainkit.testing import tiny_data, tiny_images
from explainkit.training import Epoch, Repeat, Trainer
from explainkit_racnn.explainer import RACNN, shares
from explainkit_racnn.model import RACNNNetwork
from explainkit_racnn.renderer import draw
from explainkit_racnn.trainer import (
    aim_loss,
    begin_alike,
    classification,
    fuse,
    looks,
    rank_loss,
    ranking,
    settled,
    strongest,
)
from explainkit_racnn.zoom import WHOLE, Surrogate, bounded, boxes, crop, crop_by, within


def drawn(*shape, seed=0, dtype=torch.float32):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def smooth(height, width, count=1):
    """Images (N, 3, H, W) in double precision that change slowly."""
    y, x = torch.meshgrid(
        torch.linspace(0, 3, height).double(), torch.linspace(0, 4, width).double(), indexing="ij"
    )
    waves = [0.5 + 0.4 * torch.sin(a * x + b * y + c) for a, b, c in ((1, 0.5, 0), (0.4, 1.3, 1), (2, 1, 2))]
    return torch.stack(waves)[None] * torch.linspace(0.6, 1, count).double().view(-1, 1, 1, 1)


def network(classes=3, scales=3, seed=0, side=16, moved=True, **settings):
    """An untrained network whose norms have seen data and whose proposals differ between images."""
    torch.manual_seed(seed)
    made = RACNNNetwork(lambda: ek.backbone("tiny"), classes, side, scales=scales, **settings)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    if moved:
        for proposal in made.proposals:
            nn.init.normal_(proposal.out.weight, std=0.5)
    return made.eval()


@cache
def fitted():
    return ek.explainer("ra-cnn", preset="tiny").fit(tiny_data(), device="cpu", progress=False)


def learned():
    """The fitted network, to be spoiled."""
    return copy.deepcopy(fitted().network)


def everything(data, split="train"):
    return data.split(split).batch(torch.arange(len(data.split(split))))


def places(*rows, dtype=torch.float32):
    return torch.tensor(rows, dtype=dtype)


# crops and their gradients


def literal_crop(image, place, side, finer=1):
    """Bilinear samples at the middles of finer cells, a pixel at a time, averaged; the border is repeated."""
    height, width = image.shape[1:]
    x, y, half = place
    found = torch.zeros(3, side, side, dtype=image.dtype)

    def pixel(row, column):
        return image[:, min(max(row, 0), height - 1), min(max(column, 0), width - 1)]

    for i in range(side * finer):
        for j in range(side * finer):
            down = (y - half + 2 * half * (i + 0.5) / (side * finer)) * height - 0.5
            right = (x - half + 2 * half * (j + 0.5) / (side * finer)) * width - 0.5
            down, right = min(max(down, 0), height - 1), min(max(right, 0), width - 1)
            row, column = math.floor(down), math.floor(right)
            a, b = down - row, right - column
            value = (1 - a) * ((1 - b) * pixel(row, column) + b * pixel(row, column + 1))
            value = value + a * ((1 - b) * pixel(row + 1, column) + b * pixel(row + 1, column + 1))
            found[:, i // finer, j // finer] += value / finer**2
    return found


@pytest.mark.parametrize(
    ("size", "largest", "finer"), [((24, 24), 0.16, 1), ((24, 24), 0.45, 3), ((18, 30), 0.3, 3)]
)
def test_crops_are_those_of_a_loop_over_pixels(size, largest, finer):
    images = drawn(2, 3, *size, dtype=torch.float64)
    found = places((0.31, 0.62, 0.17), (0.8, 0.2, 0.2), dtype=torch.float64)

    seen = crop(images, found, 8, largest)

    for image, place, one in zip(images, found.tolist(), seen, strict=True):
        torch.testing.assert_close(one, literal_crop(image, place, 8, finer), rtol=1e-9, atol=1e-9)


def test_the_whole_is_the_image_and_a_box_of_whole_pixels_is_cut_out():
    images = drawn(2, 3, 32, 32)

    whole = crop(images, torch.tensor(WHOLE).expand(2, 3), 32)
    part = crop(images, places((14 / 32, 18 / 32, 8 / 32)).expand(2, 3), 16, 0.25)

    torch.testing.assert_close(whole, images, rtol=0, atol=4e-6)
    torch.testing.assert_close(part, images[:, :, 10:26, 6:22], rtol=0, atol=1e-6)


def test_a_crop_of_another_size_is_the_cut_enlarged_away_from_its_edge():
    images = drawn(1, 3, 32, 32, dtype=torch.float64)

    seen = crop(images, places((14 / 32, 18 / 32, 8 / 32), dtype=torch.float64), 40)

    enlarged = F.interpolate(images[:, :, 10:26, 6:22], (40, 40), mode="bilinear", align_corners=False)
    torch.testing.assert_close(seen[..., 2:-2, 2:-2], enlarged[..., 2:-2, 2:-2], rtol=0, atol=1e-9)


@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
@pytest.mark.parametrize("largest", [0.2, 0.45])
def test_the_true_gradient_is_that_of_finite_differences(size, largest):
    images, weights = smooth(*size), drawn(1, 3, 9, 9, seed=1, dtype=torch.float64)
    found = places((0.43127, 0.56891, 0.19237), dtype=torch.float64).requires_grad_()

    (slope,) = torch.autograd.grad((weights * crop(images, found, 9, largest)).sum(), found)

    for axis in range(3):
        step = torch.zeros(1, 3, dtype=torch.float64)
        step[0, axis] = 1e-6
        high, low = (
            (weights * crop(images, found.detach() + sign * step, 9, largest)).sum() for sign in (1, -1)
        )
        assert slope[0, axis].item() == pytest.approx((high - low).item() / 2e-6, rel=1e-5)


def test_a_box_moves_towards_what_is_bright():
    images = torch.zeros(1, 3, 32, 32)
    images[:, :, 13:19, 20:26] = 1
    blurred = F.avg_pool2d(images, 5, 1, 2)
    found = places((0.5, 0.5, 0.25)).requires_grad_()

    (slope,) = torch.autograd.grad(crop(blurred, found, 16).mean(), found)

    assert slope[0, 0] > 0 and slope[0, 1].abs() < 1e-3 * slope[0, 0]


def pushed(gradient):
    """Where `gradient` (16, 16) on a crop pushes the surrogate's place, as gradient descent would go."""
    found = places((0.5, 0.5, 0.25)).requires_grad_()
    seen = Surrogate.apply(drawn(1, 3, 32, 32), found, 16, 0.5)
    seen.backward(gradient.expand(1, 3, 16, 16))
    return -found.grad[0]


@pytest.mark.parametrize("sign", [1, -1])
def test_the_surrogate_goes_where_the_loss_reacts_whatever_its_sign(sign):
    right, bottom, inside = torch.zeros(3, 16, 16).unbind(0)
    right[:, -1], bottom[-1], inside[6:10, 6:10] = sign, sign, sign
    edges = right + bottom + right.flip(1) + bottom.flip(0)

    assert pushed(right)[0] > 0 and pushed(right.flip(1))[0] < 0
    assert pushed(bottom)[1] > 0 and pushed(bottom.flip(0))[1] < 0
    assert pushed(edges)[2] > 0 and pushed(edges)[:2].abs().max() < 1e-6
    assert pushed(inside)[2] < 0 and not pushed(inside)[:2].any()
    torch.testing.assert_close(pushed(right), pushed(1000 * right))  # only its shape counts
    assert pushed(torch.zeros(16, 16)).isfinite().all()


def test_the_surrogate_sees_the_same():
    images, found = drawn(2, 3, 32, 32), places((0.4, 0.5, 0.3), (0.6, 0.7, 0.2))

    assert torch.equal(crop_by(images, found, 16, 0.45, "surrogate"), crop(images, found, 16, 0.45))
    one, other = network(), network(gradient="surrogate")
    assert torch.equal(one(tiny_images()), other(tiny_images()))


# boxes within boxes


def test_no_numbers_make_a_box_that_leaves_the_image():
    raw = 40 * drawn(500, 3, dtype=torch.float64) - 20

    found = bounded(raw, 0.15, 0.45)

    middle, half = found[:, :2], found[:, 2:]
    assert (middle - half).min() >= 0 and (middle + half).max() <= 1
    assert half.min() >= 0.15 and half.max() <= 0.45
    assert half.min() < 0.151 and half.max() > 0.449


def test_boxes_in_boxes_are_mapped_back_into_the_one_image():
    outer = bounded(8 * drawn(50, 3) - 4, 0.15, 0.45)
    inner = bounded(8 * drawn(50, 3, seed=1) - 4, 0.15, 0.45)

    both = within(outer, inner)

    for (x, y, half), (u, v, part), (a, b, c) in zip(
        outer.tolist(), inner.tolist(), both.tolist(), strict=True
    ):
        left, top, side = x - half, y - half, 2 * half
        assert (a, b, c) == pytest.approx((left + u * side, top + v * side, part * side), abs=1e-6)
        assert left - 1e-6 <= a - c and a + c <= x + half + 1e-6
        assert top - 1e-6 <= b - c and b + c <= y + half + 1e-6
    torch.testing.assert_close(within(torch.tensor(WHOLE).expand(50, 3), inner), inner)


def test_a_crop_of_a_crop_is_the_crop_of_the_composed_box():
    images = smooth(240, 240)
    outer, inner = (places(row, dtype=torch.float64) for row in ((0.45, 0.55, 0.3), (0.6, 0.4, 0.25)))

    twice = crop(crop(images, outer, 240, 0.3), inner, 24, 0.05)
    once = crop(images, within(outer, inner), 24, 0.05)

    torch.testing.assert_close(twice, once, rtol=0, atol=1e-3)


@pytest.mark.parametrize("size", [(32, 32), (20, 44)])
def test_a_network_looks_into_nested_boxes_inside_the_image(size):
    net, images = network(), drawn(4, 3, *size)

    parts = net.decompose(images)

    found = parts.boxes
    assert found.shape == (4, 3, 4)
    assert torch.equal(found[:, 0], torch.tensor([0.0, 0, size[1], size[0]]).expand(4, 4))
    for outer, inner in pairwise(found.unbind(1)):
        assert (inner[:, :2] >= outer[:, :2] - 1e-4).all() and (inner[:, 2:] <= outer[:, 2:] + 1e-4).all()
    for place, box in zip(parts.places[1:], found[:, 1:].unbind(1), strict=True):
        for (x, y, half), (x0, y0, x1, y1) in zip(place.tolist(), box.tolist(), strict=True):
            wide, high = size[1], size[0]
            expected = ((x - half) * wide, (y - half) * high, (x + half) * wide, (y + half) * high)
            assert (x0, y0, x1, y1) == pytest.approx(expected, abs=1e-4)
    assert found[:, 1].std(0).min() > 0  # they follow the image
    torch.testing.assert_close(parts.places[2][:, 2], 2 * parts.places[1][:, 2] * parts.proposed[1][:, 2])


def test_each_scale_sees_its_own_box_of_the_one_image():
    net, images = network(), drawn(3, 3, 32, 32)

    parts = net.decompose(images)

    for scale, place in enumerate(parts.places):
        seen = F.avg_pool2d(images, 2) if not scale else crop(images, place, 16, 0.5 * 0.9**scale)
        torch.testing.assert_close(net.backbones[scale](seen), parts.features[scale])
    assert torch.equal(boxes(parts.places[1], (32, 32)), parts.boxes[:, 1])


def test_scales_share_nothing():
    net = network()
    begin_alike(net, tiny_data())

    owned = [{value.data_ptr() for value in part.state_dict().values()} for part in net.backbones]
    owned += [{value.data_ptr() for value in part.state_dict().values()} for part in net.heads]

    assert len(set.union(*owned)) == sum(map(len, owned))
    for scale in (1, 2):
        for mine, first in ((net.backbones[scale], net.backbones[0]), (net.heads[scale], net.heads[0])):
            for value, same in zip(mine.state_dict().values(), first.state_dict().values(), strict=True):
                assert torch.equal(value, same)
    with torch.no_grad():
        net.heads[1].bias += 1
    assert not torch.equal(net.heads[1].bias, net.heads[0].bias)


# the sum


def pooled(features):
    """(N, D), a filter at a time."""
    return torch.stack([torch.stack([plane.mean() for plane in image]) for image in features])


def test_before_fusion_the_logits_are_the_mean_of_all_heads():
    net, images = network(), drawn(4, 3, 32, 32)

    parts = net.decompose(images)

    for scale in range(3):
        own = pooled(parts.features[scale]) @ net.heads[scale].weight.T + net.heads[scale].bias
        torch.testing.assert_close(parts.by_scale[scale], own, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(parts.logits, parts.by_scale.mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(parts.scores @ parts.weights.T + parts.bias, parts.logits)


def test_after_fusion_they_are_one_heads_of_descriptors_of_length_one():
    net, images = network(), drawn(4, 3, 32, 32)
    net.fused.fill_(True)

    parts = net.decompose(images)

    descriptors = [pooled(found) for found in parts.features]
    joined = torch.cat([one / one.norm(dim=1, keepdim=True) for one in descriptors], 1)
    torch.testing.assert_close(parts.scores.view(4, 3, -1).norm(dim=2), torch.ones(4, 3))
    torch.testing.assert_close(parts.scores, joined, rtol=1e-4, atol=1e-5)
    expected = joined @ net.fusion.weight.T + net.fusion.bias
    torch.testing.assert_close(parts.logits, expected, rtol=1e-4, atol=1e-5)


def test_the_one_head_begins_as_the_mean_of_all_heads():
    data, net = tiny_data(), network()
    alone = evolve(
        data,
        splits={
            **data.splits,
            "train": ArraySplit(images=data.train.images[:1], labels=data.train.labels[:1]),
        },
    )
    images, other = everything(alone).images, network()
    before = net(images)

    with torch.no_grad():
        fuse(net, alone)
        fuse(other, data, images=7, chunk=3)

    torch.testing.assert_close(net(images), before, rtol=1e-4, atol=1e-5)  # its lengths are the mean lengths
    some = data.train.batch(torch.arange(7)).images
    for scale, features in enumerate(other.decompose(some).features):
        mine = other.fusion.weight[:, 32 * scale : 32 * (scale + 1)]
        length = sum(row.norm().item() for row in pooled(features)) / 7
        torch.testing.assert_close(mine, other.heads[scale].weight * length / 3, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(other.fusion.bias, sum(head.bias for head in other.heads) / 3)
    assert other.fused


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_what_is_said_adds_up_and_keeps_its_sum_on_the_image(fused, size):
    net, images = network(), drawn(3, 3, *size)
    net.fused.fill_(fused)
    model = ek.explainer("ra-cnn", network=net, classes=tiny_data().classes)

    told = model.explain(images, 1).check()

    total = told.base + told.contributions.sum(1)
    torch.testing.assert_close(total, told.logits[:, 1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(told.maps.mean((2, 3)), told.scores, rtol=1e-4, atol=1e-5)
    for grid in ((8, 8), size):
        poured = told.saliency(grid).sum((1, 2)) + told.unplaced
        torch.testing.assert_close(poured, told.contributions.sum(1), rtol=1e-4, atol=1e-4)


def test_the_evidence_of_a_scale_lies_in_its_box():
    net, images = network(), drawn(2, 3, 32, 32)
    with torch.no_grad():
        for head in net.heads[:2]:
            head.weight.zero_()
    model = ek.explainer("ra-cnn", network=net, classes=tiny_data().classes)

    told = model.explain(images)

    for image in range(2):
        x0, y0, x1, y1 = told.boxes[image, 2].tolist()
        saliency = told.saliency((32, 32))[image]
        inside = saliency[math.floor(y0) : math.ceil(y1), math.floor(x0) : math.ceil(x1)]
        assert saliency.any() and saliency.abs().sum().item() == pytest.approx(inside.abs().sum().item())


def test_fewer_looks_are_what_the_first_looks_of_all_are():
    net, images = network(), drawn(2, 3, 32, 32)

    for fused in (False, True):
        net.fused.fill_(fused)
        whole, one = net.decompose(images), net.decompose(images, 1)
        torch.testing.assert_close(one.by_scale[0], whole.by_scale[0])
        count = one.scores.shape[1]
        torch.testing.assert_close(one.scores, whole.scores[:, :count])
        assert one.boxes.shape == (2, 1, 4) and one.weights.shape == (3, count)


def test_heads_sum_in_float32_under_autocast():
    net, images = learned(), tiny_images()

    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        parts = net.decompose(images)

    assert parts.logits.dtype == parts.scores.dtype == parts.boxes.dtype == torch.float32
    torch.testing.assert_close(parts.scores @ parts.weights.T + parts.bias, parts.logits)


# the losses


def sureness(*rows):
    """`Looks`-like logits by scale (S, N, 2) whose softmax gives class 0 these probabilities."""

    class Told:
        by_scale = torch.tensor(rows, dtype=torch.float64).logit()[..., None] * torch.tensor([1.0, 0.0])

    Told.by_scale = Told.by_scale.double().requires_grad_()
    return Told


@pytest.mark.parametrize("detached", [True, False])
def test_ranking_is_the_hinge_by_hand(detached):
    zeros = torch.zeros(1).long()

    def loss(*rows):
        return ranking(sureness(*rows), zeros[: len(rows[0])], 0.05, detached).item()

    assert loss([0.2], [0.5], [0.9]) == 0
    assert loss([0.5], [0.5], [0.5]) == pytest.approx(0.1)
    assert loss([1 - 1e-9], [1 - 1e-9], [1 - 1e-9]) == pytest.approx(0.1, abs=1e-6)
    assert loss([0.6], [0.4], [0.42]) == pytest.approx(0.25 + 0.03)
    both = ranking(sureness([0.6, 0.1], [0.4, 0.8], [0.42, 0.9]), torch.zeros(2).long(), 0.05, detached)
    assert both.item() == pytest.approx((0.25 + 0.03) / 2)
    other = ranking(sureness([0.3, 0.3], [0.4, 0.4], [0.6, 0.6]), torch.tensor([0, 1]), 0.05, detached)
    assert other.item() == pytest.approx((0 + 0.15 + 0.25) / 2)  # of the true class


def test_a_reference_is_taken_as_it_is():
    labels = torch.zeros(1).long()
    told, literal = sureness([0.6], [0.5], [0.4]), sureness([0.6], [0.5], [0.4])

    ranking(told, labels).backward()
    ranking(literal, labels, detach_reference=False).backward()

    slope = told.by_scale.grad[:, 0, 0]
    assert slope[0] == 0  # never asked to be less sure
    assert slope[1].item() == pytest.approx(-0.25) and slope[2].item() == pytest.approx(-0.24)
    cancelled = literal.by_scale.grad[:, 0, 0]
    assert cancelled[0].item() == pytest.approx(0.24) and abs(cancelled[1].item()) < 1e-12
    assert cancelled[2].item() == pytest.approx(-0.24)


def test_every_scale_is_taught_by_its_own_head():
    told, labels = sureness([0.2, 0.4], [0.5, 0.6], [0.9, 0.7]), torch.tensor([0, 1])

    cost = classification(told, labels)

    expected = sum(-math.log(p) - math.log(1 - q) for p, q in ((0.2, 0.4), (0.5, 0.6), (0.9, 0.7))) / 2
    assert cost.item() == pytest.approx(expected)


def test_aims_lie_around_the_strongest_cell():
    features = torch.zeros(3, 5, 4, 6)
    for image, (row, column) in enumerate(((2, 3), (0, 0), (3, 5))):
        features[image, :, row, column] = 1
        features[image, 0, 1, 1] += 2  # one filter alone: less than the mean of all

    aims = strongest(features, 0.2)

    expected = places((3.5 / 6, 2.5 / 4, 0.2), (0.2, 0.2, 0.2), (0.8, 0.8, 0.2))
    torch.testing.assert_close(aims, expected)


def test_the_aim_is_a_loss_on_proposals_alone():
    net, batch = network(), everything(tiny_data(), "test")

    loss = aim_loss(net, batch, 0.3)["aim"]
    loss.backward()

    parts = net.decompose(batch.images)
    expected = 0.0
    for place, features in zip(parts.proposed, parts.features[:2], strict=True):
        gaps = (place - strongest(features, 0.3)).abs()
        expected += torch.where(gaps < 0.05, gaps.square() / 0.1, gaps - 0.025).mean().item()
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    for name, value in net.named_parameters():
        assert (value.grad is not None) == name.startswith("proposals"), name


@pytest.mark.parametrize(("scales", "proposal"), [(2, 0), (3, 1)])
def test_the_ranking_reaches_proposals_by_the_gradient_of_finite_differences(scales, proposal):
    net = network(scales=scales).double()
    bias = net.proposals[proposal].out.bias
    batch = evolve(everything(tiny_data(), "test"), images=smooth(32, 32, 24))

    def loss():
        return rank_loss(net, batch, 0.9)["ranking"]

    (slope,) = torch.autograd.grad(loss(), bias)

    for axis in range(3):
        with torch.no_grad():
            bias[axis] += 1e-6
            high = loss()
            bias[axis] -= 2e-6
            low = loss()
            bias[axis] += 1e-6
        assert slope[axis].item() == pytest.approx((high - low).item() / 2e-6, rel=1e-3, abs=1e-8)
    assert slope.abs().min() > 0


# the phases


def flat(plan):
    for item in plan:
        yield from item.phases if isinstance(item, Repeat) else [item]


def test_each_phase_moves_what_it_names_and_nothing_else():
    model, data = ek.explainer("ra-cnn", preset="tiny"), tiny_data()
    torch.manual_seed(0)
    net = model.build(ek.Task(classes=data.classes))
    moved = {}

    def changed(phase):
        before = {name: value.clone() for name, value in net.state_dict().items()}
        Trainer(device="cpu", progress=False).run(net, data, [phase])
        return {
            ".".join(name.split(".")[: 1 if name.startswith("fus") else 2])
            for name, value in net.state_dict().items()
            if not torch.equal(value, before[name])  # statistics of norms among them
        }

    for phase in flat(model.phases()):
        moved[phase.name] = changed(evolve(phase, finish=None))
        if phase.finish is not None:
            moved[f"{phase.name} ends"] = changed(evolve(phase, epochs=0))

    scales = {f"{part}.{scale}" for part in ("backbones", "heads") for scale in range(3)}
    assert moved == {
        "warm": {"backbones.0", "heads.0"},
        "warm ends": scales - {"backbones.0", "heads.0"},
        "aim": {"proposals.0", "proposals.1"},
        "look": scales,
        "rank": {"proposals.0", "proposals.1"},
        "fuse": set(),
        "fuse ends": {"fusion", "fused"},
        "fusion": {"fusion"},
    }


def test_norms_are_in_eval_mode_while_boxes_learn():
    model, data = ek.explainer("ra-cnn", preset="tiny"), tiny_data()
    net = model.build(ek.Task(classes=data.classes))
    modes = []
    (rank,) = [phase for phase in flat(model.phases()) if phase.name == "rank"]

    def loss(module, batch):
        norms = [part.training for part in net.modules() if isinstance(part, nn.BatchNorm2d)]
        modes.append((any(norms), net.proposals[0].out.training))
        return rank.loss(module, batch)

    Trainer(device="cpu", progress=False).run(net, data, [evolve(rank, loss=loss)])

    assert set(modes) == {(False, True)}


def told_of(*rounds, epochs=2):
    """A history of rounds whose last epoch of rank measures these."""
    history = [Epoch(phase="warm", epoch=1, terms={}, accuracy=0, loss=0, seconds=0)]
    for p, half in rounds:
        for epoch in range(1, epochs + 1):
            measures = {"p(true) 2": p, "half side 2": half, "accuracy 2": torch.rand(()).item()}
            history += [
                Epoch(
                    phase="rank", epoch=epoch, terms={}, accuracy=0, loss=0, seconds=0,
                    measures=measures if epoch == epochs else {"p(true) 2": p, "half side 2": 0.0},
                )
            ]  # fmt: skip
    return history


@pytest.mark.parametrize("epochs", [1, 3])
def test_rounds_end_where_neither_half_has_changed_since_the_last_round(epochs):
    def ended(*rounds):
        return settled(network(), tiny_data(), told_of(*rounds, epochs=epochs))

    assert not ended() and not ended((0.8, 0.3))
    assert not ended((0.8, 0.3), (0.85, 0.3)) and not ended((0.8, 0.3), (0.8, 0.25))
    assert ended((0.8, 0.3), (0.801, 0.3)) and ended((0.5, 0.2), (0.8, 0.3), (0.8, 0.3005))


def test_the_plan_asks_after_every_round(monkeypatch):
    asked = []

    def enough(net, data, history):
        asked.append([epoch.phase for epoch in history])
        return len(asked) == 2

    monkeypatch.setattr("explainkit_racnn.explainer.settled", enough)
    model = ek.explainer("ra-cnn", preset="tiny", rounds=5).fit(tiny_data(), device="cpu", progress=False)

    assert [epoch.phase for epoch in model.history] == ["warm", "aim", *["look", "rank"] * 2, "fusion"]
    assert asked[0] == ["warm", "aim", "look", "rank"]


def test_a_run_that_is_cut_off_within_a_round_ends_as_the_whole_one(tmp_path):
    class Cut:
        """Pulls the plug while the second round looks."""

        def __init__(self):
            self.left = 5

        def log(self, epoch):
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt

        def close(self):
            pass

    def model():
        return ek.explainer("ra-cnn", preset="tiny", rounds=2, rank=2, fusion=1)

    whole = model().fit(tiny_data(), device="cpu", progress=False)
    with pytest.raises(KeyboardInterrupt):
        model().fit(tiny_data(), device="cpu", progress=False, checkpoints=tmp_path, loggers=[Cut()])
    again = model().fit(tiny_data(), device="cpu", progress=False, checkpoints=tmp_path, resume=True)

    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[name]), name
    assert [e.measures for e in again.history] == [e.measures for e in whole.history]
    assert len(whole.history) == 2 + 2 * 3 + 1


def test_every_epoch_tells_accuracy_sureness_and_size_by_scale():
    net, data = learned(), tiny_data()
    batch = everything(data, "validation")

    told = looks(net, data)

    parts = net.decompose(batch.images)
    for scale, logits in enumerate(parts.by_scale):
        sure = [
            row.softmax(0)[label].item() for row, label in zip(logits, batch.labels.tolist(), strict=True)
        ]
        right = [row.argmax().item() == y for row, y in zip(logits, batch.labels.tolist(), strict=True)]
        assert told[f"p(true) {scale + 1}"] == pytest.approx(sum(sure) / len(sure), rel=1e-4)
        assert told[f"accuracy {scale + 1}"] == pytest.approx(sum(right) / len(right))
    assert told["half side 3"] == pytest.approx(parts.places[2][:, 2].mean().item(), rel=1e-4)
    assert "half side 1" not in told
    phases = {epoch.phase for epoch in fitted().history if epoch.measures.keys() == told.keys()}
    assert phases == {"aim", "look", "rank", "fusion"}


def test_without_validation_images_nothing_is_told_and_no_round_is_cut():
    data = tiny_data()
    none = ArraySplit(images=torch.zeros(0, 3, 32, 32).byte(), labels=torch.zeros(0).long())
    bare = evolve(data, splits={**data.splits, "validation": none})

    model = ek.explainer("ra-cnn", preset="tiny", rounds=3).fit(bare, device="cpu", progress=False)

    assert [epoch.phase for epoch in model.history].count("rank") == 3
    assert not any(epoch.measures for epoch in model.history)


def test_the_papers_network_is_three_trained_ones_and_its_phases_are_in_order(monkeypatch):
    model, asked = ek.explainer("ra-cnn", preset="paper", side=32), []
    tiny = ek.backbone("tiny")
    monkeypatch.setattr(
        ek, "backbone", lambda name, **given: asked.append((name, given)) or copy.deepcopy(tiny)
    )

    net = model.build(ek.Task(classes=4, size=64))
    *first, rounds, fused, fusion = model.phases()

    assert asked == [("torchvision/vgg19", {"weights": "DEFAULT"})] * 3
    assert net(drawn(1, 3, 64, 64)).shape == (1, 4)
    assert net.gradient == "surrogate" and net.proposals[0].least == 1 / 6
    assert [phase.name for phase in first] == ["warm", "aim"] and fused.name == "fuse"
    assert isinstance(rounds, Repeat) and rounds.until is settled and rounds.times == 5
    assert [set(phase.rates) for phase in rounds.phases] == [{"backbones", "heads"}, {"proposals"}]
    assert rounds.phases[1].loss.keywords == {"margin": 0.05, "detach_reference": False}
    assert first[1].loss.keywords == {"half": 0.25} and set(fusion.rates) == {"fusion"}


# what is said


def test_notes_tell_how_sure_each_scale_alone_is_of_the_target():
    model, images = fitted(), tiny_images()

    told = model.explain(images, 2)

    by_scale = model.network.decompose(images).by_scale
    assert list(told.notes) == ["p by whole image", "p by closer", "p by closest"]
    for values, logits in zip(told.notes.values(), by_scale, strict=True):
        torch.testing.assert_close(values, logits.softmax(1)[:, 2].detach(), rtol=1e-4, atol=1e-6)


def test_the_notes_are_of_the_images_that_are_taken_out():
    told = fitted().explain(tiny_images())

    assert torch.equal(told[[2, 0]].notes["p by closer"], told.notes["p by closer"][[2, 0]])
    assert told[1].notes["p by closest"] == pytest.approx(told.notes["p by closest"][1].item())


def test_what_each_look_adds_is_the_sum_over_its_filters():
    told = fitted().explain(tiny_images())

    found = shares(told)

    channels = fitted().network.channels
    for scale in range(3):
        mine = told.contributions[:, scale * channels : (scale + 1) * channels]
        torch.testing.assert_close(found[:, scale], mine.sum(1), rtol=1e-4, atol=1e-5)
        assert told.units.names[scale * channels].startswith("filter 0 (")
    torch.testing.assert_close(found.sum(1) + told.base, told.totals, rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match="by scale"):
        shares(evolve(told, units=evolve(told.units, group=None), boxes=None))


def test_a_loaded_explainer_says_the_same(tmp_path):
    model, images = fitted(), tiny_images()

    again = ek.load(ek.save(model, tmp_path / "model"))

    one, other = model.explain(images), again.explain(images)
    assert bool(again.network.fused) and torch.equal(one.contributions, other.contributions)
    assert torch.equal(one.boxes, other.boxes) and torch.equal(one.saliency(), other.saliency())
    assert all(torch.equal(value, other.notes[name]) for name, value in one.notes.items())


def test_networks_that_look_once_are_refused():
    with pytest.raises(BindError, match="looks once"):
        ek.explainer("ra-cnn", network=nn.Linear(3, 3), classes=["a", "b", "c"])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"least": 0.0}, "0 < least < most < 0.5"),
        ({"most": 0.5}, "0 < least < most < 0.5"),
        ({"least": 0.4, "most": 0.3}, "0 < least < most < 0.5"),
        ({"least": math.nan}, "least"),
        ({"aim": 0.1}, "aim within least and most"),
        ({"aim": 0.46}, "aim within least and most"),
        ({"gradient": "real"}, "'true' or 'surrogate'; got 'real'"),
        ({"side": 4}, "side of at least 8"),
        ({"rounds": -1}, "rounds of at least 0"),
        ({"margin": -0.1}, "margin in"),
        ({"smoothing": 1.0}, "smoothing in"),
        ({"side": 48.5}, "side"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_words(settings, words):
    with pytest.raises(InputError, match=f"Expected .*{words}"):
        RACNN(**settings)


def test_drawing_shows_boxes_in_boxes_and_what_each_look_adds():
    told = fitted().explain(tiny_images())

    figure = Figure(figsize=(9, 3))
    draw(told[1], figure)
    figure.canvas.draw()

    frames = [
        patch
        for axes in figure.axes
        for patch in axes.patches
        if isinstance(patch, Rectangle) and not patch.get_fill()
    ]
    assert len(frames) == 3
    scale = 224 / 32
    for frame, (x0, y0, x1, y1) in zip(frames, told.boxes[1].tolist(), strict=True):
        found = (*frame.get_xy(), frame.get_width(), frame.get_height())
        wanted = (x0 * scale - 0.5, y0 * scale - 0.5, (x1 - x0) * scale, (y1 - y0) * scale)
        assert found == pytest.approx(wanted, abs=1e-3)
    assert len({frame.get_edgecolor() for frame in frames}) == 3
    texts = [text.get_text().strip() for axes in figure.axes for text in axes.texts]
    for value in shares(told)[1].tolist():
        assert f"{value:+.2f}" in texts
    titles = " ".join(axes.get_title() for axes in figure.axes)
    assert f"alone {told[1].notes['p by closest']:.0%} sure" in titles


def test_two_looks_are_drawn_under_the_names_that_they_are_told_of():
    model = ek.explainer("ra-cnn", network=network(scales=2), classes=tiny_data().classes)
    told = model.explain(tiny_images())

    figure = Figure(figsize=(9, 3))
    draw(told[0], figure)

    titles = " ".join(axes.get_title() for axes in figure.axes)
    for name in ("scale 1", "scale 2"):
        assert f"{name}\nalone {told[0].notes[f'p by {name}']:.0%} sure" in titles
    assert "closer" not in titles
