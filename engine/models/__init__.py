"""Networks; each forward returns features and logits."""
