import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from attrs import evolve
from matplotlib.figure import Figure
from PIL import Image

import explainkit as ek
from explainkit.explanations.units import UnitPicture
from explainkit.rendering.figures import generic
from explainkit.rendering.html import Fact, TableView
from explainkit.rendering.pictures import crop, data_uri, overlay, pixels, rounded_limit, spotlight

HOSTILE = (
    "<script>alert(1)</script>",
    "$x_y$ & $\\frac",
    "\"'><img src=x onerror=y>",
    "🐦 Meise\n{{ 7 * 7 }}",
)


def drawn(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def make_explanations(
    images=2, additivity="exact", explainer="made", units=8, pooling="mean", classes=HOSTILE, **fields
):
    scores, weights = drawn(images, units), drawn(images, units, seed=1) * 2 - 1
    logits = drawn(images, 4, seed=2)
    targets = torch.arange(images) % 4
    logits[torch.arange(images), targets] = (scores * weights).sum(1)
    picture = UnitPicture(
        id=0, split="train", label=0, cell=(0, 0), box=(2, 2, 9, 12), image=torch.zeros(3, 16, 16).byte()
    )
    values = {
        "logits": logits,
        "targets": targets,
        "base": torch.zeros(images),
        "scores": scores,
        "weights": weights,
        "maps": None if pooling == "none" else drawn(images, units, 4, 4, seed=3),
        "units": ek.Units(
            kind="<b>part</b>",
            names=[f"{HOSTILE[k % 4]} {k}" for k in range(units)],
            pooling=pooling,
            pictures=((picture,),) * units,
        ),
        "classes": classes,
        "images": drawn(images, 3, 16, 16, seed=4),
        "additivity": additivity,
        "provenance": ek.Provenance(explainer=explainer, created=""),
    }
    return ek.Explanations(**values | fields)


@pytest.fixture
def page(tmp_path):
    """The text of a report."""
    return lambda columns, **settings: ek.report(columns, tmp_path / "page.html", **settings).read_text(
        "utf-8"
    )


class Reader(HTMLParser):
    """What a browser would load, run and show of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.shown, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("img", "meta", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, dataset):
        self.shown.append(dataset)


def self_contained(text):
    """The page, once it is found to need nothing else and to run nothing."""
    reader = Reader(text)
    for tag, attributes in reader.tags:
        assert tag not in ("script", "iframe", "object", "embed", "base"), tag
        assert not any(name.startswith("on") for name in attributes), attributes
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("#", "data:")), attributes
        if tag == "img":
            assert attributes["alt"] and re.match("data:image/(png|webp);base64,", attributes["src"])
    assert not re.search(r"https?://|@import|url\(", text)
    assert not reader.open
    return reader


@pytest.mark.parametrize("additivity", ["exact", "approximate", "none"])
def test_a_page_needs_nothing_else_and_escapes_all_that_is_data(tmp_path, additivity):
    path = ek.report(
        [make_explanations(), make_explanations(additivity=additivity, explainer="<i>other</i>")],
        tmp_path / "new" / "why.html",
        title=HOSTILE[0],
        labels=[HOSTILE[0], HOSTILE[2]],
        facts=[Fact(name=HOSTILE[0], value=HOSTILE[2], note=HOSTILE[3])],
        tables=[
            TableView(
                title=HOSTILE[0],
                columns=[HOSTILE[2]],
                rows=[(HOSTILE[0], [HOSTILE[2]], True)],
                note=HOSTILE[3],
            )
        ],
    )

    reader = self_contained(path.read_text(encoding="utf-8"))

    shown = "".join(reader.shown)
    assert all(name in shown for name in HOSTILE) and "<i>other</i>" in shown and "49" not in HOSTILE[3]
    assert [entry.name for entry in path.parent.iterdir()] == ["why.html"]


def test_a_page_tells_the_sum(page):
    explained = make_explanations(images=1, units=3, classes=("cardinal", "jay", "wren", "tit"))

    shown = " ".join(Reader(page([explained])).shown)

    for item in explained[0].evidence:
        assert f"{item.contribution:+.3f}" in shown
    assert (
        f"{explained[0].explained_output:+.3f}" in shown
        and explained[0].sentence() in shown
        and "exact" in shown
    )


def test_a_page_says_who_was_wrong(page):
    explained = make_explanations(classes=("cardinal", "jay", "wren", "tit"))
    predicted = [explained.classes[one.prediction] for one in explained]

    assert "truly" not in page([explained], labels=predicted)
    assert "truly tit2" in page([explained], labels=[predicted[0], "tit2"])


def test_what_claims_no_sum_has_a_badge_and_its_own_scale(page):
    text = page([make_explanations(images=1), make_explanations(images=1, additivity="none")])

    assert text.count('<span class="badge none"') == 1 and text.count("own scale") == 1


def test_sums_share_one_scale_in_a_row(page):
    small, large = (
        make_explanations(images=1),
        make_explanations(images=1, weights=drawn(1, 8) * 100, additivity="approximate"),
    )

    scales = re.findall(r"Color scale from (\S+) to (\S+),", page([small, large]))

    assert len(set(scales)) == 1


def test_a_fragment_for_notebooks_is_whole_and_runs_nothing():
    self_contained(make_explanations()[0]._repr_html_())


@pytest.mark.filterwarnings("ignore:Glyph")  # a font may lack emoji
@pytest.mark.parametrize(
    "explained",
    [
        lambda: make_explanations(pooling="none"),
        lambda: make_explanations(units=1),
        lambda: make_explanations(weights=torch.zeros(2, 8)),
        lambda: make_explanations(images=2, maps=torch.zeros(2, 8, 4, 4)),
        lambda: make_explanations(foils=torch.tensor([3, 3])),
        lambda: make_explanations(images=2).to("cpu")[1:],
        lambda: evolve(make_explanations(), images=drawn(2, 3, 5, 40)),
        lambda: evolve(make_explanations(), weights=drawn(2, 8) * 1e-12),
        lambda: evolve(make_explanations(), weights=drawn(2, 8) * 1e12),
    ],
    ids=["no place", "one unit", "nothing", "no maps", "contrast", "slice", "flat", "tiny", "huge"],
)
def test_anything_can_be_shown(explained):
    one = explained()[0]

    self_contained(one._repr_html_())
    figure = Figure()
    generic(one, figure)
    figure.canvas.draw()


def test_a_plugin_without_a_renderer_is_drawn_by_the_generic_one(tmp_path):
    figure = make_explanations()[0].figure()

    assert isinstance(figure, Figure) and len(figure.axes) == 4  # and a color bar
    figure.savefig(tmp_path / "why.png", dpi=40)
    assert Image.open(tmp_path / "why.png").width > 100


def test_cam_is_drawn_by_its_own_renderer():
    figure = make_explanations(explainer="cam")[0].figure()

    figure.canvas.draw()
    assert len(figure.axes) == 8


def test_pages_of_different_images_are_refused(tmp_path):
    with pytest.raises(ek.InputError, match=r"the same images; got \[2, 3\]"):
        ek.report([make_explanations(), make_explanations(images=3)], tmp_path / "why.html")
    with pytest.raises(ek.InputError, match="one label an image; got 1 for 2"):
        ek.report(make_explanations(), tmp_path / "why.html", labels=["a"])
    with pytest.raises(ek.InputError, match="the same images"):
        ek.report([], tmp_path / "why.html")


def test_a_page_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(ek.InputError, match="Expected a path that can be written"):
        ek.report(make_explanations(), tmp_path / "file" / "why.html")
    with pytest.raises(ek.InputError, match="Expected a path that can be written"):
        ek.report(make_explanations(), tmp_path)


def test_red_is_for_and_blue_is_against():
    grid = torch.tensor([[1.0, -1.0]]).expand(2, 2)

    picture = overlay(torch.full((3, 8, 8), 0.5), grid, 1.0, side=64).astype(int)

    assert picture[32, 0, 0] > picture[32, 0, 2] and picture[32, -1, 2] > picture[32, -1, 0]
    plain = overlay(torch.full((3, 8, 8), 0.5), grid * 0, 1.0, side=64)
    assert (plain == plain[0, 0]).all()


def test_a_spotlight_fades_all_but_the_region():
    map = torch.zeros(4, 4)
    map[0, 0] = 1

    picture = spotlight(torch.zeros(3, 16, 16), map, side=64)

    assert picture[6, 6].tolist() == [0, 0, 0] and picture[-1, -1].min() > 100


def test_pictures_grow_whole_and_crops_keep_their_shape():
    assert pixels(drawn(3, 16, 8), side=64).shape == (64, 32, 3)
    assert pixels(drawn(3, 100, 80), side=64).shape == (100, 80, 3)
    assert crop(drawn(3, 16, 16), (0, 0, 8, 4), side=64).shape == (32, 64, 3)


@pytest.mark.parametrize(
    ("top", "limit"), [(0.0, 1.0), (1.2, 1.5), (1.5, 1.5), (0.031, 0.035), (870.0, 900.0)]
)
def test_limits_are_round_and_not_below(top, limit):
    assert rounded_limit(torch.tensor([-top, 0.0])) == pytest.approx(limit)


def test_a_lossy_picture_keeps_its_colors():
    """The color bar and small bright things: a palette loses them."""
    ramp = np.stack([np.linspace(0, 255, 400), np.linspace(255, 0, 400), np.full(400, 90)], 1)
    picture = np.broadcast_to(ramp, (300, 400, 3)).astype(np.uint8).copy()
    picture[40:52, 40:52] = (0, 200, 60)

    kind, _, content = data_uri(picture, lossy=True).partition(";base64,")
    decoded = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB")).astype(int)

    assert kind == "data:image/webp" and np.abs(decoded - picture)[44:48, 44:48].max() < 24
    assert np.abs(decoded - picture)[100:].mean() < 4
