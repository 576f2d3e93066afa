# Fits of lme4 and lmerTest that show the order of evaluation, models without fixed effects, and types of tests.
#
#     Rscript tests/reference/formula_fits.R tests/reference
#
# The data are those of R's datasets, lme4 and lmerTest; the columns used stand in formula_fits.json beside the numbers.

suppressMessages({
  library(lme4)
  library(lmerTest)
  library(splines)
  library(jsonlite)
})

control <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-10, maxfun = 1e5), calc.derivs = FALSE)

tables <- list(
  airquality = datasets::airquality,
  sleepstudy = lme4::sleepstudy,
  carrots = lmerTest::carrots[, c("Preference", "sens2", "Age", "Homesize", "Work", "Consumer")],
  ham = transform(lmerTest::ham, Old = pmin(Age, 33)))  # no man of 31, no woman of 30

# name: data, formula
models <- list(
  poly = list("airquality", "Ozone ~ poly(Temp, 2) + (1 | Month)"),
  scale = list("airquality", "Ozone ~ scale(Temp) + (1 | Month)"),
  scale_missing = list("airquality", "Ozone ~ scale(Solar.R) + scale(Wind, scale = FALSE) + (1 | Month)"),
  spline = list("airquality", "Ozone ~ ns(Temp, df = 3) + bs(Wind, df = 4) + (1 | Month)"),
  spline_missing = list("airquality", "Ozone ~ ns(Solar.R, df = 3) + (1 | Month)"),
  mean = list("airquality", "Ozone ~ I(Temp - mean(Temp)) + (1 | Month)"),
  cut = list("airquality", "Ozone ~ cut(Temp, 3) + cut(Wind, c(0, 8, 12, 25)) + (1 | Month)"),
  random = list("airquality", "Ozone ~ Temp + (0 + scale(Wind) | Month)"),
  none = list("sleepstudy", "Reaction ~ 0 + (1 | Subject)"),
  none_slope = list("sleepstudy", "Reaction ~ 0 + (Days | Subject)"),
  none_crossed = list("sleepstudy", "Reaction ~ 0 + (1 | Subject) + (1 | Days)"),
  carrots = list("carrots", "Preference ~ sens2 + Age * Homesize * Work + (1 + sens2 | Consumer)"),
  ham = list("ham", "Informed.liking ~ Product * Information * Gender + factor(Old) * Gender + (1 | Consumer)"))

tests <- function(fit, type) {
  table <- suppressMessages(anova(fit, type = type))
  data.frame(term = rownames(table), sum_sq = table[["Sum Sq"]], num_df = table$NumDF, den_df = table$DenDF,
             F = table[["F value"]], row.names = NULL)
}

entry <- function(model) {
  data <- tables[[model[[1]]]]
  formula <- as.formula(model[[2]])
  # without fixed effects REML is ML; lme4's restricted criterion then reads a matrix of no columns, and is any number
  fixed <- !grepl("~ 0", model[[2]], fixed = TRUE)
  fit <- suppressMessages(suppressWarnings(if (fixed) lmerTest::lmer(formula, data, control = control)
                                           else lme4::lmer(formula, data, REML = FALSE, control = control)))
  beta <- fixef(fit)
  out <- list(data = model[[1]], formula = model[[2]], n = nobs(fit), criterion = -2 * as.numeric(logLik(fit)), sigma = sigma(fit),
              varcorr = as.data.frame(VarCorr(fit), order = "cov.last")$vcov, names = I(as.character(names(beta))), estimate = I(unname(beta)),
              std_error = I(unname(sqrt(diag(as.matrix(vcov(fit)))))), fitted = I(unname(fitted(fit)[1:5])))
  if (length(beta)) out$anova <- lapply(setNames(1:3, paste0("type", 1:3)), function(type) tests(fit, type))
  out
}

main <- function(output) {
  packages <- c("lme4", "lmerTest", "splines", "jsonlite")
  meta <- list(date = format(Sys.Date()), R = R.version.string, script = "tests/reference/formula_fits.R",
               packages = as.list(setNames(vapply(packages, function(p) as.character(packageVersion(p)), ""), packages)))
  text <- lapply(tables, function(data) lapply(as.list(data), function(x) if (is.factor(x)) as.character(x) else x))
  write_json(list(meta = meta, data = text, models = lapply(models, entry)), file.path(output, "formula_fits.json"),
             digits = 12, auto_unbox = TRUE, na = "null")
}

main(commandArgs(trailingOnly = TRUE)[1])
