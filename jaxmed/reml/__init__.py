"""Arrays to estimates: the joint restricted likelihood and its optimisation. No pandas here."""
