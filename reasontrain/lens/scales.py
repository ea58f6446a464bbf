"""Scales of evidence: the edges of the five levels of colour, fixed so that pages compare."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from reasontrain.algo.evidence import EVIDENCE
from reasontrain.lens.recorded import Values
from reasontrain.report.colours import DIVERGENCE_EDGES, ENTROPY_EDGES

_SURPRISAL_EDGES = (0.1, 0.7, 1.4, 3.0)
"""Edges of -log p in nats: p = 0.9, 1/2, 1/4 and 1/20."""
_SHARE_EDGES = (0.2, 0.4, 0.6, 0.8)
_RANK_EDGES = (2.0, 5.0, 20.0, 100.0)
"""Ranks start at 1, which has no colour."""
_QUANTILES = (0.5, 0.75, 0.9, 0.98)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The colour of one kind of evidence.

    Attributes:
        name: key of the evidence.
        label: its name in words.
        unit: its unit; empty if unknown.
        edges: levels 1 to 4 begin there.
        sign: -1 if lower values have the stronger colour.
    """

    name: str
    label: str
    unit: str
    edges: tuple[float, ...]
    sign: int = 1


def scale_of(name: str, columns: Iterable[Values]) -> Scale:
    """The scale of a kind of evidence; `columns` are read only if the table does not know it."""
    row = EVIDENCE.get(name)
    if row is None:
        finite = [column[np.isfinite(column)] for column in columns]
        values = np.concatenate(finite) if finite else np.zeros(0)
        edges = tuple(float(np.quantile(values, q)) for q in _QUANTILES) if len(values) else ()
        return Scale(name=name, label=name, unit="", edges=edges)
    is_alone = row.label.lower() == row.chart.lower()
    shown = row.label if is_alone else f"{row.chart}: {row.label}"
    if row.unit == "rank":
        return Scale(name=name, label=shown, unit=row.unit, edges=_RANK_EDGES)
    if row.unit != "nats":
        return Scale(name=name, label=shown, unit=row.unit, edges=_SHARE_EDGES)
    if row.bounds[1] <= 0:
        return Scale(name=name, label=shown, unit=row.unit, edges=_SURPRISAL_EDGES, sign=-1)
    edges = ENTROPY_EDGES if name == "entropy" else DIVERGENCE_EDGES
    return Scale(name=name, label=shown, unit=row.unit, edges=edges)
