"""The arguments of ``jaxmed.mediate``: the one place with their names, defaults and form in files, and their first checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from jaxmed.arguments import check_functions, listed, require_bool, require_option
from jaxmed.calls import check_names
from jaxmed.design.mediation.centering import CENTRINGS, Centring
from jaxmed.design.mediation.contrasts import SCHEMES, Scheme
from jaxmed.errors import InputError
from jaxmed.files import plain

Names: TypeAlias = str | Sequence[str]
RandomArgument: TypeAlias = str | Sequence[str] | Mapping[str, bool | Names] | None
CovariateArgument: TypeAlias = Names | Mapping[str, Names] | None
ModeratorArgument: TypeAlias = Mapping[str, Names] | None
LatentSlopes: TypeAlias = Literal["shrunken", "observed"] | Mapping[str, Mapping[str, float]]
Sharing = Literal["full", "by_equation", "diagonal"]

LATENT_SLOPES = ("shrunken", "observed")
COVARIANCES: tuple[Sharing, ...] = ("full", "by_equation", "diagonal")
ROLES = {"x": "x", "m": "m", "y": "y", "cluster": "id"}  # that every model needs, each with an example
# which columns are read, and how: sums are made for these
COLUMNS = (*ROLES, "serial", "moderators", "covariates", "coding", "contrasts", "interaction")


@dataclass(frozen=True, eq=False)
class MediationArguments:
    """The arguments of a mediation as they were given; what they mean is documented at ``jaxmed.mediate``.

    Options are written in one way ("CWC" is "group_mean") and lists are copies of the user's. Whatever can be checked of one
    argument alone is checked here, the rest by ``matrices.specify``.

    Raises:
        InputError: an unknown option, something else than True or False, functions that are none.

    Example:
        >>> made = MediationArguments(x="x", m="m", y="y", cluster="id", center="CWC", random=["a"])
        >>> made.center, made.given()
        ('group_mean', {'x': 'x', 'm': 'm', 'y': 'y', 'cluster': 'id', 'random': ['a']})
    """

    x: str | None = None
    m: Names | None = None
    y: str | None = None
    cluster: str | None = None
    random: RandomArgument = None
    moderators: ModeratorArgument = None
    moderator_values: Mapping[str, Any] | None = None
    covariates: CovariateArgument = None
    random_covariates: CovariateArgument = None
    center: Centring = "group_mean"
    latent_slopes: LatentSlopes = "shrunken"
    center_covariates: bool = True
    between: bool | Names = True
    covariance: Sharing = "full"
    levels: Mapping[str, int] | None = None
    extra: Mapping[str, Callable] | None = None
    coding: Mapping[str, Sequence[Any]] | None = None
    reml: bool = True
    serial: bool = False
    contrasts: Scheme = "treatment"
    interaction: bool = False
    interaction_values: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        require_bool("reml", self.reml)
        require_bool("serial", self.serial)
        require_bool("interaction", self.interaction)
        require_bool("center_covariates", self.center_covariates)
        check_functions(self.extra)
        written: dict[str, Any] = {name: _copied(getattr(self, name)) for name in NAMES}
        written["center"] = require_option("center", self.center, CENTRINGS)
        if not isinstance(self.latent_slopes, Mapping):
            written["latent_slopes"] = require_option("latent_slopes", self.latent_slopes, LATENT_SLOPES)
        written["contrasts"] = require_option("contrasts", self.contrasts, SCHEMES)
        written["covariance"] = require_option("covariance", self.covariance, COVARIANCES)
        for name, value in written.items():
            object.__setattr__(self, name, bool(value) if isinstance(value, np.bool_) else value)

    def given(self) -> dict[str, Any]:
        """The arguments that are not at their defaults."""
        pairs = ((field.name, getattr(self, field.name), field.default) for field in fields(self))
        return {name: value for name, value, default in pairs if type(value) is not type(default) or value != default}

    def changed(self, changes: Mapping[str, Any]) -> MediationArguments:
        """Arguments for the same sums of products: those that say which columns are read stay as they are.

        Raises:
            InputError: a change of these.

        Example:
            >>> made = MediationArguments(x="x", m="m", y="y", cluster="id", random="all")
            >>> made.changed({"center": "none", "x": "x"}).given()
            {'x': 'x', 'm': 'm', 'y': 'y', 'cluster': 'id', 'random': 'all', 'center': 'none'}
        """
        for name in COLUMNS:
            if name in changes and (plain(changes[name]) or None) != (plain(getattr(self, name)) or None):
                free = [other for other in NAMES if other not in COLUMNS]
                raise InputError(
                    f"{name}= cannot be changed: the sums were made for {name}={plain(getattr(self, name))!r}; only "
                    f"{listed(free, len(free))} can. Make the sums anew from the data."
                )
        if "center" in changes and (changes["center"] == "latent") != (self.center == "latent"):
            raise InputError(
                f"center={changes['center']!r}: the sums were made for center={self.center!r}, and with latent cluster means x "
                "has an equation of its own and other rows count. Make the sums anew from the data."
            )
        return replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        """As files keep them; of the functions in ``extra`` there are the names alone.

        Example:
            >>> made = MediationArguments(x="x", m=("m",), y="y", cluster="id", extra={"f": abs})
            >>> made.to_json()["m"], made.to_json()["extra"]
            (['m'], ['f'])
        """
        return {name: plain(getattr(self, name)) for name in NAMES} | {"extra": sorted(self.extra or {})}

    @classmethod
    def from_json(cls, kept: Mapping[str, Any], extra: Mapping[str, Callable] | None = None) -> MediationArguments:
        """The inverse of :meth:`to_json`, with the functions, which no file keeps; what is not there is at its default.

        Raises:
            ArgumentError: arguments that this version does not have.
            InputError: values that are none.
        """
        check_names("mediate", kept, NAMES)
        return cls(**{name: value for name, value in kept.items() if name != "extra"}, extra=extra)


NAMES = tuple(field.name for field in fields(MediationArguments))


def _copied(value: Any) -> Any:
    """Dictionaries and lists anew, so that a later change of the user's own does not reach a fit."""
    if isinstance(value, Mapping):
        return {key: _copied(one) for key, one in value.items()}
    return [_copied(one) for one in value] if type(value) is list else value
