"""Checks of single arguments, without pandas, and warnings at the line of the user's own code."""

from __future__ import annotations

import difflib
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from numbers import Real
from pathlib import Path
from typing import TypeAlias, TypeVar, cast

import numpy as np

from jaxmed.errors import InputError, JaxmedWarning

MOST_DIGITS = 17  # of a 64-bit float
LONGEST = 200  # characters of a value in a message

Option = TypeVar("Option", bound=str)

# What options are called elsewhere, without case and hyphens: by the methodological literature and by other programs.
SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "group_mean": ("cwc", "clustermean", "personmean", "withincluster"),
    "grand_mean": ("cgm", "grand"),
    "none": ("uncentered", "uncentred"),
    "percentile": ("perc", "percent", "pct"),
    "normal": ("norm",),
    "bc": ("biascorrected",),
    "bca": ("biascorrectedaccelerated", "biascorrectedandaccelerated"),
    "studentised": ("studentized", "student", "stud", "bootstrapt"),
    "calibrated": ("double", "doublebootstrap", "iterated", "prepivoted"),
    "monte_carlo": ("mc", "mcmam"),
    "bayesian": ("bayes",),
    "parametric": ("param",),
    "chisq": ("chisquare", "chi2", "lrt"),
    "bootstrap": ("parametricbootstrap", "pb"),
    "satterthwaite": ("satt",),
    "kenward-roger": ("kr",),
    "chi-square": ("chisq", "chi2", "chisquared"),
    "profile": ("profilelikelihood", "likelihoodratio", "lrt"),
}
# What a seed may be, see `read_seed`.
Seed: TypeAlias = int | float | np.random.Generator | np.random.SeedSequence | None


def warn_user(message: str) -> None:
    """Warn at the line of the user's own code: the first frame outside this package."""
    depth = 1
    while True:
        try:
            frame = sys._getframe(depth)
        except ValueError:
            break
        if not str(frame.f_globals.get("__name__", "")).startswith("jaxmed."):
            break
        depth += 1
    warnings.warn(message, JaxmedWarning, stacklevel=depth + 1)


def shown(value: object) -> str:
    """A value as a message shows it: NumPy's scalars as Python's own, nothing longer than a line.

    Example:
        >>> shown(np.int64(1224)), shown([np.str_("a"), np.float64(0.5)])
        ('1224', "['a', 0.5]")
    """
    try:
        text = repr(_plain(value))
    except Exception:  # of a foreign class, or a whole number too long to print
        text = ""
    if not text or "\n" in text:
        return f"a {type(value).__module__}.{type(value).__qualname__}"
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def _plain(value: object) -> object:
    """Python's own values for NumPy's, within lists and dictionaries too."""
    if isinstance(value, np.datetime64 | np.timedelta64):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set) and type(value) in (list, tuple, set):
        return type(value)(_plain(one) for one in value)
    return value


def listed(items: Iterable[object], limit: int = 5) -> str:
    """The first items, quoted and separated by commas; "..." stands for the rest."""
    first = list(islice(items, limit + 1))
    return ", ".join(map(shown, first[:limit])) + (", ..." if len(first) > limit else "")


def near(name: object, known: Iterable[str]) -> str:
    """A question after the closest of the known names, or nothing where none is close.

    Example:
        >>> near("efects", ["effects", "level"]), near("colour", ["effects"])
        (" did you mean 'effects'?", '')
    """
    if not isinstance(name, str):
        return ""
    folded = {word.lower(): word for word in known}
    close = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.6)
    return f" did you mean {folded[close[0]]!r}?" if close else ""


def choices(name: object, known: Iterable[str]) -> str:
    """What could have been meant, and what there is: the end of a message about a name that is not known.

    Example:
        >>> choices("pth", ["path", "forest"])
        " did you mean 'path'? choose one of 'path', 'forest'."
    """
    known = list(known)
    return f"{near(name, known)} choose one of {listed(known, 20)}."


def as_list(given: object) -> list[object]:
    """Several values as a list; one value, as a text and a dictionary are, as a list of it.

    Example:
        >>> as_list("ab"), as_list((1, 2)), as_list(np.array(3))
        (['ab'], [1, 2], [array(3)])
    """
    scalar = isinstance(given, str | bytes | Mapping) or (isinstance(given, np.ndarray) and not given.ndim)
    return [given] if scalar or not isinstance(given, Iterable) else list(given)


def chosen_names(argument: str, asked: object, known: Sequence[str], what: str = "label of the table") -> list[str]:
    """The names asked for, one or several, as a list; an InputError for others than the ``known`` ones, with the closest."""
    given = as_list(asked)
    names = [name for name in given if isinstance(name, str)]
    if len(names) < len(given):
        raise InputError(f"{argument}={shown(asked)} is neither a {what} nor a list of them; there are {listed(known, 20)}.")
    if not names:
        raise InputError(f"{argument}={shown(asked)} is empty; give at least one {what}; there are {listed(known, 20)}.")
    if unknown := [name for name in names if name not in known]:
        raise InputError(f"{argument}={unknown[0]!r} is no {what};{choices(unknown[0], known)}")
    return names


def require_option(argument: str, value: object, valid: Sequence[Option]) -> Option:
    """The one of ``valid`` that ``value`` means, whatever its case and hyphens, by its name or a word of ``SYNONYMS``.

    Example:
        >>> require_option("center", "CWC", ("group_mean", "grand_mean", "none"))
        'group_mean'

    Raises:
        InputError: it means none of them; the message lists them.
    """
    if isinstance(value, str):
        written = folded(value)
        for option in valid:
            if written == folded(option) or written in SYNONYMS.get(option, ()):
                return option
    near = difflib.get_close_matches(folded(value), [folded(option) for option in valid], n=1) if isinstance(value, str) else []
    hint = "".join(f"did you mean {option!r}? Or " for option in valid if folded(option) in near)
    raise InputError(f"{argument}={shown(value)} is not an option; {hint}use one of {listed(valid, len(valid))}.")


def folded(word: str) -> str:
    """A word without case, blanks, hyphens, points and underscores."""
    return "".join(character for character in word.lower() if character.isalnum())


def require_level(level: object) -> float:
    """A level of confidence as a float; an InputError, with what was meant, unless it is a number between 0 and 1."""
    number = cast(float, level) if isinstance(level, Real) and not isinstance(level, bool) else np.nan
    if 0 < number < 1:
        return float(number)
    hint = ""
    if isinstance(level, str) and level.strip().removesuffix("%").replace(".", "", 1).isdigit():
        meant = float(level.strip().removesuffix("%"))
        hint = f": it is text; write level={meant if meant < 1 else meant / 100:g}" if meant < 100 else ""
    elif 1 < number < 100:
        hint = f" (for {number:g} percent write level={number / 100:g})"
    elif isinstance(level, Iterable) and not isinstance(level, str | Mapping):
        hint = "; give one level, and call once for each"
    raise InputError(f"level={shown(level)} is not a number between 0 and 1, such as 0.95{hint}.")


def require_whole(argument: str, value: object, least: int, remark: str = "") -> None:
    """``value`` is a whole number of at least ``least`` that 64 bits hold, else an InputError; ``remark`` ends it."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= int(value) < 2**63:
        raise InputError(f"{argument}={shown(value)} must be a whole number of at least {least} (and below 2**63){remark}")


def require_digits(digits: object, least: int) -> None:
    """``digits`` is a number of digits that floats have."""
    require_whole("digits", digits, least)
    if cast(int, digits) > MOST_DIGITS:
        raise InputError(f"digits={shown(digits)} is more than numbers have; use at most {MOST_DIGITS}.")


def require_bool(argument: str, value: object) -> None:
    """``value`` is True or False."""
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{argument}={shown(value)} is not an option; use True or False.")


def read_seed(seed: object, argument: str = "seed") -> int:
    """A seed as a whole number from 0 to 2**63 - 1, with which the same call gives the same numbers again.

    None draws a fresh one of 32 bits from the operating system. A numpy Generator gives its next number, so that it moves on;
    a SeedSequence the number that belongs to it. Whole floats such as 1.0 count as whole numbers.

    Example:
        >>> read_seed(7), read_seed(7.0), read_seed(np.random.SeedSequence(7)) == read_seed(np.random.SeedSequence(7))
        (7, 7, True)
    """
    if seed is None:
        seed = np.random.SeedSequence()
    if isinstance(seed, np.random.Generator):
        return int(seed.integers(2**32))
    if isinstance(seed, np.random.SeedSequence):
        return int(seed.generate_state(1, np.uint32)[0])
    number = isinstance(seed, int | float | np.integer | np.floating) and not isinstance(seed, bool)
    if number and 0 <= seed < 2**63 and seed == int(seed):  # pyright: ignore
        return int(seed)  # pyright: ignore
    raise InputError(
        f"{argument}={shown(seed)} cannot be used; give a whole number of at least 0 (and below 2**63), a numpy Generator or "
        "SeedSequence, or None for a fresh one."
    )


def require_path(argument: str, value: object) -> Path:
    """A path of the file system, with "~" for the user's folder; an InputError for what is none."""
    if not isinstance(value, str | os.PathLike):
        raise InputError(f"{argument}={shown(value)} is no path; give text or a pathlib.Path.")
    text = os.fspath(value)
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise InputError(f"{argument}={shown(text)} is no path: it is empty, holds a NUL or is no text.")
    try:
        os.fsencode(text)
        return Path(text).expanduser()
    except (RuntimeError, ValueError) as error:  # no such user, characters without an encoding
        raise InputError(f"{argument}={shown(text)} is no path: {error}.") from error


def check_functions(extra: Mapping[str, Callable] | None) -> None:
    """``extra`` maps names to functions."""
    if extra is None:
        return
    if not isinstance(extra, Mapping) or not all(isinstance(k, str) and k and callable(f) for k, f in extra.items()):
        raise InputError(
            f"extra={shown(extra)} is not a dictionary from names to functions of the parameters, such as "
            "{'a squared': lambda p: p['m:x_within'] ** 2}."
        )
