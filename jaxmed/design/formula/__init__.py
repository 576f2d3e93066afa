"""lme4's formula language: from a formula and a table to the arrays of a mixed model."""
