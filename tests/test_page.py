"""The page in a real browser, opened from disk."""

import pytest
import torch
from attrs import evolve

import explainkit as ek
from explainkit.testing import fitted_example, tiny_dataset, tiny_images

HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "{{ 7 * 7 }} & $x_y$ 🐦")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page of three columns and all three questions, whose class names and phrases are hostile."""
    cam = fitted_example("cam")
    units = evolve(cam.units, phrases=[HOSTILE[1]] * len(cam.units))
    explanations = evolve(cam.explain(tiny_images()), classes=HOSTILE)
    class_explanations = evolve(cam.explain_class(tiny_dataset()), classes=HOSTILE, units=units)
    counterfactuals = cam.counterfactual(tiny_images())
    renamed = evolve(counterfactuals.explanations, classes=HOSTILE, units=units)
    counterfactuals = evolve(counterfactuals, explanations=renamed)
    path = tmp_path_factory.mktemp("page") / "why.html"
    labels = [HOSTILE[label] for label in tiny_dataset().test.labels[:6].tolist()]
    return ek.report(
        [explanations, explanations.contrast(1), explanations[list(range(6))]], path, title=HOSTILE[0],
        labels=labels, class_explanations={"cam": class_explanations},
        counterfactuals={HOSTILE[0]: counterfactuals},
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
    cam = fitted_example("cam")
    explanations, class_explanations = cam.explain(tiny_images()), cam.explain_class(tiny_dataset())
    counterfactuals = cam.counterfactual(tiny_images())

    for batch, has_more in ((explanations, True), (class_explanations, False), (counterfactuals, True)):
        markup = batch._repr_html_()
        assert markup.count("<article") == 3 and ("and 3 more</p>" in markup) == has_more
        assert has_more or "more</p>" not in markup
    units = cam.units
    names = evolve(ek.name_units(cam, tiny_dataset()), reason=HOSTILE[0])
    cam.units = units  # other tests use the fitted example too
    assert "<script" not in names._repr_html_() and "&lt;script" in names._repr_html_()
