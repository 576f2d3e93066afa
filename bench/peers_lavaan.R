# Seconds that lavaan takes for the mediation x -> m -> y on latent cluster means, two-level structural equations: ML, fixed slopes.
#
#   Rscript bench/peers_lavaan.R DATA.csv REPEATS
#
# Prints "lavaan VERSION<TAB>median seconds<TAB>log-likelihood".

suppressPackageStartupMessages(library(lavaan))

arguments <- commandArgs(trailingOnly = TRUE)
data <- read.csv(arguments[1])
model <- "
  level: 1
    m ~ a * x
    y ~ b * m + c * x
  level: 2
    m ~ ab * x
    y ~ bb * m + cb * x
  within := a * b
  between := ab * bb
"
fit <- function() sem(model, data = data, cluster = "id", fixed.x = FALSE)
value <- suppressWarnings(fit())  # warm up
taken <- replicate(as.integer(arguments[2]), system.time(suppressWarnings(fit()))[["elapsed"]])
cat(paste("lavaan", packageVersion("lavaan")), median(taken), sprintf("%.3f", as.numeric(logLik(value))), sep = "\t")
