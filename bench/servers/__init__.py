"""The contestants, one module each: how it is configured, started and talked to."""
