"""ProtoPNet, by its formulas: each is worked out again here, slowly and literally."""

import copy
import math
import sys
from functools import cache
from itertools import pairwise

import pytest
import torch
from attrs import evolve
from torch import nn
from torch.nn import functional as F

import explainkit as ek
from explainkit.data.images import ArraySplit
from explainkit.errors import BindError, TrainingError
from explainkit.testing import tiny_data, tiny_images
from explainkit.training import Trainer
from explainkit_protopnet.head import all_scores, fit_head, gradient, objective
from explainkit_protopnet.model import ProtoPNetNetwork, distances_at, similarity, squared_distances
from explainkit_protopnet.nearest import Nearest, merge, nearest_patches
from explainkit_protopnet.projection import activation_boxes, project
from explainkit_protopnet.pruning import prune, survivors
from explainkit_protopnet.trainer import cluster, clustering_loss, off_class_l1, separation

EPSILON = 1e-4


def drawn(*shape, seed=0, dtype=torch.float32):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def network(classes=3, per_class=2, depth=16, seed=0, **settings):
    torch.manual_seed(seed)
    made = ProtoPNetNetwork(ek.backbone("tiny"), classes, per_class, depth, **settings)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):  # as if it had seen data
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return made.eval()


def explainer(**settings):
    return ek.explainer("protopnet", network=network(**settings), classes=tiny_data().classes)


@cache
def fitted():
    return ek.explainer("protopnet", preset="tiny").fit(tiny_data(), device="cpu", progress=False)


def learned():
    """The fitted network, to be spoiled."""
    return copy.deepcopy(fitted().network)


def patches_of(net, images):
    """(N, h w, D), with the network's own rounding."""
    with torch.no_grad():
        return net.latent(images).flatten(2).mT


def everything(data, split="train"):
    return data.split(split).batch(torch.arange(len(data.split(split))))


# distances and similarities


def test_distances_are_those_of_a_loop_in_double_precision():
    patches, prototypes = drawn(2, 12, 128), drawn(7, 128, seed=1)

    rough = squared_distances(patches, prototypes)

    for n in range(2):
        for cell in range(12):
            for p in range(7):
                gap = patches[n, cell].double() - prototypes[p].double()
                assert rough[n, p, cell].item() == pytest.approx((gap * gap).sum().item(), abs=1e-4)
    assert rough.min() >= 0


def test_a_patch_that_is_the_prototype_is_at_distance_zero_exactly():
    patches = drawn(2, 12, 128)
    prototypes = torch.stack([patches[0, 3], patches[0, 9], patches[1, 4]])

    rough = squared_distances(patches, prototypes)
    exact = distances_at(patches, rough.argmin(2), prototypes)

    assert rough.argmin(2)[0, :2].tolist() == [3, 9] and rough.argmin(2)[1, 2] == 4
    assert exact[0, 0] == exact[0, 1] == exact[1, 2] == 0


def test_similarity_falls_with_distance_from_its_ceiling():
    distances = torch.linspace(0, 50, 1000)

    found = similarity(distances, EPSILON)

    assert found[0].item() == pytest.approx(math.log(1 / EPSILON), abs=1e-6)
    assert (found.diff() < 0).all() and (found > 0).all()
    literal = torch.log((distances.double() + 1) / (distances.double() + EPSILON))
    torch.testing.assert_close(found.double(), literal, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_the_smallest_distance_is_the_largest_similarity(size):
    net = network()

    parts = net.decompose(drawn(3, 3, *size))

    assert parts.maps.shape[2:] == (size[0] // 4, size[1] // 4)
    assert torch.equal(parts.maps.flatten(2).amax(2), parts.scores)
    torch.testing.assert_close(parts.scores, similarity(parts.distances, EPSILON))
    gaps = patches_of(net, drawn(3, 3, *size))[:, :, None].double() - net.prototypes.double()
    torch.testing.assert_close(parts.distances.double(), gaps.square().sum(3).amin(1), rtol=1e-4, atol=1e-6)


def test_distances_stay_exact_under_autocast():
    net, images = learned(), everything(tiny_data()).images[:8]

    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        parts = net.decompose(images)
        latent = net.latent(images)

    assert parts.scores.dtype == parts.logits.dtype == latent.dtype == torch.float32
    gaps = latent.flatten(2).mT[:, :, None].double() - net.prototypes.double()
    torch.testing.assert_close(parts.distances.double(), gaps.square().sum(3).amin(1), rtol=1e-4, atol=1e-6)


# the sum


def test_weights_times_similarities_are_the_logit():
    model, images = fitted(), tiny_images()

    told = model.explain(images, 1).check()

    parts = model.network.decompose(images)
    for n in range(len(images)):
        total = sum(
            w * s
            for w, s in zip(model.network.head.weight[1].tolist(), parts.scores[n].tolist(), strict=True)
        )
        assert total == pytest.approx(told.logits[n, 1].item(), abs=1e-4)
    assert not told.base.any()
    top = told.top(2)
    torch.testing.assert_close(
        top.contribution.sum(1) + top.remainder, told.logits[:, 1], rtol=1e-5, atol=1e-5
    )


def test_a_contrast_sums_to_the_margin():
    told = fitted().explain(tiny_images(), 0, against=2).check()

    torch.testing.assert_close(
        told.contributions.sum(1), told.logits[:, 0] - told.logits[:, 2], rtol=1e-5, atol=1e-5
    )


def test_all_evidence_of_a_prototype_comes_from_one_cell():
    model, images = fitted(), tiny_images()

    told = model.explain(images)

    poured = torch.zeros(len(images), 8, 8)
    for n in range(len(images)):
        for unit in range(len(told.units)):
            poured[n].view(-1)[told.maps[n, unit].argmax()] += told.contributions[n, unit]
    torch.testing.assert_close(told.saliency((8, 8)), poured, rtol=1e-4, atol=1e-5)


# the losses


def test_cluster_and_separation_are_those_of_a_loop():
    distances, labels, owner = 9 * drawn(6, 8), torch.tensor([0, 1, 2, 3, 0, 1]), torch.arange(4).repeat(2)
    owned = owner == labels[:, None]

    near, far = cluster(distances, owned), separation(distances, owned)

    own = [
        min(d for d, o in zip(row.tolist(), owner, strict=True) if o == y)
        for row, y in zip(distances, labels, strict=True)
    ]
    others = [
        min(d for d, o in zip(row.tolist(), owner, strict=True) if o != y)
        for row, y in zip(distances, labels, strict=True)
    ]
    assert near.item() == pytest.approx(sum(own) / 6, rel=1e-6)
    assert far.item() == pytest.approx(-sum(others) / 6, rel=1e-6)


def test_distances_beyond_the_depth_still_have_a_gradient():
    distances = (100 + drawn(4, 6)).requires_grad_()
    owned = torch.arange(6) // 2 == torch.tensor([0, 1, 2, 0])[:, None]

    (cluster(distances, owned) + separation(distances, owned)).backward()

    assert ((distances.grad > 0).sum(1) == 1).all() and ((distances.grad < 0).sum(1) == 1).all()


def test_a_far_prototype_changes_neither():
    distances = drawn(4, 6)
    owned = torch.arange(6) // 2 == torch.tensor([0, 1, 2, 0])[:, None]
    more = torch.cat([distances, torch.full((4, 1), 1e6)], 1)
    wrong = torch.cat([owned, torch.zeros(4, 1, dtype=torch.bool)], 1)

    assert cluster(more, wrong) == cluster(distances, owned)
    assert separation(more, wrong) == separation(distances, owned)


def test_the_order_of_prototypes_is_no_matter():
    net, batch = network(), everything(tiny_data(), "test")
    before = clustering_loss(net, batch)
    logits = net(batch.images)

    net.keep(torch.randperm(6, generator=torch.Generator().manual_seed(1)))

    for name, value in clustering_loss(net, batch).items():
        torch.testing.assert_close(value, before[name], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(net(batch.images), logits, rtol=1e-5, atol=1e-5)


def test_the_penalty_ignores_what_a_prototype_counts_for_its_own_class():
    net = network()

    before = off_class_l1(net.head.weight, net.own)
    with torch.no_grad():
        net.head.weight[net.own.T] = 50

    assert off_class_l1(net.head.weight, net.own) == before == 6 * 2 * 0.5


# the phases


def statistics(net):
    return {name: value.clone() for name, value in net.backbone.named_buffers()}


def phase_by_phase(model, data):
    """The network before the first phase, and after each one."""
    torch.manual_seed(0)
    net = model.build(ek.Task(classes=data.classes))
    yield None, copy.deepcopy(net)
    for phase in model.phases():
        Trainer(device="cpu", progress=False).run(net, data, [phase])
        yield phase.name, copy.deepcopy(net)


def changed(one, other):
    """The children of which a parameter is not what it was."""
    after = dict(other.named_parameters())
    return {
        name.partition(".")[0]
        for name, value in one.named_parameters()
        if name in after and not torch.equal(value, after[name])
    }


def test_each_phase_moves_what_it_names_and_nothing_else():
    steps = list(phase_by_phase(ek.explainer("protopnet", preset="tiny"), tiny_data()))

    moved = [(name, changed(one, other)) for (_, one), (name, other) in pairwise(steps)]

    assert moved == [
        ("start", {"backbone", "prototypes"}),  # prototypes begin at patches when it ends
        ("warm", {"add_on", "prototypes"}),
        ("joint", {"backbone", "add_on", "prototypes"}),
        ("project", {"prototypes"}),
        ("head", {"head"}),
    ]
    for (_, one), (name, other) in pairwise(steps):
        if name in ("warm", "project", "head"):
            assert all(torch.equal(value, statistics(other)[key]) for key, value in statistics(one).items())
    assert steps[0][1].start is not None and steps[1][1].start is None
    assert all(weight in (1.0, -0.5) for weight in steps[3][1].head.weight.unique().tolist())


def test_the_papers_rates_fall_to_a_tenth_after_five_joint_epochs():
    model = ek.explainer("protopnet", preset="paper", joint=4)
    net = network()
    rates = []

    for phase in model.phases():
        if phase.name == "joint":
            optimiser = torch.optim.SGD([{"params": net.add_on.parameters(), "lr": phase.rates["add_on"]}])
            schedule = phase.schedule(optimiser, phase.epochs)
            for _ in range(phase.epochs):
                rates.append(optimiser.param_groups[0]["lr"])
                optimiser.step()
                schedule.step()

    assert rates == pytest.approx([3e-3] * 5 + [3e-4] * 3)
    assert [phase.name for phase in model.phases()] == ["warm"] + ["joint", "project", "head"] * 2


def test_backbone_statistics_are_frozen_with_the_backbone():
    model, data = ek.explainer("protopnet", preset="tiny", start=0), tiny_data()
    torch.manual_seed(0)
    net = model.build(ek.Task(classes=3))
    modes = []
    warm = model.phases()[0]

    def loss(module, batch):
        modes.append((net.backbone.training, net.backbone.stem[1].training, net.add_on.training))
        return warm.loss(module, batch)

    Trainer(device="cpu", progress=False).run(net, data, [evolve(warm, loss=loss)])

    assert modes == [(False, False, True)]


# projection


def literally_nearest(net, data, label, prototype):
    """(squared distance, image, cell) by looping over every patch of the class."""
    best = (math.inf, -1, -1)
    for index, known in enumerate(data.train.labels.tolist()):
        if known == label:
            patches = patches_of(net, data.train.batch(torch.tensor([index])).images.to(prototype.dtype))[0]
            for cell in range(len(patches)):
                distance = (patches[cell] - prototype).square().sum().item()
                if distance < best[0]:
                    best = (distance, index, cell)
    return best


class InDouble(ArraySplit):
    def batch(self, ids):
        batch = super().batch(ids)
        return evolve(batch, images=batch.images.double())


def doubled(data):
    return evolve(
        data,
        splits={
            name: InDouble(images=split.images, labels=split.labels) for name, split in data.splits.items()
        },
    )


@pytest.mark.parametrize("batch_size", [1, 7, 96])
def test_projection_finds_what_a_loop_over_all_patches_finds(batch_size):
    net, data = network().double(), doubled(tiny_data())
    before = net.prototypes.detach().clone()

    with torch.no_grad():
        project(net, data, batch_size=batch_size)

    for p in range(0, 6, 2):
        distance, image, cell = literally_nearest(net, data, net.owner[p].item(), before[p])
        row, column = net.sources.cell[p].tolist()
        assert (net.sources.image[p].item(), row * 8 + column) == (image, cell)
        assert net.sources.moved[p].item() == pytest.approx(distance, rel=1e-5)


def test_each_prototype_is_its_source_patch_and_scores_the_ceiling_on_it():
    net, data = learned(), tiny_data()

    for p in range(len(net.owner)):
        sample = data.train.batch(net.sources.image[p : p + 1])
        row, column = net.sources.cell[p].tolist()
        with torch.no_grad():
            patch = net.latent(sample.images)[0, :, row, column]
            score = net.decompose(sample.images).scores[0, p]
        assert (patch - net.prototypes[p]).square().sum() < 1e-10
        assert sample.labels[0] == net.owner[p]
        assert score.item() == pytest.approx(math.log(1 / EPSILON), abs=1e-3)
        assert torch.equal(net.sources.picture[p], data.train.images[net.sources.image[p]])


def test_a_second_projection_moves_nothing():
    net, data = learned(), tiny_data()
    image, cell = net.sources.image.clone(), net.sources.cell.clone()

    with torch.no_grad():
        project(net, data, batch_size=13)

    assert net.sources.moved.max() < 1e-10
    assert torch.equal(net.sources.image, image) and torch.equal(net.sources.cell, cell)


def test_of_equal_patches_the_first_image_is_taken():
    data = tiny_data()
    twice = ArraySplit(
        images=data.train.images[:48].repeat(2, 1, 1, 1), labels=data.train.labels[:48].repeat(2)
    )
    data = evolve(data, splits={**data.splits, "train": twice})

    for batch_size in (48, 96):
        net = network()
        with torch.no_grad():
            project(net, data, batch_size=batch_size)
        assert net.sources.image.max() < 48


def test_a_search_can_be_shared_out_in_any_way():
    net, data = network(), tiny_data()
    batches = list(data.batches("train", 16))

    with torch.no_grad():
        whole = nearest_patches(net, batches, 5)
        halves = [nearest_patches(net, part, 5) for part in (batches[1::2], batches[::2])]
        thirds = [nearest_patches(net, part, 5) for part in (batches[4:], batches[:2], batches[2:4])]

    for parts in (halves, halves[::-1], thirds, [merge(thirds[:2], 5), thirds[2]]):
        for name in ("distance", "image", "cell", "label"):
            assert torch.equal(getattr(merge(parts, 5), name), getattr(whole, name))


def test_ties_between_shares_go_to_the_lowest_image():
    zero = torch.tensor([[0, 0]])

    def share(distance, image):
        return Nearest(distance=torch.tensor([distance]), image=torch.tensor([image]), cell=zero, label=zero)

    one, other = share([1.0, 2.0], [9, 4]), share([1.0, 2.0], [5, 7])

    for pieces in ([one, other], [other, one]):
        assert merge(pieces, 4).image.tolist() == [[5, 9, 4, 7]]


def test_distinct_sources_cost_the_least_that_they_can():
    net, data = network(per_class=3), tiny_data()
    with torch.no_grad():
        net.prototypes.copy_(net.prototypes[0] + 0.01 * drawn(9, 16))  # all want the same patch
        before = net.prototypes.clone()
        plain, distinct = copy.deepcopy(net), net
        project(plain, data)
        project(distinct, data, distinct=True)

    assert len(plain.sources.image.unique()) < 9 and len(distinct.sources.image.unique()) == 9
    patches = patches_of(net, everything(data).images)  # (N, h w, D)
    for label in range(3):
        mine = (net.owner == label).nonzero()[:, 0]
        gaps = patches[data.train.labels == label][:, :, None] - before[mine]
        cost = gaps.square().sum(3).amin(1)  # (n, 3)
        rows = range(len(cost))
        least = min(
            (cost[a, 0] + cost[b, 1] + cost[c, 2]).item()
            for a in rows for b in rows for c in rows if len({a, b, c}) == 3
        )  # fmt: skip
        assert distinct.sources.moved[mine].sum().item() == pytest.approx(least, rel=1e-4)


def test_a_class_without_enough_images_is_named():
    data = tiny_data()
    lacking = ArraySplit(images=data.train.images[1::3], labels=data.train.labels[1::3])
    data = evolve(data, splits={**data.splits, "train": lacking})

    with pytest.raises(TrainingError, match="square 0"), torch.no_grad():
        project(network(), data)


def test_projection_changes_logits_by_no_more_than_the_theorem_allows():
    """Theorem 2.1: M log((1 + delta)(2 - delta)), where prototypes move little beside their distance."""
    chance, per_class = torch.Generator().manual_seed(0), 5
    for delta in (0.1, 0.3, 0.7):
        own_share = math.sqrt(1 + delta) - 1
        share = min(own_share, 1 - 1 / math.sqrt(2 - delta))
        bound = per_class * math.log((1 + delta) * (2 - delta))
        for _ in range(200):
            patch = torch.rand(8, generator=chance, dtype=torch.float64)
            shift = torch.randn(2, per_class, 8, generator=chance, dtype=torch.float64)
            turn = torch.randn(2, per_class, 8, generator=chance, dtype=torch.float64)
            reach = torch.rand(2, per_class, 1, generator=chance, dtype=torch.float64)
            reach[0] *= math.sqrt(1 - delta)
            reach[1] = 0.2 + reach[1]
            before = patch + shift / shift.norm(dim=2, keepdim=True) * reach
            far = torch.stack([own_share * reach[0], share * reach[1] - math.sqrt(EPSILON)]).clamp(min=0)
            after = before + turn / turn.norm(dim=2, keepdim=True) * far
            scores = [similarity((p - patch).square().sum(2), EPSILON).sum(1) for p in (before, after)]
            own, others = scores[1] - scores[0]
            assert own >= -bound and others <= bound


# boxes


def test_boxes_are_those_of_a_loop():
    maps = drawn(200, 8, 8, seed=3)

    found = activation_boxes(maps, (40, 48))

    grown = F.interpolate(maps[:, None], size=(40, 48), mode="bicubic", align_corners=False)[:, 0].clamp(
        min=0
    )
    for index in range(200):
        values = sorted(grown[index].flatten().tolist())
        level = values[int(0.95 * (len(values) - 1))]
        inside = [(x, y) for y in range(40) for x in range(48) if grown[index, y, x] > level]
        xs, ys = [x for x, _ in inside], [y for _, y in inside]
        assert found[index].tolist() == [min(xs), min(ys), max(xs) + 1, max(ys) + 1]
        assert len(inside) / (40 * 48) == pytest.approx(0.05, abs=0.005)


def test_the_box_of_the_peak_holds_the_peak_and_no_other_piece():
    maps = torch.zeros(1, 8, 8)
    maps[0, 1, 1], maps[0, 6, 6] = 2.0, 1.9

    whole, peak = activation_boxes(maps, (64, 64)), activation_boxes(maps, (64, 64), "peak")

    x0, y0, x1, y1 = peak[0].tolist()
    assert x0 <= 12 < x1 <= 24 and y0 <= 12 < y1 <= 24
    assert whole[0, 2] > 48 and whole[0, 0] == x0


def test_a_flat_map_has_the_whole_image_as_its_box():
    assert activation_boxes(torch.ones(2, 8, 8), (32, 40)).tolist() == [[0, 0, 40, 32]] * 2
    assert activation_boxes(torch.zeros(1, 8, 8), (32, 40), "peak").tolist() == [[0, 0, 40, 32]]


# the last layer


def problem(images=400, classes=4, per_class=3, seed=0):
    """Scores that tell classes apart, but not quite."""
    owner = torch.arange(classes).repeat_interleave(per_class)
    labels = torch.arange(images) % classes
    scores = drawn(images, len(owner), seed=seed) + 0.4 * (owner == labels[:, None])
    own = owner[:, None] == torch.arange(classes)
    return scores, labels, own, torch.where(own.T, 1.0, -0.5)


@pytest.mark.parametrize("penalty", [1e-3, 1e-2])
def test_the_last_layer_is_the_best_there_is(penalty):
    scores, labels, own, start = (
        value.double() if value.is_floating_point() else value for value in problem()
    )

    fit = fit_head(scores, labels, own, start, penalty, tolerance=1e-5, steps=20000)

    slope = gradient(fit.weight, scores, F.one_hot(labels).double())
    zero = fit.weight == 0
    assert fit.violation <= 1e-5 and (zero & ~own.T).sum() > 0 and not zero[own.T].any()
    assert slope[own.T].abs().max() <= 1e-4
    assert (slope[zero & ~own.T].abs() <= penalty + 1e-4).all()
    used = ~zero & ~own.T
    torch.testing.assert_close(slope[used], -penalty * fit.weight[used].sign(), rtol=0, atol=1e-4)


def test_no_gradient_descent_does_better():
    scores, labels, own, start = problem()
    weight = start.clone().requires_grad_()
    adam = torch.optim.Adam([weight], 1e-2)
    for _ in range(600):
        adam.zero_grad()
        (F.cross_entropy(scores @ weight.T, labels) + 1e-3 * off_class_l1(weight, own)).backward()
        adam.step()

    fit = fit_head(scores, labels, own, start, 1e-3)

    assert fit.objective <= objective(weight.detach(), scores, labels, own.T, 1e-3) + 1e-6
    assert fit.objective == pytest.approx(
        (F.cross_entropy(scores @ fit.weight.T, labels) + 1e-3 * off_class_l1(fit.weight, own)).item(),
        rel=1e-5,
    )
    slope = torch.autograd.grad(F.cross_entropy(scores @ weight.T, labels), weight)[0]
    torch.testing.assert_close(gradient(weight.detach(), scores, F.one_hot(labels).float()), slope)


def test_scores_found_once_serve_as_well_as_scores_found_anew():
    net, data = learned(), tiny_data()
    with torch.no_grad():
        cached, labels = all_scores(net, data)
        anew = torch.cat([net.decompose(batch.images).scores for batch in data.batches("train", 9)])

        one = fit_head(cached, labels, net.own, net.head.weight, 1e-3, steps=50)
        other = fit_head(anew, labels, net.own, net.head.weight, 1e-3, steps=50)

    torch.testing.assert_close(one.weight, other.weight, rtol=1e-4, atol=1e-4)


# pruning


def test_the_nearest_patches_are_those_of_a_full_sort():
    net, data = network(), tiny_data()
    patches = patches_of(net, everything(data).images)
    distances = (patches[:, :, None] - net.prototypes).square().sum(3)  # (N, h w, P)

    with torch.no_grad():
        found = nearest_patches(net, data.batches("train", 17), 6)

    for p in range(6):
        nearest, cells = distances[:, :, p].min(1)
        order = nearest.argsort()[:6]
        torch.testing.assert_close(found.distance[p], nearest[order], rtol=1e-4, atol=1e-5)
        assert len(found.image[p].unique()) == 6
        assert found.image[p].tolist() == order.tolist()
        assert found.cell[p].tolist() == cells[order].tolist()
        assert found.label[p].tolist() == data.train.labels[order].tolist()


def test_pruning_drops_prototypes_with_fewer_than_three_of_their_own_but_not_a_classs_last():
    label = torch.tensor(
        [[0] * 6, [0, 0, 1, 1, 1, 2], [1, 1, 1, 0, 0, 0], [2, 0, 0, 0, 0, 0], [1, 1, 1, 0, 2, 0]]
    )
    found = Nearest(distance=torch.ones(5, 6), image=label, cell=label, label=label)

    stays = survivors(found, torch.tensor([0, 0, 1, 2, 2]), 3)

    assert stays.tolist() == [True, False, True, True, False]  # of class 2, the one with a patch of its own


def test_the_pruned_network_is_what_is_left_of_the_whole(tmp_path):
    model = fitted()
    net, images = learned(), tiny_images()
    parts = net.decompose(images)
    chosen = torch.tensor([0, 2, 3, 5])

    net.keep(chosen)

    expected = parts.scores[:, chosen] @ model.network.head.weight[:, chosen].T
    torch.testing.assert_close(net(images), expected, rtol=1e-4, atol=1e-4)
    fresh = network()
    fresh.load_state_dict(net.state_dict())
    torch.testing.assert_close(fresh(images), net(images), rtol=1e-4, atol=1e-4)
    pruned = ek.explainer("protopnet", preset="tiny", prune=True).fit(
        tiny_data(), device="cpu", progress=False
    )
    pruned._adopt(net, model.classes, (32, 32))
    again = ek.load(ek.save(pruned, tmp_path / "pruned"))
    assert torch.equal(again.predict(images), pruned.predict(images)) and len(again.units) == 4
    kept = [(1, 0), (1, 1), (2, 1), (1, 2)]
    assert list(again.units.names) == [f"prototype {number} of square {label}" for number, label in kept]


def test_pruning_leaves_every_class_a_prototype():
    net = network(per_class=4)

    with torch.no_grad():
        prune(net, tiny_data(), least=7)

    assert net.owner.tolist() == [0, 1, 2] and net.head.weight.shape == (3, 3)


# what is said


def test_an_explanation_shows_what_each_prototype_was_taken_from():
    model, data = fitted(), tiny_data()

    item = model.explain(tiny_images())[0].strongest(1)[0]

    (source,) = item.exemplars
    assert source.split == "train" and data.train.labels[source.id] == source.label
    assert torch.equal(source.image, data.train.images[source.id])
    x0, y0, x1, y1 = source.box
    row, column = source.cell
    assert x0 <= 4 * column + 2 < x1 and y0 <= 4 * row + 2 < y1


def test_sources_survive_saving_and_loading(tmp_path):
    model = fitted()

    again = ek.load(ek.save(model, tmp_path / "model"))

    assert again.report == model.report and again.report.projected
    for one, other in zip(again.units.exemplars, model.units.exemplars, strict=True):
        assert (one[0].id, one[0].cell, one[0].box) == (other[0].id, other[0].cell, other[0].box)
        assert torch.equal(one[0].image, other[0].image)
    state = tmp_path / "state.pt"
    torch.save(model.network.state_dict(), state)
    net = network()
    net.load_state_dict(torch.load(state, weights_only=True))
    bound = ek.explainer("protopnet", network=net, classes=model.classes)
    assert bound.size == (32, 32) and bound.units.exemplars[0][0].id == model.units.exemplars[0][0].id


def test_prototypes_that_are_no_patches_say_so():
    model = explainer()

    with pytest.warns(UserWarning, match="not projected"):
        told = model.explain(tiny_images())

    assert "(not projected)" in told[0].sentence() and not model.report.projected
    assert "not projected" in str(model.report)
    model.project(tiny_data())
    assert "(not projected)" not in model.explain(tiny_images())[0].sentence()
    assert model.report.projected and model.units.exemplars


def test_networks_without_prototypes_are_refused():
    with pytest.raises(BindError, match="has no prototypes"):
        ek.explainer("protopnet", network=nn.Linear(3, 3), classes=["a", "b", "c"])


def test_the_report_counts_duplicates_zeros_and_idle_classes():
    model = explainer()
    model.project(tiny_data())
    net = model.network
    with torch.no_grad():
        net.sources.image.copy_(torch.tensor([0, 0, 1, 1, 2, 5]))
        net.sources.cell.zero_()
        net.sources.cell[3, 1] = 1
        net.head.weight.fill_(1)
        net.head.weight[1, 2:4] = -1
        net.head.weight[0, 2:5] = 0

    report = model.report

    assert (report.prototypes, report.duplicates, report.images) == (6, 1, 4)
    assert report.uncovered == ("square 1",) and report.zeros == pytest.approx(3 / 12)
    assert "square 1" in str(report) and "1 duplicates" in str(report)


def test_it_learns_the_digits():
    pytest.importorskip("sklearn")
    data = ek.dataset("digits", size=16)
    few = ArraySplit(images=data.train.images[:400], labels=data.train.labels[:400])
    data = evolve(data, splits={**data.splits, "train": few})

    model = ek.explainer("protopnet", preset="digits", start=5, joint=2).fit(
        data, device="cpu", progress=False
    )

    assert model.evaluate(data, ("test",))["test"]["accuracy"] > 0.85
    assert model.report.accuracy > 0.8 and model.report.duplicates < 10


def test_nothing_but_torch_and_scipy_is_needed():
    assert "cv2" not in sys.modules


def test_drawing_shows_each_pair_and_a_column_that_adds_up():
    told = fitted().explain(tiny_images())

    figure = told[0].figure()
    figure.canvas.draw()
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]

    values = [float(text) for text in texts if text[:1] in "+-" and text[1:2].isdigit()]
    assert sum(values[:-1]) == pytest.approx(values[-1], abs=0.005 * len(values))
    assert values[-1] == pytest.approx(told[0].total, abs=0.005)
    assert "this" in texts and "looks like that" in texts
