"""The lineage store on ML Metadata; nothing else imports that.

Types, properties, contexts and event paths are TFX's, so that its tools read what
is written here. ml-metadata 1.21 has neither filter queries nor lineage subgraphs:
everything here is plain look-ups by id, type, context and event.
"""

from penstock.pipelines.metadata.connection import sqlite_path
from penstock.pipelines.metadata.reading import StoreReader
from penstock.pipelines.metadata.records import (
    TFX_VERSION,
    ExecutionRecord,
    RunRecord,
    RunState,
    State,
    Written,
)
from penstock.pipelines.metadata.store import Store
from penstock.pipelines.metadata.values import recorded, traceback_tail

__all__ = [
    "TFX_VERSION",
    "ExecutionRecord",
    "RunRecord",
    "RunState",
    "State",
    "Store",
    "StoreReader",
    "Written",
    "recorded",
    "sqlite_path",
    "traceback_tail",
]
