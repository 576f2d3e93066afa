"""What a plain mixed model tells its bootstrap, the report, the figures and the tables about itself."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, cast

import numpy as np
import pandas as pd

from jaxmed.arguments import require_option
from jaxmed.calls import verbs
from jaxmed.design.formula.coding import factor_levels
from jaxmed.design.formula.model import LmmDesign, new_matrices
from jaxmed.design.formula.variables import columns_of
from jaxmed.design.frames import with_columns
from jaxmed.errors import InputError
from jaxmed.inference.draws import RESPONSES
from jaxmed.inference.quantities import MixedRows, mixed_rows
from jaxmed.reml import crossed
from jaxmed.reml.crossed_fit import CrossedFit
from jaxmed.reml.problem import Estimates
from jaxmed.report import descriptives, mixed_frames, mixed_tables
from jaxmed.report.drawing import MixedFigures
from jaxmed.report.mixed_tables import DF
from jaxmed.report.result import Drawn, FitResult, Picture, Section
from jaxmed.report.shown import Checkable, Labels
from jaxmed.report.tables import Block

if TYPE_CHECKING:
    from jaxmed.inference import mixed
    from jaxmed.inference.mixed import AnyScheme
    from jaxmed.inference.schemes import Scheme
    from jaxmed.reml.fit import FittedSystem
    from jaxmed.report.check_plots import Checked
    from jaxmed.report.variance_tables import Shares

MOST_LEVELS = 6  # of a factor whose shares are described
WEIGHTS = ".weights"  # the column of a resampled table that holds weights given as an array


@verbs
class MixedFit(MixedFigures, FitResult, Checkable):
    """A fit of a plain mixed model; see LMMResult for what users call."""

    design: LmmDesign
    estimates: CrossedFit
    reml: bool
    weights: Any

    if TYPE_CHECKING:  # of LMMResult
        formula: Any
        deviance: Any
        loglik: Any
        aic: Any
        bic: Any
        singular: Any
        n_obs: Any
        n_groups: Any
        fixef: Any
        fixef_correlation: Any
        ranef: Any
        varcorr: Any
        residuals: Any
        fitted: Any
        glance: Any
        unidentified_words: Any
        _require_identified: Any
        _series: Any

    def _blocks(self, df: DF = "satterthwaite") -> list[Block]:
        information = {"AIC": self.aic, "BIC": self.bic, "logLik": self.loglik, "deviance": self.deviance}
        varcorr = self.varcorr()
        return mixed_tables.blocks(
            formula=self.formula,
            reml=self.reml,
            criterion=self.deviance,
            information=information,
            scaled=self.residuals("scaled").to_numpy(),
            varcorr=varcorr,
            n_obs=self.n_obs,
            n_groups=self.n_groups,
            fixed=self.fixef(df=df),
            correlation=self.fixef_correlation(),
            df=df,
            sentences=self._sentences(),
        )

    def describe(self, level: float = 0.95, df: DF = "satterthwaite", *, labels: Labels = None) -> str:
        """The fit as a paragraph in APA style, with the numbers of ``fixef(level, df)``.

        Args:
            level: of the intervals.
            df: degrees of freedom, as of :meth:`fixef`.
            labels: names of columns as people read them, ``{"pss10": "Perceived stress"}``.

        Raises:
            InputError: labels that are none; and as :meth:`fixef`.

        Example:
            >>> mixed.describe().split(". ")[0].partition(" was ")[2]
            'fitted to 389 rows with 40 levels of id by restricted maximum likelihood'
        """
        from jaxmed.report import paragraphs

        df = require_option("df", df, tuple(mixed_tables.DEGREES))
        with self._labelled(labels):
            return paragraphs.mixed_fit_paragraph(self, self.fixef(level, df), level, mixed_tables.DEGREES[df])

    def r_squared(self) -> pd.DataFrame:
        """How much of the variance of the response is explained, by level and source (Rights & Sterba 2019).

        Predictors are split at the groups' means, whether the formula does so or not.

        Returns:
            equation (the response); level, "total", "within" or "between" groups: of whose variance; symbol, in the notation of
            Rights and Sterba, "R2t(f1)"; source, the same in words; estimate. For intervals see ``bootstrap().r_squared()``.

        Raises:
            InputError: several grouping factors (``glance()`` has R^2 of these), weights, variances that are not identified.

        Example:
            >>> mixed.r_squared()["symbol"].tolist()[:3]
            ['R2t(f1)', 'R2t(f2)', 'R2t(f)']
        """
        from jaxmed.report import variance_tables

        shares = self._shares
        e = self.estimates
        return variance_tables.of_fit(shares, Estimates(e.beta, self._model_G, np.array([e.sigma2])))

    @property
    def _model_G(self) -> np.ndarray:
        """G of the only grouping factor."""
        L = self.estimates.theta[0]
        return self.estimates.sigma2 * L @ L.T

    @property
    def _shares(self) -> Shares:
        return self._parts

    @cached_property
    def _parts(self) -> Shares:
        from jaxmed.inference import r_squared, variance_parts
        from jaxmed.report.variance_tables import Shares

        d = self.design
        factors, members = crossed.factors_of(d.terms)
        if len(factors) > 1:
            raise InputError("r_squared() is of two levels, and this model has several grouping factors; glance() has its R^2.")
        if (d.weights != 1).any():
            raise InputError("r_squared() is of residuals of one variance, and this model has weights; glance() has its R^2.")
        self._require_identified("r_squared()")
        terms = [d.terms[bar] for bar in members[0]]
        Z = np.concatenate([term.matrix for term in terms], 1)
        columns = variance_parts.of_rows(d.fixed, Z, terms[0].codes, len(terms[0].levels))
        names = [name for term in terms for name in term.names]
        rows = r_squared.shares([1], [any(name != "Intercept" for name in names)], [bool(names)])

        def values(estimates: Estimates, weights: np.ndarray | None) -> np.ndarray:
            spread = variance_parts.spread(columns, weights)
            found = variance_parts.parts(spread, estimates.beta, estimates.G, estimates.sigma2[..., 0])
            return r_squared.values(rows, found[..., None, :])

        return Shares((self._response,), rows, values)

    _tables: ClassVar[tuple[str, ...]] = ("fixef", "varcorr", "anova", "ranef", "glance")

    @property
    def _title(self) -> str:
        return "Linear mixed model"

    @property
    def _response(self) -> str:
        return self.formula.partition("~")[0].strip()

    def _fixed(self, level: float) -> pd.DataFrame:
        frame = self.fixef(level)
        return frame.assign(name=frame["term"])

    def _effects(self, level: float) -> pd.DataFrame:
        return self._mediation_design("what='effects'")

    def _foot(self) -> dict[str, Any]:
        row = {str(name): value for name, value in self.glance().iloc[0].to_dict().items()}
        groups = self.n_groups
        return row | ({"n_clusters": int(groups.iloc[0])} if len(groups) == 1 else {})

    def _sections(self) -> list[Section]:
        from jaxmed.report import equations

        return [*self._described(), ("Model", equations.mixed_model(self))]

    def descriptives(self) -> pd.DataFrame:
        """What the variables of the formula are like in the rows used: a row for each number, and for each level of a factor but
        its first, as shares of 0 and 1 (factors of more than six levels are left out).

        Returns:
            variable, level, n, mean, sd, minimum, maximum, icc. With one grouping factor level is 1 or 2, n counts groups at
            level 2, and icc is the intraclass correlation of the analysis of variance. With several ``level`` is "rows" or the
            factor within whose groups the variable is constant, and there is one such correlation for each, "icc_school".

        Example:
            >>> mixed.descriptives()["variable"].tolist()
            ['m', 'x']
        """
        columns, groups = self._numbers()
        if len(groups) == 1:
            return descriptives.table(columns, pd.Series(next(iter(groups.values()))))
        return descriptives.crossed_table(columns, groups)

    def _numbers(self) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
        """The variables as numbers, and each row's group of every factor, over the rows used."""
        d = self.design
        groups = {term.group: term.codes for term in d.terms}
        factors = {name for group in groups for name in group.split(":")}
        found: dict[str, np.ndarray] = {}
        for name in dict.fromkeys([d.response, *d.columns]):
            if name not in self.data or name in factors:
                continue
            values = self.data[name].iloc[d.rows]
            if pd.api.types.is_numeric_dtype(values):
                found[str(name)] = values.to_numpy(float)
                continue
            levels = factor_levels(values)
            shares = {f"{name} = {level}": (values == level).to_numpy(float) for level in levels[1:]}
            found |= shares if len(levels) <= MOST_LEVELS else {}
        return pd.DataFrame(found), groups

    def _described(self) -> list[Section]:
        columns, groups = self._numbers()
        if columns.empty:
            return []
        pairs = descriptives.correlations(columns, pd.Series(next(iter(groups.values())))) if len(groups) == 1 else None
        counted = "groups for variables of level 2" if len(groups) == 1 else "groups where a variable is constant within them"
        notes = [
            f"{descriptives.ICC} n counts {counted}; rows are those that the model uses.",
            *descriptives.sizes_in_words(groups),
        ]
        return [descriptives.section(self.descriptives(), pairs, notes)]

    def _parameter_tables(self) -> list[tuple[str, pd.DataFrame]]:
        return [("Fixed effects", self.fixef()), ("Random effects", self.varcorr().drop(columns="parameter"))]

    def _report_tables(self) -> list[tuple[str, pd.DataFrame]]:
        return self._parameter_tables()

    def _pictures(self) -> list[Picture]:
        from jaxmed.report import document

        return document.pictures([*(["coefficients"] if self.design.fixed_names else []), "ranef", "check"])

    def _diagnostics(self) -> list[str]:
        return self._sentences()

    def _sentences(self) -> list[str]:
        words = mixed_tables.words(self.converged, self.singular, self.varcorr())
        return [*self.design.notes, *words, *self.unidentified_words()]

    def _cited(self) -> list[str]:
        return ["bates", "kuznetsova"]

    def _code(self) -> list[str]:
        weights = ", weights=...  # as in the fit" if (self.design.weights != 1).any() else ""
        made = f"fit = jm.lmm({self.formula!r}, data, reml={self.reml}{weights})"
        return [made, "print(fit.summary())", 'fit.report("report.html")']

    # what its bootstrap asks ---------------------------------------------------------------------------------------

    @property
    def _quantities(self) -> MixedRows:
        return self._rows

    @cached_property
    def _rows(self) -> MixedRows:
        _, members = crossed.factors_of(self.design.terms)
        bars = [(term.group, term.names) for term in self.design.terms]
        return mixed_rows(self.design.fixed_names, bars, members)

    def _rows_frame(self) -> pd.DataFrame:
        return mixed_frames.draws_frame(self.design.fixed_names, self.varcorr())

    def _row_blocks(self, frame: pd.DataFrame, heading: str) -> list[tuple[str, pd.DataFrame]]:
        hidden = ["label", "parameter", "p_count", "n_draws"]
        return [(f"{heading[:1].upper()}{heading[1:]}", frame.drop(columns=[name for name in hidden if name in frame]))]

    def _parameters_of(self, estimates: Estimates) -> tuple[list[str], np.ndarray]:
        return list(self._quantities.labels), self._quantities.values(estimates)

    def _pictures_of_draws(self, boot: Drawn) -> list[Picture]:
        from jaxmed.report import document

        return document.pictures([*(["forest"] if self.design.fixed_names else []), "density", "health", "check"])

    def _paragraph(self, boot: Drawn, table: pd.DataFrame, level: float, method: str | None) -> str:
        from jaxmed.report import paragraphs

        return paragraphs.mixed_paragraph(boot, table, level, method)

    def _require_scheme(self, kind: str, strata: bool) -> None:
        self._require_identified("bootstrap()")

    def _of_products(self) -> list[str]:
        return [label for label, tested in zip(self._quantities.labels, self._quantities.tested, strict=True) if not tested]

    @cached_property
    def _model(self) -> mixed.Mixed:
        """The model with every row times the root of its weight."""
        from jaxmed.inference import mixed

        d, root = self.design, self._root[:, None]
        factors, _ = crossed.factors_of(d.terms)
        factors = [f._replace(matrix=f.matrix * root) for f in factors]
        groups = tuple(dict.fromkeys(term.group for term in d.terms))
        y = (d.y - d.offset) * self._root
        return mixed.Mixed(factors, d.fixed * root, y, self.reml, self.estimates, d.terms[0].levels, groups)

    @cached_property
    def _system(self) -> FittedSystem | None:
        from jaxmed.inference import mixed

        return mixed.system(self._model) if len(self._model.factors) == 1 else None

    @property
    def _root(self) -> np.ndarray:
        return np.sqrt(self.design.weights)

    def _scheme(self, kind: str, seed: int, strata: np.ndarray | None, factor: str) -> AnyScheme:
        from jaxmed.inference import mixed

        return mixed.scheme(self._model, self._system, kind, seed, strata, factor)

    def _strata_numbers(self, strata: Any) -> np.ndarray | None:
        from jaxmed.report import bootstrap_call

        if strata is None or self._system is None:  # with several grouping factors the scheme refuses it
            return None if strata is None else np.zeros(0)
        return bootstrap_call.strata_numbers(self._system.design, self.data, strata, self.design.rows)

    def _new_response(self, made: list[np.ndarray]) -> pd.Series:
        return self._series(made[0] / self._root + self.design.offset, self.design.response)

    def _replicate_data(self, scheme: AnyScheme, i: int) -> pd.DataFrame:
        table = pd.DataFrame(self.data.iloc[self.design.rows])
        if scheme.kind in RESPONSES:
            if self.design.response not in table:
                raise InputError(f"the response {self.design.response!r} is no column of the data; use response({i})")
            return table.assign(**{self.design.response: self._new_response(scheme.new_responses(i))})
        group = self.design.terms[0].group
        drawn = cast("Scheme", scheme).new_rows(i)
        if drawn.relabelled and group not in table:
            raise InputError(f"the grouping factor {group!r} is no column of the data; make it one to relabel its copies")
        if self.weights is not None and not isinstance(self.weights, str):
            table = with_columns(table, {WEIGHTS: self.design.weights}, "resample()")
        out = table.iloc[drawn.rows].reset_index(drop=True)
        return out.assign(**{group: drawn.codes}) if drawn.relabelled else out

    def _kept_call(self) -> dict[str, Any]:
        weights = self.weights if self.weights is None or isinstance(self.weights, str) else WEIGHTS
        return {"verb": "lmm", "formula": self.formula, "reml": self.reml, "weights": weights}

    def _kept_arrays(self) -> dict[str, np.ndarray]:
        from jaxmed.report.saved_tables import to_arrays

        read = {*self.design.columns, self.weights if isinstance(self.weights, str) else None}
        kept = [name for name in self.data.columns if isinstance(name, str) and name in read]
        weights = {} if self.weights is None or isinstance(self.weights, str) else {WEIGHTS: np.asarray(self.weights, float)}
        return to_arrays(self.data.loc[:, kept]) | weights

    def _checked(self) -> list[Checked]:
        from jaxmed.report.check_plots import Checked

        table = self.ranef()
        pairs = dict.fromkeys(zip(table["term"].tolist(), table["group"].tolist(), strict=True))
        random = {
            f"{term} by {group}": table.loc[(table["term"] == term) & (table["group"] == group), "estimate"].to_numpy(float)
            for term, group in pairs
        }
        return [Checked(self._response, self.fitted().to_numpy(), self.residuals("scaled").to_numpy(), random)]

    def _predictors(self) -> list[str]:
        """Columns of the data that fixed effects and offsets are made of: those that change a prediction."""
        coding = self.design.coding
        recipes = [*(coding.recipes[label] for label in coding.parsed.fixed.nodes), *coding.offsets]
        return list(columns_of(recipe.node for recipe in recipes))

    @property
    def _response_column(self) -> str | None:
        """The response where it is a column as it is."""
        response = self.design.coding.parsed.response
        return response.text if response.kind == "name" and response.text in self.data else None

    def _predicted(self, table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Predictions without random effects, and their standard errors."""
        new = new_matrices(self.design, table, random=False)
        X = new.fixed
        error = np.sqrt(np.einsum("ni,ij,nj->n", X, self.estimates.vcov, X))
        return X @ self.estimates.beta + new.offset, error

    def _column_names(self) -> tuple[list[str], list[str]]:
        d = self.design
        used = dict.fromkeys([*map(str, d.columns), *(term.group for term in d.terms)])
        terms = [name for name in d.fixed_names if name != "Intercept"]
        return list(used), [*map(str, self.data.columns), *terms]

    def _level_labels(self, labels: Mapping[str, str]) -> dict[str, str]:
        found = {}
        for recipe in self.design.coding.recipes.values():
            if recipe.contrast is None or recipe.node.text not in labels:
                continue
            numbers = range(1, len(recipe.levels) + 1)  # of contrasts that are not by level, as R writes them
            for level in (*recipe.levels, *numbers, ".L", ".Q", ".C", *(f"^{k}" for k in numbers)):
                found[f"{recipe.label}{level}"] = f"{labels[recipe.node.text]} {level}"
        return {name: label for name, label in found.items() if name not in self.data}

    def _mediation_design(self, what: str) -> NoReturn:
        raise InputError(f"{what} needs results of mediate() and their bootstraps; this one is of a plain mixed model.")
