"""``explainkit verify``."""

from pathlib import Path

from explainkit.cli.options import load_explainer, plain


def verify(
    records: list[Path],
    /,
    *,
    model: Path | None = None,
    images: Path | None = None,
    device: str = "cpu",
) -> int:
    """Check decision records: that nothing was changed, and that their parts make the decision.

    Parameters
    ----------
    records
        Files of JSON lines, or folders of explanations that have some.
    model
        Folder of the saved explainer that the records must be by.
    images
        Folder with the images: those found by their SHA-256 are decided again by the model.
    device
        cpu, cuda …

    Examples
    --------
    explainkit verify explanations
    explainkit verify explanations --model model --images photographs
    """
    from explainkit.explanations.sentences import counted
    from explainkit.pipeline.verifying import verify_records

    explainer = None if model is None else load_explainer(model, None, device)
    verification = verify_records(records, explainer, images)
    for fault in verification.faults:
        print(plain(fault))
    again = f", {verification.repeated} decided again" if images is not None else ""
    print(f"{counted(verification.count, 'record')}{again}: {counted(len(verification.faults), 'fault')}")
    return 1 if verification.faults else 0
