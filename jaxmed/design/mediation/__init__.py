"""The columns of a mediation: from arguments and a table to the equations of a system."""
