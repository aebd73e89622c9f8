"""Comparing what is served with what the training path says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.components.serving.parity import (
    NotComparable,
    Parity,
    compare,
    differing,
)
from penstock.schemas.errors import PipelineError

TITLE = "Signature 's' of Model 'm'"


def compared(served: Any, trained: Any, **more: Any) -> Any:
    def called(row: int) -> str:
        return f"row {row}"

    return compare(Parity("t", signature="s", **more), served, trained, TITLE, called)


def refusal(served: Any, trained: Any, **more: Any) -> str:
    with pytest.raises(NotComparable) as raised:
        compared(served, trained, **more)
    return str(raised.value)


def test_the_only_outputs_are_compared_whatever_their_names() -> None:
    served, trained = {"a": np.array([[1.0], [2.0]])}, {"b": np.array([1.0, 2.0])}
    found = compared(served, trained)
    assert found.text == ""
    assert found.report["outputs"] == [["a", "b"]]


def test_outputs_of_one_name_are_compared_and_others_left_out() -> None:
    served = {"a": np.ones(2), "only": np.zeros(2)}
    trained = {"a": np.ones(2), "other": np.full(2, 7.0)}
    found = compared(served, trained)
    assert (found.text, found.report["outputs"]) == ("", [["a", "a"]])


def test_the_first_rows_that_differ_are_shown_with_values() -> None:
    served = np.array([[0.0, 1.0], [0.0, 2.0], [0.0, 3.0], [0.0, 4.0], [5.0, 5.0]])
    trained = np.array([[0.0, 1.0], [0.0, 2.5], [0.0, 3.5], [0.0, 4.5], [5.5, 5.0]])
    found = compared({"a": served}, {"a": trained})
    assert found.text == (
        "Signature 's' of Model 'm' differs from the training path, signature 't', on "
        "4 of 5 rows. Row 1: 'a' (value 1) is 2 where the training path says 2.5; row "
        "2: 'a' (value 1) is 3 where the training path says 3.5; row 3: 'a' (value 1) "
        "is 4 where the training path says 4.5. Make serving compute features as "
        "training does, or allow more with rtol and atol."
    )
    assert found.report["rows_that_differ"] == 4
    assert found.report["largest_difference"] == 0.5


def test_texts_and_integers_have_to_be_equal() -> None:
    served = {"a": np.array([b"yes", "na\xefve".encode()], object)}
    trained = {"a": np.array(["yes", "naive"], object)}
    text = compared(served, trained, rtol=9.0).text
    assert "1 of 2 rows. Row 1: 'a' is 'na\xefve' where the training path says" in text
    numbers = {"a": np.array([2**53, 2**53 + 1])}, {"a": np.array([2**53, 2**53])}
    assert "1 of 2 rows" in compared(*numbers, rtol=9.0).text


@given(
    st.lists(st.tuples(st.floats(width=32), st.floats(width=32)), min_size=1),
    st.sampled_from([0.0, 1e-5, 0.1]),
    st.sampled_from([0.0, 1e-6, 1.0]),
)
def test_numbers_agree_as_numpy_says(
    pairs: list[tuple[float, float]], rtol: float, atol: float
) -> None:
    a, b = (np.array(each, np.float32)[:, None] for each in zip(*pairs, strict=True))
    wrong, largest = differing(a, b, rtol, atol)
    for mine, other, is_wrong in zip(a[:, 0], b[:, 0], wrong[:, 0], strict=True):
        x, y = float(mine), float(other)
        agrees = (
            x == y
            or (np.isnan(x) and np.isnan(y))
            or (np.isfinite(y) and abs(x - y) <= atol + rtol * abs(y))
        )
        assert is_wrong != agrees
        if np.isfinite(x) and np.isfinite(y):
            assert abs(x - y) <= largest


def test_outputs_that_are_paired_have_to_be_there() -> None:
    served, trained = {"score": np.ones(1)}, {"probability": np.ones(1)}
    assert compared(served, trained, outputs={"score": "probability"}).text == ""
    assert refusal(served, trained, outputs={"socre": "probability"}) == (
        "Signature 's' of Model 'm' gives no output 'socre' to compare (it gives "
        "'score'). Did you mean 'score'? Mend outputs of Parity."
    )
    assert refusal(served, trained, outputs={"score": "probabilty"}) == (
        "The training path, signature 't', gives no output 'probabilty' to compare (it "
        "gives 'probability'). Did you mean 'probability'? Mend outputs of Parity."
    )


def test_outputs_without_a_common_name_are_not_guessed() -> None:
    served = {"a": np.ones(1), "b": np.ones(1)}
    assert refusal(served, {"c": np.ones(1)}) == (
        "Signature 's' of Model 'm' gives 'a', 'b' and the training path, signature "
        "'t', 'c', so that nothing says what to compare. Pair them with "
        "Parity(outputs={...})."
    )


def test_text_and_numbers_are_not_compared() -> None:
    assert refusal({"a": np.array([b"1"], object)}, {"a": np.ones(1)}) == (
        "Output 'a' is text, and the training path, signature 't', gives float64. "
        "Compare outputs of one kind."
    )


def test_truths_and_complex_numbers_are_compared() -> None:
    truths = {"a": np.array([True, True])}, {"a": np.array([True, False])}
    text = compared(*truths).text
    assert "Row 1: 'a' is True where the training path says False" in text
    numbers = {"a": np.array([1 + 1j, 2j])}, {"a": np.array([1 + 1j, 3j])}
    assert "on 1 of 2 rows" in compared(*numbers).text


def test_shapes_have_to_be_the_same_but_for_a_last_one() -> None:
    assert refusal({"a": np.ones((2, 3))}, {"a": np.ones((2, 2))}) == (
        "Output 'a' has the shape (2, 3) for 2 rows, and the training path, signature "
        "'t', gives (2, 2). Compare outputs of one shape."
    )


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: Parity("serving_default"),
            "Parity compares signature 'serving_default' with itself. Name another "
            "one, or a function, as against.",
        ),
        (
            lambda: Parity(3),  # type: ignore[arg-type]
            "Parity.against is 3. Pass the name of a signature, or a function of rows "
            "and a folder.",
        ),
        (
            lambda: Parity("t", rtol=-1.0),
            "Parity.rtol is -1.0. Pass a number of at least 0.",
        ),
        (
            lambda: Parity("t", atol=float("nan")),
            "Parity.atol is nan. Pass a number of at least 0.",
        ),
    ],
)
def test_a_gate_that_makes_no_sense_is_refused(make: Any, said: str) -> None:
    with pytest.raises(PipelineError) as raised:
        make()
    assert str(raised.value) == said
