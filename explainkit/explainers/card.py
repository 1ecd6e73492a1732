"""What an explainer is and claims."""

from attrs import frozen

from explainkit.explanations.decomposition import Additivity


@frozen(kw_only=True)
class Card:
    """What an explainer is and claims; the conformance kit holds it to this.

    Attributes
    ----------
    title, citation : str
        Its name, and authors, venue and arXiv number of its source.
    additivity : {"exact", "approximate", "none"}
        Whether contributions add up to the logit.
    unit_kind : str
        What its units are: ``"filters"``, ``"prototypes"``, ``"concepts"``, ``"parts"``, ``"pixels"`` …
    """

    title: str
    citation: str
    additivity: Additivity
    unit_kind: str
