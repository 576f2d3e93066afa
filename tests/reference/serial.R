# Serial mediation on latent cluster means by lavaan: log-likelihood, coefficients and standard errors, for test_serial.py.
#
#   python -c "import sys; sys.path.insert(0, 'tests'); from serial_data import chain; chain(J=100, slopes=0.0).to_csv('chain.csv', index=False)"
#   Rscript tests/reference/serial.R chain.csv > tests/reference/serial.json

suppressPackageStartupMessages(library(lavaan))
data <- read.csv(commandArgs(trailingOnly = TRUE)[1])
model <- "
level: 1
  m1 ~ aw1 * x
  m2 ~ aw2 * x + dw * m1
  y ~ bw1 * m1 + bw2 * m2 + cw * x
level: 2
  m1 ~ ab1 * x
  m2 ~ ab2 * x + db * m1
  y ~ bb1 * m1 + bb2 * m2 + cb * x
chain_within := aw1 * dw * bw2
chain_between := ab1 * db * bb2
"
fit <- sem(model, data, cluster = "id", fixed.x = FALSE)
found <- parameterEstimates(fit)
variances <- found$est[found$op == "~~" & found$lhs == found$rhs]
found <- found[found$label != "", ]
quoted <- function(values) paste(sprintf("\"%s\": %.8f", found$label, values), collapse = ", ")
cat(sprintf(
  "{\"made_by\": \"R %s.%s, lavaan %s\", \"loglik\": %.6f, \"smallest_variance\": %.6f,\n \"estimate\": {%s},\n \"std_error\": {%s}}\n",
  R.version$major, R.version$minor, packageVersion("lavaan"), logLik(fit), min(variances), quoted(found$est), quoted(found$se)
))
