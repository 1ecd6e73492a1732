"""What the pages say runs, what they quote stands in its file, and where they point there is something.

A page's Python blocks run in order in one namespace. A comment in the line before a block changes that:
``<!-- not run -->`` for what needs a download or another machine, ``<!-- from path -->`` for a quotation.
"""

import re
import runpy
import warnings
from pathlib import Path

import pytest
import torch

from explainkit.testing import architectures

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
BLOCK = re.compile(r"(?:^<!-- (?P<note>.*?) -->\n+)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.M | re.S)


def name_of(page):
    return page.relative_to(ROOT).as_posix()


def blocks(page, language=None):
    """Line, note and text of each block."""
    content = page.read_text(encoding="utf-8")
    for match in BLOCK.finditer(content):
        if language in (None, match["language"]):
            yield content.count("\n", 0, match.start("text")) + 1, match["note"] or "", match["text"]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_python_of_the_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "page"}
    before = torch.get_rng_state()

    for line, note, text in blocks(page, "python"):
        if note != "not run":
            code = compile("\n" * (line - 1) + text, str(page), "exec", dont_inherit=True)
            exec(code, namespace)

    torch.set_rng_state(before)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_the_page_quotes_stands_in_its_file(page):
    for line, note, text in blocks(page):
        if note.startswith("from "):
            source = (ROOT / note.removeprefix("from ")).read_text(encoding="utf-8")
            assert text in source, f"{name_of(page)}, line {line}: no longer in {note[5:]}"
        else:
            assert note in ("", "not run"), f"{name_of(page)}, line {line}: no test reads {note!r}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_links_of_the_page_lead_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)

    for target in re.findall(r"\]\(([^)#\s]+)", text):
        assert re.match(r"https?://", target) or (page.parent / target).exists(), target


def test_the_pages_have_python_to_run():
    assert sum(1 for page in PAGES for _, note, _ in blocks(page, "python") if note != "not run") > 20


@pytest.mark.parametrize("key", ["zhou2016cam", "brendel2019bagnet", "szegedy2016rethinking", "he2016resnet"])
def test_the_references_have(key):
    assert f"{{{key}," in (ROOT / "docs" / "references.bib").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_example_of_all_architectures_runs(tmp_path, monkeypatch):
    """Each trains, answers all three questions, and stands on the page as its own plugin draws it."""
    monkeypatch.setattr(
        "sys.argv",
        [
            "all_architectures.py", "--preset", "tiny", "--train", "100", "--images", "1", "--measured", "2",
            "--models", str(tmp_path / "models"), "--out", str(tmp_path / "all.html"),
        ],
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # phrases that so few captions confound
        runpy.run_path(str(ROOT / "docs/examples/all_architectures.py"), run_name="__main__")

    page = (tmp_path / "all.html").read_text(encoding="utf-8")
    for name in architectures():
        assert page.count(f"<h3>{name}</h3>") >= 3, "why, what a class is, and what would change it"
        assert f"<figcaption>{name}</figcaption>" in page, "its own drawing"
