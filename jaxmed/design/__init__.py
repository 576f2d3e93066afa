"""Tables to arrays: roles, centring, design matrices. No JAX here."""
