"""FunnyBirds: archives and settings that are refused, each with a message that names the cause."""

import json
import os
import zipfile

import pytest
import torch
from funnybirds_cases import LISTS, PARTS
from split_cases import whole_batch

import explainkit as ek
from explainkit.errors import FormatError

NO_PARTS = torch.zeros(1, len(PARTS), dtype=torch.bool)


@pytest.mark.parametrize("name", LISTS)
def test_a_list_that_is_missing_is_named(bird_lists, name):
    (bird_lists.root / name).unlink()

    with pytest.raises(ek.InputError, match=name):
        bird_lists.dataset()
    with pytest.raises(ek.InputError, match=name):
        bird_lists.dataset(path=bird_lists.zipped(bird_lists.above / "birds.zip"))


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[" * 100_000, b"\xff\xfe\x00", b"null", b"[]", b"{}", b"[null, null]", b'"text"', b"3",
        b'{"beak": []}', b'{"beak": [{}]}', b'[{"class_idx": true}, {}]', b'[{"class_idx": 9e999}, 3]',
        b"9" * 5000, b'{"beak": [{"model": 3}]}', b'{"beak": [{"model": ""}]}', b'{"beak": {"model": "a"}}',
    ],
)  # fmt: skip
def test_a_list_of_another_form_is_refused_in_words(bird_lists, name, content):
    (bird_lists.root / name).write_bytes(content)

    with pytest.raises(FormatError, match=f"Expected .*{name}"):
        bird_lists.dataset()


def in_scene(**values):
    return lambda scenes: scenes[1].update(values)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "parts.json",
            lambda parts: parts.update(horn=[{"model": "horn01.glb"}]),
            "parts among beak.*'horn'",
        ),
        ("parts.json", lambda parts: parts.pop("wing") and None, "the parts of parts.json for class 0"),
        ("parts.json", lambda parts: parts["eye"].pop() and None, "variants of parts.json for class 2"),
        ("classes.json", lambda classes: classes[1].update(class_idx=2), "class 1 at its place"),
        ("classes.json", lambda classes: classes[1]["parts"].update(horn=0), "the parts of parts.json for c"),
        ("classes.json", lambda classes: classes[1]["parts"].pop("eye") and None, "class 1.*got"),
        (
            "classes.json",
            lambda classes: classes[1]["parts"].update(eye=-1),
            "variants of parts.json for class 1",
        ),
        ("classes.json", lambda classes: classes[1]["parts"].update(eye="0"), "variants of parts.json"),
        ("classes.json", lambda classes: classes[:1], "two or more classes"),
        ("dataset_test.json", in_scene(class_idx=3), "a class of classes.json for scene 1.*got 3"),
        ("dataset_test.json", in_scene(class_idx=-1), "a class of classes.json for scene 1.*got -1"),
        ("dataset_test.json", in_scene(class_idx="../../etc"), "a class of classes.json for scene 1.*etc"),
        ("dataset_test.json", in_scene(horn_model="horn01.glb"), "parts of parts.json in scene 1.*'horn'"),
        ("dataset_test.json", in_scene(beak_model="beak09.glb"), "beak01.glb.*in scene 1.*beak09"),
        ("dataset_test.json", in_scene(tail_color="blue"), "'tail_color': 'red'.*in scene 1.*blue"),
        ("dataset_test.json", in_scene(eye_model=None), "eye01.glb.*in scene 1.*None"),
        ("dataset_test.json", in_scene(eye_model=[3]), "eye01.glb.*in scene 1"),
        ("dataset_test.json", lambda scenes: scenes[0].pop("foot_model") and None, "foot01.glb.*in scene 0"),
        ("dataset_train.json", in_scene(bg_objects=None), "background objects in scene 1.*None"),
        ("dataset_train.json", in_scene(bg_objects="1,x"), "background objects in scene 1.*1,x"),
        ("dataset_train.json", in_scene(bg_objects="1," * 53), "up to 52 background objects in scene 1"),
        ("dataset_train.json", in_scene(bg_objects="1" * 10**6), "background objects in scene 1"),
        ("dataset_train.json", lambda scenes: scenes.insert(1, []), "a class of classes.json for scene 1"),
    ],
)
def test_lists_that_do_not_agree_are_refused_in_words(bird_lists, name, change, message):
    bird_lists.change(name, change)

    with pytest.raises(FormatError, match=message) as refusal:
        bird_lists.dataset()

    assert name in str(refusal.value) or "classes.json" in str(refusal.value)
    assert len(str(refusal.value)) < 1000


@pytest.mark.parametrize(("folder", "number"), [("train", 3), ("test", 2), ("test_part_map", 2)])
def test_a_picture_that_is_missing_is_reported_at_once(birds, folder, number):
    birds.file(folder, number).unlink()

    for path in (birds.root, birds.zipped(birds.above / "birds.zip")):
        with pytest.raises(ek.InputError, match=f"{folder}.*{number:06}.*not there"):
            birds.dataset(path=path)


@pytest.mark.parametrize("folder", ["test", "test_part_map"])
@pytest.mark.parametrize("length", [0, 10, 90])
def test_a_picture_that_is_cut_off_is_named_when_it_is_reached(birds, folder, length):
    file = birds.file(folder, 2)
    file.write_bytes(file.read_bytes()[:length])

    for path in (birds.root, birds.zipped(birds.above / "birds.zip")):
        dataset = birds.dataset(path=path)
        with pytest.raises(ek.InputError, match=f"{folder}.*000002"):
            whole_batch(dataset.test)


def test_a_part_map_of_another_size_is_refused_when_it_is_reached(birds):
    birds.save(birds.part_map(birds.scenes["test"][2])[:20], birds.file("test_part_map", 2))

    with pytest.raises(FormatError, match=r"Expected 24 x 24 pixels.*test_part_map.*000002.*got 24 x 20"):
        whole_batch(birds.dataset().test)


def test_a_subset_that_is_not_there_is_refused_with_those_that_are(birds):
    folder = birds.file("test_interventions", 3).with_suffix("")
    for file in folder.glob("*.png"):
        if file.name not in ("body_beak.png", "body_eye_wing.png"):
            file.unlink()

    for path in (birds.root, birds.zipped(birds.above / "birds.zip")):
        test = birds.dataset(path=path).test
        with pytest.raises(
            ek.InputError, match=r"000003/body_\.png.*body_beak\.png, body_eye_wing\.png\. Is"
        ):
            test.with_parts(torch.tensor([3]), NO_PARTS)


def test_an_intervention_that_is_missing_or_cut_off_is_named(birds):
    folder = birds.file("test_interventions", 3).with_suffix("")
    (folder / "background_interventions" / "1.png").unlink()
    (folder / "body_.png").write_bytes(b"\x89PNG")
    test = birds.dataset().test

    with pytest.raises(ek.InputError, match=r"background_interventions/1\.png.*missing.*0\.png, 2\.png"):
        test.without_background_object(torch.tensor([3]), torch.tensor([1]))
    with pytest.raises(ek.InputError, match=r"000003/body_\.png"):
        test.with_parts(torch.tensor([3]), NO_PARTS)


def test_parts_and_objects_that_do_not_fit_are_refused_in_words(shared_birds):
    test = shared_birds.dataset().test

    for parts in (NO_PARTS[:, :4], NO_PARTS.float(), NO_PARTS.expand(2, -1)):
        with pytest.raises(ek.InputError, match=r"Expected parts as bool \(1, 5\)"):
            test.with_parts(torch.tensor([3]), parts)
    for number in (-1, 3):
        with pytest.raises(ek.InputError, match=f"one of the 3 background objects of scene 3.*got {number}"):
            test.without_background_object(torch.tensor([1, 3]), torch.tensor([0, number]))
    with pytest.raises(ek.InputError, match="Expected one object a scene"):
        test.without_background_object(torch.tensor([1]), torch.tensor([0, 1]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": "nowhere"}, "Expected classes.json of FunnyBirds at .*or its zip archive"),
        ({"size": 0}, "Expected a size in pixels"),
        ({"validation": 0}, "Expected a validation share between 0 and 1"),
        ({"augmentation": "heavy"}, "Expected the augmentation 'light' or None"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused_in_words(shared_birds, settings, message):
    with pytest.raises(ek.InputError, match=message):
        shared_birds.dataset(**settings)


def test_a_class_without_complete_birds_is_refused_in_words(bird_lists):
    def incomplete(scenes):
        for scene in scenes:
            if scene["class_idx"] == 1:
                scene.update(eye_model="placeholder")

    bird_lists.change("dataset_train.json", incomplete)

    with pytest.raises(ek.InputError, match=r"two training birds of a class with all parts.*'bird 1' has 0"):
        bird_lists.dataset(ground_truth=False)


# hostile archives


def packed(birds, **members):
    """The archive with other files added."""
    file = birds.zipped(birds.above / "birds.zip")
    with zipfile.ZipFile(file, "a") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file


@pytest.mark.parametrize(
    "name", ["../../evil.png", "/etc/passwd", "FunnyBirds/../../a", "C:\\a", "a\nb", "..\\a"]
)
def test_a_name_that_leads_out_of_the_archive_is_refused(bird_lists, name):
    with pytest.raises(FormatError, match=r"Expected the name of a file in .*zip"):
        bird_lists.dataset(path=packed(bird_lists, **{name: b""}))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_file_that_is_in_the_archive_twice_is_refused(bird_lists):
    with pytest.raises(FormatError, match="Expected each file once"):
        bird_lists.dataset(path=packed(bird_lists, **{"FunnyBirds/classes.json": b"[]"}))


def test_a_file_that_is_no_zip_archive_is_refused(bird_lists):
    file = bird_lists.above / "birds.tar"
    for content in (b"", b"no archive", b"PK\x03\x04" * 20, b"PK\x05\x06" + b"\xff" * 18):
        file.write_bytes(content)
        with pytest.raises(ek.ExplainKitError, match=r"Expected .*birds\.tar"):
            bird_lists.dataset(path=file)


def test_an_archive_of_something_else_is_refused(bird_lists):
    file = bird_lists.above / "other.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/b/classes.json", "[]")

    with pytest.raises(ek.InputError, match=r"Expected classes\.json at the top of"):
        bird_lists.dataset(path=file)


def test_a_file_that_would_unpack_to_far_more_than_it_can_be_is_not_unpacked(bird_lists, monkeypatch):
    monkeypatch.setattr("explainkit.data.datasets.funnybirds.annotations._LARGEST", 2**16)
    scenes = json.loads((bird_lists.root / "dataset_test.json").read_text())
    (bird_lists.root / "dataset_test.json").write_text(json.dumps(scenes) + " " * 2**16)

    for path in (bird_lists.root, bird_lists.zipped(bird_lists.above / "birds.zip")):
        with pytest.raises(FormatError, match=r"Expected at most 65,536 bytes at .*dataset_test\.json"):
            bird_lists.dataset(path=path)


def test_an_archive_that_was_damaged_is_refused_when_the_damage_is_reached(birds):
    file = birds.zipped(birds.above / "birds.zip")
    with zipfile.ZipFile(file) as archive:
        start = archive.getinfo("FunnyBirds/test/1/000002.png").header_offset
    content = bytearray(file.read_bytes())
    content[start + 60 : start + 80] = bytes(20)
    file.write_bytes(content)
    test = birds.dataset(path=file).test

    with pytest.raises(
        ek.InputError, match=r"Expected a whole file at .*birds\.zip/FunnyBirds/test/1/000002"
    ):
        whole_batch(test)


def test_a_list_that_is_a_pipe_is_not_waited_for(bird_lists):
    (bird_lists.root / "parts.json").unlink()
    os.mkfifo(bird_lists.root / "parts.json")

    with pytest.raises(ek.InputError, match=r"parts\.json"):
        bird_lists.dataset()
