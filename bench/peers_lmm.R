# Seconds that lme4 takes for plain mixed models: one fit, parametric bootstrap refits, and a large crossed fit.
#
#   Rscript bench/peers_lmm.R FOLDER [REPEATS] [REFITS]
#
# FOLDER holds sleepstudy.csv and InstEval.csv, as tests/reference/make_lmm_data.py writes them. lme4's own default
# controls. Prints one JSON object; peak memory is the process's high-water mark (Linux only, else null).

suppressPackageStartupMessages({
  library(lme4)
  library(jsonlite)
})

arguments <- commandArgs(trailingOnly = TRUE)
folder <- arguments[1]
repeats <- if (length(arguments) > 1) as.integer(arguments[2]) else 20L
refits <- if (length(arguments) > 2) as.integer(arguments[3]) else 200L

elapsed <- function(fun) system.time(suppressMessages(suppressWarnings(fun())))[["elapsed"]]

# Linux: the most memory this process has held, in MB; null elsewhere.
peak_mb <- function() {
  line <- tryCatch(grep("^VmHWM", readLines("/proc/self/status"), value = TRUE), error = function(e) character(),
                   warning = function(w) character())
  if (length(line)) as.numeric(gsub("[^0-9]", "", line)) / 1024
}

read <- function(name, factors) {
  data <- read.csv(file.path(folder, paste0(name, ".csv")))
  data[factors] <- lapply(data[factors], factor)
  data
}

sleepstudy <- read("sleepstudy", "Subject")
fit_sleepstudy <- function() lmer(Reaction ~ Days + (Days | Subject), sleepstudy)
fit <- fit_sleepstudy()  # warm up
sleepstudy_seconds <- vapply(seq_len(repeats), function(k) elapsed(fit_sleepstudy), 0)
bootstrap_seconds <- elapsed(function() bootMer(fit, fixef, nsim = refits, seed = 1))

insteval_path <- file.path(folder, "InstEval.csv")
insteval <- if (file.exists(insteval_path)) {
  data <- read("InstEval", c("s", "d", "service", "dept"))
  before <- peak_mb()
  large <- NULL
  seconds <- elapsed(function() large <<- lmer(y ~ service * dept + (1 | s) + (1 | d), data))
  list(formula = "y ~ service * dept + (1 | s) + (1 | d)", rows = nrow(data), seconds = seconds,
       criterion = REMLcrit(large), peak_mb_before = before, peak_mb = peak_mb())
}

cat(toJSON(list(
  sleepstudy = list(formula = "Reaction ~ Days + (Days | Subject)", repeats = repeats,
                    seconds_median = median(sleepstudy_seconds), seconds_min = min(sleepstudy_seconds),
                    criterion = REMLcrit(fit)),
  bootmer = list(what = "bootMer(fit, fixef), parametric, one process", refits = refits, seconds = bootstrap_seconds,
                 seconds_per_refit = bootstrap_seconds / refits),
  insteval = insteval,
  versions = list(R = R.version.string, lme4 = as.character(packageVersion("lme4")))
), auto_unbox = TRUE, digits = NA, null = "null"), "\n")
