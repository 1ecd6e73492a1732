"""Records beside the files of a run, and their verification."""

import hashlib
import json

import pytest
from pipeline_cases import DamagedSplit, make_split

import explainkit as ek
from explainkit.cli import main
from explainkit.errors import InputError
from explainkit.pipeline.verifying import verify_records
from explainkit.testing import fitted_example

SIZES = {"batch_size": 8, "images_per_file": 8, "records": True, "top": 3}


@pytest.fixture
def recorded(model, pictures, tmp_path):
    return ek.explain_dataset(model, pictures, tmp_path / "out", **SIZES).folder


def lines(folder):
    return [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.open()]


def test_each_decision_has_a_record_that_names_its_file(recorded, pictures):
    rows = ek.ExplanationDataset(recorded).to_arrow().to_pylist()

    for record, row in zip(lines(recorded), rows, strict=True):
        content = (pictures / row["path"]).read_bytes()
        assert (record["image"], record["image_of"]) == (hashlib.sha256(content).hexdigest(), "file")
        assert (record["id"], record["target"], record["logit"]) == (row["path"], row["target"], row["logit"])
        assert [unit["unit"] for unit in record["units"]] == [unit["unit"] for unit in row["units"]]


def test_images_of_a_split_are_named_by_their_pixels_and_what_failed_has_no_record(model, tmp_path):
    folder = ek.explain_dataset(model, DamagedSplit(10, [3]), tmp_path / "out", **SIZES).folder

    records = lines(folder)

    assert [record["id"] for record in records] == [*range(3), *range(4, 10)]
    pixels = make_split(10).images[4].numpy().tobytes()
    assert records[3]["image"] == hashlib.sha256(pixels).hexdigest()
    assert verify_records([folder]).faults == []


def test_a_resumed_run_has_the_same_records(model, pictures, recorded):
    before = {path.name: path.read_bytes() for path in recorded.iterdir()}
    (recorded / "part-00000001.jsonl").unlink()
    (recorded / "part-00000000.parquet").unlink()

    ek.explain_dataset(model, pictures, recorded, **SIZES)

    assert {path.name: path.read_bytes() for path in recorded.iterdir()} == before


def test_records_are_verified_with_the_model_and_the_images(model, pictures, recorded):
    verification = verify_records([recorded], model, pictures)

    assert (verification.count, verification.repeated, verification.faults) == (20, 20, [])


def test_another_model_and_invented_reasons_are_faults(model, pictures, recorded):
    from explainkit.explanations.records import record_digest

    assert len(verify_records([recorded], fitted_example("protopnet")).faults) == 20

    path = recorded / "part-00000000.jsonl"
    first, *others = [json.loads(line) for line in path.open()]
    units = first["units"]
    units[0]["contribution"], units[1]["contribution"] = units[1]["contribution"], units[0]["contribution"]
    for unit in units[:2]:
        unit["weight"] = unit["contribution"] / (unit["score"] - unit["reference"])
    first["digest"] = record_digest(first)
    path.write_text("".join(f"{json.dumps(record)}\n" for record in [first, *others]) + "no record\n")

    (line, reasons) = verify_records([recorded], model, pictures).faults

    assert "part-00000000.jsonl:9: it is no record" in line
    assert "part-00000000.jsonl:1: the model decides so for other reasons" in reasons


def test_the_command_verifies_and_fails_on_a_fault(model, pictures, recorded, tmp_path, capsys):
    saved = ek.save(model, tmp_path / "model")

    assert main(["verify", str(recorded), "--model", str(saved), "--images", str(pictures)]) == 0
    assert "20 records, 20 decided again: 0 faults" in capsys.readouterr().out

    path = recorded / "part-00000000.jsonl"
    path.write_text(
        path.read_text().replace('"foil":null', '"foil":"x"').replace('"foil": null', '"foil": "x"')
    )
    assert main(["verify", str(path)]) == 1
    assert "part-00000000.jsonl:1: it was changed after it was written" in capsys.readouterr().out


def test_what_has_no_records_is_refused(model, tmp_path):
    folder = ek.explain_dataset(model, make_split(2), tmp_path / "out").folder
    for path in (folder, tmp_path / "none.jsonl"):
        with pytest.raises(InputError, match=r"a file of records.*records=True"):
            verify_records([path])
    with pytest.raises(InputError, match="a model that decides again"):
        verify_records([folder], None, tmp_path)
