"""What to cite for which part of the method."""

CITED = {
    "bauer": "Bauer, D. J., Preacher, K. J., & Gil, K. M. (2006). Conceptualizing and testing random indirect effects "
    "and moderated mediation in multilevel models. Psychological Methods, 11, 142-163.",
    "kenny": "Kenny, D. A., Korchmaros, J. D., & Bolger, N. (2003). Lower level mediation in multilevel models. "
    "Psychological Methods, 8, 115-128.",
    "zhang": "Zhang, Z., Zyphur, M. J., & Preacher, K. J. (2009). Testing multilevel mediation using hierarchical "
    "linear models. Organizational Research Methods, 12, 695-719.",
    "preacher": "Preacher, K. J., Zyphur, M. J., & Zhang, Z. (2010). A general multilevel SEM framework for assessing multilevel "
    "mediation. Psychological Methods, 15, 209-233.",
    "luedtke": "Lüdtke, O., Marsh, H. W., Robitzsch, A., Trautwein, U., Asparouhov, T., & Muthén, B. (2008). The multilevel "
    "latent covariate model: A new, more reliable approach to group-level effects in contextual studies. Psychological "
    "Methods, 13, 203-229.",
    "hayes": "Hayes, A. F. (2015). An index and test of linear moderated mediation. Multivariate Behavioral Research, 50, 1-22.",
    "imai": "Imai, K., Keele, L., & Yamamoto, T. (2010). Identification, inference and sensitivity analysis for causal "
    "mediation effects. Statistical Science, 25, 51-71.",
    "efron": "Efron, B., & Tibshirani, R. J. (1993). An Introduction to the Bootstrap. Chapman & Hall.",
    "rubin": "Rubin, D. B. (1987). Multiple Imputation for Nonresponse in Surveys. Wiley.",
    "leeden": "Van der Leeden, R., Meijer, E., & Busing, F. M. T. A. (2008). Resampling multilevel models. In J. de "
    "Leeuw & E. Meijer (Eds.), Handbook of Multilevel Analysis (pp. 401-433). Springer.",
    "olea": "Montiel Olea, J. L., & Plagborg-Møller, M. (2019). Simultaneous confidence bands: theory, "
    "implementation, and an application to SVARs. Journal of Applied Econometrics, 34, 1-17.",
    "johnson": "Johnson, P. O., & Neyman, J. (1936). Tests of certain linear hypotheses and their application to some "
    "educational problems. Statistical Research Memoirs, 1, 57-93.",
    "bates": "Bates, D., Mächler, M., Bolker, B., & Walker, S. (2015). Fitting linear mixed-effects models using lme4."
    " Journal of Statistical Software, 67(1), 1-48.",
    "rights": "Rights, J. D., & Sterba, S. K. (2019). Quantifying explained variance in multilevel models: An integrative "
    "framework for defining R-squared measures. Psychological Methods, 24, 309-338.",
    "kuznetsova": "Kuznetsova, A., Brockhoff, P. B., & Christensen, R. H. B. (2017). lmerTest package: tests in linear "
    "mixed effects models. Journal of Statistical Software, 82(13), 1-26.",
}


TITLE = "jaxmed: multilevel mediation by one joint REML fit, bootstrapped on JAX"  # of CITATION.cff


def software(version: str) -> str:
    """This package, as CITATION.cff has it.

    Example:
        >>> software("1.0").startswith("jaxmed maintainers. jaxmed: multilevel mediation")
        True
    """
    return f"jaxmed maintainers. {TITLE} (Version {version}) [Computer software]."
