"""Recipes: found by name, read with what they extend, checked, and planned into runs."""
