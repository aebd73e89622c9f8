"""CsvExampleGen: CSV files become Examples, and nothing is lost on the way."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from penstock.components.base import RunContext
from penstock.components.columns import examples as reading
from penstock.components.columns import parquet
from penstock.components.ingestion import (
    ByKey,
    ByTime,
    CsvExampleGen,
    Stratified,
    csv_files,
    inputs,
)
from penstock.components.ingestion.shards import NOTHING
from penstock.schemas.artifacts import Examples
from penstock.schemas.errors import DataError, PipelineError


def folder_of(tmp_path: Path, **files: str | bytes) -> Path:
    folder = tmp_path / "input"
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_csv", ".csv")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    folder.mkdir(exist_ok=True)
    return folder


def ingested(tmp_path: Path, folder: Path, **parameters: Any) -> Examples:
    number = len(list(tmp_path.glob("out-*")))
    out = tmp_path / f"out-{number}"
    live = CsvExampleGen(input_dir=folder, **parameters).with_outputs(out)
    live.run(RunContext.local(tmp_path / f"tmp-{number}"))
    return live.examples


def rows(examples: Examples, split: str) -> list[dict[str, Any]]:
    return [
        row
        for batch in reading.read_batches(examples, split)
        for row in batch.to_pylist()
    ]


def all_rows(examples: Examples) -> list[str]:
    return sorted(
        repr(sorted(row.items()))
        for split in examples.split_names
        for row in rows(examples, split)
    )


TRIPS = "fare,company,trip\n" + "".join(
    f"{n % 50 + 0.25},{'Taxi' if n % 3 else ''},{n}\n" for n in range(999)
)


def test_rows_are_dealt_out_and_recorded_as_tfx_records_them(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, a_csv=TRIPS)
    examples = ingested(tmp_path, folder)
    found = rows(examples, "train") + rows(examples, "eval")
    assert sorted(row["trip"] for row in found) == list(range(999))
    assert abs(len(rows(examples, "train")) - 666) < 5 * 15
    properties = examples.properties
    assert properties["split_names"] == '["train", "eval"]'
    assert properties["span"] == 0
    assert "version" not in properties
    assert properties["payload_format"] == "FORMAT_PARQUET"
    assert properties["file_format"] == "parquet"
    assert properties["quarantined_lines"] == 0
    counts = {split: len(rows(examples, split)) for split in ("train", "eval")}
    assert properties["rows"] == counts
    name = "data_parquet-00000-of-00001.parquet"
    files = sorted(p for p in examples.path.rglob("*") if p.is_file())
    assert files == [
        examples.path / f"Split-{split}" / name for split in ("eval", "train")
    ]


def test_the_input_is_recorded_with_its_digests(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path, day_1__a_csv=TRIPS, day_2__b_csv=TRIPS, day_2__c_csv=TRIPS
    )
    ingest = CsvExampleGen(input_dir=folder, pattern="day_{SPAN}/*.csv")
    (external,) = ingest.external_inputs()
    assert external.uri == str(folder / "day_2/*.csv")
    assert external.digest.startswith("sha256:")
    digest = hashlib.sha256(TRIPS.encode()).hexdigest()
    assert external.properties == {
        "split": "single_split",
        "span": 2,
        "files": {"day_2/b.csv": digest, "day_2/c.csv": digest},
        "total_bytes": 2 * len(TRIPS),
    }
    examples = ingested(tmp_path, folder, pattern="day_{SPAN}/*.csv")
    assert examples.properties["span"] == 2
    assert examples.properties["input_fingerprint"] == (
        f"split:single_split,num_files:2,total_bytes:{2 * len(TRIPS)},"
        f"digest:{external.digest}"
    )
    assert (
        ingested(tmp_path, folder, pattern="day_{SPAN}/*.csv", span=1).properties[
            "rows"
        ]
        != (examples.properties["rows"])
    )


def test_the_version_is_recorded_where_the_pattern_has_one(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, s1v1_csv=TRIPS, s1v2_csv=TRIPS)
    examples = ingested(tmp_path, folder, pattern="s{SPAN}v{VERSION}.csv")
    assert (examples.properties["span"], examples.properties["version"]) == (1, 2)


def test_the_assignment_does_not_depend_on_files_or_their_order(tmp_path: Path) -> None:
    header, *lines = TRIPS.splitlines(keepends=True)
    one = folder_of(tmp_path / "one", a_csv=TRIPS)
    many = folder_of(
        tmp_path / "many",
        a_csv=header + "".join(lines[500:]),
        b_csv=header + "".join(lines[:200]),
        c_csv=header + "".join(lines[200:500]),
    )
    for rule in (
        {"train": 4, "eval": 1},
        ByKey("fare", {"train": 4, "eval": 1}),
        ByTime("trip", {"train": 800, "eval": None}),
        Stratified("company", {"train": 4, "eval": 1}),
    ):
        left = ingested(tmp_path, one, splits=rule)
        right = ingested(tmp_path, many, splits=rule)
        for split in ("train", "eval"):
            assert sorted(map(repr, rows(left, split))) == sorted(
                map(repr, rows(right, split))
            )


def test_stratified_shares_hold_also_when_types_widen_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "penstock.components.columns.csv.chunks.__kwdefaults__", {"size": 512}
    )
    text = TRIPS + "x,Taxi,1000\n"
    folder = folder_of(tmp_path, a_csv=text)
    examples = ingested(
        tmp_path, folder, splits=Stratified("company", {"train": 4, "eval": 1})
    )
    assert len(rows(examples, "train")) in (799, 800, 801)
    assert {type(row["fare"]) for row in rows(examples, "train")} == {str}


def test_the_inputs_own_splits_stay(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, train__a_csv="n\n1\n2\n", test__a_csv="n\n3.5\n")
    examples = ingested(
        tmp_path, folder, input_splits={"train": "train/*", "eval": "test/*"}
    )
    assert rows(examples, "train") == [{"n": 1.0}, {"n": 2.0}]
    assert rows(examples, "eval") == [{"n": 3.5}]
    assert examples.split_names == ("train", "eval")


def test_types_are_those_of_the_whole_input_and_equal_for_all_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One file per group, so that most groups see no reason for the wider type.
    monkeypatch.setattr(inputs, "GROUP_BYTES", 1)
    files = {f"f{n}_csv": f"a,b,c\n{n},,1\n" for n in range(4)}
    folder = folder_of(tmp_path, **files, f4_csv="a,b,c\n0.5,x,\n")
    examples = ingested(tmp_path, folder, splits={"all": 1})
    assert len(examples.files("all")) == 5
    for path in examples.files("all"):
        types = [str(each.type) for each in parquet.file_schema(path)]
        assert types == ["double", "string", "int64"]
    assert len(rows(examples, "all")) == 5


def test_one_text_late_in_a_column_of_numbers_makes_it_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "penstock.components.columns.csv.chunks.__kwdefaults__", {"size": 512}
    )
    folder = folder_of(tmp_path, a_csv=TRIPS + "x,y,z\n")
    examples = ingested(tmp_path, folder)
    assert {str(kind) for kind in reading.schema_of(examples).types} == {"string"}
    assert sum(examples.properties["rows"].values()) == 1000  # type: ignore[union-attr]


def test_bad_lines_fail_with_file_and_line(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, a_csv=TRIPS, b_csv=TRIPS + "1,2\n")
    with pytest.raises(DataError) as caught:
        ingested(tmp_path, folder)
    assert str(caught.value) == (
        "b.csv, line 1001: 2 fields where the header has 3. Fix the line, or pass "
        'on_bad_line="quarantine" to set such lines aside.'
    )
    assert not list(tmp_path.glob("out-*/examples/**/*.parquet"))


def test_bad_lines_are_set_aside_and_counted(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path, a_csv=TRIPS + "1,2\n", b_csv=TRIPS.encode() + b'1,\xff,3\n"\n",1\n'
    )
    examples = ingested(tmp_path, folder, on_bad_line="quarantine")
    assert examples.properties["quarantined_lines"] == 3
    assert len(all_rows(examples)) == 2 * 999
    (file,) = (examples.path / "quarantine").iterdir()
    assert file.name == "lines-00000-of-00001.jsonl"
    assert [json.loads(line) for line in file.read_text().splitlines()] == [
        {
            "file": "a.csv",
            "line": 1001,
            "reason": "2 fields where the header has 3",
            "text": "1,2\n",
        },
        {
            "file": "b.csv",
            "line": 1001,
            "reason": "bytes that are no utf-8 text",
            "text": "1,\\xff,3\n",
        },
        {
            "file": "b.csv",
            "line": 1002,
            "reason": "2 fields where the header has 3",
            "text": '"\n",1\n',
        },
    ]


def test_set_aside_lines_are_counted_once_when_files_are_read_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "penstock.components.columns.csv.chunks.__kwdefaults__", {"size": 64}
    )
    folder = folder_of(tmp_path, a_csv="a,b\n1\n" + "1,2\n" * 99 + "x,y\n3\n")
    examples = ingested(tmp_path, folder, on_bad_line="quarantine")
    assert examples.properties["quarantined_lines"] == 2
    (file,) = (examples.path / "quarantine").iterdir()
    assert len(file.read_text().splitlines()) == 2


def test_tf_records_hold_the_same_rows(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, a_csv=TRIPS)
    columns = ingested(tmp_path, folder)
    records = ingested(tmp_path, folder, file_format="tfrecords_gzip")
    assert records.properties["payload_format"] == "FORMAT_TF_EXAMPLE"
    assert records.properties["file_format"] == "tfrecords_gzip"
    assert [path.name for path in records.files("train")] == [
        "data_tfrecord-00000-of-00001.gz"
    ]
    assert all_rows(records) == all_rows(columns)  # quarters are exact in float32
    assert rows(records, "train") == rows(columns, "train")


def test_gzip_and_other_encodings_are_read(tmp_path: Path) -> None:
    text = "a;b\nñ;1\nNA;2\n".encode("latin-1")
    folder = folder_of(tmp_path, a_csv=gzip.compress(text))
    examples = ingested(
        tmp_path,
        folder,
        splits={"all": 1},
        delimiter=";",
        encoding="latin-1",
        missing_values=("NA",),
        column_types={"b": "string"},
    )
    assert rows(examples, "all") == [{"a": "ñ", "b": "1"}, {"a": None, "b": "2"}]


def test_the_same_input_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(tmp_path, a_csv=TRIPS, b_csv=TRIPS)

    def digests(examples: Examples) -> list[str]:
        paths = sorted(p for p in examples.path.rglob("*") if p.is_file())
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]

    expected = digests(ingested(tmp_path, folder))
    monkeypatch.setattr("os.cpu_count", lambda: 7)
    monkeypatch.setattr(
        "penstock.components.columns.csv.chunks.__kwdefaults__", {"size": 700}
    )
    assert digests(ingested(tmp_path, folder)) == expected


def test_hidden_files_and_markers_are_left_out(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, a_csv=TRIPS)
    (folder / "_SUCCESS").write_text("")
    (folder / ".a.csv.crc").write_text("x")
    assert len(all_rows(ingested(tmp_path, folder))) == 999


def test_the_real_trips_come_back_as_the_csv_module_reads_them(
    tmp_path: Path, taxi_csv: Path
) -> None:
    examples = ingested(tmp_path, taxi_csv.parent, pattern="data.csv")
    schema = reading.schema_of(examples)
    with open(taxi_csv, newline="") as file:
        expected = list(csv.DictReader(file))
    kinds = {
        each.name: {"int64": int, "double": float}.get(str(each.type), str)
        for each in schema
    }
    wanted = sorted(
        repr({name: kinds[name](cell) if cell else None for name, cell in row.items()})
        for row in expected
    )
    got = sorted(
        repr(row) for split in ("train", "eval") for row in rows(examples, split)
    )
    assert got == wanted
    assert {n for n, kind in kinds.items() if kind is str} == {
        "payment_type",
        "company",
    }


# --- bad input gets a sentence -------------------------------------------------------


def the_error(tmp_path: Path, folder: Path, **parameters: Any) -> str:
    with pytest.raises((DataError, PipelineError)) as caught:
        ingested(tmp_path, folder, **parameters)
    return str(caught.value)


def test_a_folder_that_is_missing_or_empty_gets_a_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "input"
    assert the_error(tmp_path, folder) == (
        f"Input folder '{folder}' does not exist. Pass the folder that holds the input "
        "files."
    )
    folder_of(tmp_path)
    assert the_error(tmp_path, folder) == (
        f"Input folder '{folder}' is empty. Put the input files there, or pass another "
        "folder."
    )
    folder_of(tmp_path, a_csv=TRIPS)
    assert the_error(tmp_path, folder / "a.csv") == (
        f"Input folder '{folder / 'a.csv'}' is a file. Pass its folder, '{folder}', "
        "and pattern='a.csv'."
    )
    assert the_error(tmp_path, folder, pattern="*.tsv") == (
        f"No file in '{folder}' matches '*.tsv' (it holds 'a.csv'). Pass the pattern "
        "of the files to read."
    )


def test_many_other_files_are_not_all_listed(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, **{f"f{n}_csv": TRIPS for n in range(8)})
    assert "'f0.csv', 'f1.csv', 'f2.csv', 'f3.csv', 'f4.csv' and 3 more" in the_error(
        tmp_path, folder, pattern="*.tsv"
    )


def test_headers_alone_get_a_sentence(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, a_csv="a,b\n", b_csv="a,b\n")
    assert the_error(tmp_path, folder) == (
        f"The input '{folder}/*' has no rows, only headers or empty files. Pass the "
        "files that hold the data."
    )


def test_headers_that_differ_get_a_sentence(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, a_csv="a,b\n1,2\n", b_csv="b,a\n1,2\n")
    assert the_error(tmp_path, folder).startswith(
        "b.csv has the columns of a.csv in another order"
    )


def test_a_type_for_an_unknown_column_gets_a_sentence(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, a_csv=TRIPS)
    assert the_error(tmp_path, folder, column_types={"fares": "int64"}) == (
        "column_types names the column 'fares', which the input does not have (it has "
        "'company', 'fare', 'trip'). Did you mean 'fare'?"
    )


def test_spans_that_differ_between_splits_get_a_sentence(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, t1_csv=TRIPS, t2_csv=TRIPS, e1_csv=TRIPS)
    splits = {"train": "t{SPAN}.csv", "eval": "e{SPAN}.csv"}
    assert the_error(tmp_path, folder, input_splits=splits) == (
        "The latest span of input split 'train' is 2, that of 'eval' is 1. Wait until "
        "both are there, or ask for one by span=."
    )


def test_an_input_that_grows_meanwhile_gets_a_sentence(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, a_csv=TRIPS)
    ingest = CsvExampleGen(input_dir=folder).with_outputs(tmp_path / "out")
    found = ingest.external_inputs()
    with open(folder / "a.csv", "a") as file:
        file.write("1,2,3\n")
    (tmp_path / "tmp").mkdir()
    context = RunContext(run_id="r", temp_dir=tmp_path / "tmp", external_inputs=found)
    with pytest.raises(DataError) as caught:
        ingest.run(context)
    assert str(caught.value) == (
        f"The input '{folder}/*' had {len(TRIPS)} bytes when it was digested and has "
        f"{len(TRIPS) + 6} now. Run again when it is written whole."
    )


def test_types_that_change_meanwhile_get_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(tmp_path, a_csv="a,b\n1,2\n")

    def never_fits(*_: Any) -> list[csv_files.Found]:
        return [csv_files.Found(False, {}, NOTHING, 0)]

    monkeypatch.setattr(csv_files, "over_groups", never_fits)
    monkeypatch.setattr(csv_files, "_widened", lambda reading, _: reading)
    assert the_error(tmp_path, folder) == (
        "The columns of '"
        + str(folder)
        + "/*' have other types now than a moment ago: "
        "the files were changed meanwhile. Run again."
    )


def test_rows_that_are_lost_get_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(tmp_path, a_csv="a,b\n1,2\n")
    # Beam takes functions along by value: a class's method is looked up.
    monkeypatch.setattr(
        "penstock.components.columns.parquet.Writer.write", lambda *_: None
    )
    assert the_error(tmp_path, folder) == (
        f"{folder}/a.csv: 1 records were counted and 0 came out. Nothing may be lost; "
        "report this with the input."
    )


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        (
            {"delimiter": ";;"},
            "CsvExampleGen.delimiter is ';;'. Pass one ASCII character, such as ','.",
        ),
        (
            {"quote": "«"},
            "CsvExampleGen.quote is '«'. Pass one ASCII character, such as \"'\".",
        ),
        (
            {"delimiter": "'", "quote": "'"},
            'CsvExampleGen has "\'" as delimiter and as quote. Pass two different '
            "characters.",
        ),
        (
            {"encoding": "utf-9"},
            "CsvExampleGen.encoding is 'utf-9', which Python does not know. Pass a "
            "name such as 'utf-8', 'utf-16' or 'latin-1'.",
        ),
        (
            {"column_types": {"a": "int"}},
            "CsvExampleGen.column_types gives column 'a' the type 'int' (there are "
            "'bool', 'date', 'float64', 'int64', 'string', 'timestamp'). Did you mean "
            "'int64'?",
        ),
        (
            {"input_splits": {"a": "*"}, "splits": {"b": 1}},
            "CsvExampleGen has both input_splits and splits. Leave splits out to keep "
            "the input's own, or give one pattern for all the rows.",
        ),
        (
            {"input_splits": {"a": "*"}, "pattern": "x"},
            "CsvExampleGen has both pattern and input_splits. Give input_splits a "
            "pattern for every split, and leave pattern out.",
        ),
        (
            {"input_splits": {}},
            "CsvExampleGen.input_splits names no split. Name each split with its "
            "pattern, or leave input_splits out.",
        ),
        (
            {"pattern": "../*"},
            "CsvExampleGen has the pattern '../*', which leads out of input_dir. Write "
            "patterns relative to it.",
        ),
        (
            {"span": 3},
            "CsvExampleGen asks for span 3, and pattern '*' has no span. Add '{SPAN}' "
            "or a date to it, or leave span out.",
        ),
        (
            {"version": 3, "pattern": "{SPAN}"},
            "CsvExampleGen asks for version 3, and pattern '{SPAN}' has no version. "
            "Add '{VERSION}' to it, or leave version out.",
        ),
    ],
)
def test_parameters_that_cannot_be_get_a_sentence(
    parameters: dict[str, Any], said: str
) -> None:
    with pytest.raises(PipelineError) as caught:
        CsvExampleGen(input_dir="x", **parameters)
    assert str(caught.value) == said


def test_wrong_names_and_weights_are_refused_at_once() -> None:
    with pytest.raises(PipelineError, match="Split name 'a b' cannot be used"):
        CsvExampleGen(input_dir="x", splits={"a b": 1})
    with pytest.raises(PipelineError, match="Split 'a' has the weight 0"):
        CsvExampleGen(input_dir="x", splits={"a": 0})
    with pytest.raises(PipelineError, match="Split name 'a b' cannot be used"):
        CsvExampleGen(input_dir="x", input_splits={"a b": "*"})


def test_importing_ingestion_loads_nothing_heavy() -> None:
    code = (
        "import sys, penstock.components.ingestion; "
        "print({'numpy', 'pyarrow', 'apache_beam', 'tensorflow'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_rows_are_shown_while_they_are_written_and_exact_in_the_end(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "input"
    folder.mkdir()
    rows = (
        ["a,b"] + ["1," + 20 * "x"] * 400_000 + ["1.5,y"]
    )  # read again with wider types
    (folder / "a.csv").write_text("\n".join(rows) + "\n")
    shown: list[int] = []
    live = CsvExampleGen(input_dir=folder).with_outputs(tmp_path / "out")
    (tmp_path / "temp").mkdir()
    live.run(
        RunContext(run_id="r", temp_dir=tmp_path / "temp", on_progress=shown.append)
    )
    assert sum(shown) == 400_001
    assert len(shown) > 2
