"""Attacks of training and evaluation."""
