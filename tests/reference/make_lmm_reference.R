# Reference numbers for plain mixed models: lme4 and lmerTest.
#
#   python  tests/reference/make_lmm_data.py FOLDER
#   Rscript tests/reference/make_lmm_reference.R FOLDER tests/reference
#
# FOLDER holds the CSV files and models.json of make_lmm_data.py; lmm.json is written. The environment variable
# JAXMED_REFERENCE_ONLY (names with commas) restricts the run; the other entries of an existing lmm.json are kept.
#
# lme4 minimises its own criterion with an optimizer made here (see `polish`): bobyqa from three starts, then nlminb,
# Nelder-Mead and Newton steps until the criterion stops falling. Everything else is what lme4 and lmerTest print.

suppressPackageStartupMessages({
  library(lme4)
  library(lmerTest)
  library(jsonlite)
})

SMALL <- 1000       # rows up to which random effects are written
PROFILED <- c("sleepstudy_intercept", "sleepstudy_slope", "dyestuff", "penicillin_crossed")
SLOW <- c("insteval")

# ---- optimizer ---------------------------------------------------------------------------------------------------------

# For lmerControl(optimizer = "polish"): minimises fn over theta with lower bounds; control$rounds bounds the work.
polish <- function(fn, par, lower, upper, control = list(), ...) {
  evaluations <- 0
  f <- function(x) {
    evaluations <<- evaluations + 1
    fn(pmax(x, lower))
  }
  slow <- isTRUE(control$slow)
  scales <- if (slow) 1 else c(1, 0.2, 3)
  runs <- lapply(scales, function(scale) {
    minqa::bobyqa(par * scale, f, lower, rep(Inf, length(par)), control = list(rhobeg = 0.2, rhoend = 1e-9, maxfun = 1e5))
  })
  run <- runs[[which.min(vapply(runs, `[[`, 0, "fval"))]]
  best <- list(par = run$par, value = run$fval)
  take <- function(x, value) {
    x <- pmax(x, lower)
    fell <- best$value - value
    if (is.finite(value) && fell > 0) best <<- list(par = x, value = value)
    fell
  }
  for (round in seq_len(if (slow) 1 else 6)) {
    before <- best$value
    run <- nlminb(best$par, f, lower = lower,
                  control = list(eval.max = 5000, iter.max = 2000, rel.tol = 1e-15, x.tol = 1e-12))
    take(run$par, run$objective)
    if (!slow) {
      run <- lme4::Nelder_Mead(f, best$par, lower = lower, upper = rep(Inf, length(par)),
                               control = list(maxfun = 5000, FtolAbs = 1e-12, FtolRel = 1e-16, XtolRel = 1e-10))
      take(run$par, run$fval)
      run <- minqa::bobyqa(best$par, f, lower, rep(Inf, length(par)),
                           control = list(rhobeg = 1e-3, rhoend = 1e-11, maxfun = 1e5))
      take(run$par, run$fval)
    }
    if (before - best$value < 1e-9) break
  }
  # Diagonal elements that can be 0 at no cost are 0.
  for (k in which(lower == 0 & best$par > 0 & best$par < 1e-3)) {
    x <- replace(best$par, k, 0)
    value <- f(x)
    if (value <= best$value + 1e-9) best <- list(par = x, value = value)
  }
  # Newton steps in the free elements: they settle the last digits of theta.
  free <- which(!(lower == 0 & best$par == 0))
  if (length(free)) {
    g <- function(z) f(replace(best$par, free, z))
    for (step in 1:2) {
      z <- best$par[free]
      gradient <- numDeriv::grad(g, z)
      hessian <- numDeriv::hessian(g, z)
      eigen <- eigen(hessian, symmetric = TRUE)
      keep <- eigen$values > 1e-6 * max(eigen$values)
      direction <- -eigen$vectors[, keep, drop = FALSE] %*%
        (crossprod(eigen$vectors[, keep, drop = FALSE], gradient) / eigen$values[keep])
      x <- pmax(replace(best$par, free, z + drop(direction)), lower)
      value <- f(x)
      if (!is.finite(value) || value > best$value + 1e-9) break
      best <- list(par = x, value = value)
      if (slow) break
    }
  }
  fn(best$par)  # leaves lme4's state at the optimum
  list(par = best$par, fval = best$value, feval = evaluations, convergence = 0, conv = 0, message = "polished")
}

tight <- function(slow = FALSE) {
  lmerControl(optimizer = "polish", optCtrl = list(slow = slow), calc.derivs = FALSE, boundary.tol = 0,
              check.conv.grad = "ignore", check.conv.hess = "ignore", check.conv.singular = "ignore",
              check.scaleX = "ignore")
}

# ---- one fit -----------------------------------------------------------------------------------------------------------

read_data <- function(folder, model) {
  data <- read.csv(file.path(folder, paste0(model$data, ".csv")), colClasses = NA, check.names = FALSE)
  for (name in names(model$factors)) {
    data[[name]] <- factor(as.character(data[[name]]), levels = unlist(model$factors[[name]]),
                           ordered = name %in% unlist(model$ordered))
  }
  data
}

# A fit whose call refers to the global variables the_data and the_control, so that update() and refits find them.
fit_model <- function(model, data, control, reml = model$reml) {
  the_data <<- data
  the_control <<- control
  call <- bquote(lme4::lmer(.(as.formula(model$formula, env = globalenv())), data = the_data, REML = .(reml),
                            control = the_control))
  if (!is.null(model$weights)) call$weights <- as.name(model$weights)
  if (!is.null(model$offset)) call$offset <- as.name(model$offset)
  eval(call, globalenv())
}

# Nakagawa and Schielzeth's R2 with Johnson's mean random-effect variance for random slopes.
variance_explained <- function(fit) {
  fixed <- var(as.vector(getME(fit, "X") %*% fixef(fit)))
  random <- mean(colSums((getME(fit, "Lambdat") %*% getME(fit, "Zt"))^2)) * sigma(fit)^2
  residual <- sigma(fit)^2
  total <- fixed + random + residual
  list(marginal = fixed / total, conditional = (fixed + random) / total, var_fixed = fixed, var_random = random,
       var_residual = residual, icc_adjusted = random / (random + residual), icc_unadjusted = random / total)
}

collect_warnings <- function(expr) {
  said <- character()
  value <- withCallingHandlers(
    tryCatch(expr, error = function(e) {
      said <<- c(said, paste("error:", conditionMessage(e)))
      NULL
    }),
    warning = function(w) {
      said <<- c(said, conditionMessage(w))
      invokeRestart("muffleWarning")
    },
    message = function(m) {
      said <<- c(said, trimws(conditionMessage(m)))
      invokeRestart("muffleMessage")
    })
  list(value = value, said = unique(said))
}

seconds_of <- function(fun, times = 5) {
  median(replicate(times, system.time(suppressMessages(suppressWarnings(fun())))[["elapsed"]]))
}

entry <- function(name, model, folder) {
  started <- Sys.time()
  slow <- name %in% SLOW
  data <- read_data(folder, model)
  caught <- collect_warnings(fit_model(model, data, tight(slow)))
  fit <- caught$value
  if (is.null(fit)) stop(name, ": ", caught$said)
  theta <- getME(fit, "theta")
  lower <- getME(fit, "lower")

  devfun <- update(fit, devFunOnly = TRUE)
  free <- which(!(lower == 0 & theta == 0))
  gradient <- rep(NA_real_, length(theta))
  if (length(free)) gradient[free] <- numDeriv::grad(function(z) devfun(replace(theta, free, z)), theta[free])

  tests <- collect_warnings({
    with_df <- lmerTest::as_lmerModLmerTest(fit)
    list(coefficients = summary(with_df, ddf = "Satterthwaite")$coefficients,
         anova = as.data.frame(anova(with_df, type = 3, ddf = "Satterthwaite")))
  })
  table <- tests$value$coefficients
  estimate <- fixef(fit)
  se <- sqrt(diag(as.matrix(vcov(fit))))
  fixed <- data.frame(term = names(estimate), estimate = unname(estimate), se = unname(se), t = unname(estimate / se))
  if (!is.null(table)) {
    fixed$df <- unname(table[, "df"])
    fixed$p <- unname(table[, "Pr(>|t|)"])
  }
  anova <- tests$value$anova
  if (!is.null(anova) && nrow(anova)) {
    anova <- data.frame(term = rownames(anova), sum_sq = anova[["Sum Sq"]], mean_sq = anova[["Mean Sq"]],
                        num_df = anova[["NumDF"]], den_df = anova[["DenDF"]], F = anova[["F value"]],
                        p = anova[["Pr(>F)"]])
  } else anova <- NULL

  ll <- logLik(fit)
  varcorr <- as.data.frame(VarCorr(fit), order = "lower.tri")
  quantiles <- quantile(residuals(fit, "pearson", scaled = TRUE), names = FALSE)
  out <- list(
    data = model$data, package = model$package, shared = model$shared, formula = model$formula, reml = model$reml,
    weights = model$weights, offset = model$offset, note = model$note,
    factors = lapply(model$factors, function(levels) if (length(levels) <= 30) I(unlist(levels))),
    ordered = I(as.character(unlist(model$ordered))), derived = if (length(model$derived)) model$derived,
    n = nobs(fit), n_dropped = nrow(data) - nobs(fit),
    groups = as.list(summary(fit)$ngrps),
    criterion = if (model$reml) lme4::REMLcrit(fit) else deviance(fit),
    loglik = as.numeric(ll), npar = attr(ll, "df"), AIC = AIC(fit), BIC = BIC(fit),
    theta = data.frame(name = names(theta), value = unname(theta), lower = ifelse(is.finite(lower), lower, NA), row.names = NULL),
    check = list(max_gradient = if (length(free)) max(abs(gradient[free])) else 0),
    sigma = sigma(fit),
    varcorr = varcorr, singular = isSingular(fit, tol = 1e-4),
    fixed = fixed, anova = anova, warnings = I(c(caught$said, tests$said)),
    scaled_residuals = I(quantiles), r2 = variance_explained(fit))
  if (length(estimate) > 1 && length(estimate) <= 12) {
    out$fixed_correlation <- unname(cov2cor(as.matrix(vcov(fit))))
  }
  if (nobs(fit) <= SMALL) {
    effects <- as.data.frame(ranef(fit, condVar = TRUE))
    effects <- do.call(rbind, lapply(split(effects, effects$grpvar, drop = TRUE), function(part) {
      labels <- as.character(part$grp)
      part[labels %in% head(sort(unique(labels), method = "radix"), 5), ]
    }))
    effects <- data.frame(grpvar = as.character(effects$grpvar), term = as.character(effects$term),
                          grp = as.character(effects$grp), value = effects$condval, sd = effects$condsd)
    out$ranef <- effects
    out$fitted_first5 <- I(unname(fitted(fit)[1:5]))
  }
  if (name %in% PROFILED) {
    # lme4's own optimizer here: profile() refits at every point and relies on its convergence messages
    plain <- fit_model(model, data, lmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-9, maxfun = 1e5)))
    interval <- suppressMessages(suppressWarnings(
      confint(plain, method = "profile", level = 0.95, oldNames = FALSE, quiet = TRUE)))
    out$confint_profile <- data.frame(name = rownames(interval), lower = unname(interval[, 1]), upper = unname(interval[, 2]))
  }
  if (slow) out$seconds <- seconds_of(function() fit_model(model, data, lmerControl()), 1)
  else out$seconds <- seconds_of(function() fit_model(model, data, lmerControl()))
  message(sprintf("%-24s %14.6f  singular %5s  gradient %.1e  %.1f s  %s", name, out$criterion, out$singular,
                  out$check$max_gradient, as.numeric(Sys.time() - started, units = "secs"),
                  paste(unlist(out$warnings), collapse = "; ")))
  out
}

# ---- more than one fit ---------------------------------------------------------------------------------------------------

# anova() of two nested models, refitted by ML where their fixed effects differ (here always, as lme4 does).
likelihood_ratio <- function(models, folder, small, large) {
  fits <- lapply(c(small, large), function(name) {
    fit_model(models[[name]], read_data(folder, models[[name]]), tight(), reml = FALSE)
  })
  one <- fits[[1]]
  two <- fits[[2]]
  table <- as.data.frame(anova(one, two, refit = FALSE))
  list(small = small, large = large, what = "both fitted by ML",
       table = data.frame(model = c(small, large), npar = table$npar, AIC = table$AIC, BIC = table$BIC,
                          loglik = table$logLik, deviance = table$deviance),
       chisq = table$Chisq[2], df = table$Df[2], p = table[["Pr(>Chisq)"]][2])
}

predictions <- function(models, folder) {
  model <- models$sleepstudy_slope
  fit <- fit_model(model, read_data(folder, model), tight())
  new <- data.frame(Days = c(0, 5, 9, 12, 3, 7), Subject = c("308", "308", "309", "372", "999", "999"))
  list(model = "sleepstudy_slope", new = new, what = "Subject 999 is new: allow.new.levels = TRUE",
       re_form_null = I(unname(predict(fit, newdata = new, re.form = NULL, allow.new.levels = TRUE))),
       re_form_na = I(unname(predict(fit, newdata = new, re.form = NA))))
}

bootstrap_seconds <- function(models, folder, times = 100) {
  model <- models$sleepstudy_slope
  fit <- fit_model(model, read_data(folder, model), lmerControl())
  taken <- system.time(suppressMessages(suppressWarnings(bootMer(fit, fixef, nsim = times, seed = 1))))[["elapsed"]]
  list(model = "sleepstudy_slope", what = "bootMer(fit, fixef, nsim), parametric, one process", nsim = times,
       seconds_per_refit = taken / times)
}

meta <- function() {
  packages <- c("lme4", "lmerTest", "Matrix", "minqa", "numDeriv", "jsonlite")
  list(description = "plain mixed models by lme4 (polished) with lmerTest's Satterthwaite tests",
       date = format(Sys.Date()), R = R.version.string, platform = R.version$platform,
       packages = as.list(setNames(vapply(packages, function(p) as.character(packageVersion(p)), ""), packages)),
       scripts = I(c("tests/reference/make_lmm_data.py", "tests/reference/make_lmm_reference.R")),
       command = I(c("python tests/reference/make_lmm_data.py FOLDER",
                     "Rscript tests/reference/make_lmm_reference.R FOLDER tests/reference")),
       legend = list(
         factors = "levels by column; null: more than 30, integers in order of size, other labels by code point",
         derived = "columns made from the others by pandas' DataFrame.eval",
         weights = "column of prior weights: residual variance is sigma^2 / weight",
         offset = "column added to the linear predictor with coefficient 1; not part of the fixed effects nor of R2",
         criterion = "REML: -2 log restricted likelihood; ML: -2 log likelihood, all constants included",
         npar = "fixed effects + elements of theta + 1; also for REML",
         BIC = "with log(n), n the rows used, also for REML",
         theta = paste("relative Cholesky factors, lower triangles by column, terms in lme4's order (falling number of",
                       "levels); lower = null: unbounded"),
         check = "largest derivative of the criterion by an element of theta that is not fixed at its bound 0",
         varcorr = paste("as.data.frame(VarCorr(fit)): var2 null: variance and sd; else covariance and correlation;",
                         "a correlation with a variance of 0 is null"),
         singular = "isSingular(fit, tol = 1e-4)",
         fixed = "df and p: Satterthwaite (lmerTest)",
         anova = "type III, Satterthwaite; absent: no term",
         warnings = "what lme4 and lmerTest said",
         scaled_residuals = "min, 1Q, median, 3Q, max of Pearson residuals / sigma, as print(summary(fit))",
         r2 = paste("Nakagawa; var_random is Johnson's mean over rows of z' G z, var_fixed the sample variance (n - 1)",
                    "of X beta; icc_adjusted = random / (random + residual), icc_unadjusted = random / total"),
         ranef = "conditional modes and standard deviations, the first five labels by sort order; small data only",
         confint_profile = "95 percent, profile likelihood (ML)",
         seconds = "lmer with its default controls, median of 5 (insteval: once), one thread, on a machine in use"))
}

main <- function(args) {
  stopifnot(length(args) == 2)
  folder <- args[1]
  path <- file.path(args[2], "lmm.json")
  models <- fromJSON(file.path(folder, "models.json"), simplifyVector = FALSE)
  only <- strsplit(Sys.getenv("JAXMED_REFERENCE_ONLY"), ",")[[1]]
  out <- list(meta = meta(), models = list())
  if (length(only) && file.exists(path)) {
    out <- fromJSON(path, simplifyVector = FALSE)
    out$meta <- meta()
  }
  save <- function() {
    write_json(out, path, digits = NA, auto_unbox = TRUE, pretty = FALSE, na = "null", null = "null")
  }
  for (name in if (length(only)) intersect(names(models), only) else names(models)) {
    out$models[[name]] <- entry(name, models[[name]], folder)
    save()
  }
  out$likelihood_ratio <- list(
    likelihood_ratio(models, folder, "sleepstudy_intercept", "sleepstudy_slope"),
    likelihood_ratio(models, folder, "sleepstudy_uncorrelated", "sleepstudy_slope"),
    likelihood_ratio(models, folder, "exam_slope", "exam_gender"))
  out$predict <- predictions(models, folder)
  out$bootmer <- bootstrap_seconds(models, folder)
  save()
}

main(commandArgs(trailingOnly = TRUE))
