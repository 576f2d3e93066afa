# Kenward-Roger tests of lmerTest and pbkrtest, and parametric-bootstrap likelihood ratio tests of pbkrtest.
#
#   python  tests/reference/make_lmm_data.py FOLDER
#   Rscript tests/reference/kenward_roger.R FOLDER tests/reference
#
# FOLDER holds the CSV files and models.json of make_lmm_data.py; kenward_roger.json is written. Fits are lme4's, polished as in
# make_lmm_reference.R. The tables of the models under `own` are made here and stand in the JSON.

arguments <- commandArgs(trailingOnly = TRUE)
stopifnot(length(arguments) == 2)
source_of <- function(path) {  # the functions of make_lmm_reference.R without its last line, which runs it
  lines <- readLines(path)
  eval(parse(text = lines[seq_len(length(lines) - 1)]), globalenv())
}
source_of(file.path(arguments[2], "make_lmm_reference.R"))
suppressPackageStartupMessages(library(pbkrtest))

MODELS <- c(
  "sleepstudy_intercept", "sleepstudy_slope", "sleepstudy_uncorrelated", "sleepstudy_square", "sleepstudy_poly",
  "penicillin_crossed", "pastes_nested", "cake_ordered", "cake_numeric", "cake_factor_slope", "dyestuff", "dyestuff2_zero",
  "orthodont_slope", "oxide_source", "machines_nested", "machines_slope", "machines_cell", "machines_uncorrelated", "rail",
  "bodyweight", "ovary", "pixel", "oats_nested", "oats_variety", "ergostool", "assay", "ratpup", "milk")

# Unbalanced tables with crossed factors, rounded so that JSON holds them exactly.
crossed <- function() {
  set.seed(20261126)
  table <- expand.grid(g = sprintf("g%02d", 1:11), h = sprintf("h%d", 1:7))
  table <- table[rep(seq_len(nrow(table)), 2), ]
  table <- table[sort(sample(nrow(table), 97)), ]
  table$x <- round(rnorm(nrow(table)), 2)
  table$f <- sample(c("a", "b", "c"), nrow(table), TRUE, c(.5, .3, .2))
  g <- as.integer(factor(table$g))
  h <- as.integer(factor(table$h))
  table$z <- round(rnorm(11)[g], 2)
  table$y <- round(2 + .4 * table$x + .3 * (table$f == "b") + .5 * table$z + rnorm(11)[g] + .6 * rnorm(11)[g] * table$x +
                   .8 * rnorm(7)[h] + rnorm(nrow(table)), 2)
  table
}
OWN <- list(
  crossed_unbalanced = "y ~ x + f + z + (1 | g) + (1 | h)",
  crossed_slope = "y ~ x * f + z + (x | g) + (1 | h)",
  crossed_two_slopes = "y ~ x + z + (x || g) + (x | h)",
  crossed_interaction = "y ~ f + z + (1 | g) + (1 | h) + (1 | g:h)")

t_table <- function(fit) {
  table <- summary(fit, ddf = "Kenward-Roger")$coefficients
  data.frame(term = rownames(table), estimate = table[, "Estimate"], se = table[, "Std. Error"], df = table[, "df"],
             t = table[, "t value"], p = table[, "Pr(>|t|)"], row.names = NULL)
}

f_table <- function(fit, type) {
  table <- as.data.frame(anova(fit, type = type, ddf = "Kenward-Roger"))
  if (!nrow(table)) return(NULL)
  data.frame(term = rownames(table), sum_sq = table[["Sum Sq"]], num_df = table$NumDF, den_df = table$DenDF,
             F = table[["F value"]], p = table[["Pr(>F)"]], row.names = NULL)
}

# All coefficients but an intercept, or all, at once: what no table of terms tests.
joint <- function(fit) {
  p <- length(fixef(fit))
  L <- diag(p)[if (names(fixef(fit))[1] == "(Intercept)" && p > 1) -1 else seq_len(p), , drop = FALSE]
  test <- KRmodcomp(fit, L)$test
  list(L = L, F = test["Ftest", "stat"], unscaled = test["FtestU", "stat"], scaling = test["Ftest", "F.scaling"],
       num_df = test["Ftest", "ndf"], den_df = test["Ftest", "ddf"], p = test["Ftest", "p.value"])
}

tests_of <- function(fit) {
  said <- collect_warnings({
    full <- lmerTest::as_lmerModLmerTest(fit)
    list(fixed = t_table(full), anova = lapply(setNames(1:3, paste0("type", 1:3)), function(type) f_table(full, type)),
         joint = joint(fit), vcov = unname(as.matrix(vcovAdj(fit))))
  })
  c(list(formula = paste(deparse(formula(fit), width.cutoff = 500), collapse = ""), criterion = lme4::REMLcrit(fit),
         singular = isSingular(fit, tol = 1e-4), warnings = I(said$said)), said$value)
}

bootstrap <- function(larger, smaller, data, nsim, seed) {
  large <- fit_model(list(formula = larger, reml = FALSE), data, lmerControl(optimizer = "bobyqa"))
  small <- fit_model(list(formula = smaller, reml = FALSE), data, lmerControl(optimizer = "bobyqa"))
  set.seed(seed)
  found <- suppressMessages(suppressWarnings(PBmodcomp(large, small, nsim = nsim, seed = seed)))
  test <- summary(found)$test
  reference <- as.numeric(found$ref)
  observed <- found$LRTstat[["tobs"]]
  list(larger = larger, smaller = smaller, nsim = nsim, seed = seed, used = found$samples[["npos"]], statistic = observed,
       df = found$LRTstat[["df"]], p = found$test["PBtest", "p.value"],
       p_all = (1 + sum(reference > observed)) / (1 + length(reference)), p_chisq = found$test["LRT", "p.value"],
       bartlett = test["Bartlett", "stat"], p_bartlett = test["Bartlett", "p.value"], mean = mean(reference),
       share_of_zeros = mean(reference < 1e-6), quantiles = I(quantile(reference, c(.5, .75, .9, .95), names = FALSE)))
}

folder <- arguments[1]
models <- fromJSON(file.path(folder, "models.json"), simplifyVector = FALSE)
packages <- c("lme4", "lmerTest", "pbkrtest", "Matrix", "minqa", "numDeriv", "jsonlite")
out <- list(
  meta = list(description = "Kenward-Roger tests by lmerTest and pbkrtest; parametric-bootstrap tests by pbkrtest",
              date = format(Sys.Date()), R = R.version.string,
              packages = as.list(setNames(vapply(packages, function(p) as.character(packageVersion(p)), ""), packages)),
              legend = list(models = "how to read the data: lmm.json", fixed = "summary(ddf = 'Kenward-Roger') of lmerTest",
                            anova = "anova(ddf = 'Kenward-Roger') of lmerTest, types I to III; sum_sq goes with the unscaled F",
                            joint = "KRmodcomp of pbkrtest", vcov = "vcovAdj of pbkrtest",
                            bootstrap = paste("PBmodcomp of pbkrtest; used: replicates with a positive statistic, on which its p stands;",
                                              "p_all: on all replicates"))),
  models = list(), own = list(), bootstrap = list())

for (name in MODELS) {
  model <- models[[name]]
  out$models[[name]] <- tests_of(fit_model(model, read_data(folder, model), tight()))
  message(name, " ", paste(out$models[[name]]$warnings, collapse = "; "))
}
out$table <- crossed()
for (name in names(OWN)) {
  out$own[[name]] <- tests_of(fit_model(list(formula = OWN[[name]], reml = TRUE), out$table, tight()))
  message(name, " ", paste(out$own[[name]]$warnings, collapse = "; "))
}
sleepstudy <- read_data(folder, models$sleepstudy_slope)
n <- as.integer(Sys.getenv("JAXMED_NSIM", "5000"))
out$bootstrap$sleepstudy_slope <- bootstrap("Reaction ~ Days + (Days | Subject)", "Reaction ~ Days + (1 | Subject)", sleepstudy, n, 1)
message("sleepstudy_slope")
out$bootstrap$orthodont_fixed <- bootstrap("distance ~ age * Sex + (1 | Subject)", "distance ~ age + Sex + (1 | Subject)",
                                           read_data(folder, models$orthodont_slope), n, 1)
message("orthodont_fixed")
out$bootstrap$crossed_fixed <- bootstrap("y ~ x + f + z + (1 | g) + (1 | h)", "y ~ x + f + (1 | g) + (1 | h)", out$table, n, 1)
message("crossed_fixed")
out$bootstrap$crossed_variance <- bootstrap("y ~ x + f + z + (1 | g) + (1 | h)", "y ~ x + f + z + (1 | g)", out$table, n, 1)
write_json(out, file.path(arguments[2], "kenward_roger.json"), digits = NA, auto_unbox = TRUE, na = "null", null = "null")
