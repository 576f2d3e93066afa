# R^2 of two equations by the formulas of the R package r2mlm (Rights & Sterba 2019, functions for cluster-mean-centred
# predictors), of fits by lme4.
#
#   python -c "import jaxmed; jaxmed.datasets.split_model(n_clusters=60).data.to_csv('r_squared.csv', index=False)"
#   Rscript tests/reference/r_squared.R r_squared.csv tests/reference/r_squared.json
suppressPackageStartupMessages({library(lme4); library(jsonlite)})
files <- commandArgs(TRUE)
data <- read.csv(files[1])
for (name in c("x", "m")) {
  data[[paste0(name, "_b")]] <- ave(data[[name]], data$id)
  data[[paste0(name, "_w")]] <- data[[name]] - data[[paste0(name, "_b")]]
}

r2mlm <- function(fit, within, between, slopes) {
  gamma <- fixef(fit)
  Tau <- as.matrix(VarCorr(fit)$id)[c("(Intercept)", slopes), c("(Intercept)", slopes)]
  phi_w <- var(data[, within, drop = FALSE]); phi_b <- var(data[, between, drop = FALSE])
  phi <- var(cbind(1, data[, slopes, drop = FALSE]))
  f1 <- drop(t(gamma[within]) %*% phi_w %*% gamma[within])
  f2 <- drop(t(gamma[between]) %*% phi_b %*% gamma[between])
  v <- sum(diag(Tau) * diag(phi)) + 2 * sum(Tau[lower.tri(Tau)] * phi[lower.tri(phi)])
  m <- Tau[1, 1]; s <- sigma(fit)^2
  total <- f1 + f2 + v + m + s; w <- f1 + v + s; b <- f2 + m
  list("R2t(f1)" = f1 / total, "R2t(f2)" = f2 / total, "R2t(f)" = (f1 + f2) / total, "R2t(v)" = v / total,
       "R2t(m)" = m / total, "R2t(fvm)" = (f1 + f2 + v + m) / total, "R2w(f1)" = f1 / w, "R2w(v)" = v / w,
       "R2w(f1v)" = (f1 + v) / w, "R2b(f2)" = f2 / b, "R2b(m)" = m / b)
}

control <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-9, maxfun = 1e5))
of_m <- lmer(m ~ x_w + x_b + (x_w | id), data, control = control)
of_y <- lmer(y ~ x_w + x_b + m_w + m_b + (x_w + m_w | id), data, control = control)
out <- list(m = r2mlm(of_m, "x_w", "x_b", "x_w"), y = r2mlm(of_y, c("x_w", "m_w"), c("x_b", "m_b"), c("x_w", "m_w")),
            versions = list(R = R.version.string, lme4 = as.character(packageVersion("lme4"))))
write(toJSON(out, auto_unbox = TRUE, digits = NA, pretty = TRUE), files[2])
