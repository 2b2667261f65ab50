"""Taxi trip duration in minutes, from New York's raw trip records."""
