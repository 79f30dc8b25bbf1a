"""Sample predictions of a run, the last evaluation first."""

from __future__ import annotations

from typing import Any

from bigbird_ds.report.markup import Child, Markup, joined, tag
from bigbird_ds.report.record import RunRecord


def sample_list(run: RunRecord) -> Markup:
    """The samples of each evaluation; the last one is open."""
    parts = []
    for number, record in enumerate(reversed(run.samples)):
        shown = [_sample(sample) for sample in _listed(record.get("samples"))]
        state = {"open": "open"} if number == 0 else {}
        title = tag("summary", f"after step {record['step']:,}")
        parts.append(tag("details", title, *shown, **state))
    return joined(parts) if parts else tag("p", "This run has none.", class_="faint")


def _sample(sample: dict[str, Any]) -> Markup:
    """Masked places, with what the model predicts; then a text, with what it was to be."""
    lines = [_place(place) for place in _listed(sample.get("masked"))]
    lines += [
        tag("div", tag("b", f"{name}: "), str(sample[name]))
        for name in ("target", "prediction")
        if name in sample
    ]
    return tag("div", *lines, class_="sample")


def _place(place: dict[str, Any]) -> Markup:
    """The context of a mask; a wrong prediction stands next to the right one."""
    before, target, predicted, after = (
        str(place.get(name, "")) for name in ("before", "target", "predicted", "after")
    )
    said: list[Child] = [tag("span", predicted, class_="right")]
    if predicted != target:
        said = [tag("span", predicted, class_="wrong"), " ", tag("s", target)]
    return tag("div", f"… {before} ", *said, f" {after} …")


def _listed(value: Any) -> list[dict[str, Any]]:
    """The mappings in a list; a damaged file may hold anything."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
