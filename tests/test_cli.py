"""The command, as a user types it."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import explainkit as ek
from explainkit.cli import main
from explainkit.data.types import ArraySplit

OF_FOLDER = ("--dataset", "folder", "--dataset-option", "size=32", "--dataset-option")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of thirty pictures: two classes that differ in where the light is."""
    folder = tmp_path_factory.mktemp("pictures")
    chance = np.random.default_rng(0)
    for name, rows in (("high", slice(0, 12)), ("low <b>", slice(20, 32))):
        (folder / name).mkdir()
        for index in range(15):
            values = chance.integers(0, 80, (32, 32, 3), dtype=np.uint8)
            values[rows] += 150
            Image.fromarray(values).save(folder / name / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def model(pictures, tmp_path_factory):
    """A CAM trained on the pictures by the command alone."""
    out = tmp_path_factory.mktemp("trained") / "model"
    status = main(
        ["train", "cam", *OF_FOLDER, f"path={pictures}",
         "--preset", "tiny", "--option", "epochs=8", "--option", "batch_size=10", "--out", str(out)]
    )  # fmt: skip
    assert status == 0
    return out


def run(capsys, *argv):
    status = main([str(word) for word in argv])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_a_folder_of_pictures_is_trained_explained_and_compared(model, pictures, tmp_path, capsys):
    page, saved = tmp_path / "why.html", tmp_path / "explanations.safetensors"

    status, out, _ = run(capsys, "explain", model, pictures / "high", "--out", page, "--save", saved)

    assert status == 0
    assert out.count("because of") == 15
    assert "&lt;b&gt;" in page.read_text() or "high" in page.read_text()
    assert saved.exists()

    side, numbers = tmp_path / "side.html", tmp_path / "side.json"
    status, out, _ = run(
        capsys, "compare", model, pictures / "high" / "0.png", pictures / "low <b>" / "1.png",
        "--with", "captum/saliency", "--with", "captum/integrated-gradients",
        "--out", side, "--json", numbers,
    )  # fmt: skip

    facts = json.loads(numbers.read_text())
    assert status == 0
    assert set(facts["explanations"]) == {"cam", "captum/saliency", "captum/integrated-gradients"}
    assert "low &lt;b&gt;" in side.read_text()
    assert "low <b>" not in side.read_text()
    assert "captum/saliency" in out


def test_what_was_trained_is_evaluated(model, pictures, capsys):
    status, out, _ = run(
        capsys, "evaluate", model, *OF_FOLDER, f"path={pictures}",
        "--images", "4", "--curve",
    )  # fmt: skip

    accuracy = float(out.split("test: accuracy ")[1].split("%")[0])
    assert status == 0
    assert accuracy >= 75
    assert "randomized weights" in out
    assert re.search(r"^off +last unit +accuracy +true logit +gain a unit +at random$", out, re.MULTILINE)


def test_an_own_explanation_is_evaluated_against_posthoc_methods(model, pictures, tmp_path, capsys):
    numbers = tmp_path / "own.json"
    methods = ("--methods", "captum/saliency", "--methods", "captum/layer-grad-cam")
    folder = (*OF_FOLDER, f"path={pictures}", "--images", "3")

    status, out, _ = run(
        capsys, "evaluate", model, *folder, "--own-against-posthoc", *methods, "--json", numbers
    )

    assert status == 0 and "cam less each method" in out and "captum/layer-grad-cam equals cam" in out
    comparison = ek.PostHocComparison.from_json(numbers.read_text())
    assert comparison.methods == ("captum/saliency",)

    for wrong in (methods, ("--out", "own.png"), ("--own-against-posthoc", "--with", "captum/saliency")):
        status, _, err = run(capsys, "evaluate", model, *folder, *wrong)
        assert status and "--own-against-posthoc" in err
    status, _, err = run(
        capsys, "evaluate", model, *folder, "--own-against-posthoc", "--out", tmp_path / "own.hologram"
    )
    assert status and "own.hologram" in err


def test_training_logs_every_epoch_and_leaves_no_checkpoint(model):
    beside = model.with_name("model-log")

    assert (beside / "log.csv").read_text().count("\n") == 9
    assert not list(beside.glob("*.safetensors"))


def test_a_target_goes_by_name_and_by_index(model, pictures, tmp_path, capsys):
    image = pictures / "high" / "0.png"

    by_name = run(capsys, "explain", model, image, "--target", "low <b>", "--out", tmp_path / "a.html")
    by_index = run(
        capsys, "explain", model, image, "--target", "1", "--foil", "high", "--out", tmp_path / "b.html"
    )

    assert by_name[1].startswith(f"{image}: low <b>")
    assert "rather than high" in by_index[1]


def test_units_are_set_by_hand(model, pictures, tmp_path, capsys):
    picture, page = pictures / "high" / "0.png", tmp_path / "why.html"

    _, plain, _ = run(capsys, "explain", model, picture, "--out", page)
    status, out, _ = run(
        capsys, "explain", model, picture, "--set-unit", "filter 0=off", "--set-unit", "1=2.5", "--out", page
    )

    assert status == 0 and out != plain
    for wrong in ("filter 0", "filter 0=much", "=3", "nothing=off"):
        status, _, err = run(capsys, "explain", model, picture, "--set-unit", wrong, "--out", page)
        assert status == 2 and err.count("\n") == 1


def test_a_class_and_counterfactuals_are_explained_too(model, pictures, tmp_path, capsys):
    dataset = (*OF_FOLDER, f"path={pictures}")
    page = tmp_path / "c.html"
    status, out, _ = run(
        capsys, "explain", model, "--question", "class", "--target", "high", *dataset, "--out", page,
    )  # fmt: skip

    assert status == 0 and out.startswith("High, on average over")
    assert "What high is" in page.read_text(encoding="utf-8")

    page = tmp_path / "w.html"
    status, out, _ = run(
        capsys, "explain", model, pictures / "high" / "0.png", "--question", "counterfactual",
        "--target", "low <b>", *dataset, "--out", page,
    )  # fmt: skip

    text = page.read_text(encoding="utf-8")
    assert status == 0 and "low <b>" in out and "the network" in text
    assert "What would make it low &lt;b&gt;" in text and "low <b>" not in text


def test_a_comparison_explains_them_too(model, pictures, tmp_path, capsys):
    side, numbers = tmp_path / "side.html", tmp_path / "side.json"

    status, _, _ = run(
        capsys, "compare", model, pictures / "high" / "0.png", "--with", "captum/saliency", *OF_FOLDER,
        f"path={pictures}", "--out", side, "--json", numbers,
    )  # fmt: skip

    facts = json.loads(numbers.read_text())
    assert status == 0 and set(facts["class_explanations"]) == set(facts["counterfactuals"]) == {"cam"}
    assert facts["counterfactuals"]["cam"][0]["sentence"]
    assert facts["class_explanations"]["cam"][0]["evidence"]
    assert "What would make it" in side.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["digits", "aviary"])
def test_a_data_set_is_previewed(name, tmp_path, capsys):
    status, _, _ = run(capsys, "preview", name, "--out", tmp_path / "sheet.png")

    assert status == 0
    assert min(Image.open(tmp_path / "sheet.png").size) > 300


def wrong_call(model, pictures, tmp_path, what):
    """A call with one thing wrong, and a word that the refusal must have."""
    image = pictures / "high" / "0.png"
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not an image")
    other = tmp_path / "other"
    shutil.copytree(model, other)
    facts = json.loads((other / "explainer.json").read_text())
    (other / "explainer.json").write_text(json.dumps(facts | {"schema": "explainkit.explainer/9.0"}))
    return {
        "missing image": (["explain", model, tmp_path / "none.png"], "none.png"),
        "corrupt image": (["explain", model, broken], "broken.png"),
        "no image": (["explain", model], "got none"),
        "question without data": (["explain", model, "--question", "class"], "--dataset NAME"),
        "unknown question": (["explain", model, image, "--question", "whence"], "whence"),
        "folder without images": (["explain", model, tmp_path / "other"], "found none"),
        "unknown class": (["explain", model, image, "--target", "hihg"], "high"),
        "class out of range": (["explain", model, image, "--target", "7"], "0 … 1"),
        "missing model": (["explain", tmp_path / "nowhere", image], "nowhere"),
        "model of another version": (["explain", other, image], "9.0"),
        "unwritable page": (["explain", model, image, "--out", broken / "x" / "why.html"], "written"),
        "unknown explainer": (["train", "camm"], "cam"),
        "unknown setting": (["train", "cam", "--option", "epoch=3"], "epochs"),
        "unknown preset": (["train", "cam", "--preset", "larg"], "small"),
        "unknown data": (["train", "cam", "--dataset", "digit"], "digits"),
        "setting without a value": (["train", "cam", "--option", "epochs"], "name=value"),
        "training a post-hoc method": (["train", "captum/saliency"], "network"),
        "training into something else": (["train", "cam", "--out", pictures], "something else"),
        "unknown method": (["compare", model, image, "--with", "captum/salient"], "captum/saliency"),
        "unknown option": (["explain", model, image, "--tagret", "1"], "tagret"),
    }[what]  # fmt: skip


@pytest.mark.parametrize(
    "what",
    [
        "missing image", "corrupt image", "no image", "question without data", "unknown question",
        "folder without images", "unknown class", "class out of range",
        "missing model", "model of another version", "unwritable page", "unknown explainer",
        "unknown setting",
        "unknown preset", "unknown data", "setting without a value", "training a post-hoc method",
        "training into something else", "unknown method", "unknown option",
    ],
)  # fmt: skip
def test_bad_input_ends_with_one_clear_line_and_status_2(model, pictures, tmp_path, capsys, what):
    argv, word = wrong_call(model, pictures, tmp_path, what)

    status, _, err = run(capsys, *argv)

    assert status == 2
    assert len(err.strip().splitlines()) == 1
    assert word in err
    assert "Traceback" not in err


def test_a_model_of_labels_is_explained_by_the_command_label_by_label(tmp_path, capsys):
    chance = torch.Generator().manual_seed(0)
    truth = torch.rand(48, 3, generator=chance) > 0.5
    images = torch.randint(0, 90, (48, 3, 16, 16), generator=chance, dtype=torch.uint8)
    for label, start in enumerate((0, 5, 10)):
        images[truth[:, label], label, start : start + 5, start : start + 5] = 240
    split = ArraySplit(images=images, labels=truth)
    dataset = ek.ImageDataset(
        name="squares", classes=("red", "green", "blue"), size=(16, 16),
        splits=dict.fromkeys(("train", "validation", "test"), split),
    )  # fmt: skip
    trained = ek.explainer("cam", preset="tiny", epochs=6).fit(dataset, seed=0, device="cpu", progress=False)
    folder = ek.save(trained, tmp_path / "model")
    files = []
    for index in range(6):
        files.append(tmp_path / f"{index}.png")
        Image.fromarray(images[index].permute(1, 2, 0).numpy()).save(files[-1])

    status, out, _ = run(capsys, "explain", folder, *files, "--out", tmp_path / "why.html")

    held = trained.decision.holds(trained.predict([str(file) for file in files])).sum(1).clamp(min=1)
    assert status == 0
    for file, count in zip(files, held.tolist(), strict=True):
        assert out.count(f"{file}: ") == count
    status, _, err = run(
        capsys, "compare", folder, files[0], "--with", "captum/saliency", "--out", tmp_path / "side.html"
    )
    assert status == 0, err


def test_a_method_that_needs_no_images_of_others_needs_no_data_set(model, pictures, tmp_path, capsys):
    asked = ["explain", model, pictures / "high" / "0.png", "--question", "counterfactual"]
    page = ["--out", tmp_path / "page.html"]

    status, out, _ = run(capsys, *asked, "--method", "score-edit", *page)
    assert status == 0 and "taken from" not in out
    status, _, err = run(capsys, *asked, *page)
    assert status != 0 and "--dataset NAME" in err
    status, _, err = run(capsys, *asked, "--method", "region-swap", *page)
    assert status != 0 and "Expected training images" in err


def test_a_network_beside_a_model_that_has_its_own_is_refused(model, pictures, tmp_path, capsys):
    status, _, err = run(capsys, "explain", model, pictures / "high" / "0.png", "--network", tmp_path)

    assert status != 0 and "has a network of its own" in err


def test_a_folder_is_explained_to_parquet_by_two_shards_and_again(model, pictures, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for index in range(5):
        shutil.copy(pictures / "high" / f"{index}.png", tmp_path / "in")
    (tmp_path / "in" / "cut.png").write_bytes(b"no image")
    command = (
        "explain",
        model,
        tmp_path / "in",
        "--out-dataset",
        tmp_path / "out",
        "--top",
        2,
        "--sentences",
    )

    status, out, err = run(capsys, *command, "--shard", "0/2")
    assert status == 0, err
    assert "0 rows" in out and "1 file still to be written, by other shards" in out
    for _ in range(2):
        status, out, err = run(capsys, *command, "--shard", "1/2")
        assert status == 0, err
        assert "6 rows" in out and "1 image could not be explained" in out

    rows = ek.ExplanationDataset(tmp_path / "out").check().to_arrow().to_pylist()
    assert [row["path"] for row in rows] == sorted([*(f"{index}.png" for index in range(5)), "cut.png"])
    assert all(len(row["units"]) == 2 and row["sentence"] for row in rows if row["error"] is None)

    for wrong, says in (
        (("--shard", "2"), "--shard as which of how many"),
        (("--save", tmp_path / "x"), "without --question"),
        (("--target", 0), "its settings.targets is None, and now 0"),
        (("--dataset", "digits"), "both"),
    ):
        status, _, err = run(capsys, *command, *wrong)
        assert status == 2 and says in err, err


def test_the_test_images_of_a_data_set_are_explained_to_parquet(model, pictures, tmp_path, capsys):
    status, out, err = run(
        capsys, "explain", model, *OF_FOLDER, f"path={pictures}", "--out-dataset", tmp_path / "out"
    )

    assert status == 0 and "rows in" in out, err
    assert None not in ek.ExplanationDataset(tmp_path / "out").to_arrow()["label"].to_pylist()
