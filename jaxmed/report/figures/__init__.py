"""Figures, a module for each: tables and results in, drawn axes out. matplotlib is imported when something is drawn."""
