"""trainctl: launch, watch and compare adversarial-training runs from one terminal."""

__version__ = "0.1.0"
