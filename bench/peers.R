# Seconds that nlme and glmmTMB take for one joint fit of the 1-1-1 system: rows stacked, all slopes random, REML,
# one residual variance per equation, the programs' own default controls (nlme: more iterations allowed).
#
#   Rscript bench/peers.R DATA.csv REPEATS
#
# Prints a line "name<TAB>median seconds<TAB>version<TAB>log-likelihood", or "name<TAB>NA<TAB>why", per program.

arguments <- commandArgs(trailingOnly = TRUE)
data <- read.csv(arguments[1])
repeats <- as.integer(arguments[2])

block <- function(response, is_m) {
  data.frame(z = data[[response]], id = data$id, equation = response,
             m0 = is_m, mx = is_m * data$x, y0 = 1 - is_m, yx = (1 - is_m) * data$x, ym = (1 - is_m) * data$m)
}
rows <- rbind(block("m", 1), block("y", 0))
rows$id <- factor(rows$id)
rows$equation <- factor(rows$equation)
rows <- rows[order(rows$id, rows$equation), ]

programs <- list(
  nlme = function() {
    nlme::lme(z ~ 0 + m0 + mx + y0 + yx + ym, data = rows, random = ~ 0 + m0 + mx + y0 + yx + ym | id,
              weights = nlme::varIdent(form = ~ 1 | equation), method = "REML",
              control = nlme::lmeControl(maxIter = 200, msMaxIter = 200, returnObject = TRUE))
  },
  glmmTMB = function() {
    glmmTMB::glmmTMB(z ~ 0 + m0 + mx + y0 + yx + ym + us(0 + m0 + mx + y0 + yx + ym | id),
                     dispformula = ~ 0 + equation, data = rows, REML = TRUE)
  }
)

for (name in names(programs)) {
  if (!requireNamespace(name, quietly = TRUE)) {
    cat(name, "NA", "the R package is not installed", sep = "\t")
  } else {
    fit <- programs[[name]]
    result <- tryCatch({
      value <- suppressWarnings(fit())  # warm up
      taken <- replicate(repeats, system.time(suppressWarnings(fit()))[["elapsed"]])
      c(median(taken), as.character(packageVersion(name)), sprintf("%.4f", as.numeric(logLik(value))))
    }, error = function(e) c("NA", gsub("[\t\n]", " ", conditionMessage(e))))
    cat(name, result, sep = "\t")
  }
  cat("\n")
}
