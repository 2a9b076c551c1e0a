"""Whether a difference is real: contrasts, variance, resampling, power."""
