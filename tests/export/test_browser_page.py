"""The page of docs/examples/browser says what the model says: its code in Node, the whole in Chromium.

Both need onnxruntime-web, whose folder ``dist`` the environment names: ``EXPLAINKIT_ORT_WEB``.
"""

import json
import os
import re
import runpy
import shutil
import subprocess
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import explainkit as ek
from explainkit.testing import fitted_example

for package in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(package, reason="needs the extra onnx")
RUNTIME = os.environ.get("EXPLAINKIT_ORT_WEB")
if not RUNTIME:
    pytest.skip("needs onnxruntime-web: EXPLAINKIT_ORT_WEB=…/dist", allow_module_level=True)

BUNDLE = Path(__file__).parents[2] / "docs" / "examples" / "browser" / "bundle.py"
IN_NODE = """
import { readFileSync } from "node:fs";
const { runtime, wasm, graph, facts, code } = JSON.parse(readFileSync(process.argv[1]));
const load = (text) => import(`data:text/javascript;base64,${text}`);
const [ort, { openGraph, explain }] = await Promise.all([load(runtime), load(code)]);
const unpack = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const session = await openGraph(ort, unpack(wasm).buffer, unpack(graph));
const said = await explain(ort, session, facts, readFileSync(process.argv[2]));
console.log(JSON.stringify({ ...said, saliency: [...said.saliency] }));
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page, a picture, and how the model explains it."""
    folder, model = tmp_path_factory.mktemp("page"), fitted_example("cam")
    ek.export_onnx(model, folder / "model.onnx")
    content = runpy.run_path(str(BUNDLE))["page"](folder / "model.onnx", Path(RUNTIME))
    (folder / "why.html").write_text(content, encoding="utf-8")
    values = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(values).save(folder / "photo.png")
    (folder / "photo.rgba").write_bytes(np.dstack([values, np.full((32, 32), 255, np.uint8)]).tobytes())
    return folder, model.explain([folder / "photo.png"])


def test_the_page_needs_nothing_from_elsewhere(page):
    text = (page[0] / "why.html").read_text(encoding="utf-8")

    assert not re.search(r"(src|href)=|https?://|@import|fetch\(", text.split("<script")[0])
    assert "@BUNDLE@" not in text


def test_its_code_says_in_node_what_the_model_says(page):
    folder, expected = page
    node = shutil.which("node") or pytest.skip("needs Node")
    packed = re.search(r'bundled = "([^"]+)"', (folder / "why.html").read_text(encoding="utf-8"))[1]
    (folder / "packed.json").write_bytes(b64decode(packed))
    command = [node, "--input-type=module", "-e", IN_NODE, str(folder / "packed.json"), "photo.rgba"]

    ran = subprocess.run(command, capture_output=True, text=True, cwd=folder)

    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout)
    top = expected.top(5)
    assert said["name"] == expected.classes[int(expected.targets)]
    assert said["logit"] == pytest.approx(float(expected.explained_output), abs=1e-5)
    assert abs(said["residual"]) < 1e-5
    assert [reason["unit"] for reason in said["reasons"]] == [
        expected.units.names[unit] for unit in top.unit[0].tolist()
    ]
    assert [reason["contribution"] for reason in said["reasons"]] == pytest.approx(
        top.contribution[0].tolist(), abs=1e-5
    )
    assert said["saliency"] == pytest.approx(expected.saliency().flatten().tolist(), abs=1e-5)


def test_the_page_says_in_chromium_what_the_model_says(page, browser, overheard):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    folder, expected = page
    browser.get((folder / "why.html").as_uri())
    decision = browser.find_element(By.ID, "decision")
    WebDriverWait(browser, 120).until(lambda _: decision.text == "Choose a picture.")

    browser.find_element(By.ID, "file").send_keys(str(folder / "photo.png"))

    WebDriverWait(browser, 120).until(lambda _: "of which" in decision.text)
    logit = float(expected.explained_output)
    assert decision.text.startswith(f"{expected.classes[int(expected.targets)]}: {logit:.4f}")
    top = expected.top(5)
    rows = [row.text for row in browser.find_elements(By.CSS_SELECTOR, "#reasons tr")]
    assert rows == [
        f"{value:.4f} {expected.units.names[unit]}"
        for unit, value in zip(top.unit[0].tolist(), top.contribution[0].tolist(), strict=True)
    ]
    assert not any(overheard()), "no requests, no complaints"
