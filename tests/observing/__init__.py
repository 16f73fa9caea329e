"""Seeing inside and steering."""
