"""What a config asks for, divided into what is computed in columns and what is not."""

from __future__ import annotations

import numpy as np

from penstock.components.evaluation import MetricConfig
from tests.components.evaluation import parity
from tests.components.evaluation.parity import Data


def test_of_metrics_of_one_name_the_first_counts_as_in_tfma() -> None:
    random = np.random.default_rng(0)
    data = Data(
        {"label": random.integers(0, 2, 60), "case": np.zeros(60)}, random.random(60)
    )
    first, second = (
        MetricConfig(class_name="Precision", config=f'"thresholds": [{threshold}]')
        for threshold in (0.3, 0.7)
    )
    for asked in (parity.config(first, second), parity.config(second, first)):
        parity.assert_parity(asked, data)
