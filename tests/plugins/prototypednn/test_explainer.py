"""What it says, how it trains, and what it refuses."""

import pytest
import torch
from attrs import evolve
from plugin_cases import assert_near, networks_by_phase
from prototypednn_networks import fitted, network

import explainkit as ek
from explainkit.data.types import ArraySplit
from explainkit.errors import InputError
from explainkit.testing import check_explainer, fitted_example, tiny_dataset, tiny_images
from explainkit.training import Trainer
from explainkit_prototypednn.elastic import ElasticDistortion
from explainkit_prototypednn.explainer import PrototypeDNN

SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def model():
    return fitted_example("prototype-dnn")


def test_contributions_are_relative_to_mean_distances_and_sum_to_the_logit(model):
    explanations = model.explain(tiny_images())
    weight, reference = model.network.head.weight.detach(), model.network.reference

    explanations.check_additivity()
    for n, target in enumerate(explanations.targets.tolist()):
        base = sum(float(weight[target, k] * reference[k]) for k in range(6))
        assert explanations.base[n].item() == pytest.approx(base, rel=1e-5)
        expected = weight[target] * (explanations.scores[n] - reference)
        assert_near(explanations.contributions[n], expected)


def test_the_base_is_the_logit_where_every_distance_is_usual(model):
    images = tiny_images()
    explanations = model.explain(images)
    off = explanations.intervene(dict.fromkeys(range(6), "off"))

    assert_near(off.explained_output, explanations.base)
    dataset = tiny_dataset()
    train = model.explain(dataset.train.batch(torch.arange(len(dataset.train))))
    assert_near(train.scores.mean(0), model.network.reference)


def test_it_has_no_places_and_says_so(model):
    explanations = model.explain(tiny_images())

    assert explanations.maps is None and explanations.units.pooling == "none"
    assert_near(explanations.saliency().sum((1, 2)), torch.zeros(6), scale=explanations.logits)


def test_every_prototype_is_shown_as_decoded_and_beside_its_nearest_training_images(model):
    units, dataset = model.units, tiny_dataset()

    drawn = model.network.prototype_pictures()
    for k, pictures in enumerate(units.pictures):
        assert [picture.kind for picture in pictures] == ["decoded", "training", "training", "training"]
        assert torch.equal(pictures[0].image, drawn[k])
        for picture in pictures[1:]:
            source = dataset.train.batch(torch.tensor([picture.id]))
            assert torch.equal(picture.image, (source.images[0] * 255).round().byte())
            assert picture.label == int(source.labels[0])


def test_a_prototype_belongs_to_the_class_of_its_least_weight(model):
    owners = model.network.head.weight.argmin(0)

    assert torch.equal(model.units.class_affinity.argmax(1), owners)
    for name, owner in zip(model.units.names, owners.tolist(), strict=True):
        assert name.endswith(f"of square {owner}")
    assert model.report.owners == tuple(f"square {owner}" for owner in owners.tolist())


def test_a_report_names_classes_without_a_prototype_and_prototypes_that_are_alike():
    model = fitted()
    with torch.no_grad():
        model.network.head.weight[1] = 5.0
        model.network.prototypes[4] = model.network.prototypes[0]

    report = model.report

    assert report.uncovered == ("square 1",)
    assert report.duplicates >= 1
    assert "classes without a prototype: square 1" in str(report)
    assert report.nearest_distance == pytest.approx(model.network.sources.distance[:, 0].mean().item())


def test_sentences_speak_of_likeness_and_of_its_lack(model):
    sentences = [item.sentence(supporting=6) for item in model.explain(tiny_images())]

    assert all("likeness to prototype" in sentence for sentence in sentences)
    explanations = model.explain(tiny_images())
    for item in explanations[0].evidence:
        if item.score > 1.5 * model.network.reference[item.unit]:
            assert item.is_absent
        if item.score < 0.5 * model.network.reference[item.unit]:
            assert not item.is_absent


def test_classes_are_explained_by_the_nearest_images_and_drawn_with_decoded_prototypes(model):
    dataset = tiny_dataset()
    classes = model.explain_class(dataset)

    classes.check_additivity()
    batch = dataset.train.batch(torch.arange(len(dataset.train)))
    scores = model.explain(batch).scores
    unit = classes["square 1"].top(1)[0].unit
    own = [n for n in range(len(batch)) if int(batch.labels[n]) == 1]
    nearest = sorted(own, key=lambda n: float(scores[n, unit]))[:3]
    assert [picture.id for picture in classes["square 1"].evidence_of(unit).pictures] == nearest
    titles = [axes.get_title(loc) for axes in classes["square 1"].figure().axes for loc in ("left", "center")]
    assert any("decoded" in title for title in titles)
    assert "likeness to prototype" in classes["square 1"].sentence()


def test_interventions_are_hypotheses_of_the_head_and_say_whether_a_point_could_have_them(model):
    images = tiny_images()
    scores = model.explain(images).scores

    same = model.intervene(images, {k: scores[:, k] for k in range(6)})
    at_prototype = model.intervene(images, {0: 0.0})

    assert (same.diagnostics["realizable"] == 1).all()
    assert (at_prototype.diagnostics["realizable"] == 0).all()
    expected = model.network.head.weight[:, 0] * -scores[:, :1]
    assert_near(at_prototype.logits, model.explain(images).logits + expected, scale=expected)


def test_centers_of_classes_are_decoded(model):
    points = model.class_points()

    assert points.pictures.shape == (3, 3, 32, 32)
    assert torch.equal(points.is_ideal, model.network.head.weight.double().sum(1) < 0)
    assert points.classes == model.classes


def test_what_the_decoder_misses_is_told_on_request_and_alone_runs_it():
    model, images = fitted(), tiny_images()
    calls = []
    model.network.decoder.register_forward_hook(lambda *_: calls.append(1))

    assert model.explain(images).diagnostics == {} and not calls
    model.with_reconstruction = True
    error = model.explain(images).diagnostics["reconstruction error"]

    with torch.no_grad():
        drawn = model.network.pictures(model.network.encode(images))
    assert_near(error, (drawn - images).square().flatten(1).mean(1).sqrt())


def test_training_lowers_every_term_and_each_phase_touches_what_it_says():
    model = ek.explainer("prototype-dnn", preset="tiny", project=True, head_epochs=1)
    before = {}
    for name, made in networks_by_phase(model, tiny_dataset()):
        state = {key: value.clone() for key, value in made.state_dict().items()}
        changed = {
            key.split(".")[0] for key, value in state.items() if name and not torch.equal(value, before[key])
        }
        expected = {
            "begin": {"prototypes", "head"},
            "start": {"encoder", "decoder", "prototypes", "head"},
            "learn": {"encoder", "decoder", "prototypes", "head"},
            "project": {"prototypes"}, "head": {"head"}, "reference": {"reference", "sources"},
        }  # fmt: skip
        assert name is None or changed == expected[name], name
        before = state
    history = fitted(start_epochs=0, epochs=10).history
    first, last = history[0].train_losses, history[-1].train_losses
    assert all(last[name] < first[name] for name in first)


def test_projected_prototypes_are_training_images():
    model = fitted(project=True, head_epochs=1)

    assert (model.network.sources.distance[:, 0] < 1e-6).all()
    check_explainer(model)


@pytest.mark.parametrize(
    "settings",
    [
        {"channels": 1, "decoder": "upconv", "start_epochs": 0, "epochs": 4},
        pytest.param({"init": "reference", "augment": "elastic", "prototypes": 2}, marks=SLOW),
        pytest.param({"layers": 2, "latent_channels": 2}, marks=SLOW),
    ],
)
def test_every_kind_of_network_keeps_the_contract(settings):
    check_explainer(fitted(**settings))


def test_sigmoids_all_over_keep_latent_points_of_edits_below_1():
    model = fitted(activation="sigmoid", lr=2e-2)

    model.explain(tiny_images()).check_additivity()
    moves = model.latent_moves(tiny_images())
    assert moves.after.min() >= 0 and moves.after.max() <= 1 and moves.before.max() < 1


def test_a_model_that_is_loaded_says_the_same_to_the_bit(model, tmp_path):
    images = tiny_images()

    loaded = ek.load(ek.save(model, tmp_path / "model"))

    assert torch.equal(loaded.predict(images), model.predict(images))
    assert torch.equal(loaded.network.prototypes, model.network.prototypes)
    assert torch.equal(loaded.explain(images).contributions, model.explain(images).contributions)
    before, after = model.units.pictures, loaded.units.pictures
    assert [[p.id for p in of] for of in after] == [[p.id for p in of] for of in before]
    assert all(torch.equal(a[0].image, b[0].image) for a, b in zip(after, before, strict=True))
    assert [item.sentence() for item in loaded.explain(images)] == [
        item.sentence() for item in model.explain(images)
    ]


class KilledError(Exception):
    pass


def test_a_run_that_was_killed_ends_bit_by_bit_as_one_that_was_not(tmp_path):
    model, dataset = ek.explainer("prototype-dnn", preset="tiny", start_epochs=1, epochs=1), tiny_dataset()

    def run(steps, folder, resume=False):
        torch.manual_seed(0)
        made = model.build(ek.Task(classes=dataset.classes, size=dataset.size, dataset=dataset))
        torch.manual_seed(steps)  # what else is drawn must not matter
        seen, plan = [], model.phases()

        def counted(loss):
            def count(of, batch, step):
                seen.append(step.index)
                if len(seen) == steps:
                    raise KilledError
                return loss(of, batch, step)

            return count

        plan = [phase if phase.loss is None else evolve(phase, loss=counted(phase.loss)) for phase in plan]
        trainer = Trainer(
            device="cpu", progress=False, checkpoints=folder, checkpoint_every_n_steps=2, resume=resume
        )
        trainer.run(made, dataset, plan)
        return made.state_dict()

    with pytest.raises(KilledError):
        run(9, tmp_path / "killed")
    resumed = run(-1, tmp_path / "killed", resume=True)
    whole = run(-1, tmp_path / "whole")

    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def test_images_may_have_several_labels():
    generator = torch.Generator().manual_seed(0)
    labels = torch.rand(48, 3, generator=generator) > 0.5
    images = torch.randint(0, 90, (48, 3, 16, 16), generator=generator, dtype=torch.uint8)
    images += (labels[:, :, None, None] * 120).byte()
    split = ArraySplit(images=images, labels=labels)
    dataset = ek.ImageDataset(
        name="colors", classes=["red", "green", "blue"], size=(16, 16),
        splits=dict.fromkeys(("train", "validation", "test"), split),
    )  # fmt: skip

    model = ek.explainer("prototype-dnn", preset="tiny", epochs=8).fit(dataset, device="cpu", progress=False)

    explanations = model.explain(images[:4].float() / 255)
    explanations.check_additivity()
    assert model.units.names[0] == "prototype 1"
    counterfactuals = model.counterfactual(
        images[:6].float() / 255, method="prototype-dnn/latent", distractors=dataset
    )
    moves = model.latent_moves(images[:6].float() / 255)
    assert torch.equal(counterfactuals.success, moves.picture_holds) and moves.holds.any()


def test_a_network_on_normalized_images_decodes_pictures_and_edits_images_as_they_came():
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.1)
    low = [-m / s for m, s in zip(mean, std, strict=True)]
    high = [(1 - m) / s for m, s in zip(mean, std, strict=True)]
    made = network(size=(32, 32), layers=3, low=low, high=high)
    model = PrototypeDNN.from_network(made, mean=mean, std=std)
    images = tiny_images()

    pictures = model.units.pictures[0][0].image
    counterfactuals = model.counterfactual(images, method="prototype-dnn/latent")
    moves = model.latent_moves(images)

    assert pictures.shape == (3, 32, 32) and [p.kind for p in model.units.pictures[0]] == ["decoded"]
    assert moves.pictures.min() >= 0 and moves.pictures.max() <= 1
    assert_near(model.predict(moves.pictures), moves.picture_logits)
    assert torch.equal(counterfactuals.success, moves.picture_holds)


def test_augmentation_is_the_data_sets_or_elastic():
    for augment, expected in (("dataset", "dataset"), ("elastic", ElasticDistortion())):
        phases = ek.explainer("prototype-dnn", augment=augment).phases()
        assert all(phase.augment == expected for phase in phases if phase.epochs)
    assert "ElasticDistortion(alpha=20.0" in str(fitted(augment="elastic", epochs=1).provenance().augment)


def test_presets_are_what_they_say():
    paper = ek.explainer("prototype-dnn", preset="paper")

    assert (paper.prototypes, paper.epochs, paper.batch_size, paper.lr) == (15, 1500, 250, 1e-4)
    assert (paper.activation, paper.channels, paper.augment) == ("sigmoid", 1, "elastic")
    assert paper.reconstruction == paper.prototype_weight == paper.image_weight == 0.05


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prototypes": 0}, "Expected prototypes of PrototypeDNN as 1 or more; got 0"),
        ({"activation": "tanh"}, "Expected activation of PrototypeDNN as one of 'relu', 'sigmoid'"),
        ({"decoder": "linear"}, "Expected decoder of PrototypeDNN as one of 'deconv', 'upconv'"),
        ({"init": "zeros"}, "Expected init of PrototypeDNN"),
        ({"channels": 2}, "Expected channels of PrototypeDNN as 1 or 3; got 2"),
        ({"reconstruction": -1.0}, "Expected reconstruction of PrototypeDNN as 0 or more; got -1.0"),
        ({"label_smoothing": 1.0}, r"Expected label_smoothing of PrototypeDNN in \[0, 1\)"),
    ],
)
def test_settings_that_mean_nothing_are_refused_in_words(settings, message):
    with pytest.raises(InputError, match=message):
        ek.explainer("prototype-dnn", **settings)
