"""Loss terms that any method can carry."""
