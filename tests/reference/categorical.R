# An x with several categories: fixed effects by lme4 (helmert contrasts as PROCESS scales them) and, of whole clusters on latent
# means, coefficients, relative indirect effects and their Wald test by lavaan; for test_categorical.py.
#
#   python -c "import sys; sys.path.insert(0, 'tests'); from arms_data import arms; arms(slopes=0.3).to_csv('rows.csv', index=False); arms(J=150, n=8, level=2).to_csv('clusters.csv', index=False)"
#   Rscript tests/reference/categorical.R rows.csv clusters.csv > tests/reference/categorical.json

suppressPackageStartupMessages({library(lme4); library(lavaan)})
files <- commandArgs(trailingOnly = TRUE)

data <- read.csv(files[1])
data$h1 <- c(A = -2 / 3, B = 1 / 3, C = 1 / 3)[data$arm]
data$h2 <- c(A = 0, B = -1 / 2, C = 1 / 2)[data$arm]
names_of <- c("(Intercept)" = "Intercept", h1 = "arm[mean(B, C) - A]", h2 = "arm[C - B]", m = "m")
control <- lmerControl(optCtrl = list(xtol_abs = 1e-10, ftol_abs = 1e-12))
told <- function(fit) {
  s <- coef(summary(fit))
  paste(sprintf("\"%s\": [%.8f, %.8f]", names_of[rownames(s)], s[, 1], s[, 2]), collapse = ", ")
}
first <- told(lmer(m ~ h1 + h2 + (1 | id), data, control = control))
second <- told(lmer(y ~ h1 + h2 + m + (m | id), data, control = control))

data <- read.csv(files[2])
data$x1 <- 1 * (data$arm == "B")
data$x2 <- 1 * (data$arm == "C")
model <- "
level: 1
  y ~ bw * m
level: 2
  m ~ a1 * x1 + a2 * x2
  y ~ b * m + c1 * x1 + c2 * x2
ind1 := a1 * b
ind2 := a2 * b
"
fit <- sem(model, data, cluster = "id")
found <- parameterEstimates(fit)
found <- found[found$label != "", ]
quoted <- function(values) paste(sprintf("\"%s\": %.8f", found$label, values), collapse = ", ")
b <- coef(fit)
V <- vcov(fit)[c("a1", "a2", "b"), c("a1", "a2", "b")]
J <- rbind(c(b["b"], 0, b["a1"]), c(0, b["b"], b["a2"]))
t <- c(b["a1"], b["a2"]) * b["b"]
wald <- drop(t %*% solve(J %*% V %*% t(J), t))
cat(sprintf(
  "{\"made_by\": \"R %s.%s, lme4 %s, lavaan %s\",\n \"lme4\": {\"m\": {%s},\n  \"y\": {%s}},\n \"lavaan\": {\"loglik\": %.6f, \"wald\": %.8f,\n  \"estimate\": {%s},\n  \"std_error\": {%s}}}\n",
  R.version$major, R.version$minor, packageVersion("lme4"), packageVersion("lavaan"), first, second, logLik(fit), wald,
  quoted(found$est), quoted(found$se)
))
