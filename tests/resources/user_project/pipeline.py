"""The pipeline of a user's project."""

from pathlib import Path

from penstock import Latest, Options, Pipeline
from penstock.schemas.artifacts import Model
from trips.components import Check, Clean, Compare, Fit, Ingest, Report
from trips.settings import Limits, Mode

HERE = Path(__file__).parent
INGEST = Options()
REPORT = Options()


def make() -> Pipeline:
    """Read, clean, check, fit, report and compare."""
    ingest = Ingest(data_dir=HERE / "data", options=INGEST)
    clean = Clean(
        examples=ingest.examples,
        limits=Limits(low=1),
        mode=Mode.KEEP,
        bonus=1,
        note=Path("notes/first"),
        columns={"number": {"at": 0}, "word": {"at": 1}},
    )
    check = Check(examples=clean.cleaned, at_least=2)
    fit = Fit(
        examples=clean.cleaned,
        anomalies=check.anomalies,
        module_file=HERE / "training" / "module.py",
    )
    report = Report(
        examples=clean.cleaned, anomalies=check.anomalies, options=REPORT
    )
    compare = Compare(newest=Latest(Model), after=(fit,))
    return Pipeline("trips", [ingest, clean, check, fit, report, compare])
