"""Validation: statistics, schemas, and verdicts on whether data is as it should be."""

from penstock.components.validation.example_validator import ExampleValidator
from penstock.components.validation.schema_gen import ImportSchemaGen, SchemaGen
from penstock.components.validation.statistics_gen import StatisticsGen

__all__ = ["ExampleValidator", "ImportSchemaGen", "SchemaGen", "StatisticsGen"]
