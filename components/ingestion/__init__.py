"""Ingestion: files from outside become Examples, dealt out to splits."""

from penstock.components.ingestion.csv_example_gen import CsvExampleGen
from penstock.components.ingestion.import_example_gen import ImportExampleGen
from penstock.components.ingestion.parquet_example_gen import ParquetExampleGen
from penstock.schemas.splits import ByHash, ByKey, ByTime, Stratified

__all__ = [
    "ByHash",
    "ByKey",
    "ByTime",
    "CsvExampleGen",
    "ImportExampleGen",
    "ParquetExampleGen",
    "Stratified",
]
