"""Rollouts: which share of the units a candidate gets, and when that changes."""
