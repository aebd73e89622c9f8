"""The parity gate: what a model serves, against what its training path says."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from penstock.schemas.errors import PipelineError, did_you_mean, quoted

if TYPE_CHECKING:
    import numpy as np

Array: TypeAlias = "np.ndarray[Any, Any]"

_SHOWN = 3  # rows that differ
_TEXT = "OSU"  # kinds of NumPy arrays that hold text


@dataclasses.dataclass(frozen=True)
class Parity:
    """A signature and the training path that it has to agree with, row by row.

    Two numbers agree if |served - trained| <= atol + rtol |trained|, as
    `numpy.isclose` has it; NaN agrees with NaN. Integers and texts have to be equal.

    Attributes:
        against: The training path: the name of another signature; or a function, at the
            top level of a module, that takes a `pyarrow.RecordBatch` of rows, with
            every column of the data, and the folder of the SavedModel, and returns an
            array with one row per row, or such arrays by output name.
        signature: The signature that serves.
        outputs: Which output of the signature is which one of the training path's.
            Without it those of the same name are compared, or the only ones.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
    """

    against: str | Callable[..., Any]
    signature: str = "serving_default"
    outputs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    rtol: float = 1e-5
    atol: float = 1e-6

    def __post_init__(self) -> None:
        if not isinstance(self.against, str) and not callable(self.against):
            raise PipelineError(
                f"Parity.against is {self.against!r}. Pass the name of a signature, or "
                "a function of rows and a folder."
            )
        if self.against == self.signature:
            raise PipelineError(
                f"Parity compares signature '{self.signature}' with itself. Name "
                "another one, or a function, as against."
            )
        for name in ("rtol", "atol"):
            value = getattr(self, name)
            if isinstance(value, bool) or not 0 <= value < float("inf"):
                raise PipelineError(
                    f"Parity.{name} is {value!r}. Pass a number of at least 0."
                )

    @property
    def other(self) -> str:
        """What the training path is called in texts."""
        if isinstance(self.against, str):
            return f"signature '{self.against}'"
        if isinstance(self.against, Function):
            return f"function '{self.against.module}.{self.against.name}'"
        return f"function '{self.against.__module__}.{self.against.__qualname__}'"

    def portable(self) -> Parity:
        """Return it so that a fresh process can find the function.

        Raises:
            PipelineError: If it has no file that a process could read.
        """
        if isinstance(self.against, str | Function):
            return self
        module = sys.modules.get(self.against.__module__)
        file = getattr(module, "__file__", None)
        name = self.against.__qualname__
        if file is None or "<" in name:
            raise PipelineError(
                f"Parity.against is {self.other}, which a fresh process cannot find. "
                "Define it at the top level of a module that is a file."
            )
        place = Function(self.against.__module__, str(Path(file).absolute()), name)
        return dataclasses.replace(self, against=place)


@dataclasses.dataclass(frozen=True)
class Function:
    """Where a function is found by another process.

    Attributes:
        module: Name of its module.
        file: Path of the module's file.
        name: Its name there.
    """

    module: str
    file: str
    name: str

    def load(self) -> Callable[..., Any]:
        """Import it: by name where that leads to the same file, else from the file."""
        found = None
        if self.module != "__main__":
            try:
                found = importlib.util.find_spec(self.module)
            except (ImportError, ValueError):
                found = None
        origin = found.origin if found is not None else None
        if origin and Path(origin).exists() and Path(origin).samefile(self.file):
            module = importlib.import_module(self.module)
            return getattr(module, self.name)  # type: ignore[no-any-return]
        name = self.module.strip("_")
        spec = importlib.util.spec_from_file_location(name, self.file)
        assert spec is not None and spec.loader is not None
        loaded = importlib.util.module_from_spec(spec)
        sys.modules[name] = loaded
        spec.loader.exec_module(loaded)
        return getattr(loaded, self.name)  # type: ignore[no-any-return]

    def __call__(self, *arguments: Any) -> Any:
        """Import the function, and call it."""
        return self.load()(*arguments)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What a comparison came to.

    Attributes:
        report: Counts and the largest difference.
        text: What differs, as a sentence; or nothing.
    """

    report: dict[str, Any]
    text: str


class NotComparable(Exception):
    """Two answers cannot be compared; its text is a sentence that says why."""


def compare(
    parity: Parity,
    served: Mapping[str, Array],
    trained: Mapping[str, Array],
    title: str,
    called: Callable[[int], str],
) -> Comparison:
    """Compare outputs row by row.

    Args:
        parity: How.
        served: Outputs of the signature that serves, each with one row per row.
        trained: Outputs of the training path; the only one may be called ''.
        title: What texts call the signature.
        called: Returns what texts call a row.

    Raises:
        NotComparable: If names or shapes do not go together.
    """
    import numpy as np

    pairs = _pairs(parity, title, served, trained)
    rows = len(served[pairs[0][0]])
    differs = np.zeros(rows, bool)
    shown: list[tuple[int, str]] = []
    largest = 0.0
    for mine, other in pairs:
        a, b = _aligned(mine, served[mine], trained[other], rows, parity)
        wrong, difference = differing(a, b, parity.rtol, parity.atol)
        largest = max(largest, difference)
        in_row = wrong.any(axis=1)
        differs |= in_row
        for row in np.flatnonzero(in_row)[:_SHOWN].tolist():
            place = int(np.argmax(wrong[row]))
            of = f" (value {place})" if a.shape[1] > 1 else ""
            shown.append(
                (
                    row,
                    f"{called(row)}: '{mine}'{of} is {_shown(a[row, place])} where the "
                    f"training path says {_shown(b[row, place])}",
                )
            )
    report = {
        "signature": parity.signature,
        "against": parity.other,
        "outputs": [list(pair) for pair in pairs],
        "rows": rows,
        "rows_that_differ": int(differs.sum()),
        "largest_difference": largest,
        "rtol": parity.rtol,
        "atol": parity.atol,
    }
    if not differs.any():
        return Comparison(report, "")
    first = "; ".join(text for _, text in sorted(shown)[:_SHOWN])
    return Comparison(
        report,
        f"{title} differs from the training path, {parity.other}, on "
        f"{int(differs.sum()):,} of {rows:,} rows. {first[0].upper()}{first[1:]}. Make "
        "serving compute features as training does, or allow more with rtol and atol.",
    )


def _pairs(
    parity: Parity,
    title: str,
    served: Mapping[str, Array],
    trained: Mapping[str, Array],
) -> list[tuple[str, str]]:
    """Return which outputs are compared."""
    if parity.outputs:
        for names, given, who in (
            (parity.outputs, served, title),
            (parity.outputs.values(), trained, f"The training path, {parity.other},"),
        ):
            for name in names:
                if name not in given:
                    raise NotComparable(
                        f"{who} gives no output '{name}' to compare (it gives "
                        f"{quoted(given)}).{did_you_mean(name, given)} Mend outputs of "
                        "Parity."
                    )
        return list(parity.outputs.items())
    if len(served) == len(trained) == 1:
        return [(next(iter(served)), next(iter(trained)))]
    both = sorted(served.keys() & trained.keys())
    if not both:
        raise NotComparable(
            f"{title} gives {quoted(served)} and the training path, {parity.other}, "
            f"{quoted(trained)}, so that nothing says what to compare. Pair them with "
            "Parity(outputs={...})."
        )
    return [(name, name) for name in both]


def _aligned(
    name: str, served: Array, trained: Array, rows: int, parity: Parity
) -> tuple[Array, Array]:
    """Return two outputs as tables of one line per row."""
    shapes = [
        each.shape[:-1] if each.ndim > 1 and each.shape[-1] == 1 else each.shape
        for each in (served, trained)
    ]
    if shapes[0] != shapes[1] or shapes[0][:1] != (rows,):
        raise NotComparable(
            f"Output '{name}' has the shape {served.shape} for {rows:,} rows, and the "
            f"training path, {parity.other}, gives {trained.shape}. Compare outputs of "
            "one shape."
        )
    if (served.dtype.kind in _TEXT) != (trained.dtype.kind in _TEXT):
        raise NotComparable(
            f"Output '{name}' is {_kind(served)}, and the training path, "
            f"{parity.other}, gives {_kind(trained)}. Compare outputs of one kind."
        )
    return served.reshape(rows, -1), trained.reshape(rows, -1)


def differing(a: Array, b: Array, rtol: float, atol: float) -> tuple[Array, float]:
    """Return where two tables differ, and by how much at most.

    As numpy.isclose, |a - b| <= atol + rtol |b|, computed in float64; two NaN are
    equal. Texts and integers differ unless they are the same.
    """
    import numpy as np

    if a.dtype.kind in "fc" or b.dtype.kind in "fc":
        is_complex = "c" in (a.dtype.kind, b.dtype.kind)
        kind = np.complex128 if is_complex else np.float64
        x, y = a.astype(kind), b.astype(kind)
        wrong = ~np.isclose(x, y, rtol=rtol, atol=atol, equal_nan=True)
        with np.errstate(invalid="ignore"):
            gaps = np.abs(x - y)
        finite = gaps[np.isfinite(gaps)]
        return wrong, float(finite.max()) if finite.size else 0.0
    if a.dtype.kind in _TEXT:
        wrong = np.array(
            [
                [_text(x) != _text(y) for x, y in zip(*each, strict=True)]
                for each in zip(a, b, strict=True)
            ],
            bool,
        ).reshape(a.shape)
        return wrong, 0.0
    wrong = a != b
    gaps = np.abs(a.astype(np.float64) - b.astype(np.float64))
    return wrong, float(gaps.max()) if gaps.size else 0.0


def _kind(values: Array) -> str:
    return "text" if values.dtype.kind in _TEXT else str(values.dtype)


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _shown(value: Any) -> str:
    if isinstance(value, bytes | str):
        return f"'{_text(value)[:60]}'"
    is_float = hasattr(value, "dtype") and value.dtype.kind == "f"
    return f"{value:.9g}" if is_float else str(value)
