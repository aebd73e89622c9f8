"""Training: Trainer, and what the functions it calls get."""

from penstock.components.training.data_accessor import DataAccessor
from penstock.components.training.fn_args import FnArgs
from penstock.components.training.trainer import Trainer

__all__ = ["DataAccessor", "FnArgs", "Trainer"]
