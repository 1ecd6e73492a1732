"""One graph says what the model says, of any number of images, and what it is."""

import json
import sys
from copy import deepcopy

import pytest
import torch
from graph_cases import (
    Linear,
    WithBranch,
    WithLength,
    WithLoop,
    WithMemory,
    WithNumpy,
    WithUnknownOperator,
    given_by,
    graph_of,
    images_of,
    plain,
)
from plugin_cases import assert_near
from torch import nn

import explainkit as ek
from explainkit.errors import (
    ConformanceError,
    InputError,
    MissingPackageError,
    NotFittedError,
    UnsupportedNetworkError,
)
from explainkit.testing import check_explainer, fitted_example, tiny_dataset, tiny_images
from explainkit.testing.export_checks import check_exports

onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
pytest.importorskip("onnxruntime", reason="needs the extra onnx")
pytest.importorskip("onnxscript", reason="needs the extra onnx")

from explainkit.export import onnx_graphs  # noqa: E402
from explainkit.export.agreement import open_session  # noqa: E402
from explainkit.export.onnx_graphs import onnx_graph  # noqa: E402

CLASSES = tiny_dataset().classes


def resnet(channels=3, classes=4):
    """Somebody's network, as CAM is bound to."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, classes),
    ).eval()  # fmt: skip


@pytest.mark.parametrize("count", [1, 7, 33])
def test_a_graph_says_of_any_number_of_images_what_the_model_says(count):
    _, session = graph_of("cam")
    images = images_of(count)

    given = given_by(session, images)

    expected = fitted_example("cam").explain(images)
    assert torch.equal(given["targets"], expected.targets)
    for name in ("logits", "base", "contributions", "maps"):
        assert_near(given[name], getattr(expected, name), 1e-5)
    assert_near(given["saliency"], expected.saliency(), 1e-5)


def test_sums_hold_in_the_numbers_of_the_graph_alone():
    _, session = graph_of("cam")

    given = given_by(session, images_of(7))

    for n in range(7):
        total = float(given["base"][n]) + sum(float(value) for value in given["contributions"][n])
        assert float(given["logits"][n, given["targets"][n]]) == pytest.approx(total, abs=1e-5)
        assert float(given["saliency"][n].sum()) == pytest.approx(total - float(given["base"][n]), abs=1e-5)


def test_maps_in_boxes_come_with_their_boxes():
    graph, session = graph_of("ra-cnn")

    given = given_by(session, images_of(2))

    expected = fitted_example("ra-cnn").explain(images_of(2))
    assert_near(given["boxes"], expected.boxes, 1e-5)
    assert_near(given["saliency"], expected.saliency(), 1e-5)
    assert graph.facts["units"]["group"] == expected.units.group.tolist()


def test_units_without_places_have_no_maps_and_no_saliency():
    graph, session = graph_of("senn")

    assert list(graph.facts["outputs"]) == ["logits", "targets", "base", "contributions"]
    assert list(given_by(session, images_of(2))) == list(graph.facts["outputs"])


def test_a_graph_of_nothing_is_refused():
    with pytest.raises(InputError, match="got maps, saliency: its units have no places"):
        onnx_graph(plain(Linear), ("maps", "saliency"))


def test_a_graph_with_a_second_input_explains_the_classes_that_it_is_given():
    _, session = graph_of("protopnet", targets="input", top=3)
    targets, images = torch.tensor([2, 0, 1, 1, 2]), images_of(5)

    given = given_by(session, images, targets)

    expected = fitted_example("protopnet").explain(images, targets)
    assert "targets" not in given
    assert_near(given["contributions"], expected.contributions.gather(1, given["units"]), 1e-5)


def test_the_strongest_units_and_the_remainder_add_up():
    _, session = graph_of("protopnet", targets="input", top=3)
    targets, images = torch.tensor([2, 0, 1, 1, 2]), images_of(5)

    given = given_by(session, images, targets)

    expected = fitted_example("protopnet").explain(images, targets)
    assert torch.equal(given["units"], expected.top(3).unit)
    assert_near(given["remainder"], expected.top(3).remainder, 1e-5, scale=expected.contributions)
    assert_near(given["maps"], expected.maps[torch.arange(5)[:, None], given["units"]], 1e-5)
    assert_near(given["saliency"], expected.saliency(), 1e-5)


def test_more_units_than_there_are_is_all_of_them():
    graph = onnx_graph(plain(Linear), ("contributions",), top=99)

    assert graph.facts["top"] == 3
    assert list(graph.facts["outputs"]) == ["targets", "units", "contributions", "remainder"]


def test_only_what_is_asked_for_is_given():
    graph = onnx_graph(plain(Linear), ("logits",))

    assert list(graph.facts["outputs"]) == ["logits"]


def test_a_network_of_somebody_is_exported_with_its_normalization():
    model = ek.explainer("cam", network=resnet(), size=16, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.2))

    graph = onnx_graph(model)

    images = torch.rand(7, 3, 16, 16)
    expected, given = model.explain(images), given_by(open_session(graph.content), images)
    assert graph.facts["input"] == {"shape": ["batch", 3, 16, 16], "value_range": (0.0, 1.0)}
    assert_near(given["contributions"], expected.contributions, 1e-5)
    assert len(graph.facts["units"]["names"]) == 32, "two of each signed filter"


def test_images_of_any_range_and_channels_go_in_as_explain_takes_them():
    model = ek.explainer("cam", network=resnet(1), size=12, value_range=(-1, 1))

    given = given_by(open_session(onnx_graph(model).content), 2 * torch.rand(3, 1, 12, 12) - 1)

    assert given["logits"].shape == (3, 4)


def test_rows_of_a_table_are_exported():
    pytest.importorskip("sklearn")
    dataset = ek.dataset("wine")
    model = ek.explainer("senn", preset="table", learn_epochs=1, settle_epochs=1).fit(dataset, progress=False)

    graph = onnx_graph(model)

    rows = dataset.test.batch(torch.arange(7)).images
    expected, given = model.explain(rows), given_by(open_session(graph.content), rows)
    assert graph.facts["input"]["shape"] == ["batch", 13]
    assert_near(given["contributions"], expected.contributions, 1e-5)


def test_disabled_units_stay_off():
    model = deepcopy(fitted_example("cam"))
    model.disable_units([0, 5])

    graph = onnx_graph(model, ("logits", "contributions"))

    given, images = given_by(open_session(graph.content), images_of(4)), images_of(4)
    assert not given["contributions"][:, [0, 5]].any()
    assert_near(given["logits"], model.predict(images), 1e-5)
    assert graph.facts["digest"] != graph_of("cam")[0].facts["digest"]


@pytest.mark.parametrize("rule", ["sigmoid", "identity"])
def test_labels_are_explained_by_the_nearest_and_numbers_by_input_alone(rule):
    model = plain(Linear, decision=rule)
    if rule == "identity":
        with pytest.raises(InputError, match="targets='input'"):
            onnx_graph(model)

    graph = onnx_graph(model, targets="input" if rule == "identity" else "predicted")

    assert graph.facts["decision"]["rule"] == rule
    assert graph.facts["unit_of_outputs"] == ("output" if rule == "identity" else "logit")


def test_the_metadata_say_what_the_graph_is():
    graph, session = graph_of("cam")
    model = fitted_example("cam")

    facts = json.loads(session.get_modelmeta().custom_metadata_map["explainkit"])

    assert facts == json.loads(json.dumps(graph.facts))
    assert facts["schema"] == "explainkit.graph/2.0"
    assert tuple(facts["classes"]) == model.classes
    assert tuple(facts["units"]["names"]) == model.units.names
    assert facts["digest"] == model.explain(tiny_images()).provenance.model_digest
    assert facts["additivity"] == "exact" and facts["units"]["pooling"] == "mean"
    assert facts["settings"] == json.loads(json.dumps(model.settings()))


def test_the_batch_is_called_so_and_nothing_says_where_the_graph_was_made():
    graph, session = graph_of("cam")

    for value in (*session.get_inputs(), *session.get_outputs()):
        assert value.shape[0] == "batch"
    for text in (b"site-packages", b".py", str(ek.__file__).encode()):
        assert text not in graph.content


def test_graphs_compute_in_single_precision():
    proto = onnx.load_model_from_string(graph_of("ra-cnn")[0].content)

    kinds = {tensor.data_type for tensor in proto.graph.initializer}
    casts = {
        attribute.i for node in proto.graph.node if node.op_type == "Cast" for attribute in node.attribute
    }
    assert onnx.TensorProto.DOUBLE not in kinds | casts


def test_equal_models_are_equal_bytes():
    assert onnx_graph(plain(Linear)).content == onnx_graph(plain(Linear)).content


def test_the_model_is_left_as_it_was():
    model = plain(Linear)
    model.network.train()
    before, state = torch.get_rng_state(), deepcopy(model.network.state_dict())

    onnx_graph(model)

    assert model.network.training and torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, state[name]) for name, value in model.network.state_dict().items())


def test_the_file_is_the_graph(tmp_path):
    path = tmp_path / "new folder" / "model.onnx"

    assert ek.export_onnx(plain(Linear), path) == path

    assert open_session(path).get_inputs()[0].name == "images"
    assert [item.name for item in path.parent.iterdir()] == ["model.onnx"]


def test_a_graph_that_disagrees_is_refused_and_nothing_is_written(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"the one before")

    with pytest.raises(InputError, match=r"to 0\.0001 of its size; of 1 images logits differs"):
        ek.export_onnx(plain(WithMemory), path)

    assert path.read_bytes() == b"the one before"
    assert [item.name for item in tmp_path.iterdir()] == ["model.onnx"]


def test_a_path_that_cannot_be_written_is_refused_in_words(tmp_path):
    with pytest.raises(InputError, match="Expected a path that can be written"):
        ek.export_onnx(plain(Linear), tmp_path)


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (WithLength, r"any number of images: .* Use images.shape\[0\] in place of len"),
        (WithLoop, "no Python loop over images"),
        (WithBranch, "Python branches on a number that is computed"),
        (WithNumpy, "to be traced for any number of images"),
        (WithUnknownOperator, "of operations that ONNX has: .*bessel_i1e"),
    ],
)
def test_a_network_that_cannot_be_a_graph_is_refused_with_what_stands_in_the_way(network, words, capfd):
    with pytest.raises(UnsupportedNetworkError, match=words):
        onnx_graph(plain(network))

    assert not capfd.readouterr().err, "in the error, and nowhere else"


def test_methods_after_the_fact_are_refused():
    with pytest.raises(InputError, match="an architecture that decides by its units"):
        onnx_graph(fitted_example("captum/saliency"))
    with pytest.raises(InputError, match="got Linear"):
        onnx_graph(Linear())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"outputs": "logits"}, "a sequence of different names"),
        ({"outputs": ()}, "a sequence of different names"),
        ({"outputs": ("logits", "logits")}, "a sequence of different names"),
        ({"outputs": ("logits", "heat")}, "saliency; got 'heat'"),
        ({"top": 0}, "top as a whole number of at least 1"),
        ({"top": True}, "top as a whole number"),
        ({"targets": "all"}, "'predicted' or 'input'"),
        ({"size": (8, -1)}, "height and width in pixels"),
        ({"size": 8.5}, "height and width in pixels"),
        ({"size": "large"}, "height and width in pixels"),
    ],
)
def test_settings_out_of_range_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        onnx_graph(plain(Linear), **options)


def test_a_model_of_any_size_needs_one():
    with pytest.raises(InputError, match=r"size=\(height, width\)"):
        onnx_graph(plain(Linear, size=None))

    assert onnx_graph(plain(Linear, size=None), size=9).facts["input"]["shape"] == ["batch", 3, 9, 9]


def test_models_that_are_not_ready_are_refused():
    with pytest.raises(NotFittedError):
        onnx_graph(ek.explainer("cam"))
    with pytest.raises(InputError, match=r"network\.float\(\)"):
        onnx_graph(ek.explainer("cam", network=resnet().double(), size=16))
    model = deepcopy(fitted_example("cam"))
    model.network.to("meta")
    with pytest.raises(InputError, match=r"model\.to\('cpu'\)"):
        onnx_graph(model)


def test_without_the_libraries_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)

    with pytest.raises(MissingPackageError, match=r"explainkit-sdk\[onnx\]"):
        onnx_graph(plain(Linear))


def test_a_graph_that_the_runtime_cannot_run_is_refused(monkeypatch):
    class Session:
        def get_outputs(self):
            return []

        def run(self, names, feed):
            raise RuntimeError("no kernel\nand more")

    monkeypatch.setattr(onnx_graphs, "open_session", lambda content: Session())

    with pytest.raises(InputError, match=r"with 1 ONNX Runtime says: no kernel$"):
        onnx_graph(plain(Linear))


def test_a_file_that_protobuf_cannot_hold_is_refused(monkeypatch):
    monkeypatch.setattr("explainkit.export.conversion.LARGEST_GRAPH", 100)

    with pytest.raises(InputError, match="a graph of at most 100 bytes"):
        onnx_graph(plain(Linear))


def test_the_conformance_kit_finds_what_cannot_be_exported():
    with pytest.raises(ConformanceError, match=r"a graph of the model; it is refused: .*len\(images\)"):
        check_exports(plain(WithLength), torch.rand(4, 3, 8, 8))


def test_the_conformance_kit_says_what_it_skips(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr("explainkit.testing.checks.CHECKS", (check_exports,))

    with pytest.warns(UserWarning, match="check_exports was skipped: Exporting needs onnx"):
        check_explainer(plain(Linear), torch.rand(4, 3, 8, 8))
