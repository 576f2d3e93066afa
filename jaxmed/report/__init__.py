"""Results for people: tables, summaries, result objects."""
