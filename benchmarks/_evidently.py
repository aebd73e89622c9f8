"""Evidently's drift report on two frames; run by the Python that has Evidently.

`python _evidently.py REFERENCE CURRENT`, both NumPy files of shape (rows, columns).
Prints one JSON object. It imports nothing of penstock's.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version


def main(reference_file: str, current_file: str) -> dict[str, object]:
    """Return the seconds of the report with its defaults, imports excluded."""
    import numpy as np
    import pandas as pd
    from evidently import Report
    from evidently.presets import DataDriftPreset

    frames = []
    for file in (reference_file, current_file):
        values = np.load(file)
        names = [f"f{each:04}" for each in range(values.shape[1])]
        frames.append(pd.DataFrame(values, columns=names))
    reference, current = frames
    # Once on a corner, so that nothing is imported or compiled within the clock.
    corner = slice(0, 50)
    Report([DataDriftPreset()]).run(current[corner], reference[corner]).dict()
    started, cpu = time.perf_counter(), time.process_time()
    found = Report([DataDriftPreset()]).run(current, reference).dict()
    return {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu,
        "rows": len(current),
        "columns": current.shape[1],
        "metrics": len(found["metrics"]),
        "evidently": version("evidently"),
        "numpy": np.__version__,
        "pandas": pd.__version__,
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
