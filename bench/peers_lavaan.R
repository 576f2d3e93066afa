# Seconds that lavaan takes for the mediation x -> m -> y as two-level structural equations: ML, fixed slopes, random intercepts.
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
    m ~~ m
    y ~~ y
    m ~~ y
  indirect := a * b
"
fit <- function() sem(model, data = data, cluster = "id")
value <- suppressWarnings(fit())  # warm up
taken <- replicate(as.integer(arguments[2]), system.time(suppressWarnings(fit()))[["elapsed"]])
cat(paste("lavaan", packageVersion("lavaan")), median(taken), sprintf("%.3f", as.numeric(logLik(value))), sep = "\t")
