"""Penguins made up for the tests, as Examples on disk and their Schema."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from penstock.components.base import RunContext
from penstock.components.columns import tfrecord
from penstock.components.training import Trainer
from penstock.schemas.artifacts import Examples, Schema
from penstock.schemas.digests import folder_digest

RESOURCES = Path(__file__).parents[2] / "resources" / "training"
MEASURES = ("culmen_length_mm", "culmen_depth_mm", "flipper_length_mm", "body_mass_g")


def examples(folder: Path, file_format: str, *, label: bool = True) -> Examples:
    """Write 300 rows to train on and 100 to evaluate on.

    Args:
        folder: Where to.
        file_format: `parquet` or `tfrecords_gzip`.
        label: Whether the last row of the eval split has its label.
    """
    draw = np.random.default_rng(1)
    for split, rows in (("train", 300), ("eval", 100)):
        (folder / f"Split-{split}").mkdir(parents=True)
        species = draw.integers(0, 3, rows)
        missing = np.arange(rows) == (-1 if label or split == "train" else rows - 1)
        sex = np.array(["male", "female"])[draw.integers(0, 2, rows)]
        columns = {
            name: pa.array(draw.normal(size=rows) + species) for name in MEASURES
        }
        columns["species"] = pa.array(species, mask=missing)
        columns["sex"] = pa.array(sex, mask=draw.random(rows) < 0.3)
        table = pa.table(columns)
        if file_format == "parquet":
            name = "data_parquet-00000-of-00001.parquet"
            pq.write_table(table, folder / f"Split-{split}" / name)
        else:
            name = "data_tfrecord-00000-of-00001.gz"
            with tfrecord.Writer(folder / f"Split-{split}" / name) as writer:
                for batch in table.to_batches():
                    writer.write(tfrecord.encode(batch))
    payload = "FORMAT_PARQUET" if file_format == "parquet" else "FORMAT_TF_EXAMPLE"
    return Examples(
        folder,
        properties={"payload_format": payload, "split_names": '["train", "eval"]'},
    )


def schema(folder: Path) -> Schema:
    """Write the penguins' schema."""
    folder.mkdir(parents=True)
    shape = "presence { min_fraction: 1 } shape { dim { size: 1 } }"
    lines = [f'feature {{ name: "{name}" type: FLOAT {shape} }}' for name in MEASURES]
    lines.append(f'feature {{ name: "species" type: INT {shape} }}')
    lines.append('feature { name: "sex" type: BYTES }')
    (folder / "schema.pbtxt").write_text("\n".join(lines))
    return Schema(folder)


def main(module: str, data: str, out: str) -> None:
    """Train in this process, and print the digest of the model's folder."""
    trainer = Trainer(
        examples=Examples(Path(data) / "examples"),
        schema=Schema(Path(data) / "schema"),
        module_file=RESOURCES / module,
        train_steps=20,
        eval_steps=2,
    ).with_outputs(Path(out))
    trainer.run(RunContext.local(Path(out) / "tmp"))
    print(folder_digest(trainer.model.path))


if __name__ == "__main__":
    main(*sys.argv[1:])
