"""The labels of all interactions, and what of them is fitted on training."""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flm_torchrec.data.preparing.columns import Columns
from flm_torchrec.data.preparing.fit_features import seen
from flm_torchrec.data.preparing.fits import Fits
from flm_torchrec.data.reading.tables import to_numbers
from flm_torchrec.data.schema import ALWAYS, Label
from flm_torchrec.errors import UserError


def _is_exact(numbers: pa.Array) -> bool:
    """Are distinct numbers still distinct as float32?"""
    narrow = numbers.to_numpy().astype(np.float32)
    return len(np.unique(narrow)) == len(narrow)


@dataclass(frozen=True, slots=True)
class Labels:
    """Levels and moments of the labels, as they are fitted one after another."""

    path: str  # of the interactions
    is_train: NDArray[np.bool_]  # (n,)
    levels: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    moments: dict[str, tuple[float, float]] = field(default_factory=dict)

    def fit(self, columns: Columns, name: str, label: Label, fits: Fits) -> NDArray[np.float32]:
        """(n,) the label, NaN = missing."""
        stored = f"label {name}"
        if columns.is_discrete(stored):
            values = self._classes(columns, name, fits)
        else:
            values = columns.array(stored)
        known = values[self.is_train]
        known = known[~np.isnan(known)]
        if len(known) == 0:
            where = "all rows" if np.isnan(values).all() else "all training rows"
            raise UserError(f"{self.path}: the label '{name}' is missing in {where}")
        if label.kind == "real":
            self.moments[name] = (
                float(known.mean(dtype=np.float64)),
                float(known.std(dtype=np.float64)),
            )
        elif label.kind == "binary":
            if label.value != ALWAYS and known.min() == known.max():
                only = f"the label '{name}' is {known[0]:g} in all training rows"
                raise UserError(f"{self.path}: {only}; two classes are needed")
        else:
            self.levels.setdefault(name, np.unique(known))
            if len(self.levels[name]) < 2:
                kind = "an ordinal" if label.kind == "ordinal" else "a multiclass"
                raise UserError(
                    f"{self.path}: column '{name}': {kind} label needs two distinct values or "
                    f"more in training, it has {len(self.levels[name])}"
                )
        return values

    def _classes(self, columns: Columns, name: str, fits: Fits) -> NDArray[np.float32]:
        """Classes as numbers: what they are, or of texts their places in order."""
        distinct = columns.distinct(f"label {name}")
        numbers = to_numbers(distinct)
        if numbers is not None and numbers.null_count == 0 and _is_exact(numbers):
            found = columns.coded(f"label {name}", distinct)
            return np.append(numbers.to_numpy().astype(np.float32), np.float32(np.nan))[found.codes]
        found = columns.coded(f"label {name}", distinct.cast(pa.large_string()))
        trained = found.values.take(pa.array(seen(found, self.is_train)))
        # What only the other parts have comes behind what training has.
        places = fits.vocabulary(f"labels.{name}", trained).grow(found.values)
        trained_places = np.unique(places.rows(trained) - 1)
        self.levels[name] = trained_places.astype(np.float32)
        return np.append(places.rows(found.values) - 1.0, np.nan).astype(np.float32)[found.codes]


def later_label(columns: Columns, name: str, fits: Fits) -> NDArray[np.float32]:
    """(n,) a label of interactions that came after the data, NaN = missing, or of texts a class
    that training lacks."""
    stored = f"label {name}"
    if not columns.is_discrete(stored):
        return columns.array(stored)
    found = columns.coded(stored, columns.distinct(stored))
    if fits.has_vocabulary(f"labels.{name}"):
        places = fits.vocabulary(f"labels.{name}", found.values[:0]).rows(found.values) - 1.0
        classes = np.where(places < 0, np.nan, places)
    else:
        numbers = to_numbers(found.values)
        assert numbers is not None, "classes are numbers or texts"
        classes = numbers.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return np.append(classes, np.nan).astype(np.float32)[found.codes]
