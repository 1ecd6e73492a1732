"""Hooks of plugins for the tests of the registry, and their rows."""

from explainkit import registry

GOOD = """
@hookimpl
def explainkit_explainers():
    return [Offer("good", "Does nothing", "thirdparty_explainkit_good.parts:Good")]
"""


def offering(*names, kind="explainers", target="json:dumps"):
    """A hook that offers `names`."""
    listed = ", ".join(f"Offer({name!r}, 'Something', {target!r})" for name in names)
    return f"@hookimpl\ndef explainkit_{kind}():\n    return [{listed}]\n"


def row_of(plugin):
    [row] = [row for row in registry.plugins() if row.name == plugin]
    return row
