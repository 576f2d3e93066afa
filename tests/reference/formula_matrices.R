# Model matrices, random-effects terms, type III contrasts and F statistics of all types of R, lme4 and lmerTest, for tests/unit.
#
#     Rscript tests/reference/formula_matrices.R tests/reference

suppressMessages({
  library(lme4)
  library(lmerTest)
  library(splines)
  library(jsonlite)
})

make_data <- function(n = 48) {
  set.seed(20)
  data <- data.frame(
    a = sample(c("a1", "a2", "a3"), n, TRUE),
    b = sample(c("u", "v"), n, TRUE, c(.65, .35)),
    time = factor(sample(c("pre", "mid", "post"), n, TRUE), levels = c("pre", "mid", "post"), ordered = TRUE),
    dose = factor(sample(c("d0", "d1", "d2", "d5", "d9"), n, TRUE), levels = c("d0", "d1", "d2", "d5", "d9"), ordered = TRUE),
    flag = sample(c(TRUE, FALSE), n, TRUE),
    k = sample(c(2L, 4L, 10L), n, TRUE),
    x = round(rnorm(n), 3),
    z = round(rexp(n) + .1, 3),
    school = rep(c("s2", "s10", "s1", "s3"), each = n / 4),
    room = rep(c("r1", "r2", "r3"), times = n / 3),
    id = rep(1:16, times = n / 16))
  data[["my x"]] <- round(rnorm(n), 3)
  data$cell <- ifelse(data$b == "v" & data$a == "a3", "e1", sub("a", "e", data$a))  # e3 occurs with b = u alone
  data$y <- round(rnorm(n) + data$x + (data$a == "a2") * (1 + data$x) + rnorm(16)[data$id], 3)
  data
}

# Text as factors, the levels in the order of the C locale.
as_read <- function(data) {
  for (name in c("a", "b", "school", "room", "cell")) data[[name]] <- factor(data[[name]], sort(unique(data[[name]]), method = "radix"))
  data
}

fixed_formulas <- c(
  "a*b", "0 + a", "a:x", "0 + a:x", "0 + a + b:x", "a:b", "a + a:b", "0 + a*b - a", "time", "a*time", "0 + time", "time:x",
  "dose", "dose*a", "flag", "flag*x", "0 + flag", "poly(x, 2)", "poly(x,2)*a", "poly(x, 2, raw=TRUE)", "poly(x, 1)", "scale(x)",
  "scale(log(z))", "scale(x, scale=FALSE)", "bs(x, df=4)", "bs(x, knots=c(-.5, 1))", "ns(x, df=3)", "ns(x)", "I(x^2) + log(z)",
  "I(x**2-z/2)", "sqrt(z):a", "`my x`*a", "as.factor(k)", "factor(k)*x", "(a + b + x)^2", "a/b", "a/x", "(a + b)/x", "b %in% a",
  "a*b*x - a:b:x", "-1 + x", "a + x - 1", "C(a, contr.sum)*b", "C(a, contr.helmert)", "C(time)", "I(1e5*x + 2.50) + I(x/100000)", "I(x > 0)*a", "x + a:x", "b:x + a*x",
  "1", "x*a + z*a", "a*b*time",
  "relevel(a, ref = 'a2')*x", "relevel(factor(k), '4')", "factor(a, levels = c('a3', 'a1', 'a2'))",
  "factor(k, levels = c(10, 4, 2), labels = c('ten', 'four', 'two'))", "ordered(a, levels = c('a2', 'a1', 'a3'))",
  "cut(x, 3)", "cut(x, c(-5, 0, .5, 5))*b", "cut(z, c(0, 1, 2, 10), right = FALSE)",
  "cut(z, c(0, 1, 10), labels = c('low', 'high'))", "cut(x, 4, labels = FALSE)", "cut(k, c(2, 4, 10), include.lowest = TRUE)",
  "cut(x, c(-5, 0, 1, 5), ordered_result = TRUE)", "ifelse(x > 0, 1, 0)", "ifelse(a == 'a2', x, z)",
  "ifelse(x > 0, 'hi', 'lo')*z", "I(a == 'a2')", "I(a %in% c('a1', 'a3'))", "interaction(a, b)",
  "interaction(b, factor(k), sep = '_')", "as.integer(factor(a))", "as.numeric(time)*x", "as.integer(z)", "as.numeric(flag)",
  "dummy(a, 'a2')", "dummy(a)", "I(x - mean(x))", "I((x - mean(x)) / sd(x)) + I(x > median(x))", "scale(x, center = FALSE)",
  "x - (z + 1)", "a/(b + x)", "(a*b)/x", "(a + b + x)^3 - a:x")

random_formulas <- c(
  "(1 | school)", "(x | school)", "(0 + x | id)", "(-1 + x | id)", "(x || school)", "(x*z || school)", "(1 | school/room)",
  "(x | school/room)", "(1 | school:room)", "(1 | id) + (1 | school)", "(1 | school) + (1 | id)", "(1 | school) + (1 | id) + (1 | a)",
  "(b | school)", "(0 + b | school)", "(time | school)", "(0 + time | room)", "(b*x | room)", "(1 | room) + (0 + b | school)",
  "(poly(x, 2) | room)", "(1 | school) + (0 + x | school) + (1 | room)", "(1 | a/b/room)", "(x || school/room)", "(1 | id) + (z || a)",
  "(0 + dummy(a, 'a2') | school)", "(dummy(b, 'v') + I(x - mean(x)) | room)")

type3_models <- c(
  "a*b", "a*b*x", "a*time", "a*x + z", "a + b + x", "a", "0 + a + b", "x + a:x", "a*poly(x, 2)", "a*poly(x, 2, raw = TRUE)", "b*ns(x, df = 3)", "C(a, contr.sum)*b", "a:b + a",
  "time*flag + I(x^2)", "a*dose", "dose*b*flag", "b*cell", "b*cell + time")

columns <- function(m) lapply(seq_len(ncol(m)), function(j) unname(m[, j]))

main <- function(output) {
  raw <- make_data()
  data <- as_read(raw)
  control <- lmerControl(check.nobs.vs.nRE = "ignore", check.nobs.vs.rankZ = "ignore", check.nobs.vs.nlev = "ignore")
  fixed <- lapply(setNames(nm = fixed_formulas), function(f) {
    m <- model.matrix(as.formula(paste("~", f)), data)
    list(names = I(colnames(m)), columns = columns(m))
  })
  random <- lapply(setNames(nm = random_formulas), function(f) {
    terms <- lFormula(as.formula(paste("y ~ 1 +", f)), data, control = control)$reTrms
    groups <- names(terms$cnms)
    Map(function(group, names, Zt) {
      factor <- terms$flist[[group]]
      dense <- array(as.matrix(Zt), c(length(names), nlevels(factor), nrow(data)))
      list(group = group, names = I(names), levels = levels(factor), codes = as.integer(factor) - 1L,
           columns = lapply(seq_along(names), function(k) colSums(dense[k, , ])))
    }, groups, unname(terms$cnms), unname(terms$Ztlist)) |> unname()
  })
  type3 <- lapply(setNames(nm = type3_models), function(f) {
    fit <- lmerTest::lmer(as.formula(paste("y ~", f, "+ (1 | id)")), data)
    by_term <- function(type, column) {
      table <- anova(fit, type = type)
      as.list(setNames(table[[column]], rownames(table)))
    }
    contrasts <- lmerTest:::get_contrasts_type3(fit)
    list(coefficients = I(names(fixef(fit))), estimate = I(unname(fixef(fit))), vcov = unname(as.matrix(vcov(fit))),
         contrasts = lapply(contrasts, unname), num_df = by_term(3, "NumDF"), F = by_term(3, "F value"),
         F_type1 = by_term(1, "F value"), F_type2 = by_term(2, "F value"))
  })
  packages <- c("lme4", "lmerTest", "splines", "jsonlite")
  meta <- list(date = format(Sys.Date()), R = R.version.string, script = "tests/reference/formula_matrices.R",
               packages = as.list(setNames(vapply(packages, function(p) as.character(packageVersion(p)), ""), packages)))
  raw$time <- as.character(raw$time)
  raw$dose <- as.character(raw$dose)
  write_json(list(meta = meta, data = as.list(raw), fixed = fixed, random = random, type3 = type3),
             file.path(output, "formula_matrices.json"), digits = 12, auto_unbox = TRUE, na = "null")
}

main(commandArgs(trailingOnly = TRUE)[1])
