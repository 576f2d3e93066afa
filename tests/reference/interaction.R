# The product of x and m within clusters: lmer of each equation, natural effects by VanderWeele's (2014) closed forms of its
# coefficients with delta-method errors (the equations' estimates are independent); for test_interaction.py.
#
#   python -c "import sys; sys.path.insert(0, 'tests'); from interaction_data import interacting; interacting().to_csv('rows.csv', index=False)"
#   Rscript tests/reference/interaction.R rows.csv > tests/reference/interaction.json

suppressPackageStartupMessages(library(lme4))
data <- read.csv(commandArgs(trailingOnly = TRUE)[1])
for (v in c("x", "m")) {
  mean_of <- ave(data[[v]], data$id)
  data[[paste0(v, "w")]] <- data[[v]] - mean_of
  data[[paste0(v, "b")]] <- mean_of - mean(data[[v]])
}
control <- lmerControl(optCtrl = list(xtol_abs = 1e-10, ftol_abs = 1e-12))
first <- lmer(m ~ xw + xb + (1 | id), data, control = control)
second <- lmer(y ~ xw + xb + mw + mb + xw:mw + (1 | id), data, control = control)
low <- 0 - mean(data$x)
high <- 1 - mean(data$x)
held <- 2 - mean(data$m)
theta <- c(a = fixef(first)[["xw"]], fixef(second)[c("xw", "mw", "xw:mw")])
names(theta) <- c("a", "c", "b", "h")
V <- matrix(0, 4, 4)
V[1, 1] <- as.matrix(vcov(first))["xw", "xw"]
V[2:4, 2:4] <- as.matrix(vcov(second))[c("xw", "mw", "xw:mw"), c("xw", "mw", "xw:mw")]
forms <- list(
  cde = quote(c + h * held), "int_ref[m]" = quote(h * (a * low - held)), "int_med[m]" = quote(h * a),
  "pnie[m]" = quote(a * (b + h * low)), "tnie[m]" = quote(a * (b + h * high)),
  pnde = quote(c + h * a * low), tnde = quote(c + h * a * high), total = quote(c + h * a * low + a * (b + h * high))
)
told <- sapply(names(forms), function(name) {
  found <- eval(deriv(forms[[name]], names(theta)), c(as.list(theta), list(low = low, high = high, held = held)))
  g <- attr(found, "gradient")
  sprintf("\"%s\": [%.8f, %.8f]", name, found, sqrt(g %*% V %*% t(g)))
})
cat(sprintf("{\"made_by\": \"R %s.%s, lme4 %s\",\n \"effects\": {%s}}\n", R.version$major, R.version$minor, packageVersion("lme4"),
            paste(told, collapse = ", ")))
