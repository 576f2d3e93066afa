"""Estimates to uncertainty: effects, resampling, intervals. No pandas here."""
