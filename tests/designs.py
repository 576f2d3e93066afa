"""Designs straight from a table and arguments, without a fit."""

from jaxmed.design.checks import read_table
from jaxmed.design.mediation import matrices
from jaxmed.design.mediation.arguments import MediationArguments


def mediation_design(data, **arguments):
    """The design of ``jaxmed.mediate(data, **arguments)``."""
    return matrices.mediation_design(read_table(data), MediationArguments(**arguments))
