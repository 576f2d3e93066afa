# Numbers of mitml, mice and lme4 for pooled fits of the five imputations of tests/imputed_data.py.
#
#     python  tests/imputed_data.py FILE.csv
#     Rscript tests/reference/imputed.R FILE.csv tests/reference

suppressMessages({
  library(lmerTest)
  library(mitml)
  library(jsonlite)
})
given <- commandArgs(trailingOnly = TRUE)
long <- read.csv(given[1], check.names = FALSE)
tables <- split(long, long[[".imp"]])
control <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-10))
asmitml <- function(fits) structure(unname(fits), class = c("mitml.result", "list"))
out <- list()
for (name in c("m ~ x + (1 | id)", "y ~ m + x + (m | id)")) {
  fits <- lapply(tables, function(d) lmer(as.formula(name), d, control = control))
  complete <- rowMeans(sapply(fits, function(f) coef(summary(f))[, "df"]))
  large <- testEstimates(asmitml(fits), extra.pars = TRUE)
  small <- testEstimates(asmitml(fits), df.com = complete)
  scalar <- lapply(names(fixef(fits[[1]])), function(term) {
    q <- sapply(fits, function(f) fixef(f)[term])
    u <- sapply(fits, function(f) vcov(f)[term, term])
    one <- mice::pool.scalar(q, u, n = Inf)
    list(term = term, estimate = one$qbar, total = one$t, df = one$df, fmi = one$fmi)
  })
  pack <- function(found) {
    e <- found$estimates
    lapply(seq_len(nrow(e)), function(k) as.list(c(e[k, ], term = rownames(e)[k])))
  }
  out[[name]] <- list(
    rubin = pack(large), barnard_rubin = pack(small), mice = scalar, df_complete = unname(complete),
    variances = as.list(large$extra.pars[, 1])
  )
}
versions <- sapply(c("lme4", "lmerTest", "mitml", "mice"), function(p) as.character(packageVersion(p)))
write_json(
  list(meta = list(R = R.version.string, packages = as.list(versions)), models = out),
  file.path(given[2], "imputed.json"), auto_unbox = TRUE, digits = NA, pretty = TRUE
)
