"""The ready pipeline: from taxi trips to a served model of generous tips.

`trips` generates the data, `model` has the train function, `evaluation` says what is
asked of the model, `demo` runs it all.
"""

from penstock.pipelines.taxi.pipeline import TRIPS_SCHEMA, taxi

__all__ = ["TRIPS_SCHEMA", "taxi"]
