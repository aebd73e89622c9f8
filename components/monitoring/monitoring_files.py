"""The files that Prometheus, Alertmanager and Grafana are given for a model."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from penstock.components.monitoring.alertmanager import (
    AlertmanagerOptions,
    alertmanager_configuration,
)
from penstock.components.monitoring.dashboard import dashboard
from penstock.components.monitoring.rule_tests import monitoring_tests, serving_tests
from penstock.components.monitoring.rules import (
    RuleOptions,
    monitoring_rules,
    serving_rules,
)
from penstock.components.monitoring.yaml_text import yaml
from penstock.schemas.errors import DataError, quoted

ALERTMANAGER, DASHBOARD = "alertmanager.yml", "penstock-models.json"
"""Names of the files that are for all models."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def monitoring_files(
    rules: RuleOptions,
    alertmanager: AlertmanagerOptions | None = None,
    *,
    report_url: str = "",
) -> dict[str, str]:
    """Return the texts of the files, by their names.

    Args:
        rules: What the rules are made for.
        alertmanager: Who is told.
        report_url: Where the HTML reports are.
    """
    stem = _stem(rules.model)
    name = f"{stem}-monitoring.rules.yml"
    files = {
        name: yaml(monitoring_rules(rules), _head(rules.model)),
        f"{stem}-monitoring.tests.yml": yaml(
            monitoring_tests(rules, name),
            f"Tests of {name}, for 'promtool test rules'.",
        ),
    }
    if rules.serving:
        name = f"{stem}-serving.rules.yml"
        files[name] = yaml(serving_rules(rules), _head(rules.model))
        files[f"{stem}-serving.tests.yml"] = yaml(
            serving_tests(rules, name), f"Tests of {name}, for 'promtool test rules'."
        )
    configuration = alertmanager_configuration(alertmanager or AlertmanagerOptions())
    files[ALERTMANAGER] = yaml(configuration, "Made by 'penstock rules'.")
    made = dashboard(report_url=report_url)
    files[DASHBOARD] = json.dumps(made, indent=1) + "\n"
    return files


def _head(model: str) -> str:
    return f"Rules for the model {json.dumps(model)}, made by 'penstock rules'."


def _stem(model: str) -> str:
    """Return what files of a model begin with; another for every model."""
    if _NAME.fullmatch(model):
        return model
    digest = hashlib.sha256(model.encode("utf-8", "surrogatepass")).hexdigest()
    plain = re.sub(r"[^A-Za-z0-9]+", "-", model).strip("-")[:40]
    return f"{plain}-{digest[:8]}".strip("-")


def write_files(folder: Path, files: Mapping[str, str], *, replace: bool) -> None:
    """Write files into a folder: all of them, or none if one is in the way.

    Args:
        folder: It is made if it is not there.
        files: Texts by names.
        replace: Whether files that say something else are replaced.

    Raises:
        DataError: If files are in the way, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = {
            name
            for name, text in files.items()
            if (folder / name).exists()
            and (folder / name).read_bytes() != text.encode()
        }
        if there and not replace:
            raise DataError(
                f"Folder '{folder}' has {quoted(there)}, which say something else. "
                "Pass --replace, or another folder."
            )
        for name, text in files.items():
            draft = folder / f".{name}.{os.getpid()}"
            draft.write_bytes(text.encode())
            draft.replace(folder / name)
    except OSError as error:
        raise DataError(
            f"Folder '{folder}' cannot be written: {error.strerror}. Name one that "
            "this user may write."
        ) from error
