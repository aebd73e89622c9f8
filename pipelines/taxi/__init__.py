"""The ready pipeline: from taxi trips to a served model of generous tips."""
