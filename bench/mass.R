# Seconds that lme4's refit() takes for one response after the other.
#
#   Rscript bench/mass.R FOLDER FORMULA
#
# FOLDER holds data.csv and responses.csv (a column for each). Prints one JSON object.

suppressPackageStartupMessages({
  library(lme4)
  library(jsonlite)
})

arguments <- commandArgs(trailingOnly = TRUE)
data <- read.csv(file.path(arguments[1], "data.csv"))
responses <- read.csv(file.path(arguments[1], "responses.csv"))
data$value <- responses[[1]]
first <- lmer(as.formula(arguments[2]), data)
taken <- system.time(for (one in responses) suppressMessages(suppressWarnings(refit(first, one))))
cat(toJSON(list(seconds = taken[["elapsed"]] / length(responses), cpu = sum(taken[c("user.self", "sys.self")]) / length(responses),
                version = as.character(packageVersion("lme4"))), auto_unbox = TRUE), "\n")
