"""When a model is trained again: alerts, schedules, limits, and what was decided.

`webhook` reads what Alertmanager sends, `schedule` knows when a fixed time was due,
`journal` decides, at most once for each occasion, and remembers it; `receiver` and
`app` put them together. Nothing here trains or pushes: what is decided is started by
`penstock.pipelines.retraining`, and whether the candidate is pushed is its blessing's
to say.
"""
