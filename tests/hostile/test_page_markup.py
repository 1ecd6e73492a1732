"""Names that are markup, on the page: read by a real browser, which shows them and runs nothing."""

import re

import matplotlib
import pytest
import torch
from attrs import evolve
from matplotlib.text import Text

import explainkit as ek
from explainkit.explanations.units import UnitPicture
from explainkit.rendering.figures import legible
from explainkit.rendering.html import Fact, TableView

RUN = "window.__pwned=1;fetch('http://127.0.0.1:9/')"
PAYLOADS = {
    "a script": f"<script>{RUN}</script>",
    "a script in capitals": f"<SCRIPT>{RUN}</SCRIPT>",
    "a script from elsewhere": "<script src=http://127.0.0.1:9/x.js></script>",
    "a script after a style": f"</style><script>{RUN}</script>",
    "a script after a title": f"</title><script>{RUN}</script>",
    "a script after a comment": f"--><script>{RUN}</script><!--",
    "a script after a text": f"</textarea></noscript></template><script>{RUN}</script>",
    "a script after a cell": f"</td></tr></table></main><script>{RUN}</script>",
    "a script within a script": f"<scr<script>ipt>{RUN}</scr</script>ipt>",
    "a broken image": f"<img src=x onerror={RUN}>",
    "a broken image after an attribute": f'"><img src=x onerror="{RUN}">',
    "a broken image after another": f"'><img src=x onerror='{RUN}'>",
    "an attribute": f'" onmouseover="{RUN}" onload="{RUN}" x="',
    "another attribute": f"' onmouseover='{RUN}' onload='{RUN}' x='",
    "an attribute without quotes": f"x onload={RUN} autofocus onfocus={RUN}",
    "a drawing": f"<svg onload={RUN}><animate onbegin={RUN} attributeName=x></svg>",
    "a drawing with a style": f"<svg><style><img src=x onerror={RUN}></style></svg>",
    "a formula": f"<math><mtext></form><form><mglyph><style></math><img src onerror={RUN}>",
    "a frame": f'<iframe srcdoc="<script>parent.{RUN}</script>"></iframe>',
    "a frame from elsewhere": "<iframe src=http://127.0.0.1:9/></iframe>",
    "a link": f'<a href="javascript:{RUN}">x</a>',
    "a link that is a word": f"javascript:{RUN}",
    "a page in a link": f"data:text/html,<script>{RUN}</script>",
    "an object": "<object data=http://127.0.0.1:9/></object><embed src=http://127.0.0.1:9/>",
    "a form": f"<form action=http://127.0.0.1:9/><input autofocus onfocus={RUN}><button>x</button></form>",
    "another base": "<base href=http://127.0.0.1:9/>",
    "another page": '<meta http-equiv="refresh" content="0;url=http://127.0.0.1:9/">',
    "another style": "<link rel=stylesheet href=http://127.0.0.1:9/x.css><style>*{display:none}</style>",
    "a style of its own": "}*{background:url(http://127.0.0.1:9/)}@import 'http://127.0.0.1:9/';",
    "a sound": f"<audio src=x onerror={RUN}></audio><video><source onerror={RUN}></video>",
    "what unfolds": f"<details open ontoggle={RUN}><summary>x</summary></details>",
    "what swallows the rest": "<plaintext><textarea><xmp><title><!--",
    "a template of ours": "{{ 7 * 7 }}{% include 'page.html.jinja' %}{# x #}",
    "a template of others": "${7*7}#{7*7}<%= 7*7 %>{{constructor.constructor('alert(1)')()}}",
    "an entity": "&lt;script&gt;alert(1)&lt;/script&gt;&amp;&#60;&quot;&nbsp;",
    "half an entity": "&#x3c;script&#x3e; &lt &am",
    "in other letters": "+ADw-script+AD4-alert(1)+ADw-/script+AD4-",
    "in wide letters": "\uff1cscript\uff1ealert(1)\uff1c/script\uff1e",
    "a formula of TeX": "$\\frac{1}{$ \\input{/etc/passwd} $x^2$",
    "formats": "%s%n%x {0} {a.__class__} {!r}",
    "lines": "one\ntwo\n\nthree",
    "from the right": "\u202egnp.<b>\u2066x",
    "what steers a terminal": "\x1b[2J\x1b]0;x\x07",
    "birds": "🐦\u200d⬛" * 20,
    "a long word": "x" * 5000,
}
NAMES = list(PAYLOADS.values())
PLAIN = [f"name {number}" for number in range(len(NAMES))]


def make_explanations(names, placed=False, count=None):
    """An explanation for each name, which its class bears, its strongest unit and much else."""
    count, classes = count or len(names), len(names)
    picture = UnitPicture(
        id=0, split=names[0], label=0, cell=(0, 0), box=(2, 2, 6, 7), image=torch.zeros(3, 8, 8).byte()
    )
    weights = torch.eye(count, classes) + 0.01
    return ek.Explanations(
        logits=weights, targets=torch.arange(count), base=torch.zeros(count), weights=weights,
        scores=torch.ones(count, classes), additivity="approximate", classes=names,
        images=torch.full((count, 3, 8, 8), 0.5), foils=(torch.arange(count) + 1) % classes,
        maps=torch.ones(count, classes, 2, 2) if placed else None,
        units=ek.Units(
            kind=names[3], names=names, pooling="mean" if placed else "none",
            phrases=(*names[::-1][:2], *[None] * (classes - 2)),
            pictures=((picture,),) * classes if placed else None,
        ),
        provenance=ek.Provenance(explainer=names[1], created=names[2], versions={names[0]: names[1]}),
    )  # fmt: skip


def report(path, names):
    """A page on which every text that can come from somewhere else is one of the names."""
    columns = [make_explanations(names, count=len(names)), make_explanations(names)]
    tables = [
        TableView(
            title=name,
            note=name,
            columns=[name, names[0]],
            rows=[(name, [name, names[1]], True)],
        )
        for name in names[:20]
    ]
    return ek.report(
        columns, path, title=names[4], names=[names[5], names[6]], labels=names[1:] + names[:1],
        facts=[Fact(name=name, value=name, note=name) for name in names],
        tables=tables, failures={name: name for name in names},
    )  # fmt: skip


def without_policy(path):
    """The page with nothing but escaping to protect it."""
    text = path.read_text(encoding="utf-8")
    path.write_text(re.sub(r"<meta http-equiv=.Content-Security-Policy[^>]*>", "", text), encoding="utf-8")


FORM = """
return [...document.querySelectorAll('*')].map(e => e.tagName + [...e.attributes].map(a => a.name).sort())
"""
SHOWN = """
const found = [], walker = document.createTreeWalker(document, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) found.push(walker.currentNode.data);
for (const e of document.querySelectorAll('*')) for (const a of e.attributes) found.push(a.value);
return found.join('\\u0000')
"""


def opened(browser, path):
    """The form of a page and all its texts, after a mouse went over it."""
    browser.get(path.as_uri())
    browser.execute_script(
        "for (const e of document.querySelectorAll('*'))"
        " for (const name of ['mouseover', 'focus', 'load', 'error']) e.dispatchEvent(new Event(name))"
    )
    assert browser.execute_script("return window.__pwned") is None
    assert browser.current_url == path.as_uri()
    return browser.execute_script(FORM), browser.execute_script(SHOWN)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The same page of plain names and of hostile ones."""
    place = tmp_path_factory.mktemp("pages")
    return report(place / "plain.html", PLAIN), report(place / "<b>hostile & 'page'.html", NAMES)


@pytest.mark.parametrize("policy", [True, False])
def test_hostile_names_change_nothing_on_the_page_but_its_words(browser, overheard, pages, policy):
    if not policy:
        for page in pages:
            without_policy(page)

    form, _ = opened(browser, pages[0])
    hostile, shown = opened(browser, pages[1])

    assert hostile == form
    assert [what for what, name in PAYLOADS.items() if name not in shown] == []
    assert overheard() == ([], [])


def test_a_page_with_pictures_of_units_is_as_safe(browser, overheard, tmp_path):
    forms = []
    for names in (PLAIN[:6], NAMES[9:15]):
        path = ek.report(make_explanations(names, placed=True, count=2), tmp_path / "page.html")
        without_policy(path)
        form, shown = opened(browser, path)
        forms.append(form)

    assert forms[0] == forms[1] and all(name in shown for name in names)
    assert overheard() == ([], [])


def test_a_fragment_in_a_notebook_is_as_safe(browser, overheard, tmp_path):
    forms = []
    for names in (PLAIN, NAMES):
        path = tmp_path / "notebook.html"
        fragments = "".join(item._repr_html_() for item in make_explanations(names))
        path.write_text(f"<!doctype html><meta charset=utf-8><title>a</title>{fragments}", encoding="utf-8")
        form, shown = opened(browser, path)
        forms.append(form)

    assert forms[0] == forms[1] and all(name in shown for name in names)
    assert [url for url in overheard()[0] if not url.endswith("favicon.ico")] == []


def test_a_third_party_failure_with_markup_is_shown_on_the_page(browser, overheard, tmp_path):
    class Failing(ek.PostHocExplainer):
        card = ek.Card(title="Failing", citation="made for tests", additivity="none", unit_kind="pixels")

        def explain_batch(self, images, targets, against):
            raise ek.InputError(NAMES[0])

    network = torch.nn.Sequential(
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 3)
    ).eval()
    model = ek.explainer("captum/saliency", network=network, classes=NAMES[:3])
    compared = ek.compare(
        [model, Failing.from_network(network, classes=NAMES[:3])],
        torch.rand(2, 3, 8, 8),
        metric_names=["gini"],
    )

    path = compared.save(tmp_path / "page.html", title=NAMES[1])
    without_policy(path)
    form, shown = opened(browser, path)

    assert NAMES[0] in shown and not [tag for tag in form if tag.startswith("SCRIPT")]
    assert overheard() == ([], [])


@pytest.mark.parametrize("explainer", ["made", "cam", "protopnet"])
def test_figures_show_hostile_names_as_words(explainer):
    for start in range(0, len(NAMES) - 4, 4):
        names = NAMES[start : start + 5]
        explained = make_explanations(names, placed=True, count=2)
        explained = evolve(explained, provenance=evolve(explained.provenance, explainer=explainer))

        texts = [text for text in explained[0].figure().findobj(Text) if text.get_text()]

        named = [text for text in texts if any(legible(name) in text.get_text() for name in names)]
        assert len(named) >= 3 and not any(text.get_parse_math() for text in named)


@pytest.mark.filterwarnings("ignore:Glyph", "ignore:Matplotlib currently does not support")
@pytest.mark.parametrize("explainer", ["made", "cam", "protopnet"])
def test_figures_of_hostile_names_are_drawn(tmp_path, explainer):
    explained = make_explanations(NAMES, placed=True, count=1)
    explained = evolve(explained, provenance=evolve(explained.provenance, explainer=explainer))
    explained = evolve(explained, weights=torch.linspace(0, 1, len(NAMES))[None])  # the last ones strongest

    with matplotlib.rc_context({"svg.fonttype": "none"}):
        explained[0].figure().savefig(tmp_path / "why.svg")

    drawn = (tmp_path / "why.svg").read_text(encoding="utf-8")
    assert "<script" not in drawn and "onerror=" not in re.sub(r">[^<]*<", "><", drawn)
