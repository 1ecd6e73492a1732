"""The page in a real browser, opened from disk."""

import pytest
import torch
from attrs import evolve

import explainkit as ek
from explainkit.testing import specimen, tiny_data, tiny_images

HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "{{ 7 * 7 }} & $x_y$ 🐦")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page of three columns and all three questions, whose class names and phrases are hostile."""
    cam = specimen("cam")
    units = evolve(cam.units, phrases=[HOSTILE[1]] * len(cam.units))
    told = evolve(cam.explain(tiny_images()), classes=HOSTILE)
    known = evolve(cam.explain_class(tiny_data()), classes=HOSTILE, units=units)
    changes = cam.counterfactual(tiny_images())
    changes = evolve(changes, explanations=evolve(changes.explanations, classes=HOSTILE, units=units))
    path = tmp_path_factory.mktemp("page") / "why.html"
    labels = [HOSTILE[label] for label in tiny_data().test.labels[:6].tolist()]
    return ek.report(
        [told, told.contrast(1), told[list(range(6))]], path, title=HOSTILE[0], labels=labels,
        classes={"cam": known}, changes={HOSTILE[0]: changes},
    )  # fmt: skip


@pytest.fixture
def opened(browser, page):
    browser.set_window_size(1400, 1000)
    browser.get(page.as_uri())
    return browser


def test_no_request_leaves_the_page_and_the_console_stays_silent(overheard, opened):
    assert overheard() == ([], [])


def test_every_picture_is_shown_and_described(opened):
    broken = opened.execute_script(
        "return [...document.images].filter(i => !i.complete || !i.naturalWidth || !i.alt.trim()).length"
    )

    assert broken == 0
    assert opened.execute_script("return document.images.length") > 12


def test_hostile_names_are_words_and_nothing_else(opened):
    assert opened.execute_script("return document.querySelectorAll('script, img[onerror]').length") == 0
    assert HOSTILE[0] in opened.find_element("tag name", "h1").text
    text = opened.find_element("tag name", "body").text
    assert all(name in text for name in HOSTILE)


def test_a_narrow_screen_needs_no_sideways_scrolling(opened):
    opened.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 340, "height": 700, "deviceScaleFactor": 1, "mobile": True},
    )
    try:
        assert opened.execute_script("return document.documentElement.scrollWidth") <= 340
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_keyboard_reaches_every_image(opened):
    from selenium.webdriver.common.keys import Keys

    seen = []
    for _ in range(6):
        opened.switch_to.active_element.send_keys(Keys.TAB)
        seen.append(opened.switch_to.active_element.get_attribute("href").partition("#")[2])
    outline = opened.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
    opened.switch_to.active_element.send_keys(Keys.ENTER)

    assert seen == [f"image-{number}" for number in range(1, 7)]
    top = opened.execute_script("return document.querySelector('#image-6').getBoundingClientRect().top")
    assert top < 1000
    assert outline == "solid"


def test_the_sums_on_the_page_add_up(opened):
    """What a reader can add with a pencil: the rows of each table to its last line."""
    tables = opened.execute_script(
        "return [...document.querySelectorAll('table.sum')].map(t => ["
        "[...t.querySelectorAll('tbody td.n:not(.share)')].map(c => parseFloat(c.innerText)),"
        "parseFloat(t.querySelector('tfoot td.n').innerText)])"
    )

    assert len(tables) == 18 + 3
    for rows, total in tables:
        assert torch.tensor(rows).sum().item() == pytest.approx(total, abs=0.0006 * len(rows))


def test_all_three_questions_are_answered_on_it(opened):
    assert len(opened.find_elements("css selector", "section.class")) == 3
    assert len(opened.find_elements("css selector", ".swap")) == 6
    text = opened.find_element("tag name", "body").text
    assert text.count("What would make it") == 6 and text.count("= mean logit") == 3


def test_a_notebook_shows_every_value():
    cam = specimen("cam")
    told = cam.explain(tiny_images())
    classes, changes = cam.explain_class(tiny_data()), cam.counterfactual(tiny_images())

    assert told._repr_html_().count("<article") == 3 and "and 3 more" in told._repr_html_()
    assert classes._repr_html_().count("<article") == 3 and "more</p>" not in classes._repr_html_()
    assert changes._repr_html_().count("<article") == 3 and "and 3 more" in changes._repr_html_()
    units = cam.units
    names = evolve(ek.name_units(cam, tiny_data()), reason=HOSTILE[0])
    cam.units = units  # the specimen is others' too
    assert "<script" not in names._repr_html_() and "&lt;script" in names._repr_html_()
